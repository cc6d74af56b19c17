"""How late the event loop is, by a clock that is turned by hand."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.broker.histograms import BOUNDS
from txgearman.server.monitoring.loop_lag import INTERVAL, LoopLag


class LoopLagTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Clock()
        self.monotonic = 100.0
        self.loop_lag = LoopLag(self.reactor, lambda: self.monotonic)
        self.loop_lag.startService()

    def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds
        self.reactor.advance(seconds)

    def counted(self, bound: float) -> int:
        """How many delays were at most `bound` seconds."""
        return self.loop_lag.delays.so_far().cumulated[BOUNDS.index(bound)]

    def test_in_time(self) -> None:
        for _ in range(8):
            self.pass_time(INTERVAL)
        self.assertEqual(self.counted(0.001), 8)

    def test_late(self) -> None:
        self.pass_time(INTERVAL + 0.3)
        self.pass_time(INTERVAL)
        self.assertEqual((self.counted(0.25), self.counted(0.5)), (1, 2))
        self.assertAlmostEqual(self.loop_lag.delays.so_far().sum, 0.3)

    def test_held_up_for_many_intervals(self) -> None:
        self.pass_time(10.0)
        self.assertEqual((self.counted(5.0), self.counted(10.0)), (0, 1))

    def test_a_step_of_the_systems_clock_is_no_delay(self) -> None:
        self.monotonic += 0.01
        self.reactor.advance(3600)
        self.assertEqual(self.counted(0.001), 1)

    def test_stopping(self) -> None:
        self.loop_lag.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.loop_lag.startService()
        self.pass_time(INTERVAL)
        self.assertEqual(self.counted(0.001), 1)
