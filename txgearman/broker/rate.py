"""How fast a function's jobs may come in, or begin to run: a token bucket. Time comes in as an argument."""

from __future__ import annotations

from math import ceil, floor, inf
from typing import Final

_ROUNDING: Final = 1e-9
"""Jobs that adding up fractions of one may be off."""


class Rate:
    """At most `per_second` jobs a second in the long run, and `burst` at once.

    A `burst` of 0 is as many as the rate, one at least. What was not used is kept up to the burst.
    """

    __slots__ = ("_left", "_when", "burst", "per_second")

    def __init__(self, per_second: float, burst: int = 0) -> None:
        self.per_second = per_second
        self.burst = burst or max(1, ceil(per_second))
        self._left = 0.0
        self._when = -inf

    def take(self, now: float) -> bool:
        """Whether one more job may come at `now` (seconds of a monotonic clock); if so, it counts."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def count(self, now: float) -> None:
        """One more job has come at `now`."""
        self._refill(now)
        self._left -= 1

    def available(self, now: float) -> int:
        """How many jobs may come at once at `now`."""
        self._refill(now)
        return floor(self._left + _ROUNDING)

    def next_at(self) -> float:
        """When one more job may come than could at the time that was told last."""
        return self._when + (floor(self._left + _ROUNDING) + 1 - self._left) / self.per_second

    def _refill(self, now: float) -> None:
        self._left = min(self.burst, self._left + (now - self._when) * self.per_second)
        self._when = now
