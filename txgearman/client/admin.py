"""The admin client: sends admin commands, which are lines of text. Its connection is in `admin_protocol`.

Replies are parsed in `txgearman.wire.replies`. Jobs are submitted elsewhere.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.admin_protocol import (
    AdminProtocol,
    Command,
    LineCommand,
    ListCommand,
    ParseRows,
)
from txgearman.client.connector import Connector
from txgearman.connection.arguments import check_count, check_timeout, function_bytes, name_bytes
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import TimedOut
from txgearman.wire import replies
from txgearman.wire.limits import MAX_HANDLE, MAX_LINE
from txgearman.wire.names import escape_word
from txgearman.wire.replies import (
    BulkResult,
    ConnectionStatus,
    DeadJobEntry,
    FunctionStatus,
    JobEntry,
    JobInfo,
    PriorityStatus,
    ScheduleStatus,
)

_T = TypeVar("_T")


ADMIN_TIMEOUT: Final = 30.0
"""Default of ``timeout``: seconds that an admin command may take. Twisted's connections have the same
timeout. A list of a million jobs takes a few seconds."""

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

    def schedules(self) -> Deferred[tuple[ScheduleStatus, ...]]:
        """Ask for the server's schedules, which submit jobs again and again.

        gearmand has none, and refuses this.

        Returns:
            A Deferred that fires with the schedules, by name.
        """
        return self._ask_list(b"show schedules", replies.schedule_statuses)

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

    def create_schedule(
        self, name: str | bytes, definition: Mapping[str, Any], data: str | bytes = b""
    ) -> Deferred[None]:
        """Let a server submit a job again and again, in place of a schedule of this name.

        gearmand refuses this, and all of the next four.

        Args:
            name: What the schedule is called.
            definition: When it submits what, by the names of the settings with underscores: ``function``, and
                ``cron`` or ``every``; ``timezone``, ``unique``, ``priority``, ``jitter``, ``missed``,
                ``missed_window``, ``overlap`` and ``enabled``, if wanted.
            data: The payload of each job; str is sent as UTF-8.

        Returns:
            A Deferred that fires when the schedule is durable. It fails with an `AdminError` that says what
            is wrong with the definition, or begins with ``SCHEDULE_OF_FILE`` if the server's configuration
            file has a schedule of this name.

        Raises:
            ValueError: The name cannot be sent, or all that is too long for a command.
        """
        payload = data.encode() if isinstance(data, str) else data
        members = dict(definition)
        if payload:
            members["data_base64"] = b64encode(payload).decode("ascii")
        written = json.dumps(members, separators=(",", ":")).encode()
        return self._ask_done(b"create schedule %b %b" % (_schedule_word(name), escape_word(written)))

    def drop_schedule(self, name: str | bytes) -> Deferred[None]:
        """Remove a schedule. Jobs of it that are there go on.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable. It fails with an `AdminError` that begins with
            ``UNKNOWN_SCHEDULE`` if there is none, with ``SCHEDULE_OF_FILE`` if it is one of the server's
            configuration file.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"drop schedule " + _schedule_word(name))

    def pause_schedule(self, name: str | bytes) -> Deferred[None]:
        """Let a schedule rest. What it misses meanwhile is not made up for.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"pause schedule " + _schedule_word(name))

    def resume_schedule(self, name: str | bytes) -> Deferred[None]:
        """Let a schedule that was paused go on with its next tick.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires when that is durable.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_done(b"resume schedule " + _schedule_word(name))

    def run_schedule(self, name: str | bytes) -> Deferred[str]:
        """Submit a job of a schedule now, also if it is paused.

        Args:
            name: The schedule.

        Returns:
            A Deferred that fires with the job's handle once the job is accepted. If its unique has a live job
            it is the handle of that.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_line(b"run schedule " + _schedule_word(name), replies.said)

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
        return self._send(ListCommand(line, parse))

    def _ask_line(self, line: bytes, parse: Callable[[bytes], _T]) -> Deferred[_T]:
        return self._send(LineCommand(line, parse))

    def _ask_done(self, line: bytes, stops_server: bool = False) -> Deferred[None]:
        return self._send(LineCommand(line, replies.done, stops_server))

    def _send(self, command: Command) -> Deferred[Any]:
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


def _schedule_word(name: str | bytes) -> bytes:
    """The name of a schedule as a word of a command. Raises `ValueError` if it cannot be one."""
    word = name.encode() if isinstance(name, str) else name
    if not word or b"\0" in word:
        raise ValueError(f"the name of a schedule must not be empty or have a NUL: {name!r}")
    return escape_word(word)
