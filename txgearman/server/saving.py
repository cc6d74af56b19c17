"""Making background jobs durable: between the broker, which must not wait, and a store, which blocks.

What gathers while one transaction is written goes into the next. So one job alone waits for one commit,
and a flood of them shares it. No SQL here, and no decision about jobs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.histograms import Histogram
from txgearman.broker.interfaces import StoredPage
from txgearman.broker.states import JobState
from txgearman.broker.store_answers import StoreAnswers
from txgearman.errors import ArgumentTooLarge, LeaseLost, LookupFailed, NotSaved, StoreError, StoreUnavailable
from txgearman.server.clocks import steady_clock
from txgearman.store.contract import Changes, Joined, Store, StoredJob, Written

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.broker.interfaces import Tell, TellPage

InThread = Callable[..., Deferred[Any]]

NUMBERS_PER_START: Final = 10**13
"""Handles that one start of a server can give. Each start has its own range, so that no handle is ever
given twice; this many last for six years at fifty thousand jobs a second."""

MAX_JOBS: Final = 2000
"""Jobs that are saved in one transaction: what is handled in one go when it is done."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of data in one transaction, one job excepted."""

REMOVAL_PATIENCE: Final = 0.05
"""Seconds that a removal waits for others, or for something to be saved, to share its transaction. A crash
within them makes done jobs run again, which a crash ahead of any removal may do."""

MAX_REMOVALS: Final = 20_000
"""Jobs that are removed in one transaction: after a long outage there may be very many."""

LONGEST_AGO: Final = 5.0
"""Seconds back for which the database's clock is trusted to tell what came first, a job's end or a submit to
another server that was answered with it. A clock may be set, and behind an outage nobody knows."""

CLOCK_DRIFT: Final = 0.001
"""Seconds by which two clocks may differ in each second: twice what time services correct at most."""

FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 5.0
"""Seconds between two tries of a store that is unavailable: the first, and what doubling leads to."""

RENEWALS: Final = 3
"""How often in its time a lease is renewed."""

MAX_ADOPTED: Final = 1000
"""Jobs that are taken over from another server in one transaction."""

FIRST_FETCH: Final = 100
"""Jobs that are fetched at first, when their size is not known yet."""

_LONG_AGO: Final = -math.inf
"""When a job ended of which nobody knows when it did."""

_GONE: Final = JobState.GONE  # An enum's member costs two look-ups each time.
_log = Logger()


def one_thread(reactor: Any) -> tuple[InThread, Callable[[], object]]:
    """A way to call what blocks in one thread, in order, and what ends that thread."""
    pool = ThreadPool(minthreads=0, maxthreads=1, name="txgearman-store")
    pool.start()

    def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, pool, function, *arguments)

    return in_thread, pool.stop


