"""What the blocking client can do that python-gearman cannot. Nothing here touches a request.

Most of it is done by one Twisted client of all servers, which the background thread has beside the
connections of `connection_list`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred

from txgearman.blocking.background_thread import (
    GRACE_SECONDS,
    BackgroundResource,
    BackgroundThread,
    background_thread,
)
from txgearman.blocking.connection import GearmanConnection
from txgearman.blocking.connection_manager import GearmanConnectionManager, Servers
from txgearman.blocking.constants import PRIORITY_NONE
from txgearman.blocking.data_encoder import bytes_of
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import InvalidClientState, ServerUnavailable
from txgearman.blocking.job import GearmanJob, GearmanJobRequest
from txgearman.blocking.name import Name
from txgearman.blocking.submission import AnyPriority, priority_of
from txgearman.client import Client, JobOutcome
from txgearman.client.job_window import WINDOW_JOBS, JobWindow, window_of, with_uniques
from txgearman.connection.arguments import name_bytes
from txgearman.errors import ConnectionLost, JobError, NotSupported, UnknownJob
from txgearman.wire.limits import MAX_HANDLE


class ClientAdditions(GearmanConnectionManager):
    """The methods of `GearmanClient` that python-gearman has no counterpart of.

    Args:
        host_list: The servers, such as ``["localhost:4730"]``, or one as text.
    """

    def __init__(self, host_list: Servers | None = None) -> None:
        super().__init__(host_list)
        self._servers: list[GearmanConnection] = []
        self._twisted = BackgroundResource(self, self._new_twisted_client, Client.close)

    def run_many(
        self,
        task: str | bytes,
        payloads: Iterable[Any],
        uniques: Iterable[str | bytes | None] | None = None,
        priority: AnyPriority = PRIORITY_NONE,
        ordered: bool = True,
        window: int = WINDOW_JOBS,
        **options: Any,
    ) -> Iterator[JobOutcome]:
        """Submit very many online jobs of one task, and iterate over their outcomes as they come.

        Jobs are submitted while the iterator is asked for outcomes, and not before. When the iteration is
        left early, the jobs that have not ended are given up. The server may still run them.

        Args:
            task: The name of the function.
            payloads: The jobs' inputs; what the data encoder takes. An iterator may yield more than fits into
                memory: it is read no further ahead than the `window`.
            uniques: One for each payload, as for `submit_job`; None for a job without.
            priority: As for `submit_job`, the same for all.
            ordered: Whether outcomes come in the order of the payloads. Otherwise they come as jobs end.
            window: How many jobs are submitted, or have ended and were not asked for, at a time.
            **options: ``retry`` and ``timeout`` of `txgearman.client.Client.run_many`, and those of
                `submit_job`, the same for all.

        Yields:
            A `txgearman.client.JobOutcome` for each job. Its ``result()`` returns the result, as the data
            encoder decodes it, or raises an error of `txgearman.errors`.

        Raises:
            ServerUnavailable: The background thread has ended.
            Exception: What `payloads` raises, or the data encoder.
        """
        jobs = with_uniques(map(self.encode_data, payloads), uniques)
        thread, client = self._twisted_client()
        options["priority"] = priority_of(priority)
        many = window_of(client.submit, bytes_of(task), ordered, window, **options)
        try:
            room = window
            while (taken := thread.call(_run, many, list(islice(jobs, room)), timeout=None))[0]:
                outcomes, room = taken
                for outcome in outcomes:
                    yield self._decoded(outcome)
        finally:
            thread.post(many.cancel)

    def schedule(
        self,
        task: str | bytes,
        data: Any,
        minute: str = "*",
        hour: str = "*",
        day: str = "*",
        month: str = "*",
        weekday: str = "*",
        unique: str | bytes | None = None,
        poll_timeout: float | None = None,
    ) -> Name:
        """Let a server submit an offline job again and again. gearmand refuses it.

        The fields are those of cron, in UTC. A `day` and a `weekday` that are both given mean either. It
        replaces the schedule of this task with the same `unique`.

        Args:
            task: The name of the function.
            data: The input of each job; what the data encoder takes.
            minute: When; ``*/5`` is each fifth minute.
            hour: When.
            day: On which days of the month.
            month: In which months, by number or name.
            weekday: On which days of the week. Give names, such as ``mon-fri``.
            unique: The key of the jobs. Without one the schedule is told from others by all that it is.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The schedule's handle, for `unschedule`, once the server has saved the schedule.

        Raises:
            ServerUnavailable: No server can be reached, or the connection was lost.
            TimedOut: The time is over. This and that below are in `txgearman.errors`.
            ServerError: The server refuses.
        """
        times = {"minute": minute, "hour": hour, "day": day, "month": month, "weekday": weekday}
        key = None if unique is None else bytes_of(unique)
        name, payload = bytes_of(task), self.encode_data(data)
        handle: bytes = self._ask(
            lambda client: client.schedule(name, payload, unique=key, timeout=poll_timeout, **times),
            poll_timeout,
        )
        return Name.of(handle)

    def unschedule(self, handle: str | bytes, poll_timeout: float | None = None) -> None:
        """Remove a schedule. Jobs of it that are there go on.

        Args:
            handle: What `schedule` has returned.
            poll_timeout: Seconds for each server; None for no limit.

        Raises:
            ServerUnavailable: No server can be reached.
            TimedOut: The time is over. This and that below are in `txgearman.errors`.
            AdminError: No server knows the handle.
        """
        name = bytes_of(handle)
        limit = None if poll_timeout is None else poll_timeout * max(1, len(self.connection_list))
        self._ask(lambda client: client.unschedule(name, poll_timeout), limit)

    def _ask(self, ask: Callable[[Client], Deferred[Any]], timeout: float | None) -> Any:
        """What the Twisted client answers. The limit is its own."""
        thread, client = self._twisted_client()
        try:
            return thread.call(ask, client, timeout=None if timeout is None else timeout + GRACE_SECONDS)
        except ConnectionLost as error:
            raise ServerUnavailable(str(error)) from error

    def _decoded(self, outcome: JobOutcome) -> JobOutcome:
        if outcome.error is not None:
            return outcome
        return JobOutcome(outcome.index, self.decode_data(outcome.value))

    def shutdown(self) -> None:
        """Close all connections. The next use connects again."""
        self._twisted.close()
        super().shutdown()

    def _twisted_client(self) -> tuple[BackgroundThread, Client]:
        """The background thread, and the Twisted client of all servers there."""
        if not self.connection_list:
            raise ServerUnavailable("the client has no server")
        background_thread().refuse_in_own_thread()
        if self._servers != self.connection_list:
            self._twisted.close()
            self._servers = list(self.connection_list)
        return self._twisted.get()

    def _new_twisted_client(self, reactor: Any) -> Client:
        # By its name each job with a unique goes to the server that the other methods choose for it.
        return Client(
            reactor,
            [server.endpoint(reactor) if server.is_encrypted else server.name for server in self._servers],
        )

    def result(
        self,
        job: GearmanJobRequest | GearmanJob | str | bytes,
        wait: bool = True,
        poll_timeout: float | None = None,
    ) -> Any:
        """Ask for the result of an offline job, if the server keeps results of its function.

        Args:
            job: The request, the job, or its handle. For a handle the servers are asked in turn, until one
                knows of the job.
            wait: Whether to wait until the job has ended.
            poll_timeout: Seconds to wait; None for no limit.

        Returns:
            The result, as the data encoder decodes it.

        Raises:
            InvalidClientState: The job has no handle.
            ServerUnavailable: No server can be reached.
            TimedOut: The time is over. This and those below are in `txgearman.errors`.
            JobError: There is no result: `JobFailed`, `JobRaised`, `ResultGone`, `UnknownJob`, or
                `ResultPending` without `wait`.
            NotSupported: The server has no results.
        """
        given = job.job if isinstance(job, GearmanJobRequest) else job
        handle = given.handle if isinstance(given, GearmanJob) else given
        if not handle:
            raise InvalidClientState(f"the job has no handle: {job!r}")
        name = name_bytes(bytes_of(handle), "the handle", MAX_HANDLE)
        connection = given.connection if isinstance(given, GearmanJob) else None
        deadline = Deadline(poll_timeout)
        if connection is None:
            connection = self._server_that_knows(name, deadline)
        return self.decode_data(connection.result(name, wait, deadline.remaining()))

    def _server_that_knows(self, handle: bytes, deadline: Deadline) -> GearmanConnection:
        """The first server that can be reached and knows of a job. Raises what the last one says if none
        does."""
        if not self.connection_list:
            raise ServerUnavailable("the client has no server")
        *others, last = self.connection_list
        for connection in others:
            try:
                connection.result(handle, False, deadline.remaining())
            except (ServerUnavailable, UnknownJob, NotSupported):
                continue
            except JobError:
                return connection
            return connection
        return last


def _run(window: JobWindow, jobs: list[tuple[bytes, Any]]) -> Deferred[tuple[list[JobOutcome], int]]:
    """Submit these jobs. Fires with outcomes, none if all were taken, and how many jobs to submit next."""
    for data, unique in jobs:
        window.run(data, unique)
    return window.ready().addCallback(lambda _: (window.take(), window.room))
