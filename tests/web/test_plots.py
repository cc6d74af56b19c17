"""The history of functions, and plots that outlive the server."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Web
from tests.web.test_jobs import events
from txgearman.broker.histograms import BOUNDS, Histogram
from txgearman.broker.meters import Counts, FunctionMeasures
from txgearman.web import root
from txgearman.web.api.function_history import (
    COARSE_STEP,
    COARSE_STEPS,
    COLUMNS,
    FINE_STEP,
    MAX_FUNCTIONS,
    MAX_GONE,
    FunctionHistory,
    quantiles,
)

DAY = 86400.0


class Measured:
    """A function whose jobs are counted and timed by hand."""

    def __init__(self, name: bytes | None = b"f") -> None:
        self.name = name
        self.counts = Counts()
        self.waited, self.ran = Histogram(), Histogram()

    def done(self, count: int, waited: float, ran: float) -> None:
        self.counts.submitted += count
        self.counts.ended += count
        for _ in range(count):
            self.waited.add(waited)
            self.ran.add(ran)

    @property
    def row(self) -> FunctionMeasures:
        counts = Counts(submitted=self.counts.submitted, ended=self.counts.ended)
        return FunctionMeasures(self.name, counts, self.waited.so_far(), self.ran.so_far())


class QuantilesTests(SynchronousTestCase):
    def test_between_the_edges(self) -> None:
        histogram = Histogram()
        none = histogram.so_far().cumulated
        for _ in range(100):
            histogram.add(1.5)
        found = quantiles(none, histogram.so_far().cumulated)
        # All are in the bucket from 1 to 2.5 seconds.
        self.assertEqual([round(each, 3) for each in found], [1.75, 2.425, 2.485])

    def test_since_the_first_look_alone(self) -> None:
        histogram = Histogram()
        histogram.add(1000.0)
        before = histogram.so_far().cumulated
        histogram.add(0.0005)
        self.assertLessEqual(quantiles(before, histogram.so_far().cumulated)[2], 0.001)

    def test_none_and_very_long(self) -> None:
        histogram = Histogram()
        none = histogram.so_far().cumulated
        self.assertTrue(all(map(math.isnan, quantiles(none, none))))
        histogram.add(10**9)
        self.assertEqual(quantiles(none, histogram.so_far().cumulated), (BOUNDS[-1],) * 3)


class FunctionHistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.history = FunctionHistory(self.clock.seconds)
        self.f = Measured()
        self.history.take([self.f.row])

    def step(self, seconds: float = FINE_STEP, *others: Measured) -> None:
        self.clock.advance(seconds)
        self.history.take([each.row for each in (self.f, *others)])
        self.history.end_sample()

    def column(self, name: str, coarse: bool = False) -> list[Any]:
        index = 1 + COLUMNS.index(name)
        return [sample[index] for sample in self.history.samples(b"f", coarse)]

    def test_rates_and_percentiles(self) -> None:
        self.f.done(20, waited=0.02, ran=0.2)
        self.step()
        self.step()
        self.assertEqual(self.column("completed"), [0.0, 4.0], "the step that is not over has none")
        self.assertEqual(self.column("ran_50"), [None, 0.175])
        self.assertEqual(self.history.samples(b"g", False), [])

    def test_a_day_in_larger_steps(self) -> None:
        for _ in range(int(2 * COARSE_STEP / FINE_STEP)):
            self.f.done(10, waited=0.0, ran=0.0)
            self.step()
        self.assertEqual(
            [round(each, 3) for each in self.column("submitted", coarse=True) if each], [2.0, 2.0]
        )

    def test_a_sample_that_comes_late(self) -> None:
        """It leaves no hole, in which nothing would seem to have happened."""
        for _ in range(3):
            self.f.done(21, 0.0, 0.0)
            self.step(2.1 * FINE_STEP)
        self.assertEqual([round(each, 6) for each in self.column("submitted")], [0.0, *[2.0] * 6])

    def test_old_points_are_forgotten(self) -> None:
        self.f.done(1, 0.0, 0.0)
        self.step(COARSE_STEP)
        self.assertEqual(len([each for each in self.column("submitted", True) if each]), 1)
        for _ in range(COARSE_STEPS + 1):
            self.step(COARSE_STEP)
        self.assertEqual([each for each in self.column("submitted", True) if each], [])
        self.assertLessEqual(len(self.column("submitted", True)), COARSE_STEPS)

    def test_functions_come_and_go(self) -> None:
        """Only so many that are gone are remembered, and a count that begins anew is no rate below 0."""
        for number in range(3 * MAX_GONE):
            self.step(FINE_STEP, Measured(b"%d" % number))
        self.assertLessEqual(len(self.history._coarse), MAX_GONE + 2)
        self.f.done(50, 0.0, 0.0)
        self.step()
        self.history.end_sample()
        self.f = Measured()
        self.step()
        self.f.done(1, 0.0, 0.0)
        self.step()
        self.assertGreaterEqual(min(self.column("submitted")), 0.0)

    def test_so_many_have_a_history(self) -> None:
        self.step(FINE_STEP, *[Measured(b"%d" % number) for number in range(2 * MAX_FUNCTIONS)])
        self.assertEqual(len(self.history._fine), MAX_FUNCTIONS)

    def test_all_others_have_no_history(self) -> None:
        self.step(FINE_STEP, Measured(None))
        self.assertEqual(list(self.history._fine), [b"f"])

    def test_what_is_kept_comes_back(self) -> None:
        for _ in range(3):
            self.f.done(120, waited=0.02, ran=0.2)
            self.step(COARSE_STEP)
        pieces = list(self.history.pieces())
        self.step(COARSE_STEP)
        again = FunctionHistory(self.clock.seconds)
        for name, _, points in pieces:
            again.restore(name, points + b"torn")
        self.history.end_sample()
        self.assertEqual(again.samples(b"f", True), self.history.samples(b"f", True)[1:])
        self.assertIn(1.0, self.column("completed", True))

    def test_only_what_has_changed_is_kept_again(self) -> None:
        self.f.done(1, 0.0, 0.0)
        self.step(COARSE_STEP)
        first = list(self.history.pieces())
        for _ in range(70):
            self.f.done(1, 0.0, 0.0)
            self.step(COARSE_STEP)
        list(self.history.pieces())
        self.f.done(1, 0.0, 0.0)
        self.step(COARSE_STEP)
        (last,) = self.history.pieces()
        self.assertEqual(len(first), 1)
        self.assertGreater(last[1], first[0][1])


class Kept:
    """Plots that outlive servers, in memory."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, float], bytes] = {}

    def load(self, since: float, tell: Any) -> None:
        tell([(*key, points) for key, points in sorted(self.pieces.items(), key=lambda each: each[0][1])])

    def save(self, pieces: Any, before: float) -> None:
        self.pieces.update({(name, began): points for name, began, points in pieces})


