"""The pauses between attempts to connect."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.pauses import FIRST_PAUSE, LONGEST_PAUSE, SPREAD, pause, steady


class PauseTests(SynchronousTestCase):
    def test_it_is_short_at_first_and_grows_to_its_longest(self) -> None:
        for attempts, middle in ((0, FIRST_PAUSE), (1, 0.15), (10, 5.77), (40, LONGEST_PAUSE)):
            pauses = [pause(attempts) for _ in range(200)]
            self.assertGreaterEqual(min(pauses), middle * (1 - SPREAD) * 0.999)
            self.assertLessEqual(max(pauses), middle * (1 + SPREAD) * 1.001)
            self.assertGreater(max(pauses) - min(pauses), middle * SPREAD, "they differ")

    def test_it_lasts_for_ever(self) -> None:
        self.assertLessEqual(pause(10**9), LONGEST_PAUSE * (1 + SPREAD))


class PolicyTests(SynchronousTestCase):
    def test_the_users_own_is_asked(self) -> None:
        self.assertIs(steady(None), pause)
        self.assertEqual(steady(lambda attempts: attempts * 2.5)(4), 10)

    def test_where_it_fails_the_default_takes_its_place(self) -> None:
        def fails(_attempts: int) -> float:
            raise LookupError

        policies: list[Any] = [fails, lambda _: -1, lambda _: float("nan"), lambda _: None]
        for policy in policies:
            self.assertLessEqual(steady(policy)(0), FIRST_PAUSE * (1 + SPREAD))
            self.assertEqual(len(self.flushLoggedErrors()), 1)
