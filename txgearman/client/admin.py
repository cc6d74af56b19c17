"""The admin client: sends admin commands, which are lines of text, and matches the replies.

Replies are parsed in `txgearman.wire.replies`. Jobs are submitted elsewhere.
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
from txgearman.wire.limits import MAX_HANDLE, MAX_LINE, MAX_PACKET
from txgearman.wire.names import escape_word, has_escapes
from txgearman.wire.packets import ECHO_REQ, ECHO_RES, REQUEST, RESPONSE
from txgearman.wire.replies import (
    BulkResult,
    ConnectionStatus,
    DeadJobEntry,
    FunctionStatus,
    JobEntry,
    JobInfo,
    PriorityStatus,
)

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class ParseRows(Protocol[_T_co]):
    """Parses the rows of a list. `escaped` is whether the server has escaped the names in them."""

    def __call__(self, lines: Sequence[bytes], escaped: bool) -> _T_co: ...


ADMIN_TIMEOUT: Final = 30.0
"""Default of ``timeout``: seconds that an admin command may take. Twisted's connections have the same
timeout. A list of a million jobs takes a few seconds."""

MAX_REPLY_LINE: Final = MAX_PACKET // 3 * 4 + 1024
"""Bytes of one line of a reply at most, some 85 MiB: ``show job`` has a payload in base64 in one line. Beside
that all functions of a worker are in one line."""

LARGEST_LIMIT: Final = 2**31 - 1
"""Jobs of the largest limit of ``maxqueue``. gearmand parses it to 32 bits."""


class Admin:
    """Sends admin commands to one server, ours or gearmand.

    It connects when it is first used, and at the first call after the connection was lost. Commands can be
    sent without waiting for earlier ones. Use it with ``async with``, or call `close` at the end.

    Each Deferred that it returns fails with `AdminError` if the server refuses the command, with
    `NotConnected` or `ConnectionLost`, or with `TimedOut`. A timeout aborts the connection, so other commands
    that wait on it fail with `ConnectionLost`. Wrong arguments raise `ValueError` or `TypeError` at the call.
    Names and handles can be str or bytes; those of replies are str.

    Args:
        reactor: The reactor, or in tests a clock.
        endpoint: The server: the string of a Twisted client endpoint, or such an endpoint.
        timeout: Seconds that each command may take, including the time to connect; None for no limit.

    Raises:
        ValueError: The endpoint is not understood, or the timeout is not a number of seconds.
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
        self._connector: Connector[AdminProtocol] = Connector(
            reactor, endpoint_from(reactor, endpoint), AdminProtocol, name=str(endpoint)
        )

    def connect(self) -> Deferred[None]:
        """Connect. This is only needed to find out early whether the server can be reached.

        Returns:
            A Deferred that fires when the server is connected.
        """
        connected = self._connector.connect().addCallback(lambda _: None)
        return self._with_timeout(connected)

    def close(self) -> Deferred[None]:
        """Close the connection for good.

        Returns:
            A Deferred that fires when it is closed.
        """
        return self._connector.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    # -- asking ---------------------------------------------------------------------------------

    def status(self) -> Deferred[tuple[FunctionStatus, ...]]:
        """Ask for the server's functions, with the numbers of their jobs and workers.

        Returns:
            A Deferred that fires with the functions.
        """
        return self._ask_list(b"status", replies.function_statuses)

    def priority_status(self) -> Deferred[tuple[PriorityStatus, ...]]:
        """Ask for the server's functions, with the numbers of their waiting jobs by priority.

        Returns:
            A Deferred that fires with the functions.
        """
        return self._ask_list(b"prioritystatus", replies.priority_statuses)

    def workers(self) -> Deferred[tuple[ConnectionStatus, ...]]:
        """Ask for the server's connections, including this one.

        Returns:
            A Deferred that fires with the connections.
        """
        return self._ask_list(b"workers", replies.connection_statuses)

    def jobs(self) -> Deferred[tuple[JobEntry, ...]]:
        """Ask for the server's jobs.

        Returns:
            A Deferred that fires with the jobs.
        """
        return self._ask_list(b"show jobs", replies.job_entries)

    def unique_jobs(self) -> Deferred[tuple[str, ...]]:
        """Ask for the uniques of the server's jobs.

        Returns:
            A Deferred that fires with the uniques, an empty one for each job without.
        """
        return self._ask_list(b"show unique jobs", replies.uniques)

    def job(self, handle: str | bytes) -> Deferred[JobInfo]:
        """Ask for all that the server knows of a job: one that waits, runs, is dead, or ended not long ago.

        gearmand refuses this.

        Args:
            handle: The job's handle.

        Returns:
            A Deferred that fires with what is known. It fails with an `AdminError` that begins with
            ``UNKNOWN_JOB`` if that is nothing.

        Raises:
            ValueError: The handle cannot be sent.
        """
        return self._ask_list(b"show job " + _escaped_handle(handle), replies.job_info)

    def dead(self, function: str | bytes | None = None) -> Deferred[tuple[DeadJobEntry, ...]]:
        """Ask for the server's dead jobs: background jobs that failed and are kept, to be run again.

        gearmand has none, and refuses this.

        Args:
            function: The name of the function whose dead jobs are meant; None for those of all functions.

        Returns:
            A Deferred that fires with the dead jobs, those that died last first.

        Raises:
            ValueError: The name cannot be sent.
        """
        line = b"show dead" if function is None else b"show dead " + _escaped_function(function)
        return self._ask_list(line, replies.dead_job_entries)

    def version(self) -> Deferred[str]:
        """Ask for the server's version.

        Returns:
            A Deferred that fires with the version, which is text.
        """
        return self._ask_line(b"version", replies.said)

    def getpid(self) -> Deferred[int]:
        """Ask for the server's process id.

        Returns:
            A Deferred that fires with the number.
        """
        return self._ask_line(b"getpid", replies.number)

    def verbose(self) -> Deferred[str]:
        """Ask for the server's level of logging.

        Returns:
            A Deferred that fires with the name of the level.
        """
        return self._ask_line(b"verbose", replies.said)

    # -- administration -------------------------------------------------------------------------

    def set_max_queue(self, function: str | bytes, *limits: int | None) -> Deferred[None]:
        """Limit the number of jobs of a function. The server refuses further jobs.

        gearmand ignores this for a function that it does not know yet.

        Args:
            function: The name of the function.
            *limits: One limit for all priorities, or three: for high, normal and low. A limit of None or 0 is
                removed. No argument removes all limits.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent, or a limit is negative or too large, or there are two or more
                than three.
        """
        if len(limits) not in (0, 1, 3):
            raise ValueError(f"there is one limit or three, not {len(limits)}")
        for limit in limits:
            if limit is not None:
                check_count(limit, "a limit", 0, LARGEST_LIMIT)
        name = _admin_word(function_bytes(function), "the function's name")
        return self._ask_done(b" ".join([b"maxqueue", name, *(b"%d" % (limit or 0) for limit in limits)]))

    def cancel(self, handle: str | bytes, force: bool = False) -> Deferred[None]:
        """Cancel a job. Clients that wait for it are told that it has failed.

        A worker that runs it is told to stop, if it has asked for that, as those of txgearman do. Others go
        on, and what they report is dropped.

        Args:
            handle: The job's handle.
            force: Whether to end the connection of a worker that cannot be told. Its other jobs are given to
                others. gearmand refuses this.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The handle cannot be sent.
        """
        line = b"cancel job " + _admin_word(name_bytes(handle, "the handle", MAX_HANDLE), "the handle")
        return self._ask_done(line + b" force" if force else line)

    def retry(self, handle: str | bytes) -> Deferred[None]:
        """Run a dead job again, with its attempts anew, or at once a job that waits for its next attempt.

        gearmand refuses this, and all of the next four.

        Args:
            handle: The job's handle.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that begins with
            ``UNKNOWN_JOB`` if the job is neither, with ``UNIQUE_IN_USE`` if another job has its unique now.

        Raises:
            ValueError: The handle cannot be sent.
        """
        return self._ask_done(b"retry job " + _escaped_handle(handle))

    def forget(self, handle: str | bytes) -> Deferred[None]:
        """Delete a dead job, with its data.

        Args:
            handle: The job's handle.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that begins with
            ``UNKNOWN_JOB`` if the job is not dead.

        Raises:
            ValueError: The handle cannot be sent.
        """
        return self._ask_done(b"forget job " + _escaped_handle(handle))

    def kill(self, handle: str | bytes) -> Deferred[None]:
        """Make a job dead that waits for its next attempt.

        Args:
            handle: The job's handle.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that begins with
            ``UNKNOWN_JOB`` if the job does not wait for an attempt.

        Raises:
            ValueError: The handle cannot be sent.
        """
        return self._ask_done(b"kill job " + _escaped_handle(handle))

    def retry_dead(self, function: str | bytes) -> Deferred[BulkResult]:
        """Run all dead jobs of a function again, but those whose unique another job has now, and those that a
        limit refuses.

        Args:
            function: The name of the function.

        Returns:
            A Deferred that fires with how many jobs that were, and how many stay dead.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_line(b"retry dead " + _escaped_function(function), replies.bulk_result)

    def forget_dead(self, function: str | bytes) -> Deferred[BulkResult]:
        """Delete all dead jobs of a function, with their data.

        Args:
            function: The name of the function.

        Returns:
            A Deferred that fires with how many jobs that were.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_line(b"forget dead " + _escaped_function(function), replies.bulk_result)

    def create_function(self, name: str | bytes) -> Deferred[None]:
        """Make a function known to the server before it has a worker or a job.

        Args:
            name: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"create function " + _admin_word(function_bytes(name), "the function's name"))

    def drop_function(self, name: str | bytes) -> Deferred[None]:
        """Make the server forget a function that has no workers and no jobs.

        Args:
            name: The name of the function.

        Returns:
            A Deferred that fires when the server has obeyed.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"drop function " + _admin_word(function_bytes(name), "the function's name"))

    def shutdown(self, graceful: bool = False) -> Deferred[None]:
        """Stop the server. gearmand since 1.1.15 refuses; ours obeys only clients on its own machine.

        Args:
            graceful: Whether to let its jobs end first.

        Returns:
            A Deferred that fires when the server has obeyed.
        """
        line = b"shutdown graceful" if graceful else b"shutdown"
        # A server that closes the connection instead of answering has obeyed.
        return self._ask_done(line, stops_server=True)

    # -- sending --------------------------------------------------------------------------------

    def _ask_list(self, line: bytes, parse: ParseRows[_T]) -> Deferred[_T]:
        return self._send(_ListCommand(line, parse))

    def _ask_line(self, line: bytes, parse: Callable[[bytes], _T]) -> Deferred[_T]:
        return self._send(_LineCommand(line, parse))

    def _ask_done(self, line: bytes, stops_server: bool = False) -> Deferred[None]:
        return self._send(_LineCommand(line, replies.done, stops_server))

    def _send(self, command: _Command) -> Deferred[Any]:
        if len(command.line) > MAX_LINE:
            raise ValueError(f"an admin command has at most {MAX_LINE} bytes, not {len(command.line)}")
        return self._with_timeout(
            self._connector.connect().addCallback(lambda protocol: protocol.ask(command))
        )

    def _with_timeout(self, pending: Deferred[_T]) -> Deferred[_T]:
        if self._timeout is not None:
            pending.addTimeout(self._timeout, self._clock, self._timed_out)
        return pending

    def _timed_out(self, _result: object, seconds: float) -> NoReturn:
        if self._connector.protocol is not None:
            self._connector.protocol.abort(f"an admin command was not answered within {seconds:g} seconds")
        raise TimedOut(f"no answer from the server within {seconds:g} seconds")


