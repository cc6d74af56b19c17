"""Deaths that wait for the store: their order, and the bytes of their errors."""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.store.jobs import death, job
from txgearman.broker.dead_job import MAX_ERROR
from txgearman.server.persistence import deaths
from txgearman.server.persistence.deaths import FORGOTTEN_ERROR, MAX_ERRORS, PendingDeath, PendingDeaths

ERROR = bytes(MAX_ERROR)
FITTING = MAX_ERRORS // MAX_ERROR
"""Deaths with the longest errors that may wait."""


class PendingDeathsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.deaths = PendingDeaths()

    def add(self, *numbers: int, error: bytes = ERROR) -> None:
        for number in numbers:
            self.deaths.add(PendingDeath(death(job(number), error=error), float(number)))

    def errors(self) -> list[bytes]:
        """Of all that wait, in their order."""
        self.deaths.not_written()
        taken = self.deaths.take(1_000_000)
        self.deaths.not_written()
        return [each.job.error for each in taken.values()]

    def test_the_limit_and_one_past_it(self) -> None:
        self.add(*range(FITTING))
        self.add(FITTING, error=b"")
        self.assertEqual(self.errors(), [ERROR] * FITTING + [b""])
        with capturedLogs() as events:
            self.add(FITTING + 1, error=b"x")
            self.add(FITTING + 2, error=ERROR)
        self.assertEqual(len(events), 1)
        errors = self.errors()
        self.assertEqual(errors[:2], [FORGOTTEN_ERROR] * 2)
        self.assertEqual(errors[2:], [ERROR] * (FITTING - 2) + [b"", b"x", ERROR])
        self.assertIs(errors[0], errors[1], "it costs nothing")

    def test_those_of_a_transaction_that_fails_are_the_oldest(self) -> None:
        self.add(*range(FITTING))
        taken = self.deaths.take(10)
        self.assertEqual(([*taken], len(self.deaths)), ([*range(10)], FITTING - 10))
        self.assertTrue(all(number in self.deaths for number in range(FITTING)))
        self.add(*range(FITTING, FITTING + 3))
        with capturedLogs():
            self.deaths.not_written()
        self.assertEqual(self.errors(), [FORGOTTEN_ERROR] * 3 + [ERROR] * FITTING)

    def test_what_was_written_counts_no_more(self) -> None:
        with capturedLogs() as events:
            for first in (0, FITTING, 2 * FITTING):
                self.add(*range(first, first + FITTING))
                self.deaths.take(FITTING // 2)
                self.assertEqual(len(self.deaths.written()), FITTING // 2)
                self.deaths.take(FITTING)
                self.assertEqual(len(self.deaths.written()), FITTING // 2)
                self.assertFalse(len(self.deaths) or self.deaths.in_flight)
            self.add(*range(FITTING))
            self.deaths.clear()
            self.add(*range(FITTING))
        self.assertEqual(events, [])

    def test_one_that_comes_again_counts_once(self) -> None:
        self.patch(deaths, "MAX_ERRORS", 2 * len(ERROR))
        self.add(1, 1, 2, 2)
        self.assertEqual(self.errors(), [ERROR] * 2)
        self.deaths.take(1)
        self.add(1)
        self.assertEqual(self.errors(), [ERROR] * 2)
