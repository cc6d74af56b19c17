"""Workers with very many functions: what their packets cost, by counting steps, and that all else is as ever.

The packets of a worker that may have to do with all of its functions: CAN_DO, CAN_DO_TIMEOUT, CANT_DO,
RESET_ABILITIES, GRAB_JOB and its like, PRE_SLEEP, and the end of its connection. Of those of others: a
submit, which wakes it, and an administrator's quieting. A step is that a function is hashed, which is what
all containers of functions do, or is asked for a job.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ClassVar
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import POLICY, Bench, leftovers
from txgearman.broker import broker
from txgearman.broker.entities import _SLACK, AbilitySet, Function, RunningByFunction, Worker
from txgearman.broker.policy import FunctionOrder, Policy, levels_of
from txgearman.broker.waking import FREE_WALK

SMALL, LARGE = 1_000, 10_000

MOST_STEPS = 60
"""Steps that a packet may cost over time. There are three levels, and sets and heaps on both sides."""


class Counted(Function):
    """A function that counts the steps that are made with it."""

    steps: ClassVar[int] = 0
    limit: ClassVar[int] = 0

    def __hash__(self) -> int:
        Counted.steps += 1
        assert Counted.steps < Counted.limit, "too many steps"
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def has_job(self, level: int) -> bool:
        Counted.steps += 1
        return super().has_job(level)


def names(count: int, begin: bytes = b"f") -> list[bytes]:
    return [b"%b%d" % (begin, number) for number in range(count)]


def skip_if_compiled() -> None:
    if not broker.__file__.endswith(".py"):
        raise SkipTest("what is compiled cannot be counted")


class StepTests(SynchronousTestCase):
    """Each test makes its packets for few functions and for ten times as many."""

    def setUp(self) -> None:
        skip_if_compiled()
        self.patch(broker, "Function", Counted)

    def check(self, attack: Callable[[Bench, int], int]) -> None:
        """`attack` returns how many packets it has sent for so many functions."""
        for functions in (SMALL, LARGE):
            bench = Bench()
            Counted.steps, Counted.limit = 0, MOST_STEPS * 5 * functions
            packets = attack(bench, functions)
            bench.advance(10)
            self.assertLess(Counted.steps / packets, MOST_STEPS, functions)

    def test_registering_and_grabbing_in_turn(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            worker = bench.worker()
            for name in names(functions):
                bench.broker.can_do(worker, name)
                self.assertIsNone(bench.broker.grab(worker))
            return 2 * functions

        self.check(attack)

    def test_changing_and_grabbing_in_turn(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            worker = bench.worker("w", *names(functions))
            for number in range(functions):
                name = b"f%d" % (number * 7 % functions)
                bench.broker.cant_do(worker, name)
                bench.broker.grab(worker)
                bench.broker.can_do(worker, name, 5.0)
                bench.broker.sleep(worker)
            return 5 * functions

        self.check(attack)

    def test_unregistering_all_one_by_one(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            worker = bench.sleeper("w", *names(functions))
            for name in names(functions):
                bench.broker.cant_do(worker, name)
                bench.broker.grab(worker)
            return 3 * functions

        self.check(attack)

    def test_resetting_and_leaving(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            worker = bench.sleeper("w", *names(functions))
            bench.broker.reset_abilities(worker)
            for name in names(functions):
                bench.broker.can_do(worker, name)
            bench.broker.leave_worker(worker)
            return 2 * functions

        self.check(attack)

    def test_joining_others_and_leaving_them(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            workers = [bench.sleeper(name, *names(functions)) for name in "ab"]
            self.assertIs(workers[0].ability_set, workers[1].ability_set)
            for number in range(functions // 2):
                for worker in workers:
                    # For once it is of another kind, and then of the same again.
                    bench.broker.can_do(worker, b"x%d" % number)
                    bench.broker.grab(worker)
                    bench.broker.cant_do(worker, b"x%d" % number)
                    bench.broker.sleep(worker)
            return 2 * functions + 4 * functions

        self.check(attack)

    def test_being_woken_and_sleeping_again(self) -> None:
        def attack(bench: Bench, functions: int) -> int:
            worker = bench.sleeper("w", *names(functions))
            for name in names(functions):
                bench.queue(name)
                bench.broker.complete(worker, bench.grab(worker).handle, b"")
                bench.broker.grab(worker)
                bench.broker.sleep(worker)
            return 6 * functions

        self.check(attack)

    def test_others_of_the_same_kind_cost_no_set_of_their_own(self) -> None:
        bench = Bench()
        Counted.limit = 10**9
        sleepers = [bench.sleeper(name, *names(SMALL)) for name in "abcdefgh"]
        self.assertEqual(len({id(worker.ability_set) for worker in sleepers}), 1)
        self.assertEqual(len(bench.broker.waking.ability_sets), 1)


class OrderTests(SynchronousTestCase):
    """Whatever is done with the set of a worker, it gets the jobs that it should."""

    COUNT = 2 * FREE_WALK

    def test_as_a_worker_that_registered_all_anew(self) -> None:
        """Without turns the order follows from the functions alone."""
        for seed in range(5):
            random = Random(seed)
            bench = Bench(Policy(b"H:t", order=FunctionOrder.REGISTRATION))
            worker = bench.worker("w", *names(self.COUNT))
            for _ in range(500):
                self.change(random, bench, worker)
            functions = list(worker.abilities)
            for name in names(self.COUNT):
                bench.queue(name)
            got = self.take(bench, worker, len(functions))
            duplicate = bench.worker("duplicate", *[function.name for function in functions])
            for name in names(self.COUNT):
                bench.queue(name)
            self.assertEqual(got, self.take(bench, duplicate, len(functions)))
            self.assertEqual(got, [function.name for function in reversed(functions)])
            bench.broker.leave_worker(worker)
            bench.broker.leave_worker(duplicate)

    def change(self, random: Random, bench: Bench, worker: Worker) -> None:
        name = b"f%d" % random.randrange(self.COUNT)
        what = random.randrange(5)
        if what == 0:
            bench.broker.can_do(worker, name)
        elif what == 1:
            bench.broker.cant_do(worker, name)
        elif what == 2:
            bench.broker.sleep(worker)
        elif what == 3:
            bench.queue(name)
        job = bench.broker.grab(worker)
        if job is not None:
            bench.broker.complete(worker, job.handle, b"")

    def take(self, bench: Bench, worker: Worker, count: int) -> list[bytes]:
        taken = []
        for _ in range(count):
            job = bench.grab(worker)
            taken.append(job.function.name)
            bench.broker.complete(worker, job.handle, b"")
        self.assertIsNone(bench.broker.grab(worker))
        return taken

    def test_a_function_that_is_new_comes_first(self) -> None:
        bench = Bench()
        worker = bench.worker("w", *names(self.COUNT))
        bench.broker.grab(worker)
        for name in (*names(self.COUNT), b"new"):
            bench.queue(name)
        bench.broker.can_do(worker, b"new")
        self.assertEqual(bench.grab(worker).function.name, b"new")

    def test_functions_keep_their_turns(self) -> None:
        bench = Bench()
        worker = bench.worker("w", *names(self.COUNT))
        for name in names(self.COUNT):
            bench.queue(name)
            bench.queue(name)
        served = [bench.grab(worker).function.name for _ in range(5)]
        bench.broker.can_do(worker, b"new")
        self.assertNotIn(bench.grab(worker).function.name, served)

    def test_a_sleeper_that_registers_a_function_is_woken_and_found_again(self) -> None:
        bench = Bench()
        worker = bench.sleeper("w", *names(self.COUNT))
        bench.broker.can_do(worker, b"new")
        self.assertEqual(bench.take_woken(), ["w"])
        self.assertIsNone(bench.broker.grab(worker))
        bench.broker.sleep(worker)
        for name in (b"new", b"f3"):
            bench.queue(name)
            self.assertEqual(bench.take_woken(), ["w"])
            bench.grab(worker)
            bench.broker.sleep(worker)
        bench.broker.cant_do(worker, b"f4")
        bench.take_woken()
        bench.broker.grab(worker)
        bench.broker.sleep(worker)
        bench.queue(b"f4")
        self.assertEqual(bench.take_woken(), [])

    def test_nothing_is_left(self) -> None:
        for seed in range(5):
            random = Random(seed)
            bench = Bench()
            workers = [bench.worker(name, *names(self.COUNT)) for name in "abc"]
            for _ in range(400):
                self.change(random, bench, random.choice(workers))
            for worker in workers:
                bench.broker.leave_worker(worker)
            last = bench.worker("last", *names(self.COUNT))
            bench.handles(last)
            bench.broker.leave_worker(last)
            bench.advance(10)
            self.assertEqual(leftovers(bench.broker), {})


class RemovedTests(SynchronousTestCase):
    def test_entries_of_removed_functions_do_not_pile_up(self) -> None:
        bench = Bench()
        functions = [Function(name, levels_of(POLICY)) for name in names(100)]
        ability_set = AbilitySet(functions, POLICY)
        for function in functions:
            # With a job that stays, an entry is in the heap each time that it is added.
            function.push(bench.grab(self.with_a_job(bench)))
        for _ in range(50):
            for function in functions:
                ability_set.remove(function)
                ability_set.add(function)
                entries = sum(map(len, ability_set._ready))
                self.assertLessEqual(entries, 3 * (len(functions) + 1) + _SLACK + len(functions))

    def with_a_job(self, bench: Bench) -> Worker:
        bench.queue(b"f")
        return bench.worker("w", b"f")


class RunningTests(SynchronousTestCase):
    """A worker's jobs by function: CANT_DO gives those of one to others."""

    def test_each_job_is_looked_at_once(self) -> None:
        skip_if_compiled()

        class Job:
            looks = 0

            def __init__(self, handle: bytes, function: object) -> None:
                self.handle = handle
                self._function = function

            @property
            def function(self) -> object:
                Job.looks += 1
                return self._function

        index = RunningByFunction()
        functions: list[Any] = [object() for _ in range(100)]
        jobs: Any = {}
        made = 0
        for number in range(5_000):
            handle = b"%d" % number
            jobs[handle] = Job(handle, functions[0])
            made += 1
            if number % 3 == 0:
                jobs.pop(b"%d" % (number // 2), None)
            self.assertEqual(index.take(functions[number % 99 + 1], jobs), [])
        # Twice where a clean-up was due.
        self.assertLess(Job.looks, 3 * made)
        self.assertLess(len(index._known), 3 * len(jobs))
        left = list(jobs.values())
        self.assertEqual(index.take(functions[0], jobs), left)
        self.assertEqual(jobs, {})

    def test_as_by_looking_at_all(self) -> None:
        for seed in range(10):
            random = Random(seed)
            bench = Bench()
            bench.broker.waking.free_walk = 0
            worker = bench.worker("w", b"f0", b"f1", b"f2", timeout=5.0)
            other = bench.worker("other", b"f0", b"f1", b"f2")
            for _ in range(300):
                what, name = random.randrange(8), b"f%d" % random.randrange(3)
                if what < 3:
                    bench.queue(name)
                elif what < 5:
                    bench.broker.grab(random.choice((worker, other)))
                elif what == 5 and worker.jobs:
                    bench.broker.complete(worker, random.choice(list(worker.jobs)), b"")
                elif what == 6:
                    # Jobs time out, and the worker may get them again.
                    bench.advance(random.choice((1.0, 3.0)))
                else:
                    stay = [handle for handle, job in worker.jobs.items() if job.function.name != name]
                    bench.broker.cant_do(worker, name)
                    self.assertEqual(list(worker.jobs), stay)
                    bench.broker.can_do(worker, name, 5.0)
                running = list(worker.jobs.values()) + list(other.jobs.values())
                self.assertEqual(len(running), bench.inspection.running)
                self.assertTrue(all(job.worker in (worker, other) for job in running))
