"""How much of a time limit is left. No I/O but the clock."""

from __future__ import annotations

import time

from txgearman.connection.arguments import LONGEST_TIME


class Deadline:
    """The end of a time limit.

    Args:
        seconds: The limit from now. None is no limit. So is more than `LONGEST_TIME`: the system cannot wait
            that long. 0 or less is over at once.

    Raises:
        ValueError: `seconds` is not a number.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds <= LONGEST_TIME:
            if not seconds > LONGEST_TIME:  # NaN: it is neither smaller nor larger.
                raise ValueError(f"a time limit is a number of seconds or None, not {seconds}")
            seconds = None
        self._end = None if seconds is None else time.monotonic() + max(0.0, seconds)

    def remaining(self) -> float | None:
        """Return the seconds left, 0 or more; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def within(self, limit: float) -> float:
        """Return the seconds left, at most `limit`."""
        remaining = self.remaining()
        return limit if remaining is None else min(limit, remaining)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self.remaining() == 0.0