class StoreWriter:
    """The broker's `JobStore` for a `Store`.

    `store` is used through `in_thread`, which calls a function with arguments in one thread and returns a
    Deferred; but for `open` and `load`, which block.
    """

    def __init__(self, store: Store, reactor: Any, in_thread: InThread) -> None:
        self._store = store
        self._reactor = reactor
        self._clock = steady_clock(reactor)
        self._in_thread = in_thread
        self._answers: StoreAnswers | None = None
        self._saves: list[Job] = []
        # Jobs that have ended, by number with when they did.
        self._removals: dict[int, float] = {}
        self._being_removed: dict[int, float] = {}
        # The last join of jobs that a submit to another server has joined, where something ends, or will end,
        # behind that.
        self._joins: dict[int, float] = {}
        self._being_saved = 0
        self._attempts: dict[int, int] = {}
        self._writing: Deferred[None] | None = None
        self._next_write: IDelayedCall | None = None
        self._outage: StoreUnavailable | None = None
        self._retry_delay = FIRST_RETRY
        self._fetch_limit = FIRST_FETCH
        self._stopping = False
        self.shared = store.shared
        self._name = ""
        self._start = 0
        self._lease = 0.0
        self._heard_at = 0.0
        self._renewal: LoopingCall | None = None
        self._renewing = False
        self._joining = False
        self.commits = 0
        self.failures = 0
        self.saved = 0
        self.adopted = 0
        self.done_twice = 0
        self.joined_late = 0
        self.times = Histogram()
        # When the oldest job came that waits to be written, and when the oldest that is being written.
        self._waits_since = self._writes_since = 0.0
        self._began = 0.0

    # -- start and stop -------------------------------------------------------------------------

    def open(self, name: str, lease: float) -> int:
        """Open the store; returns the number behind which handles begin. Blocks; raises `StoreError`.

        On a store that is shared this server is known by `name`, and others take its jobs over when they
        have not heard of it for `lease` seconds.
        """
        self._name, self._lease = name, lease
        self._heard_at = self._clock()
        self._start = self._store.open(name, lease)
        return self._start * NUMBERS_PER_START

    def load(self, broker: Broker) -> int:
        """Give the broker the jobs that are kept, and from now on its answers; returns how many. Blocks."""
        self._answers = answers = StoreAnswers(broker)
        loaded = 0
        jobs = self._store.scheduled(-1, MAX_JOBS)
        while jobs:
            for job in jobs:
                answers.restore(job)
            loaded += len(jobs)
            jobs = self._store.scheduled(jobs[-1].place, MAX_JOBS)
        # Last: the broker has the first jobs fetched by the thread, which must have the store for itself.
        for length in self._store.queue_lengths():
            answers.restore_stored_queue(*length)
            loaded += length.jobs
        if self.shared:
            answers.extend_lease(self._heard_at + self._lease)
            self._renewal = LoopingCall(self._renew)
            self._renewal.clock = self._reactor
            self._renewal.start(self._lease / RENEWALS).addErrback(_log_defect)
        return loaded

    async def settle(self) -> None:
        """Write what waits to be written; returns when that is done, or cannot be done now."""
        while True:
            if self._writing is not None:
                await _after(self._writing)
            elif self._pending and self._outage is None:
                self._write()
            else:
                return

    async def close(self) -> None:
        """Write what waits to be written, as far as the store lets us, and close the store."""
        await self.settle()
        self._stopping = True
        self._cancel_next()
        if self._renewal is not None:
            self._renewal.stop()
        while self._pending and not self._joining:
            # The store may be back by now.
            self._write()
            assert self._writing is not None
            await _after(self._writing)
            if self._outage is not None:
                break
        if self._removals:
            _log.warn(
                "{count} jobs that are done could not be removed from the store and will run again",
                count=len(self._removals),
            )
        await self._in_thread(self._store.close)

    def abandon(self) -> None:
        """Write nothing and ask nothing any more. The caller closes the store."""
        self._stopping = True
        self._cancel_next()
        if self._renewal is not None and self._renewal.running:
            self._renewal.stop()

    # -- the broker's verbs (JobStore) ------------------------------------------------------------

    def owns(self, job: StoredJob) -> bool:
        # A job's place is given by the server that saves or adopts it.
        return not self.shared or job.place // NUMBERS_PER_START == self._start

    def check(self, data: bytes) -> None:
        if self._outage is not None:
            raise NotSaved
        if len(data) > self._store.largest_data:
            raise ArgumentTooLarge(f"The store takes at most {self._store.largest_data} bytes of data")

    def save(self, job: Job) -> None:
        if not self._saves:
            self._waits_since = self._clock()
        self._saves.append(job)
        self._write_in(0)

    def remove(self, number: int, just_now: bool = True) -> None:
        self._removals[number] = self._clock() if just_now and self.shared else _LONG_AGO
        if self._next_write is None:
            self._write_in(REMOVAL_PATIENCE)

    def attempted(self, job: Job) -> None:
        self._attempts[number_of(job.handle)] = job.attempts
        if self._next_write is None:
            self._write_in(REMOVAL_PATIENCE)

    def fetch(self, function: bytes, priority: int, after: int) -> None:
        limit = self._fetch_limit
        self._in_thread(self._store.fetch, function, priority, after, limit).addCallbacks(
            self._fetched,
            self._not_fetched,
            callbackArgs=(function, priority, limit),
            errbackArgs=(function, priority),
        ).addErrback(_log_defect)

    def page(self, function: bytes, priority: int, after: int, most: int, tell: TellPage) -> None:
        limit = min(most, self._fetch_limit)

        def found(jobs: list[StoredJob]) -> None:
            there = [job for job in jobs if not self._has_ended(job.number)]
            tell(StoredPage(there, jobs[-1].place if len(jobs) == limit else None))

        self._ask(found, tell, self._store.fetch, function, priority, after, limit)

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
        return None if self._outage is None else str(self._outage)

    @property
    def waiting(self) -> int:
        """Jobs that wait to be saved and are in no transaction yet."""
        return len(self._saves)

    @property
    def unsaved(self) -> int:
        """Jobs that are not durable yet, those in the transaction under way included."""
        return len(self._saves) + self._being_saved

    @property
    def lag(self) -> float:
        """Seconds that the oldest of them waits."""
        if not self.unsaved:
            return 0.0
        since = self._writes_since if self._being_saved else self._waits_since
        return max(0.0, self._clock() - since)

    @property
    def unremoved(self) -> int:
        """Jobs that are done and still to be removed."""
        return len(self._removals)

    # -- several servers on one store ------------------------------------------------------------

    def _renew(self) -> None:
        """Let the other servers know that this one lives, and take over jobs of those that do not."""
        if self._renewing or self._joining:
            return
        self._renewing = True
        # The lease counts from when it was asked for, not from when the answer came.
        asked_at = self._clock()
        self._in_thread(self._store.renew).addCallbacks(
            self._renewed, self._not_renewed, callbackArgs=(asked_at,)
        ).addErrback(_log_defect)

    def _renewed(self, has_orphans: bool, asked_at: float) -> None:
        assert self._answers is not None
        self._renewing = False
        if not self._joining and not self._stopping:
            self._answers.extend_lease(asked_at + self._lease)
            self._note_success()
            if has_orphans:
                self._adopt()

    def _not_renewed(self, failure: Failure) -> None:
        self._renewing = False
        self._stumble(failure)

    def _adopt(self) -> None:
        assert self._answers is not None
        place = self._answers.reserve(MAX_ADOPTED)
        self._in_thread(self._store.adopt, MAX_ADOPTED, place).addCallbacks(
            self._adopted, self._stumble
        ).addErrback(_log_defect)

    def _adopted(self, jobs: list[StoredJob]) -> None:
        assert self._answers is not None
        if self._joining or self._stopping:
            return
        for job in jobs:
            self._answers.restore(job)
        if jobs:
            self.adopted += len(jobs)
            _log.info("{count} jobs taken over from a server that is not heard of", count=len(jobs))
        if len(jobs) == MAX_ADOPTED:
            self._adopt()

    def _join_again(self) -> None:
        """This server was not heard of in time, and its jobs belong to others: begin as a new one."""
        if self._joining or self._stopping:
            return
        assert self._answers is not None
        self._joining = True
        self._refuse_waiting()
        _log.error(
            "This server was not heard of for {lease} seconds: others have taken over its background jobs",
            lease=self._lease,
        )
        self._answers.extend_lease(self._clock())
        self._open_again()

    def _open_again(self) -> None:
        self._cancel_next()
        asked_at = self._clock()
        self._in_thread(self._store.open, self._name, self._lease).addCallbacks(
            self._joined, self._not_joined, callbackArgs=(asked_at,)
        ).addErrback(_log_defect)

    def _joined(self, start: int, asked_at: float) -> None:
        assert self._answers is not None
        if self._removals:
            # Their new owner, which cannot know that they are done, gives them to its own workers.
            _log.warn("{count} jobs were done here and are run again elsewhere", count=len(self._removals))
            self.done_twice += len(self._removals)
        self._removals, self._joins, self._attempts = {}, {}, {}
        self._joining = False
        self._outage = None
        self._retry_delay = FIRST_RETRY
        self._start = start
        self._answers.disown(start * NUMBERS_PER_START)
        self._answers.extend_lease(asked_at + self._lease)
        _log.info("Joined the other servers again")

    def _not_joined(self, failure: Failure) -> None:
        self._note_outage(failure)
        if not self._stopping:
            self._try_again(self._open_again)

    # -- reading --------------------------------------------------------------------------------

    def _fetched(self, jobs: list[StoredJob], function: bytes, priority: int, limit: int) -> None:
        assert self._answers is not None
        if jobs:
            size = sum(len(job.data) for job in jobs) // len(jobs)
            self._fetch_limit = max(1, min(MAX_JOBS, MAX_BYTES // (size + 1)))
        self._note_success()
        there = [job for job in jobs if not self._has_ended(job.number)]
        self._answers.fetched(function, priority, there, len(jobs) < limit)

    def _not_fetched(self, failure: Failure, function: bytes, priority: int) -> None:
        assert self._answers is not None
        self._answers.not_fetched(function, priority)
        self._stumble(failure)

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
            self._note_success()

        def not_answered(failure: Failure) -> None:
            tell(LookupFailed())
            if isinstance(failure.value, StoreError):
                self._stumble(failure)
            else:
                # A defect in one lookup is no reason to refuse everybody's jobs.
                _log.failure("The store failed", failure)

        self._in_thread(ask, *arguments).addCallbacks(answered, not_answered).addErrback(_log_defect)

    def _has_ended(self, number: int) -> bool:
        """Whether the job has ended, though it may still be in the store."""
        return number in self._removals or number in self._being_removed

    # -- writing --------------------------------------------------------------------------------

    @property
    def _pending(self) -> bool:
        return bool(self._saves or self._removals or self._attempts)

    def _write_in(self, delay: float) -> None:
        """Write in `delay` seconds at the latest, or once the transaction under way is done."""
        if self._writing is not None or self._outage is not None or self._stopping:
            return
        if self._next_write is None:
            self._next_write = self._reactor.callLater(delay, self._write)
        elif delay == 0 and self._next_write.getTime() > self._reactor.seconds():
            self._next_write.reset(0)

    def _cancel_next(self) -> None:
        if self._next_write is not None and self._next_write.active():
            self._next_write.cancel()
        self._next_write = None

    def _write(self) -> None:
        self._cancel_next()
        self._began = self._clock()
        self._writes_since = self._waits_since
        jobs = self._take_jobs()
        self._being_saved = len(jobs)
        submits = [len(job.saving or ()) for job in jobs]
        # One that has ended is not written: a later one in the same transaction may have its unique.
        saves = [_as_saved(job) for job in jobs if job.state is not _GONE]
        self._being_removed = removals = self._take_removals()
        joins = {number: self._joins[number] for number in self._joins.keys() & removals.keys()}
        changes = Changes(saves, list(removals), self._attempts, joins)
        self._attempts = {}
        self._writing = self._in_thread(self._store.write, changes)
        self._writing.addCallbacks(
            self._written, self._failed, callbackArgs=(jobs, submits, changes), errbackArgs=(jobs, changes)
        )
        self._writing.addErrback(_log_defect)
        self._writing.addCallback(self._write_on)

    def _take_jobs(self) -> list[Job]:
        """The jobs to be saved in the next transaction."""
        count = size = 0
        for job in self._saves[:MAX_JOBS]:
            size += len(job.data)
            if size > MAX_BYTES and count:
                break
            count += 1
        jobs, self._saves = self._saves[:count], self._saves[count:]
        return jobs

    def _take_removals(self) -> dict[int, float]:
        """The jobs to be removed in the next transaction, with when they ended."""
        removals = self._removals
        if len(removals) <= MAX_REMOVALS:
            self._removals = {}
            return removals
        taken = dict(itertools.islice(removals.items(), MAX_REMOVALS))
        for number in taken:
            del removals[number]
        return taken

    def _written(self, written: Written, jobs: list[Job], submits: list[int], changes: Changes) -> None:
        assert self._answers is not None
        removed, self._being_removed = self._being_removed, {}
        self._being_saved = 0
        self.times.add(self._clock() - self._began)
        if self._outage is not None:
            _log.info("The store is available again")
            self._outage = None
            self._retry_delay = FIRST_RETRY
            self._answers.fetch_again()
            if self.shared and not self._stopping:
                # The next outage may begin before the next renewal is due.
                self._renew()
        self.commits += 1
        duplicates = written.duplicates
        self.saved += len(changes.saves) - len(duplicates)
        for number in changes.joins:
            self._joins.pop(number, None)
        for joined in written.joined:
            self._see_to(joined, removed[joined.job.number])
        if duplicates:
            again = []
            for job, count in zip(jobs, submits, strict=True):
                duplicate = duplicates.get(number_of(job.handle))
                if duplicate is None:
                    self._answers.saved(job)
                # It may have ended meanwhile, as is known of an own one, and whoever came since then wants
                # another one: another server may have ended it behind the join, and ahead of them.
                elif number_of(duplicate) in self._removals or self._answers.stored_before(
                    job, duplicate, count
                ):
                    again.append(job)
            self._saves[:0] = again
        else:
            for job in jobs:
                self._answers.saved(job)

    def _see_to(self, joined: Joined, ended: float) -> None:
        """A job that has ended could not be removed, as another server has answered a submit with it.

        If that was ahead of the job's end all is well, and the next transaction removes it. If not, or in
        doubt, it is run for that submit.
        """
        assert self._answers is not None
        ago = self._clock() - ended
        if ago <= LONGEST_AGO and joined.ago > ago * (1 + CLOCK_DRIFT):
            self._removals[joined.job.number] = ended
        elif self._stopping:
            # It stays in the store for who takes it over.
            return
        else:
            self.joined_late += 1
            self._answers.restore(joined.job)
        self._joins[joined.job.number] = joined.at

    def _failed(self, failure: Failure, jobs: list[Job], changes: Changes) -> None:
        assert self._answers is not None
        self._note_outage(failure)
        self.failures += 1
        self._removals.update(self._being_removed)
        self._being_removed = {}
        self._being_saved = 0
        if changes.saves and not isinstance(failure.value, LeaseLost):
            # Whether the transaction took place may be unknown: what was refused must not come back. It is
            # removed first, as one that goes on for those who wait for its result may be saved again.
            refused = dict.fromkeys([job.number for job in changes.saves], _LONG_AGO)
            self._removals = {**refused, **self._removals}
        self._attempts = {**changes.attempts, **self._attempts}
        for job in jobs:
            self._answers.not_saved(job, NotSaved())
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        assert self._answers is not None
        waiting, self._saves = self._saves, []
        for job in waiting:
            self._answers.not_saved(job, NotSaved())

    def _note_outage(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, LeaseLost):
            self._outage = StoreUnavailable(str(error))
            self._join_again()
            return
        if not isinstance(error, StoreError):
            _log.failure("The store failed", failure)
        if self._outage is None:
            _log.error("The store is unavailable, background jobs are refused: {error}", error=str(error))
        self._outage = error if isinstance(error, StoreUnavailable) else StoreUnavailable(str(error))

    def _note_success(self) -> None:
        """Something else than writing has worked: in an outage, writing is worth a try at once."""
        if self._outage is not None and self._next_write is not None and not self._joining:
            self._cancel_next()
            self._write()

    def _stumble(self, failure: Failure) -> None:
        """Something else than writing has failed."""
        is_tried = self._outage is not None
        self._note_outage(failure)
        if not (is_tried or self._writing is not None or self._joining or self._stopping):
            self._cancel_next()
            self._try_again(self._write)

    def _try_again(self, what: Callable[[], None]) -> None:
        """Call `_write`, if only to see whether that works, or `_open_again`, after a while that doubles each
        time."""
        self._next_write = self._reactor.callLater(self._retry_delay, what)
        self._retry_delay = min(self._retry_delay * 2, LONGEST_RETRY)

    def _write_on(self, _: object) -> None:
        self._writing = None
        if self._stopping or self._joining:
            return
        if self._outage is not None:
            self._try_again(self._write)
        elif self._saves:
            self._write()
        elif self._pending:
            self._write_in(REMOVAL_PATIENCE)


def _as_saved(job: Job) -> StoredJob:
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
            job.attempts,
            job.submitted,
            job.reducer,
        ),
    )


def _log_defect(failure: Failure) -> None:
    _log.failure("A defect behind the store", failure)


def _after(deferred: Deferred[None]) -> Deferred[None]:
    """Fires when `deferred` does, without taking its result away from others."""
    after: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        after.callback(None)
        return result

    deferred.addCallback(pass_on)
    return after
