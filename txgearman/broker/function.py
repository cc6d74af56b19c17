"""A function: its queues, its counters, its limits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from txgearman.broker.job import PRIORITIES, Ending, Job, JobState
from txgearman.broker.policy import NO_RULES, FunctionRules
from txgearman.broker.rate import Rate
from txgearman.broker.stored_queue import StoredQueue

if TYPE_CHECKING:
    from txgearman.broker.abilities import AbilitySet, Slot
    from txgearman.broker.meters import Meter

_SLACK: Final = 64
"""Jobs gone from the middle of a queue that are never worth a clean-up."""

_QUEUED: Final = JobState.QUEUED


class Function:
    """What jobs are submitted to and workers register for.

    `waiting` counts queued jobs by priority, `held` those scheduled for later, `running` those that a
    worker has, `workers` the workers registered. `limits` holds by priority the `total` at which a new job
    is refused, None for no limit; `rate` how fast new ones may come, None for no limit; `limited` says in
    one look whether there is either, or `server_limited`, a limit of the whole server. `time_limit` and
    `retries` are those of `FunctionRules`. `paused` means that the jobs are kept from the workers. `pinned`
    means that an administrator has made it, or has set something for it.

    Counted since the function was made: `submitted` and `ended` the jobs that came and went, so that
    `total` costs nothing; `restored` those of `submitted` that came from the store; `uncompleted` those of
    `ended` that were not completed, by `Ending`; `joined` the submits that were the same as a live job,
    `refused` those that met a limit; `retried` how often a job was taken from its worker and queued again.
    `meter` measures the jobs' times, if anybody does.

    `stored_queue` are the jobs that are not in memory, None as long as there never were any.

    `unready` and `resting` are kept for `AbilitySet`, which explains them.
    """

    __slots__ = (
        "_gone",
        "_levels",
        "_open",
        "_queues",
        "blocked",
        "ended",
        "held",
        "joined",
        "limited",
        "limits",
        "meter",
        "name",
        "paused",
        "pinned",
        "rate",
        "refused",
        "resting",
        "restored",
        "retried",
        "retries",
        "running",
        "server_limited",
        "stored_queue",
        "submitted",
        "time_limit",
        "uncompleted",
        "unready",
        "waiting",
        "workers",
    )

    def __init__(
        self,
        name: bytes,
        levels: tuple[tuple[int, ...], ...],
        rules: FunctionRules = NO_RULES,
        meter: Meter | None = None,
    ) -> None:
        self.name = name
        self.meter = meter
        self.waiting = [0] * PRIORITIES
        self.held = [0] * PRIORITIES
        self.submitted = 0
        self.ended = 0
        self.uncompleted = [0] * len(Ending)
        self.joined = 0
        self.refused = 0
        self.restored = 0
        self.retried = 0
        self.running = 0
        self.workers = 0
        self.paused = False
        self.pinned = False
        self.blocked = False
        self.stored_queue: StoredQueue | None = None
        self.server_limited = False
        self.obey(rules)
        self._queues: tuple[deque[Job], ...] = tuple(deque() for _ in range(PRIORITIES))
        self._open = tuple(tuple(self._queues[priority] for priority in level) for level in levels)
        self._levels: tuple[tuple[deque[Job], ...], ...] = self._open
        self._gone = [0] * PRIORITIES
        self.unready: tuple[dict[AbilitySet, Slot], ...] = tuple({} for _ in levels)
        self.resting: dict[AbilitySet, None] = {}

    def obey(self, rules: FunctionRules) -> None:
        """Take over the operator's rules for this function."""
        self.time_limit = rules.time_limit or None
        self.retries = rules.retries
        self.limits = rules.limits
        self.limit_rate(rules.submit_rate or 0, rules.submit_burst or 0)

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

    def pause(self) -> None:
        """Keep the queued jobs from the workers: to them the function is without jobs."""
        self.paused = True
        self.block()

    def block(self) -> None:
        """As `pause`, but not by somebody's order."""
        self.blocked = True
        # So that `pop` need not ask.
        self._levels = tuple(() for _ in self._open)

    def unblock(self) -> None:
        """Undo `pause` and `block`."""
        self.paused = self.blocked = False
        self._levels = self._open

    def trim(self) -> None:
        """Let go of the jobs that are gone from the head of their queue."""
        for queue in self._queues:
            while queue and queue[0].state is not _QUEUED:
                self._gone[queue.popleft().priority] -= 1

    def heads(self) -> list[Job]:
        """The job that is next of each priority that has one."""
        self.trim()
        return [queue[0] for queue in self._queues if queue]

    @property
    def total(self) -> int:
        """All jobs of the function that have not ended, running ones included."""
        return self.submitted - self.ended

    @property
    def idle(self) -> bool:
        """Whether nothing would be missed but its counts: no job, no worker, no setting of its own."""
        return not (self.workers or self.pinned) and self.submitted == self.ended

    def full(self, priority: int) -> bool:
        """Whether a new job of `priority` would exceed the limit.

        As with gearmand, the limit of a priority is compared with the function's jobs of all
        priorities, the running ones included.
        """
        if self.limits is None:
            return False
        limit = self.limits[priority]
        return limit is not None and self.total >= limit

    def push(self, job: Job) -> None:
        """Put a job behind the others of its priority."""
        priority = job.priority
        self._queues[priority].append(job)
        self.waiting[priority] += 1

    def last(self, priority: int) -> Job | None:
        """What `push` put into a queue last, as long as the queue holds it."""
        queue = self._queues[priority]
        return queue[-1] if queue else None

    def pop(self, level: int) -> Job | None:
        """Take the job that is next at `level`."""
        for queue in self._levels[level]:
            while queue:
                job = queue.popleft()
                if job.state is _QUEUED:
                    self.waiting[job.priority] -= 1
                    return job
                self._gone[job.priority] -= 1
        return None

    def has_job(self, level: int) -> bool:
        """Whether `pop` would give a job."""
        for queue in self._levels[level]:
            while queue:
                if queue[0].state is _QUEUED:
                    return True
                self._gone[queue.popleft().priority] -= 1
        return False

    def dropped(self, job: Job) -> None:
        """A queued job has just become GONE.

        The object stays in its queue until it comes up, or until such objects are the majority: so
        taking a job out of a deep queue is O(1) over time. Jobs that leave in the order in which they came
        are never many at a time to be cleaned up.
        """
        priority = job.priority
        queue = self._queues[priority]
        self.waiting[priority] -= 1
        self._gone[priority] += 1
        while queue and queue[0].state is not _QUEUED:
            queue.popleft()
            self._gone[priority] -= 1
        if self._gone[priority] > _SLACK and self._gone[priority] > self.waiting[priority]:
            kept = [job for job in queue if job.state is _QUEUED]
            queue.clear()
            queue.extend(kept)
            self._gone[priority] = 0
