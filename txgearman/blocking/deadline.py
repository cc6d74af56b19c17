"""How much of a time limit is left. No I/O but the clock."""

from __future__ import annotations

import time

from txgearman.connection.arguments import LONGEST_TIME


class Deadline:
    """The end of a time limit of `seconds` from now; None for no limit, 0 and less for one that is over.

    More than `LONGEST_TIME` is no limit either: the system can wait for no such time. Raises `ValueError` for
    what is no number.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds <= LONGEST_TIME:
            if not seconds > LONGEST_TIME:  # It compares with nothing.
                raise ValueError(f"a time limit is a number of seconds or None, not {seconds}")
            seconds = None
        self._end = None if seconds is None else time.monotonic() + max(0.0, seconds)

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
