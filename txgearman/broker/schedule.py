"""What a schedule is, and what is known of one. Data only.

A tick is a time at which a schedule is due, in whole seconds since the epoch. With `Schedule.jitter` the job
of a tick comes a little later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final
from zlib import crc32

from txgearman.broker.job_states import Priority
from txgearman.broker.recurrence import Every, Recurrence

DEFAULT_MISSED_WINDOW: Final = 600.0
"""Seconds: a restart or a short outage loses no tick, and a machine that was off for a day starts nothing
that belongs to yesterday."""

MAX_WINDOW: Final = 30 * 86_400.0
"""Seconds of `Schedule.missed_window` at most: a month."""

_NORMAL: Final = int(Priority.NORMAL)
_SPREAD: Final = 2**32


class Missed(Enum):
    """What becomes of ticks that the server was not there for."""

    SKIP = "skip"
    """Nothing."""
    ONE = "one"
    """One job for all of them, that of the last."""
    ALL = "all"
    """A job for each, the oldest first."""


class Overlap(Enum):
    """What becomes of a tick while the job of the one before lives."""

    SKIP = "skip"
    """It has no job."""
    QUEUE = "queue"
    """It has one all the same."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring job.

    Attributes:
        name: What it is called. Unique among schedules.
        function: The function that its jobs run.
        recurrence: When it ticks.
        timezone: The name of the time zone of its recurrence, for people.
        data: The payload of each job.
        unique: The unique of its jobs; None for the name, and with `Overlap.QUEUE` the name and the tick.
        priority: One of `Priority`, as a plain int.
        jitter: Seconds over which the jobs are spread: each is so much later at most, on every server alike.
        missed: What becomes of missed ticks.
        missed_window: Seconds; what was missed longer ago has no job whatever `missed` says.
        overlap: What becomes of a tick while the job of the one before lives.
        enabled: Whether it ticks at all.
        handle: What a client calls it that has submitted it; empty for others.
    """

    name: bytes
    function: bytes
    recurrence: Recurrence
    timezone: str = "UTC"
    data: bytes = b""
    unique: bytes | None = None
    priority: int = _NORMAL
    jitter: float = 0.0
    missed: Missed = Missed.ONE
    missed_window: float = DEFAULT_MISSED_WINDOW
    overlap: Overlap = Overlap.SKIP
    enabled: bool = True
    handle: bytes = b""

    def definition(self) -> dict[str, str | float | bool | None]:
        """All that it is but for its name, data and handle.

        Returns:
            Values for JSON, by the names of the settings.
        """
        recurrence = self.recurrence
        every = recurrence.seconds if isinstance(recurrence, Every) else None
        return {
            "function": self.function.decode("utf-8", "backslashreplace"),
            "cron": recurrence.text if every is None else None,
            "every": every,
            "timezone": self.timezone,
            "unique": None if self.unique is None else self.unique.decode("utf-8", "backslashreplace"),
            "priority": Priority(self.priority).name.lower(),
            "jitter": self.jitter,
            "missed": self.missed.value,
            "missed_window": self.missed_window,
            "overlap": self.overlap.value,
            "enabled": self.enabled,
        }

    def unique_of(self, tick: float) -> bytes:
        """The unique of the job of a tick."""
        if self.unique is not None:
            return self.unique
        return self.name if self.overlap is Overlap.SKIP else b"%b:%d" % (self.name, tick)

    def due(self, tick: float) -> float:
        """When the job of a tick is due, in seconds since the epoch: the same on every server."""
        if not self.jitter:
            return tick
        return tick + self.jitter * (crc32(b"%b:%d" % (self.name, tick)) / _SPREAD)


@dataclass(frozen=True, slots=True)
class ScheduleDetail:
    """All there is to know of a schedule. Times are seconds since the epoch.

    Attributes:
        schedule: The schedule.
        paused: Whether an administrator has paused it.
        next_due: When its next job is due; None if never, or as long as it does not tick.
        last_tick: The last tick that had a job of this server; None without one.
        last_job: The handle of that job.
        lateness: Seconds by which that job was late.
        ticks: How many ticks had a job of this server.
        skipped: How many had none, as the job of the one before was alive.
        missed: How many had none, as the server was not there in time.
        refused: How many had none, as the job was refused.
    """

    schedule: Schedule
    paused: bool
    next_due: float | None
    last_tick: float | None
    last_job: bytes
    lateness: float
    ticks: int
    skipped: int
    missed: int
    refused: int

    @property
    def state(self) -> str:
        """``disabled`` by its definition, ``paused`` by an administrator, or ``active``."""
        if not self.schedule.enabled:
            return "disabled"
        return "paused" if self.paused else "active"
