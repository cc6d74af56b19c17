"""Making background jobs durable: between the broker, which must not wait, and a store, which blocks.

What gathers while one transaction is written goes into the next. So one job alone waits for one commit,
and a flood of them shares it. No SQL here, and no decision about jobs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.histograms import Histogram
from txgearman.broker.interfaces import StoredPage
from txgearman.broker.job_states import JobState
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.store_answers import StoreAnswers
from txgearman.errors import ArgumentTooLarge, LeaseLost, LookupFailed, NotSaved, StoreError, StoreUnavailable
from txgearman.net.clocks import monotonic_clock
from txgearman.server.persistence.dead_jobs import StoredDeadJobs
from txgearman.server.persistence.deaths import MAX_FAILURES, PendingDeath, PendingDeaths
from txgearman.server.persistence.lease import Lease
from txgearman.server.persistence.outage import Happened, Outage
from txgearman.server.persistence.pending_results import PendingResult, PendingResults
from txgearman.server.persistence.results import StoredResults
from txgearman.server.persistence.schedules import StoredSchedules
from txgearman.server.persistence.settings import StoredSettings
from txgearman.server.persistence.slots import StoredSlots
from txgearman.server.persistence.thread import InThread, log_defect, when_done
from txgearman.store.contract import (
    Changes,
    Coalesced,
    KeptUnique,
    Renewal,
    Retry,
    Store,
    StoredJob,
    Written,
)

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import Tell, TellPage

MAX_BATCH_JOBS: Final = 2000
"""Jobs saved in one transaction. All their clients are answered in one turn of the reactor after it."""

MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
"""Bytes of data in one transaction, one job excepted."""

REMOVAL_DELAY: Final = 0.05
"""Seconds that a removal waits to share a transaction with others or with saves. A crash meanwhile makes jobs
that ended run again, as a crash ahead of any removal does."""

MAX_REMOVALS: Final = 20_000
"""Jobs that are removed in one transaction: after a long outage there may be very many."""

MAX_TRUSTED_AGE: Final = 5.0
"""Seconds back for which the database's clock is trusted to tell which came first: a job's end, or a submit
that another server coalesced with it. Clocks get set, and after an outage nobody knows."""

CLOCK_DRIFT: Final = 0.001
"""Seconds by which two clocks may differ in each second: twice what time services correct at most."""

INITIAL_FETCH_LIMIT: Final = 100
"""Jobs that are fetched at first, when their size is not known yet."""

_UNKNOWN_TIME: Final = -math.inf
"""The end of a job of which nobody knows when it ended."""

_T = TypeVar("_T")
_GONE: Final = JobState.GONE  # An enum's member costs two look-ups each time.
_log = Logger()


class StoreWriter:
    """The broker's `JobStore` on a `Store`: batches changes into transactions, and backs off in an outage.

    There is one transaction at a time. What gathers meanwhile goes into the next (group commit). `open` and
    `load` block, and are for the start; everything else calls the store in its thread.

    Args:
        store: The store. Closed by `close`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        wall_clock: Gives seconds since the epoch.
        happened: Is told of outages of the store, of its lease, and of jobs that were taken over.
    """

    def __init__(
        self,
        store: Store,
        reactor: Any,
        in_thread: InThread,
        wall_clock: Callable[[], float] = time.time,
        happened: Happened = lambda *_, **__: None,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._clock = monotonic_clock(reactor)
        self._in_thread = in_thread
        self._wall_clock = wall_clock
        self._answers: StoreAnswers | None = None
        self._saves: list[Job] = []
        # Jobs that have ended, by number with when they did.
        self._removals: dict[int, float] = {}
        self._removals_in_flight: dict[int, float] = {}
        # When a submit to another server was last coalesced with a job of this one, as far as it is known.
        self._coalesced: dict[int, float] = {}
        self._saves_in_flight = 0
        self._losses: dict[int, int] = {}
        self._retries: dict[int, Retry] = {}
        self._deaths = PendingDeaths()
        self._results = PendingResults()
        self._kept_uniques: list[KeptUnique] = []
        # Who waits for the transaction that has all deaths and results so far.
        self._after_ends: list[Callable[[], None]] = []
        self._after_ends_in_flight: list[Callable[[], None]] = []
        self._writing: Deferred[None] | None = None
        self._next_write: IDelayedCall | None = None
        self._outage = Outage(happened)
        self._fetch_limit = INITIAL_FETCH_LIMIT
        self._stopping = False
        self.shared = store.shared
        self.lease = Lease(store, reactor, in_thread, self._outage, self, happened)
        self.dead_jobs = StoredDeadJobs(store, reactor, in_thread, wall_clock, self)
        self.results = StoredResults(store, reactor, in_thread, wall_clock, self)
        self.schedules = StoredSchedules(store, reactor, in_thread, wall_clock)
        self.settings = StoredSettings(store, reactor, in_thread, self.store_failed)
        self.slots = StoredSlots(store, reactor, in_thread, self.store_failed)
        self.commits = 0
        self.failures = 0
        self.stored = 0
        self.rerun_elsewhere = 0
        self.late_duplicates = 0
        self.times = Histogram()
        # When the oldest job came that waits to be written, and when the oldest that is being written.
        self._oldest_waits_since = self._oldest_in_flight_since = 0.0
        self._write_began_at = 0.0

    # -- start and stop -------------------------------------------------------------------------

    def open(self, name: str, lease: float) -> int:
        """Open the store and get a lease. Blocks.

        Args:
            name: What other servers on a shared store know this one by.
            lease: Seconds until the lease expires unless it is renewed; others take over the jobs then.

        Returns:
            The last number before the first handle of this start.

        Raises:
            StoreError: The store cannot be used. The text is for the operator.
        """
        return self.lease.open(name, lease)

    def load(self, broker: Broker) -> int:
        """Give the broker the stored jobs, and the store's answers from now on. Blocks.

        Args:
            broker: The broker whose job store this is.

        Returns:
            The number of stored jobs.
        """
        self._answers = answers = StoreAnswers(broker)
        self.slots.begin(answers, self.lease.duration)
        self.settings.load(broker)
        loaded = 0
        jobs = self._store.scheduled(-1, MAX_BATCH_JOBS)
        while jobs:
            for job in jobs:
                answers.restore(job)
            loaded += len(jobs)
            jobs = self._store.scheduled(jobs[-1].position, MAX_BATCH_JOBS)
        # Last: the broker has the first jobs fetched by the thread, which must have the store for itself.
        for length in self._store.queue_lengths():
            answers.restore_stored_queue(*length)
            loaded += length.jobs
        for kept in self._store.kept_uniques(self._wall_clock()):
            broker.life.kept_uniques.keep(kept)
        self.dead_jobs.load()
        self.results.load()
        self.dead_jobs.begin(answers)
        self.results.begin()
        self.schedules.begin()
        self.settings.begin()
        self.lease.begin(answers)
        return loaded

    async def flush(self) -> None:
        """Write what waits to be written. Returns when that is done, or the store is unavailable."""
        while True:
            if self._writing is not None:
                await when_done(self._writing)
            elif self._pending and self._outage.error is None:
                self._write()
            else:
                return

    async def close(self) -> None:
        """Write what waits to be written, as far as the store takes it, and close the store."""
        await self.flush()
        self._stopping = True
        self._cancel_next_write()
        self.lease.stop()
        self.dead_jobs.stop()
        self.results.stop()
        self.schedules.close()
        self.slots.stop()
        await self.settings.close()
        while self._pending and not self.lease.is_lost:
            # The store may be back by now.
            self._write()
            assert self._writing is not None
            await when_done(self._writing)
            if self._outage.error is not None:
                break
        if self.unremoved:
            _log.warn(
                "{count} jobs that ended could not be removed from the store and will run again",
                count=self.unremoved,
            )
        await self._in_thread(self._store.close)

    def abandon(self) -> None:
        """Neither write nor read any more. The caller closes the store."""
        self._stopping = True
        self._cancel_next_write()
        self.lease.stop()
        self.dead_jobs.stop()
        self.results.stop()
        self.schedules.stop()
        self.slots.stop()
        self.settings.abandon()

    # -- the broker's verbs (JobStore) ------------------------------------------------------------

    def owns(self, job: StoredJob) -> bool:
        return self.lease.owns(job)

    def check(self, data: bytes) -> None:
        if self._outage.error is not None:
            raise NotSaved
        if len(data) > self._store.largest_data:
            raise ArgumentTooLarge(f"The store takes at most {self._store.largest_data} bytes of data")

    def save(self, job: Job) -> None:
        if not self._saves:
            self._oldest_waits_since = self._clock()
        self._saves.append(job)
        self._schedule_write(0)

    def remove(self, number: int, just_now: bool = True) -> None:
        self._removals[number] = self._clock() if just_now and self.shared else _UNKNOWN_TIME
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)

    def keep_unique(self, kept: KeptUnique) -> None:
        self._kept_uniques.append(kept)
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)

    def lost(self, job: Job) -> None:
        self._losses[number_of(job.handle)] = job.losses
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)

    def retrying(self, job: Job) -> None:
        failures = job.failures
        assert failures is not None
        assert failures.retry_at is not None
        retry = Retry(failures.attempts, failures.retry_at, failures.outcome, failures.error)
        self._retries[number_of(job.handle)] = retry
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)

    def died(self, number: int, dead: DeadJob) -> None:
        # The store has its data.
        ended = self._clock() if self.shared else _UNKNOWN_TIME
        self._deaths.add(PendingDeath(dead._replace(data=None), ended))
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)
        self.dead_jobs.died(dead)

    def completed(self, result: KeptResult) -> None:
        ended = self._clock() if self.shared else _UNKNOWN_TIME
        for dropped in self._results.add(PendingResult(result, ended), self.results.max_bytes):
            # As the store would do later. During an outage they would fill memory.
            self._removals[dropped.result.number] = dropped.ended
            self.results.dropped()
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)
        self.results.completed(result)

    def fetch(self, function: bytes, priority: int, cursor: int) -> None:
        limit = self._fetch_limit
        self._in_thread(self._store.fetch, function, priority, cursor, limit).addCallbacks(
            self._fetched,
            self._not_fetched,
            callbackArgs=(function, priority, limit),
            errbackArgs=(function, priority),
        ).addErrback(log_defect)

    def page(self, function: bytes, priority: int, cursor: int, limit: int, tell: TellPage) -> None:
        limit = min(limit, self._fetch_limit)

        def found(jobs: list[StoredJob]) -> None:
            there = [job for job in jobs if not self._has_ended(job.number)]
            tell(StoredPage(there, jobs[-1].position if len(jobs) == limit else None))

        self._ask(found, tell, self._store.fetch, function, priority, cursor, limit)

    def find(self, number: int, tell: Tell) -> None:
        self._find(tell, self._store.find, number)

    def find_unique(self, unique: bytes, tell: Tell) -> None:
        self._find(tell, self._store.find_unique, unique)

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes, tell: Tell) -> None:
        self._find(tell, self._store.find_duplicate, function, unique, data)

    # -- what an operator may know --------------------------------------------------------------

    @property
    def outage(self) -> str | None:
        """Why the store cannot be used for now, or None."""
        return None if self._outage.error is None else str(self._outage.error)

    @property
    def waiting(self) -> int:
        """Jobs that wait to be saved and are in no transaction yet."""
        return len(self._saves)

    @property
    def unsaved(self) -> int:
        """Jobs that are not durable yet, those in the transaction under way included."""
        return len(self._saves) + self._saves_in_flight

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
        return len(self._removals) + len(self._deaths) + len(self._results)

    # -- what the dead jobs and results ask (EndWriter) -------------------------------------------

    def is_dying(self, number: int) -> bool:
        return number in self._deaths

    def has_unwritten_result(self, number: int) -> bool:
        return number in self._results

    def when_ends_are_written(self, go_on: Callable[[], None]) -> None:
        if self._outage.error is not None:
            go_on()
        elif self._deaths or self._results:
            self._after_ends.append(go_on)
            self._schedule_write(0)
        elif self._deaths.in_flight or self._results.in_flight:
            self._after_ends_in_flight.append(go_on)
        else:
            go_on()

    def _ends_written(self) -> None:
        """The transaction with the deaths and results has ended, whatever came of it."""
        waiting, self._after_ends_in_flight = self._after_ends_in_flight, []
        for go_on in waiting:
            go_on()

    # -- what the lease tells (LeaseHolder) -------------------------------------------------------

    def renewed(self, renewal: Renewal) -> None:
        self.store_answered()
        self.settings.renewed(renewal.settings_version)
        self.slots.renewed(renewal)

    def store_answered(self) -> None:
        # In an outage, writing is worth a try at once.
        if self._outage.error is not None and self._next_write is not None and not self.lease.is_lost:
            self._cancel_next_write()
            self._write()

    def store_failed(self, failure: Failure) -> None:
        is_tried = self._outage.error is not None
        self._note_failure(failure)
        if not (is_tried or self._writing is not None or self.lease.is_lost or self._stopping):
            self._cancel_next_write()
            self._back_off()

    def lease_lost(self) -> None:
        self._refuse_waiting()
        self._cancel_next_write()
        self.slots.lost()

    def lease_regained(self) -> None:
        if self.unremoved:
            # Their new owner cannot know that they ended, and gives them to its own workers.
            _log.warn(
                "{count} jobs that ended here will run again on the servers that took them over",
                count=self.unremoved,
            )
            self.rerun_elsewhere += self.unremoved
        self._removals, self._coalesced, self._losses = {}, {}, {}
        self._retries, self._kept_uniques = {}, []
        self._deaths.clear()
        self._results.clear()
        self.dead_jobs.disowned()
        self.slots.regained()

    def taken_over(self, job: StoredJob) -> None:
        assert self._answers is not None
        if not self._has_ended(job.number):
            self._answers.restore(job)
        # One that has ended here since it was lost with the lease stays so: its removal finds it now.
        elif self._answers.is_live(job.handle):
            # It goes on: what is to be removed is a save of it in doubt, which was refused, and not the job.
            if self._removals.pop(job.number, None) is None:
                # The removal is in the thread already, behind the take-over.
                self._answers.save_again(job.handle)
            else:
                self._answers.restore(job)

    # -- reading --------------------------------------------------------------------------------

    def _fetched(self, jobs: list[StoredJob], function: bytes, priority: int, limit: int) -> None:
        assert self._answers is not None
        if jobs:
            size = sum(len(job.data) for job in jobs) // len(jobs)
            self._fetch_limit = max(1, min(MAX_BATCH_JOBS, MAX_BATCH_BYTES // (size + 1)))
        self.store_answered()
        there = [job for job in jobs if not self._has_ended(job.number)]
        self._answers.fetched(function, priority, there, len(jobs) < limit)

    def _not_fetched(self, failure: Failure, function: bytes, priority: int) -> None:
        assert self._answers is not None
        self._answers.not_fetched(function, priority)
        self.store_failed(failure)

    def _find(self, tell: Tell, ask: Callable[..., StoredJob | None], *arguments: Any) -> None:
        def found(job: StoredJob | None) -> None:
            tell(None if job is None or self._has_ended(job.number) else job)

        self._ask(found, tell, ask, *arguments)

    def _ask(
        self,
        found: Callable[[Any], None],
        tell: Callable[[Any], None],
        ask: Callable[..., object],
        *arguments: Any,
    ) -> None:
        """Hand what the store answers to `found`, or what prevents that to `tell`."""

        def answered(answer: Any) -> None:
            found(answer)
            self.store_answered()

        def not_answered(failure: Failure) -> None:
            tell(LookupFailed())
            if isinstance(failure.value, StoreError):
                self.store_failed(failure)
            else:
                # A defect in one lookup is no reason to refuse everybody's jobs.
                _log.failure("The store failed", failure)

        self._in_thread(ask, *arguments).addCallbacks(answered, not_answered).addErrback(log_defect)

    def _has_ended(self, number: int) -> bool:
        """Whether the job has ended, though it may still be in the store."""
        return (
            number in self._removals
            or number in self._removals_in_flight
            or number in self._results
            or self.is_dying(number)
        )

    # -- writing --------------------------------------------------------------------------------

    @property
    def _pending(self) -> bool:
        return bool(
            self._saves
            or self._removals
            or self._losses
            or self._retries
            or self._deaths
            or self._results
            or self._kept_uniques
        )

    def _schedule_write(self, delay: float) -> None:
        """Write within `delay` seconds, or after the transaction in flight."""
        if self._writing is not None or self._outage.error is not None or self._stopping:
            return
        if self._next_write is None:
            self._next_write = self._reactor.callLater(delay, self._write)
        elif delay == 0 and self._next_write.getTime() > self._reactor.seconds():
            self._next_write.reset(0)

    def _cancel_next_write(self) -> None:
        if self._next_write is not None and self._next_write.active():
            self._next_write.cancel()
        self._next_write = None

    def _write(self) -> None:
        self._cancel_next_write()
        self._write_began_at = self._clock()
        self._oldest_in_flight_since = self._oldest_waits_since
        jobs = self._take_jobs()
        self._saves_in_flight = len(jobs)
        submits = [len(job.saving or ()) for job in jobs]
        # One that has ended is not written: a later one in the same transaction may have its unique.
        saves = [_stored_job(job) for job in jobs if job.state is not _GONE]
        kept, self._kept_uniques = self._kept_uniques[:MAX_REMOVALS], self._kept_uniques[MAX_REMOVALS:]
        # No job is removed ahead of its unique, be its result kept or not.
        removals, self._removals = _split(self._removals, 0 if self._kept_uniques else MAX_REMOVALS)
        retries, self._retries = _split(self._retries, MAX_FAILURES)
        self._removals_in_flight = removals
        deaths = self._deaths.take(MAX_FAILURES)
        results = {} if self._kept_uniques else self._results.take()
        self._after_ends_in_flight, self._after_ends = self._after_ends, []
        ended = removals.keys() | deaths.keys() | results.keys() if deaths or results else removals.keys()
        coalesced = {number: self._coalesced[number] for number in self._coalesced.keys() & ended}
        changes = Changes(
            saves,
            list(removals),
            self._losses,
            coalesced,
            retries,
            {number: death.job for number, death in deaths.items()},
            self.schedules.take(jobs),
            kept,
            self._wall_clock(),
            frozenset(map(number_of, _whose_uniques_are_kept(jobs))) if self.shared else frozenset(),
            {number: pending.result for number, pending in results.items()},
        )
        self._losses = {}
        self._writing = self._in_thread(self._store.write, changes)
        self._writing.addCallbacks(
            self._written, self._failed, callbackArgs=(jobs, submits, changes), errbackArgs=(jobs, changes)
        )
        self._writing.addErrback(log_defect)
        self._writing.addCallback(self._write_next)

    def _take_jobs(self) -> list[Job]:
        """The jobs to be saved in the next transaction."""
        count = size = 0
        for job in self._saves[:MAX_BATCH_JOBS]:
            size += len(job.data)
            if size > MAX_BATCH_BYTES and count:
                break
            count += 1
        jobs, self._saves = self._saves[:count], self._saves[count:]
        return jobs

    def _written(self, written: Written, jobs: list[Job], submits: list[int], changes: Changes) -> None:
        assert self._answers is not None
        removed, self._removals_in_flight = self._removals_in_flight, {}
        buried = self._deaths.written()
        kept = self._results.written()
        self._saves_in_flight = 0
        self.times.add(self._clock() - self._write_began_at)
        if self._outage.end():
            _log.info("The store is available again")
            self._answers.fetch_again()
            # The next outage may begin before the next renewal is due.
            self.lease.renew()
        self.commits += 1
        duplicates, ticks_done = written.duplicates, written.ticks_done
        self.stored += len(changes.saves) - len(duplicates) - len(ticks_done)
        for number in changes.coalesced:
            self._coalesced.pop(number, None)
        for each in written.coalesced:
            number = each.job.number
            end = buried.get(number) or kept.get(number)
            self._remove_or_rerun(each, removed[number] if end is None else end.ended, end)
        if duplicates or ticks_done:
            again = []
            for job, count in zip(jobs, submits, strict=True):
                number = number_of(job.handle)
                duplicate = duplicates.get(number)
                if number in ticks_done:
                    # The first submit was that of the tick. Others want the job all the same.
                    if self._answers.stored_before(job, b"", 1):
                        again.append(job)
                elif duplicate is None:
                    self._answers.saved(job)
                # The duplicate may have ended meanwhile, as is known of an own one. Submits since then want
                # another job: another server may have ended the duplicate after this coalesced with it.
                elif self._has_ended(number_of(duplicate)) or self._answers.stored_before(
                    job, duplicate, count
                ):
                    again.append(job)
            self._saves[:0] = again
        else:
            for job in jobs:
                self._answers.saved(job)
        self._ends_written()

    def _remove_or_rerun(
        self, each: Coalesced, ended: float, end: PendingDeath | PendingResult | None
    ) -> None:
        """Deal with a job that has ended and was not removed, as another server coalesced a submit with it.

        If the submit came before the job's end, the next transaction removes the job. If not, or in doubt,
        the submit is a late duplicate: the job runs again for it.
        """
        assert self._answers is not None
        ago = self._clock() - ended
        if ago <= MAX_TRUSTED_AGE and each.ago > ago * (1 + CLOCK_DRIFT):
            if end is None:
                self._removals[each.job.number] = ended
            elif isinstance(end, PendingDeath):
                self._deaths.add(end)
            else:
                self._results.add(end)
        elif self._stopping:
            # It stays in the store for whoever takes it over.
            return
        else:
            self.late_duplicates += 1
            self._answers.restore(each.job)
        self._coalesced[each.job.number] = each.at

    def _failed(self, failure: Failure, jobs: list[Job], changes: Changes) -> None:
        assert self._answers is not None
        self._note_failure(failure)
        self.failures += 1
        self._removals.update(self._removals_in_flight)
        self._removals_in_flight = {}
        self._deaths.not_written()
        self._results.not_written()
        self._retries = {**changes.retries, **self._retries}
        self._saves_in_flight = 0
        lost = isinstance(failure.value, LeaseLost)
        # Nobody waits for a job of a tick, and no other server may have done the tick: it is saved later.
        ticks = {} if lost else changes.ticks
        if changes.saves and not lost:
            # Whether the transaction was committed may be unknown, and a refused job must not come back. So
            # it is removed. That comes first: a job that goes on for waiting clients may be saved again. Not
            # so one that a take-over has brought back meanwhile: others were told of it.
            in_doubt = [
                job.number
                for job in changes.saves
                if job.number not in ticks and not self._answers.is_stored(job.handle)
            ]
            self._removals = {**dict.fromkeys(in_doubt, _UNKNOWN_TIME), **self._removals}
        self._losses = {**changes.losses, **self._losses}
        # Jobs that are not stored go on in an outage: those whose time is over would fill memory.
        now = self._wall_clock()
        self._kept_uniques = [
            kept for kept in (*changes.kept_uniques, *self._kept_uniques) if kept.until > now
        ]
        self._ends_written()
        kept = []
        for job in jobs:
            if ticks and number_of(job.handle) in ticks:
                self._answers.not_saved_yet(job, NotSaved())
                kept.append(job)
            else:
                self._answers.not_saved(job, NotSaved())
        self._refuse_waiting()
        self._saves = kept
        self.schedules.put_back(ticks)

    def _refuse_waiting(self) -> None:
        assert self._answers is not None
        waiting, self._saves = self._saves, []
        self.schedules.take(waiting)
        for job in waiting:
            self._answers.not_saved(job, NotSaved())

    def _note_failure(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, LeaseLost):
            self._outage.error = StoreUnavailable(str(error))
            self.lease.lose()
        else:
            self._outage.begin(failure)

    def _back_off(self) -> None:
        """Write after a backoff, if only to see whether that works."""
        self._next_write = self._reactor.callLater(self._outage.next_backoff(), self._write)

    def _write_next(self, _: object) -> None:
        self._writing = None
        if self._stopping or self.lease.is_lost:
            return
        if self._outage.error is not None:
            self._back_off()
        elif self._saves:
            self._write()
        elif self._pending:
            self._schedule_write(REMOVAL_DELAY)


def _split(waiting: dict[int, _T], most: int) -> tuple[dict[int, _T], dict[int, _T]]:
    """Up to so many that came first, and the others."""
    if len(waiting) <= most:
        return waiting, {}
    first = dict(itertools.islice(waiting.items(), most))
    for number in first:
        del waiting[number]
    return first, waiting


def _whose_uniques_are_kept(jobs: list[Job]) -> list[bytes]:
    """The handles of jobs whose uniques are to be kept: another server may keep one already."""
    return [job.handle for job in jobs if job.options is not None and job.options.unique_for]


def _stored_job(job: Job) -> StoredJob:
    number = number_of(job.handle)
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
            job.run_at,
            job.losses,
            job.submitted,
            job.reducer,
            None if job.options is None else job.options.encode(),
            0,
            None,
            None,
            None,
        ),
    )
