"""Making background jobs durable: between the broker, which must not wait, and a store, which blocks.

What gathers while one transaction is written goes into the next. So one job alone waits for one commit,
and a flood of them shares it. No SQL here, and no decision about jobs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.dead_job import DeadJob
from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.histograms import Histogram
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.store_answers import StoreAnswers
from txgearman.errors import ArgumentTooLarge, LeaseLost, NotSaved, StoreUnavailable
from txgearman.net.clocks import monotonic_clock
from txgearman.server.persistence.dead_jobs import StoredDeadJobs
from txgearman.server.persistence.lease import Lease
from txgearman.server.persistence.lookups import StoreLookups
from txgearman.server.persistence.outage import Happened, Outage
from txgearman.server.persistence.pending_changes import MAX_BATCH_JOBS, Batch, End, PendingChanges
from txgearman.server.persistence.results import StoredResults
from txgearman.server.persistence.schedules import StoredSchedules
from txgearman.server.persistence.settings import StoredSettings
from txgearman.server.persistence.slots import StoredSlots
from txgearman.server.persistence.thread import InThread, log_defect, when_done
from txgearman.store.contract import (
    Coalesced,
    KeptUnique,
    Renewal,
    Store,
    StoredJob,
    Written,
)

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import Tell, TellPage

REMOVAL_DELAY: Final = 0.05
"""Seconds that a removal waits to share a transaction with others or with saves. A crash meanwhile makes jobs
that ended run again, as a crash ahead of any removal does."""

MAX_TRUSTED_AGE: Final = 5.0
"""Seconds back for which the database's clock is trusted to tell which came first: a job's end, or a submit
that another server coalesced with it. Clocks get set, and after an outage nobody knows."""

CLOCK_DRIFT: Final = 0.001
"""Seconds by which two clocks may differ in each second: twice what time services correct at most."""

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
        chance: Gives random numbers from 0 to 1, for the jitter of backoffs.

    Attributes:
        pending: What waits to be written, and what is being written; for reading alone.
    """

    def __init__(
        self,
        store: Store,
        reactor: Any,
        in_thread: InThread,
        wall_clock: Callable[[], float] = time.time,
        happened: Happened = lambda *_, **__: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._clock = monotonic_clock(reactor)
        self._in_thread = in_thread
        self._wall_clock = wall_clock
        self._answers: StoreAnswers | None = None
        self.pending = PendingChanges(self._clock, wall_clock, store.shared)
        self._lookups = StoreLookups(store, in_thread, self.pending.has_ended, self)
        # Who waits for the transaction that has all deaths and results so far.
        self._after_ends: list[Callable[[], None]] = []
        self._after_ends_in_flight: list[Callable[[], None]] = []
        self._writing: Deferred[None] | None = None
        self._next_write: IDelayedCall | None = None
        self._outage = Outage(happened)
        self._stopping = False
        self.shared = store.shared
        self.lease = Lease(store, reactor, in_thread, self._outage, self, happened)
        self.dead_jobs = StoredDeadJobs(
            store.dead_jobs, reactor, in_thread, wall_clock, self, self.pending.deaths
        )
        self.results = StoredResults(
            store.results, reactor, in_thread, wall_clock, self, self.pending.results
        )
        self.schedules = StoredSchedules(store.schedules, reactor, in_thread, wall_clock, store.shared)
        self.settings = StoredSettings(store.settings, reactor, in_thread, self.store_failed)
        self.slots = StoredSlots(store, reactor, in_thread, self.store_failed, chance)
        self.commits = 0
        self.failures = 0
        self.stored = 0
        self.rerun_elsewhere = 0
        self.late_duplicates = 0
        self.times = Histogram()
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
        self._lookups.begin(answers)
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
            broker.ended_jobs.kept_uniques.keep(kept)
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
            elif self.pending and self._outage.error is None:
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
        while self.pending and not self.lease.is_lost:
            # The store may be back by now.
            self._write()
            assert self._writing is not None
            await when_done(self._writing)
            if self._outage.error is not None:
                break
        if self.pending.unremoved:
            _log.warn(
                "{count} jobs that ended could not be removed from the store and will run again",
                count=self.pending.unremoved,
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
        self.pending.save(job)
        self._schedule_write(0)

    def remove(self, number: int, just_now: bool = True) -> None:
        self.pending.remove(number, just_now)
        self._write_soon()

    def keep_unique(self, kept: KeptUnique) -> None:
        self.pending.kept_uniques.append(kept)
        self._write_soon()

    def lost(self, job: Job) -> None:
        self.pending.lose(job)
        self._write_soon()

    def retrying(self, job: Job) -> None:
        self.pending.retry(job)
        self._write_soon()

    def died(self, number: int, dead: DeadJob) -> None:
        self.pending.bury(dead)
        self._write_soon()
        self.dead_jobs.died(dead)

    def completed(self, result: KeptResult) -> None:
        for _ in range(self.pending.complete(result, self.results.max_bytes)):
            self.results.dropped()
        self._write_soon()
        self.results.completed(result)

    def fetch(self, function: bytes, priority: int, cursor: int) -> None:
        self._lookups.fetch(function, priority, cursor)

    def page(self, function: bytes, priority: int, cursor: int, limit: int, tell: TellPage) -> None:
        self._lookups.page(function, priority, cursor, limit, tell)

    def find(self, number: int, tell: Tell) -> None:
        self._lookups.find(tell, self._store.find, number)

    def find_unique(self, unique: bytes, tell: Tell) -> None:
        self._lookups.find(tell, self._store.find_unique, unique)

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes, tell: Tell) -> None:
        self._lookups.find(tell, self._store.find_duplicate, function, unique, data)

    # -- what an operator may know --------------------------------------------------------------

    @property
    def outage(self) -> str | None:
        """Why the store cannot be used for now, or None."""
        return None if self._outage.error is None else str(self._outage.error)

    # -- what the dead jobs and results ask (EndWriter) -------------------------------------------

    def when_ends_are_written(self, go_on: Callable[[], None]) -> None:
        if self._outage.error is not None:
            go_on()
        elif self.pending.deaths or self.pending.results:
            self._after_ends.append(go_on)
            self._schedule_write(0)
        elif self.pending.deaths.in_flight or self.pending.results.in_flight:
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
        if self.pending.unremoved:
            # Their new owner cannot know that they ended, and gives them to its own workers.
            _log.warn(
                "{count} jobs that ended here will run again on the servers that took them over",
                count=self.pending.unremoved,
            )
            self.rerun_elsewhere += self.pending.unremoved
        self.pending.disown()
        self.dead_jobs.disowned()
        self.slots.regained()

    def taken_over(self, job: StoredJob) -> None:
        assert self._answers is not None
        if not self.pending.has_ended(job.number):
            self._answers.restore(job)
        # One that has ended here since it was lost with the lease stays so: its removal finds it now.
        elif self._answers.is_live(job.handle):
            # It goes on: what is to be removed is a save of it in doubt, which was refused, and not the job.
            if self.pending.removals.pop(job.number, None) is None:
                # The removal is in the thread already, behind the take-over.
                self._answers.save_again(job.handle)
            else:
                self._answers.restore(job)

    # -- writing --------------------------------------------------------------------------------

    def _schedule_write(self, delay: float) -> None:
        """Write within `delay` seconds, or after the transaction in flight."""
        if self._writing is not None or self._outage.error is not None or self._stopping:
            return
        if self._next_write is None:
            self._next_write = self._reactor.callLater(delay, self._write)
        elif delay == 0 and self._next_write.getTime() > self._reactor.seconds():
            self._next_write.reset(0)

    def _write_soon(self) -> None:
        """Write what need not be written at once."""
        if self._next_write is None:
            self._schedule_write(REMOVAL_DELAY)

    def _cancel_next_write(self) -> None:
        if self._next_write is not None and self._next_write.active():
            self._next_write.cancel()
        self._next_write = None

    def _write(self) -> None:
        self._cancel_next_write()
        self._write_began_at = self._clock()
        assert self._answers is not None
        batch = self.pending.take(self.schedules.take, self._answers.unsaved_end)
        self._after_ends_in_flight, self._after_ends = self._after_ends, []
        self._writing = self._in_thread(self._store.write, batch.changes)
        self._writing.addCallbacks(self._written, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        self._writing.addErrback(log_defect)
        self._writing.addCallback(self._write_next)

    def _written(self, written: Written, batch: Batch) -> None:
        assert self._answers is not None
        jobs, changes = batch.jobs, batch.changes
        ends = self.pending.written(changes, written.coalesced)
        self.times.add(self._clock() - self._write_began_at)
        if self._outage.end():
            _log.info("The store is available again")
            self._answers.fetch_again()
            # The next outage may begin before the next renewal is due.
            self.lease.renew()
        self.commits += 1
        not_saved = {*written.duplicates, *written.ticks_done, *written.ticks_refused}
        self.stored += len(changes.saves) - len(not_saved - batch.ended)
        for each, end in ends:
            self._remove_or_rerun(each, end)
        if not_saved or batch.ended:
            self.pending.saves[:0] = self._answer_each(written, batch)
        else:
            for job in jobs:
                self._answers.saved(job)
        self._ends_written()

    def _answer_each(self, written: Written, batch: Batch) -> list[Job]:
        """Tell the broker of jobs some of which were not saved, or had ended before; returns those to be
        saved once more."""
        assert self._answers is not None
        again = []
        for job, count in zip(batch.jobs, batch.submits, strict=True):
            number = number_of(job.handle)
            duplicate = written.duplicates.get(number)
            if number in written.ticks_done:
                # The first submit was that of the tick. Others want the job all the same.
                if self._answers.stored_before(job, b"", 1):
                    again.append(job)
            elif number in written.ticks_refused:
                if self._answers.tick_refused(job):
                    again.append(job)
            elif number in batch.ended:
                self._answers.saved(job, with_end=True)
                self._count_end(batch.changes.unsaved_ends.get(number))
            elif duplicate is None:
                self._answers.saved(job)
            # The duplicate may have ended meanwhile, as is known of an own one. Submits since then want
            # another job: another server may have ended the duplicate after this coalesced with it.
            elif self.pending.has_ended(number_of(duplicate)) or self._answers.stored_before(
                job, duplicate, count
            ):
                again.append(job)
        if written.ticks_refused:
            self.schedules.look_now()
        return again

    def _count_end(self, end: KeptResult | DeadJob | None) -> None:
        """Count what was written of a job that had ended before it was saved."""
        if isinstance(end, KeptResult):
            self.results.completed(end)
        elif end is not None:
            self.dead_jobs.died(end)

    def _remove_or_rerun(self, each: Coalesced, end: End) -> None:
        """Deal with a job that has ended and was not removed, as another server coalesced a submit with it.

        If the submit came before the job's end, the next transaction removes the job. If not, or in doubt,
        the submit is a late duplicate: the job runs again for it.
        """
        assert self._answers is not None
        ago = self._clock() - (end if isinstance(end, float) else end.ended)
        if ago <= MAX_TRUSTED_AGE and each.ago > ago * (1 + CLOCK_DRIFT):
            self.pending.end_again(each, end)
        elif self._stopping:
            # It stays in the store for whoever takes it over.
            return
        else:
            self.late_duplicates += 1
            self._answers.restore(each.job)
        self.pending.coalesced[each.job.number] = each.at

    def _failed(self, failure: Failure, batch: Batch) -> None:
        assert self._answers is not None
        jobs, changes = batch.jobs, batch.changes
        self._note_failure(failure)
        self.failures += 1
        self.pending.not_written(changes)
        lost = isinstance(failure.value, LeaseLost)
        # Nobody waits for a job of a tick, and no other server may have done the tick: it is saved later.
        ticks = {} if lost else changes.ticks
        if changes.saves and not lost:
            # Whether the transaction was committed may be unknown, and a refused job must not come back. So
            # it is removed; but not one that a take-over has brought back meanwhile: others were told of it.
            self.pending.in_doubt(
                [
                    job.number
                    for job in changes.saves
                    if job.number not in ticks and not self._answers.is_stored(job.handle)
                ]
            )
        self._ends_written()
        kept = []
        for job in jobs:
            if ticks and number_of(job.handle) in ticks:
                self._answers.not_saved_yet(job, NotSaved())
                kept.append(job)
            else:
                self._answers.not_saved(job, NotSaved())
        self._refuse_waiting()
        self.pending.saves = kept
        self.schedules.put_back(ticks)

    def _refuse_waiting(self) -> None:
        assert self._answers is not None
        waiting, self.pending.saves = self.pending.saves, []
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
        elif self.pending.saves:
            self._write()
        elif self.pending:
            self._schedule_write(REMOVAL_DELAY)
