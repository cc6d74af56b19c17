"""What functions decide about their jobs, and what the worker tells by itself: retry, reject, heartbeat."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogLevel, capturedLogs

from tests.worker.played import GRAB, PlayedWorkerTestCase
from txgearman.errors import FailJob, Reject, Retry
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.config.options import Settings
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import ERROR, JOB_ASSIGN_EXTENDED, OPTION_RES
from txgearman.worker import Job
from txgearman.worker.protocol import MAX_RETRY_DELAY


class DecisionTestCase(PlayedWorkerTestCase):
    def start_with(self, *accepted: bytes, **options: Any) -> None:
        """Connect a worker to a server that accepts these options and knows no others."""
        self.start(exceptions=False, **options)
        for option in (b"exceptions", b"cancel", b"outcomes", *[b"heartbeat"] * ("heartbeat" in options)):
            if option in accepted:
                self.server.say(OPTION_RES, option)
            else:
                self.server.say(ERROR, b"UNKNOWN_OPTION", b"")

    def assign_extended(self, attributes: bytes = b"", handle: bytes = b"H:1") -> None:
        self.server.say(JOB_ASSIGN_EXTENDED, handle, b"f", b"unique", b"", attributes, b"data")

    def report_of(self, error: Exception, *accepted: bytes) -> tuple[Any, ...]:
        """What the server is told of a job whose function raises `error`."""
        self.setUp()
        self.run_job = lambda job: fail(error)
        self.start_with(*accepted)
        self.assign_extended()
        report, *grabs = self.server.heard()
        self.assertEqual(grabs, [GRAB])
        return report


class ErrorTests(DecisionTestCase):
    def test_what_a_retry_and_a_rejection_can_be(self) -> None:
        for delay in (-1, float("nan"), float("inf")):
            self.assertRaises(ValueError, Retry, delay)
        for delay in ("1", True, b"1"):
            self.assertRaises(TypeError, Retry, delay)
        self.assertRaises(TypeError, Retry, 1, b"why")
        self.assertRaises(TypeError, Reject, b"why")

    def test_a_server_that_knows_them(self) -> None:
        for error, packet in (
            (Retry(), ("WORK_RETRY", b"H:1", b"", b"1", b"")),
            (Retry(1.0005, "größe"), ("WORK_RETRY", b"H:1", b"1001", b"1", "größe".encode())),
            (Retry(0, counts=False), ("WORK_RETRY", b"H:1", b"0", b"0", b"")),
            (Retry(1e300), ("WORK_RETRY", b"H:1", b"%d" % (MAX_RETRY_DELAY * 1000), b"1", b"")),
            (Reject("no"), ("WORK_REJECT", b"H:1", b"no")),
            (Reject(), ("WORK_REJECT", b"H:1", b"")),
            (FailJob("no"), ("WORK_FAIL_EXTENDED", b"H:1", b"no")),
            (FailJob("no", data=b"\0"), ("WORK_FAIL_EXTENDED", b"H:1", b"\0")),
            (FailJob(), ("WORK_FAIL", b"H:1")),
        ):
            with self.subTest(repr(error)), capturedLogs() as logs:
                self.assertEqual(self.report_of(error, b"exceptions", b"outcomes"), packet)
                self.assertEqual([e["log_level"] for e in logs if "job" in e], [LogLevel.info])

    def test_one_that_does_not_gets_an_exception(self) -> None:
        for error, packet in (
            (Retry(1, "later"), ("WORK_EXCEPTION", b"H:1", b"Retry: later")),
            (Reject("no"), ("WORK_EXCEPTION", b"H:1", b"Reject: no")),
            (Reject(), ("WORK_EXCEPTION", b"H:1", b"Reject")),
            (FailJob("no"), ("WORK_FAIL", b"H:1")),
        ):
            with self.subTest(repr(error)), capturedLogs():
                self.assertEqual(self.report_of(error, b"exceptions"), packet)

    def test_one_that_knows_no_exceptions_either(self) -> None:
        with capturedLogs():
            self.assertEqual(self.report_of(Retry(1, "later")), ("WORK_FAIL", b"H:1"))


class SpanTests(DecisionTestCase):
    def test_of_the_submitter(self) -> None:
        seen: list[str | None] = []
        self.run_job = lambda job: seen.append(job.traceparent)
        self.start_with(b"outcomes")
        for attributes in (b"traceparent=00-12-34-01", b"attempt=2", b""):
            self.assign_extended(attributes)
        self.assertEqual(seen, ["00-12-34-01", None, None])

    def test_all_the_way(self) -> None:
        span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        gearman, seen = MemoryGearman(), []
        worker = gearman.worker()
        worker.register("f", lambda job: seen.append(job.traceparent))
        gearman.wait(worker.start())
        for options in ({"traceparent": span}, {}):
            job = gearman.wait(gearman.client().submit("f", b"", **options))
            gearman.wait(job.result())
        self.assertEqual(seen, [span, None])


class AttemptTests(DecisionTestCase):
    def told(self, attributes: bytes | None) -> tuple[Any, ...]:
        """What the function sees of a job with these attributes, None for a job without any."""
        seen: list[Job] = []
        self.setUp()
        self.run_job = seen.append
        self.start_with(b"outcomes")
        if attributes is None:
            self.assign()
        else:
            self.assign_extended(attributes)
        (job,) = seen
        self.assertEqual((job.handle, job.unique, job.reducer, job.data), (b"H:1", b"unique", None, b"data"))
        return job.attempt, job.losses

    def test_a_server_that_tells(self) -> None:
        self.assertEqual(self.told(b""), (1, 0))
        self.assertEqual(self.told(b"attempt=3\nlosses=2"), (3, 2))
        self.assertEqual(self.told(b"attempt=3\nfrom_the_future=yes"), (3, 0))

    def test_one_that_does_not(self) -> None:
        self.assertEqual(self.told(None), (None, None))

    def test_what_makes_no_sense_costs_no_job(self) -> None:
        for attributes in (b"attempt=many", b"nonsense", b"\xff=", b"heartbeat=x", b"a=b\n" * 100):
            with self.subTest(attributes), capturedLogs():
                self.assertEqual(self.told(attributes), (1, 0))


class HeartbeatTests(DecisionTestCase):
    HEARTBEAT = ("WORK_HEARTBEAT", b"H:1")

    def begin(self, *accepted: bytes, attributes: bytes = b"heartbeat=30", **options: Any) -> None:
        """A job runs."""
        self.ends: Deferred[bytes] = Deferred()
        self.run_job = lambda job: self.ends
        options.setdefault("check_interval", None)
        self.start_with(*accepted, **options)
        self.assign_extended(attributes)
        self.server.heard()

    def test_three_times_in_the_time_that_the_server_says_until_the_job_ends(self) -> None:
        self.begin(b"outcomes", b"heartbeat", heartbeat=True)
        self.clock.advance(9.9)
        self.assertEqual(self.server.heard(), [])
        for _ in range(3):
            self.clock.advance(0.1)
            self.assertEqual(self.server.heard(), [self.HEARTBEAT])
            self.clock.advance(9.9)
            self.assertEqual(self.server.heard(), [])
        self.ends.callback(b"r")
        self.server.heard()
        self.clock.advance(100)
        self.assertEqual(self.server.heard(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_several_jobs_by_one_timer(self) -> None:
        self.begin(b"outcomes", b"heartbeat", heartbeat=True, concurrency=3)
        self.clock.advance(5)
        self.assign_extended(b"heartbeat=3", b"H:2")
        self.assign_extended(b"", b"H:3")
        self.server.heard()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        heard = []
        for _ in range(5):
            self.clock.advance(1)
            heard += self.server.heard()
        self.assertEqual(
            heard, [("WORK_HEARTBEAT", b"H:2")] * 4 + [self.HEARTBEAT, ("WORK_HEARTBEAT", b"H:2")]
        )

    def test_not_where_nobody_asks_for_it(self) -> None:
        for accepted, attributes, options in (
            ((b"outcomes",), b"heartbeat=30", {"heartbeat": True}),
            ((b"outcomes", b"heartbeat"), b"heartbeat=30", {}),
            ((b"outcomes", b"heartbeat"), b"", {"heartbeat": True}),
            ((b"outcomes", b"heartbeat"), b"heartbeat=inf", {"heartbeat": True}),
            ((b"outcomes", b"heartbeat"), b"heartbeat=nan", {"heartbeat": True}),
            ((b"outcomes", b"heartbeat"), b"heartbeat=-1", {"heartbeat": True}),
        ):
            with self.subTest((accepted, attributes, options)):
                self.setUp()
                self.begin(*accepted, attributes=attributes, **options)
                self.clock.advance(100)
                self.assertEqual(self.server.heard(), [])
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_wants_it_all_the_time_makes_no_load(self) -> None:
        self.begin(b"outcomes", b"heartbeat", attributes=b"heartbeat=0.000001", heartbeat=True)
        for _ in range(1000):
            self.clock.advance(0.001)
        self.assertLessEqual(len(self.server.heard()), 10)

    def test_a_job_that_the_worker_leaves_to_the_server(self) -> None:
        self.begin(b"outcomes", b"heartbeat", heartbeat=True)
        self.ends.callback(b"")
        self.clock.advance(100)
        self.worker.unregister("f")
        with capturedLogs():
            self.assign_extended(b"heartbeat=30", b"H:2")
        self.server.heard()
        self.clock.advance(100)
        self.assertEqual(self.server.heard(), [])

    def test_a_connection_that_is_lost_ends_them(self) -> None:
        self.begin(b"outcomes", b"heartbeat", heartbeat=True, retry_policy=lambda attempt: 1e6)
        with capturedLogs():
            self.server.lose()
        self.clock.advance(100)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.ends.addErrback(lambda _: None)

    def test_a_job_that_ends_in_its_call_leaves_no_timer_for_long(self) -> None:
        self.start_with(b"outcomes", b"heartbeat", heartbeat=True, check_interval=None)
        self.assign_extended(b"heartbeat=30")
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OnOurServerTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman(
            Settings(functions={"f": FunctionSettings(heartbeat=10, backoff=5, jitter=0.0)})
        )
        self.attempts: list[tuple[int | None, int | None]] = []

    def serve(self, function: Any, **options: Any) -> None:
        def run(job: Job) -> Any:
            self.attempts.append((job.attempt, job.losses))
            return function(job)

        worker = self.gearman.worker(**options)
        worker.register("f", run)
        self.gearman.wait(worker.start())
        self.gearman.turn()

    def test_a_long_job_of_a_worker_with_heartbeats_is_run_once(self) -> None:
        ends: Deferred[bytes] = Deferred()
        self.serve(lambda job: ends, heartbeat=True)
        job = self.gearman.wait(self.gearman.client().submit("f", b""))
        self.gearman.turn(1000)
        self.assertEqual(len(self.attempts), 1)
        ends.callback(b"done")
        self.assertEqual(self.gearman.wait(job.result()), b"done")

    def test_without_them_it_is_run_again(self) -> None:
        self.serve(lambda job: b"done" if job.losses else Deferred())
        job = self.gearman.wait(self.gearman.client().submit("f", b""))
        self.gearman.turn(9.9)
        self.assertEqual(len(self.attempts), 1)
        # The first run is told to stop.
        with capturedLogs():
            self.assertEqual(self.gearman.wait(job.result()), b"done")
        self.flushLoggedErrors(CancelledError)
        self.assertEqual(self.attempts, [(1, 0), (1, 1)])

    def test_a_function_that_wants_its_job_again(self) -> None:
        outcomes = iter((Retry(60, "busy"), Retry(None, "busy", counts=False), Retry(), None))

        def run(job: Job) -> bytes:
            outcome = next(outcomes)
            if outcome is not None:
                raise outcome
            return b"done"

        self.serve(run)
        self.gearman.wait(self.gearman.client().submit("f", b"", background=True))
        times = []
        for _ in range(120):
            self.gearman.turn(1)
            times.append(len(self.attempts))
        self.assertEqual(self.attempts, [(1, 0), (2, 0), (2, 0), (3, 0)])
        # Its delay, and then the backoffs after the first failure and the second.
        self.assertEqual([times.index(count) for count in (2, 3, 4)], [59, 64, 74])
