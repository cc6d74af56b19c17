"""The states of a job and of a worker, the priorities, and the ways a job ends."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class Priority(IntEnum):
    """Which of a function's queues a job waits in. The numbers are those of gearmand's stored queues."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


PRIORITIES: Final = len(Priority)


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
    RETRYING = "retrying"
    """A run has failed, and the job waits for its backoff to end; in no queue."""
    GONE = "gone"
    """Ended, cancelled or given up; the broker has forgotten it. Its queue may still hold the object."""


class Outcome(IntEnum):
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
    TAKEN_OVER = 6
    """Another server on the same store has it now, or it has vanished from there."""
    TIMED_OUT = 7
    """Its worker took longer than the time limit, and that counts as a failed run."""
    EXPIRED = 8
    """No run had begun when its time was over, see `FunctionRules.expires`."""


FAILURES: Final = frozenset(
    {int(Outcome.FAILED), int(Outcome.RAISED), int(Outcome.LOST), int(Outcome.TIMED_OUT)}
)
"""The outcomes that are failures: a background job that ends so is dead. In all others nobody wanted the job
any more, or it is not this server's."""


class WorkerState(Enum):
    """Whether a worker looks for jobs by itself."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    """It sent PRE_SLEEP and waits to be woken."""
    WOKEN = "woken"
    """It was woken and has not grabbed yet."""


class JobEvent(Enum):
    """What may happen to a job. The text is that of the diagram."""

    STORED = "stored"
    """The store has it."""
    STORED_AHEAD = "stored ahead of its time"
    """The store has it, and it is not due yet."""
    STORED_DEEP = "put into a stored queue"
    """The store has it, and enough others wait in memory."""
    NOT_STORED = "not stored"
    """The store failed, and no client waits for the result."""
    DUE = "due"
    """Its time has come, or its backoff is over."""
    GRABBED = "grabbed"
    """A worker gets it."""
    REPORTED = "completed or failed"
    """Its worker reports its end."""
    RUN_FAILED = "failed, attempts left"
    """Its worker reports a failure, or took too long where that is one, and it may be tried again."""
    EXPIRED = "expired"
    """It is too old for a run to begin, by `FunctionRules.expires`."""
    WORKER_LOST = "worker lost"
    """Its worker left, unregistered the function, took too long, or was silent for its heartbeat."""
    LAST_WORKER_LOST = "last worker lost"
    """The same, and it was the last worker that `Policy.job_retries` allows."""
    CANCELLED = "cancelled"
    """An administrator ends it."""
    ABANDONED = "clients left"
    """The last client of a foreground job has left, and its worker cannot be told to stop."""
    STOPPED = "clients left, worker stops"
    """The same, and its worker can be told. So it is where another server has the job now."""
    DISOWNED = "disowned"
    """Another server on the same store has it now."""


class WorkerEvent(Enum):
    """What may happen to a worker. The text is that of the diagram."""

    SLEEPS = "sleeps"
    """It sends PRE_SLEEP, and no job waits for it."""
    SLEEPS_BESIDE_A_JOB = "sleeps beside a job"
    """It sends PRE_SLEEP, and a job waits for it."""
    GRABS = "grabs"
    """It asks for a job."""
    JOB_QUEUED = "job queued"
    """A job for it is queued, and it is its turn to be woken."""
    CHANGES = "changes functions"
    """It registers or unregisters a function, or is made quiet."""


JOB_TRANSITIONS: Final = {
    (JobState.SAVING, JobEvent.STORED): JobState.QUEUED,
    (JobState.SAVING, JobEvent.STORED_AHEAD): JobState.SCHEDULED,
    (JobState.SAVING, JobEvent.STORED_DEEP): JobState.GONE,
    (JobState.SAVING, JobEvent.NOT_STORED): JobState.GONE,
    (JobState.SAVING, JobEvent.CANCELLED): JobState.GONE,
    (JobState.SCHEDULED, JobEvent.DUE): JobState.QUEUED,
    (JobState.SCHEDULED, JobEvent.CANCELLED): JobState.GONE,
    (JobState.SCHEDULED, JobEvent.ABANDONED): JobState.GONE,
    (JobState.SCHEDULED, JobEvent.DISOWNED): JobState.GONE,
    (JobState.QUEUED, JobEvent.GRABBED): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.CANCELLED): JobState.GONE,
    (JobState.QUEUED, JobEvent.ABANDONED): JobState.GONE,
    (JobState.QUEUED, JobEvent.DISOWNED): JobState.GONE,
    (JobState.QUEUED, JobEvent.EXPIRED): JobState.GONE,
    (JobState.RUNNING, JobEvent.REPORTED): JobState.GONE,
    (JobState.RUNNING, JobEvent.RUN_FAILED): JobState.RETRYING,
    (JobState.RUNNING, JobEvent.WORKER_LOST): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.LAST_WORKER_LOST): JobState.GONE,
    (JobState.RUNNING, JobEvent.CANCELLED): JobState.GONE,
    (JobState.RUNNING, JobEvent.STOPPED): JobState.GONE,
    (JobState.RETRYING, JobEvent.DUE): JobState.QUEUED,
    (JobState.RETRYING, JobEvent.CANCELLED): JobState.GONE,
    (JobState.RETRYING, JobEvent.ABANDONED): JobState.GONE,
    (JobState.RETRYING, JobEvent.DISOWNED): JobState.GONE,
    (JobState.RETRYING, JobEvent.EXPIRED): JobState.GONE,
}
"""What becomes of a job. Each other event leaves it in its state. Tests hold the broker against this table,
and the diagram in the docs is drawn from it."""

WORKER_TRANSITIONS: Final = {
    (WorkerState.AWAKE, WorkerEvent.SLEEPS): WorkerState.ASLEEP,
    (WorkerState.ASLEEP, WorkerEvent.SLEEPS_BESIDE_A_JOB): WorkerState.AWAKE,
    (WorkerState.ASLEEP, WorkerEvent.GRABS): WorkerState.AWAKE,
    (WorkerState.ASLEEP, WorkerEvent.JOB_QUEUED): WorkerState.WOKEN,
    (WorkerState.ASLEEP, WorkerEvent.CHANGES): WorkerState.WOKEN,
    (WorkerState.WOKEN, WorkerEvent.SLEEPS): WorkerState.ASLEEP,
    (WorkerState.WOKEN, WorkerEvent.GRABS): WorkerState.AWAKE,
    (WorkerState.WOKEN, WorkerEvent.CHANGES): WorkerState.AWAKE,
}
"""What becomes of a worker, as `JOB_TRANSITIONS` says it of a job."""

OUTCOME_NAMES: Final[dict[int | None, str]] = {
    None: "completed",
    int(Outcome.FAILED): "failed",
    int(Outcome.RAISED): "raised",
    int(Outcome.LOST): "lost",
    int(Outcome.CANCELLED): "cancelled",
    int(Outcome.ABANDONED): "abandoned",
    int(Outcome.NOT_SAVED): "not-saved",
    int(Outcome.TAKEN_OVER): "taken-over",
    int(Outcome.TIMED_OUT): "timed-out",
    int(Outcome.EXPIRED): "expired",
}
"""What users call the outcomes of a job, in HTTP, admin lines and the log."""
