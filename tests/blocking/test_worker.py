"""The blocking worker on a server of ours: hooks, reports, and what is lost and comes back."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer, ThreadedWorker, reverse, until, working
from tests.interop.programs import HOST
from tests.support import free_port
from txgearman import blocking as gearman
from txgearman.blocking import errors
from txgearman.blocking.background_thread import background_thread
from txgearman.broker.job_states import Outcome
from txgearman.errors import FailJob, JobCancelled, Reject, Retry
from txgearman.server import Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.wire.options import HEARTBEAT


class _Case(SynchronousTestCase):
    settings: ClassVar[Settings | None] = None

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.server = self.stack.enter_context(BackgroundServer(settings=self.settings))
        self.client = gearman.GearmanClient([self.server.address])
        self.stack.callback(self.client.shutdown)

    def work(self, worker: ThreadedWorker, **tasks: Any) -> ThreadedWorker:
        for name, task in tasks.items():
            worker.register_task(name, task)
        return self.stack.enter_context(working(worker))

    def submit(self, task: str, data: Any = "", **options: Any) -> Any:
        return self.client.submit_job(task, data, poll_timeout=LIMIT, **options)

    def workers(self) -> list[tuple[str, tuple[str, ...]]]:
        """Client id and tasks of each worker that the server shows."""
        admin = gearman.GearmanAdminClient([self.server.address])
        try:
            return [(one["client_id"], one["tasks"]) for one in admin.get_workers() if one["tasks"]]
        finally:
            admin.shutdown()


class Tasks(_Case):
    def test_job(self) -> None:
        seen: list[Any] = []
        worker = self.work(
            ThreadedWorker(self.server.address), look=lambda *arguments: seen.append(arguments)
        )
        request = self.submit("look", "data", unique="key")
        ((given, job),) = seen
        self.assertIs(given, worker)
        self.assertEqual(
            job.to_dict(),
            {"task": "look", "job_handle": request.job.handle, "unique": "key", "data": "data"},
        )
        self.assertIs(job.connection, worker.connection_list[0])
        self.assertEqual(request.result, "")

    def test_runs_in_the_thread_that_works(self) -> None:
        threads: list[threading.Thread] = []
        self.work(
            ThreadedWorker(self.server.address), look=lambda *_: threads.append(threading.current_thread())
        )
        self.submit("look")
        self.submit("look")
        self.assertEqual(len(set(threads)), 1)
        self.assertNotIn("txgearman", threads[0].name)
        self.assertIsNot(threads[0], threading.current_thread())

    def test_one_at_a_time(self) -> None:
        """A job that waits stays with the server, for another worker."""
        proceed = threading.Event()
        self.work(ThreadedWorker(self.server.address), slow=lambda *_: "slow" * proceed.wait(LIMIT))
        requests = [self.submit("slow", wait_until_complete=False) for _ in range(2)]
        admin = gearman.GearmanAdminClient([self.server.address])
        self.addCleanup(admin.shutdown)
        until(lambda: admin.get_status()[0]["running"] == 1, "the first runs")
        self.assertEqual(admin.get_status(), ({"task": "slow", "queued": 2, "running": 1, "workers": 1},))
        proceed.set()
        self.client.wait_until_jobs_completed(requests, poll_timeout=LIMIT)
        self.assertEqual([one.result for one in requests], ["slow", "slow"])

    def cancel(self, request: Any) -> None:
        admin = gearman.GearmanAdminClient([self.server.address])
        try:
            self.assertEqual(admin.cancel_job(request.job.handle), "OK")
        finally:
            admin.shutdown()

    def test_a_cancelled_job(self) -> None:
        """Its task sees it, its reports raise, what it returns is dropped, and the next job runs."""
        begun = threading.Event()
        seen: list[Any] = []

        def heed(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            seen.append(job.cancelled)
            begun.set()
            until(lambda: job.cancelled, "the job is cancelled")
            for send, arguments in (
                (worker.send_job_status, (1, 2)),
                (worker.send_job_data, ("x",)),
                (worker.send_job_warning, ("x",)),
            ):
                try:
                    send(job, *arguments)
                except Exception as error:
                    seen.append(type(error))
            return "dropped"

        def raises(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            begun.set()
            until(lambda: job.cancelled, "the job is cancelled")
            worker.send_job_status(job, 1, 2)
            return "never"

        self.work(ThreadedWorker(self.server.address), heed=heed, raises=raises, reverse=reverse)
        for task in ("heed", "raises"):
            with self.subTest(task), self.assertLogs("txgearman.blocking.worker", "INFO") as logs:
                begun.clear()
                request = self.submit(task, wait_until_complete=False)
                self.assertTrue(begun.wait(LIMIT))
                self.cancel(request)
                self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
                self.assertEqual(request.state, gearman.JOB_FAILED)
                self.assertEqual(self.submit("reverse", "ab").result, "ba")
            self.assertEqual({record.levelname for record in logs.records}, {"INFO"})
            self.assertIn("its outcome is discarded", logs.output[-1])
        self.assertEqual(seen, [False, JobCancelled, JobCancelled, JobCancelled])

    def test_a_job_that_is_cancelled_while_it_waits_for_the_program_is_not_run(self) -> None:
        """Such a job has come while another took the time of the program."""
        ran: list[Any] = []
        done: list[Any] = []
        worker = ThreadedWorker(self.server.address)
        worker.register_task("look", lambda *arguments: ran.append(arguments))
        worker.register_task("reverse", lambda _, job: done.append(job) or job.data[::-1])
        worker.establish_worker_connections()
        self.addCleanup(worker.shutdown)
        request = self.submit("look", wait_until_complete=False)
        admin = gearman.GearmanAdminClient([self.server.address])
        self.addCleanup(admin.shutdown)
        until(lambda: any(one["running"] for one in admin.get_status()), "the job has come")
        self.cancel(request)
        self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        following = self.submit("reverse", "ab", wait_until_complete=False)
        worker.poll_connections_until_stopped([], lambda _: not done, timeout=LIMIT)
        self.client.wait_until_jobs_completed([following], poll_timeout=LIMIT)
        self.assertEqual((ran, following.result), ([], "ba"))

    def test_registering_while_it_works(self) -> None:
        worker = self.work(ThreadedWorker(self.server.address))
        self.assertEqual(worker.register_task("reverse", reverse), "reverse")
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        worker.register_task("reverse", lambda *_: "other")
        self.assertEqual(self.submit("reverse", "ab").result, "other")
        self.assertEqual(worker.unregister_task("reverse"), "reverse")
        self.assertEqual(worker.unregister_task("reverse"), "reverse")
        until(lambda: self.workers() == [], "the task is withdrawn")

    def test_client_id(self) -> None:
        worker = ThreadedWorker(self.server.address)
        self.assertEqual(worker.set_client_id("name"), "name")
        self.work(worker, reverse=reverse)
        until(lambda: self.workers() == [("name", ("reverse",))], "the name is shown")
        worker.set_client_id("other")
        until(lambda: self.workers() == [("other", ("reverse",))], "the other name is shown")
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        with self.assertRaises(ValueError):
            worker.set_client_id("x" * 128)

    def test_bytes_by_choice(self) -> None:
        class BytesWorker(ThreadedWorker):
            data_encoder = gearman.NoopEncoder

        self.work(BytesWorker(self.server.address), reverse=reverse)
        self.assertEqual(self.submit("reverse", "ab").result, "ba")

    def test_decoder_that_raises(self) -> None:
        class Broken(gearman.TextEncoder):
            @classmethod
            def decode(cls, decodable_string: bytes) -> Any:
                raise LookupError(decodable_string)

        class BrokenWorker(ThreadedWorker):
            data_encoder = Broken

        with self.assertLogs("txgearman.blocking.worker", "ERROR"):
            self.work(BrokenWorker(self.server.address), reverse=reverse)
            self.assertEqual(self.submit("reverse", "ab").state, gearman.JOB_FAILED)

    def test_result_that_cannot_be_sent(self) -> None:
        with self.assertLogs("txgearman.blocking.worker", "ERROR") as logged:
            self.work(ThreadedWorker(self.server.address), number=lambda *_: 12, reverse=reverse)
            self.assertEqual(self.submit("number").state, gearman.JOB_FAILED)
        self.assertIn("must be str or bytes, not int", logged.output[0])
        self.assertEqual(self.submit("reverse", "ab").result, "ba")


class Decisions(_Case):
    """What a task decides about its job, and what it is told of it."""

    settings = Settings(functions={"*": FunctionSettings(retry_online=True, heartbeat=30)})

    def test_what_it_raises(self) -> None:
        def task(_worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            seen.append((job.data, job.attempt, job.losses))
            if job.data == "retry" and job.attempt == 1:
                raise Retry(0.0, "not yet")
            if job.data == "put off" and len(seen) == 1:
                raise Retry(0.0, "not yet", counts=False)
            if job.data == "reject":
                raise Reject("größe")
            if job.data == "fail":
                raise FailJob("größe")
            return "done"

        seen: list[Any] = []
        self.work(ThreadedWorker(self.server.address), task=task)
        for data, result, exception, runs in (
            ("retry", "done", None, [(1, 0), (2, 0)]),
            ("put off", "done", None, [(1, 0), (1, 0)]),
            ("reject", None, "größe", [(1, 0)]),
            ("fail", None, "größe", [(1, 0)]),
        ):
            with self.subTest(data), self.assertNoLogs("txgearman.blocking.worker", "WARNING"):
                seen.clear()
                request = self.submit("task", data)
                self.assertEqual((request.result, request.exception), (result, exception))
                self.assertEqual(seen, [(data, *run) for run in runs])

    def test_what_it_calls(self) -> None:
        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            if job.attempt == 1:
                worker.send_job_retry(job, 0.0, "not yet")
            else:
                worker.send_job_reject(job, "no")

        class Quiet(ThreadedWorker):
            def on_job_complete(self, current_job: gearman.GearmanJob, job_result: Any) -> bool:
                return False

        self.work(Quiet(self.server.address), task=task)
        request = self.submit("task")
        self.assertEqual((request.state, request.exception), (gearman.JOB_FAILED, "no"))

    def test_an_exception_that_it_reports_is_still_one(self) -> None:
        """`failed` and `raised` are two outcomes."""

        class Telling(ThreadedWorker):
            def on_job_exception(self, current_job: gearman.GearmanJob, exc_info: Any) -> bool:
                self.send_job_exception(current_job, "why")
                return False

        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            if job.data == "fail":
                worker.send_job_failure(job)
            else:
                raise LookupError

        self.work(Telling(self.server.address), task=task)
        for data, exception, outcome in (("raise", "why", Outcome.RAISED), ("fail", None, Outcome.FAILED)):
            request = self.submit("task", data)
            self.assertEqual((request.state, request.exception), (gearman.JOB_FAILED, exception))
            history = self.server.factory.broker.ended_jobs.history
            ended = background_thread().call(history.get, request.job.handle.encode())
            self.assertEqual(ended.outcome, outcome)

    def test_the_heartbeat_is_asked_for(self) -> None:
        class Beating(ThreadedWorker):
            heartbeat = True

        for kind, asks in ((ThreadedWorker, False), (Beating, True)):
            with working(kind(self.server.address)):
                peers = background_thread().call(lambda: list(self.server.factory.connections.values()))
                self.assertEqual(any(HEARTBEAT in peer.extensions for peer in peers), asks)


class Reports(_Case):
    def test_exception_text_reaches_the_submitter(self) -> None:
        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> None:
            worker.send_job_exception(job, "no: ö")
            worker.send_job_data(job, "late")
            seen.append("went on")

        seen: list[Any] = []

        class Quiet(ThreadedWorker):
            def on_job_complete(self, current_job: gearman.GearmanJob, job_result: Any) -> bool:
                return False

        self.work(Quiet(self.server.address), task=task, reverse=reverse)
        request = self.submit("task")
        self.assertEqual((request.state, request.exception), (gearman.JOB_FAILED, "no: ö"))
        until(lambda: bool(seen), "the task went on")
        self.assertEqual(list(request.data_updates), [])

    def raised_by(self, call: Any) -> Any:
        try:
            call()
        except Exception as error:
            return type(error)
        return None

    def test_wrong_updates(self) -> None:
        seen: list[Any] = []

        def task(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            seen.append(self.raised_by(lambda: worker.send_job_status(job, -1, 2)))
            seen.append(self.raised_by(lambda: worker.send_job_data(job, 12)))
            foreign = gearman.GearmanJob(None, job.handle, None, None, None)
            seen.append(self.raised_by(lambda: worker.send_job_data(foreign, "")))
            worker.send_job_status(job, 1.5, 2.0)
            return "done"

        self.work(ThreadedWorker(self.server.address), task=task)
        request = self.submit("task")
        self.assertEqual(seen, [ValueError, TypeError, errors.InvalidWorkerState])
        self.assertEqual((request.result, request.status["numerator"]), ("done", 1))

    def test_hooks(self) -> None:
        calls: list[Any] = []

        class Hooked(ThreadedWorker):
            def on_job_execute(self, current_job: gearman.GearmanJob) -> bool:
                calls.append("execute")
                return super().on_job_execute(current_job)

            def on_job_exception(self, current_job: gearman.GearmanJob, exc_info: Any) -> bool:
                calls.append(exc_info[0])
                self.send_job_exception(current_job, str(exc_info[1]))
                return False

            def on_job_complete(self, current_job: gearman.GearmanJob, job_result: Any) -> bool:
                calls.append(job_result)
                return super().on_job_complete(current_job, job_result)

        def fail(*_: Any) -> None:
            raise LookupError("gone")

        self.work(Hooked(self.server.address), reverse=reverse, fail=fail)
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        self.assertEqual(self.submit("fail").exception, "gone")
        self.assertEqual(calls, ["execute", "ba", "execute", LookupError])

    def test_job_left_open_is_ended_later(self) -> None:
        jobs: list[gearman.GearmanJob] = []

        class Lazy(ThreadedWorker):
            def on_job_execute(self, current_job: gearman.GearmanJob) -> bool:
                if current_job.task != "lazy":
                    return super().on_job_execute(current_job)
                jobs.append(current_job)
                return True

        with self.assertLogs("txgearman.blocking.worker", "WARNING"):
            worker = self.work(Lazy(self.server.address), lazy=reverse, reverse=reverse)
            request = self.submit("lazy", wait_until_complete=False)
            self.assertEqual(self.submit("reverse", "ab").result, "ba")
            until(lambda: len(worker._connections.parked) == 1, "the job is left open")
        (job,) = jobs
        worker.send_job_complete(job, "late")
        self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "late")
        self.assertEqual(worker._connections.parked, [])
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        until(lambda: len(self.workers()) == 1, "the connection of the open job is closed")


class Loop(_Case):
    def test_after_poll_ends_work(self) -> None:
        polls: list[bool] = []

        class Once(gearman.GearmanWorker):
            def after_poll(self, any_activity: bool) -> bool:
                polls.append(any_activity)
                return not any_activity

        worker = Once([self.server.address])
        worker.register_task("reverse", reverse)
        self.submit("reverse", "ab", background=True)
        worker.work(poll_timeout=LIMIT)
        self.assertEqual(polls, [False, True])
        self.assertEqual(self.workers(), [])

    def test_no_job_is_given_back_where_work_ends_behind_another(self) -> None:
        """It would have lost an attempt."""

        class Few(gearman.GearmanWorker):
            done = 0

            def after_poll(self, any_activity: bool) -> bool:
                self.done += any_activity
                return self.done < 3

        class Shut(gearman.GearmanWorker):
            def on_job_complete(self, current_job: gearman.GearmanJob, job_result: Any) -> bool:
                self.shutdown()
                return super().on_job_complete(current_job, job_result)

        for _ in range(20):
            self.submit("reverse", "ab", background=True)
        left = 20
        for kind, count in ((Few, 3), (Shut, 1)):
            for _ in range(3):
                worker = kind([self.server.address])
                worker.register_task("reverse", reverse)
                worker.work(LIMIT)
                left -= count
        until(lambda: self.workers() == [], "the last connection is gone")
        jobs = background_thread().call(lambda: list(self.server.factory.inspection.jobs()))
        self.assertEqual([job.losses for job in jobs], [0] * left)

    def test_nor_where_the_object_has_an_after_poll_of_its_own(self) -> None:
        for _ in range(10):
            self.submit("reverse", "ab", background=True)
        for _ in range(3):
            worker: Any = gearman.GearmanWorker([self.server.address])
            worker.after_poll = lambda any_activity: not any_activity
            worker.register_task("reverse", reverse)
            worker.work(LIMIT)
        until(lambda: self.workers() == [], "the last connection is gone")
        jobs = background_thread().call(lambda: list(self.server.factory.inspection.jobs()))
        self.assertEqual([job.losses for job in jobs], [0] * 7)

    def test_shutdown_between_a_job_and_the_wait_for_the_next(self) -> None:
        class Ends(gearman.GearmanWorker):
            def after_poll(self, any_activity: bool) -> bool:
                if any_activity:
                    self.shutdown()
                return True

        worker = Ends([self.server.address])
        worker.register_task("reverse", reverse)
        self.submit("reverse", "ab", background=True)
        begin = time.monotonic()
        worker.work(LIMIT)
        self.assertLess(time.monotonic() - begin, LIMIT / 2)

    def test_after_poll_without_a_job(self) -> None:
        polls: list[bool] = []

        class Thrice(gearman.GearmanWorker):
            def after_poll(self, any_activity: bool) -> bool:
                polls.append(any_activity)
                return len(polls) < 3

        Thrice([self.server.address]).work(poll_timeout=0.01)
        self.assertEqual(polls, [False, False, False])

    def test_shutdown_in_a_task(self) -> None:
        def last(worker: gearman.GearmanWorker, _job: gearman.GearmanJob) -> str:
            worker.shutdown()
            return "bye"

        request = self.submit("last", wait_until_complete=False)
        worker = gearman.GearmanWorker([self.server.address])
        worker.register_task("last", last)
        worker.work(poll_timeout=LIMIT)
        self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "bye")
        self.client.submit_job("last", "", background=True)
        worker.work(poll_timeout=LIMIT)

    def test_error_of_a_hook_ends_work(self) -> None:
        class Breaking(gearman.GearmanWorker):
            def after_poll(self, any_activity: bool) -> bool:
                raise LookupError(any_activity)

        with self.assertRaises(LookupError):
            Breaking([self.server.address]).work()
        until(lambda: self.server.connections == 0, "the connection is closed")

    def test_interrupted_task_gives_its_job_back(self) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        request = self.submit("task", wait_until_complete=False)
        worker = gearman.GearmanWorker([self.server.address])
        worker.register_task("task", interrupt)
        with self.assertRaises(KeyboardInterrupt):
            worker.work(poll_timeout=LIMIT)
        self.work(ThreadedWorker(self.server.address), task=lambda *_: "done")
        self.client.wait_until_jobs_completed([request], poll_timeout=LIMIT)
        self.assertEqual(request.result, "done")

    def test_works_once_at_a_time(self) -> None:
        worker = self.work(ThreadedWorker(self.server.address))
        with self.assertRaises(errors.InvalidWorkerState):
            worker.work()


class Losses(_Case):
    def test_no_server(self) -> None:
        for servers in ([], [f"{HOST}:{free_port()}"], [f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"]):
            with self.assertRaises(errors.ServerUnavailable):
                gearman.GearmanWorker(servers).work()

    def test_comes_back_after_a_restart(self) -> None:
        self.work(ThreadedWorker(self.server.address), reverse=reverse)
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
        self.server.stop()
        self.server.start()
        self.assertEqual(self.submit("reverse", "cd").result, "dc")

    def test_connection_lost_while_a_job_runs(self) -> None:
        begun, proceed, seen = threading.Event(), threading.Event(), []

        def slow(worker: gearman.GearmanWorker, job: gearman.GearmanJob) -> str:
            if seen:
                return "second"
            begun.set()
            proceed.wait(LIMIT)
            try:
                worker.send_job_data(job, "part")
            except errors.ServerUnavailable as error:
                seen.append(error)
            return "first"

        self.submit("slow", background=True)
        with self.assertLogs("txgearman.blocking.worker", "WARNING"):
            self.work(ThreadedWorker(self.server.address), slow=slow, reverse=reverse)
            self.assertTrue(begun.wait(LIMIT))
            self.server.cut()
            until(lambda: self.server.connections == 0 or bool(self.workers() == []), "it is cut off")
            proceed.set()
            self.assertEqual(self.submit("reverse", "ab").result, "ba")
        self.assertEqual(len(seen), 1)

    def test_one_of_two_servers_is_down(self) -> None:
        worker = ThreadedWorker(f"{HOST}:{free_port()}", self.server.address)
        self.work(worker, reverse=reverse)
        self.assertEqual(self.submit("reverse", "ab").result, "ba")

    def test_two_servers(self) -> None:
        other = self.stack.enter_context(BackgroundServer())
        self.work(ThreadedWorker(other.address, self.server.address), reverse=reverse)
        client = gearman.GearmanClient([other.address])
        self.stack.callback(client.shutdown)
        self.assertEqual(client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")
        self.assertEqual(self.submit("reverse", "ab").result, "ba")
