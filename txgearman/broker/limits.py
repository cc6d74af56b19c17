"""Whether a new job is taken: the limits of the server and of the job's function."""

from __future__ import annotations

import sys

from txgearman.broker.entities import Function
from txgearman.broker.timer import Timer
from txgearman.errors import QueueFull, RateExceeded, ServerFull, ShuttingDown


class Limits:
    """At `refuse_at` jobs in all new ones are refused: with 0, while draining, all are. `refused` counts the
    jobs that were refused as there were too many in all."""

    __slots__ = ("_timer", "refuse_at", "refused")

    def __init__(self, max_jobs: int, timer: Timer) -> None:
        self._timer = timer
        self.refuse_at = max_jobs or sys.maxsize
        self.refused = 0

    @property
    def draining(self) -> bool:
        """Whether no new job is taken because the server ends."""
        return not self.refuse_at

    def change_max_jobs(self, max_jobs: int) -> None:
        """Refuse new jobs at another number of jobs, 0 for none, unless draining."""
        if self.refuse_at:
            self.refuse_at = max_jobs or sys.maxsize

    def admit(self, function: Function, priority: int, total: int) -> None:
        """Hold a new job against the limits. Raises `Refused`."""
        try:
            self.check_open(total)
            if _is_full(function, priority):
                raise QueueFull
            rate = function.rate
            if rate is not None and not rate.take(self._timer.clock()):
                raise RateExceeded(rate.per_second)
        except (QueueFull, RateExceeded):
            function.refused += 1
            raise

    def check_open(self, total: int) -> None:
        """Raises `Refused` if the server takes no new job at all."""
        if total >= self.refuse_at:
            if not self.refuse_at:
                raise ShuttingDown
            self.refused += 1
            raise ServerFull(self.refuse_at)


def _is_full(function: Function, priority: int) -> bool:
    """Whether a new job of `priority` would exceed the function's limit.

    As with gearmand, the limit of a priority is compared with the function's jobs of all priorities, the
    running ones included.
    """
    if function.limits is None:
        return False
    limit = function.limits[priority]
    return limit is not None and function.total >= limit