class PlotsTests(SynchronousTestCase):
    def serve(self, kept: Kept | None) -> Web:
        web = Web()
        web.gearman.server.plots = kept  # type: ignore[assignment]
        return web

    def test_a_history_over_http(self) -> None:
        web = self.serve(None)
        peer = Peer(web.gearman)
        web.gearman.connect(peer)
        web.site.startFactory()
        self.addCleanup(web.site.stopFactory)
        peer.ask(*[req(18, b"f", b"", b"")] * 10)
        web.gearman.turn(1)
        found = web.get("/api/v1/functions/f/history").json()
        self.assertEqual((found["columns"], found["step"]), (["time", *COLUMNS], FINE_STEP))
        self.assertEqual(web.get("/api/v1/functions/f/history?span=day").json()["step"], COARSE_STEP)
        self.assertEqual(web.get("/api/v1/functions/none/history").code, "no-such-function")
        self.assertEqual(web.get("/api/v1/functions/f/history?span=year").code, "bad-parameter")

    def test_the_totals_outlive_the_server(self) -> None:
        kept = Kept()
        wall_clock = Clock()
        wall_clock.advance(1_000_000)
        self.patch(root, "time", SimpleNamespace(time=wall_clock.seconds))
        first = self.serve(kept)
        first.site.startFactory()
        first.gearman.turn(61)
        first.site.stopFactory()
        wall_clock.advance(60)
        self.assertIn("total", {name for name, _ in kept.pieces})
        # The port is open before the store is there.
        second = self.serve(None)
        second.site.startFactory()
        self.addCleanup(second.site.stopFactory)
        second.gearman.server.plots = kept  # type: ignore[assignment]
        before = dict(kept.pieces)
        second.site.stopFactory()
        self.assertEqual(kept.pieces, before, "nothing takes the place of what was not loaded")
        second.site.startFactory()
        second.gearman.turn(FINE_STEP)
        exchange = second.begin("GET", "/api/v1/live?span=day")
        ((_, past),) = [event for event in events(exchange) if event[0] == "history"]
        times = [sample[0] for sample in past["samples"]]
        self.assertEqual((times, past["coarse"]), ([1_000_000.0, 1_000_060.0], True))
        exchange.leave()
