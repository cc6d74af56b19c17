"""Sharing the reactor's time between connections: a bounded time in each turn, round robin. Nothing of HTTP.

Twisted's Cooperator shares time in the same way, but begins everything a turn later, a single request too.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

SLICE_SECONDS: Final = 0.005
"""Seconds of one turn of the reactor that all readers may take together; the last step is not interrupted.
All other connections wait as long in each turn. Twisted's Cooperator has 0.01."""

PAUSE_SECONDS: Final = 0.001
"""Seconds without a step after which a new slice begins, as the reactor has served others. A call in the
reactor's next turn would tell exactly when that is. It took 16 µs for each read, a tenth of a request."""

_log = Logger()


class Reader(Protocol):
    """Reads what has come from one peer, step by step."""

    def step(self) -> bool:
        """Take one step, which must be short; whether the next one can be taken at once."""

    def forceAbortClient(self) -> None:
        """End the connection at once: a step has failed."""


class TimeSlice:
    """What all readers together may take of a turn. `reactor` calls back in the next, and has the clock."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._ends_at = self._stepped_at = -math.inf
        self._is_called_back = False
        # In the order in which they are served.
        self._waiting: OrderedDict[Reader, None] = OrderedDict()

    def run(self, reader: Reader) -> None:
        """Let a reader take its steps: now while there is time, and the others in the next turns."""
        if reader in self._waiting:
            return
        while self._has_time():
            if not self._step(reader):
                return
        self.run_later(reader)

    def run_later(self, reader: Reader) -> None:
        """Let a reader take its steps in the next turns, and none within this call."""
        self._waiting[reader] = None
        self._call_back()

    def forget(self, reader: Reader) -> None:
        """A reader has ended."""
        self._waiting.pop(reader, None)

    def _has_time(self) -> bool:
        now = self._reactor.seconds()
        # The reactor's clock may be set back.
        if not 0.0 <= now - self._stepped_at < PAUSE_SECONDS:
            self._ends_at = now + SLICE_SECONDS
        return now < self._ends_at

    def _step(self, reader: Reader) -> bool:
        try:
            return reader.step()
        finally:
            self._stepped_at = self._reactor.seconds()

    def _call_back(self) -> None:
        if not self._is_called_back:
            self._is_called_back = True
            self._reactor.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_called_back = False
        self._ends_at = self._reactor.seconds() + SLICE_SECONDS
        while self._waiting and self._has_time():
            reader, _ = self._waiting.popitem(last=False)
            try:
                goes_on = self._step(reader)
            except Exception:
                _log.failure("A connection failed")
                reader.forceAbortClient()
            else:
                if goes_on:
                    self._waiting[reader] = None
        if self._waiting:
            self._call_back()
