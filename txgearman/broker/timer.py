"""The broker's two clocks, and the one alarm that it sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from txgearman.broker.interfaces import Alarm

LONGEST_NAP: Final = 60.0
"""Seconds after which the clocks are compared again while something waits for a time of the wall clock, so
that a step of that is noticed."""


class Timer:
    """`clock` gives monotonic seconds, `wall_clock` seconds since the epoch. `alarm` calls `Broker.tick`.

    `rings_at` is when the alarm rings next, None when it is not set. `turn_time` and `turn_wall_time` are the
    readings of the clocks that the calls of one turn share, None between turns.
    """

    __slots__ = ("_alarm", "clock", "rings_at", "turn_time", "turn_wall_time", "wall_clock")

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float], alarm: Alarm) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self._alarm = alarm
        self.rings_at: float | None = None
        self.turn_time: float | None = None
        self.turn_wall_time: float | None = None

    def ring_at(self, when: float) -> None:
        """Have the alarm ring at `when`, by the monotonic clock, unless it rings before that."""
        if self.rings_at is None or when < self.rings_at:
            self.rings_at = when
            self._alarm.ring_in(max(0.0, when - self.clock()))

    def ring_at_wall_time(self, when: float) -> None:
        """As `ring_at`, with `when` in seconds since the epoch."""
        self.ring_at(self.clock() + min(when - self.wall_clock(), LONGEST_NAP))
