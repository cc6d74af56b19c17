"""How the server's totals went over time: a sample a second for minutes, one a minute for a day."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL: Final = 1.0
"""Seconds between two samples."""

RECENT: Final = 600
"""Samples of this kind that are kept: ten minutes."""

COARSE_INTERVAL: Final = 60.0
COARSE: Final = 1440
"""Samples a minute apart that are kept: a day."""

SHARE: Final = 100
"""A sample may take one part in so many of the time: with very many functions they become rarer."""

COLUMNS: Final = ("time", "submitted", "completed", "failed", "queued", "running", "connections", "memory")
"""What a sample holds; the three behind the time count since the server's start."""

Sample = list[Any]


class History:
    """Takes samples from `measure`, which gives the totals by name, while it runs.

    `wall_clock` gives seconds since the epoch. `listeners` are called with each sample a second.
    """

    def __init__(
        self, measure: Callable[[], dict[str, Any]], reactor: IReactorTime, wall_clock: Callable[[], float]
    ) -> None:
        self.listeners: list[Callable[[Sample], None]] = []
        self._measure = measure
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._recent: deque[Sample] = deque(maxlen=RECENT)
        self._coarse: deque[Sample] = deque(maxlen=COARSE)
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to take samples, with one now."""
        if self._call is None:
            self._take()

    def stop(self) -> None:
        """Take no more samples; those that were taken are kept."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def samples(self, coarse: bool) -> list[Sample]:
        """The samples that are kept, the oldest first: a second apart, or `coarse` a minute."""
        return list(self._coarse if coarse else self._recent)

    def _take(self) -> None:
        begun = self._reactor.seconds()
        totals = self._measure()
        sample: Sample = [round(self._wall_clock(), 2), *(totals[name] for name in COLUMNS[1:])]
        self._recent.append(sample)
        if not self._coarse or sample[0] - self._coarse[-1][0] >= COARSE_INTERVAL - INTERVAL / 2:
            self._coarse.append(sample)
        for listener in list(self.listeners):
            listener(sample)
        took = self._reactor.seconds() - begun
        self._call = self._reactor.callLater(max(INTERVAL, took * SHARE), self._take)
