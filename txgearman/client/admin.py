"""The admin client: sends admin commands, which are lines of text. Its connection is in `admin_connection`.

Replies are parsed in `txgearman.wire.replies` and `txgearman.wire.listings`. Jobs are submitted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred

from txgearman.client.admin_connection import admin_word, escaped_function
from txgearman.client.admin_functions import FunctionCommands
from txgearman.client.admin_schedules import ScheduleCommands
from txgearman.connection.arguments import check_count, check_timeout, name_bytes
from txgearman.wire import listings, replies
from txgearman.wire.limits import MAX_HANDLE, MAX_UNIQUE
from txgearman.wire.listings import ConnectionInfo, JobSummary, ServerLimit
from txgearman.wire.names import escape_word
from txgearman.wire.replies import BulkResult, ConnectionStatus, DeadJobEntry, JobEntry, JobInfo


class Admin(FunctionCommands, ScheduleCommands):
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

    # -- asking ---------------------------------------------------------------------------------

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
        line = b"show dead" if function is None else b"show dead " + escaped_function(function)
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

    def find_jobs(
        self,
        *,
        function: str | bytes | None = None,
        states: Iterable[str] = (),
        unique: str | bytes | None = None,
        older_than: float | None = None,
    ) -> Deferred[tuple[JobSummary, ...]]:
        """Ask for the server's jobs, with more about each than `jobs` tells: all, or those that fit.

        Jobs in memory come in the order of their submits; then, by function and priority, those that only the
        store has. Dead jobs are no part of it. gearmand refuses this.

        Args:
            function: The name of their function.
            states: ``saving``, ``scheduled``, ``queued``, ``stored``, ``running``, ``retrying`` in any order.
                Without any all are found. ``queued`` finds stored ones, too.
            unique: Their unique.
            older_than: Seconds: only jobs that were submitted before so long.

        Returns:
            A Deferred that fires with the jobs.

        Raises:
            ValueError: A name cannot be sent, or the time is no number of seconds.
        """
        words = [b"jobs"]
        if function is not None:
            words.append(b"function=" + escaped_function(function))
        if states := list(states):
            words.append(b"state=" + admin_word(",".join(states).encode(), "the state"))
        if unique is not None:
            words.append(b"unique=" + escape_word(name_bytes(unique, "the unique", MAX_UNIQUE)))
        if older_than is not None:
            check_timeout(older_than)
            words.append(b"older-than=%.17g" % older_than)
        return self._ask_list(b" ".join(words), listings.job_summaries)

    def connections(self) -> Deferred[tuple[ConnectionInfo, ...]]:
        """Ask for the server's connections: how many jobs each has, and whether it is quiet.

        gearmand refuses this.

        Returns:
            A Deferred that fires with the connections.
        """
        return self._ask_list(b"show connections", listings.connection_infos)

    def limits(self) -> Deferred[tuple[ServerLimit, ...]]:
        """Ask for the limits of the whole server, and how much of each is used.

        gearmand refuses this.

        Returns:
            A Deferred that fires with the limits.
        """
        return self._ask_list(b"show limits", listings.server_limits)

    # -- administration -------------------------------------------------------------------------

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
        line = b"cancel job " + admin_word(name_bytes(handle, "the handle", MAX_HANDLE), "the handle")
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
        return self._ask_line(b"retry dead " + escaped_function(function), replies.bulk_result)

    def forget_dead(self, function: str | bytes) -> Deferred[BulkResult]:
        """Delete all dead jobs of a function, with their data.

        Args:
            function: The name of the function.

        Returns:
            A Deferred that fires with how many jobs that were.

        Raises:
            ValueError: The name cannot be sent.
        """
        return self._ask_line(b"forget dead " + escaped_function(function), replies.bulk_result)

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

    def drain(self) -> Deferred[None]:
        """Let the server take no new job, end when those that run have ended, or as many seconds later as its
        ``--drain-timeout`` says. What is queued stays in the store, if there is one.

        gearmand refuses this. So does a server within another program.

        Returns:
            A Deferred that fires when the server has begun with it.
        """
        return self._ask_done(b"shutdown drain", stops_server=True)

    def reload(self) -> Deferred[str]:
        """Let the server read its configuration file again.

        gearmand refuses this. So does a server within another program.

        Returns:
            A Deferred that fires with what has changed, and what needs a new start, in words. It fails with
            an `AdminError` that begins with ``WRONG_CONFIGURATION`` and says why nothing has changed.
        """
        return self._ask_line(b"reload", replies.said)

    def quiet(self, number: int, quiet: bool = True) -> Deferred[None]:
        """Let the server give no more jobs to a worker. Those that it has stay with it.

        gearmand refuses this.

        Args:
            number: The server's number for its connection, of `workers` or `connections`.
            quiet: Whether it is to get none; False undoes that.

        Returns:
            A Deferred that fires when the server has obeyed. It fails with an `AdminError` that begins with
            ``UNKNOWN_CONNECTION`` if there is none.

        Raises:
            ValueError: The number is not one.
        """
        check_count(number, "the number of a connection", 0)
        return self._ask_done(b"%b %d" % (b"quiet" if quiet else b"unquiet", number))


def _escaped_handle(handle: str | bytes) -> bytes:
    """A handle as a word of a command that takes escapes. Raises `ValueError` if it cannot be one."""
    word = name_bytes(handle, "the handle", MAX_HANDLE)
    if not word:
        raise ValueError("the handle must not be empty")
    return escape_word(word)
