"""What a job is: data and state, no behaviour."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

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

NO_PROGRESS: Final = (0, 0)

NOBODY: Final[dict[tuple[Client, bytes], None]] = {}
"""The watchers of a job that has none. Never changed: `Job.watch` replaces it."""


class JobState(Enum):
    """Where a job is. `Broker` alone moves it."""

    SAVING = "saving"
    """Accepted once it is durable; in no queue, and nobody was told of it."""
    SCHEDULED = "scheduled"
    """Held until its time (EPOCH); in no queue."""
    QUEUED = "queued"
    """In its function's queue."""
    RUNNING = "running"
    """With `Job.worker`."""
    GONE = "gone"
    """Ended, cancelled or given up; the broker has forgotten it. Its queue may still hold the object."""


class Ending(IntEnum):
    """How a job ended that was not completed."""

    FAILED = 0
    """Its worker said that it failed."""
    RAISED = 1
    """Its worker sent an exception."""
    LOST = 2
    """As many workers lost it as `Policy.job_retries` allows."""
    CANCELLED = 3
    """An administrator cancelled it."""
    ABANDONED = 4
    """Nobody wanted it any more: it was a foreground job, and its clients have left."""
    NOT_SAVED = 5
    """It was not accepted: it could not be saved, or the store had the same job already."""
    ADOPTED = 6
    """Another server on the same store has it now, or it has vanished from there."""


class Job:
    """One job in the server, from its submission to its end.

    `handle`, `unique` and `data` are bytes; `priority` is one of `Priority` as a plain int;
    `background` is true as soon as one submitter wants the job whether it waits or not; the keys of
    `watchers` are the waiting clients with the handle each was told, in the order they came; `attempts`
    counts the workers that got the job and lost it; `submitted` is when it came and `run_at` when it is to
    be queued, both in seconds since the epoch, `run_at` None for at once; `progress` is the numerator and
    denominator last reported; `deadline` is when a scheduled job is to be queued, or a running one to be
    taken from its worker. `saved` says that the store has it; while it is being saved, `saving` holds who
    is to be told. `since` is when it was queued last, or given to the worker that has it, by the broker's
    monotonic clock, and 0.0 where the broker measures no times.
    """

    __slots__ = (
        "attempts",
        "background",
        "data",
        "deadline",
        "function",
        "handle",
        "priority",
        "progress",
        "reducer",
        "run_at",
        "saved",
        "saving",
        "since",
        "state",
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
        reducer: bytes | None,
        submitted: float,
        run_at: float | None,
    ) -> None:
        self.handle = handle
        self.function = function
        self.unique = unique
        self.data = data
        self.priority = priority
        self.background = background
        self.reducer = reducer
        self.submitted = submitted
        self.run_at = run_at
        self.state = JobState.QUEUED
        self.worker: Worker | None = None
        self.watchers = NOBODY
        self.attempts = 0
        self.progress = NO_PROGRESS
        self.deadline: Deadline | None = None
        self.since = 0.0
        self.saved = False
        self.saving: list[tuple[Client, object]] | None = None

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for this job, by the name of `handle`."""
        if self.watchers:
            self.watchers[client, handle] = None
        else:
            self.watchers = {(client, handle): None}


class StoredJob(NamedTuple):
    """A background job as a store keeps it.

    `number` is the one that its handle ends with; no two jobs of a store ever have the same, whatever
    server made them. `place` orders the jobs of one function and priority on the server that owns them;
    at first it is the number. `run_at` and `submitted` are seconds since the epoch. `attempts` counts the
    workers that lost the job.
    """

    number: int
    place: int
    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    priority: int
    run_at: float | None
    attempts: int
    submitted: float
    reducer: bytes | None
