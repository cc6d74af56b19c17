"""The backoff between attempts to connect."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.backoff import (
    INITIAL_BACKOFF,
    JITTER,
    MAX_BACKOFF,
    exponential_backoff,
    retry_policy_from,
)


class BackoffTests(SynchronousTestCase):
    def test_it_is_short_at_first_and_grows_to_its_maximum(self) -> None:
        for attempts, middle in ((0, INITIAL_BACKOFF), (1, 0.15), (10, 5.77), (40, MAX_BACKOFF)):
            waits = [exponential_backoff(attempts) for _ in range(200)]
            self.assertGreaterEqual(min(waits), middle * (1 - JITTER) * 0.999)
            self.assertLessEqual(max(waits), middle * (1 + JITTER) * 1.001)
            self.assertGreater(max(waits) - min(waits), middle * JITTER, "they differ")

    def test_it_lasts_for_ever(self) -> None:
        self.assertLessEqual(exponential_backoff(10**9), MAX_BACKOFF * (1 + JITTER))


class PolicyTests(SynchronousTestCase):
    def test_the_users_own_is_asked(self) -> None:
        self.assertIs(retry_policy_from(None), exponential_backoff)
        self.assertEqual(retry_policy_from(lambda attempts: attempts * 2.5)(4), 10)

    def test_where_it_fails_the_default_takes_its_place(self) -> None:
        def fails(_attempts: int) -> float:
            raise LookupError

        policies: list[Any] = [fails, lambda _: -1, lambda _: float("nan"), lambda _: None]
        for policy in policies:
            self.assertLessEqual(retry_policy_from(policy)(0), INITIAL_BACKOFF * (1 + JITTER))
            self.assertEqual(len(self.flushLoggedErrors()), 1)
