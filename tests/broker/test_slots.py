"""Slots of limits that several servers have together: when the broker wants one, and when it gives one up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import POLICY, Bench
from txgearman.broker.policy import FunctionRules, RunRules


class Source:
    """A `SlotSource` that writes down its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, bytes]] = []

    def want(self, function: bytes, key: bytes) -> None:
        self.calls.append(("want", function, key))

    def unwant(self, function: bytes, key: bytes) -> None:
        self.calls.append(("unwant", function, key))

    def release(self, function: bytes, key: bytes) -> None:
        self.calls.append(("release", function, key))

    def take(self) -> list[tuple[str, bytes, bytes]]:
        calls, self.calls = self.calls, []
        return calls


WANT, UNWANT, RELEASE = ("want", b"f", b""), ("unwant", b"f", b""), ("release", b"f", b"")


class SlotsCase(SynchronousTestCase):
    rules: dict[str, Any] = {}

    def setUp(self) -> None:
        self.source = Source()
        policy = replace(POLICY, functions=((b"f", FunctionRules(**self.rules)),))
        self.bench = Bench(policy, slot_source=self.source)
        self.broker, self.answers = self.bench.broker, self.bench.answers
        self.worker = self.bench.worker("w", b"f")

    def gain(self, key: bytes = b"") -> None:
        self.answers.slot_gained(b"f", key)


class SlotsOfFunctions(SlotsCase):
    rules = {"max_running": 2}

    def test_nothing_is_wanted_where_nothing_waits(self) -> None:
        self.assertIsNone(self.broker.grab(self.worker))
        self.assertEqual(self.source.take(), [])

    def test_a_job_runs_once_there_is_a_slot(self) -> None:
        self.broker.grab(self.worker)
        self.broker.sleep(self.worker)
        self.bench.queue(b"f")
        self.bench.queue(b"f")
        self.assertEqual(self.source.take(), [WANT])
        self.assertEqual(self.bench.take_woken(), [])
        self.assertIsNone(self.broker.grab(self.worker))
        self.broker.sleep(self.worker)
        self.gain()
        self.assertEqual(self.bench.take_woken(), ["w"])
        job = self.bench.grab(self.worker)
        self.assertEqual(self.source.take(), [WANT], "for the second job")
        self.assertIsNone(self.broker.grab(self.worker))
        self.broker.complete(self.worker, job.handle, b"")
        self.assertEqual(self.source.take(), [UNWANT], "that can have the slot of the first")
        self.gain()
        self.assertEqual(self.source.take(), [RELEASE])
        job = self.bench.grab(self.worker)
        self.broker.complete(self.worker, job.handle, b"")
        self.assertEqual(self.source.take(), [RELEASE])

    def test_no_more_than_the_limit_are_wanted(self) -> None:
        for _ in range(4):
            self.bench.queue(b"f")
        for _ in range(2):
            self.assertEqual(self.source.take(), [WANT])
            self.gain()
            self.bench.grab(self.worker)
        self.assertEqual(self.source.take(), [])
        self.bench.administration.limit_runs(b"f", RunRules(max_running=1))
        self.broker.complete(self.worker, next(iter(self.worker.jobs)), b"")
        self.assertEqual(self.source.take(), [RELEASE], "a lowered limit gives the slot back")
        self.assertIsNone(self.broker.grab(self.worker))

    def test_another_server_wants_one(self) -> None:
        for _ in range(2):
            self.bench.queue(b"f")
        self.gain()
        self.source.take()
        job = self.bench.grab(self.worker)
        self.source.take()
        self.answers.slot_wanted(b"f", b"")
        self.assertEqual(self.source.take(), [], "none is free")
        self.broker.complete(self.worker, job.handle, b"")
        self.assertEqual(self.source.take(), [RELEASE], "it was wanted here all the time")
        self.assertIsNone(self.broker.grab(self.worker))
        self.gain()
        self.answers.slot_wanted(b"f", b"")
        self.assertEqual(self.source.take(), [RELEASE, WANT], "a free one goes at once")

    def test_a_wish_that_there_is_no_slot_for_is_forgotten(self) -> None:
        self.bench.queue(b"f")
        self.answers.slot_wanted(b"f", b"")
        self.gain()
        self.source.take()
        self.assertIsNotNone(self.broker.grab(self.worker))

    def test_the_lease_is_lost(self) -> None:
        for _ in range(3):
            self.bench.queue(b"f")
        self.gain()
        job = self.bench.grab(self.worker)
        self.source.take()
        self.answers.slots_lost()
        self.assertEqual(self.source.take(), [WANT])
        self.gain()
        self.assertIsNone(self.broker.grab(self.worker), "the one that runs still counts")
        self.broker.complete(self.worker, job.handle, b"")
        self.assertIsNotNone(self.broker.grab(self.worker))

    def test_a_paused_function_wants_none(self) -> None:
        self.bench.queue(b"f")
        self.gain()
        self.source.take()
        self.bench.administration.pause_function(b"f")
        self.assertEqual(self.source.take(), [RELEASE])
        self.bench.queue(b"f")
        self.assertEqual(self.source.take(), [])
        self.bench.administration.resume_function(b"f")
        self.assertEqual(self.source.take(), [WANT])

    def test_without_a_worker_none_is_wanted(self) -> None:
        self.broker.cant_do(self.worker, b"f")
        self.bench.queue(b"f")
        self.assertEqual(self.source.take(), [])
        other = self.bench.worker("other", b"f")
        self.assertEqual(self.source.take(), [WANT])
        self.broker.can_do(self.worker, b"f")
        self.gain()
        self.source.take()
        self.broker.leave_worker(other)
        self.assertEqual(self.source.take(), [])
        self.broker.cant_do(self.worker, b"f")
        self.assertEqual(self.source.take(), [RELEASE])

    def test_without_a_limit_the_slots_go_back(self) -> None:
        for _ in range(2):
            self.bench.queue(b"f")
        self.gain()
        self.bench.grab(self.worker)
        self.source.take()
        self.bench.administration.limit_runs(b"f", RunRules())
        self.assertEqual(self.source.take(), [RELEASE, UNWANT])
        self.gain()
        self.answers.slot_gained(b"g", b"")
        self.answers.slot_wanted(b"f", b"")
        self.assertEqual(self.source.take(), [RELEASE, ("release", b"g", b"")])
        self.assertIsNotNone(self.broker.grab(self.worker))


