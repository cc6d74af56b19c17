"""Jobs, functions, clients, workers and ability sets: the things that refer to each other.

The broker alone changes them. Each keeps its own invariant.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from txgearman.broker.deadlines import Deadline
from txgearman.broker.job_extras import ExtensibleJob, JobExtras
from txgearman.broker.job_states import PRIORITIES, JobState, Outcome, WorkerState
from txgearman.broker.kind import Kind
from txgearman.broker.policy import NO_RULES, FunctionOrder, FunctionRules, Levels, Policy, levels_of
from txgearman.broker.rate import Rate
from txgearman.broker.retries import RetryPolicy
from txgearman.broker.run_limits import RunLimits
from txgearman.broker.running_by_function import RunningByFunction
from txgearman.broker.stored_queue import StoredQueue

if TYPE_CHECKING:
    from txgearman.broker.connections import ClientConnection, WorkerConnection
    from txgearman.broker.histograms import Meter
    from txgearman.broker.keyed_queue import KeyedQueue

NOBODY: Final[dict[tuple[Client, bytes], None]] = {}
"""The watchers of a job that has none. Never changed: `Job.watch` replaces it."""

MAX_CANCELLED: Final = 1000
"""Handles of stopped jobs that a worker is remembered to have had: as many as a connection is likely to run
at once, as all of them may be cancelled in one moment. Reports on those beyond it are answered with an ERROR,
which ends some workers. A handle takes some 90 bytes."""

_REMOVED: Final = sys.maxsize
"""The turn of a function that its set has no more."""

_SLACK: Final = 64
"""Entries of what has gone that are never worth a clean-up: jobs in the middle of a queue, removed functions
in a heap, handles in an index."""

_QUEUED: Final = JobState.QUEUED


class Job(ExtensibleJob):
    """One job in the server, from its submission to its end.

    `handle`, `unique` and `data` are bytes; `priority` is one of `Priority` as a plain int; `background` is
    true as soon as one submitter wants the job whether it waits or not; the keys of `watchers` are the
    waiting clients with the handle each was told, in the order they came; `submitted` is when it came, in
    seconds since the epoch; `deadline` is when a scheduled job is to be queued, or a running one to be taken
    from its worker. `stored` says that the store has it; while it is being saved, `saving` holds who is to be
    told. `since` is when it was queued last, or given to the worker that has it, by the broker's monotonic
    clock, and 0.0 where the broker measures no times. `started` is when its last run began, in seconds since
    the epoch, None before the first.

    `expiry` is when the job ends unless a worker gets it, None unless it waits and its function or its
    options say so. What else only some jobs have is in `extras`.
    """

    __slots__ = (
        "background",
        "data",
        "deadline",
        "expiry",
        "function",
        "handle",
        "priority",
        "saving",
        "since",
        "started",
        "state",
        "stored",
        "submitted",
        "unique",
        "watchers",
        "worker",
    )

    def __init__(
        self,
        handle: bytes,
        function: Function,
        unique: bytes,
        data: bytes,
        priority: int,
        background: bool,
        submitted: float,
        extras: JobExtras | None = None,
    ) -> None:
        self.handle = handle
        self.function = function
        self.unique = unique
        self.data = data
        self.priority = priority
        self.background = background
        self.submitted = submitted
        self.extras = extras
        self.state = _QUEUED
        self.worker: Worker | None = None
        self.watchers = NOBODY
        self.deadline: Deadline[Job] | None = None
        self.expiry: Deadline[Job] | None = None
        self.since = 0.0
        self.started: float | None = None
        self.stored = False
        self.saving: list[tuple[Client, object]] | None = None

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for this job, by the name of `handle`."""
        if self.watchers:
            self.watchers[client, handle] = None
        else:
            self.watchers = {(client, handle): None}


