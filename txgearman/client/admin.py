"""Asking a server about itself, and telling it what to do: the admin commands, as lines of text.

What the replies mean is in `txgearman.wire.replies`. Jobs are submitted elsewhere.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NoReturn, Protocol, Self, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.client.connector import Connector
from txgearman.connection.arguments import check_count, check_timeout, function_bytes, name_bytes
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import AdminError, BrokenStream, ConnectionLost, TimedOut
from txgearman.wire import replies
from txgearman.wire.codec import frame
from txgearman.wire.limits import MAX_HANDLE, MAX_LINE
from txgearman.wire.names import has_escapes
from txgearman.wire.packets import ECHO_REQ, ECHO_RES, REQUEST, RESPONSE
from txgearman.wire.replies import ConnectionStatus, FunctionStatus, JobEntry, PriorityStatus

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class ReadRows(Protocol[_T_co]):
    """Makes values of the rows of a list; `escaped` says whether the server has escaped the names in them."""

    def __call__(self, lines: Sequence[bytes], escaped: bool) -> _T_co: ...


ADMIN_TIMEOUT: Final = 30.0
"""Seconds an admin command may take, if nothing else is said: what Twisted gives a connection to be made.
A list of a million jobs takes a few."""

MAX_REPLY_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line of a reply. A worker's functions are all in one line, so that it can be long."""

LONGEST_LIMIT: Final = 2**31 - 1
"""The largest limit of ``maxqueue`` in jobs: gearmand reads it into 32 bits."""


class Admin:
    """Sends admin commands to one server, ours or gearmand.

    It connects when it is first used, and at the next call after the connection was lost. Commands may be
    sent without waiting for earlier ones. Use it with ``async with``, or call `close` at the end.

    Every Deferred it returns fails with `AdminError` if the server refuses the command, with
    `NotConnected` or `ConnectionLost`, or with `TimedOut`. After a time-out the connection is dropped, and
    other commands that wait on it fail with `ConnectionLost`. Wrong arguments raise `ValueError` or
    `TypeError` at the call. Names and handles are taken as str or bytes, and given as str.

    `reactor` is the reactor, or in tests a clock. `endpoint` is the server's address as a client takes it.
    `timeout` limits each command in seconds, including a connection that has to be made; None for no limit.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str | IStreamClientEndpoint,
        *,
        timeout: float | None = ADMIN_TIMEOUT,
    ) -> None:
        check_timeout(timeout)
        self._clock = reactor
        self._timeout = timeout
        self._link: Connector[AdminProtocol] = Connector(
            reactor, endpoint_from(reactor, endpoint), AdminProtocol, name=str(endpoint)
        )

    def connect(self) -> Deferred[None]:
        """Connect now; only needed to learn early whether it works."""
        connected = self._link.connect().addCallback(lambda _: None)
        return self._limited(connected)

    def close(self) -> Deferred[None]:
        """Close the connection, for good. Fires when it is gone."""
        return self._link.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    # -- what there is --------------------------------------------------------------------------

    def status(self) -> Deferred[tuple[FunctionStatus, ...]]:
        """The server's functions, with the numbers of their jobs and workers."""
        return self._list(b"status", replies.function_statuses)

    def priority_status(self) -> Deferred[tuple[PriorityStatus, ...]]:
        """The server's functions, with the numbers of their waiting jobs by priority."""
        return self._list(b"prioritystatus", replies.priority_statuses)

    def workers(self) -> Deferred[tuple[ConnectionStatus, ...]]:
        """The server's connections, this one among them."""
        return self._list(b"workers", replies.connection_statuses)

    def jobs(self) -> Deferred[tuple[JobEntry, ...]]:
        """The server's jobs."""
        return self._list(b"show jobs", replies.job_entries)

    def unique_jobs(self) -> Deferred[tuple[str, ...]]:
        """The uniques of the server's jobs; empty for each job without one."""
        return self._list(b"show unique jobs", replies.uniques)

    def version(self) -> Deferred[str]:
        """The server's version."""
        return self._line(b"version", replies.said)

    def getpid(self) -> Deferred[int]:
        """The server's process id."""
        return self._line(b"getpid", replies.number)

    def verbose(self) -> Deferred[str]:
        """The server's level of logging."""
        return self._line(b"verbose", replies.said)

    # -- what shall be --------------------------------------------------------------------------

    def set_max_queue(self, function: str | bytes, *limits: int | None) -> Deferred[None]:
        """Limit the number of jobs of `function`, beyond which new ones are refused.

        One limit counts for all priorities; three are for high, normal and low. None, 0, or no limit at
        all takes the limits away. gearmand ignores this for a function that it does not know yet.
        """
        if len(limits) not in (0, 1, 3):
            raise ValueError(f"there is one limit or three, not {len(limits)}")
        for limit in limits:
            if limit is not None:
                check_count(limit, "a limit", 0, LONGEST_LIMIT)
        name = _word(function_bytes(function), "the function's name")
        return self._done(b" ".join([b"maxqueue", name, *(b"%d" % (limit or 0) for limit in limits)]))

    def cancel(self, handle: str | bytes) -> Deferred[None]:
        """Cancel the job with this handle; those who wait for it are told that it failed.

        A worker that runs it is not stopped.
        """
        return self._done(b"cancel job " + _word(name_bytes(handle, "the handle", MAX_HANDLE), "the handle"))

    def create_function(self, name: str | bytes) -> Deferred[None]:
        """Make a function known to the server before it has a worker or a job."""
        return self._done(b"create function " + _word(function_bytes(name), "the function's name"))

    def drop_function(self, name: str | bytes) -> Deferred[None]:
        """Make the server forget a function that has no workers and no jobs."""
        return self._done(b"drop function " + _word(function_bytes(name), "the function's name"))

    def shutdown(self, graceful: bool = False) -> Deferred[None]:
        """Stop the server: at once, or, `graceful`, when its jobs have ended.

        gearmand has not had this command since 1.1.15, it refuses. Ours takes it only from its own machine.
        """
        line = b"shutdown graceful" if graceful else b"shutdown"
        # A server that ends instead of answering has obeyed.
        return self._done(line, ending=True)

    # -- asking ---------------------------------------------------------------------------------

    def _list(self, line: bytes, read: ReadRows[_T]) -> Deferred[_T]:
        return self._ask(_ListCommand(line, read))

    def _line(self, line: bytes, read: Callable[[bytes], _T]) -> Deferred[_T]:
        return self._ask(_LineCommand(line, read))

    def _done(self, line: bytes, ending: bool = False) -> Deferred[None]:
        return self._ask(_LineCommand(line, replies.done, ending))

    def _ask(self, command: _Command) -> Deferred[Any]:
        if len(command.line) > MAX_LINE:
            raise ValueError(f"an admin command has at most {MAX_LINE} bytes, not {len(command.line)}")
        return self._limited(self._link.connect().addCallback(lambda protocol: protocol.ask(command)))

    def _limited(self, asked: Deferred[_T]) -> Deferred[_T]:
        if self._timeout is not None:
            asked.addTimeout(self._timeout, self._clock, self._timed_out)
        return asked

    def _timed_out(self, _result: object, seconds: float) -> NoReturn:
        if self._link.protocol is not None:
            self._link.protocol.abort(f"an admin command was not answered within {seconds:g} seconds")
        raise TimedOut(f"no answer from the server within {seconds:g} seconds")


