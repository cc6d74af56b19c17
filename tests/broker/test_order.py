"""Which job a worker gets: priorities, first in first out, turns between functions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench
from txgearman.broker.policy import FunctionOrder, Policy

HIGH, NORMAL, LOW = 0, 1, 2


class PriorityTests(SynchronousTestCase):
    def test_high_ahead_of_normal_ahead_of_low(self) -> None:
        bench = Bench()
        low = bench.queue(b"f", priority=LOW)
        normal = bench.queue(b"f")
        high = bench.queue(b"f", priority=HIGH)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [high, normal, low])

    def test_first_in_first_out_within_a_priority(self) -> None:
        bench = Bench()
        jobs: dict[int, list[bytes]] = {HIGH: [], NORMAL: [], LOW: []}
        for number in range(30):
            priority = number * 7 % 3
            jobs[priority].append(bench.queue(b"f", priority=priority))
        self.assertEqual(bench.handles(bench.worker("w", b"f")), jobs[HIGH] + jobs[NORMAL] + jobs[LOW])

    def test_a_worker_gets_only_what_it_registered_for(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        mine = bench.queue(b"g")
        self.assertEqual(bench.handles(bench.worker("w", b"g")), [mine])
        self.assertIsNone(bench.broker.grab(bench.worker("idle")))

    def test_what_a_worker_gets(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", b"u", b"d", reducer=b"r")
        job = bench.grab(bench.worker("w", b"f"))
        self.assertEqual(
            (job.handle, job.function.name, job.unique, job.data, job.reducer),
            (handle, b"f", b"u", b"d", b"r"),
        )

    def test_a_worker_may_hold_many_jobs(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(3)]
        worker = bench.worker("w", b"f")
        self.assertEqual([bench.grab(worker).handle for _ in range(3)], handles)
        for handle in reversed(handles):
            bench.broker.complete(worker, handle, b"")

    def test_a_job_given_back_goes_behind_those_that_wait(self) -> None:
        bench = Bench()
        first, second = bench.queue(b"f"), bench.queue(b"f")
        lost = bench.worker("lost", b"f")
        self.assertEqual(bench.grab(lost).handle, first)
        bench.broker.leave_worker(lost)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [second, first])


class TurnTests(SynchronousTestCase):
    """The default: `FunctionOrder.PRIORITY`."""

    def names(self, bench: Bench, worker_functions: tuple[bytes, ...]) -> bytes:
        worker = bench.worker("w", *worker_functions)
        names = b""
        while (job := bench.broker.grab(worker)) is not None:
            names += job.function.name
        return names

    def test_the_function_registered_last_begins(self) -> None:
        bench = Bench()
        for _ in range(2):
            for name in (b"X", b"Y", b"Z"):
                bench.queue(name)
        self.assertEqual(self.names(bench, (b"X", b"Y", b"Z")), b"ZYXZYX")

    def test_a_function_moves_to_the_end_when_it_is_picked(self) -> None:
        bench = Bench()
        for name in (b"X", b"X", b"X", b"Y", b"Z", b"Z"):
            bench.queue(name)
        self.assertEqual(self.names(bench, (b"X", b"Y", b"Z")), b"ZYXZXX")

    def test_a_function_that_had_no_job_keeps_its_turn(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"X", b"Y", b"Z")
        for name in (b"X", b"X", b"Y"):
            bench.queue(name)
        self.assertEqual(bench.grab(worker).function.name, b"Y")
        self.assertEqual(bench.grab(worker).function.name, b"X")
        # Order is now Z, Y, X: Z was never picked.
        bench.queue(b"Y")
        bench.queue(b"Z")
        self.assertEqual([bench.grab(worker).function.name for _ in range(3)], [b"Z", b"Y", b"X"])

    def test_priority_is_global_over_functions(self) -> None:
        bench = Bench()
        bench.queue(b"Z", priority=LOW)
        bench.queue(b"Z")
        bench.queue(b"Y", priority=HIGH)
        bench.queue(b"X", priority=HIGH)
        bench.queue(b"X")
        # Turns: Z Y X, then X Z, as Y and X were picked, then Z again.
        self.assertEqual(self.names(bench, (b"X", b"Y", b"Z")), b"YXZXZ")

    def test_a_pick_at_one_priority_moves_the_function_at_the_others(self) -> None:
        bench = Bench()
        bench.queue(b"Z", priority=HIGH)
        bench.queue(b"Z")
        bench.queue(b"Y")
        self.assertEqual(self.names(bench, (b"Y", b"Z")), b"ZYZ")

    def test_jobs_that_come_while_others_wait_keep_the_turns(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"X", b"Y")
        names = []
        bench.queue(b"X")
        bench.queue(b"Y")
        for _ in range(6):
            job = bench.grab(worker)
            names.append(job.function.name)
            bench.queue(job.function.name)
        self.assertEqual(names, [b"Y", b"X"] * 3)

    def test_other_workers_with_the_same_functions_share_the_turns(self) -> None:
        bench = Bench()
        one, two = bench.worker("1", b"X", b"Y"), bench.worker("2", b"X", b"Y")
        for name in (b"X", b"X", b"Y", b"Y"):
            bench.queue(name)
        names = [bench.grab(worker).function.name for worker in (one, two, one, two)]
        self.assertEqual(names, [b"Y", b"X", b"Y", b"X"])

    def test_a_function_registered_later_begins(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"X")
        for _ in range(2):
            bench.queue(b"X")
            bench.queue(b"A")
        self.assertEqual(bench.grab(worker).function.name, b"X")
        bench.broker.can_do(worker, b"A")
        self.assertEqual([bench.grab(worker).function.name for _ in range(3)], [b"A", b"X", b"A"])

    def test_registering_again_changes_no_order(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"X", b"Y")
        bench.broker.can_do(worker, b"X")
        bench.queue(b"X")
        bench.queue(b"Y")
        self.assertEqual(bench.grab(worker).function.name, b"Y")


class RegistrationOrderTests(SynchronousTestCase):
    def bench(self, round_robin: bool = False) -> Bench:
        return Bench(Policy(b"H:t", order=FunctionOrder.REGISTRATION, round_robin=round_robin))

    def grab_names(self, bench: Bench, count: int) -> bytes:
        worker = bench.worker("w", b"X", b"Y", b"Z")
        return b"".join(bench.grab(worker).function.name for _ in range(count))

    def test_the_function_registered_last_comes_first(self) -> None:
        bench = self.bench()
        for name in (b"Z", b"Y", b"X", b"Z", b"Y", b"X"):
            bench.queue(name)
        self.assertEqual(self.grab_names(bench, 6), b"ZZYYXX")

    def test_priority_counts_only_within_a_function(self) -> None:
        bench = self.bench()
        bench.queue(b"Z", priority=HIGH)
        low = bench.queue(b"X", priority=LOW)
        high = bench.queue(b"X", priority=HIGH)
        worker = bench.worker("w", b"Z", b"X")
        self.assertEqual([bench.grab(worker).handle for _ in range(2)], [high, low])
        self.assertEqual(bench.grab(worker).function.name, b"Z")

    def test_round_robin(self) -> None:
        bench = self.bench(round_robin=True)
        for name in (b"X", b"X", b"X", b"Y", b"Z", b"Z"):
            bench.queue(name)
        self.assertEqual(self.grab_names(bench, 6), b"ZYXZXX")

    def test_round_robin_keeps_priority_within_a_function(self) -> None:
        bench = self.bench(round_robin=True)
        bench.queue(b"X", priority=LOW)
        high = bench.queue(b"X", priority=HIGH)
        bench.queue(b"Y", priority=HIGH)
        worker = bench.worker("w", b"Y", b"X")
        self.assertEqual(bench.grab(worker).handle, high)
        self.assertEqual(bench.grab(worker).function.name, b"Y")
        self.assertEqual(bench.grab(worker).function.name, b"X")