class Function:
    """What jobs are submitted to and workers register for.

    `waiting` counts queued jobs by priority, `scheduled` those scheduled for later and those that wait for a
    retry, `retrying` the latter alone, `running` those that a
    worker has, `workers` the workers registered. `limits` holds by priority the `total` at which a new job
    is refused, None for no limit; `rate` how fast new ones may come, None for no limit; `limited` says in
    one look whether there is either, or `server_limited`, a limit of the whole server. `time_limit`,
    `job_retries`, `expires`, `heartbeat`, `unique_for` and `keep_results` are those of `FunctionRules`;
    `retry` is what becomes of failed runs, None where nothing is said of that. `paused` means that the jobs
    are kept from the workers. `pinned` means that an administrator has made it, or has set something for it.
    `run_limits` limit its runs, None for no limit; `throttled` means that for now they let no job begin.
    `keyed_queue` has the queued jobs where the runs of each key are limited, and is None elsewhere. `moved`
    are those that are there, as long as others are still on their way, and None otherwise.

    Counted since the function was made: `submitted` and `ended` the jobs that came and went, so that
    `total` costs nothing; `restored` those of `submitted` that came from the store; `uncompleted` those of
    `ended` that were not completed, by `Outcome`; `coalesced` the submits that were the same as a live job,
    `refused` those that met a limit; `requeued` how often a job was taken from its worker and queued again.
    `meter` measures the jobs' times, if anybody does.

    `stored_queue` are the jobs that are not in memory, None as long as there never were any. `traced` says
    that the server traces jobs.

    `plain` says in one look that the jobs need nothing but a queue and a worker: no measures, traces, limits
    of runs, of their times and of ages, and no stored queue. The hot path tests that in place of all these.

    `unready` and `resting` are kept for `AbilitySet`, which explains them.
    """

    __slots__ = (
        "_gone",
        "_levels",
        "_open",
        "_priorities",
        "_queues",
        "coalesced",
        "dispatch_suspended",
        "ended",
        "expires",
        "heartbeat",
        "job_retries",
        "keep_results",
        "keyed_queue",
        "limited",
        "limits",
        "meter",
        "moved",
        "name",
        "paused",
        "pinned",
        "plain",
        "rate",
        "refused",
        "requeued",
        "resting",
        "restored",
        "retry",
        "retrying",
        "run_limits",
        "running",
        "scheduled",
        "server_limited",
        "stored_queue",
        "submitted",
        "throttled",
        "time_limit",
        "traced",
        "uncompleted",
        "unique_for",
        "unready",
        "waiting",
        "workers",
    )

    def __init__(
        self,
        name: bytes,
        levels: Levels,
        rules: FunctionRules = NO_RULES,
        meter: Meter | None = None,
        retry: RetryPolicy | None = None,
        traced: bool = False,
    ) -> None:
        self.name = name
        self.meter = meter
        self.traced = traced
        self.waiting = [0] * PRIORITIES
        self.scheduled = [0] * PRIORITIES
        self.submitted = 0
        self.ended = 0
        self.uncompleted = [0] * len(Outcome)
        self.coalesced = 0
        self.refused = 0
        self.restored = 0
        self.requeued = 0
        self.retrying = 0
        self.running = 0
        self.workers = 0
        self.paused = False
        self.pinned = False
        self.dispatch_suspended = False
        self.stored_queue: StoredQueue[Job] | None = None
        self.server_limited = False
        self.limits: tuple[int | None, ...] | None = None
        self.rate: Rate | None = None
        self.retry = retry
        self.run_limits: RunLimits[Job] | None = None
        self.keyed_queue: KeyedQueue[Job] | None = None
        self.throttled = False
        self.moved: set[Job] | None = None
        self._priorities = levels
        self.obey(rules)
        self._queues: tuple[deque[Job], ...] = tuple(deque() for _ in range(PRIORITIES))
        self._open = tuple(tuple(self._queues[priority] for priority in level) for level in levels)
        self._levels: tuple[tuple[deque[Job], ...], ...] = self._open
        self._gone = [0] * PRIORITIES
        self.unready: tuple[dict[AbilitySet, Slot], ...] = tuple({} for _ in levels)
        self.resting: dict[AbilitySet, None] = {}

    def obey(self, rules: FunctionRules, before: FunctionRules | None = None) -> None:
        """Take over the operator's rules for this function, but for `retry`, which the server's defaults make
        too. An administrator's limit stays where the rules say what those `before` said."""
        self.expires = rules.expires or None
        self.unique_for = rules.unique_for or None
        self.keep_results = rules.keep_results or None
        self.time_limit = rules.time_limit or None
        self.heartbeat = rules.heartbeat or None
        self.job_retries = rules.job_retries
        if before is None or rules.limits != before.limits:
            self.limit_queue(rules.limits or ())
        rate = rules.submit_rate or 0, rules.submit_burst or 0
        if before is None or rate != (before.submit_rate or 0, before.submit_burst or 0):
            self.limit_rate(*rate)
        self._sum_up()

    def limit_queue(self, limits: tuple[int | None, ...]) -> None:
        """Set `limits`."""
        self.limits = None if all(limit is None for limit in limits) else limits
        self._sum_up()

    def limit_rate(self, per_second: float, burst: int) -> None:
        """Set `rate`; 0 jobs `per_second` are no limit, a `burst` of 0 is as many as the rate."""
        self.rate = Rate(per_second, burst) if per_second else None
        self._sum_up()

    def limit_by_server(self, limited: bool) -> None:
        """Set `server_limited`."""
        self.server_limited = limited
        self._sum_up()

    def _sum_up(self) -> None:
        self.limited = self.server_limited or self.limits is not None or self.rate is not None
        rare = self.run_limits, self.time_limit, self.heartbeat, self.expires, self.meter, self.stored_queue
        self.plain = not self.traced and all(each is None for each in rare)

    def begin_stored_queue(self) -> StoredQueue[Job]:
        """`stored_queue`, made if there is none."""
        stored_queue = self.stored_queue
        if stored_queue is None:
            stored_queue = self.stored_queue = StoredQueue[Job]()
            self._sum_up()
        return stored_queue

    def pause(self) -> None:
        """Keep the queued jobs from the workers: to them the function is without jobs."""
        self.paused = True
        self.suspend_dispatch()

    def suspend_dispatch(self) -> None:
        """As `pause`, but not by somebody's order."""
        self.dispatch_suspended = True
        self._choose_levels()

    def resume_dispatch(self) -> None:
        """Undo `pause` and `suspend_dispatch`."""
        self.paused = self.dispatch_suspended = False
        self._choose_levels()

    def throttle(self, throttled: bool) -> None:
        """Set `throttled`."""
        self.throttled = throttled
        self._choose_levels()
        if not throttled:
            self.list_all_ready()

    def _choose_levels(self) -> None:
        # So that `pop` need not ask.
        closed = self.dispatch_suspended or self.throttled or self.keyed_queue is not None
        self._levels = tuple(() for _ in self._open) if closed else self._open

    def list_all_ready(self) -> None:
        """Let each set look again that had found this function without a job, at all levels."""
        if not (self.dispatch_suspended or self.throttled):
            for level in range(len(self.unready)):
                self.list_ready(level)

    def list_ready(self, level: int) -> None:
        """Let each set look again that had found this function without a job at `level`."""
        unready = self.unready[level]
        for ability_set, slot in unready.items():
            ability_set.list_ready(level, slot)
        unready.clear()

    def list_priority_ready(self, priority: int) -> None:
        """There is a job of this priority that workers may have."""
        level = 0 if len(self.unready) == 1 else priority
        if self.unready[level] and not (self.dispatch_suspended or self.throttled):
            self.list_ready(level)

    # -- limits of runs -------------------------------------------------------------------------

    def limit_runs(self, limits: RunLimits[Job] | None) -> None:
        """Set `run_limits`. Where `keyed_queue` is another then, all queued jobs must be out of the former.
        They are to be moved into the new one by `move_next`."""
        queue = None if limits is None else limits.queue
        if queue is not self.keyed_queue:
            self.trim()
            self.moved = None if queue is None or not any(self.waiting) else set()
        self.run_limits, self.keyed_queue = limits, queue
        self._sum_up()
        self.throttle(False)

    def leave_keyed_queue(self) -> None:
        """Take all jobs out of `keyed_queue`, if there is one, ahead of those that are not there yet."""
        if self.keyed_queue is not None:
            for job in reversed(self.keyed_queue.empty()):
                self._queues[job.priority].appendleft(job)

    def move_next(self) -> bool:
        """Move the next job into `keyed_queue`. Returns false if there is none left."""
        keyed_queue, moved = self.keyed_queue, self.moved
        if keyed_queue is not None and moved is not None:
            for queue in self._queues:
                while queue:
                    job = queue.popleft()
                    if job.state is _QUEUED:
                        keyed_queue.push(job)
                        moved.add(job)
                        return True
                    self._gone[job.priority] -= 1
        self.moved = None
        return False

    @property
    def has_startable(self) -> bool:
        """Whether workers may have a job now, as far as that is known without looking at the queues."""
        limits = self.run_limits
        if limits is None:
            return any(self.waiting)
        return limits.free > 0 and (any(self.waiting) if limits.queue is None else limits.queue.runnable > 0)

    def trim(self) -> None:
        """Let go of the jobs that are gone from the head of their queue."""
        for queue in self._queues:
            while queue and queue[0].state is not _QUEUED:
                self._gone[queue.popleft().priority] -= 1

    def heads(self) -> list[Job]:
        """The job that is next of each priority that has one."""
        self.trim()
        heads = [queue[0] for queue in self._queues if queue]
        return heads if self.keyed_queue is None else [*self.keyed_queue.heads(), *heads]

    @property
    def total(self) -> int:
        """All jobs of the function that have not ended, running ones included."""
        return self.submitted - self.ended

    @property
    def idle(self) -> bool:
        """Whether nothing would be missed but its counts: no job, no worker, no setting of its own."""
        return not (self.workers or self.pinned) and self.submitted == self.ended

    def push(self, job: Job) -> None:
        """Put a job behind the others of its priority."""
        priority = job.priority
        self._queues[priority].append(job)
        self.waiting[priority] += 1

    def push_limited(self, job: Job) -> None:
        """As `push`, where runs may be limited by key."""
        if self.keyed_queue is None:
            self.push(job)
        elif self.moved is not None and self._queues[job.priority]:
            self.moved.discard(job)
            self.push(job)
        else:
            if self.moved is not None:
                self.moved.add(job)
            self.keyed_queue.push(job)
            self.waiting[job.priority] += 1

    def last(self, priority: int) -> Job | None:
        """What `push` put into a queue last, as long as the queue holds it; where runs are limited by key, of
        those that could run."""
        queue = self._queues[priority]
        if queue:
            return queue[-1]
        return None if self.keyed_queue is None else self.keyed_queue.last[priority]

    def pop(self, level: int) -> Job | None:
        """Take the job that is next at `level`."""
        for queue in self._levels[level]:
            while queue:
                job = queue.popleft()
                if job.state is _QUEUED:
                    self.waiting[job.priority] -= 1
                    return job
                self._gone[job.priority] -= 1
        keyed_queue = self.keyed_queue
        if keyed_queue is None or self.dispatch_suspended or self.throttled:
            return None
        head = keyed_queue.pop(self._priorities[level])
        if head is not None:
            self.waiting[head.priority] -= 1
        return head

    def has_job(self, level: int) -> bool:
        """Whether `pop` would give a job."""
        for queue in self._levels[level]:
            while queue:
                if queue[0].state is _QUEUED:
                    return True
                self._gone[queue.popleft().priority] -= 1
        keyed_queue = self.keyed_queue
        if keyed_queue is None or self.dispatch_suspended or self.throttled:
            return False
        return keyed_queue.has_job(self._priorities[level])

    def dropped(self, job: Job) -> None:
        """A queued job has just become GONE.

        The object stays in its queue until it comes up, or until such objects are the majority: so
        taking a job out of a deep queue is O(1) over time. Jobs that leave in the order in which they came
        are never many at a time to be cleaned up.
        """
        priority = job.priority
        queue = self._queues[priority]
        self.waiting[priority] -= 1
        if self.keyed_queue is not None and (self.moved is None or job in self.moved):
            self.keyed_queue.dropped(job)
            return
        self._gone[priority] += 1
        while queue and queue[0].state is not _QUEUED:
            queue.popleft()
            self._gone[priority] -= 1
        if self._gone[priority] > _SLACK and self._gone[priority] > self.waiting[priority]:
            remaining = [job for job in queue if job.state is _QUEUED]
            queue.clear()
            queue.extend(remaining)
            self._gone[priority] = 0


