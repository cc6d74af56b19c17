"""What happens at its time: limits of jobs, held jobs, and the one alarm for both."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.policy import Policy
from txgearman.broker.timer import LONGEST_NAP
from txgearman.errors import JobNotFound


class TimeLimitTests(SynchronousTestCase):
    def test_a_slow_worker_loses_its_job(self) -> None:
        bench = Bench()
        client = bench.client()
        handle = bench.submit(client, b"f")
        slow = bench.worker("slow", b"f", timeout=5.0)
        bench.grab(slow)
        bench.advance(4.99)
        self.assertTrue(bench.inspection.status(handle).running)
        bench.advance(0.01)
        self.assertFalse(bench.inspection.status(handle).running)
        # Nobody is told; what the slow one says comes too late.
        self.assertEqual(said(client), [])
        with self.assertRaises(JobNotFound):
            bench.broker.complete(slow, handle, b"")
        self.assertEqual(bench.handles(bench.worker("x", b"f")), [handle])

    def test_each_job_has_its_own(self) -> None:
        bench = Bench()
        first = bench.queue(b"f")
        second = bench.queue(b"f")
        unlimited = bench.queue(b"g")
        worker = bench.worker("w", b"g")
        bench.broker.can_do(worker, b"f", 5.0)
        bench.grab(worker)
        bench.advance(2)
        bench.grab(worker)
        bench.grab(worker)
        self.assertEqual(set(worker.jobs), {first, second, unlimited})
        bench.advance(3.5)
        lost = {first, second, unlimited} - set(worker.jobs)
        self.assertEqual(len(lost), 1)
        bench.advance(2)
        self.assertEqual(set(worker.jobs), {unlimited})
        bench.advance(1000)
        self.assertEqual(set(worker.jobs), {unlimited})

    def test_sleeping_does_not_stop_it(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        worker = bench.worker("w", b"f", timeout=5.0)
        bench.grab(worker)
        bench.broker.sleep(worker)
        bench.advance(5)
        # The sleeper itself is woken for the job it was too slow for.
        self.assertEqual(bench.take_woken(), ["w"])
        self.assertEqual(bench.grab(worker).handle, handle)

    def test_ends_with_the_job(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f", timeout=5.0)
        for end in ("complete", "fail", "exception", "cancel"):
            handle = bench.queue(b"f")
            bench.grab(worker)
            {
                "complete": lambda handle: bench.broker.complete(worker, handle, b""),
                "fail": lambda handle: bench.broker.fail(worker, handle),
                "exception": lambda handle: bench.broker.exception(worker, handle, b""),
                "cancel": bench.broker.cancel,
            }[end](handle)
            self.assertEqual(len(bench.broker.life.timeouts), 0, end)
        bench.advance(10)
        self.assertEqual(bench.broker.total, 0)

    def test_begins_anew_for_the_next_worker(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        first, second = bench.worker("1", b"f", timeout=5.0), bench.worker("2", b"f", timeout=5.0)
        bench.grab(first)
        bench.advance(4)
        bench.broker.leave_worker(first)
        bench.grab(second)
        bench.advance(4)
        bench.broker.complete(second, handle, b"")

    def test_registering_again_changes_it_for_later_jobs(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f", timeout=5.0)
        limited, unlimited = bench.queue(b"f"), bench.queue(b"f")
        bench.grab(worker)
        bench.broker.can_do(worker, b"f")
        bench.grab(worker)
        bench.advance(100)
        self.assertEqual(set(worker.jobs), {unlimited})
        bench.broker.complete(worker, unlimited, b"")
        self.assertEqual(bench.grab(worker).handle, limited)

    def test_counts_as_a_lost_attempt(self) -> None:
        bench = Bench(Policy(job_retries=2))
        client = bench.client()
        handle = bench.submit(client, b"f")
        worker = bench.worker("w", b"f", timeout=5.0)
        bench.grab(worker)
        bench.advance(5)
        self.assertEqual(said(client), [])
        bench.grab(worker)
        bench.advance(5)
        self.assertEqual(said(client), [("failed", handle)])
        bench.broker.leave_worker(worker)
        self.assertEqual(leftovers(bench.broker), {})

    def test_nobody_waits_any_more(self) -> None:
        bench = Bench()
        client = bench.client()
        bench.submit(client, b"f")
        bench.grab(bench.worker("w", b"f", timeout=5.0))
        bench.broker.leave_client(client)
        bench.advance(5)
        self.assertEqual(bench.broker.total, 0)

    def test_jobs_due_together_are_given_back_in_the_order_they_were_given(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(5)]
        worker = bench.worker("w", b"f", timeout=5.0)
        for _ in handles:
            bench.grab(worker)
        bench.advance(5)
        self.assertEqual(bench.handles(worker), handles)


class HeldJobTests(SynchronousTestCase):
    def test_held_until_it_is_due(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", run_at=bench.wall() + 10)
        worker = bench.worker("w", b"f")
        bench.advance(9.99)
        self.assertIsNone(bench.broker.grab(worker))
        bench.broker.sleep(worker)
        self.assertEqual(bench.take_woken(), [])
        bench.advance(0.02)
        self.assertEqual(bench.take_woken(), ["w"])
        self.assertEqual(bench.grab(worker).handle, handle)

    def test_due_now_or_before_is_queued_at_once(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f")
        for run_at in (bench.wall(), bench.wall() - 1, 0.0, -5.0):
            handle = bench.queue(b"f", run_at=run_at)
            self.assertEqual(bench.grab(worker).handle, handle)
        self.assertEqual(len(bench.broker.life.epochs), 0)

    def test_in_the_order_they_are_due(self) -> None:
        bench = Bench()
        third = bench.queue(b"f", run_at=bench.wall() + 30)
        first = bench.queue(b"f", run_at=bench.wall() + 10)
        second = bench.queue(b"f", run_at=bench.wall() + 20)
        tied = bench.queue(b"f", run_at=bench.wall() + 20)
        bench.advance(31)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [first, second, tied, third])

    def test_behind_those_that_wait_when_it_becomes_due(self) -> None:
        bench = Bench()
        held = bench.queue(b"f", run_at=bench.wall() + 10)
        waiting = bench.queue(b"f")
        bench.advance(11)
        later = bench.queue(b"f")
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [waiting, held, later])

    def test_the_wall_clock_is_set_forward(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", run_at=bench.wall() + 3600)
        bench.wall_ahead += 3600
        # Noticed at the next nap's end.
        bench.advance(LONGEST_NAP)
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [handle])

    def test_the_wall_clock_is_set_back(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", run_at=bench.wall() + 10)
        bench.wall_ahead -= 3600
        worker = bench.worker("w", b"f")
        bench.advance(3600)
        self.assertIsNone(bench.broker.grab(worker))
        bench.advance(11)
        self.assertEqual(bench.handles(worker), [handle])

    def test_far_away(self) -> None:
        bench = Bench()
        bench.queue(b"f", run_at=bench.wall() + 10 * LONGEST_NAP)
        naps = []
        bench.advance(5 * LONGEST_NAP, lambda: naps.append(bench.now))
        self.assertEqual(len(naps), 5)

    def test_lost_by_its_worker_it_is_not_held_again(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f", run_at=bench.wall() + 10)
        bench.advance(11)
        worker = bench.worker("w", b"f")
        bench.grab(worker)
        bench.broker.leave_worker(worker)
        self.assertEqual(bench.handles(bench.worker("x", b"f")), [handle])


class AlarmTests(SynchronousTestCase):
    def test_a_quiet_broker_sets_none(self) -> None:
        bench = Bench()
        bench.sleeper("w", b"f")
        bench.queue(b"g")
        bench.broker.tick()
        self.assertIsNone(bench.rings_at)

    def test_set_for_what_is_next(self) -> None:
        bench = Bench()
        bench.queue(b"held", run_at=bench.wall() + 30)
        bench.queue(b"f")
        bench.queue(b"f")
        bench.grab(bench.worker("slow", b"f", timeout=20.0))
        bench.grab(bench.worker("fast", b"f", timeout=10.0))
        rings = []
        bench.advance(35, lambda: rings.append(round(bench.now - 1000.0, 3)))
        self.assertEqual(rings, [10.0, 20.0, 30.0])
        self.assertIsNone(bench.rings_at)

    def test_a_later_deadline_does_not_put_off_an_earlier_one(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        bench.queue(b"f")
        bench.grab(bench.worker("fast", b"f", timeout=10.0))
        bench.grab(bench.worker("slow", b"f", timeout=20.0))
        self.assertEqual(bench.rings_at, bench.now + 10)

    def test_ticking_too_early_does_no_harm(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        bench.grab(bench.worker("w", b"f", timeout=10.0))
        bench.advance(3)
        bench.broker.tick()
        self.assertEqual(bench.rings_at, 1010.0)

    def test_ticking_too_late_catches_up(self) -> None:
        bench = Bench()
        bench.queue(b"held", run_at=bench.wall() + 5)
        bench.queue(b"f")
        bench.grab(bench.worker("w", b"f", timeout=10.0))
        bench.now += 100
        bench.rings_at = None
        bench.broker.tick()
        self.assertEqual(len(bench.handles(bench.worker("x", b"f", b"held"))), 2)
        self.assertIsNone(bench.rings_at)
