"""Giving memory back behind a deep queue, and the collector's settings."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.server.memory import (
    DEEP,
    GC_THRESHOLDS,
    LOOK_INTERVAL,
    SHALLOW,
    MemoryService,
    give_back,
    tune_collector,
)


class MemoryServiceTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.total = 0
        self.released = 0
        self.service = MemoryService(lambda: self.total, self.clock, self.release)
        self.service.startService()

    def release(self) -> None:
        self.released += 1

    def look_at(self, total: int) -> int:
        """How often memory was given back, once `total` was seen."""
        self.total = total
        self.clock.advance(LOOK_INTERVAL)
        return self.released

    def test_once_behind_a_deep_queue(self) -> None:
        self.assertEqual(self.look_at(DEEP), 0)
        self.assertEqual(self.look_at(DEEP // SHALLOW + 1), 0)
        self.assertEqual(self.look_at(DEEP // SHALLOW), 1)
        self.assertEqual(self.look_at(1), 1)

    def test_once_more_when_the_last_job_is_gone(self) -> None:
        self.look_at(DEEP)
        self.assertEqual(self.look_at(1), 1)
        self.assertEqual(self.look_at(0), 2)
        self.assertEqual(self.look_at(0), 2)
        self.look_at(DEEP)
        self.assertEqual(self.look_at(0), 3)
        self.assertEqual(self.look_at(0), 3)

    def test_again_behind_the_next(self) -> None:
        for _ in range(2):
            self.look_at(DEEP)
            self.look_at(0)
        self.assertEqual(self.released, 2)

    def test_never_behind_a_shallow_one(self) -> None:
        self.look_at(DEEP - 1)
        self.assertEqual(self.look_at(0), 0)

    def test_a_queue_that_grows_again_counts_from_where_it_was(self) -> None:
        self.look_at(8 * DEEP)
        self.assertEqual(self.look_at(DEEP), 1)
        self.assertEqual(self.look_at(DEEP // SHALLOW), 2)

    def test_stopping_leaves_nothing_behind(self) -> None:
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.service.stopService()

    def test_giving_back_for_real(self) -> None:
        give_back()


class CollectorTest(SynchronousTestCase):
    def test_tuned(self) -> None:
        before = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *before)
        self.addCleanup(gc.unfreeze)
        tune_collector()
        self.assertEqual(gc.get_threshold(), GC_THRESHOLDS)
        self.assertGreater(gc.get_freeze_count(), 1000)
