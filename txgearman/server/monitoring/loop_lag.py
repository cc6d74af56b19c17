"""Event loop lag: the time from when a call is due until it is made. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.broker.histograms import Histogram

INTERVAL: Final = 0.25
"""Seconds between two looks. What holds the loop up for longer is seen for certain, shorter things with
their share of the time."""


class LoopLag(Service):
    """Measures the lag with calls of its own; `delays` are the seconds by which each was late.

    `clock` gives monotonic seconds: a step of the system's clock, by which a reactor reckons, is no delay.
    """

    def __init__(self, reactor: IReactorTime, clock: Callable[[], float] = time.monotonic) -> None:
        self.delays = Histogram()
        self._reactor = reactor
        self._clock = clock
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._wait()

    def stopService(self) -> Deferred[None] | None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        return super().stopService()  # type: ignore[no-any-return]

    def _wait(self) -> None:
        self._due = self._clock() + INTERVAL
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self.delays.add(self._clock() - self._due)
        self._wait()
