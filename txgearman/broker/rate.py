"""How fast a function's jobs may come in: a token bucket. Time comes in as an argument."""

from __future__ import annotations

from math import ceil, inf


class Rate:
    """At most `per_second` new jobs a second in the long run, and `burst` at once.

    A `burst` of 0 is as many as the rate, one at least. What was not used is kept up to the burst.
    """

    __slots__ = ("_left", "_when", "burst", "per_second")

    def __init__(self, per_second: float, burst: int = 0) -> None:
        self.per_second = per_second
        self.burst = burst or max(1, ceil(per_second))
        self._left = 0.0
        self._when = -inf

    def take(self, now: float) -> bool:
        """Whether one more job may come in at `now` (seconds of a monotonic clock); if so, it counts."""
        self._left = min(self.burst, self._left + (now - self._when) * self.per_second)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