class SlotsOfKeys(SlotsCase):
    rules = {"max_running_per_key": 1}

    def test_each_key_has_its_own(self) -> None:
        for unique in (b"a:1", b"a:2", b"b:1", b""):
            self.bench.queue(b"f", unique)
        self.assertEqual(self.source.take(), [("want", b"f", b"a"), ("want", b"f", b"b")])
        self.assertEqual(self.bench.grab(self.worker).unique, b"")
        self.gain(b"b")
        job = self.bench.grab(self.worker)
        self.assertEqual(job.unique, b"b:1")
        self.broker.complete(self.worker, job.handle, b"")
        self.assertEqual(self.source.take(), [("release", b"f", b"b")])
        self.gain(b"a")
        job = self.bench.grab(self.worker)
        self.broker.complete(self.worker, job.handle, b"")
        self.assertEqual(self.source.take(), [], "the next job has it")
        self.assertEqual(self.bench.grab(self.worker).unique, b"a:2")

    def test_a_key_that_is_forgotten(self) -> None:
        handle = self.bench.queue(b"f", b"a:1")
        self.broker.cancel(handle)
        self.gain(b"a")
        self.answers.slot_wanted(b"f", b"a")
        calls = [("want", b"f", b"a"), ("unwant", b"f", b"a"), ("release", b"f", b"a")]
        self.assertEqual(self.source.take(), calls)

    def test_slots_are_lost_and_wanted(self) -> None:
        self.bench.queue(b"f", b"a:1")
        self.bench.queue(b"f", b"a:2")
        self.gain(b"a")
        self.source.take()
        self.answers.slot_wanted(b"f", b"a")
        self.assertEqual(self.source.take(), [("release", b"f", b"a"), ("want", b"f", b"a")])
        self.answers.slots_lost()
        self.assertEqual(self.source.take(), [("want", b"f", b"a")])
        self.assertIsNone(self.broker.grab(self.worker))

    def test_a_paused_function_wants_none(self) -> None:
        self.bench.queue(b"f", b"a:1")
        self.bench.queue(b"f", b"b:1")
        self.gain(b"a")
        self.source.take()
        self.bench.administration.pause_function(b"f")
        self.assertEqual(self.source.take(), [("release", b"f", b"a"), ("unwant", b"f", b"b")])
        self.bench.administration.resume_function(b"f")
        self.assertEqual(self.source.take(), [("want", b"f", b"a"), ("want", b"f", b"b")])
        self.bench.administration.drain()
        self.assertEqual(self.source.take(), [("unwant", b"f", b"a"), ("unwant", b"f", b"b")])

    def test_without_a_worker_none_is_wanted(self) -> None:
        self.bench.queue(b"f", b"a:1")
        self.bench.queue(b"f", b"b:1")
        self.gain(b"a")
        self.source.take()
        self.broker.leave_worker(self.worker)
        self.assertEqual(self.source.take(), [("release", b"f", b"a"), ("unwant", b"f", b"b")])
        self.bench.administration.pause_function(b"f")
        self.worker = self.bench.worker("other", b"f")
        self.assertEqual(self.source.take(), [])
        self.bench.administration.resume_function(b"f")
        self.assertEqual(self.source.take(), [("want", b"f", b"a"), ("want", b"f", b"b")])

    def test_a_limit_that_begins_without_a_worker(self) -> None:
        self.bench.administration.limit_runs(b"g", RunRules(max_running=1, max_running_per_key=1))
        self.bench.queue(b"g", b"a:1")
        self.assertEqual(self.source.take(), [])
        self.bench.worker("other", b"g")
        self.assertEqual(self.source.take(), [("want", b"g", b"a")])
        self.answers.slot_gained(b"g", b"a")
        self.assertEqual(self.source.take(), [("want", b"g", b"")], "once a job may run by its key")

    def test_the_limit_goes(self) -> None:
        self.bench.queue(b"f", b"a:1")
        self.gain(b"a")
        self.source.take()
        self.bench.administration.limit_runs(b"f", RunRules())
        self.assertEqual(self.source.take(), [("release", b"f", b"a")])
        self.assertIsNotNone(self.broker.grab(self.worker))
