"""Takes the samples behind the plots of functions, and has the last day of all plots kept in the store."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.meters import FunctionMeasures
from txgearman.web.api.function_history import COARSE_STEP, FINE_STEP, FunctionHistory
from txgearman.web.api.history import COARSE, COARSE_INTERVAL, COLUMNS, SHARE, History, Sample
from txgearman.web.http.encoding import identifier
from txgearman.web.interfaces import Gearman, PlotPiece, Plots
from txgearman.web.slices import iterate_in_slices

KEPT: Final = COARSE * COARSE_INTERVAL
"""Seconds that plots are kept: a day."""

TOTALS: Final = "total"
"""The name of the plot of the server's totals in the store."""

FUNCTION: Final = "function:"
"""What the names of the plots of functions begin with; the function follows, percent-encoded."""

HOUR: Final = 3600.0
"""Seconds of the totals that are kept together."""

AT_ONCE: Final = 50
"""Functions that are sampled in one turn of the reactor: each may take 60 microseconds."""

_SAMPLE: Final = struct.Struct(f"<{len(COLUMNS)}d")

_log = Logger()


class PlotSampler:
    """Samples functions and keeps plots while it runs.

    Args:
        gearman: The server.
        totals: The history of the server's totals, which samples by itself.
        functions: The histories of functions.
        reactor: The clock between samples.
        wall_clock: Returns seconds since the epoch.
    """

    def __init__(
        self,
        gearman: Gearman,
        totals: History,
        functions: FunctionHistory,
        reactor: IReactorTime,
        wall_clock: Callable[[], float],
    ) -> None:
        self._gearman = gearman
        self._totals = totals
        self._functions = functions
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._running: Deferred[None] | None = None
        self._saved = 0.0
        # What was loaded from. Only there anything is kept: it would take the place of what is not known yet.
        self._loaded: Plots | None = None

    def start(self) -> None:
        """Start sampling, with one sample now."""
        if self._running is not None:
            return
        self._totals.start()
        self._saved = self._reactor.seconds()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def stop(self) -> None:
        """Stop sampling. Samples that were taken stay."""
        self._totals.stop()
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            self._keep(self._functions.pieces())

    async def _run(self) -> None:
        while True:
            self._load()
            begun = self._reactor.seconds()

            def take(found: list[FunctionMeasures | None]) -> None:
                self._functions.take(row for row in found if row is not None)

            rows = self._gearman.inspection.look_at_measures()
            await iterate_in_slices(rows, take, self._reactor, AT_ONCE)
            self._functions.end_sample()
            if begun - self._saved >= COARSE_STEP:
                self._saved = begun
                pieces: list[tuple[bytes, float, bytes]] = []
                await iterate_in_slices(self._functions.pieces(), pieces.extend, self._reactor, AT_ONCE)
                self._keep(pieces)
            took = self._reactor.seconds() - begun
            await deferLater(self._reactor, max(FINE_STEP, took * SHARE))

    def _load(self) -> None:
        """Take what was kept, once the store is there: the port is open before. Asked again until it is
        told."""
        plots = self._gearman.plots
        if plots is not None and plots is not self._loaded:

            def loaded(pieces: list[PlotPiece]) -> None:
                self._restore(pieces)
                self._loaded = plots

            plots.load(self._wall_clock() - KEPT, loaded)

    def _keep(self, functions: Iterable[tuple[bytes, float, bytes]]) -> None:
        """Have pieces of functions kept, and the last one of the totals."""
        plots = self._gearman.plots
        if plots is not None and plots is self._loaded:
            now = self._wall_clock()
            hour = now // HOUR * HOUR
            pieces: list[PlotPiece] = [
                (FUNCTION + identifier(name), began, points) for name, began, points in functions
            ]
            plots.save([*pieces, (TOTALS, hour, self._pack_totals(hour))], now - KEPT - HOUR)

    def _pack_totals(self, began: float) -> bytes:
        """The samples of the totals since a time."""
        samples = [sample for sample in self._totals.samples(True) if sample[0] >= began]
        return b"".join(
            [_SAMPLE.pack(*(math.nan if value is None else value for value in sample)) for sample in samples]
        )

    def _restore(self, pieces: list[PlotPiece]) -> None:
        totals: list[Sample] = []
        for name, _began, points in pieces:
            if name == TOTALS:
                whole = points[: len(points) // _SAMPLE.size * _SAMPLE.size]
                totals += [_unpacked(values) for values in _SAMPLE.iter_unpack(whole)]
            elif name.startswith(FUNCTION):
                self._functions.restore(unquote_to_bytes(name.removeprefix(FUNCTION)), points)
        self._totals.restore([sample for sample in totals if sample[0] > self._wall_clock() - KEPT])

    def _ended(self, reason: Failure) -> None:
        if not reason.check(CancelledError):
            _log.failure(
                "Sampling functions stopped: their plots stand still until the server is restarted", reason
            )


def _unpacked(values: tuple[float, ...]) -> Sample:
    time, *others = values
    return [time, *(None if math.isnan(value) else int(value) for value in others)]
