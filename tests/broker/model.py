"""A second broker to hold the first one to: plain lists and linear scans, slow and easy to believe.

It knows nothing of indexes, heaps or stale entries, and imports of the real broker only constants and data.
What each client is to be told is collected in `Model.told`. Which sleeper is woken is not predicted
where the rules leave it open; `Model.wake` checks that the choice of the real broker obeys them.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from txgearman.broker.entities import MAX_CANCELLED
from txgearman.broker.handles import number_of
from txgearman.broker.job_options import NO_OPTIONS, JobOptions
from txgearman.broker.kept_result import RESULT_OVERHEAD
from txgearman.broker.kept_uniques import NOT_KEPT
from txgearman.broker.policy import NO_RUN_RULES, WAKE_PATIENCE, FunctionOrder, Policy, RunRules
from txgearman.broker.results import PART_OVERHEAD
from txgearman.broker.retries import WORKER_ATTEMPTS, RetryPolicy
from txgearman.broker.waking import WALK_PER_PACKET

Key = tuple[str, bytes]

FAILURES = frozenset({"failed", "raised", "lost", "timed_out"})
"""The ends of a background job that make it a dead one."""

TIMED_OUT = b"The time limit of the run has passed"
"""What is kept of a run that took too long."""


class NotFound(Exception):
    """The model's JobNotFound."""


class Full(Exception):
    """The model's QueueFull."""


class Kept(Exception):
    """The model's UniqueKept."""


class InUse(Exception):
    """The model's UniqueInUse."""


@dataclass(eq=False)
class ModelJob:
    """A job; `key` is what makes another submit the same job, None where nothing does; `parts` are what its
    run has sent of its result, None if that cannot be kept as a whole."""

    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    priority: int
    background: bool
    key: Key | None
    run_at: float | None = None
    state: str = "queued"
    worker: str | None = None
    watchers: list[tuple[str, bytes]] = field(default_factory=list)
    losses: int = 0
    progress: tuple[int, int] = (0, 0)
    due: float | None = None
    heard: float = 0.0
    heartbeat: float | None = None
    since: float = 0.0
    submitted: float = 0.0
    attempts: int = 0
    failure: str = ""
    error: bytes = b""
    failed_by: str = ""
    retry_at: float | None = None
    expires_at: float = 0.0
    options: JobOptions = NO_OPTIONS
    revived: bool = False
    parts: list[bytes] | None = field(default_factory=list)

    @property
    def shown_failure(self) -> str:
        """The outcome of its last run, where that was an attempt or one was before it."""
        return self.failure if self.attempts else ""

    @property
    def leaves_at(self) -> float:
        """When it is taken from its worker if that says nothing more."""
        silent = math.inf if self.heartbeat is None else self.heard + self.heartbeat
        return min(math.inf if self.due is None else self.due, silent)

    @property
    def wakes_at(self) -> float:
        """When one that is held or retrying is queued, by the wall clock."""
        when = self.run_at if self.state == "held" else self.retry_at
        assert when is not None
        return when


@dataclass(frozen=True)
class ModelEnd:
    """What is to be known of a job that has ended. `how` is its outcome, `job` is not changed any more."""

    job: ModelJob
    how: str
    worker: str
    ended: float


@dataclass(frozen=True)
class ModelResult:
    """A result that is kept until `expires_at`, `data` None if it is not whole."""

    handle: bytes
    data: bytes | None
    expires_at: float

    @property
    def weight(self) -> int:
        return RESULT_OVERHEAD + len(self.data or b"")


class ModelTimes:
    """Times that were measured, in seconds: the shortest first, and their sum."""

    def __init__(self) -> None:
        self.ordered: list[float] = []
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        insort(self.ordered, seconds)
        self.sum += seconds


@dataclass(eq=False)
class ModelWorker:
    """A worker; `turns` is the order of its kind's functions, None until it grabs or sleeps, and `kept` what
    they will be then if nobody else has any. `own` says that nobody can come to share them; `walks` is what
    it has paid for finding others to share with. `told` are the jobs that it was told to stop, with the
    reasons, and `cancelled` the handles on which its reports are dropped."""

    name: str
    abilities: dict[bytes, float | None] = field(default_factory=dict)
    turns: list[bytes] | None = None
    state: str = "awake"
    woken_for: bytes | None = None
    woken_at: float = 0.0
    ended: bytes = b""
    hears_cancel: bool = False
    cancelled: list[bytes] = field(default_factory=list)
    told: list[tuple[bytes, bytes]] = field(default_factory=list)
    disconnected: bool = False
    quiet: bool = False
    kept: list[bytes] | None = None
    own: bool = False
    walks: int = 0

    @property
    def kind(self) -> list[bytes]:
        """The functions it may get jobs of."""
        return [] if self.quiet else list(self.abilities)


