"""What the broker remembers of a connection: as a client, as a worker. Data, no behaviour."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txgearman.broker.abilities import AbilitySet
    from txgearman.broker.function import Function
    from txgearman.broker.interfaces import ClientConnection, WorkerConnection
    from txgearman.broker.job import Job
    from txgearman.broker.running import RunningByFunction

MAX_CANCELLED: Final = 16
"""Handles of cancelled jobs that a worker is remembered to have had: as many as it is likely to run at
once."""


MAX_JOINS: Final = 1000
"""How often one client may wait for one job. It is told each report once for each, so that without a limit a
few bytes of a worker could make millions. Programs join a job by mistake or as tasks of one batch, a few
times."""


class Client:
    """A connection as a client: `jobs` are those it waits for, by the handle it was told; `joins` says how
    often it waits for those that it waits for more than once, by their own handles; `gone` says that the
    connection has ended."""

    __slots__ = ("connection", "gone", "jobs", "joins")

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.jobs: dict[bytes, Job] = {}
        self.joins: dict[bytes, int] = {}
        self.gone = False


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
    a change until it is needed, and `own_set` meanwhile what becomes it; `walks` how many functions may be
    walked for the packets that it has sent (`txgearman.broker.abilities`); `jobs` those it has, which
    `by_function` finds by their function once somebody has asked for that; `woken_for` the function it was
    last woken for; `ended` is the handle of the job it ended last, None before the first; `cancelled` are
    those of its jobs that were cancelled under its hands last; `quiet` means that it is to get no more jobs.
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
        self.by_function: RunningByFunction | None = None
        self.state = WorkerState.AWAKE
        self.woken_for: Function | None = None
        self.ended: bytes | None = None
        self.cancelled: deque[bytes] | None = None
        self.quiet = False

    def note_cancelled(self, handle: bytes) -> None:
        """Remember that a later report on `handle` is no fault of this worker."""
        if self.cancelled is None:
            self.cancelled = deque(maxlen=MAX_CANCELLED)
        self.cancelled.append(handle)
