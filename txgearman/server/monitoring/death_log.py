"""Logs that jobs die, one line for each function at a time, and that functions are paused by that."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger, LogLevel

from txgearman.access.patterns import shown
from txgearman.broker.dead_job import DeadJob
from txgearman.broker.job_states import OUTCOME_NAMES
from txgearman.server.monitoring.activity import Activity
from txgearman.server.monitoring.rate_limited_log import RateLimitedLog

DEATH_INTERVAL: Final = 60.0
"""Seconds between two lines about one function: a broken deployment kills thousands of jobs in a minute."""

MAX_FUNCTIONS: Final = 1000
"""Functions of which it is known when they were logged last, those that were latest."""

MAX_ERROR_SHOWN: Final = 200
"""Bytes of an error text in the log."""


_log: Final = Logger()


class DeathLog:
    """The broker's `DeathListener` and `PauseListener`: warns in the log of dead jobs, and of functions that
    were paused as too many runs failed.

    Args:
        clock: Gives monotonic seconds.
        activity: Remembers that functions were paused.
    """

    def __init__(self, clock: Callable[[], float], activity: Activity) -> None:
        self._clock = clock
        self._activity = activity
        self._logs: OrderedDict[bytes, RateLimitedLog] = OrderedDict()

    def died(self, dead: DeadJob) -> None:
        log = self._logs.pop(dead.function, None)
        if log is None:
            text = (
                "Job {handle} of function {function} is dead ({outcome}): {error}. It is kept with its data; "
                "`txgearman dead` lists such jobs"
            )
            log = RateLimitedLog(LogLevel.warn, text, self._clock, DEATH_INTERVAL)
            if len(self._logs) >= MAX_FUNCTIONS:
                self._logs.popitem(last=False)
        self._logs[dead.function] = log
        first_line = dead.error.split(b"\n", 1)[0][:MAX_ERROR_SHOWN]
        log.happened(
            handle=shown(dead.handle),
            function=shown(dead.function),
            outcome=OUTCOME_NAMES[dead.outcome],
            error=shown(first_line) if first_line else "its worker gave no reason",
        )

    def paused(self, function: bytes, failures: int) -> None:
        _log.warn(
            "Function {function} is paused: {failures} of its runs have failed in a row. Resume it once they "
            "can succeed",
            function=shown(function),
            failures=failures,
        )
        self._activity.happened("pause function", f"{failures} of its runs failed in a row", function)
