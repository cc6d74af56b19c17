"""What the broker remembers of a connection: as a client, as a worker. Data, no behaviour."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txgearman.broker.abilities import AbilitySet
    from txgearman.broker.ends import ClientEnd, WorkerEnd
    from txgearman.broker.function import Function
    from txgearman.broker.job import Job

MAX_DISMISSED: Final = 16
"""Handles of jobs taken from a worker that it is remembered to have had. Large enough for the reports
that can be under way when a job is cancelled, small enough to be nothing."""


class Client:
    """A connection as a client: `jobs` are those it waits for, by the handle it was told."""

    __slots__ = ("end", "jobs")

    def __init__(self, end: ClientEnd) -> None:
        self.end = end
        self.jobs: dict[bytes, Job] = {}


class WorkerState(Enum):
    """Whether a worker looks for jobs by itself."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    """It sent PRE_SLEEP and waits to be woken."""
    WOKEN = "woken"
    """It was woken and has not grabbed yet."""


class Worker:
    """A connection as a worker.

    `abilities` are the functions it can do in the order it registered them, with the time limit in
    seconds or None; `ability_set` the shared record of workers with the same functions, None after
    a change until it is needed; `jobs` those it has; `woken_for` the function it was last woken for;
    `dismissed` the last handles whose end it may report once more without being told off.
    """

    __slots__ = ("abilities", "ability_set", "dismissed", "end", "jobs", "state", "woken_for")

    def __init__(self, end: WorkerEnd) -> None:
        self.end = end
        self.abilities: dict[Function, float | None] = {}
        self.ability_set: AbilitySet | None = None
        self.jobs: dict[bytes, Job] = {}
        self.state = WorkerState.AWAKE
        self.woken_for: Function | None = None
        self.dismissed: deque[bytes] | None = None

    def dismiss(self, handle: bytes) -> None:
        """Remember that a later report on `handle` is no fault of this worker."""
        if self.dismissed is None:
            self.dismissed = deque(maxlen=MAX_DISMISSED)
        self.dismissed.append(handle)
