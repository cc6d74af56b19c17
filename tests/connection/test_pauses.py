"""The pauses between attempts to connect."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.pauses import FIRST_PAUSE, LONGEST_PAUSE, SPREAD, pause


class PauseTests(SynchronousTestCase):
    def test_it_is_short_at_first_and_grows_to_its_longest(self) -> None:
        for attempts, middle in ((0, FIRST_PAUSE), (1, 0.15), (10, 5.77), (40, LONGEST_PAUSE)):
            pauses = [pause(attempts) for _ in range(200)]
            self.assertGreaterEqual(min(pauses), middle * (1 - SPREAD) * 0.999)
            self.assertLessEqual(max(pauses), middle * (1 + SPREAD) * 1.001)
            self.assertGreater(max(pauses) - min(pauses), middle * SPREAD, "they differ")

    def test_it_lasts_for_ever(self) -> None:
        self.assertLessEqual(pause(10**9), LONGEST_PAUSE * (1 + SPREAD))
