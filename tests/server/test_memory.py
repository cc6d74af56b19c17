"""Giving memory back behind a deep queue, and the collector's settings."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench
from txgearman.server.memory import (
    DEEP,
    LOOK_INTERVAL,
    MEMORY_OF_JOB,
    MOST_GROWTH,
    MOST_OTHERS,
    OBJECTS_OF_FUNCTION,
    OBJECTS_OF_JOB,
    PAUSE_SHARE,
    SHALLOW,
    MemoryService,
    give_back,
    made_since,
    resident,
    tune_collector,
)

BASE = 50 * 1024 * 1024


class MemoryServiceTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.total = 0
        self.released = 0
        self.objects = 0
        self.functions = 0
        self.collected = 0
        self.memory = BASE
        self.counted = 0
        self.took = 0.0
        self.garbage = 0
        self.service = MemoryService(
            lambda: self.total,
            self.clock,
            self.release,
            lambda: self.objects,
            self.collect,
            lambda: self.memory,
            lambda: self.counted,
            lambda: self.clock.seconds() + self.took * self.collected,
            lambda: self.functions,
        )
        self.service.startService()

    def release(self) -> None:
        self.released += 1

    def collect(self) -> None:
        self.collected += 1
        self.objects = 0
        self.memory -= self.garbage
        self.garbage = 0

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

    def test_the_collector_looks_when_there_are_more_objects_than_jobs_explain(self) -> None:
        for jobs in (0, 1000):
            self.collected = 0
            self.objects = MOST_OTHERS + OBJECTS_OF_JOB * jobs
            self.look_at(jobs)
            self.assertEqual(self.collected, 0)
            self.objects += 1
            self.look_at(jobs)
            self.look_at(jobs)
            self.assertEqual(self.collected, 1)

    def test_functions_explain_objects_too(self) -> None:
        self.functions = 50_000
        self.objects = MOST_OTHERS + OBJECTS_OF_FUNCTION * self.functions
        self.look_at(0)
        self.assertEqual(self.collected, 0)
        self.objects += 1
        self.look_at(0)
        self.assertEqual(self.collected, 1)

    def test_the_collector_looks_ahead_of_giving_back_where_few_jobs_are_left(self) -> None:
        self.look_at(16 * DEEP)
        self.look_at(2 * DEEP)
        self.assertEqual((self.released, self.collected), (1, 0))
        self.look_at(0)
        self.assertEqual((self.released, self.collected), (2, 1))

    def grow(self, size: int, garbage: bool = False) -> int:
        """How often the collector has looked, once memory has grown by so many bytes."""
        self.memory += size
        if garbage:
            self.garbage += size
        self.look_at(self.total)
        return self.collected

    def test_the_collector_looks_when_memory_grows_by_more_than_is_explained(self) -> None:
        self.look_at(0)
        self.assertEqual(self.grow(MOST_GROWTH), 0)
        self.assertEqual(self.grow(1), 1)
        self.assertEqual(self.released, 1)
        self.assertEqual(self.grow(MOST_GROWTH), 1, "it counts from what was left")
        self.assertEqual(self.grow(1), 2)

    def test_garbage_of_any_number_of_rounds_costs_no_more_than_one(self) -> None:
        self.look_at(0)
        for _ in range(100):
            self.grow(MOST_GROWTH // 3, garbage=True)
            self.assertLessEqual(self.memory, BASE + 2 * MOST_GROWTH)
        self.assertGreater(self.collected, 20)

    def test_jobs_and_what_is_counted_explain_memory(self) -> None:
        self.look_at(0)
        self.total = 10 * DEEP
        self.assertEqual(self.grow(10 * DEEP * MEMORY_OF_JOB), 0)
        self.counted = 1000 * MOST_GROWTH
        self.assertEqual(self.grow(self.counted), 0)
        # When they have gone, and their memory not, it is not explained any more.
        self.counted = 0
        self.assertEqual(self.grow(0), 1)

    def test_looks_become_rarer_while_memory_grows(self) -> None:
        self.look_at(0)
        for _ in range(1000):
            self.grow(MOST_GROWTH)
        # Each look is at half as much memory again as the one before.
        self.assertLess(self.collected, 20)

    def test_looks_take_one_per_cent_of_the_time_at_most(self) -> None:
        self.took = 3.0
        self.look_at(0)
        self.assertEqual(self.grow(2 * MOST_GROWTH), 1)
        seconds = 0
        while self.grow(MOST_GROWTH) == 1:
            seconds += 1
        self.assertGreaterEqual(seconds, 3.0 * (PAUSE_SHARE - 1) - 1)

    def test_a_system_that_does_not_tell(self) -> None:
        self.memory = 0
        for _ in range(100):
            self.look_at(0)
        self.assertEqual(self.collected, 0)

    def test_how_much_memory_there_is_for_real(self) -> None:
        before = resident()
        held = bytes(range(256)) * (256 * 1024)
        self.assertGreaterEqual(resident() - before, len(held) // 2)

    def test_stopping_leaves_nothing_behind(self) -> None:
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.service.stopService()

    def test_giving_back_for_real(self) -> None:
        give_back()


class CollectorTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)
        tune_collector()

    def test_tuned(self) -> None:
        self.assertFalse(gc.isenabled())
        self.assertGreater(gc.get_freeze_count(), 1000)

    def test_objects_are_counted_while_the_collector_rests(self) -> None:
        before = made_since()
        kept: list[list[int]] = [[] for _ in range(20_000)]
        self.assertGreaterEqual(made_since() - before, len(kept))
        del kept
        self.assertLess(made_since() - before, 1000)

    def test_a_queued_job_has_no_more_objects_than_are_allowed_for(self) -> None:
        for background in (True, False):
            bench = Bench()
            client = bench.client()
            before = made_since()
            for number in range(10_000):
                bench.submit(client, b"f", b"%d" % number, background=background)
            made = made_since() - before
            self.assertEqual(bench.inspection.in_memory, 10_000)
            self.assertLess(made, OBJECTS_OF_JOB * 10_000)

    def test_objects_of_a_function(self) -> None:
        bench = Bench()
        gc.disable()
        self.addCleanup(gc.enable)
        before = made_since()
        names = [b"f%d" % number for number in range(2_000)]
        bench.worker("w", *names)
        self.assertEqual(bench.inspection.function_count, 2_000)
        self.assertLess(made_since() - before, OBJECTS_OF_FUNCTION * 2_000)
