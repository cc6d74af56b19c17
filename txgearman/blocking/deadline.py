"""How much of a time limit is left. No I/O but the clock."""

from __future__ import annotations

import time


class Deadline:
    """The end of a time limit of `seconds` from now; None for no limit, 0 for one that is over."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds that are left, 0 or more; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def within(self, limit: float) -> float:
        """Seconds that are left, at most `limit`."""
        remaining = self.remaining()
        return limit if remaining is None else min(limit, remaining)

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0