class Client:
    """A connection as a client: `jobs` are those it waits for, by the handle it was told; `coalesced` has how
    often it waits for those that it waits for more than once, by their own handles; `gone` says that the
    connection has ended."""

    __slots__ = ("coalesced", "connection", "gone", "jobs")

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.jobs: dict[bytes, Job] = {}
        self.coalesced: dict[bytes, int] = {}
        self.gone = False


class Worker:
    """A connection as a worker.

    `abilities` are the functions it can do in the order it registered them, with the time limit in
    seconds or None; `ability_set` the shared record of workers with the same functions, None after
    a change until it is needed, and `own_set` meanwhile what becomes it; `walks` how many functions may be
    walked for the packets that it has sent (`txgearman.broker.waking`); `jobs` those it has, which
    `by_function` finds by their function once somebody has asked for that; `woken_for` the function it was
    last woken for; `ended` is the handle of the job it ended last, None before the first; `cancelled` are
    the handles of those jobs that were stopped under its hands last, None before the first; `quiet` means
    that it is to get no more jobs.
    """

    __slots__ = (
        "abilities",
        "ability_set",
        "by_function",
        "cancelled",
        "connection",
        "ended",
        "jobs",
        "own_set",
        "quiet",
        "state",
        "walks",
        "woken_for",
    )

    def __init__(self, connection: WorkerConnection) -> None:
        self.connection = connection
        self.abilities: dict[Function, float | None] = {}
        self.ability_set: AbilitySet | None = None
        self.own_set: AbilitySet | None = None
        self.walks = 0
        self.jobs: dict[bytes, Job] = {}
        self.by_function: RunningByFunction[Job] | None = None
        self.state = WorkerState.AWAKE
        self.woken_for: Function | None = None
        self.ended: bytes | None = None
        self.cancelled: dict[bytes, None] | None = None
        self.quiet = False

    def note_cancelled(self, handle: bytes) -> None:
        """Remember that a later report on `handle` is no fault of this worker."""
        if self.cancelled is None:
            self.cancelled = {}
        # A job that was given to this worker again is the last once more.
        self.cancelled.pop(handle, None)
        self.cancelled[handle] = None
        if len(self.cancelled) > MAX_CANCELLED:
            del self.cancelled[next(iter(self.cancelled))]


