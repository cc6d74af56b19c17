"""The verbs of the job server: every decision about jobs, clients and workers is made here.

Each verb is O(1) at any depth of the queues and number of workers, O(log n) where time or turns order
things; `txgearman.broker.abilities` says what many functions and kinds of workers cost. What a peer leaves
behind, which may be any number of things, is seen to in slices (`txgearman.broker.slices`). A verb that
refuses raises `Refused` and has changed nothing. What must leave goes through `txgearman.broker.interfaces`.

Behaviour is that of gearmand 2. Where it is not, docs/protocol.rst says so and why; the comments here
name what matters to the code beside them.
"""

from __future__ import annotations

import operator
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from txgearman.broker.abilities import FREE_WALK, WALK_PER_PACKET, AbilitySet, Kind, levels_of
from txgearman.broker.deadlines import Deadlines
from txgearman.broker.function import Function
from txgearman.broker.handles import Handles, number_of
from txgearman.broker.interfaces import Alarm, JobStore
from txgearman.broker.job import NO_PROGRESS, NOBODY, PRIORITIES, Ending, Job, JobState, Priority, StoredJob
from txgearman.broker.meters import Counts, FunctionMeasures, Meters
from txgearman.broker.numbers import leading_number
from txgearman.broker.peers import MAX_JOINS, Client, Worker, WorkerState
from txgearman.broker.policy import UNLIMITED, WAKE_PATIENCE, Policy
from txgearman.broker.running import RunningByFunction
from txgearman.broker.slices import SLICE, Slices
from txgearman.broker.stored_queue import NO_STORED_QUEUE, StoredQueue
from txgearman.broker.uniques import Uniques
from txgearman.broker.views import (
    STORED,
    UNKNOWN,
    FunctionDetail,
    FunctionLimits,
    FunctionView,
    JobDetail,
    JobPage,
    JobStatus,
    JobView,
    stored_detail,
)
from txgearman.errors import (
    FunctionInUse,
    FunctionNotFound,
    JobNotFound,
    JoinedTooOften,
    NotSaved,
    QueueFull,
    RateExceeded,
    Refused,
    ServerFull,
    ShuttingDown,
    TooManyFunctions,
)

if TYPE_CHECKING:
    from txgearman.broker.interfaces import Found, StoredPage, Tell

UNIQUE_IS_DATA: Final = b"-"
"""The unique that stands for "jobs with the same data are the same job"."""

LONGEST_NAP: Final = 60.0
"""Seconds after which the clocks are compared again while an EPOCH job waits, so that a step of the
wall clock is noticed."""

# Names local to the module: an enum's member costs two look-ups each time on the hot path.
_SAVING: Final = JobState.SAVING
_QUEUED: Final = JobState.QUEUED
_RUNNING: Final = JobState.RUNNING
_SCHEDULED: Final = JobState.SCHEDULED
_GONE: Final = JobState.GONE
_AWAKE: Final = WorkerState.AWAKE
_ASLEEP: Final = WorkerState.ASLEEP
_WOKEN: Final = WorkerState.WOKEN
_NORMAL: Final = int(Priority.NORMAL)
_FAILED: Final = int(Ending.FAILED)
_RAISED: Final = int(Ending.RAISED)
_LOST: Final = int(Ending.LOST)
_CANCELLED: Final = int(Ending.CANCELLED)
_ABANDONED: Final = int(Ending.ABANDONED)
_NOT_SAVED: Final = int(Ending.NOT_SAVED)
_ADOPTED: Final = int(Ending.ADOPTED)


