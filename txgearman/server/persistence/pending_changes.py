"""What waits to be written to the store, and what is being written, until it is there.

No I/O and no timers here: the writer has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Set
from typing import Final, NamedTuple, TypeVar

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.job_states import JobState
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.kept_unique import KeptUnique
from txgearman.broker.stored_job import StoredJob
from txgearman.server.persistence.deaths import MAX_FAILURES, PendingDeath, PendingDeaths
from txgearman.server.persistence.pending_results import PendingResult, PendingResults
from txgearman.store.contract.changes import Changes, Coalesced, Retry
from txgearman.store.contract.schedules import Tick

MAX_BATCH_JOBS: Final = 2000
"""Jobs saved in one transaction. All their clients are answered in one turn of the reactor after it."""

MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bytes of data in one transaction, one job excepted."""

MAX_REMOVALS: Final = 20_000
"""Jobs that are removed in one transaction: after a long outage there may be very many."""

UNKNOWN_TIME: Final = -math.inf
"""The end of a job of which nobody knows when it ended."""

End = float | PendingDeath | PendingResult
"""The end of a job: of one of which nothing is kept, when it ended, by the monotonic clock."""

_T = TypeVar("_T")
_GONE: Final = JobState.GONE  # An enum's member costs two look-ups each time.


class Batch(NamedTuple):
    """What is written in one transaction.

    Attributes:
        jobs: The jobs that are to be saved.
        submits: How many submits wait for each of them.
        changes: What the store is told.
        ended: The numbers of those of the jobs that ended before they were in the store.
    """

    jobs: list[Job]
    submits: list[int]
    changes: Changes
    ended: Set[int]


