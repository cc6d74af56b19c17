"""Ticks that have no job: written together, after an outage too, and not by a server that is killed."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.stores import UNAVAILABLE, ListStore, Thread
from txgearman.server.persistence import schedules
from txgearman.server.persistence.schedules import RETRY_INTERVAL, SKIP_DELAY, StoredSchedules


class SkippedTickTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.thread, self.store = Clock(), Thread(), ListStore()
        self.store.open("here", 10.0)
        self.stored = StoredSchedules(self.store.schedules, self.clock, self.thread, lambda: 1.8e9, False)
        self.stored.begin()

    def without_job(self, *ticks: float) -> None:
        for tick in ticks:
            self.stored.tick_without_job(b"s", tick)

    def written(self) -> list[float]:
        """The ticks of all calls, each of which is one."""
        calls, self.thread.calls = self.thread.calls, []
        found: list[Any] = []
        for done, function, arguments in calls:
            self.assertEqual(function, self.store.schedules.skip_ticks)
            self.thread.calls = [(done, function, arguments)]
            self.thread.run()
            found.append([each.tick for each in arguments[0]])
        self.assertLess(len(found), 2)
        return found[0] if found else []

    def test_they_share_a_transaction(self) -> None:
        self.without_job(1, 2, 3)
        self.assertEqual(self.written(), [])
        self.without_job(4)
        self.clock.advance(SKIP_DELAY)
        self.assertEqual(self.written(), [1, 2, 3, 4])
        self.assertEqual(self.store.schedule_table.ticks, {(b"s", tick): None for tick in (1, 2, 3, 4)})
        self.without_job(5)
        self.clock.advance(SKIP_DELAY)
        self.assertEqual(self.written(), [5])

    def test_an_outage_loses_none(self) -> None:
        self.store.failing = UNAVAILABLE
        self.without_job(1, 2)
        self.clock.advance(SKIP_DELAY)
        self.without_job(3)
        self.assertEqual(self.written(), [1, 2])
        self.store.failing = None
        self.clock.advance(RETRY_INTERVAL)
        self.assertEqual(self.written(), [1, 2, 3])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_long_outage_fills_no_memory(self) -> None:
        self.patch(schedules, "MAX_SKIPPED", 3)
        self.store.failing = UNAVAILABLE
        self.without_job(*range(5))
        self.clock.advance(SKIP_DELAY)
        self.assertEqual(self.written(), [0, 1, 2, 3, 4])
        self.without_job(*range(5, 8))
        self.clock.advance(RETRY_INTERVAL)
        self.assertEqual(len(self.written()), 6)
        self.store.failing = None
        self.clock.advance(RETRY_INTERVAL)
        self.assertEqual(self.written(), [5, 6, 7])

    def test_a_stop_writes_them(self) -> None:
        self.without_job(1)
        self.stored.close()
        self.assertEqual(self.written(), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_abandoned_is_not_written(self) -> None:
        self.without_job(1)
        self.stored.stop()
        self.clock.advance(SKIP_DELAY)
        self.assertEqual(self.thread.calls, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
