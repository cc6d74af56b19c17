"""Workers and our server joined in memory: jobs that outlive a connection or a time limit."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgearman.access.policy import AccessPolicy, Rule
from txgearman.client import Admin
from txgearman.errors import JobFailed, ServerError
from txgearman.server import Settings
from txgearman.server.replies.job_replies import JobReplies
from txgearman.testing import MemoryGearman
from txgearman.worker import Hooks, Job

RETRY = 30.0


class RefusedTests(SynchronousTestCase):
    """A worker that may not work on a function."""

    def start(self, hooks: Hooks | None) -> list[str]:
        """Start a worker of ``f`` and of ``g``, which is denied; returns what is logged from warnings on."""
        rule = Rule("all", work=(b"f",), submit=(b"*",))
        self.gearman = MemoryGearman(Settings(access=AccessPolicy((rule,))))
        worker = self.worker = self.gearman.worker(hooks=hooks)
        for function in ("g", "f"):
            worker.register(function, lambda job: b"done")
        with capturedLogs() as logs:
            self.gearman.wait(worker.start())
            self.gearman.turn()
        job = self.gearman.wait(self.gearman.client().submit("f", b""))
        self.assertEqual(self.gearman.wait(job.result()), b"done", "it works on what it may")
        return [
            formatEvent(event)
            for event in logs
            if event["log_level"] >= LogLevel.warn and event["log_namespace"].startswith("txgearman.worker")
        ]

    def test_without_a_hook_the_start_fails_and_the_worker_is_stopped(self) -> None:
        with self.assertRaises(ServerError) as raised:
            self.start(None)
        self.assertEqual(str(raised.exception), "ACCESS_DENIED: You may not work on 'g'")
        self.assertFalse(self.worker.running)
        client = self.gearman.client()
        self.gearman.wait(client.submit("f", b"", background=True))
        self.gearman.turn(1)
        self.assertEqual([job.running for job in self.gearman.server.inspection.jobs()], [False])

    def test_a_worker_that_is_refused_later_goes_on(self) -> None:
        """Nobody waits for its start any more, so that is logged."""
        rule = Rule("all", work=(b"f",), submit=(b"*",))
        gearman = MemoryGearman(Settings(access=AccessPolicy((rule,))))
        worker = gearman.worker()
        worker.register("f", lambda job: b"done")
        gearman.wait(worker.start())
        with capturedLogs() as logs:
            worker.register("g", lambda job: b"done")
            gearman.turn()
        said = [formatEvent(event) for event in logs if event["log_namespace"].startswith("txgearman.worker")]
        self.assertEqual(said, ["The server refused: ACCESS_DENIED: You may not work on 'g'"])
        job = gearman.wait(gearman.client().submit("f", b""))
        self.assertEqual(gearman.wait(job.result()), b"done")

    def test_as_a_service_it_goes_on_with_what_it_may(self) -> None:
        rule = Rule("all", work=(b"f",), submit=(b"*",))
        gearman = MemoryGearman(Settings(access=AccessPolicy((rule,))))
        worker = gearman.worker()
        for function in ("g", "f"):
            worker.register(function, lambda job: b"done")
        with capturedLogs():
            worker.startService()
            gearman.turn()
        job = gearman.wait(gearman.client().submit("f", b""))
        self.assertEqual(gearman.wait(job.result()), b"done")

    def test_the_hook_is_told(self) -> None:
        refusals: list[ServerError] = []
        self.assertEqual(self.start(Hooks(on_refusal=refusals.append)), [])
        (refusal,) = refusals
        self.assertEqual((refusal.code, refusal.text), ("ACCESS_DENIED", "You may not work on 'g'"))

    def test_a_hook_that_raises_changes_nothing(self) -> None:
        def broken(_refusal: ServerError) -> None:
            raise KeyError("broken")

        (said,) = self.start(Hooks(on_refusal=broken))
        self.assertTrue(said.startswith("The hook for ACCESS_DENIED"), said)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class BusyElsewhereTests(SynchronousTestCase):
    def test_a_worker_that_another_server_keeps_busy_does_not_hold_up_a_job(self) -> None:
        """It sleeps on this server, has slept longest, and is woken; the job is for whoever has time."""
        first = MemoryGearman()
        second = MemoryGearman(clock=first.clock)
        busy = first.worker(second)
        busy.register("f", lambda job: Deferred())
        first.wait(busy.start())
        first.turn()
        first.wait(first.client().submit("f", b""))
        first.turn()
        idle = second.worker()
        idle.register("f", lambda job: b"r")
        first.wait(idle.start())
        job = first.wait(second.client().submit("f", b""))
        self.assertEqual(first.wait(job.result(), limit=1), b"r")
        with capturedLogs():
            first.wait(busy.stop(0))


class OutlivedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.client = self.gearman.client()
        self.runs: list[tuple[str, Deferred[bytes]]] = []

    def start_worker(self, name: str, timeout: float | None = None) -> None:
        """Start a worker whose runs of ``f`` are in `self.runs`, with the worker's name."""

        def function(job: Job) -> Deferred[bytes]:
            self.runs.append((name, Deferred()))
            return self.runs[-1][1]

        worker = self.gearman.worker(retry_policy=lambda attempt: RETRY)
        worker.register("f", function, timeout)
        self.gearman.wait(worker.start())
        self.gearman.turn()

    def test_a_worker_that_is_cut_off_loses_its_job_to_another(self) -> None:
        self.start_worker("first")
        job = self.gearman.wait(self.client.submit("f", b"", background=True))
        self.gearman.turn()
        with capturedLogs():
            self.gearman.cut()
        self.start_worker("second")
        self.assertEqual([name for name, _ in self.runs], ["first", "second"])
        self.runs[1][1].callback(b"")
        self.gearman.turn()
        self.assertFalse(self.gearman.wait(self.client.status(job)).known)

    def test_a_worker_comes_back_with_the_server(self) -> None:
        self.start_worker("only")
        self.gearman.stop()
        self.gearman.turn(RETRY)
        self.gearman.start()
        job = self.gearman.wait(self.client.submit("f", b""))
        self.gearman.turn(RETRY)
        self.runs[0][1].callback(b"r")
        self.assertEqual(self.gearman.wait(job.result()), b"r")

    def test_a_run_behind_its_time_limit_is_stopped(self) -> None:
        self.start_worker("only", timeout=10)
        job = self.gearman.wait(self.client.submit("f", b""))
        with capturedLogs() as logs:
            self.gearman.turn(10)
        self.assertEqual(len(self.runs), 2, "it is given out again, here to the same worker")
        (stopped,) = [event for event in logs if event["log_format"].startswith("{job} is to stop")]
        self.assertEqual((stopped["log_level"], stopped["reason"]), (LogLevel.info, "timed-out"))
        with capturedLogs() as logs:
            self.runs[0][1].callback(b"late")
            self.gearman.turn()
            self.runs[1][1].callback(b"in time")
            self.assertEqual(self.gearman.wait(job.result()), b"in time")
        self.assertEqual([event for event in logs if event["log_level"] is LogLevel.warn], [])

    def test_what_an_administrator_or_the_last_client_does_not_want_is_stopped(self) -> None:
        self.start_worker("only")
        admin = Admin(self.gearman.clock, self.gearman.endpoint)
        for reason in ("cancelled", "abandoned"):
            with self.subTest(reason), capturedLogs() as logs:
                job = self.gearman.wait(self.client.submit("f", b""))
                self.gearman.turn()
                if reason == "cancelled":
                    self.gearman.wait(admin.cancel(job.handle))
                    with self.assertRaises(JobFailed):
                        self.gearman.wait(job.result())
                else:
                    self.gearman.wait(self.client.close())
                    self.client = self.gearman.client()
                self.gearman.turn()
            reasons = [event["reason"] for event in logs if "is to stop" in event["log_format"]]
            self.assertEqual(reasons, [reason])
        job = self.gearman.wait(self.client.submit("f", b""))
        self.gearman.turn()
        self.runs[2][1].callback(b"r")
        self.assertEqual(self.gearman.wait(job.result()), b"r")

    def test_a_result_behind_the_time_limit_is_refused_and_survived(self) -> None:
        """By a server that does not tell workers to stop, as gearmand."""
        self.patch(JobReplies, "hears_cancel", False)
        self.start_worker("first", timeout=10)
        job = self.gearman.wait(self.client.submit("f", b""))
        self.gearman.turn()
        self.start_worker("second", timeout=10)
        self.gearman.turn(10)
        self.assertEqual([name for name, _ in self.runs], ["first", "second"])
        with capturedLogs() as logs:
            self.runs[0][1].callback(b"late")
            self.gearman.turn()
        refusals = [event for event in logs if event["log_level"] is LogLevel.warn]
        self.assertEqual([event["error"].code for event in refusals], ["JOB_NOT_FOUND"])
        self.runs[1][1].callback(b"in time")
        self.assertEqual(self.gearman.wait(job.result()), b"in time")
        next_job = self.gearman.wait(self.client.submit("f", b""))
        self.gearman.turn()
        self.assertEqual(self.runs[2][0], "first", "the refused worker goes on")
        self.runs[2][1].callback(b"r")
        self.assertEqual(self.gearman.wait(next_job.result()), b"r")
