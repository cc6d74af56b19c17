"""Backoff: how long to wait before the next attempt, longer after each failure and with jitter. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from txgearman.connection.arguments import is_time

RetryPolicy = Callable[[int], float]
"""Takes the number of attempts that failed since the last connection, and returns the seconds to wait."""

_log = Logger()

INITIAL_BACKOFF: Final = 0.1
"""Seconds before the first attempt after a loss. A restarted server is back in a second or two, and callers
should not wait much longer than that. Twisted's own policy begins with one to two seconds."""

MAX_BACKOFF: Final = 30.0
"""Seconds before any attempt, without jitter. Refusing a connection costs a server next to nothing."""

BACKOFF_FACTOR: Final = 1.5
"""How much longer each wait is than the one before. Twisted's own policy has the same factor."""

JITTER: Final = 0.5
"""The share of a wait by which chance makes it longer or shorter. It keeps thousands of workers that lost
their server together from returning together, again and again."""

_ATTEMPTS_TO_MAX: Final = 32
"""The wait has reached its maximum after this many attempts. Higher powers would overflow."""


def exponential_backoff(attempts: int) -> float:
    """The default ``retry_policy``: exponential backoff with jitter.

    Args:
        attempts: How many attempts have failed since the last connection.

    Returns:
        Seconds to wait before the next attempt.
    """
    seconds = min(INITIAL_BACKOFF * BACKOFF_FACTOR ** min(attempts, _ATTEMPTS_TO_MAX), MAX_BACKOFF)
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)


def retry_policy_from(policy: RetryPolicy | None) -> RetryPolicy:
    """The policy that the option ``retry_policy`` means; it never raises.

    A policy is called while a connection ends. Its faults must not hold up those who wait for the connection,
    so they are logged, and `exponential_backoff` decides instead.

    Args:
        policy: The user's policy, or None for `exponential_backoff`. It is at fault if it raises, or returns
            anything but a finite number of seconds from 0.

    Returns:
        A policy that is safe to call.
    """
    if policy is None:
        return exponential_backoff

    def seconds(attempts: int) -> float:
        try:
            chosen = policy(attempts)
            if is_time(chosen):
                return chosen
            raise ValueError(f"a retry policy returns a number of seconds from 0 on, not {chosen!r}")
        except Exception:
            _log.failure("The retry policy failed, the default takes its place")
        return exponential_backoff(attempts)

    return seconds
