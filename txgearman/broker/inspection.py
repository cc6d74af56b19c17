"""What can be read of a broker: counts, functions, jobs. Nothing here changes anything."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from txgearman.broker.entities import Function, Job
from txgearman.broker.handles import number_of
from txgearman.broker.job_states import PRIORITIES, JobState
from txgearman.broker.meters import Counts, FunctionMeasures, blocked_of, failures_of
from txgearman.broker.policy import NO_RUN_RULES
from txgearman.broker.stored_queue import NO_STORED_QUEUE
from txgearman.broker.views import (
    UNKNOWN,
    FunctionDetail,
    FunctionLimits,
    FunctionView,
    JobDetail,
    JobPage,
    JobStatus,
    JobView,
)
from txgearman.errors import JobNotFound

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker

_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_GONE: Final = JobState.GONE


class Inspection:
    """Read-only views of a broker, for admin lines, metrics and the web. It has no state of its own.

    Args:
        broker: What is read.
    """

    __slots__ = ("_broker",)

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @property
    def total(self) -> int:
        """How many jobs there are, scheduled and running ones included."""
        return self._broker.total

    @property
    def refused(self) -> int:
        """How many new jobs were refused because there were `Policy.max_jobs` already."""
        return self._broker.limits.refused

    @property
    def may_have_stored_jobs(self) -> bool:
        """Whether there may be jobs that only the store knows, which only `StoredJobSearch` finds."""
        return self._broker.stored_queues.may_have_stored_jobs

    @property
    def retrying(self) -> int:
        """How many jobs wait for a retry."""
        return sum(function.retrying for function in self._broker.functions.by_name.values())

    @property
    def running(self) -> int:
        """How many jobs are with workers."""
        return sum(function.running for function in self._broker.functions.by_name.values())

    @property
    def in_memory(self) -> int:
        """How many of them are in memory, and not in the store alone."""
        return self._broker.life.live

    def limits(self) -> Iterator[FunctionLimits]:
        """Walk the functions whose jobs or runs are limited, or whose new jobs were refused.

        Yields:
            The limits of one function.
        """
        for function in list(self._broker.functions.by_name.values()):
            rate = function.rate
            runs = function.run_limits
            if function.limits is not None or rate is not None or runs is not None or function.refused:
                yield FunctionLimits(
                    function.name,
                    function.limits or (None,) * PRIORITIES,
                    rate.per_second if rate else 0.0,
                    rate.burst if rate else 0,
                    function.refused,
                    NO_RUN_RULES if runs is None else runs.rules,
                )

    @property
    def function_count(self) -> int:
        """How many functions there are."""
        return len(self._broker.functions.by_name)

    @property
    def functions_refused(self) -> int:
        """How often a function was refused because there were `Policy.max_functions` already."""
        return self._broker.functions.refused

    def functions(self) -> Iterator[FunctionView]:
        """Walk all functions, in the order they were made.

        Yields:
            The counts of one function.
        """
        for function in list(self._broker.functions.by_name.values()):
            waiting = map(operator.add, function.waiting, function.scheduled)
            if function.stored_queue is not None:
                waiting = map(operator.add, waiting, function.stored_queue.alone)
            yield FunctionView(
                function.name, function.total, function.running, function.workers, tuple(waiting)
            )

    def function_details(self) -> Iterator[FunctionDetail]:
        """Walk all functions, in the order they were made, with all there is to know of each.

        Yields:
            One function.
        """
        dead = self._broker.ended_jobs.dead_job_store.counts()
        for function in list(self._broker.functions.by_name.values()):
            yield self._function_detail(function, dead.get(function.name, 0))

    def function_detail(self, name: bytes) -> FunctionDetail:
        """All there is to know of one function.

        Args:
            name: The function.

        Returns:
            What `function_details` yields for it.

        Raises:
            FunctionNotFound: There is no such function.
        """
        function = self._broker.functions.find(name)
        return self._function_detail(function, self._broker.ended_jobs.dead_job_store.counts().get(name, 0))

    def _function_detail(self, function: Function, dead: int) -> FunctionDetail:
        oldest = None
        limits = function.run_limits
        stored_queue = function.stored_queue or NO_STORED_QUEUE
        stored = stored_queue.alone
        failed = failures_of(function.uncompleted)
        uncompleted = sum(function.uncompleted)
        if function.meter is not None:
            now = self._broker.timer.clock()
            oldest = max((now - job.since for job in function.heads()), default=None)
        return FunctionDetail(
            name=function.name,
            total=function.total,
            queued=tuple(map(operator.add, function.waiting, stored)),
            stored=sum(stored),
            stored_after=tuple(stored_queue.after(priority) for priority in range(PRIORITIES)),
            scheduled=tuple(function.scheduled),
            retrying=function.retrying,
            dead=dead,
            running=function.running,
            workers=function.workers,
            paused=function.paused,
            limits=function.limits or (None,) * PRIORITIES,
            submitted=function.submitted,
            completed=function.ended - uncompleted,
            failed=failed,
            dropped=uncompleted - failed,
            requeued=function.requeued,
            refused=function.refused,
            oldest=oldest,
            runs=NO_RUN_RULES if limits is None else limits.rules,
            throttled=function.throttled,
            blocked=blocked_of(function),
            paused_itself=limits is not None and limits.paused_itself,
        )

    def job_detail(self, handle: bytes) -> JobDetail:
        """All there is to know of one job.

        Args:
            handle: The job, by any of its handles.

        Returns:
            What `detail_of` returns for it.

        Raises:
            JobNotFound: There is no such job in memory.
        """
        job = self._broker.life.handles.get(handle)
        if job is None:
            raise JobNotFound
        return self.detail_of(job)

    @property
    def last_number(self) -> int:
        """The number of the handle that was given last."""
        return self._broker.life.handles.last()

    def job_page(
        self,
        cursor: int,
        limit: int,
        wanted: Callable[[Job], bool],
        enough: Callable[[], bool] | None = None,
    ) -> JobPage:
        """One page of a list of jobs, in the order of their handles.

        Only some thousand jobs are looked at, so a page may be short, or empty, and not be the last.

        Args:
            cursor: The number of a handle: the page begins after it.
            limit: How many jobs the page may have.
            wanted: Whether a job belongs to the list.
            enough: Asked after each job: whether the page is to end here, as it has taken long for example.

        Returns:
            The page, with the number that the next one begins after.
        """
        jobs = self._broker.life.handles.after(cursor)
        found = []
        for job in jobs:
            if wanted(job):
                found.append(self.detail_of(job))
                if len(found) == limit:
                    return JobPage(tuple(found), number_of(job.handle))
            if enough is not None and enough():
                return JobPage(tuple(found), number_of(job.handle))
        return JobPage(tuple(found), number_of(jobs[-1].handle) if jobs else None)

    def detail_of(self, job: Job) -> JobDetail:
        """All there is to know of a job, as it is now.

        Args:
            job: A live job.

        Returns:
            A copy, with times in seconds.
        """
        seconds = run_in = left = next_run = None
        failures = job.failures
        if job.function.meter is not None and job.state in (_QUEUED, _RUNNING):
            seconds = self._broker.timer.clock() - job.since
        if job.deadline is not None:
            if job.state is _RUNNING:
                left = job.deadline.when - self._broker.timer.clock()
            else:
                next_run = job.deadline.when
                run_in = next_run - self._broker.timer.wall_clock()
        return JobDetail(
            handle=job.handle,
            function=job.function.name,
            unique=job.unique,
            data=job.data,
            priority=job.priority,
            background=job.background,
            reducer=job.reducer,
            state=job.state,
            losses=job.losses,
            submitted=job.submitted,
            progress=job.progress,
            clients=len(job.watchers),
            worker=job.worker,
            seconds=seconds,
            run_in=run_in,
            left=left,
            attempts=0 if failures is None else failures.attempts,
            outcome=None if failures is None or not failures.attempts else failures.outcome,
            error=b"" if failures is None else failures.error,
            started=job.started if job.state is _RUNNING else None,
            next_run=next_run,
            label=b"" if job.worker is None else job.worker.connection.label,
            runs=() if failures is None else failures.runs,
            warnings=() if failures is None else failures.warnings,
            run_at=job.run_at,
            options=job.options,
        )

    @property
    def counts_of_gone(self) -> Counts:
        """What the functions had counted that were forgotten, or dropped and not told apart."""
        return self._broker.functions.meters.gone

    def measures(self) -> list[FunctionMeasures]:
        """What was counted and timed.

        A function belongs to the same row from its making to its end. The last row keeps the counts of those
        of its functions that were dropped, and of all that were forgotten, so that no count falls.

        Returns:
            A row for each function that is told apart, and a last row for all others.
        """
        return [row for row in self.look_at_measures() if row is not None]

    def look_at_measures(self) -> Iterator[FunctionMeasures | None]:
        """Do what `measures` does one function at a time, so that the caller can let others go ahead.

        Returns:
            The rows, and None for each function that has no row of its own.
        """
        return self._broker.functions.meters.look_at(list(self._broker.functions.by_name.values()))

    def jobs(self) -> Iterator[JobView]:
        """Walk all jobs in memory, in the order they were submitted.

        Yields:
            One job.
        """
        for handle, job in self._broker.life.handles:
            # A job is also found by the handles that it has for repeated submits of one client.
            if job.state is not _GONE and handle == job.handle:
                yield JobView(
                    handle,
                    job.function.name,
                    job.unique,
                    job.losses,
                    job.background,
                    job.state is _RUNNING,
                )

    def status(self, handle: bytes) -> JobStatus:
        """The status of a job.

        Args:
            handle: The job, by any of its handles.

        Returns:
            Its status; `UNKNOWN` if there is no such job in memory.
        """
        return _status(self._broker.life.handles.get(handle))

    def status_by_unique(self, unique: bytes) -> JobStatus:
        """The status of the newest live job with a unique, whatever its function.

        Args:
            unique: The unique.

        Returns:
            Its status; `UNKNOWN` if there is no such job in memory.
        """
        return _status(self._broker.life.duplicates.by_unique.newest(unique))


def _status(job: Job | None) -> JobStatus:
    if job is None:
        return UNKNOWN
    return JobStatus(True, job.state is _RUNNING, *job.progress, len(job.watchers))
