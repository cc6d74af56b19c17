"""What is counted and timed by function; that the counts are right is for test_model.py to say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench
from tests.wire.effort import EFFORT
from txgearman.broker.histograms import BOUNDS, Durations, Histogram
from txgearman.broker.job_states import Outcome
from txgearman.broker.meters import FunctionMeasures


def cumulated(*durations: float) -> tuple[int, ...]:
    """How many of `durations` are at most as long as each bound, found by looking at each."""
    return (*(sum(duration <= bound for duration in durations) for bound in BOUNDS), len(durations))


class HistogramTests(SynchronousTestCase):
    def counted(self, *durations: float) -> Durations:
        """Count as the broker does."""
        histogram = Histogram()
        for duration in durations:
            if histogram.low < duration <= histogram.high:
                histogram.hits += 1
                histogram.sum += duration
            else:
                histogram.add(duration)
        return histogram.so_far()

    def test_a_bucket_holds_its_upper_bound(self) -> None:
        for bound in BOUNDS:
            for durations in ((bound, bound * 1.0001), (bound * 1.0001, bound), (bound, bound)):
                self.assertEqual(self.counted(*durations).cumulated, cumulated(*durations))

    def test_nothing_and_longer_than_any_bound(self) -> None:
        so_far = self.counted(0.0, BOUNDS[-1] + 1, 0.0, 0.0)
        self.assertEqual(so_far.cumulated, (*[3] * len(BOUNDS), 4))
        self.assertEqual(so_far.sum, BOUNDS[-1] + 1)

    def test_a_clock_that_was_set_back(self) -> None:
        so_far = self.counted(-3600.0, -3600.0, 2.0, -1.0)
        self.assertEqual((so_far.cumulated[0], so_far.cumulated[-1], so_far.sum), (3, 4, 2.0))

    def test_looking_changes_nothing(self) -> None:
        histogram = Histogram()
        for number in range(100):
            histogram.add(number / 10)
            self.assertEqual(histogram.so_far(), histogram.so_far())
        self.assertEqual(histogram.so_far().cumulated, cumulated(*(number / 10 for number in range(100))))

    @EFFORT
    @given(st.lists(st.floats(0, 4000) | st.sampled_from([0.0, *BOUNDS])))
    def test_any_durations(self, durations: list[float]) -> None:
        so_far = self.counted(*durations)
        self.assertEqual(so_far.cumulated, cumulated(*durations))
        self.assertAlmostEqual(so_far.sum, sum(durations))


class MeasuresTests(SynchronousTestCase):
    def rows(self, bench: Bench) -> dict[bytes | None, FunctionMeasures]:
        return {row.name: row for row in bench.inspection.measures()}

    def test_times(self) -> None:
        bench = Bench(measured=1)
        worker = bench.worker("w", b"f")
        handle = bench.queue(b"f")
        bench.advance(2.0)
        bench.grab(worker)
        bench.advance(40.0)
        bench.broker.complete(worker, handle, b"")
        row = self.rows(bench)[b"f"]
        self.assertEqual((row.waited.sum, row.ran.sum), (2.0, 40.0))
        self.assertEqual(row.counts.completed, 1)

    def test_a_job_waits_from_its_time_on(self) -> None:
        bench = Bench(measured=1)
        worker = bench.worker("w", b"f")
        bench.queue(b"f", run_at=bench.wall() + 30)
        bench.advance(31.0)
        bench.grab(worker)
        self.assertAlmostEqual(self.rows(bench)[b"f"].waited.sum, 1.0)

    def test_time_stands_still_within_a_turn(self) -> None:
        bench = Bench(measured=1)
        worker = bench.worker("w", b"f")
        bench.broker.begin_turn()
        began = bench.wall()
        bench.now += 1.0
        bench.queue(b"f")
        bench.now += 2.0
        job = bench.grab(worker)
        bench.broker.end_turn()
        bench.now += 4.0
        bench.broker.complete(worker, job.handle, b"")
        row = self.rows(bench)[b"f"]
        self.assertEqual((job.submitted, row.waited.sum, row.ran.sum), (began, 0.0, 7.0))

    def test_outside_of_turns_the_clocks_are_asked_each_time(self) -> None:
        bench = Bench(measured=1)
        worker = bench.worker("w", b"f")
        bench.broker.begin_turn()
        bench.broker.end_turn()
        bench.now += 1.0
        bench.queue(b"f")
        bench.now += 2.0
        job = bench.grab(worker)
        self.assertEqual(job.submitted, bench.wall() - 2.0)
        self.assertEqual(self.rows(bench)[b"f"].waited.sum, 2.0)

    def test_invented_functions_share_a_row(self) -> None:
        bench = Bench(measured=3)
        for number in range(1000):
            bench.queue(b"f%d" % number)
        rows = self.rows(bench)
        self.assertEqual(set(rows), {b"f0", b"f1", b"f2", None})
        self.assertEqual(rows[None].counts.submitted, 997)

    def test_a_row_of_many_does_not_fall_when_one_is_dropped(self) -> None:
        bench = Bench(measured=1)
        bench.queue(b"first")
        for _ in range(2):
            bench.broker.cancel(bench.queue(b"second"))
            bench.administration.drop_function(b"second")
        counts = self.rows(bench)[None].counts
        self.assertEqual((counts.submitted, counts.uncompleted[Outcome.CANCELLED]), (2, 2))

    def test_the_row_of_a_dropped_function_is_free_for_a_new_one(self) -> None:
        bench = Bench(measured=1)
        bench.broker.cancel(bench.queue(b"first"))
        bench.queue(b"second")
        bench.administration.drop_function(b"first")
        bench.queue(b"third")
        rows = self.rows(bench)
        self.assertEqual(set(rows), {b"third", None})
        self.assertEqual(rows[None].counts.submitted, 1, "a function keeps its row")

    def test_without_measuring(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f")
        handle = bench.queue(b"f")
        bench.advance(2.0)
        bench.grab(worker)
        bench.broker.complete(worker, handle, b"")
        (row,) = bench.inspection.measures()
        self.assertEqual((row.name, row.counts.completed, row.waited.cumulated[-1]), (None, 1, 0))