class Slot:
    """A function in one set. The one with the smallest `turn` is next, if it has a job."""

    __slots__ = ("function", "turn")

    def __init__(self, function: Function, turn: int) -> None:
        self.function = function
        self.turn = turn


class AbilitySet:
    """The functions of one kind of worker, ordered by whose turn it is, and the sleepers of that kind.

    `functions` must be in the order in which they were registered. `kind` is what the set is found by; None
    while it is one worker's own, and found by nobody.
    """

    __slots__ = (
        "_first",
        "_forgotten",
        "_ready",
        "_removed",
        "_slots",
        "_take_turns",
        "_turn",
        "kind",
        "members",
        "sleepers",
    )

    def __init__(self, functions: Sequence[Function], policy: Policy) -> None:
        self.kind: Kind[Function] | None = None
        self.members = 0
        # In the order they fell asleep: who slept longest is woken first.
        self.sleepers: OrderedDict[Worker, None] = OrderedDict()
        by_priority = policy.order is FunctionOrder.PRIORITY
        self._take_turns = by_priority or policy.round_robin
        # The function that was registered last comes first: those that come get lower turns than all others,
        # those that were served higher ones.
        self._first = -len(functions)
        self._turn = 0
        slots = [Slot(function, -place) for place, function in enumerate(functions, 1)]
        self._slots = dict(zip(functions, slots, strict=True))
        self._forgotten: dict[Function, None] = dict.fromkeys(functions)
        # Heaps of (turn, slot); turns differ, so slots are never compared. A function's turn may have moved
        # on since its entry was made, or the function been removed: next() puts that right when the entry
        # comes up.
        self._ready: tuple[list[tuple[int, Slot]], ...] = tuple([] for _ in levels_of(policy))
        # How many entries there may be of functions that were removed.
        self._removed = 0
        slots.reverse()
        for level, heap in enumerate(self._ready):
            for slot in slots:
                if slot.function.has_job(level):
                    # In the order of the turns: it is a heap as it is.
                    heap.append((slot.turn, slot))
                else:
                    slot.function.unready[level][self] = slot

    @property
    def functions(self) -> list[Function]:
        """All functions. This walks them."""
        return list(self._slots)

    def add(self, function: Function) -> None:
        """Take in a function, as the one that was registered last."""
        self._first -= 1
        slot = self._slots[function] = Slot(function, self._first)
        self._forgotten[function] = None
        for level, heap in enumerate(self._ready):
            if function.has_job(level):
                heappush(heap, (slot.turn, slot))
            else:
                function.unready[level][self] = slot

    def remove(self, function: Function) -> None:
        """Leave a function out."""
        slot = self._slots.pop(function)
        slot.turn = _REMOVED
        self._forgotten.pop(function, None)
        function.resting.pop(self, None)
        for unready in function.unready:
            if unready.pop(self, None) is None:
                self._removed += 1
        if self._removed > _SLACK and self._removed > len(self._slots):
            for heap in self._ready:
                heap[:] = [entry for entry in heap if entry[1].turn != _REMOVED]
                heapify(heap)
            self._removed = 0

    def dissolve(self, most: int) -> int:
        """No worker is left: make the functions forget this set, at most so many. How many are left."""
        slots = self._slots
        for _ in range(min(most, len(slots))):
            function, _slot = slots.popitem()
            function.resting.pop(self, None)
            for unready in function.unready:
                unready.pop(self, None)
        return len(slots)

    # -- ready functions ------------------------------------------------------------------------

    def list_ready(self, level: int, slot: Slot) -> None:
        """List a function again that this set had found without a job at `level`."""
        heappush(self._ready[level], (slot.turn, slot))

    def next(self) -> Job | None:
        """Take the job that is next for a worker of this kind."""
        for level, heap in enumerate(self._ready):
            while heap:
                turn, slot = heap[0]
                if turn != slot.turn:
                    if slot.turn != _REMOVED:
                        heapreplace(heap, (slot.turn, slot))
                    else:
                        self._drop_removed(heap)
                    continue
                job = slot.function.pop(level)
                if job is not None:
                    if self._take_turns and len(self._slots) > 1:
                        self._turn += 1
                        slot.turn = self._turn
                    return job
                heappop(heap)
                slot.function.unready[level][self] = slot
        return None

    def has_job(self) -> bool:
        """Whether `next` would give a job."""
        for level, heap in enumerate(self._ready):
            while heap:
                slot = heap[0][1]
                if slot.turn == _REMOVED:
                    self._drop_removed(heap)
                    continue
                if slot.function.has_job(level):
                    return True
                heappop(heap)
                slot.function.unready[level][self] = slot
        return False

    def _drop_removed(self, heap: list[tuple[int, Slot]]) -> None:
        """The entry of a function that was removed has come up."""
        heappop(heap)
        self._removed -= 1

    # -- sleepers -------------------------------------------------------------------------------

    def put_to_sleep(self, worker: Worker) -> None:
        """Add a sleeper."""
        if self._forgotten:
            for function in self._forgotten:
                function.resting[self] = None
            self._forgotten.clear()
        self.sleepers[worker] = None

    def out_of_sleepers(self, function: Function) -> None:
        """A function found no sleeper here and has removed this set from its `resting`."""
        if function in self._slots:
            self._forgotten[function] = None
