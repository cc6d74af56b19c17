"""Who is woken for a job, when, and how often; and who in place of a worker that does not come."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers
from txgearman.broker.job_states import WorkerState
from txgearman.broker.policy import WAKE_PATIENCE, FunctionOrder, Policy


class SubmitTests(SynchronousTestCase):
    def test_one_sleeper_for_each_job_who_slept_longest_first(self) -> None:
        bench = Bench()
        for name in "abc":
            bench.sleeper(name, b"f")
        for name in "abc":
            bench.queue(b"f")
            self.assertEqual(bench.take_woken(), [name])

    def test_wakeup_0_wakes_all(self) -> None:
        bench = Bench(Policy(wakeup=0))
        bench.sleeper("a", b"f")
        bench.sleeper("b", b"g", b"f")
        bench.sleeper("c", b"f")
        bench.sleeper("other", b"g")
        bench.queue(b"f")
        self.assertEqual(sorted(bench.take_woken()), ["a", "b", "c"])

    def test_wakeup_n_wakes_n(self) -> None:
        bench = Bench(Policy(wakeup=2))
        for name in "abc":
            bench.sleeper(name, b"f")
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a", "b"])
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["c"])

    def test_workers_of_different_kinds_are_all_found(self) -> None:
        bench = Bench()
        bench.sleeper("a", b"f")
        bench.sleeper("b", b"f", b"g")
        bench.sleeper("c", b"g", b"f")
        for _ in range(3):
            bench.queue(b"f")
        self.assertEqual(sorted(bench.take_woken()), ["a", "b", "c"])

    def test_at_most_one_wake_in_a_sleep(self) -> None:
        for wakeup in (0, 1, 3):
            bench = Bench(Policy(wakeup=wakeup))
            bench.sleeper("a", b"f")
            for _ in range(4):
                bench.queue(b"f")
            bench.advance(10)
            self.assertEqual(bench.take_woken(), ["a"])

    def test_who_is_awake_is_not_woken(self) -> None:
        bench = Bench()
        bench.worker("never grabbed", b"f")
        grabbed = bench.worker("grabbed", b"f")
        bench.broker.grab(grabbed)
        slept = bench.sleeper("slept", b"f")
        bench.broker.grab(slept)
        bench.queue(b"f")
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_who_cannot_do_it_is_not_woken(self) -> None:
        bench = Bench()
        bench.sleeper("a", b"g")
        bench.sleeper("b")
        bench.queue(b"f")
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_joining_a_job_wakes_nobody(self) -> None:
        bench = Bench()
        bench.queue(b"f", b"u")
        bench.grab(bench.worker("w", b"f"))
        bench.sleeper("a", b"f")
        bench.queue(b"f", b"u")
        self.assertEqual(bench.take_woken(), [])

    def test_a_held_job_wakes_nobody_until_it_is_due(self) -> None:
        bench = Bench()
        bench.sleeper("a", b"f")
        bench.queue(b"f", run_at=bench.wall() + 5)
        bench.advance(4.9)
        self.assertEqual(bench.take_woken(), [])
        bench.advance(0.2)
        self.assertEqual(bench.take_woken(), ["a"])

    def test_a_job_given_back_wakes(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        lost = bench.worker("lost", b"f")
        bench.grab(lost)
        bench.sleeper("a", b"f")
        bench.broker.leave_worker(lost)
        self.assertEqual(bench.take_woken(), ["a"])

    def test_in_registration_order_too(self) -> None:
        bench = Bench(Policy(order=FunctionOrder.REGISTRATION))
        bench.sleeper("a", b"f", b"g")
        bench.sleeper("b", b"f", b"g")
        bench.queue(b"g", priority=2)
        bench.queue(b"f", priority=0)
        self.assertEqual(bench.take_woken(), ["a", "b"])


class SleepTests(SynchronousTestCase):
    def test_with_a_job_waiting_wakes_at_once(self) -> None:
        bench = Bench()
        bench.queue(b"f", priority=2)
        worker = bench.worker("a", b"f")
        # Each time, as with gearmand.
        for _ in range(2):
            bench.broker.sleep(worker)
            self.assertEqual(bench.take_woken(), ["a"])
        self.assertIs(worker.state, WorkerState.AWAKE)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), [])

    def test_a_job_cancelled_meanwhile_wakes_nobody(self) -> None:
        bench = Bench()
        bench.broker.cancel(bench.queue(b"f"))
        bench.broker.sleep(bench.worker("a", b"f"))
        self.assertEqual(bench.take_woken(), [])

    def test_a_worker_that_never_grabbed_may_sleep(self) -> None:
        bench = Bench()
        bench.broker.sleep(bench.worker("a", b"f"))
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_sleeping_twice_is_sleeping_once(self) -> None:
        bench = Bench(Policy(wakeup=0))
        worker = bench.sleeper("a", b"f")
        bench.broker.sleep(worker)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_sleeping_again_does_not_lose_the_place(self) -> None:
        bench = Bench()
        first = bench.sleeper("a", b"f")
        bench.sleeper("b", b"f")
        bench.broker.sleep(first)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_woken_and_back_to_sleep_without_a_grab(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f")
        handle = bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.broker.cancel(handle)
        bench.broker.sleep(worker)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_a_second_sleep_after_a_job_can_be_woken_again(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f", b"g", b"h")
        for name in (b"f", b"g", b"h", b"f"):
            bench.queue(name)
            self.assertEqual(bench.take_woken(), ["a"])
            self.assertEqual(bench.grab(worker).function.name, name)
            self.assertIsNone(bench.broker.grab(worker))
            bench.broker.sleep(worker)


class PassingOnTests(SynchronousTestCase):
    """A woken worker that does not take the job it was woken for."""

    def test_a_job_of_another_function_passes_the_wake_up_on(self) -> None:
        bench = Bench()
        woken = bench.sleeper("a", b"f", b"g")
        bench.sleeper("b", b"f")
        bench.queue(b"f")
        bench.queue(b"g", priority=0)
        self.assertEqual(bench.take_woken(), ["a"])
        self.assertEqual(bench.grab(woken).function.name, b"g")
        self.assertEqual(bench.take_woken(), ["b"])

    def test_its_own_job_passes_nothing_on(self) -> None:
        bench = Bench()
        woken = bench.sleeper("a", b"f")
        bench.sleeper("b", b"f")
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.grab(woken)
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_nothing_is_passed_on_once_the_job_is_taken(self) -> None:
        bench = Bench()
        woken = bench.sleeper("a", b"f", b"g")
        bench.sleeper("b", b"f")
        bench.queue(b"f")
        bench.queue(b"g")
        bench.take_woken()
        bench.grab(bench.worker("quick", b"f"))
        self.assertEqual(bench.grab(woken).function.name, b"g")
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_leaving_passes_it_on(self) -> None:
        bench = Bench()
        woken = bench.sleeper("a", b"f")
        bench.sleeper("b", b"f")
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.broker.leave_worker(woken)
        self.assertEqual(bench.take_woken(), ["b"])

    def test_unregistering_passes_it_on(self) -> None:
        for unregister in ("cant_do", "reset_abilities"):
            bench = Bench()
            woken = bench.sleeper("a", b"f")
            bench.sleeper("b", b"f")
            bench.queue(b"f")
            self.assertEqual(bench.take_woken(), ["a"])
            if unregister == "cant_do":
                bench.broker.cant_do(woken, b"f")
            else:
                bench.broker.reset_abilities(woken)
            self.assertEqual(bench.take_woken(), ["b"])
            self.assertIsNone(bench.broker.grab(woken))

    def test_leaving_while_asleep(self) -> None:
        bench = Bench()
        gone = bench.sleeper("a", b"f")
        bench.sleeper("b", b"f")
        bench.broker.leave_worker(gone)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["b"])


class PatienceTests(SynchronousTestCase):
    def test_who_does_not_come_is_replaced(self) -> None:
        bench = Bench()
        for name in "abc":
            bench.sleeper(name, b"f")
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.advance(WAKE_PATIENCE * 0.99)
        self.assertEqual(bench.take_woken(), [])
        bench.advance(WAKE_PATIENCE * 0.02)
        self.assertEqual(bench.take_woken(), ["b"])
        bench.advance(WAKE_PATIENCE)
        self.assertEqual(bench.take_woken(), ["c"])
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_nobody_is_replaced_once_the_job_is_taken(self) -> None:
        bench = Bench()
        for name in "ab":
            bench.sleeper(name, b"f")
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.grab(bench.worker("quick", b"f"))
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])

    def test_who_comes_late_still_gets_a_job(self) -> None:
        bench = Bench()
        late = bench.sleeper("a", b"f")
        handle = bench.queue(b"f")
        bench.advance(10)
        self.assertEqual(bench.grab(late).handle, handle)
        self.assertIsNone(bench.broker.grab(late))
        bench.broker.sleep(late)
        bench.take_woken()
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_late_ones_of_several_functions(self) -> None:
        bench = Bench()
        bench.sleeper("f1", b"f")
        bench.sleeper("g1", b"g")
        bench.sleeper("f2", b"f")
        bench.sleeper("g2", b"g")
        bench.queue(b"f")
        bench.advance(WAKE_PATIENCE / 2)
        bench.queue(b"g")
        self.assertEqual(bench.take_woken(), ["f1", "g1"])
        bench.advance(WAKE_PATIENCE / 2)
        self.assertEqual(bench.take_woken(), ["f2"])
        bench.advance(WAKE_PATIENCE / 2)
        self.assertEqual(bench.take_woken(), ["g2"])

    def test_a_silent_worker_is_forgotten_when_it_leaves(self) -> None:
        bench = Bench()
        silent = bench.sleeper("a", b"f")
        handle = bench.queue(b"f")
        bench.broker.leave_worker(silent)
        bench.broker.cancel(handle)
        self.assertEqual(leftovers(bench.broker), {})


class AbilityChangeTests(SynchronousTestCase):
    def test_a_sleeper_that_registers_is_woken_to_look_again(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f")
        handle = bench.queue(b"g")
        self.assertEqual(bench.take_woken(), [])
        bench.broker.can_do(worker, b"g")
        self.assertEqual(bench.take_woken(), ["a"])
        self.assertEqual(bench.grab(worker).handle, handle)

    def test_each_change_in_a_row_wakes_once_in_all(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f")
        for name in (b"g", b"h", b"i"):
            bench.broker.can_do(worker, name)
        self.assertEqual(bench.take_woken(), ["a"])

    def test_registering_what_is_registered_wakes_nobody(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f")
        bench.broker.can_do(worker, b"f", 5.0)
        self.assertEqual(bench.take_woken(), [])
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_unregistering_what_is_not_registered_wakes_nobody(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f")
        bench.queue(b"g")
        bench.broker.cant_do(worker, b"g")
        bench.broker.cant_do(worker, b"never heard of")
        self.assertEqual(bench.take_woken(), [])

    def test_a_sleeper_no_longer_gets_what_it_unregistered(self) -> None:
        bench = Bench()
        worker = bench.sleeper("a", b"f", b"g")
        bench.broker.cant_do(worker, b"f")
        bench.broker.sleep(worker)
        bench.take_woken()
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), [])
        bench.queue(b"g")
        self.assertEqual(bench.take_woken(), ["a"])

    def test_its_own_jobs_given_back_while_asleep(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        worker = bench.worker("a", b"f", b"g")
        bench.grab(worker)
        bench.broker.sleep(worker)
        bench.sleeper("b", b"f")
        bench.broker.cant_do(worker, b"f")
        self.assertEqual(sorted(bench.take_woken()), ["a", "b"])
        self.assertEqual(bench.handles(bench.worker("c", b"f")), [handle])
