"""Giving memory back after a deep queue, and the collector's settings."""

from __future__ import annotations

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.broker.bench import Bench
from tests.garbage import garbage, resting_collector
from txgearman.server.process.memory import (
    DEEP,
    KEPT_LOOKS,
    LOOK_INTERVAL,
    MEMORY_OF_JOB,
    MOST_GROWTH,
    MOST_KEPT,
    MOST_OTHERS,
    OBJECTS_OF_FUNCTION,
    OBJECTS_OF_JOB,
    PAUSE_SHARE,
    SHALLOW,
    MemoryService,
    give_back,
    handed_out,
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
        self.asked = 0
        self.asking = 0.0
        self.garbage = 0
        self.kept = 0
        self.service = MemoryService(
            lambda: self.total,
            self.clock,
            self.release,
            lambda: self.objects,
            self.collect,
            lambda: self.memory,
            lambda: self.counted,
            lambda: self.clock.seconds() + self.took * self.collected + self.asking * self.asked,
            lambda: self.functions,
            self.used,
        )
        self.service.startService()

    def release(self) -> None:
        self.released += 1
        self.memory -= self.kept
        self.kept = 0

    def used(self) -> int:
        self.asked += 1
        return self.memory - self.kept

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

    def look(self, times: int = 1) -> int:
        """How often memory was given back, after so many more looks."""
        for _ in range(times):
            self.look_at(self.total)
        return self.released

    def come_and_leave(self, size: int) -> None:
        """Peers take so many bytes and leave; the C library keeps those."""
        self.memory += size
        self.look()
        self.kept = size

    def test_what_was_freed_is_given_back_when_it_is_not_needed_again(self) -> None:
        self.look()
        self.come_and_leave(MOST_KEPT)
        self.assertEqual(self.look(2 * KEPT_LOOKS), 0)
        self.kept += 1
        self.memory += 1
        self.assertEqual(self.look(KEPT_LOOKS - 1), 0)
        self.assertEqual(self.look(), 1)
        self.assertEqual(self.memory, BASE)
        self.assertEqual(self.look(2 * KEPT_LOOKS), 1)

    def test_it_is_given_back_also_where_the_collector_had_looked_while_it_was_in_use(self) -> None:
        """Memory is then no more than that look has left, before and after the peers have left."""
        self.look()
        self.memory += 2 * MOST_GROWTH
        self.look()
        self.assertEqual((self.collected, self.released), (1, 1))
        self.kept = 2 * MOST_GROWTH
        self.assertEqual(self.look(KEPT_LOOKS), 2)
        self.assertEqual(self.memory, BASE)

    def test_what_is_needed_again_is_not_given_back(self) -> None:
        self.look()
        self.come_and_leave(2 * MOST_KEPT)
        for _ in range(10):
            self.assertEqual(self.look(KEPT_LOOKS - 1), 0)
            self.kept = 0
            self.assertEqual(self.look(), 0)
            self.kept = 2 * MOST_KEPT

    def test_what_cannot_be_given_back_is_tried_once(self) -> None:
        """Pieces that lie between others, and Python's own memory."""
        self.look()
        self.memory += 2 * MOST_KEPT
        self.used = lambda: BASE  # type: ignore[method-assign]
        self.service._used = self.used
        self.assertEqual(self.look(KEPT_LOOKS), 1)
        self.assertEqual(self.look(10 * KEPT_LOOKS), 1)
        self.memory += MOST_KEPT + 1
        self.assertEqual(self.look(KEPT_LOOKS), 2)

    def test_asking_takes_one_per_cent_of_the_time_at_most(self) -> None:
        self.asking = 0.05
        self.look(100)
        self.assertLessEqual(self.asked * self.asking, 1.05)
        self.assertGreaterEqual(self.asked, 15)

    def test_a_system_that_does_not_tell(self) -> None:
        self.memory = 0
        for _ in range(100):
            self.look_at(0)
        self.assertEqual(self.collected, 0)

    def test_how_much_memory_there_is_for_real(self) -> None:
        before = resident()
        held = bytes(range(256)) * (256 * 1024)
        self.assertGreaterEqual(resident() - before, len(held) // 2)

    def test_how_much_is_handed_out_for_real(self) -> None:
        if not handed_out():
            raise SkipTest("The C library does not tell")
        before = handed_out()
        held = [bytes(20_000) for _ in range(1000)]
        self.assertGreaterEqual(handed_out() - before, 20_000_000)
        del held
        self.assertLess(handed_out() - before, 1_000_000)

    def test_asking_for_real_leaves_no_garbage(self) -> None:
        handed_out()
        give_back()
        with resting_collector():
            handed_out()
            give_back()
            self.assertEqual(garbage(), [])

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