class Model:
    """The rules of the broker. `woken` is the list on which the real broker's workers are woken.

    A worker with more functions than `free_walk` keeps its turns when its functions change, if it shares them
    with nobody.
    """

    def __init__(
        self, policy: Policy, woken: list[str], measured: int, free_walk: int, slice_size: int
    ) -> None:
        self.policy = policy
        self.free_walk = free_walk
        self.slice_size = slice_size
        self.measured = measured
        self.woken = woken
        self.now = 0.0
        self.wall = 0.0
        self.last_handle = 0
        self.given_so_far = 0
        self.functions: dict[bytes, tuple[int | None, ...]] = {}
        self.paused: set[bytes] = set()
        self.runs: dict[bytes, RunRules] = {}  # what limits the runs of each function
        self.offered: Counter[bytes] = Counter()  # how many jobs somebody was woken for
        self.failed: Counter[bytes] = Counter()  # runs in a row
        self.buckets: dict[bytes, tuple[float, float]] = {}  # how many may begin, and when that was so
        self.jobs: list[ModelJob] = []  # all, in the order they were submitted
        self.queue: list[ModelJob] = []  # those that wait, in the order they came
        self.held: list[ModelJob] = []  # held or retrying, in the order in which they came to that
        self.expiring: list[ModelJob] = []  # those that wait and may expire, in the order they began to
        self.dead: list[ModelEnd] = []  # in the order in which they died
        self.evicted = 0
        self.kept: dict[tuple[bytes, Key], tuple[bytes, float]] = {}  # handles of done jobs, until when
        self.kept_times: list[tuple[float, tuple[bytes, Key]]] = []  # each time that one was kept
        self.results: list[ModelResult] = []  # in the order in which their jobs ended
        self.happened: Counter[str] = Counter()  # what a walk must not miss
        self.deaths: list[ModelEnd] = []  # of which nobody was told yet
        self.ended: dict[bytes, ModelEnd] = {}  # the history, by handle
        self.limited: list[ModelJob] = []  # running with a time limit, in the order they were given
        self.workers: dict[str, ModelWorker] = {}
        self.sleepers: list[ModelWorker] = []  # who slept longest first
        self.awaited: list[ModelWorker] = []  # woken and not come, in the order they were woken
        self.grabbed: dict[bytes, int] = {}  # how many had been given when a job was, by handle
        self.told: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.rows: dict[bytes, bytes | None] = {}  # where each function is counted, None with the others
        self.counted: Counter[tuple[bytes | None, str]] = Counter()
        self.timed: dict[tuple[bytes | None, str], ModelTimes] = defaultdict(ModelTimes)

    # -- finding --------------------------------------------------------------------------------

    def by_handle(self, handle: bytes) -> ModelJob | None:
        for job in self.jobs:
            if job.handle == handle or any(name == handle for _, name in job.watchers):
                return job
        return None

    def by_unique(self, unique: bytes) -> ModelJob | None:
        for job in reversed(self.jobs):
            if job.key == ("unique", unique):
                return job
        return None

    def running(self, worker: str) -> list[ModelJob]:
        return [job for job in self.jobs if job.worker == worker]

    # -- limits of runs -------------------------------------------------------------------------

    def limited_runs(self, function: bytes) -> bool:
        return self.runs[function] != NO_RUN_RULES

    def key_of(self, job: ModelJob) -> bytes:
        """What the runs of a job are limited by; empty for none."""
        if job.unique == b"-" or not self.runs[job.function].max_running_per_key:
            return b""
        return job.unique.split(self.runs[job.function].key_separator)[0]

    def running_of(self, function: bytes) -> list[ModelJob]:
        return [job for job in self.jobs if job.function == function and job.state == "running"]

    def is_key_full(self, job: ModelJob) -> bool:
        key = self.key_of(job)
        mates = [other for other in self.running_of(job.function) if self.key_of(other) == key]
        return bool(key) and len(mates) >= self.runs[job.function].max_running_per_key

    def bucket(self, function: bytes) -> float:
        """How many jobs the rate lets begin; infinite without one."""
        rules = self.runs[function]
        if not rules.start_rate:
            return math.inf
        burst = rules.start_burst or max(1, math.ceil(rules.start_rate))
        left, when = self.buckets.get(function, (burst, self.now))
        left = min(burst, left + (self.now - when) * rules.start_rate)
        self.buckets[function] = left, self.now
        return left + 1e-9

    def free(self, function: bytes) -> float:
        """How many more jobs may run for now, whatever their keys are."""
        most = self.runs[function].max_running or math.inf
        return min(most - len(self.running_of(function)), math.floor(min(self.bucket(function), 1e9)))

    def next_of_keys(self, function: bytes) -> list[ModelJob]:
        """The jobs that are shown as the next ones: where runs are limited by key, the first of each that is
        not full, and of those without a key."""
        waiting = [job for job in self.queue if job.function == function]
        if not self.runs[function].max_running_per_key:
            return waiting
        first: dict[bytes, ModelJob] = {}
        for job in sorted(waiting, key=lambda job: job.priority):
            first.setdefault(self.key_of(job), job)
        return [job for job in waiting if first[self.key_of(job)] is job and not self.is_key_full(job)]

    def may_run(self, job: ModelJob) -> bool:
        if job.function in self.paused:
            return False
        if not self.limited_runs(job.function):
            return True
        if self.free(job.function) <= 0:
            self.happened["throttled"] += 1
            return False
        if self.is_key_full(job):
            self.happened["passed over"] += 1
            return False
        return True

    def startable(self, function: bytes) -> int:
        """How many of the jobs that wait could begin now."""
        if function in self.paused:
            return 0
        if not self.limited_runs(function):
            return sum(job.function == function for job in self.queue)
        running = Counter(self.key_of(job) for job in self.running_of(function))
        found = 0
        for job in self.queue:
            if job.function == function:
                key = self.key_of(job)
                if not key or running[key] < self.runs[function].max_running_per_key:
                    running[key] += 1
                    found += 1
        return int(max(0, min(found, self.free(function))))

    def note(self, function: bytes) -> None:
        """More jobs of a function may begin than somebody was woken for, or fewer."""
        if self.limited_runs(function):
            startable = self.startable(function)
            more, self.offered[function] = startable - self.offered[function], startable
            for _ in range(more):
                self.wake(function)

    def limit_runs(self, function: bytes, rules: RunRules) -> None:
        self.create(function)
        before = self.runs[function]
        if rules == before:
            return
        self.runs[function] = rules
        self.buckets.pop(function, None)
        if NO_RUN_RULES in (before, rules):
            self.offered[function] = self.failed[function] = 0
        self.note(function)
        if rules == NO_RUN_RULES:
            for job in self.queue:
                if job.function == function:
                    self.wake(function)

    def pause(self, function: bytes) -> None:
        self.paused.add(function)
        self.offered[function] = 0

    def count_failure(self, function: bytes) -> None:
        self.failed[function] += 1
        most = self.runs[function].pause_after
        if most and self.failed[function] >= most:
            self.failed[function] = 0
            if function not in self.paused:
                self.happened["paused by itself"] += 1
                self.pause(function)

    def able_sleepers(self, function: bytes) -> list[ModelWorker]:
        return [worker for worker in self.sleepers if function in worker.kind]

    # -- counting -------------------------------------------------------------------------------

    def drop(self, function: bytes) -> None:
        del self.functions[function]
        self.paused.discard(function)
        for kept in (self.runs, self.offered, self.failed, self.buckets):
            kept.pop(function, None)
        if self.rows.pop(function) is not None:
            for key in [key for key in (*self.counted, *self.timed) if key[0] == function]:
                self.counted.pop(key, None)
                self.timed.pop(key, None)

    def count(self, function: bytes, what: str) -> None:
        self.counted[self.rows[function], what] += 1

    def time(self, job: ModelJob, what: str) -> None:
        self.timed[self.rows[job.function], what].add(self.now - job.since)

    # -- clients --------------------------------------------------------------------------------

    def create(self, function: bytes) -> tuple[int | None, ...]:
        """Make a function if there is none; returns its limits."""
        if function not in self.functions:
            self.functions[function] = self.policy.rules_for(function).limits or (None, None, None)
            self.runs[function] = self.policy.rules_for(function).runs
            told_apart = [name for name in self.rows.values() if name is not None]
            self.rows[function] = function if len(told_apart) < self.measured else None
        return self.functions[function]

    def submit(
        self,
        client: str,
        function: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        background: bool,
        run_at: float | None,
        options: JobOptions | None,
    ) -> None:
        self.create(function)
        key = self.duplicate_key(unique, data)
        duplicate = self.duplicate(function, key)
        if duplicate is not None:
            self.count(function, "joined")
            self.join(client, duplicate, background)
            return
        options = NO_OPTIONS if options is None else options
        if key is not None:
            kept = self.kept.get((function, key))
            if kept is not None and kept[1] > self.wall:
                self.answer_with_kept(client, function, background, kept[0])
                return
        if unique:
            options = self.admit_unique(function, options)
        self.admit(function, priority)
        self.count(function, "submitted")
        job = ModelJob(self.new_handle(), function, unique, data, priority, background, key, run_at)
        job.submitted, job.options = self.wall, options
        self.jobs.append(job)
        self.told[client].append(("created", job.handle))
        if not background:
            job.watchers.append((client, job.handle))
        if run_at is not None and run_at > self.wall:
            job.state = "held"
            self.held.append(job)
        else:
            self.enqueue(job)

    def duplicate_key(self, unique: bytes, data: bytes) -> Key | None:
        """What makes another submit the same job."""
        if unique == b"-":
            return ("data", data) if data else None
        return ("unique", unique) if unique else None

    def answer_with_kept(self, client: str, function: bytes, background: bool, handle: bytes) -> None:
        self.happened["kept for one who waits" if not background else "answered with a kept one"] += 1
        if not background:
            raise Kept
        self.count(function, "joined")
        self.told[client].append(("created", handle))

    def admit_unique(self, function: bytes, options: JobOptions) -> JobOptions:
        """The options with the time for which the unique is kept. Raises `Full` if too many are."""
        said = options.unique_for
        unique_for = self.policy.rules_for(function).unique_for if said is None else said
        if not unique_for:
            # What a schedule says need not be remembered.
            return NO_OPTIONS if options is NOT_KEPT else options
        if len(self.kept_times) >= self.policy.max_kept_uniques:
            self.forget_kept()
        if len(self.kept_times) >= self.policy.max_kept_uniques:
            self.happened["too many kept"] += 1
            raise Full
        return replace(options, unique_for=unique_for)

    def keep_unique(self, job: ModelJob) -> None:
        assert job.options.unique_for is not None
        assert job.key is not None
        self.forget_kept()
        until = self.wall + job.options.unique_for
        self.kept[job.function, job.key] = job.handle, until
        self.kept_times.append((until, (job.function, job.key)))

    def forget_kept(self) -> None:
        for until, key in [each for each in self.kept_times if each[0] <= self.wall]:
            self.kept_times.remove((until, key))
            if key in self.kept and self.kept[key][1] <= self.wall:
                del self.kept[key]

    def duplicate(self, function: bytes, key: Key | None) -> ModelJob | None:
        """The live job that a submit with this key is joined to."""
        for job in self.jobs:
            if key is not None and job.key == key and job.function == function:
                return job
        return None

    def admit(self, function: bytes, priority: int) -> None:
        """Raises `Full` if the function takes no new job."""
        limit = self.functions[function][priority]
        if limit is not None and sum(job.function == function for job in self.jobs) >= limit:
            self.count(function, "refused")
            raise Full

    def new_handle(self) -> bytes:
        self.last_handle += 1
        return self.policy.handle_prefix + b":%d" % self.last_handle

    def join(self, client: str, job: ModelJob, background: bool) -> None:
        handle = job.handle
        if background:
            job.background = True
        else:
            if (client, handle) in job.watchers:
                handle = self.new_handle()
            job.watchers.append((client, handle))
        self.told[client].append(("created", handle))

    def leave_client(self, client: str) -> None:
        for job in list(self.jobs):
            watched = any(name == client for name, _ in job.watchers)
            job.watchers = [(name, handle) for name, handle in job.watchers if name != client]
            wanted = job.watchers or job.background
            if watched and not wanted and (job.state != "running" or self.stop(job, b"abandoned")):
                self.end(job, "abandoned")

    # -- workers --------------------------------------------------------------------------------

    def can_do(self, worker: ModelWorker, function: bytes, timeout: float | None) -> None:
        self.create(function)
        if function not in worker.abilities:
            turns = self.kept_turns(worker)
            if turns is not None:
                turns.insert(0, function)
        worker.abilities[function] = timeout

    def cant_do(self, worker: ModelWorker, function: bytes) -> None:
        if function not in worker.abilities:
            return
        turns = self.kept_turns(worker)
        if turns is not None:
            turns.remove(function)
        del worker.abilities[function]
        for job in self.given(worker):
            if job.function == function:
                self.take_back(job)

    def reset_abilities(self, worker: ModelWorker) -> None:
        self.abilities_change(worker)
        self.lose_everything(worker)

    def leave_worker(self, worker: ModelWorker) -> None:
        self.stop_being_of_a_kind(worker)
        self.lose_everything(worker)
        del self.workers[worker.name]

    def lose_everything(self, worker: ModelWorker) -> None:
        worker.abilities.clear()
        for job in self.given(worker):
            self.take_back(job)

    def given(self, worker: ModelWorker) -> list[ModelJob]:
        """The worker's jobs in the order it got them."""
        return sorted(self.running(worker.name), key=lambda job: self.grabbed[job.handle])

    def kept_turns(self, worker: ModelWorker) -> list[bytes] | None:
        """One of the worker's functions is about to change: the turns that it keeps then, to be changed
        too."""
        self.pay_walk(worker)
        others = [other for other in self.workers.values() if other is not worker]
        shared = any(other.turns is worker.turns for other in others)
        turns = worker.kept if worker.turns is None or shared else worker.turns
        self.abilities_change(worker)
        if worker.quiet or len(worker.abilities) <= self.free_walk:
            return None
        worker.kept = list(reversed(worker.kind)) if turns is None else turns
        return worker.kept

    def pay_walk(self, worker: ModelWorker) -> None:
        worker.walks = min(worker.walks, WALK_PER_PACKET * len(worker.abilities)) + WALK_PER_PACKET

    def may_walk(self, worker: ModelWorker) -> bool:
        if len(worker.kind) <= self.free_walk:
            return True
        if worker.walks < len(worker.kind):
            return False
        worker.walks -= len(worker.kind)
        return True

    def abilities_change(self, worker: ModelWorker) -> None:
        asleep = worker.state == "asleep"
        self.stop_being_of_a_kind(worker)
        if asleep:
            worker.state = "woken"
            self.expect_woken([worker])

    def stop_being_of_a_kind(self, worker: ModelWorker) -> None:
        if worker.turns is not None:
            self.come(worker, None)
        worker.turns, worker.kept, worker.own = None, None, False

    def be_of_a_kind(self, worker: ModelWorker) -> list[bytes]:
        """Share the turns of workers with the same functions in the same order."""
        if worker.turns is None:
            worker.own = worker.kept is not None and not self.may_walk(worker)
            shared = None if worker.own else self.shared_turns(worker)
            # Without functions there are empty ones.
            kept = list(reversed(worker.kind)) if worker.kept is None else worker.kept
            worker.turns, worker.kept = kept if shared is None else shared, None
        return worker.turns

    def shared_turns(self, worker: ModelWorker) -> list[bytes] | None:
        for other in self.workers.values():
            if other.turns is not None and not other.own and other.kind == worker.kind:
                return other.turns
        return None

    def candidates(self, turns: list[bytes]) -> Iterator[ModelJob]:
        """The jobs for a worker whose functions have these turns, the next one first."""
        levels = ((0,), (1,), (2,)) if self.policy.order is FunctionOrder.PRIORITY else ((0, 1, 2),)
        for level in levels:
            for function in turns:
                for priority in level:
                    for job in self.queue:
                        is_its = (job.function, job.priority) == (function, priority)
                        if is_its and self.may_run(job):
                            yield job

    def grab(self, worker: ModelWorker) -> ModelJob | None:
        turns = self.be_of_a_kind(worker)
        for _ in range(self.slice_size):
            job = next(self.candidates(turns), None)
            if job is None:
                break
            self.queue.remove(job)
            if self.policy.order is FunctionOrder.PRIORITY or self.policy.round_robin:
                turns.remove(job.function)
                turns.append(job.function)
            if job not in self.expiring:
                break
            self.expiring.remove(job)
            if job.expires_at > self.wall:
                break
            self.expire(job)
            self.note(job.function)
        else:
            job = None
        self.come(worker, job)
        if job is None:
            return None
        job.state, job.worker = "running", worker.name
        self.time(job, "waited")
        job.since = self.now
        self.given_so_far += 1
        self.grabbed[job.handle] = self.given_so_far
        if self.runs[job.function].start_rate:
            self.bucket(job.function)
            left, when = self.buckets[job.function]
            self.buckets[job.function] = left - 1, when
        self.note(job.function)
        own = worker.abilities[job.function]
        ruled = self.policy.rules_for(job.function).time_limit
        timeout = min((limit for limit in (own, ruled) if limit is not None), default=None)
        if timeout is not None:
            job.due = self.now + timeout
        job.heartbeat = self.policy.rules_for(job.function).heartbeat or None
        job.heard = self.now
        if timeout is not None or job.heartbeat is not None:
            self.limited.append(job)
        return job

    def sleep(self, worker: ModelWorker) -> None:
        turns = self.be_of_a_kind(worker)
        if next(self.candidates(turns), None) is not None:
            if worker.state == "asleep":
                self.come(worker, None)
            self.expect_woken([worker])
        elif worker.state != "asleep":
            self.come(worker, None)
            worker.state = "asleep"
            self.sleepers.append(worker)
            if worker.own:
                self.pay_walk(worker)
                if self.may_walk(worker):
                    shared = self.shared_turns(worker)
                    worker.turns = worker.turns if shared is None else shared
                    worker.own = False

    # -- reports --------------------------------------------------------------------------------

    def report(self, worker: ModelWorker, handle: bytes, *what: Any) -> None:
        """Pass on data, a warning or progress: `what` is its name and its values. Or a heartbeat, which
        nobody hears of."""
        job = self.of_worker(worker, handle)
        if job is None:
            if what[0] != "heartbeat" and handle != worker.ended and handle not in worker.cancelled:
                raise NotFound
            return
        job.heard = self.now
        if what[0] == "heartbeat":
            return
        if what[0] == "status":
            job.progress = (int(what[1]), int(what[2]))
        if what[0] == "data":
            self.collect(job, what[1])
        self.tell(job, *what)

    def report_end(self, worker: ModelWorker, handle: bytes, *what: Any) -> None:
        """Pass on a result, a failure or an exception."""
        job = self.of_worker(worker, handle)
        if job is None:
            if handle != worker.ended and handle not in worker.cancelled:
                raise NotFound
            return
        worker.ended = handle
        self.time(job, "ran")
        if what[0] == "completed":
            self.failed[job.function] = 0
            self.tell(job, *what)
            if job.options.unique_for and job.key is not None:
                self.keep_unique(job)
            self.keep_result(job, what[1])
            self.end(job, "completed")
        elif what[0] == "retry":
            self.ask_for_retry(job, *what[1:])
        elif what[0] == "reject":
            self.count_failure(job.function)
            self.tell(job, "exception", what[1])
            job.attempts += 1
            job.failure, job.failed_by, job.error = "failed", job.worker or "", what[1]
            self.happened["rejected"] += 1
            self.end(job, "failed")
        elif what[0] == "fail":
            self.fail_run(job, "failed", "exception", what[1])
        else:
            self.fail_run(job, {"exception": "raised"}.get(what[0], what[0]), *what)

    def of_worker(self, worker: ModelWorker, handle: bytes) -> ModelJob | None:
        return next((job for job in self.running(worker.name) if job.handle == handle), None)

    def tell(self, job: ModelJob, what: str, *values: Any) -> None:
        for client, handle in job.watchers:
            self.told[client].append((what, handle, *values))

    # -- administration and time ----------------------------------------------------------------

    def cancel(self, handle: bytes, force: bool = False) -> None:
        job = self.by_handle(handle)
        if job is None:
            raise NotFound
        if job.worker is not None and not self.stop(job, b"cancelled"):
            worker = self.workers[job.worker]
            self.drop_reports(worker, job)
            worker.disconnected = force
            self.happened["cancelled by force"] += force
        self.tell(job, "failed")
        self.end(job, "cancelled")

    def stop(self, job: ModelJob, reason: bytes) -> bool:
        """Tell the worker of a running job, if it can be told."""
        assert job.worker is not None
        worker = self.workers[job.worker]
        if not worker.hears_cancel:
            return False
        worker.told.append((job.handle, reason))
        self.drop_reports(worker, job)
        self.happened[f"stopped: {reason.decode()}"] += 1
        return True

    def drop_reports(self, worker: ModelWorker, job: ModelJob) -> None:
        others = [handle for handle in worker.cancelled if handle != job.handle]
        worker.cancelled = [*others, job.handle][-MAX_CANCELLED:]

    def resume(self, function: bytes) -> None:
        if self.limited_runs(function):
            self.paused.discard(function)
            self.offered[function] = self.failed[function] = 0
            self.note(function)
        elif function in self.paused:
            self.paused.remove(function)
            for job in self.queue:
                if job.function == function:
                    self.wake(function)

    def quiet(self, worker: ModelWorker, quiet: bool) -> None:
        if worker.quiet != quiet:
            self.abilities_change(worker)
            worker.quiet = quiet

    def in_use(self, function: bytes) -> bool:
        return any(job.function == function for job in self.jobs) or any(
            function in worker.abilities for worker in self.workers.values()
        )

    def tick(self) -> None:
        for job in sorted(self.held, key=lambda job: job.wakes_at):
            if job.wakes_at <= self.wall:
                self.held.remove(job)
                self.enqueue(job)
        for job in sorted(self.expiring, key=lambda job: job.expires_at):
            if job.expires_at <= self.wall:
                self.expire(job)
        for job in sorted(self.limited, key=lambda job: job.leaves_at):
            if job.leaves_at <= self.now:
                self.end_late_run(job)
        for function in self.functions:
            self.note(function)
        for worker in list(self.awaited):
            if worker.woken_at + WAKE_PATIENCE <= self.now:
                self.awaited.remove(worker)
                function, worker.woken_for = worker.woken_for, None
                if function is not None and self.startable(function):
                    self.wake(function)

    def end_late_run(self, job: ModelJob) -> None:
        """A run is over its time limit, or its worker is silent."""
        if job.due is None or job.due > self.now:
            if not self.stop(job, b"silent"):
                self.drop_reports(self.workers[job.worker or ""], job)
            self.happened["silent"] += 1
            self.take_back(job)
            return
        self.stop(job, b"timed-out")
        if self.retry_policy(job) is None:
            self.take_back(job)
        else:
            self.fail_run(job, "timed_out", "failed")

    # -- a job's way ----------------------------------------------------------------------------

    def enqueue(self, job: ModelJob) -> None:
        job.state = "queued"
        job.retry_at = None
        if self.limit_age(job):
            job.since = self.now
            self.queue.append(job)
            if self.limited_runs(job.function):
                self.note(job.function)
            else:
                self.wake(job.function)

    def limit_age(self, job: ModelJob) -> bool:
        """Whether a job that waits from now on is young enough for a run; if not, it has ended."""
        said = job.options.expires
        expires = self.policy.rules_for(job.function).expires if said is None else said
        if expires and job not in self.expiring:
            job.expires_at = (job.submitted if job.run_at is None else job.run_at) + expires
            if job.expires_at <= self.wall:
                self.expire(job)
                return False
            self.expiring.append(job)
        return True

    def expire(self, job: ModelJob) -> None:
        """A job that had failed before is dead, and no other."""
        self.tell(job, "failed")
        self.happened["died of age" if job.attempts else "expired"] += 1
        self.end(job, job.failure if job.attempts else "expired")

    def retry_policy(self, job: ModelJob) -> RetryPolicy | None:
        rules, options = self.policy.rules_for(job.function), job.options
        if options.attempts is not None:
            rules = replace(rules, attempts=options.attempts, retry_online=True)
        if options.backoff is not None:
            rules = replace(rules, backoff=options.backoff)
        return self.policy.retry_policy(rules)

    def fail_run(self, job: ModelJob, failure: str, what: str, *values: Any) -> None:
        """A run has ended in a failure; `what` and `values` are what clients are told of it."""
        self.count_failure(job.function)
        job.attempts += 1
        self.retry_or_end(job, self.retry_policy(job), None, failure, what, *values)

    def ask_for_retry(self, job: ModelJob, delay: float | None, counts: bool, text: bytes) -> None:
        """The worker wants a retry. Nothing need be said of the function for that."""
        retry = self.retry_policy(job)
        if retry is None:
            rules = self.policy.rules_for(job.function)
            retry = self.policy.retry_policy(replace(rules, attempts=WORKER_ATTEMPTS))
            assert retry is not None
        if counts:
            self.count_failure(job.function)
            job.attempts += 1
        else:
            retry = replace(retry, attempts=job.attempts + 1)
        self.happened["asked for a retry" if counts else "put off"] += 1
        self.retry_or_end(job, retry, delay, "failed", "exception", text)

    def retry_or_end(
        self,
        job: ModelJob,
        retry: RetryPolicy | None,
        delay: float | None,
        failure: str,
        what: str,
        *values: Any,
    ) -> None:
        job.failure, job.failed_by = failure, job.worker or ""
        job.error = values[0] if values else TIMED_OUT if failure == "timed_out" else b""
        left = retry is not None and job.attempts < retry.attempts
        if retry is None or not left or not (job.background or (retry.online and job.watchers)):
            self.tell(job, what, *values)
            self.end(job, failure)
            return
        if delay is None:
            delay = min(retry.backoff * retry.factor ** max(job.attempts - 1, 0), retry.backoff_max)
        if retry.online:
            self.tell(job, "retrying", job.attempts, delay)
        else:
            self.tell(job, what, *values)
            job.watchers.clear()
        self.forget_place(job)
        job.progress = (0, 0)
        job.worker = job.due = None
        job.state, job.retry_at, job.parts = "retrying", self.wall + delay, []
        self.note(job.function)
        self.happened["retried online" if job.watchers else "retried"] += 1
        if self.limit_age(job):
            self.held.append(job)

    def take_back(self, job: ModelJob) -> None:
        self.forget_place(job)
        ruled = self.policy.rules_for(job.function).job_retries
        retries = self.policy.job_retries if ruled is None else ruled
        job.losses += 1
        if retries != -1 and job.losses >= max(retries, 1):
            self.count_failure(job.function)
            self.tell(job, "failed")
            self.end(job, "lost")
        elif not job.background and not job.watchers:
            self.end(job, "abandoned")
        else:
            self.count(job.function, "requeued")
            job.progress = (0, 0)
            job.worker = job.due = None
            job.parts = []
            job.state = "taken back"
            self.note(job.function)
            self.enqueue(job)

    def forget_place(self, job: ModelJob) -> None:
        for place in (self.queue, self.held, self.expiring, self.limited):
            if job in place:
                place.remove(job)

    def end(self, job: ModelJob, how: str) -> None:
        self.count(job.function, how)
        self.forget_place(job)
        self.jobs.remove(job)
        self.ended[job.handle] = end = ModelEnd(job, how, job.worker or job.failed_by, self.wall)
        if how in FAILURES and job.background and self.policy.dead_jobs:
            self.dead.append(end)
            self.deaths.append(end)
            self.evict_dead()
        job.state, job.worker = "gone", None
        job.watchers.clear()
        self.note(job.function)

    # -- results --------------------------------------------------------------------------------

    def result_lifetime(self, job: ModelJob) -> float:
        said = job.options.keep_result
        return (self.policy.rules_for(job.function).keep_results or 0.0) if said is None else said

    def collect(self, job: ModelJob, data: bytes) -> None:
        if not self.result_lifetime(job) or job.parts is None:
            return
        sizes = [len(part) + PART_OVERHEAD for each in self.jobs for part in each.parts or ()]
        if not job.background or sum(sizes) + len(data) + PART_OVERHEAD > self.policy.results_bytes:
            job.parts = None
            self.happened["not whole"] += 1
        else:
            job.parts.append(data)

    def keep_result(self, job: ModelJob, data: bytes) -> None:
        seconds = self.result_lifetime(job)
        if seconds and job.background:
            whole = None if job.parts is None else b"".join([*job.parts, data])
            self.results.append(ModelResult(job.handle, whole, self.wall + seconds))
            self.happened["kept"] += 1
            self.evict_results()

    def evict_results(self) -> None:
        kept = [result for result in self.results if result.expires_at > self.wall]
        self.happened["result expired"] += len(self.results) - len(kept)
        while sum(result.weight for result in kept) > self.policy.results_bytes:
            kept.pop(0)
            self.happened["result evicted"] += 1
        self.results = kept

    def find_result(self, handle: bytes) -> ModelResult | None:
        self.evict_results()
        return next((result for result in self.results if result.handle == handle), None)

    # -- dead jobs ------------------------------------------------------------------------------

    def evict_dead(self) -> None:
        """Forget those that died first, while they are too many, or too old."""
        oldest_allowed = self.wall - self.policy.dead_age
        while len(self.dead) > self.policy.dead_jobs or (self.dead and self.dead[0].ended < oldest_allowed):
            self.dead.pop(0)
            self.evicted += 1
            self.happened["evicted"] += 1

    def dead_page(self, function: bytes | None = None) -> list[ModelEnd]:
        """The dead jobs, of one function if that is said, the one that died last first."""
        self.evict_dead()
        dead = [end for end in self.dead if function in (None, end.job.function)]
        return sorted(dead, key=lambda end: (end.ended, number_of(end.job.handle)), reverse=True)

    def find_dead(self, handle: bytes) -> ModelEnd:
        for end in self.dead:
            if end.job.handle == handle:
                return end
        raise NotFound

    def retry(self, handle: bytes) -> None:
        """Run a job that is retrying now, or a dead one again."""
        job = self.by_handle(handle)
        if job is not None and job.state == "retrying":
            self.held.remove(job)
            self.enqueue(job)
            self.happened["retried by hand"] += 1
            return
        end = self.find_dead(handle)
        dead = end.job
        self.create(dead.function)
        if self.duplicate(dead.function, dead.key) is not None:
            raise InUse
        self.admit(dead.function, dead.priority)
        self.dead.remove(end)
        self.count(dead.function, "submitted")
        job = ModelJob(handle, dead.function, dead.unique, dead.data, dead.priority, True, dead.key)
        job.submitted, job.revived, job.options = self.wall, True, dead.options
        self.happened["revived"] += 1
        self.jobs.append(job)
        self.enqueue(job)

    def forget(self, handle: bytes) -> None:
        self.dead.remove(self.find_dead(handle))

    def kill(self, handle: bytes) -> None:
        """End a job that is retrying: it is dead."""
        job = self.by_handle(handle)
        if job is None or job.state != "retrying":
            raise NotFound
        self.tell(job, "failed")
        self.happened["killed"] += 1
        self.end(job, job.failure)

    # -- sleeping and waking --------------------------------------------------------------------

    def wake(self, function: bytes) -> None:
        """Sleepers that can do `function` are woken, as many as the policy says or as there are."""
        if function in self.paused:
            return
        able = self.able_sleepers(function)
        count = min(self.policy.wakeup or len(able), len(able))
        for _ in range(count):
            worker = self.expect_woken(self.able_sleepers(function))
            peers = [other for other in self.sleepers if other.turns is worker.turns]
            assert worker is peers[0], f"{worker.name} was woken, {peers[0].name} slept longer"
            self.sleepers.remove(worker)
            self.awaited.append(worker)
            worker.state, worker.woken_for, worker.woken_at = "woken", function, self.now

    def expect_woken(self, able: list[ModelWorker]) -> ModelWorker:
        assert self.woken, f"one of {[worker.name for worker in able]} should have been woken"
        name = self.woken.pop(0)
        for worker in able:
            if worker.name == name:
                return worker
        raise AssertionError(f"{name} was woken, and not one of {[worker.name for worker in able]}")

    def come(self, worker: ModelWorker, job: ModelJob | None) -> None:
        """The worker is there and was given `job`; somebody else sees to what it was woken for."""
        if worker in self.sleepers:
            self.sleepers.remove(worker)
        if worker in self.awaited:
            self.awaited.remove(worker)
        worker.state = "awake"
        function, worker.woken_for = worker.woken_for, None
        if function is not None and (job is None or job.function != function) and self.startable(function):
            self.wake(function)