class PendingChanges:
    """The changes that wait, and those of the transaction in flight.

    It is true if some wait. `saves` are jobs that are to be saved, in order. `coalesced` says when a submit
    to another server was last coalesced with a job of this one, as far as that is known.

    Args:
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        shared: Whether several servers use the store.
    """

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float], shared: bool) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._shared = shared
        self.saves: list[Job] = []
        self._saves_in_flight = 0
        # When the oldest job came that waits to be written, and when the oldest that is being written.
        self._oldest_waits_since = self._oldest_in_flight_since = 0.0
        # Jobs that have ended, by number with when they did.
        self.removals: dict[int, float] = {}
        self.removals_in_flight: dict[int, float] = {}
        self.coalesced: dict[int, float] = {}
        self.deaths = PendingDeaths()
        self.results = PendingResults()
        self.kept_uniques: list[KeptUnique] = []
        self._losses: dict[int, int] = {}
        self._retries: dict[int, Retry] = {}

    def __bool__(self) -> bool:
        return bool(
            self.saves
            or self.removals
            or self._losses
            or self._retries
            or self.deaths
            or self.results
            or self.kept_uniques
        )

    # -- what an operator may know ----------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Jobs that wait to be saved and are in no transaction yet."""
        return len(self.saves)

    @property
    def unsaved(self) -> int:
        """Jobs that are not durable yet, those in the transaction in flight included."""
        return len(self.saves) + self._saves_in_flight

    @property
    def lag(self) -> float:
        """Seconds that the oldest of them waits."""
        if not self.unsaved:
            return 0.0
        since = self._oldest_in_flight_since if self._saves_in_flight else self._oldest_waits_since
        return max(0.0, self._clock() - since)

    @property
    def unremoved(self) -> int:
        """Jobs that are done and still to be removed."""
        return len(self.removals) + len(self.deaths) + len(self.results)

    # -- what is to be written --------------------------------------------------------------------

    def has_ended(self, number: int) -> bool:
        """Whether a job has ended, though it may still be in the store."""
        return (
            number in self.removals
            or number in self.removals_in_flight
            or number in self.results
            or number in self.deaths
        )

    def save(self, job: Job) -> None:
        """A job is to be saved.

        Args:
            job: The job.
        """
        if not self.saves:
            self._oldest_waits_since = self._clock()
        self.saves.append(job)

    def remove(self, number: int, just_now: bool) -> None:
        """A job is to be removed.

        Args:
            number: The job's number.
            just_now: Whether it has ended just now, and not at a time that nobody knows.
        """
        self.removals[number] = self._clock() if just_now and self._shared else UNKNOWN_TIME

    def lose(self, job: Job) -> None:
        """A job has another number of losses.

        Args:
            job: The job.
        """
        self._losses[number_of(job.handle)] = job.losses

    def retry(self, job: Job) -> None:
        """A run of a job has failed, and it is to run again, or is running again already.

        Args:
            job: The job.
        """
        failures = job.failures
        assert failures is not None
        retry_at = self._wall_clock() if failures.retry_at is None else failures.retry_at
        self._retries[number_of(job.handle)] = Retry(
            failures.attempts, retry_at, failures.outcome, failures.error, failures.snoozes
        )

    def bury(self, dead: DeadJob) -> None:
        """A job has died just now.

        Args:
            dead: What is to be kept of it. The store has its data.
        """
        self.deaths.add(PendingDeath(dead._replace(data=None), self._now()))

    def complete(self, result: KeptResult, max_bytes: int | None) -> int:
        """A job is done just now, and its result is to be kept.

        Args:
            result: The result.
            max_bytes: How many bytes of results may wait, by `KeptResult.weight`; None for no limit.

        Returns:
            How many results are not kept, as more would wait. During an outage they would fill memory.
        """
        dropped = self.results.add(PendingResult(result, self._now()), max_bytes)
        self.removals.update((each.result.number, each.ended) for each in dropped)
        return len(dropped)

    def _now(self) -> float:
        """When a job ended that ends now. It matters where others coalesce submits with it."""
        return self._clock() if self._shared else UNKNOWN_TIME

    # -- transactions -----------------------------------------------------------------------------

    def take(
        self,
        ticks_of: Callable[[list[Job]], dict[int, Tick]],
        end_of: Callable[[Job], KeptResult | DeadJob | None],
    ) -> Batch:
        """Put what came first into the transaction that begins.

        Args:
            ticks_of: Gives the ticks of those of the jobs that are jobs of ticks.
            end_of: Gives what is to be kept of a job that has ended.

        Returns:
            What the transaction has.
        """
        kept, self.kept_uniques = self.kept_uniques[:MAX_REMOVALS], self.kept_uniques[MAX_REMOVALS:]
        jobs = self._take_jobs(end_of)
        self._saves_in_flight = len(jobs)
        self._oldest_in_flight_since = self._oldest_waits_since
        submits = [len(job.saving or ()) for job in jobs]
        # One that has ended is not written: a later one in the same transaction may have its unique.
        saves = [_stored_job(job) for job in jobs if job.state is not _GONE]
        ended: Set[int] = frozenset()
        ends: dict[int, KeptResult | DeadJob] = {}
        if len(saves) != len(jobs):
            # A stored one is removed as others are, be it that a take-over has brought it back.
            unsaved = [job for job in jobs if job.state is _GONE and not job.stored]
            ended = {number_of(job.handle) for job in unsaved}
            ends = {end.number: end for job in unsaved if (end := end_of(job)) is not None}
        # No job is removed ahead of its unique, be its result kept or not.
        removals, self.removals = _split(self.removals, 0 if self.kept_uniques else MAX_REMOVALS)
        retries, self._retries = _split(self._retries, MAX_FAILURES)
        self.removals_in_flight = removals
        deaths = self.deaths.take(MAX_FAILURES)
        results = {} if self.kept_uniques else self.results.take()
        removed = removals.keys() | deaths.keys() | results.keys() if deaths or results else removals.keys()
        changes = Changes(
            saves,
            list(removals),
            self._losses,
            {number: self.coalesced[number] for number in self.coalesced.keys() & removed},
            retries,
            {number: death.job for number, death in deaths.items()},
            ticks_of(jobs),
            kept,
            self._wall_clock(),
            frozenset(map(number_of, _whose_uniques_are_kept(jobs))),
            {number: pending.result for number, pending in results.items()},
            ends,
        )
        self._losses = {}
        return Batch(jobs, submits, changes, ended)

    def written(self, changes: Changes, left: list[Coalesced]) -> list[tuple[Coalesced, End]]:
        """The transaction took place.

        Args:
            changes: What it had.
            left: The jobs that it did not remove.

        Returns:
            These jobs with their ends.
        """
        removed, self.removals_in_flight = self.removals_in_flight, {}
        buried = self.deaths.written()
        kept = self.results.written()
        self._saves_in_flight = 0
        for number in changes.coalesced:
            self.coalesced.pop(number, None)
        numbers = [each.job.number for each in left]
        ends = [buried.get(number) or kept.get(number) or removed[number] for number in numbers]
        return list(zip(left, ends, strict=True))

    def not_written(self, changes: Changes) -> None:
        """The transaction failed: its changes wait again, ahead of the others, but for the saves.

        Args:
            changes: What it had.
        """
        self.removals.update(self.removals_in_flight)
        self.removals_in_flight = {}
        self._saves_in_flight = 0
        self.deaths.not_written()
        self.results.not_written()
        self._retries = {**changes.retries, **self._retries}
        self._losses = {**changes.losses, **self._losses}
        # Jobs that are not stored go on in an outage: those whose time is over would fill memory.
        now = self._wall_clock()
        self.kept_uniques = [kept for kept in (*changes.kept_uniques, *self.kept_uniques) if kept.until > now]

    def in_doubt(self, numbers: list[int]) -> None:
        """Jobs are refused of which nobody knows whether they were saved. Removing them comes first: a job
        that goes on for waiting clients may be saved again.

        Args:
            numbers: The jobs' numbers.
        """
        self.removals = {**dict.fromkeys(numbers, UNKNOWN_TIME), **self.removals}

    def end_again(self, each: Coalesced, end: End) -> None:
        """A job that has ended was not removed, and is to be.

        Args:
            each: The job.
            end: Its end, as `written` returned it.
        """
        if isinstance(end, PendingDeath):
            self.deaths.add(end)
        elif isinstance(end, PendingResult):
            self.results.add(end)
        else:
            self.removals[each.job.number] = end

    def disown(self) -> None:
        """The lease was lost, and the stored jobs are another server's."""
        self.removals, self.coalesced, self._losses = {}, {}, {}
        self._retries, self.kept_uniques = {}, []
        self.deaths.clear()
        self.results.clear()

    def _take_jobs(self, end_of: Callable[[Job], KeptResult | DeadJob | None]) -> list[Job]:
        """The jobs to be saved in the next transaction."""
        count = size = 0
        for job in self.saves[:MAX_BATCH_JOBS]:
            size += len(job.data)
            if job.state is _GONE:
                if self.kept_uniques:
                    # No end is written ahead of the unique that it keeps.
                    break
                end = end_of(job)
                size += 0 if end is None else end.weight
            if size > MAX_BATCH_BYTES and count:
                break
            count += 1
        jobs, self.saves = self.saves[:count], self.saves[count:]
        return jobs