@dataclass(eq=False, slots=True)
class _LineCommand:
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
class _ListCommand:
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


_Command = _LineCommand | _ListCommand


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
        self._pending_commands: deque[_Command] = deque()
        self._received = bytearray()
        self._searched = 0
        self._rows: list[bytes] = []
        # Whether the server escapes names; None until that is known. Lists that cannot be parsed before wait.
        self._escaped: bool | None = None
        self._undecoded_lists: deque[tuple[_ListCommand, list[bytes]]] = deque()
        self._disconnected: Deferred[None] | None = None

    def ask(self, command: _Command) -> Deferred[Any]:
        """Send a command. Returns a Deferred that fires with its reply."""
        self._pending_commands.append(command)
        # If the line ends with LF alone gearmand cuts the last letter off the name.
        message = command.line + b"\r\n"
        if isinstance(command, _ListCommand):
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
        if isinstance(command, _ListCommand):
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

    def _parse_echo(self, command: _Command) -> bool:
        if not isinstance(command, _ListCommand):
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

    def _parse_list(self, command: _ListCommand, lines: list[bytes]) -> None:
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
                self.ask(_LineCommand(b"version", _server_escapes)).addCallbacks(
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
    def _answer(waiting: deque[Any], command: _Command, parse: Callable[[], Any]) -> None:
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
        commands = [*(command for command, _ in self._undecoded_lists), *self._pending_commands]
        self._undecoded_lists.clear()
        self._pending_commands.clear()
        for command in commands:
            if isinstance(command, _LineCommand) and command.stops_server:
                command.reply.callback(None)
            else:
                command.reply.errback(ConnectionLost(f"no answer came: {why}"))


def _server_escapes(version: bytes) -> bool:
    """Whether a server with this reply to ``version`` escapes names."""
    # gearmand never refuses ``version``, so a server that does is ours.
    return replies.refusal(version) is not None or replies.said(version).startswith(replies.ESCAPING)


def _admin_word(name: bytes, what: str) -> bytes:
    """Return `name` if it can be a word of a line. Raises `ValueError` for one with spaces or line ends."""
    if not name or b" " in name or b"\n" in name or b"\r" in name:
        raise ValueError(
            f"{what} cannot be sent in an admin command: it is empty, or has spaces or line ends: {name!r}"
        )
    return name


def _escaped_handle(handle: str | bytes) -> bytes:
    """A handle as a word of a command that takes escapes. Raises `ValueError` if it cannot be one."""
    word = name_bytes(handle, "the handle", MAX_HANDLE)
    if not word:
        raise ValueError("the handle must not be empty")
    return escape_word(word)


def _escaped_function(function: str | bytes) -> bytes:
    """A function as a word of a command that takes escapes. Raises `ValueError` if it cannot be one."""
    return escape_word(function_bytes(function))
