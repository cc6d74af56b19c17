"""What a job is: data and state, no behaviour."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txgearman.broker.deadlines import Deadline
    from txgearman.broker.function import Function
    from txgearman.broker.peers import Client, Worker


class Priority(IntEnum):
    """Which of a function's queues a job waits in. The numbers are those of gearmand's stored queues."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


PRIORITIES: Final = len(Priority)


class JobState(Enum):
    """Where a job is. `Broker` alone moves it."""

    SCHEDULED = "scheduled"
    """Held until its time (EPOCH); in no queue."""
    QUEUED = "queued"
    """In its function's queue."""
    RUNNING = "running"
    """With `Job.worker`."""
    GONE = "gone"
    """Ended, cancelled or given up; the broker has forgotten it. Its queue may still hold the object."""


class Job:
    """One job in the server, from its submission to its end.

    `handle`, `unique` and `data` are bytes; `priority` is one of `Priority` as a plain int;
    `background` is true as soon as one submitter wants the job whether it waits or not;
    `watchers` are the waiting clients with the handle each was told; `attempts` counts the workers
    that got the job and lost it; `numerator` and `denominator` are the progress last reported;
    `run_at` is the time in seconds since the epoch before which an EPOCH job is held.
    """

    __slots__ = (
        "attempts",
        "background",
        "data",
        "deadline",
        "denominator",
        "function",
        "handle",
        "numerator",
        "priority",
        "reducer",
        "run_at",
        "state",
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
        reducer: bytes | None,
        run_at: float | None,
    ) -> None:
        self.handle = handle
        self.function = function
        self.unique = unique
        self.data = data
        self.priority = priority
        self.background = background
        self.reducer = reducer
        self.run_at = run_at
        self.state = JobState.QUEUED
        self.worker: Worker | None = None
        self.watchers: tuple[tuple[Client, bytes], ...] = ()
        self.attempts = 0
        self.numerator = 0
        self.denominator = 0
        self.deadline: Deadline | None = None
