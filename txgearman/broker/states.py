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


class WorkerState(Enum):
    """Whether a worker looks for jobs by itself."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    """It sent PRE_SLEEP and waits to be woken."""
    WOKEN = "woken"
    """It was woken and has not grabbed yet."""
