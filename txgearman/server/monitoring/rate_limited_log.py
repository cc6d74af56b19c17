"""Rate-limited logging: what peers cause again and again must not fill the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger, LogLevel

LOG_INTERVAL: Final = 10.0
"""Seconds between two lines in the log about connections refused or dropped for the same reason."""

_log = Logger()


class RateLimitedLog:
    """Logs an event, and how often it happened, at most once per `interval`.

    Args:
        level: The level of the lines.
        text: The format of a line.
        clock: Gives monotonic seconds.
        interval: Seconds between two lines.
    """

    def __init__(
        self, level: LogLevel, text: str, clock: Callable[[], float], interval: float = LOG_INTERVAL
    ) -> None:
        self._level = level
        self._text = text
        self._clock = clock
        self._interval = interval
        self._logged: float | None = None
        self._count = 0

    def happened(self, **fields: object) -> None:
        """Count the event, and log it if the last line is old enough; `fields` are those of the text."""
        self._count += 1
        now = self._clock()
        if self._logged is None or now - self._logged >= self._interval:
            more = "; {count} since the last such line" if self._count > 1 else ""
            _log.emit(self._level, self._text + more, count=self._count, **fields)
            self._logged, self._count = now, 0
