"""The connection of an admin client: lines out, replies in, matched by their order."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.errors import AdminError, BrokenStream, ConnectionLost
from txgearman.wire import replies
from txgearman.wire.codec import frame
from txgearman.wire.limits import MAX_PACKET
from txgearman.wire.names import has_escapes
from txgearman.wire.packets import ECHO_REQ, ECHO_RES, REQUEST, RESPONSE

_T_co = TypeVar("_T_co", covariant=True)


class ParseRows(Protocol[_T_co]):
    """Parses the rows of a list. `escaped` is whether the server has escaped the names in them."""

    def __call__(self, lines: Sequence[bytes], escaped: bool) -> _T_co: ...


MAX_REPLY_LINE: Final = MAX_PACKET // 3 * 4 + 1024
"""Bytes of one line of a reply at most, some 85 MiB: ``show job`` has a payload in base64 in one line. Beside
that all functions of a worker are in one line."""


@dataclass(eq=False, slots=True)
class LineCommand:
    """A command whose reply is one line.

    Attributes:
        line: The command.
        parse: Parses the reply.
        stops_server: Whether the server may close the connection instead of answering.
        reply: Fires with the reply.
    """

    line: bytes
    parse: Callable[[bytes], Any]
    stops_server: bool = False
    reply: Deferred[Any] = field(default_factory=Deferred)


@dataclass(eq=False, slots=True)
class ListCommand:
    """A command whose reply is a list.

    Attributes:
        line: The command.
        parse: Parses the rows.
        reply: Fires with the reply.
        end_mark: The server is asked to echo this after the list, which marks its end: a line of one dot may
            be a unique. It is random, so that no unique can look like it.
    """

    line: bytes
    parse: ParseRows[Any]
    reply: Deferred[Any] = field(default_factory=Deferred)
    end_mark: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())


Command = LineCommand | ListCommand


class AdminProtocol(TwistedProtocol):
    """One connection for admin commands. It matches replies with commands by their order.

    Args:
        on_ended: Called with this protocol when the connection cannot be used any more.

    Attributes:
        open: Whether commands can be sent.
        hung: Whether the connection ended because the server did not answer. Never: commands have timeouts.
    """

    MAX_LENGTH = MAX_REPLY_LINE
    hung = False
    _log = Logger()

    def __init__(self, on_ended: Callable[[AdminProtocol], object]) -> None:
        self.open = False
        self._on_ended = on_ended
        self._pending_commands: deque[Command] = deque()
        self._received = bytearray()
        self._searched = 0
        self._rows: list[bytes] = []
        # Whether the server escapes names; None until that is known. Lists that cannot be parsed before wait.
        self._escaped: bool | None = None
        self._undecoded_lists: deque[tuple[ListCommand, list[bytes]]] = deque()
        self._disconnected: Deferred[None] | None = None

    def ask(self, command: Command) -> Deferred[Any]:
        """Send a command. Returns a Deferred that fires with its reply."""
        self._pending_commands.append(command)
        # If the line ends with LF alone gearmand cuts the last letter off the name.
        message = command.line + b"\r\n"
        if isinstance(command, ListCommand):
            message += frame(REQUEST, ECHO_REQ, command.end_mark)
        cast(ITCPTransport, self.transport).write(message)
        return command.reply

    def close(self, why: str) -> Deferred[None]:
        """End the connection at once: no written command matters any more.

        Args:
            why: The reason, for the errors of those who wait for replies.

        Returns:
            A Deferred that fires when the connection is closed.
        """
        self.abort(why)
        if self._disconnected is None:
            return succeed(None)
        disconnected: Deferred[None] = Deferred()
        self._disconnected.addCallback(lambda _: disconnected.callback(None))
        return disconnected

    def abort(self, why: str) -> None:
        """Abort the connection.

        Args:
            why: The reason, for the errors of those who wait for replies.
        """
        self._end(why)
        if self._disconnected is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def connectionMade(self) -> None:
        self.open = True
        self._disconnected = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(reason.getErrorMessage())
        disconnected, self._disconnected = self._disconnected, None
        if disconnected is not None:
            disconnected.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if not self.open:
            return
        self._received += data
        try:
            while self.open and self._received and self._parse_next():
                pass
        except BrokenStream as error:
            self._abort_broken(error)

    def _abort_broken(self, error: BrokenStream) -> None:
        self._log.error("Aborting an admin connection: {error}", error=error)
        self.abort(f"the server broke the protocol: {error}")

    # -- parsing --------------------------------------------------------------------------------

    def _parse_next(self) -> bool:
        """Handle one line, or the echo after a list. Returns False if it has not come whole."""
        if not self._pending_commands:
            raise BrokenStream(b"", "a reply came without a command")
        command = self._pending_commands[0]
        # Only a packet begins with NUL: no name contains one.
        if not self._received[0]:
            return self._parse_echo(command)
        line = self._parse_line()
        if line is None:
            return False
        if isinstance(command, ListCommand):
            self._rows.append(line)
        else:
            self._answer(self._pending_commands, command, lambda: command.parse(line.removesuffix(b"\r")))
        return True

    def _parse_line(self) -> bytes | None:
        received = self._received
        end = received.find(b"\n", self._searched)
        self._searched = length = len(received) if end < 0 else end
        if length > self.MAX_LENGTH:
            raise BrokenStream(b"", f"a line of a reply exceeds {self.MAX_LENGTH} bytes")
        if end < 0:
            return None
        line = bytes(received[:end])
        del received[: end + 1]
        self._searched = 0
        return line

    def _parse_echo(self, command: Command) -> bool:
        if not isinstance(command, ListCommand):
            raise BrokenStream(b"", "a packet came instead of a line")
        echo = frame(RESPONSE, ECHO_RES, command.end_mark)
        came = bytes(self._received[: len(echo)])
        if not echo.startswith(came):
            raise BrokenStream(b"", f"another packet came instead of the echo after a list: {came!r}")
        if came != echo:
            return False
        del self._received[: len(echo)]
        lines, self._rows = self._rows, []
        self._parse_list(command, lines)
        return True

    def _parse_list(self, command: ListCommand, lines: list[bytes]) -> None:
        try:
            rows = replies.rows(lines)
        except AdminError as error:
            self._pending_commands.popleft()
            command.reply.errback(error)
            return
        if self._escaped is None and any(map(has_escapes, rows)):
            # For gearmand a backslash is a letter of a name. Only the version tells which server this is.
            self._pending_commands.popleft()
            if not self._undecoded_lists:
                # An error is ignored: if the connection ends the waiting lists fail anyway.
                self.ask(LineCommand(b"version", _server_escapes)).addCallbacks(
                    self._escaping_known, lambda _: None
                )
            self._undecoded_lists.append((command, rows))
        else:
            self._answer(self._pending_commands, command, lambda: command.parse(rows, bool(self._escaped)))

    def _escaping_known(self, escaped: bool) -> None:
        """It is known whether the server escapes names: parse the lists that wait for that."""
        self._escaped = escaped
        try:
            while self._undecoded_lists:
                command, rows = self._undecoded_lists[0]
                self._answer(self._undecoded_lists, command, partial(command.parse, rows, escaped))
        except BrokenStream as error:
            self._abort_broken(error)

    @staticmethod
    def _answer(waiting: deque[Any], command: Command, parse: Callable[[], Any]) -> None:
        """Fire the command's `reply` with what `parse` returns, and remove the command from `waiting`.

        Raises `BrokenStream` for a reply that cannot be parsed. The command then waits for the connection's
        end.
        """
        fire: Callable[[], object]
        try:
            fire = partial(command.reply.callback, parse())
        except AdminError as error:
            fire = partial(command.reply.errback, error)
        waiting.popleft()
        fire()

    def _end(self, why: str) -> None:
        if not self.open:
            return
        self.open = False
        self._on_ended(self)
        refusal = replies.refusal(self._rows[0].removesuffix(b"\r")) if len(self._rows) == 1 else None
        if refusal is not None:
            # A server that refuses a connection says so and closes it, so no echo ends this list.
            self._pending_commands.popleft().reply.errback(AdminError(refusal))
        commands = [*(command for command, _ in self._undecoded_lists), *self._pending_commands]
        self._undecoded_lists.clear()
        self._pending_commands.clear()
        for command in commands:
            if isinstance(command, LineCommand) and command.stops_server:
                command.reply.callback(None)
            else:
                command.reply.errback(ConnectionLost(f"no answer came: {why}"))


def _server_escapes(version: bytes) -> bool:
    """Whether a server with this reply to ``version`` escapes names."""
    # gearmand never refuses ``version``, so a server that does is ours.
    return replies.refusal(version) is not None or replies.said(version).startswith(replies.ESCAPING)
