"""What happened in a run, as seen from outside the servers: by clients, by workers, by who broke things.

Plain data. All times are of one monotonic clock, in seconds. The process that writes this down is never
broken itself, so what stands here is known.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

UNIQUE_IS_DATA = b"-"

LIMITED: Final = b"limited"
KEYED: Final = b"keyed"
KEPT: Final = b"kept"
ONCE: Final = b"once"
"""Functions with a limit, with a limit by key, with results that are kept, and with uniques that are."""

MAX_RUNNING: Final = 2
"""Of `LIMITED`."""

CONFIGURATION: Final = f"""
[functions.{LIMITED.decode()}]
max-running = {MAX_RUNNING}

[functions.{KEYED.decode()}]
max-running-per-key = 1

[functions.{KEPT.decode()}]
keep-results = "1h"

[functions.{ONCE.decode()}]
unique-for = "1h"
"""
"""What the servers of a run are told of these functions. No run takes an hour."""


class Outcome(StrEnum):
    """How a worker's turn at a job ended."""

    ACCEPTED = "done, and the server has handled the report"
    REFUSED = "done, and the server said that the job is no longer this worker's"
    UNANSWERED = "done and reported, but the connection ended ahead of the server's next answer"
    UNREPORTED = "done by a worker that had lost its connection"
    ABANDONED = "left undone: the worker died, or lost its connection and stopped"
    STOPPED = "left undone, as the server said that the job is to stop"


ATTEMPTS: Final = 2
"""How many runs of a job may fail until it is dead."""

BACKOFF: Final = 0.3
"""Seconds that a job waits for its second run: long enough that servers fall meanwhile."""


@dataclass(slots=True)
class Submission:
    """One submit. `payload` is the number that its data carries, which no other submit has;
    `run_at` is on the history's clock.

    It is acknowledged once it has a `handle`, and refused once it has an `error`. With neither its
    connection ended ahead of the answer: it may run or not.
    """

    payload: int
    server: int
    function: bytes
    unique: bytes
    priority: str
    run_at: float | None
    sent: float
    answered: float | None = None
    handle: bytes | None = None
    error: bytes | None = None


@dataclass(slots=True)
class Turn:
    """One worker's turn at a job, from its assignment to the moment in which the worker let go of it.

    `confirmed` is when the worker had the server's answer that proves its report was handled. `failed` says
    that what it reported, or would have, was a failure; `outcome` says "done" of these too. `lost` is when
    the worker saw that its connection was gone. `hears` says that it had asked to be told of jobs that are
    to stop.
    """

    payload: int
    handle: bytes
    worker: int
    server: int
    begin: float
    end: float | None = None
    outcome: Outcome | None = None
    confirmed: float | None = None
    failed: bool = False
    lost: float | None = None
    hears: bool = False

    @property
    def over(self) -> float:
        """When it ended, never if it did not."""
        return float("inf") if self.end is None else self.end

    @property
    def done(self) -> bool:
        """Whether the job's work was done to its end, and did not fail."""
        undone = (None, Outcome.ABANDONED, Outcome.STOPPED)
        return self.outcome not in undone and not self.failed


@dataclass(slots=True)
class Cancel:
    """An administrator's word that a job is to be cancelled. Where it is `answered` it was done then, else it
    may have been. What a server refused is not written down."""

    handle: bytes
    server: int
    sent: float
    answered: float | None = None


@dataclass(slots=True)
class Result:
    """What a server said of a job's result. `last` says that it was asked when all was done."""

    handle: bytes
    server: int
    asked: float
    answered: float
    state: str
    data: bytes
    last: bool = False


def result_of(payload: int) -> bytes:
    """The result of a job of `KEPT`."""
    return b"result of %d;" % payload * (1 + payload % 50)


class Kind(StrEnum):
    """What may be done to a run."""

    KILL = "server killed"
    POWER = "server killed, and its unsynced writes lost"
    STOP = "server ended by SIGTERM"
    PAUSE = "server paused"
    DATABASE = "database killed"
    CUT = "connections to the database cut"
    STALL = "connections to the database stalled"
    DEAF = "answers of the database withheld, then cut"
    FULL = "disk full"
    LEASE = "lease lost, as the server logged"


OUTAGES = frozenset({Kind.DATABASE, Kind.CUT, Kind.STALL, Kind.DEAF, Kind.FULL})
"""What keeps a server that runs from writing."""

ENDS = frozenset({Kind.KILL, Kind.POWER, Kind.STOP})
"""What ends a server, and its connections with it."""


@dataclass(slots=True)
class Blow:
    """Something that was broken from `begin` to `end`; `server` is None where it concerns all servers.

    `unsynced` are the writes that a loss of power took back.
    """

    kind: Kind
    server: int | None
    begin: float
    end: float | None = None
    unsynced: int = 0

    @property
    def over(self) -> float:
        """When it was healed, never if it was not."""
        return float("inf") if self.end is None else self.end

    def heal(self) -> None:
        """Write down that all is well again."""
        self.end = time.monotonic()

    def concerns(self, server: int) -> bool:
        """Whether it was `server`, or its database, that was broken."""
        return self.server is None or self.server == server


@dataclass(slots=True)
class History:
    """Everything that happened: what Jepsen calls a history. `begin` is the time all reports count from.

    `servers` share one database. `lease` is how many seconds each may be silent before the others, or its
    successor, take its jobs; 0 where a store has one server.
    """

    servers: int = 1
    lease: float = 0.0

    submissions: dict[int, Submission] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    disorders: list[str] = field(default_factory=list)
    """What clients and workers were sent that no server may send."""
    dead: Counter[bytes] = field(default_factory=Counter)
    """The handles of the dead jobs at the end, and how often they are listed."""
    alive: set[bytes] = field(default_factory=set)
    """The handles of the jobs that servers have at the end."""
    begin: float = field(default_factory=time.monotonic)
    settled: float | None = None
    """When all was healed, done, and the servers stopped and started cleanly: nothing may run behind it."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def submit(
        self,
        server: int,
        function: bytes,
        unique: bytes = b"",
        priority: str = "normal",
        run_at: float | None = None,
    ) -> Submission:
        """Write down a submit that is about to be sent."""
        payload = next(self._numbers)
        submission = Submission(payload, server, function, unique, priority, run_at, time.monotonic())
        self.submissions[payload] = submission
        return submission

    def strike(self, kind: Kind, server: int | None = None) -> Blow:
        """Write down that something is about to be broken."""
        blow = Blow(kind, server, time.monotonic())
        self.blows.append(blow)
        return blow