@dataclass(eq=False, slots=True)
class _LineCommand:
    """A command whose reply is one line, how to read that, and whether the command ends the server."""

    line: bytes
    read: Callable[[bytes], Any]
    ending: bool = False
    asker: Deferred[Any] = field(default_factory=Deferred)


@dataclass(eq=False, slots=True)
class _ListCommand:
    """A command whose reply is a list, and how to read that.

    Behind it the server is asked to echo `mark`, which nobody can guess: the echo alone tells where the list
    ends, as a line of one dot may be a unique.
    """

    line: bytes
    read: ReadRows[Any]
    asker: Deferred[Any] = field(default_factory=Deferred)
    mark: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())


_Command = _LineCommand | _ListCommand


class AdminProtocol(TwistedProtocol):
    """One connection for admin commands: matches replies with commands by their order.

    `on_ended` is called when it cannot be used any more.
    """

    MAX_LENGTH = MAX_REPLY_LINE
    hung = False
    """It has no check of its own; commands have their time limits."""
    _log = Logger()

    def __init__(self, on_ended: Callable[[AdminProtocol], object]) -> None:
        self.open = False
        self._on_ended = on_ended
        self._asked: deque[_Command] = deque()
        self._received = bytearray()
        self._searched = 0
        self._rows: list[bytes] = []
        # Whether the server escapes names, None until that is known; the lists that wait to be read for that.
        self._escaped: bool | None = None
        self._unread: deque[tuple[_ListCommand, list[bytes]]] = deque()
        self._gone: Deferred[None] | None = None

    def ask(self, command: _Command) -> Deferred[Any]:
        """Send a command; fires with its reply."""
        self._asked.append(command)
        # gearmand cuts the last letter off a name where the line ends in LF alone.
        message = command.line + b"\r\n"
        if isinstance(command, _ListCommand):
            message += frame(REQUEST, ECHO_REQ, command.mark)
        cast(ITCPTransport, self.transport).write(message)
        return command.asker

    def close(self, why: str) -> Deferred[None]:
        """End the connection; nothing more is written, so nothing is worth waiting for."""
        self.abort(why)
        if self._gone is None:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.addCallback(lambda _: gone.callback(None))
        return gone

    def abort(self, why: str) -> None:
        """Drop the connection; `why` is told to those who wait."""
        self._end(why)
        if self._gone is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def connectionMade(self) -> None:
        self.open = True
        self._gone = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(reason.getErrorMessage())
        gone, self._gone = self._gone, None
        if gone is not None:
            gone.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if not self.open:
            return
        self._received += data
        try:
            while self.open and self._received and self._take_next():
                pass
        except BrokenStream as error:
            self._give_up(error)

    def _give_up(self, error: BrokenStream) -> None:
        self._log.error("Dropping an admin connection: {error}", error=error)
        self.abort(f"the server broke the protocol: {error}")

    # -- what came ------------------------------------------------------------------------------

    def _take_next(self) -> bool:
        """Handle one line, or the echo behind a list; False where that has not come whole."""
        if not self._asked:
            raise BrokenStream(b"", "something came that answers nothing")
        command = self._asked[0]
        # No line begins with NUL: no name can hold one.
        if not self._received[0]:
            return self._take_echo(command)
        line = self._next_line()
        if line is None:
            return False
        if isinstance(command, _ListCommand):
            self._rows.append(line)
        else:
            self._answer(self._asked, command, lambda: command.read(line.removesuffix(b"\r")))
        return True

    def _next_line(self) -> bytes | None:
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

    def _take_echo(self, command: _Command) -> bool:
        if not isinstance(command, _ListCommand):
            raise BrokenStream(b"", "a packet came in the place of a line")
        echo = frame(RESPONSE, ECHO_RES, command.mark)
        came = bytes(self._received[: len(echo)])
        if not echo.startswith(came):
            raise BrokenStream(b"", f"another packet came than the one behind a list: {came!r}")
        if came != echo:
            return False
        del self._received[: len(echo)]
        lines, self._rows = self._rows, []
        self._take_list(command, lines)
        return True

    def _take_list(self, command: _ListCommand, lines: list[bytes]) -> None:
        try:
            rows = replies.rows(lines)
        except AdminError as error:
            self._asked.popleft()
            command.asker.errback(error)
            return
        if self._escaped is None and any(map(has_escapes, rows)):
            # To gearmand these are letters of a name. Only its version tells what a server is.
            self._asked.popleft()
            if not self._unread:
                # If the connection ends instead, those who asked for the lists are told.
                self.ask(_LineCommand(b"version", _escapes)).addCallbacks(self._learn, lambda _: None)
            self._unread.append((command, rows))
        else:
            self._answer(self._asked, command, lambda: command.read(rows, bool(self._escaped)))

    def _learn(self, escaped: bool) -> None:
        """It is known whether the server escapes names: read the lists that wait for that."""
        self._escaped = escaped
        try:
            while self._unread:
                command, rows = self._unread[0]
                self._answer(self._unread, command, partial(command.read, rows, escaped))
        except BrokenStream as error:
            self._give_up(error)

    @staticmethod
    def _answer(waiting: deque[Any], command: _Command, read: Callable[[], Any]) -> None:
        """Give what `read` returns to who asked, and take the command off those that wait.

        One whose reply cannot be read, which raises `BrokenStream`, waits on, for the connection's end.
        """
        reply: Callable[[], object]
        try:
            reply = partial(command.asker.callback, read())
        except AdminError as error:
            reply = partial(command.asker.errback, error)
        waiting.popleft()
        reply()

    def _end(self, why: str) -> None:
        if not self.open:
            return
        self.open = False
        self._on_ended(self)
        commands = [*(command for command, _ in self._unread), *self._asked]
        self._unread.clear()
        self._asked.clear()
        for command in commands:
            if isinstance(command, _LineCommand) and command.ending:
                command.asker.callback(None)
            else:
                command.asker.errback(ConnectionLost(f"no answer came: {why}"))


def _escapes(version: bytes) -> bool:
    """Whether a server with this answer to ``version`` escapes names."""
    # gearmand refuses that to nobody.
    return replies.refusal(version) is not None or replies.said(version).startswith(replies.ESCAPING)


def _word(name: bytes, what: str) -> bytes:
    """`name`, if it can be one word of a line. Raises `ValueError` for one with spaces or line ends."""
    if not name or b" " in name or b"\n" in name or b"\r" in name:
        raise ValueError(f"{what} cannot be said in an admin command: {name!r}")
    return name
