"""Looking at jobs and functions, and the verbs of those who look: pausing, quieting, cancelling many."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, leftovers, said
from txgearman.broker.entities import Job
from txgearman.broker.handles import CHUNK_BITS
from txgearman.broker.job_states import JobState
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import FunctionNotFound, JobNotFound, ShuttingDown

CHUNK = 1 << CHUNK_BITS


def pages(bench: Bench, most: int = 10, after: int | None = 0) -> list[list[bytes]]:
    """The handles of all jobs, page by page."""
    found = []
    while after is not None:
        page = bench.inspection.job_page(after, most, lambda _job: True)
        found.append([job.handle for job in page.jobs])
        after = page.next
    return found


class PageTests(SynchronousTestCase):
    def test_without_jobs(self) -> None:
        self.assertEqual(pages(Bench()), [[]])

    def test_each_page_goes_on_where_the_last_ended(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(5)]
        self.assertEqual(pages(bench, 2), [handles[:2], handles[2:4], handles[4:], []])

    def test_jobs_that_go_meanwhile_move_no_others(self) -> None:
        bench = Bench()
        handles = [bench.queue(b"f") for _ in range(6)]
        page = bench.inspection.job_page(0, 2, lambda _job: True)
        for handle in handles[:4]:
            bench.broker.cancel(handle)
        self.assertEqual(pages(bench, 2, page.next), [handles[4:], []])

    def test_chunks_without_jobs_are_passed_over(self) -> None:
        bench = Bench()
        first = bench.queue(b"f")
        for handle in [bench.queue(b"f") for _ in range(3 * CHUNK)]:
            bench.broker.cancel(handle)
        last = bench.queue(b"f")
        self.assertEqual(pages(bench), [[first], [last], []])

    def test_one_page_looks_at_one_chunk_at_most(self) -> None:
        bench = Bench()
        for _ in range(2 * CHUNK):
            bench.queue(b"f")
        seen = []

        def look(job: Job) -> bool:
            seen.append(job)
            return False

        page = bench.inspection.job_page(0, 10, look)
        self.assertEqual(page.jobs, ())
        self.assertIsNotNone(page.next)
        self.assertLessEqual(len(seen), CHUNK)

    def test_a_job_with_several_handles_is_shown_once(self) -> None:
        bench = Bench()
        client = bench.client()
        first = bench.submit(client, b"f", b"u")
        second = bench.submit(client, b"f", b"u")
        self.assertNotEqual(first, second)
        self.assertEqual(pages(bench), [[first], []])
        self.assertEqual(bench.inspection.job_detail(second).handle, first)


class DetailTests(SynchronousTestCase):
    def test_a_waiting_job(self) -> None:
        bench = Bench(measured=9)
        handle = bench.submit(bench.client(), b"f", b"u", b"data", priority=2)
        bench.advance(3)
        job = bench.inspection.job_detail(handle)
        self.assertEqual((job.function, job.unique, job.data, job.priority), (b"f", b"u", b"data", 2))
        self.assertEqual(
            (job.state, job.worker, job.clients, job.background), (JobState.QUEUED, None, 1, False)
        )
        self.assertEqual((job.seconds, job.run_in, job.left), (3.0, None, None))

    def test_a_running_job_with_a_time_limit(self) -> None:
        bench = Bench(measured=9)
        handle = bench.queue(b"f")
        bench.advance(3)
        worker = bench.worker("w", b"f", timeout=10.0)
        bench.grab(worker)
        bench.advance(4)
        bench.broker.report_status(worker, handle, b"1", b"2")
        job = bench.inspection.job_detail(handle)
        self.assertIs(job.worker, worker)
        self.assertEqual((job.state, job.progress), (JobState.RUNNING, (1, 2)))
        self.assertEqual((job.seconds, job.run_in, job.left), (4.0, None, 6.0))

    def test_a_scheduled_job(self) -> None:
        bench = Bench(measured=9)
        job = bench.inspection.job_detail(bench.queue(b"f", run_at=bench.wall() + 50))
        self.assertEqual((job.state, job.seconds, job.run_in), (JobState.SCHEDULED, None, 50.0))

    def test_where_no_times_are_taken_none_are_shown(self) -> None:
        bench = Bench()
        job = bench.inspection.job_detail(bench.queue(b"f"))
        self.assertIsNone(job.seconds)
        self.assertIsNone(bench.inspection.function_detail(b"f").oldest)

    def test_unknown_ones(self) -> None:
        bench = Bench(measured=9)
        for handle in (b"", b"H:t:1", b"H:t:x", b"\xff" * 100):
            self.assertRaises(JobNotFound, bench.inspection.job_detail, handle)
        self.assertRaises(FunctionNotFound, bench.inspection.function_detail, b"f")

    def test_a_function(self) -> None:
        bench = Bench(measured=9)
        for priority in (0, 1, 1, 2):
            bench.queue(b"f", priority=priority)
        bench.advance(5)
        bench.queue(b"f", run_at=bench.wall() + 50, priority=0)
        worker = bench.worker("w", b"f")
        bench.broker.complete(worker, bench.grab(worker).handle, b"")
        bench.broker.fail(worker, bench.grab(worker).handle)
        bench.grab(worker)
        bench.administration.set_limits(b"f", (9, None, None))
        function = bench.inspection.function_detail(b"f")
        self.assertEqual((function.queued, function.scheduled), ((0, 0, 1), (1, 0, 0)))
        self.assertEqual((function.submitted, function.completed, function.failed), (5, 1, 1))
        self.assertEqual((function.running, function.workers, function.oldest), (1, 1, 5.0))
        self.assertEqual((function.limits, function.paused), ((9, None, None), False))


class PauseTests(SynchronousTestCase):
    def test_jobs_are_taken_in_and_not_given(self) -> None:
        bench = Bench()
        worker = bench.worker("w", b"f", b"g")
        bench.administration.pause_function(b"f")
        first = bench.queue(b"f")
        other = bench.queue(b"g")
        self.assertEqual(bench.handles(worker), [other])
        bench.administration.resume_function(b"f")
        self.assertEqual(bench.handles(worker), [first])

    def test_sleepers_are_left_alone_until_it_goes_on(self) -> None:
        bench = Bench()
        for name in ("a", "b", "c"):
            bench.sleeper(name, b"f")
        bench.administration.pause_function(b"f")
        for _ in range(2):
            bench.queue(b"f")
        bench.advance(10)
        self.assertEqual(bench.take_woken(), [])
        bench.administration.resume_function(b"f")
        self.assertEqual(bench.take_woken(), ["a", "b"])

    def test_a_sleeper_that_asks_again_is_not_woken(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        worker = bench.worker("w", b"f")
        bench.administration.pause_function(b"f")
        bench.broker.sleep(worker)
        self.assertEqual(bench.take_woken(), [])

    def test_a_job_that_comes_back_waits_too(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        bench.grab(worker := bench.worker("w", b"f"))
        bench.administration.pause_function(b"f")
        bench.broker.leave_worker(worker)
        self.assertEqual(bench.handles(bench.worker("v", b"f")), [])
        bench.administration.resume_function(b"f")
        self.assertEqual(bench.handles(bench.worker("v", b"f")), [handle])

    def test_running_jobs_end_as_always(self) -> None:
        bench = Bench()
        handle = bench.queue(b"f")
        bench.grab(worker := bench.worker("w", b"f"))
        bench.administration.pause_function(b"f")
        bench.broker.complete(worker, handle, b"")
        self.assertEqual(bench.broker.total, 0)

    def test_unknown_functions(self) -> None:
        bench = Bench()
        self.assertRaises(FunctionNotFound, bench.administration.pause_function, b"f")
        self.assertRaises(FunctionNotFound, bench.administration.resume_function, b"f")

    def test_a_server_that_drains_lets_nothing_go_on(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        bench.administration.drain()
        self.assertRaises(ShuttingDown, bench.administration.resume_function, b"f")
        self.assertEqual(bench.handles(bench.worker("w", b"f")), [])


class QuietTests(SynchronousTestCase):
    def test_a_quiet_worker_gets_no_more_jobs_and_keeps_those_it_has(self) -> None:
        bench = Bench()
        first, second = bench.queue(b"f"), bench.queue(b"f")
        bench.grab(worker := bench.worker("w", b"f"))
        bench.administration.quiet(worker)
        self.assertIsNone(bench.broker.grab(worker))
        bench.broker.complete(worker, first, b"")
        self.assertIsNone(bench.broker.grab(worker))
        bench.administration.quiet(worker, False)
        self.assertEqual(bench.handles(worker), [second])

    def test_it_is_not_woken(self) -> None:
        bench = Bench()
        worker = bench.sleeper("w", b"f")
        bench.administration.quiet(worker)
        bench.take_woken()
        bench.broker.grab(worker)
        bench.broker.sleep(worker)
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), [])
        bench.administration.quiet(worker, False)
        self.assertEqual(bench.take_woken(), ["w"])

    def test_what_it_was_woken_for_goes_to_another(self) -> None:
        bench = Bench()
        workers = [bench.sleeper(name, b"f") for name in "ab"]
        bench.queue(b"f")
        self.assertEqual(bench.take_woken(), ["a"])
        bench.administration.quiet(workers[0])
        self.assertEqual(bench.take_woken(), ["b"])


class CancelAllTests(SynchronousTestCase):
    def cancel_all(self, bench: Bench, name: bytes, until: int | None = None) -> int:
        """How many calls that took."""
        until, calls = bench.inspection.last_number if until is None else until, 0
        after: int | None = 0
        while after is not None:
            after = bench.administration.cancel_some(name, after, until)
            calls += 1
        return calls

    def test_jobs_in_all_states_and_of_one_function_alone(self) -> None:
        bench = Bench()
        other = bench.queue(b"g")
        client = bench.client()
        running = bench.submit(client, b"f")
        bench.grab(worker := bench.worker("w", b"f"))
        queued = bench.submit(client, b"f", b"u")
        again = bench.submit(client, b"f", b"u")
        bench.queue(b"f", run_at=bench.wall() + 9)
        self.cancel_all(bench, b"f")
        self.assertEqual(pages(bench), [[other], []])
        self.assertEqual(said(client), [("failed", running), ("failed", queued), ("failed", again)])
        bench.broker.complete(worker, running, b"late")
        bench.broker.cancel(other)
        bench.leave(client, worker)
        self.assertEqual(leftovers(bench.broker), {})

    def test_those_that_come_meanwhile_stay(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        until = bench.inspection.last_number
        late = bench.queue(b"f")
        self.cancel_all(bench, b"f", until)
        self.assertEqual(pages(bench), [[late], []])

    def test_those_taken_over_from_servers_that_started_later_go_too(self) -> None:
        bench = Bench(last_number=100)
        far = 5 * CHUNK + 100
        for number in (far, far + 1, 7):
            bench.answers.restore(
                StoredJob(number, number, b"H:x:%d" % number, b"f", b"", b"", 1, None, 0, 0.0, None)
            )
        bench.queue(b"f")
        until = bench.inspection.last_number
        late = [bench.queue(b"f") for _ in range(2 * CHUNK)]
        self.cancel_all(bench, b"f", until)
        self.assertEqual([job.handle for job in bench.inspection.jobs()], late)

    def test_a_flood_meanwhile_is_not_run_after(self) -> None:
        bench = Bench()
        bench.queue(b"f")
        until, calls = bench.inspection.last_number, 0
        after: int | None = 0
        while after is not None:
            for _ in range(CHUNK):
                bench.queue(b"f")
            after = bench.administration.cancel_some(b"f", after, until)
            calls += 1
        self.assertLess(calls, 4)

    def test_a_deep_queue_takes_many_short_calls(self) -> None:
        bench = Bench()
        for _ in range(3 * CHUNK):
            bench.queue(b"f")
        self.assertGreaterEqual(self.cancel_all(bench, b"f"), 3)
        self.assertEqual(bench.broker.total, 0)
        self.assertEqual(sum(map(len, bench.broker.functions.by_name[b"f"]._queues)), 0)

    def test_unknown_functions(self) -> None:
        self.assertRaises(FunctionNotFound, Bench().administration.cancel_some, b"f", 0, 0)
