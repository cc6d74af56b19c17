"""The history of the server's totals: a sample a second for minutes, one a minute for a day."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

INTERVAL: Final = 1.0
"""Seconds between two samples."""

RECENT: Final = 600
"""Samples a second apart that are kept: ten minutes."""

COARSE_INTERVAL: Final = 60.0
COARSE: Final = 1440
"""Samples a minute apart that are kept: a day."""

SHARE: Final = 100
"""Sampling may take one part in so many of the time: with very many functions samples become rarer."""

COLUMNS: Final = ("time", "submitted", "completed", "failed", "queued", "running", "connections", "memory")
"""The columns of a sample. The three after the time count since the server's start."""

Sample = list[Any]

_log = Logger()


class History:
    """Takes samples while it runs. `listeners` are called with each.

    Args:
        measure: Measures the totals, by name of `COLUMNS`.
        reactor: The clock between samples.
        wall_clock: Returns seconds since the epoch, for the samples.
    """

    def __init__(
        self,
        measure: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
        reactor: IReactorTime,
        wall_clock: Callable[[], float],
    ) -> None:
        self.listeners: list[Callable[[Sample], None]] = []
        self._measure = measure
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._recent: deque[Sample] = deque(maxlen=RECENT)
        self._coarse: deque[Sample] = deque(maxlen=COARSE)
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Start sampling, with one sample now."""
        if self._running is None:
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(self._ended)

    def stop(self) -> None:
        """Stop sampling. Samples that were taken are kept."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def samples(self, coarse: bool) -> list[Sample]:
        """The samples, the oldest first: a second apart, or, if `coarse`, a minute."""
        return list(self._coarse if coarse else self._recent)

    def restore(self, samples: list[Sample]) -> None:
        """Take samples that were kept, of a server that ended.

        Args:
            samples: They are a minute apart, the oldest first.
        """
        begun = self._coarse[0][0] if self._coarse else float("inf")
        taken = list(self._coarse)
        self._coarse.clear()
        self._coarse.extend([sample for sample in samples if sample[0] < begun])
        self._coarse.extend(taken)

    async def _run(self) -> None:
        while True:
            begun = self._reactor.seconds()
            self._take(await self._measure())
            took = self._reactor.seconds() - begun
            await deferLater(self._reactor, max(INTERVAL, took * SHARE))

    def _take(self, totals: dict[str, Any]) -> None:
        sample: Sample = [round(self._wall_clock(), 2), *(totals[name] for name in COLUMNS[1:])]
        self._recent.append(sample)
        if not self._coarse or sample[0] - self._coarse[-1][0] >= COARSE_INTERVAL - INTERVAL / 2:
            self._coarse.append(sample)
        for listener in list(self.listeners):
            listener(sample)

    def _ended(self, reason: Failure) -> None:
        if not reason.check(CancelledError):
            _log.failure(
                "Sampling for the dashboard stopped: its plots stand still until the server is restarted",
                reason,
            )
