"""The clock that leases and time limits go by."""

from __future__ import annotations

import time

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.net.clocks import monotonic_clock


class SteadyClockTests(SynchronousTestCase):
    def test_the_clock_of_a_test_is_itself(self) -> None:
        clock = Clock()
        monotonic = monotonic_clock(clock)
        clock.advance(7)
        self.assertEqual(monotonic(), 7)

    def test_setting_the_system_s_clock_does_not_move_it(self) -> None:
        monotonic = monotonic_clock(reactor)
        before = monotonic()
        self.patch(time, "time", lambda: 0.0)
        self.patch(reactor, "seconds", lambda: 0.0)
        self.assertGreaterEqual(monotonic(), before)
        self.assertLess(monotonic() - before, 10)
