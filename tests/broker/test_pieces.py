"""The broker's data structures by themselves: deadlines, a function's queues, uniques."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, uniques_of
from txgearman.broker import deadlines, entities
from txgearman.broker.deadlines import Deadline, Deadlines
from txgearman.broker.entities import Function, Job
from txgearman.broker.handles import CHUNK_BITS, Handles
from txgearman.broker.job_states import JobState
from txgearman.broker.policy import Policy, levels_of
from txgearman.broker.uniques import Uniques

LEVELS = levels_of(Policy())
SIZE = 1 << CHUNK_BITS


def job(name: bytes = b"H:t:1", of: Function | None = None, priority: int = 1) -> Job:
    return Job(name, of or Function(b"f", LEVELS), b"", b"", priority, True, 0.0)


class DeadlinesTests(SynchronousTestCase):
    def test_soonest_first_and_ties_in_order(self) -> None:
        due = Deadlines()
        jobs = [job(b"%d" % number) for number in range(6)]
        for when, each in zip((3.0, 1.0, 2.0, 1.0, 3.0, 2.0), jobs, strict=True):
            due.add(when, each)
        self.assertEqual(len(due), 6)
        popped = [due.pop_due(3.0) for _ in range(7)]
        self.assertEqual(popped, [jobs[1], jobs[3], jobs[2], jobs[5], jobs[0], jobs[4], None])

    def test_due_at_its_time_and_not_before(self) -> None:
        due = Deadlines()
        each = job()
        due.add(5.0, each)
        self.assertEqual(due.next(), 5.0)
        self.assertIsNone(due.pop_due(4.999))
        self.assertIs(due.pop_due(5.0), each)
        self.assertIsNone(due.next())
        self.assertIsNone(due.pop_due(1e9))

    def test_cancelled_ones_do_not_come_up(self) -> None:
        due = Deadlines()
        first, second = job(), job()
        cancelled = due.add(1.0, first)
        due.add(2.0, second)
        due.cancel(cancelled)
        self.assertEqual(len(due), 1)
        self.assertEqual(due.next(), 2.0)
        self.assertIsNone(due.pop_due(1.5))
        self.assertIs(due.pop_due(2.0), second)
        self.assertEqual(len(due), 0)

    def test_a_cancelled_one_keeps_no_job(self) -> None:
        due = Deadlines()
        due.add(1.0, job())
        entry = due.add(2.0, job())
        due.cancel(entry)
        self.assertIsNone(entry.job)

    def test_cancelled_entries_do_not_pile_up(self) -> None:
        due = Deadlines()
        stay = job()
        due.add(1e6, stay)
        for number in range(10_000):
            due.cancel(due.add(1e5 + number, job()))
            self.assertLessEqual(len(due._heap), deadlines._SLACK + 2)
            self.assertEqual(len(due), 1)
        self.assertIs(due.pop_due(1e7), stay)

    def test_order_survives_the_clean_up(self) -> None:
        due = Deadlines()
        entries: list[tuple[Deadline[Job], Job]] = []
        for number in range(500):
            each = job(b"%d" % number)
            entries.append((due.add(float(number * 37 % 501), each), each))
        stay = entries[::5]
        for index, (entry, _) in enumerate(entries):
            if index % 5:
                due.cancel(entry)
        self.assertLess(len(due._heap), 250)
        expected = [each for _, each in sorted(stay, key=lambda pair: pair[0].when)]
        self.assertEqual([due.pop_due(1000.0) for _ in stay], expected)
        self.assertEqual((len(due), due._cancelled), (0, 0))


class FunctionTests(SynchronousTestCase):
    def filled(self, count: int) -> tuple[Function, list[Job]]:
        queue = Function(b"f", LEVELS)
        jobs = [job(b"%d" % number, queue) for number in range(count)]
        for each in jobs:
            queue.push(each)
        return queue, jobs

    def drop(self, queue: Function, each: Job) -> None:
        each.state = JobState.GONE
        queue.dropped(each)

    def popped(self, queue: Function) -> list[Job]:
        jobs = []
        while (each := queue.pop(1)) is not None:
            jobs.append(each)
        return jobs

    def test_gone_jobs_are_skipped(self) -> None:
        queue, jobs = self.filled(5)
        for index in (0, 2, 4):
            self.drop(queue, jobs[index])
        self.assertEqual(queue.waiting, [0, 2, 0])
        self.assertTrue(queue.has_job(1))
        self.assertEqual(self.popped(queue), [jobs[1], jobs[3]])
        self.assertFalse(queue.has_job(1))
        self.assertEqual((queue.waiting, queue._gone), ([0, 0, 0], [0, 0, 0]))

    def test_has_job_sees_behind_gone_ones_only_its_level(self) -> None:
        queue, jobs = self.filled(3)
        for each in jobs:
            self.drop(queue, each)
        self.assertFalse(queue.has_job(1))
        self.assertEqual(queue._gone, [0, 0, 0])
        queue.push(job(of=queue, priority=0))
        self.assertTrue(queue.has_job(0))
        self.assertFalse(queue.has_job(1))

    def test_gone_jobs_do_not_pile_up(self) -> None:
        queue, jobs = self.filled(1000)
        for each in jobs[1:]:
            self.drop(queue, each)
            gone = len(queue._queues[1]) - queue.waiting[1]
            self.assertEqual(gone, queue._gone[1])
            self.assertLessEqual(gone, max(entities._SLACK, queue.waiting[1]))
        self.assertEqual(self.popped(queue), [jobs[0]])

    def test_order_survives_the_clean_up(self) -> None:
        queue, jobs = self.filled(400)
        for index, each in enumerate(jobs):
            if index % 4:
                self.drop(queue, each)
        self.assertLess(len(queue._queues[1]), 210)
        self.assertEqual(self.popped(queue), jobs[::4])
        self.assertEqual(queue._gone, [0, 0, 0])

    def test_counts_after_a_mix_of_both(self) -> None:
        queue, jobs = self.filled(300)
        for each in jobs[:150]:
            self.drop(queue, each)
        self.assertIs(queue.pop(1), jobs[150])
        for each in jobs[151:299]:
            self.drop(queue, each)
        self.assertEqual(queue.waiting, [0, 1, 0])
        self.assertEqual(len(queue._queues[1]) - 1, queue._gone[1])
        self.assertEqual(self.popped(queue), [jobs[299]])

    def test_a_gone_job_in_a_queue_keeps_no_data(self) -> None:
        # Up to 64 gone jobs stay in each queue for good where no worker comes; with 64 MiB each.
        bench = Bench()
        data = b"workload of " + str(id(bench)).encode()
        before = sys.getrefcount(data)
        for _ in range(entities._SLACK):
            client = bench.client()
            bench.submit(client, b"f", b"", data)
            bench.broker.leave_client(client)
        self.assertEqual(bench.broker.total, 0)
        self.assertEqual(sys.getrefcount(data), before)


class UniquesTests(SynchronousTestCase):
    def test_one_function(self) -> None:
        uniques = Uniques()
        each = job()
        self.assertIsNone(uniques.find(b"u", each.function))
        self.assertIsNone(uniques.newest(b"u"))
        uniques.add(b"u", each)
        self.assertIs(uniques.find(b"u", each.function), each)
        self.assertIs(uniques.newest(b"u"), each)
        self.assertIsNone(uniques.find(b"u", Function(b"g", LEVELS)))
        self.assertIsNone(uniques.find(b"v", each.function))
        uniques.remove(b"u", each)
        self.assertEqual(uniques_of(uniques), {})

    def test_several_functions(self) -> None:
        uniques = Uniques()
        functions = [Function(b"%d" % number, LEVELS) for number in range(4)]
        jobs = [job(of=each) for each in functions]
        for each in jobs:
            uniques.add(b"u", each)
            self.assertIs(uniques.newest(b"u"), each)
        for each in jobs:
            self.assertIs(uniques.find(b"u", each.function), each)
        uniques.remove(b"u", jobs[3])
        self.assertIs(uniques.newest(b"u"), jobs[2])
        self.assertIsNone(uniques.find(b"u", functions[3]))
        uniques.remove(b"u", jobs[0])
        uniques.remove(b"u", jobs[2])
        self.assertIs(uniques.newest(b"u"), jobs[1])
        self.assertIs(uniques.find(b"u", functions[1]), jobs[1])
        again = job(of=functions[0])
        uniques.add(b"u", again)
        self.assertIs(uniques.newest(b"u"), again)
        uniques.remove(b"u", jobs[1])
        uniques.remove(b"u", again)
        self.assertEqual(uniques_of(uniques), {})

    def test_a_key_of_one_function_costs_one_entry(self) -> None:
        uniques = Uniques()
        first, second = job(of=Function(b"f", LEVELS)), job(of=Function(b"g", LEVELS))
        uniques.add(b"u", first)
        uniques.add(b"u", second)
        uniques.remove(b"u", second)
        self.assertIs(uniques_of(uniques)[b"u"], first)


class HandlesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.handles = Handles(b"H:%d")

    def take(self) -> bytes:
        handle = self.handles.next()
        self.handles.newest[handle] = job(handle)
        return handle

    def test_handles_count_from_1(self) -> None:
        self.assertEqual([self.take() for _ in range(3)], [b"H:%d:1", b"H:%d:2", b"H:%d:3"])

    def test_what_is_no_handle_names_no_job(self) -> None:
        self.take()
        for name in (
            b"",
            b"1",
            b"H:%d:",
            b"H:%d:01",
            b"H:%d:2",
            b"H:%d:1 ",
            b"H:%d:x",
            b"H:%d:" + b"1" * 5000,
        ):
            self.assertIsNone(self.handles.get(name), name)

    def test_a_handle_from_before_whose_prefix_begins_with_this_one(self) -> None:
        handle = b"H:%d:b:5"
        self.handles.put(handle, job(handle))
        found = self.handles.get(handle)
        assert found is not None
        self.assertEqual(found.handle, handle)
        self.handles.remove(handle)
        self.assertIsNone(self.handles.get(handle))

    def test_over_several_chunks(self) -> None:
        handles = [self.take() for _ in range(3 * SIZE + 5)]
        self.assertEqual([name for name, _job in self.handles], handles)
        for handle in handles:
            found = self.handles.get(handle)
            assert found is not None
            self.assertEqual(found.handle, handle)
        self.handles.remove(handles[SIZE])
        self.assertIsNone(self.handles.get(handles[SIZE]))

    def test_a_chunk_goes_with_its_last_job(self) -> None:
        handles = [self.take() for _ in range(4 * SIZE)]
        for handle in handles[1:]:
            self.handles.remove(handle)
        # That of the first job, and the newest, to which the next will belong.
        self.assertEqual(len(self.handles._chunks), 2)
        self.handles.remove(handles[0])
        self.assertEqual(len(self.handles._chunks), 1)
        self.assertEqual(dict(self.handles), {})

    def test_a_newest_chunk_that_is_empty_goes_with_the_next(self) -> None:
        for _ in range(5 * SIZE):
            self.handles.remove(self.take())
        self.assertEqual(len(self.handles._chunks), 1)


class MemoryTests(SynchronousTestCase):
    def test_a_drained_broker_gives_its_tables_back(self) -> None:
        bench = Bench()
        # One that stays must not keep the tables either.
        bench.queue(b"f", b"later", run_at=1e9)
        count = 20_000
        for number in range(count):
            bench.queue(b"f", b"%d" % number)
            bench.queue(b"f", b"-", b"%d" % number)
        self.assertGreater(self.size(bench), 2_500_000)
        self.assertGreaterEqual(len(bench.handles(bench.worker("w", b"f"))), 2 * count)
        self.assertLess(self.size(bench), 400_000)

    def size(self, bench: Bench) -> int:
        broker = bench.broker
        tables = [
            *broker.life.handles._chunks.values(),
            *broker.life.duplicates.by_unique._shards,
            *broker.life.duplicates.by_data._shards,
        ]
        return sum(map(sys.getsizeof, tables))