class Broker:
    """The jobs, and who may have them.

    `policy` are the operator's choices; `clock` gives monotonic seconds, `wall_clock` seconds since the
    epoch; `alarm` is asked to call `tick`. `job_store`, if there is one, makes background jobs durable before
    their clients are told of them. Handles are numbered from the number behind `last_number`.
    `measured_functions` is for how many functions at most `measures` tells apart what is counted and timed,
    with 0 no times are taken.

    Between `begin_turn` and `end_turn` verbs are called in a row, and need not ask the clocks one by one; no
    time must pass meanwhile that matters. `in_turn` says whether it is so.

    `lease_expires_at` is what `extend_lease` said, by the monotonic clock. None without a lease; test it
    first to skip the property call of `lease_expired`.
    """

    # More attributes than Python keeps quickly in an instance's dictionary: each look-up would search it.
    __slots__ = (
        "_ability_sets",
        "_alarm",
        "_away",
        "_clock",
        "_data_uniques",
        "_dispatch_suspended",
        "_epochs",
        "_free_walk",
        "_functions",
        "_functions_refused",
        "_handles",
        "_idle",
        "_job_store",
        "_leaving",
        "_level_of",
        "_levels",
        "_measures_times",
        "_meters",
        "_most_functions",
        "_policy",
        "_refuse_at",
        "_refused",
        "_rings_at",
        "_slices",
        "_timeouts",
        "_total",
        "_turn_time",
        "_turn_wall_time",
        "_uniques",
        "_wall_clock",
        "_woken",
        "in_turn",
        "lease_expires_at",
    )

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        alarm: Alarm,
        measured_functions: int = 0,
        job_store: JobStore | None = None,
        last_number: int = 0,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._wall_clock = wall_clock
        self._alarm = alarm
        self._job_store = job_store
        self._rings_at: float | None = None
        self._levels = levels_of(policy)
        # The index in _levels of each priority.
        self._level_of = tuple(
            next(index for index, level in enumerate(self._levels) if priority in level)
            for priority in range(PRIORITIES)
        )
        self._handles = Handles(policy.handle_prefix, last_number)
        self._uniques = Uniques()
        self._data_uniques = Uniques()
        self._functions: dict[bytes, Function] = {}
        # Above how many functions new ones are refused.
        self._most_functions = policy.max_functions or sys.maxsize
        self._functions_refused = 0
        # Functions that were idle when they were noted, that which was noted last being the last.
        self._idle: OrderedDict[Function, None] = OrderedDict()
        self._ability_sets: dict[Kind, AbilitySet] = {}
        self._free_walk = FREE_WALK
        self._timeouts = Deadlines()
        self._epochs = Deadlines()
        # Workers that were woken and have not come, with when, the oldest first.
        self._woken: dict[Worker, float] = {}
        self._total = 0
        self._slices = Slices()
        # Clients that are gone and whose jobs are not all seen to.
        self._leaving = 0
        # Jobs in stored queues.
        self._away = 0
        # Until when jobs may be given to workers, and whether that was seen to have passed.
        self.lease_expires_at: float | None = None
        self._dispatch_suspended = False
        # At how many jobs new ones are refused: with 0, while draining, all are.
        self._refuse_at = policy.max_jobs or sys.maxsize
        self._refused = 0
        self._meters = Meters(measured_functions)
        self.in_turn = False
        # What the clocks gave at its beginning.
        self._turn_time: float | None = None
        self._turn_wall_time: float | None = None
        self._measures_times = measured_functions > 0

    def begin_turn(self) -> None:
        """Take what follows, until `end_turn`, for one moment.

        To ask for the time of each job was a thirtieth of a submit, and each kept 32 bytes for it.
        """
        self.in_turn = True
        self._turn_wall_time = self._wall_clock()
        if self._measures_times:
            self._turn_time = self._clock()

    def end_turn(self) -> None:
        """Time passes again."""
        self.in_turn = False
        self._turn_time = self._turn_wall_time = None

    # -- clients --------------------------------------------------------------------------------

    def submit(  # noqa: PLR0912 (the calls that its branches save are a thirtieth of it)
        self,
        client: Client,
        function_name: bytes,
        unique: bytes,
        data: bytes,
        priority: int = _NORMAL,
        background: bool = False,
        reducer: bytes | None = None,
        run_at: float | None = None,
        place: Any = None,
    ) -> None:
        """Accept a job, or attach `client` to the live job of the same function and unique.

        `run_at` (seconds since the epoch) holds the job until then. The client is told by
        `ClientConnection.created`, or with a job_store, for a background job, by `ClientConnection.saving`
        and what follows it. Raises `QueueFull`, `RateExceeded` and `ShuttingDown`, though never for a job
        that is attached to; `JoinedTooOften` for one that `client` waits for `MAX_JOINS` times; and
        `NotSaved`, also for one that may not be this server's any more. `place` is for the broker itself:
        what `ClientConnection.saving` returned, if the client was told so already.
        """
        function = self._functions.get(function_name)
        if function is None:
            # First: refused jobs must not fill memory with functions either.
            self._check_open()
            function = self._new_function(function_name)
        # Where a unique that no job has is put: with this nearly every submit is spared two calls.
        free: dict[bytes, Any] | None = None
        if unique:
            table = self._uniques.table(unique)
            if unique not in table and unique != UNIQUE_IS_DATA:
                free = table
            elif (duplicate := self._find_duplicate(function, unique, data)) is not None:
                self._attach(client, duplicate, background, place)
                function.joined += 1
                return
            if place is None and not background and self._away and function.stored_queue is not None:
                self._seek_stored_duplicate(client, function_name, unique, data, priority, reducer)
                return
        if function.limited:
            self._admit(function, priority)
        job_store = self._job_store if background else None
        if job_store is not None:
            job_store.check(data)
        handle = self._handles.next()
        submitted = self._turn_wall_time
        if submitted is None:
            submitted = self._wall_clock()
        job = Job(handle, function, unique, data, priority, background, reducer, submitted, run_at)
        self._handles.newest[handle] = job
        function.submitted += 1
        self._total += 1
        if unique:
            if free is not None:
                free[unique] = job
            else:
                self._add_unique(job)
        if job_store is not None:
            job.state = _SAVING
            self._save(client, job, job_store)
            return
        if not background:
            job.watch(client, handle)
            client.jobs[handle] = job
        if place is None:
            client.connection.created(handle)
        else:
            client.connection.saved(place, handle)
        if run_at is None or not self._hold(job, run_at):
            self._enqueue(job)

    def status(self, handle: bytes) -> JobStatus:
        """The status of the job with this handle."""
        return _status(self._handles.get(handle))

    def status_by_unique(self, unique: bytes) -> JobStatus:
        """The status of the newest live job with this unique, whatever its function."""
        return _status(self._uniques.newest(unique))

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for a job that it did not submit and does not wait for already: it hears of it
        from now on. Raises `JobNotFound`."""
        job = self._handles.get(handle)
        if job is None:
            raise JobNotFound
        job.watch(client, job.handle)
        client.jobs[job.handle] = job

    def leave_client(self, client: Client) -> None:
        """The client's connection is gone.

        A waiting job that nobody else wants goes with it. gearmand keeps such a job until a worker
        comes by, and gives its handle to new clients of the same unique, who then wait for ever; and
        it discards background jobs whose last *waiting* client leaves.

        Very many go in slices, and count as waiting until then; no worker gets one meanwhile.
        """
        client.joins.clear()
        client.gone = True
        if client.jobs:
            self._leaving += 1
            self._begin(self._leave_jobs(client))

    def _leave_jobs(self, client: Client) -> Iterator[None]:
        for handle in list(client.jobs):
            job = client.jobs.pop(handle, None)
            # It may have ended meanwhile.
            if job is not None:
                del job.watchers[client, handle]
                if handle != job.handle:
                    self._handles.remove(handle)
                if not (job.watchers or job.background or job.saving) and job.state is not _RUNNING:
                    self._discard(job, _ABANDONED)
            yield
        self._leaving -= 1

    def _begin(self, task: Iterator[None]) -> None:
        """Do the first slice of a task now, and the others turn by turn."""
        self._slices.begin(task)
        if self._slices:
            self._ring_at(self._clock())

    # -- the job_store's answers -------------------------------------------------------------------

    def saved(self, job: Job) -> None:
        """A job that was to be saved is durable: its clients are told, and it waits for a worker."""
        waiting, job.saving = job.saving or (), None
        job.saved = job.background = True
        for client, place in waiting:
            client.connection.saved(place, job.handle)
        if job.state is _GONE:
            # It was done, or cancelled, while it was being saved.
            if self._job_store is not None:
                self._job_store.remove(number_of(job.handle), just_now=False)
        elif job.state is _SAVING:
            place = number_of(job.handle)
            if job.run_at is None and not job.watchers and self._is_deep(job.function, job.priority, place):
                self._put_away(job)
            else:
                self._let_in(job)

    def not_saved(self, job: Job, refusal: Refused) -> None:
        """A job could not be made durable: those who wanted that are refused."""
        waiting, job.saving = job.saving or (), None
        for client, place in waiting:
            client.connection.refused(place, refusal)
        self._stay_online(job)

    def stored_before(self, job: Job, handle: bytes, submits: int) -> bool:
        """A job was not saved, as the store has one of the same function and unique, with this handle.

        That answers the first so many `submits`. Returns whether there are others: for them it is to be saved
        once more.
        """
        waiting = job.saving or []
        job.saving = waiting[submits:] or None
        for client, place in waiting[:submits]:
            client.connection.saved(place, handle)
        if job.saving is not None:
            return True
        self._stay_online(job)
        return False

    def restore(self, kept: StoredJob) -> None:
        """Take in a background job that was saved before. One that is here, because its worker went on when
        it was disowned, is this server's again."""
        job = self._handles.get(kept.handle)
        if job is not None:
            job.saved = job.background = True
            return
        function = self._restored_function(kept.function)
        function.submitted += 1
        function.restored += 1
        self._total += 1
        if kept.run_at is None and self._is_deep(function, kept.priority, kept.place):
            self._count_away(function, kept.priority, kept.place)
        else:
            self._revive(function, kept)

    def restore_stored_queue(self, function_name: bytes, priority: int, jobs: int) -> None:
        """Know that so many jobs are kept, and fetch the first of them."""
        function = self._restored_function(function_name)
        function.submitted += jobs
        function.restored += jobs
        self._total += jobs
        self._away += jobs
        stored_queue = function.stored_queue = function.stored_queue or StoredQueue()
        stored_queue.jobs[priority] += jobs
        self._fetch_ahead(function, stored_queue, priority)

    def fetched(self, function_name: bytes, priority: int, jobs: Sequence[StoredJob], are_all: bool) -> None:
        """Take in the jobs that were fetched, in their order; `are_all` says that there are no more."""
        function = self._functions.get(function_name)
        stored_queue = None if function is None else function.stored_queue
        if function is None or stored_queue is None:
            # It was dropped meanwhile, when its last job was cancelled.
            return
        stored_queue.fetching[priority] = False
        for kept in jobs:
            stored_queue.behind[priority] = kept.place
            if self._handles.get(kept.handle) is None:
                stored_queue.jobs[priority] -= 1
                self._away -= 1
                self._revive(function, kept)
        stored_queue.last[priority] = function.last(priority) if stored_queue.jobs[priority] else None
        if are_all and stored_queue.jobs[priority]:
            # Somebody has changed the store behind our back.
            self._lose_stored_queue(function, stored_queue, priority)
        self._fetch_ahead(function, stored_queue, priority)

    def not_fetched(self, function_name: bytes, priority: int) -> None:
        """The job_store could not fetch jobs. It is asked again by the next grab, or by `fetch_again`."""
        function = self._functions.get(function_name)
        if function is not None and function.stored_queue is not None:
            function.stored_queue.fetching[priority] = False

    def fetch_again(self) -> None:
        """The job_store can fetch jobs again. This walks all functions."""
        for function in self._functions.values():
            if function.stored_queue is not None:
                for priority in range(PRIORITIES):
                    self._fetch_ahead(function, function.stored_queue, priority)

    @property
    def may_have_stored_jobs(self) -> bool:
        """Whether there may be jobs that are not in memory, and only `seek_status` and its like find."""
        return self._away > 0 or (self._job_store is not None and self._job_store.shared)

    def seek_status(self, handle: bytes, tell: Callable[[JobStatus | Refused], None]) -> None:
        """Tell the status of the job with this handle, wherever it is. Only where `may_have_stored_jobs` is
        true."""

        def found(kept: Found) -> None:
            # It may have come into memory meanwhile.
            status = _status(self._handles.get(handle))
            if isinstance(kept, Refused) and not status.known:
                tell(kept)
            elif isinstance(kept, StoredJob) and kept.handle == handle and not status.known:
                tell(STORED)
            else:
                tell(status)

        self._seek(handle, found)

    def seek_job(self, handle: bytes, tell: Callable[[JobDetail | Refused], None]) -> None:
        """As `job_detail`, for a job wherever it is. Only where `may_have_stored_jobs` is true."""

        def found(kept: Found) -> None:
            job = self._handles.get(handle)
            if job is not None:
                tell(self._job_detail(job))
            elif isinstance(kept, StoredJob) and kept.handle == handle:
                if self._is_away(kept):
                    # Once more, with its data.
                    self._page(kept.function, kept.priority, kept.place - 1, 1, whole)
                else:
                    tell(stored_detail(kept, False))
            else:
                tell(kept if isinstance(kept, Refused) else JobNotFound())

        def whole(page: JobPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
            elif page.jobs and page.jobs[0].handle == handle:
                tell(page.jobs[0])
            else:
                # It has ended meanwhile.
                tell(JobNotFound())

        self._seek(handle, found)

    def seek_page(
        self, name: bytes, priority: int, after: int, most: int, tell: Callable[[JobPage | Refused], None]
    ) -> None:
        """Tell of jobs of a function and priority that are not in memory, in the order of their queue, at
        most so many, and of fewer where they are large: the first of them with 0 for `after`, then those
        behind the place that the page before gave. What has come into memory meanwhile is told of as it is
        there. Raises `FunctionNotFound`."""
        stored_queue = self._find_function(name).stored_queue
        if stored_queue is None or not (after or stored_queue.jobs[priority]):
            tell(JobPage((), None))
        else:
            self._page(name, priority, after or stored_queue.behind[priority], most, tell)

    def _page(
        self, name: bytes, priority: int, after: int, most: int, tell: Callable[[JobPage | Refused], None]
    ) -> None:
        if self._job_store is None:
            tell(JobPage((), None))
            return

        def found(page: StoredPage | Refused) -> None:
            if isinstance(page, Refused):
                tell(page)
                return
            details = []
            for kept in page.jobs:
                job = self._handles.get(kept.handle)
                if job is not None:
                    details.append(self._job_detail(job))
                elif self._is_away(kept):
                    details.append(stored_detail(kept, True))
            tell(JobPage(tuple(details), page.next))

        self._job_store.page(name, priority, after, most, found)

    def seek_status_by_unique(self, unique: bytes, tell: Callable[[JobStatus | Refused], None]) -> None:
        """Tell the status of the newest job with this unique, wherever it is. Only where
        `may_have_stored_jobs` is true."""
        assert self._job_store is not None

        def found(kept: Found) -> None:
            status = self.status_by_unique(unique)
            if status.known or kept is None:
                tell(status)
            else:
                tell(kept if isinstance(kept, Refused) else STORED)

        self._job_store.find_unique(unique, found)

    def seek_and_cancel(self, handle: bytes, tell: Callable[[Refused | None], None]) -> None:
        """As `cancel`, for a job wherever it is. Only where `may_have_stored_jobs` is true."""

        def found(kept: Found) -> None:
            if self._handles.get(handle) is not None:
                self.cancel(handle)
                tell(None)
            elif isinstance(kept, StoredJob) and kept.handle == handle and self._take_away(kept):
                assert self._job_store is not None
                self._job_store.remove(kept.number)
                function = self._functions[kept.function]
                function.uncompleted[_CANCELLED] += 1
                function.ended += 1
                self._total -= 1
                self._note_idle(function)
                tell(None)
            else:
                tell(kept if isinstance(kept, Refused) else JobNotFound())

        self._seek(handle, found)

    def extend_lease(self, when: float) -> None:
        """Give jobs to workers until `when`, by the monotonic clock, and then no more until this says a later
        time: as long as it is certain that the jobs are this server's. This may walk all functions."""
        self.lease_expires_at = when
        if when <= self._clock():
            self._suspend_dispatch()
        elif self._dispatch_suspended:
            self._dispatch_suspended = False
            for function in self._functions.values():
                if function.blocked and not function.paused:
                    self._unblock(function)

    @property
    def lease_expired(self) -> bool:
        """Whether no job may be given to a worker, as the time of `extend_lease` has passed."""
        return self.lease_expires_at is not None and self._clock() >= self.lease_expires_at

    def may_have_lost(self, worker: Worker) -> bool:
        """Whether a stored job of this worker may be another server's by now."""
        return self.lease_expired and any(job.saved for job in worker.jobs.values())

    def reserve(self, numbers: int) -> int:
        """The first of so many consecutive numbers that no handle will have."""
        return self._handles.skip(numbers)

    def disown(self, last_number: int) -> None:
        """The saved jobs are another server's now: forget them, and number handles from behind `last_number`.

        A worker that has one goes on with it, as nothing can stop it, and clients that wait for it get the
        result; if it loses the job nobody here gets it. Clients of those that wait are told that they failed.
        """
        # Those that are without jobs then may be forgotten.
        for function in list(self._functions.values()):
            if function.stored_queue is not None:
                for priority in range(PRIORITIES):
                    self._lose_stored_queue(function, function.stored_queue, priority)
        for handle, job in self._handles:
            if job.saved and handle == job.handle and job.state is not _GONE:
                job.saved = job.background = False
                if job.state is not _RUNNING:
                    self._give_up(job, _ADOPTED)
        self._handles.skip_to(last_number)

    def detach_store(self) -> None:
        """What happens from now on is not told to the job_store: this server ends, and its saved jobs stay as
        they are for the next one."""
        self._job_store = None

    # -- workers --------------------------------------------------------------------------------

    def can_do(self, worker: Worker, function_name: bytes, timeout: float | None = None) -> None:
        """Register a function; `timeout` seconds after a worker got a job it is given to another.

        Registering twice changes the timeout and counts once, where gearmand counts, and lists, a
        worker as often as it registers.
        """
        function = self._functions.get(function_name)
        if function is None:
            function = self._new_function(function_name)
        if function not in worker.abilities:
            function.workers += 1
            own_set = self._change_abilities(worker)
            if own_set is not None:
                own_set.add(function)
        worker.abilities[function] = timeout

    def cant_do(self, worker: Worker, function_name: bytes) -> None:
        """Unregister a function; the worker's jobs of that function are given to others."""
        function = self._functions.get(function_name)
        if function is None or function not in worker.abilities:
            return
        own_set = self._change_abilities(worker)
        if own_set is not None:
            own_set.remove(function)
        del worker.abilities[function]
        function.workers -= 1
        self._note_idle(function)
        if len(worker.jobs) > self._free_walk:
            if worker.by_function is None:
                worker.by_function = RunningByFunction()
            jobs = worker.by_function.take(function, worker.jobs)
        else:
            jobs = [job for job in worker.jobs.values() if job.function is function]
            for job in jobs:
                del worker.jobs[job.handle]
        if jobs:
            self._begin(self._take_back_all(worker, jobs))

    def reset_abilities(self, worker: Worker) -> None:
        """Unregister all functions; the worker's jobs are given to others."""
        self._dissolve(self._look_again(worker))
        self._unregister_all(worker)

    def grab(self, worker: Worker) -> Job | None:
        """Give the worker the job that is next for it, if there is one."""
        if self.lease_expires_at is not None and self.lease_expired:
            self._suspend_dispatch()
        ability_set = worker.ability_set
        if ability_set is None:
            ability_set = self._join_set(worker)
        job = ability_set.next()
        if self._leaving and job is not None:
            job = self._skip_abandoned(ability_set, job)
        if worker.state is not _AWAKE:
            self._awake(worker, job)
        if job is None:
            return None
        function = job.function
        if function.stored_queue is not None:
            self._fetch_ahead(function, function.stored_queue, job.priority)
        function.running += 1
        meter = function.meter
        if meter is not None:
            now = self._turn_time
            if now is None:
                now = self._clock()
            times = meter.waited
            time = now - job.since
            if times.low < time <= times.high:
                times.hits += 1
                times.sum += time
            else:
                times.add(time)
            job.since = now
        job.state = _RUNNING
        job.worker = worker
        worker.jobs[job.handle] = job
        timeout = worker.abilities[function]
        limit = function.time_limit
        if limit is not None and (timeout is None or limit < timeout):
            timeout = limit
        if timeout is not None:
            when = self._clock() + timeout
            job.deadline = self._timeouts.add(when, job)
            self._ring_at(when)
        return job

    def sleep(self, worker: Worker) -> None:
        """The worker sleeps until it is woken, which is at once if there is a job for it."""
        ability_set = worker.ability_set
        if ability_set is None:
            ability_set = self._join_set(worker)
        if ability_set.has_job():
            if worker.state is _ASLEEP:
                self._awake(worker, None)
            worker.connection.wake()
        elif worker.state is not _ASLEEP:
            if worker.state is _WOKEN:
                self._awake(worker, None)
            worker.state = _ASLEEP
            if ability_set.kind is None:
                ability_set = self._share_own_set(worker, ability_set)
            ability_set.put_to_sleep(worker)

    # Each report returns how many times it was told: many may wait for a job, and one under many handles.

    def report_data(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """Part of a result. Raises `JobNotFound`."""
        watchers = self._reported(worker, handle, "Job does not exist on server")
        for client, name in watchers:
            client.connection.data(name, data)
        return len(watchers)

    def report_warning(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """A warning. Raises `JobNotFound`."""
        watchers = self._reported(worker, handle, "Job does not exist on server")
        for client, name in watchers:
            client.connection.warning(name, data)
        return len(watchers)

    def report_status(self, worker: Worker, handle: bytes, numerator: bytes, denominator: bytes) -> int:
        """Progress, both numbers as decimal text. Raises `JobNotFound`.

        Clients get the text as it is; answers to status requests have the number it begins with.
        """
        watchers = self._reported(worker, handle, "Job given in work result not found")
        job = worker.jobs.get(handle)
        if job is not None:
            job.progress = leading_number(numerator), leading_number(denominator)
        for client, name in watchers:
            client.connection.status(name, numerator, denominator)
        return len(watchers)

    def complete(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """The job is done. Raises `JobNotFound`."""
        watchers = self._ended(worker, handle, "Job given in work result not found")
        for client, name in watchers:
            client.connection.completed(name, data)
        return len(watchers)

    def fail(self, worker: Worker, handle: bytes) -> int:
        """The job failed and is not tried again. Raises `JobNotFound`."""
        watchers = self._ended(worker, handle, "Job given in work result not found", _FAILED)
        for client, name in watchers:
            client.connection.failed(name)
        return len(watchers)

    def exception(self, worker: Worker, handle: bytes, data: bytes) -> int:
        """The job's function raised; the job has ended. Raises `JobNotFound`."""
        text = "An exception was received for a job that does not exist"
        watchers = self._ended(worker, handle, text, _RAISED)
        for client, name in watchers:
            client.connection.exception(name, data)
        return len(watchers)

    def leave_worker(self, worker: Worker) -> None:
        """The worker's connection is gone: its jobs are given to others."""
        self._dissolve(self._leave_set(worker))
        self._unregister_all(worker)

    # -- administration -------------------------------------------------------------------------

    def create_function(self, name: bytes) -> Function:
        """The function with this name, made if there is none. It stays until it is dropped. Raises
        `TooManyFunctions`."""
        function = self._functions.get(name)
        if function is None:
            function = self._new_function(name)
        function.pinned = True
        return function

    def _new_function(self, name: bytes) -> Function:
        """Make a function. Raises `TooManyFunctions`."""
        if len(self._functions) >= self._most_functions:
            self._functions_refused += 1
            raise TooManyFunctions(self._most_functions)
        self._forget_idle()
        return self._make_function(name)

    def _restored_function(self, name: bytes) -> Function:
        """The function of a job that the store has, which is not to be lost for a limit."""
        return self._functions.get(name) or self._make_function(name)

    def _make_function(self, name: bytes) -> Function:
        function = Function(name, self._levels, self._policy.rules_for(name), self._meters.new())
        self._functions[name] = function
        self._idle[function] = None
        function.limit_by_server(self._refuse_at != sys.maxsize)
        if not self._refuse_at:
            # Another server's jobs may still be taken over.
            function.pause()
        if self._dispatch_suspended:
            function.block()
        return function

    def _note_idle(self, function: Function) -> None:
        """A function may have become idle: nobody has used it for less long than it."""
        if function.idle:
            self._idle[function] = None
            self._idle.move_to_end(function)
            self._forget_idle()

    def _forget_idle(self) -> None:
        """While there are more than half of the functions that may be, forget those that are idle, the one
        first that is so for longest."""
        while self._idle and len(self._functions) > self._most_functions // 2:
            function, _ = self._idle.popitem(last=False)
            # It may have come to be used since, or have been dropped.
            if function.idle and self._functions.get(function.name) is function:
                del self._functions[function.name]
                self._meters.move_to_others(function)

    def drop_function(self, name: bytes) -> None:
        """Forget a function. Raises `FunctionNotFound`, and `FunctionInUse` while it has workers or jobs.

        gearmand does not look at queued jobs and leaves them unreachable, with dangling pointers.
        """
        function = self._functions.get(name)
        if function is None:
            raise FunctionNotFound
        if function.workers or function.total:
            raise FunctionInUse
        del self._functions[name]
        self._idle.pop(function, None)
        self._meters.forget(function)

    def set_limits(self, name: bytes, limits: tuple[int | None, ...]) -> None:
        """Limit the function's jobs, by the priority of the job that asks to be let in (high, normal, low).

        A function that does not exist is made, so that a limit can be set ahead of the first job;
        gearmand says OK and forgets it.
        """
        self.create_function(name).limit_queue(limits)

    def set_rate(self, name: bytes, per_second: float, burst: int = 0) -> None:
        """Limit how many new jobs a second the function takes, and how many of them at once.

        A rate of 0 is no limit, a burst of 0 as many as the rate. As with `set_limits`, a function that
        does not exist is made.
        """
        self.create_function(name).limit_rate(per_second, burst)

    @property
    def draining(self) -> bool:
        """Whether no new job is taken, see `drain`."""
        return not self._refuse_at

    def drain(self) -> None:
        """From now on take no new job and give no job to a worker; running ones may end."""
        self._refuse_at = 0
        for function in self._functions.values():
            function.limit_by_server(True)
            function.pause()

    def change_policy(self, policy: Policy) -> None:
        """Obey another policy from now on. Its order, turns and prefix of handles must be the same.

        Rules of a function that the two policies have in common are left alone, so that a limit that was
        set by `set_limits` or `set_rate` stays. No job that was let in is touched; a time limit is that of
        the moment at which the worker got the job. This walks all functions.
        """
        before = self._policy
        kept = before.order, before.round_robin, before.handle_prefix
        if (policy.order, policy.round_robin, policy.handle_prefix) != kept:
            raise ValueError("the order of functions and the prefix of handles cannot be changed")
        # All of it, before the first function obeys: what fails has changed nothing.
        changed = [
            (function, rules)
            for function in self._functions.values()
            if (rules := policy.rules_for(function.name)) != before.rules_for(function.name)
        ]
        self._policy = policy
        if self._refuse_at:
            self._refuse_at = policy.max_jobs or sys.maxsize
        self._most_functions = policy.max_functions or sys.maxsize
        self._forget_idle()
        for function in self._functions.values():
            function.limit_by_server(self._refuse_at != sys.maxsize)
        for function, rules in changed:
            function.obey(rules)

    def cancel(self, handle: bytes) -> None:
        """End a job; its clients are told that it failed. Raises `JobNotFound`.

        The job is gone at once. gearmand only flags it: it is still counted until a worker comes by.
        A running job's worker is not told, as the protocol has no way to; what it reports is dropped.
        """
        job = self._handles.get(handle)
        if job is None:
            raise JobNotFound
        if job.worker is not None:
            job.worker.note_cancelled(job.handle)
        self._give_up(job, _CANCELLED)

    def cancel_some(self, name: bytes, after: int, until: int) -> int | None:
        """End jobs of a function, as `cancel` does: at most some thousands, in the order of their handles,
        with numbers behind `after`, but for those that this server has given since `until`.

        Returns what to go on with in place of `after`, None when there is nothing left. So all jobs of a
        function are cancelled without holding up the others, and without those that come meanwhile:
        begin with 0, and take `last_number` for `until`. Jobs that are not in memory are left, and come in
        when there is room. Raises `FunctionNotFound`.
        """
        function = self._find_function(name)
        newest = self._handles.last()
        if until <= after < newest:
            # Greater numbers are those of jobs taken over from servers that started later.
            after = newest
        jobs = self._handles.behind(after)
        if not jobs:
            return None
        for job in jobs:
            # One may have ended with another meanwhile.
            if job.function is function and job.state is not _GONE:
                number = number_of(job.handle)
                if number <= until or number > newest:
                    self.cancel(job.handle)
        function.trim()
        return number_of(jobs[-1].handle)

    def pause_function(self, name: bytes) -> None:
        """Give no job of the function to a worker from now on. Jobs are taken in as before, and running ones
        go on. Raises `FunctionNotFound`."""
        function = self._find_function(name)
        function.pinned = True
        function.pause()

    def resume_function(self, name: bytes) -> None:
        """Undo `pause_function`. As many sleeping workers are woken as there are jobs for them. Raises
        `FunctionNotFound`, and `ShuttingDown` behind `drain`."""
        function = self._find_function(name)
        if not self._refuse_at:
            raise ShuttingDown
        function.paused = False
        if self._dispatch_suspended:
            return
        self._unblock(function)

    def quiet(self, worker: Worker, quiet: bool = True) -> None:
        """Give the worker no more jobs, or again some. Those that it has stay with it."""
        if worker.quiet != quiet:
            worker.quiet = quiet
            self._dissolve(self._look_again(worker))

    def _find_function(self, name: bytes) -> Function:
        function = self._functions.get(name)
        if function is None:
            raise FunctionNotFound
        return function

    # -- views ----------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """How many jobs there are, scheduled and running ones included."""
        return self._total

    @property
    def in_memory(self) -> int:
        """How many of them are in memory, and not in the store alone."""
        return self._total - self._away

    @property
    def running(self) -> int:
        """How many jobs are with workers."""
        return sum(function.running for function in self._functions.values())

    @property
    def refused(self) -> int:
        """How many new jobs were refused because there were `Policy.max_jobs` already."""
        return self._refused

    def limits(self) -> Iterator[FunctionLimits]:
        """The functions whose new jobs are limited, or were refused."""
        for function in list(self._functions.values()):
            rate = function.rate
            if function.limits is not None or rate is not None or function.refused:
                yield FunctionLimits(
                    function.name,
                    function.limits or (None,) * PRIORITIES,
                    rate.per_second if rate else 0.0,
                    rate.burst if rate else 0,
                    function.refused,
                )

    @property
    def function_count(self) -> int:
        """How many functions there are."""
        return len(self._functions)

    @property
    def functions_refused(self) -> int:
        """How often a function was refused because there were `Policy.max_functions` already."""
        return self._functions_refused

    def functions(self) -> Iterator[FunctionView]:
        """All functions, in the order they were made."""
        for function in list(self._functions.values()):
            waiting = map(operator.add, function.waiting, function.held)
            if function.stored_queue is not None:
                waiting = map(operator.add, waiting, function.stored_queue.jobs)
            yield FunctionView(
                function.name, function.total, function.running, function.workers, tuple(waiting)
            )

    def function_details(self) -> Iterator[FunctionDetail]:
        """All functions, in the order they were made, with all there is to know of each."""
        for function in list(self._functions.values()):
            yield self._function_detail(function)

    def function_detail(self, name: bytes) -> FunctionDetail:
        """One function. Raises `FunctionNotFound`."""
        return self._function_detail(self._find_function(name))

    def _function_detail(self, function: Function) -> FunctionDetail:
        oldest = None
        stored_queue = function.stored_queue or NO_STORED_QUEUE
        away = stored_queue.jobs
        if function.meter is not None:
            now = self._clock()
            oldest = max((now - job.since for job in function.heads()), default=None)
        return FunctionDetail(
            name=function.name,
            total=function.total,
            queued=tuple(map(operator.add, function.waiting, away)),
            away=sum(away),
            behind=tuple(
                place if jobs else None for jobs, place in zip(away, stored_queue.behind, strict=True)
            ),
            scheduled=tuple(function.held),
            running=function.running,
            workers=function.workers,
            paused=function.paused,
            limits=function.limits or (None,) * PRIORITIES,
            submitted=function.submitted,
            completed=function.ended - sum(function.uncompleted),
            failed=sum(function.uncompleted),
            retried=function.retried,
            refused=function.refused,
            oldest=oldest,
        )

    def job_detail(self, handle: bytes) -> JobDetail:
        """One job. Raises `JobNotFound`."""
        job = self._handles.get(handle)
        if job is None:
            raise JobNotFound
        return self._job_detail(job)

    @property
    def last_number(self) -> int:
        """The number of the handle that was given last."""
        return self._handles.last()

    def job_page(
        self,
        after: int,
        most: int,
        wanted: Callable[[Job], bool],
        enough: Callable[[], bool] | None = None,
    ) -> JobPage:
        """Jobs that are `wanted`, at most so many, in the order of their handles, behind the number `after`.

        Only some thousand jobs are looked at, and no more once there is `enough`, so a page may be short, or
        empty, and not be the last.
        """
        jobs = self._handles.behind(after)
        found = []
        for job in jobs:
            if wanted(job):
                found.append(self._job_detail(job))
                if len(found) == most:
                    return JobPage(tuple(found), number_of(job.handle))
            if enough is not None and enough():
                return JobPage(tuple(found), number_of(job.handle))
        return JobPage(tuple(found), number_of(jobs[-1].handle) if jobs else None)

    def _job_detail(self, job: Job) -> JobDetail:
        seconds = run_in = left = None
        if job.function.meter is not None and job.state in (_QUEUED, _RUNNING):
            seconds = self._clock() - job.since
        if job.deadline is not None:
            if job.state is _RUNNING:
                left = job.deadline.when - self._clock()
            else:
                run_in = job.deadline.when - self._wall_clock()
        return JobDetail(
            handle=job.handle,
            function=job.function.name,
            unique=job.unique,
            data=job.data,
            priority=job.priority,
            background=job.background,
            reducer=job.reducer,
            state=job.state,
            attempts=job.attempts,
            submitted=job.submitted,
            progress=job.progress,
            clients=len(job.watchers),
            worker=job.worker,
            seconds=seconds,
            run_in=run_in,
            left=left,
        )

    @property
    def counts_of_gone(self) -> Counts:
        """What the functions had counted that were forgotten, or dropped and not told apart."""
        return self._meters.gone

    def measures(self) -> list[FunctionMeasures]:
        """What was counted and timed: a row for each function that is told apart, and the last row for all
        others.

        A function belongs to the same row from its making to its end. The last row keeps the counts of those
        of its functions that were dropped, and of all that were forgotten, so that no count falls.
        """
        return [row for row in self.look_at_measures() if row is not None]

    def look_at_measures(self) -> Iterator[FunctionMeasures | None]:
        """As `measures`, one function at a time, for who has to let others go ahead. Those whose row is not
        their own are None."""
        return self._meters.look_at(list(self._functions.values()))

    def jobs(self) -> Iterator[JobView]:
        """All jobs, in the order they were submitted."""
        for handle, job in self._handles:
            # A job is also found by the handles that it has for repeated submits of one client.
            if job.state is not _GONE and handle == job.handle:
                yield JobView(
                    handle,
                    job.function.name,
                    job.unique,
                    job.attempts,
                    job.background,
                    job.state is _RUNNING,
                )

    # -- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due, and set the alarm for what is next. Where very much is due it is done in slices."""
        self._rings_at = None
        now = self._clock()
        self._slices.go_on()
        for _ in range(SLICE):
            job = self._epochs.pop_due(self._wall_clock())
            if job is None:
                break
            job.deadline = None
            job.function.held[job.priority] -= 1
            job.state = _QUEUED
            self._enqueue(job)
        for _ in range(SLICE):
            job = self._timeouts.pop_due(now)
            if job is None:
                break
            job.deadline = None
            self._take_back(job)
        self._wake_in_place_of_the_late(now)
        if self._slices:
            self._ring_at(now)
        if self._woken:
            self._ring_at(next(iter(self._woken.values())) + WAKE_PATIENCE)
        timeout = self._timeouts.next()
        if timeout is not None:
            self._ring_at(timeout)
        epoch = self._epochs.next()
        if epoch is not None:
            self._ring_at(now + min(epoch - self._wall_clock(), LONGEST_NAP))

    def _ring_at(self, when: float) -> None:
        if self._rings_at is None or when < self._rings_at:
            self._rings_at = when
            self._alarm.ring_in(max(0.0, when - self._clock()))

    # -- a job's way ----------------------------------------------------------------------------

    def _admit(self, function: Function, priority: int) -> None:
        """Hold a new job against the limits. Raises `Refused`."""
        try:
            self._check_open()
            if function.full(priority):
                raise QueueFull
            rate = function.rate
            if rate is not None and not rate.take(self._clock()):
                raise RateExceeded(rate.per_second)
        except (QueueFull, RateExceeded):
            function.refused += 1
            raise

    def _check_open(self) -> None:
        """Raises `Refused` if the server takes no new job at all."""
        if self._total >= self._refuse_at:
            if not self._refuse_at:
                raise ShuttingDown
            self._refused += 1
            raise ServerFull(self._refuse_at)

    def _find_duplicate(self, function: Function, unique: bytes, data: bytes) -> Job | None:
        """The live job that a submit with this unique is the same as.

        With ``-`` the data is the unique; without data such jobs are never the same, as with gearmand.
        There a job with ``-`` is also the same as one whose unique is spelled like its data, by
        accident; here the two are kept apart.
        """
        if unique == UNIQUE_IS_DATA:
            return self._data_uniques.find(data, function) if data else None
        return self._uniques.find(unique, function)

    def _add_unique(self, job: Job) -> None:
        if job.unique != UNIQUE_IS_DATA:
            self._uniques.add(job.unique, job)
        elif job.data:
            self._data_uniques.add(job.data, job)

    def _remove_unique(self, job: Job) -> None:
        if job.unique != UNIQUE_IS_DATA:
            self._uniques.remove(job.unique, job)
        elif job.data:
            self._data_uniques.remove(job.data, job)

    def _attach(self, client: Client, job: Job, background: bool, place: Any) -> None:
        """Let `client` be one more submitter of `job`, whose data and priority stay as they are.

        A client that already waits for the job gets one more handle, and each update once under each.
        gearmand gives the same handle again and sends each packet twice, which some clients need to
        finish both of their tasks and others take for a packet about an unknown job.
        """
        if background:
            job_store = self._job_store
            if job_store is not None and not job.saved:
                if job.saving is None:
                    job_store.check(job.data)
                self._save(client, job, job_store)
                return
            if self.lease_expired:
                # Another server may have taken it over, and have ended it.
                raise NotSaved
            job.background = True
            client.connection.created(job.handle)
            return
        handle = job.handle
        if handle in client.jobs:
            joins = client.joins.get(handle, 1)
            if joins >= MAX_JOINS:
                raise JoinedTooOften(MAX_JOINS)
            client.joins[handle] = joins + 1
            handle = self._handles.next()
            self._handles.newest[handle] = job
        job.watch(client, handle)
        client.jobs[handle] = job
        if place is None:
            client.connection.created(handle)
        else:
            client.connection.saved(place, handle)

    def _save(self, client: Client, job: Job, job_store: JobStore) -> None:
        """Let `client` be told of a background job as soon as that is durable."""
        if job.saving is None:
            job.saving = []
            job_store.save(job)
        job.saving.append((client, client.connection.saving()))

    def _suspend_dispatch(self) -> None:
        """Give no job to a worker."""
        if not self._dispatch_suspended:
            self._dispatch_suspended = True
            for function in self._functions.values():
                function.block()

    def _unblock(self, function: Function) -> None:
        """Let workers have a function's jobs again, and wake as many as there are jobs for."""
        function.unblock()
        for level, unready in enumerate(function.unready):
            for ability_set, slot in unready.items():
                ability_set.list_ready(level, slot)
            unready.clear()
        for _ in range(sum(function.waiting)):
            if not function.resting:
                break
            self._wake(function)

    def _is_deep(self, function: Function, priority: int, place: int) -> bool:
        """Whether a job that comes now, with this place, is to be kept by the job_store alone."""
        stored_queue = function.stored_queue
        if stored_queue is not None and stored_queue.jobs[priority]:
            # One that overtook others on the way here would be missed by the next fetch.
            return place > stored_queue.behind[priority]
        return function.waiting[priority] >= self._policy.in_memory

    def _put_away(self, job: Job) -> None:
        """Forget a job that the job_store has, until its turn comes."""
        job.state = _GONE
        if job.unique:
            self._remove_unique(job)
        self._handles.remove(job.handle)
        self._count_away(job.function, job.priority, number_of(job.handle))

    def _count_away(self, function: Function, priority: int, place: int) -> None:
        """One more job is in the stored_queue."""
        stored_queue = function.stored_queue = function.stored_queue or StoredQueue()
        if not stored_queue.jobs[priority]:
            stored_queue.behind[priority] = place - 1
            stored_queue.last[priority] = function.last(priority)
        stored_queue.jobs[priority] += 1
        self._away += 1
        self._fetch_ahead(function, stored_queue, priority)

    def _is_away(self, kept: StoredJob) -> bool:
        """Whether this job is in the stored_queue."""
        function = self._functions.get(kept.function)
        stored_queue = None if function is None else function.stored_queue
        if (
            stored_queue is None
            or not stored_queue.jobs[kept.priority]
            or kept.place <= stored_queue.behind[kept.priority]
        ):
            return False
        return self._job_store is not None and self._job_store.owns(kept)

    def _take_away(self, kept: StoredJob) -> bool:
        """One job less is in the stored_queue, if this one is in it."""
        if not self._is_away(kept):
            return False
        stored_queue = self._functions[kept.function].stored_queue
        assert stored_queue is not None
        stored_queue.jobs[kept.priority] -= 1
        self._away -= 1
        return True

    def _lose_stored_queue(self, function: Function, stored_queue: StoredQueue, priority: int) -> None:
        """The jobs of a stored_queue are not ours any more."""
        jobs, stored_queue.jobs[priority] = stored_queue.jobs[priority], 0
        function.ended += jobs
        function.uncompleted[_ADOPTED] += jobs
        self._away -= jobs
        self._total -= jobs
        self._note_idle(function)

    def _fetch_ahead(self, function: Function, stored_queue: StoredQueue, priority: int) -> None:
        """Have jobs of the stored_queue fetched if memory runs short of them, or it is their turn."""
        if not stored_queue.jobs[priority] or stored_queue.fetching[priority] or self._job_store is None:
            return
        last = stored_queue.last[priority]
        is_short = function.waiting[priority] <= self._policy.in_memory // 2
        if is_short or last is None or last.state is not _QUEUED:
            stored_queue.fetching[priority] = True
            self._job_store.fetch(function.name, priority, stored_queue.behind[priority])

    def _revive(self, function: Function, kept: StoredJob) -> Job:
        """Make a live job of one that is kept."""
        job = Job(
            kept.handle,
            function,
            kept.unique,
            kept.data,
            kept.priority,
            True,
            kept.reducer,
            kept.submitted,
            kept.run_at,
        )
        job.attempts = kept.attempts
        job.saved = True
        self._handles.put(kept.handle, job)
        if kept.unique and self._find_duplicate(function, kept.unique, kept.data) is None:
            self._add_unique(job)
        self._let_in(job)
        if function.meter is not None and job.state is _QUEUED and not job.attempts:
            # It waits since it was submitted, or since its time, wherever it was.
            job.since -= max(0.0, self._wall_clock() - max(kept.submitted, kept.run_at or 0.0))
        return job

    def _seek_stored_duplicate(
        self,
        client: Client,
        function_name: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        reducer: bytes | None,
    ) -> None:
        """Submit a foreground job that may be the same as one of the stored_queue."""
        assert self._job_store is not None
        place = client.connection.saving()

        def found(kept: Found) -> None:
            if client.gone:
                return
            if (
                isinstance(kept, StoredJob)
                and self._handles.get(kept.handle) is None
                and self._take_away(kept)
            ):
                self._revive(self._functions[function_name], kept)
            try:
                if isinstance(kept, Refused):
                    raise kept
                self.submit(client, function_name, unique, data, priority, False, reducer, None, place)
            except Refused as refusal:
                client.connection.refused(place, refusal)

        self._job_store.find_duplicate(function_name, unique, data, found)

    def _seek(self, handle: bytes, found: Tell) -> None:
        assert self._job_store is not None
        try:
            number = number_of(handle)
        except ValueError:
            number = -1
        self._job_store.find(number, found)

    def _stay_online(self, job: Job) -> None:
        """A job that was not saved goes on for those who wait for its result, if there are any."""
        if job.state is _SAVING:
            job.background = False
            if job.watchers:
                self._let_in(job)
            else:
                self._discard(job, _NOT_SAVED)
        elif not (job.background or job.watchers) and job.state in (_QUEUED, _SCHEDULED):
            self._discard(job, _ABANDONED)

    def _let_in(self, job: Job) -> None:
        """Queue a job, at its time if it has one."""
        job.state = _QUEUED
        if job.run_at is None or not self._hold(job, job.run_at):
            self._enqueue(job)

    def _hold(self, job: Job, run_at: float) -> bool:
        """Hold a job until its time; false if that has come."""
        wait = run_at - self._wall_clock()
        if wait <= 0:
            return False
        job.state = _SCHEDULED
        job.function.held[job.priority] += 1
        job.deadline = self._epochs.add(run_at, job)
        self._ring_at(self._clock() + min(wait, LONGEST_NAP))
        return True

    def _enqueue(self, job: Job) -> None:
        function = job.function
        if function.meter is not None:
            now = self._turn_time
            job.since = self._clock() if now is None else now
        function.push(job)
        level = self._level_of[job.priority]
        unready = function.unready[level]
        if unready and not function.blocked:
            for ability_set, slot in unready.items():
                ability_set.list_ready(level, slot)
            unready.clear()
        if function.resting:
            self._wake(function)

    def _take_back(self, job: Job) -> None:
        """The job's worker is gone or too slow: give the job to another, behind those that wait."""
        worker = job.worker
        assert worker is not None, "only a running job can be taken back"
        retries = job.function.retries
        if retries is None:
            retries = self._policy.job_retries
        exhausted = retries != UNLIMITED and job.attempts + 1 >= max(retries, 1)
        if exhausted or not (job.background or job.watchers or job.saving):
            self._give_up(job, _LOST if exhausted else _ABANDONED)
            return
        # It is not there where the worker has lost all of its jobs, or all of the function.
        worker.jobs.pop(job.handle, None)
        if worker.by_function is not None:
            worker.by_function.forget(job)
        if job.deadline is not None:
            self._forget_deadline(job)
        job.worker = None
        job.attempts += 1
        if job.saved and self._job_store is not None:
            self._job_store.attempted(job)
        job.progress = NO_PROGRESS
        job.function.running -= 1
        job.function.retried += 1
        job.state = _QUEUED
        self._enqueue(job)

    def _take_back_all(self, worker: Worker, jobs: Iterable[Job]) -> Iterator[None]:
        """Take jobs back that were taken out of `Worker.jobs`, one at a time."""
        for job in jobs:
            # Meanwhile it may have been cancelled, or have timed out, and even this worker may have it again.
            if job.state is _RUNNING and job.worker is worker and job.handle not in worker.jobs:
                self._take_back(job)
            yield

    def _skip_abandoned(self, ability_set: AbilitySet, job: Job) -> Job | None:
        """The first job that somebody wants, of `job`, which `ability_set` has given, and those behind it.

        None after a slice of others, as if there were none: a worker that then sleeps is woken at once.
        """
        for left in range(self._slices.size - 1, -1, -1):
            if job.background or job.saving or not all(client.gone for client, _ in job.watchers):
                return job
            # It is in no queue any more.
            job.state = _SAVING
            self._discard(job, _ABANDONED)
            following = ability_set.next() if left else None
            if following is None:
                break
            job = following
        return None

    def _give_up(self, job: Job, ending: int) -> None:
        for client, name in self._discard(job, ending):
            client.connection.failed(name)

    def _discard(self, job: Job, ending: int) -> Collection[tuple[Client, bytes]]:
        """End a job in whatever state it is; returns who waited for it."""
        job.function.uncompleted[ending] += 1
        if job.state is _RUNNING:
            assert job.worker is not None
            job.worker.jobs.pop(job.handle, None)
            job.function.running -= 1
        queued = job.state is _QUEUED
        if job.state is _SCHEDULED:
            job.function.held[job.priority] -= 1
        watchers = self._end(job)
        if queued:
            # The object may stay in its queue for long.
            job.data = b""
            function = job.function
            function.dropped(job)
            if function.stored_queue is not None:
                self._fetch_ahead(function, function.stored_queue, job.priority)
        # A job that its worker ends leaves it with a worker. Here that need not be so.
        self._note_idle(job.function)
        return watchers

    def _end(self, job: Job) -> Collection[tuple[Client, bytes]]:
        """Forget a job, but for its worker and queue, which the caller sees to; returns who waited for it."""
        job.function.ended += 1
        self._total -= 1
        if job.deadline is not None:
            self._forget_deadline(job)
        job.state = _GONE
        job.worker = None
        if job.saved and self._job_store is not None:
            self._job_store.remove(number_of(job.handle))
        if job.unique:
            self._remove_unique(job)
        self._handles.remove(job.handle)
        watchers = job.watchers
        for client, name in watchers:
            del client.jobs[name]
            if name != job.handle:
                self._handles.remove(name)
                client.joins.pop(job.handle, None)
        job.watchers = NOBODY
        return watchers

    def _forget_deadline(self, job: Job) -> None:
        assert job.deadline is not None
        (self._timeouts if job.state is _RUNNING else self._epochs).cancel(job.deadline)
        job.deadline = None

    def _reported(self, worker: Worker, handle: bytes, text: str) -> Collection[tuple[Client, bytes]]:
        """Who waits for the worker's job. Raises `JobNotFound` with `text` if it is not its job."""
        job = worker.jobs.get(handle)
        if job is not None:
            return job.watchers
        self._not_reported(worker, handle, text)
        return ()

    def _ended(
        self, worker: Worker, handle: bytes, text: str, ending: int | None = None
    ) -> Collection[tuple[Client, bytes]]:
        """End the worker's job, which was completed unless `ending` says otherwise; returns and raises as
        `_reported` does."""
        job = worker.jobs.pop(handle, None)
        if job is not None:
            worker.ended = handle
            function = job.function
            function.running -= 1
            if ending is not None:
                function.uncompleted[ending] += 1
            meter = function.meter
            if meter is not None:
                now = self._turn_time
                if now is None:
                    now = self._clock()
                times = meter.ran
                time = now - job.since
                if times.low < time <= times.high:
                    times.hits += 1
                    times.sum += time
                else:
                    times.add(time)
            return self._end(job)
        self._not_reported(worker, handle, text)
        return ()

    def _not_reported(self, worker: Worker, handle: bytes, text: str) -> None:
        """The worker reports on a job that is not its own. Raises `JobNotFound` with `text`.

        Unless it has just ended that job itself, or the job was cancelled under its hands: Perl's worker
        sends WORK_FAIL behind its WORK_EXCEPTION, others end a job twice too, and an ERROR kills them.
        """
        if handle != worker.ended and (worker.cancelled is None or handle not in worker.cancelled):
            raise JobNotFound(text)

    # -- sleeping and waking --------------------------------------------------------------------

    def _join_set(self, worker: Worker) -> AbilitySet:
        own_set, worker.own_set = worker.own_set, None
        # To a quiet worker it seems that it knows no function.
        functions = 0 if worker.quiet else len(worker.abilities)
        if own_set is not None and not self._may_walk(worker, functions):
            ability_set = own_set
        else:
            kind = Kind(tuple(worker.abilities) if functions else ())
            shared = self._ability_sets.get(kind)
            if shared is None:
                ability_set = AbilitySet(kind.functions, self._policy) if own_set is None else own_set
                self._share_set(ability_set, kind)
            else:
                ability_set = shared
                self._dissolve(own_set)
        ability_set.members += 1
        worker.ability_set = ability_set
        return ability_set

    def _share_set(self, ability_set: AbilitySet, kind: Kind) -> None:
        """Let workers of this kind find a set."""
        self._ability_sets[kind] = ability_set
        ability_set.kind = kind

    def _share_own_set(self, worker: Worker, own_set: AbilitySet) -> AbilitySet:
        """The worker falls asleep: if it has paid for the walk, let others share its set, or let it share
        that of others. Returns the set that it is in then."""
        self._pay_walk(worker)
        if not self._may_walk(worker, len(worker.abilities)):
            return own_set
        kind = Kind(tuple(worker.abilities))
        shared = self._ability_sets.get(kind)
        if shared is None:
            self._share_set(own_set, kind)
            return own_set
        shared.members += 1
        worker.ability_set = shared
        self._dissolve(own_set)
        return shared

    def _pay_walk(self, worker: Worker) -> None:
        """A packet of the worker has come that lets it walk its functions, now or later."""
        worker.walks = min(worker.walks, WALK_PER_PACKET * len(worker.abilities)) + WALK_PER_PACKET

    def _may_walk(self, worker: Worker, functions: int) -> bool:
        """Whether the worker's packets have paid for a walk over so many functions."""
        if functions <= self._free_walk:
            return True
        if functions > worker.walks:
            return False
        worker.walks -= functions
        return True

    def _change_abilities(self, worker: Worker) -> AbilitySet | None:
        """The worker is about to register or unregister a function. Returns its own set, to be changed in
        place, if it has many functions."""
        self._pay_walk(worker)
        own_set = self._look_again(worker)
        if worker.quiet or len(worker.abilities) <= self._free_walk:
            self._dissolve(own_set)
            return None
        if own_set is None:
            # It has just come to have many, or has paid for this walk before it shared the set of others.
            own_set = AbilitySet(tuple(worker.abilities), self._policy)
        worker.own_set = own_set
        return own_set

    def _look_again(self, worker: Worker) -> AbilitySet | None:
        """The worker's functions are about to change: if it sleeps, it is woken to look again. Returns what
        `_leave_set` does.

        gearmand leaves a worker asleep that registers a function which has jobs waiting.
        """
        asleep = worker.state is _ASLEEP
        left = self._leave_set(worker)
        if asleep:
            worker.state = _WOKEN
            worker.connection.wake()
        return left

    def _unregister_all(self, worker: Worker) -> None:
        abilities, worker.abilities = worker.abilities, {}
        jobs, worker.jobs = worker.jobs, {}
        worker.by_function = None
        if abilities:
            self._begin(self._unregister(abilities))
        if jobs:
            self._begin(self._take_back_all(worker, jobs.values()))

    def _unregister(self, abilities: Iterable[Function]) -> Iterator[None]:
        for function in abilities:
            function.workers -= 1
            self._note_idle(function)
            yield

    def _leave_set(self, worker: Worker) -> AbilitySet | None:
        """Be in no set. Returns the one that was the worker's own, if there was one: nobody finds it any
        more."""
        left, worker.own_set = worker.own_set, None
        ability_set = worker.ability_set
        if ability_set is None:
            return left
        if worker.state is not _AWAKE:
            self._awake(worker, None)
        worker.ability_set = None
        ability_set.members -= 1
        if ability_set.members:
            return None
        if ability_set.kind is not None:
            del self._ability_sets[ability_set.kind]
            ability_set.kind = None
        return ability_set

    def _dissolve(self, left: AbilitySet | None) -> None:
        """Make the functions forget a set that nobody is in any more."""
        if left is not None:
            self._begin(_dissolving(left))

    def _wake(self, function: Function) -> None:
        """A job of `function` was queued: wake as many sleepers as the policy says.

        Waking one for each job, and not all of them, keeps a thousand sleepers from racing for one
        job. That is safe because a woken worker that does something else passes the wake-up on
        (`_awake`), and one that does nothing is replaced (`_wake_in_place_of_the_late`).
        """
        if function.blocked:
            return
        wanted = self._policy.wakeup
        now = self._clock()
        resting = function.resting
        while resting:
            ability_set = next(iter(resting))
            sleepers = ability_set.sleepers
            while sleepers:
                worker, _ = sleepers.popitem(last=False)
                worker.state = _WOKEN
                worker.woken_for = function
                self._woken[worker] = now
                worker.connection.wake()
                wanted -= 1
                if not wanted:
                    if len(resting) > 1:
                        # The next job is for another kind of worker.
                        resting[ability_set] = resting.pop(ability_set)
                    self._ring_at(now + WAKE_PATIENCE)
                    return
            del resting[ability_set]
            ability_set.out_of_sleepers(function)
        if self._woken:
            self._ring_at(now + WAKE_PATIENCE)

    def _awake(self, worker: Worker, job: Job | None) -> None:
        """The worker is awake, and has been given `job`.

        If that is not of the function it was woken for, somebody else must see to that one.
        """
        if worker.state is _ASLEEP:
            assert worker.ability_set is not None
            worker.ability_set.sleepers.pop(worker, None)
        worker.state = _AWAKE
        function = worker.woken_for
        if function is not None:
            worker.woken_for = None
            self._woken.pop(worker, None)
            if (job is None or job.function is not function) and any(function.waiting):
                self._wake(function)

    def _wake_in_place_of_the_late(self, now: float) -> None:
        """Wake others for workers that were woken and have not come in time."""
        while self._woken:
            worker, when = next(iter(self._woken.items()))
            if when + WAKE_PATIENCE > now:
                break
            del self._woken[worker]
            function = worker.woken_for
            worker.woken_for = None
            if function is not None and any(function.waiting):
                self._wake(function)


def _dissolving(ability_set: AbilitySet) -> Iterator[None]:
    """Make the functions forget a set, one at a time."""
    while ability_set.dissolve(1):
        yield


def _status(job: Job | None) -> JobStatus:
    if job is None:
        return UNKNOWN
    return JobStatus(True, job.state is _RUNNING, *job.progress, len(job.watchers))
