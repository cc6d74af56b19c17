"""What the broker shows of itself: plain data, made when asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FunctionView:
    """A function's counters: `total` holds all its jobs, `waiting` the ones not running by priority
    (high, normal, low), scheduled ones among them."""

    name: bytes
    total: int
    running: int
    workers: int
    waiting: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FunctionLimits:
    """What a function takes: `queued` are its limits of jobs by priority, None for no limit; `per_second` new
    jobs with `burst` of them at once, 0 for no limit. `refused` jobs were turned away for either."""

    name: bytes
    queued: tuple[int | None, ...]
    per_second: float
    burst: int
    refused: int


@dataclass(frozen=True, slots=True)
class JobView:
    """A job: `attempts` workers had and lost it; `background` ones outlive their clients."""

    handle: bytes
    function: bytes
    unique: bytes
    attempts: int
    background: bool
    running: bool


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The answer to a request for a job's status; `clients` counts those waiting for it."""

    known: bool = False
    running: bool = False
    numerator: int = 0
    denominator: int = 0
    clients: int = 0


UNKNOWN = JobStatus()
"""The status of a job the server does not have."""

KEPT = JobStatus(known=True)
"""The status of a job that is not in memory: it waits its turn, or another server has it, whose worker's
reports are not known here."""