def _split(waiting: dict[int, _T], most: int) -> tuple[dict[int, _T], dict[int, _T]]:
    """Up to so many that came first, and the others."""
    if len(waiting) <= most:
        return waiting, {}
    first = dict(itertools.islice(waiting.items(), most))
    for number in first:
        del waiting[number]
    return first, waiting


def _whose_uniques_are_kept(jobs: list[Job]) -> list[bytes]:
    """The handles of jobs whose uniques are to be kept. One may be kept already: by another server, or by a
    job that was in the store alone when this one was submitted, and has been completed since."""
    return [
        job.handle
        for job in jobs
        if job.extras is not None and job.options is not None and job.options.unique_for
    ]


def _stored_job(job: Job) -> StoredJob:
    number = number_of(job.handle)
    extras = job.extras
    # Past the constructor, which a named tuple has in Python: a twentieth of a durable submit.
    return tuple.__new__(
        StoredJob,
        (
            number,
            number,
            job.handle,
            job.function.name,
            job.unique,
            job.data,
            job.priority,
            None if extras is None else extras.run_at,
            0 if extras is None else extras.losses,
            job.submitted,
            None if extras is None else extras.reducer,
            None if extras is None or extras.options is None else extras.options.encode(),
            0,
            None,
            None,
            None,
            0,
        ),
    )
