"""How long to wait before the next attempt to connect to a server. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from txgearman.connection.arguments import is_time

RetryPolicy = Callable[[int], float]
"""Takes the number of attempts that failed since the last connection, and returns the seconds to wait."""

_log = Logger()

FIRST_PAUSE: Final = 0.1
"""Seconds before the first attempt behind a loss. A server that restarts is back in a second or two, and
what waits for it should not wait much longer; Twisted's own policy begins with one to two seconds."""

LONGEST_PAUSE: Final = 30.0
"""Seconds before any attempt, spread aside. A refused connection costs a server next to nothing."""

GROWTH: Final = 1.5
"""By how much each pause is longer than the one before; as in Twisted's own policy."""

SPREAD: Final = 0.5
"""The part of a pause by which chance makes it longer or shorter, so that thousands of workers that were
lost at once do not come back at once, again and again."""

_GROWN: Final = 32
"""Attempts behind which a pause is at its longest; powers of more would overflow at some time."""


def pause(attempts: int) -> float:
    """Seconds to wait when `attempts` have failed since the last connection; the default ``retry_policy``."""
    seconds = min(FIRST_PAUSE * GROWTH ** min(attempts, _GROWN), LONGEST_PAUSE)
    return seconds * random.uniform(1 - SPREAD, 1 + SPREAD)


def steady(policy: RetryPolicy | None) -> RetryPolicy:
    """`policy`, or `pause` if it is None; `pause` also takes its place wherever it fails.

    It is called where connections end. What it raises, or returns that is no number of seconds, must not
    hold up those who wait for them: that is logged.
    """
    if policy is None:
        return pause

    def seconds(attempts: int) -> float:
        try:
            chosen = policy(attempts)
            if is_time(chosen):
                return chosen
            raise ValueError(f"a pause is a number of seconds from 0 on, not {chosen!r}")
        except Exception:
            _log.failure("The retry policy failed, the default takes its place")
        return pause(attempts)

    return seconds
