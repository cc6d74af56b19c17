"""What jobs are given, return and raise: codecs, tracebacks, and the worker's own time limit."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel, capturedLogs

from tests.worker.played import GRAB, PlayedWorkerTestCase
from txgearman.worker import Job, Worker
from txgearman.worker.functions import EXCEPTION_BYTES, MAX_TIMEOUT_MS


class Shout:
    def encode(self, value: str) -> bytes:
        return value.upper().encode()

    def decode(self, data: bytes) -> str:
        return data.decode() + "!"


class CodecTests(PlayedWorkerTestCase):
    def run_job(self, job: Job) -> Any:
        self.given = job.data
        return self.result

    def report_of(self, codec: Any, data: bytes, result: Any) -> tuple[Any, ...]:
        self.setUp()
        self.result = result
        self.start(codec=codec)
        self.assign(data=data)
        report, grab = self.server.heard()
        self.assertEqual(grab, GRAB)
        return report[0], report[2]

    def test_data_and_results(self) -> None:
        for codec, data, given, result, payload in (
            ("bytes", b"\xff", b"\xff", b"\xfe", b"\xfe"),
            ("text", "größe".encode(), "größe", "maß", "maß".encode()),
            ("text", b"", "", None, b""),
            ("json", b'{"a": [1, null]}', {"a": [1, None]}, ["ä", 1.5], '["ä",1.5]'.encode()),
            ("json", b"1", 1, None, b"null"),
            (Shout(), b"ab", "ab!", "cd", b"CD"),
        ):
            for outcome in (result, succeed(result)):
                self.assertEqual(self.report_of(codec, data, outcome), ("WORK_COMPLETE", payload))
                self.assertEqual(self.given, given)

    def test_what_cannot_be_decoded_or_encoded_is_the_jobs_failure(self) -> None:
        for codec, data, result, error in (
            ("text", b"\xff", "", UnicodeDecodeError),
            ("text", b"", b"bytes", TypeError),
            ("json", b"{", None, ValueError),
            ("json", b"1", float("nan"), ValueError),
            ("json", b"1", object(), TypeError),
            (Shout(), b"", 7, AttributeError),
        ):
            kind, text = self.report_of(codec, data, result)
            self.assertEqual(kind, "WORK_EXCEPTION")
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.assertTrue(text)

    def test_what_is_sent_on_the_way(self) -> None:
        jobs: list[Job] = []
        self.run_job = lambda job: jobs.append(job) or Deferred()
        self.start(codec="json")
        self.assign(data=b"0")
        jobs[0].send_data({"a": 1})
        jobs[0].send_warning("ä")
        with self.assertRaises(TypeError):
            jobs[0].send_data(object())
        self.assertEqual(
            self.server.heard(),
            [("WORK_DATA", b"H:1", b'{"a":1}'), ("WORK_WARNING", b"H:1", '"ä"'.encode())],
        )

    def test_mistakes(self) -> None:
        with self.assertRaises(ValueError):
            Worker(self.clock, self.endpoint, codec="pickle")  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            Worker(self.clock, self.endpoint, codec=object())  # type: ignore[arg-type]


class TracebackTests(PlayedWorkerTestCase):
    def test_only_if_asked_for(self) -> None:
        async def coroutine(job: Job) -> bytes:
            await succeed(None)
            raise LookupError("größe")

        def plain(job: Job) -> bytes:
            raise LookupError("größe")

        for function in (plain, coroutine):
            for options, lines in (({"tracebacks": True}, True), ({}, False)):
                self.setUp()
                self.run_job = function
                self.start(**options)
                self.assign()
                text, *trace = self.server.heard()[0][2].decode().splitlines()
                self.assertEqual(text, "LookupError: größe")
                self.assertEqual(bool(trace), lines)
                if lines:
                    self.assertIn("Traceback (most recent call last)", trace[0])
                    self.assertIn('raise LookupError("größe")', "\n".join(trace))
                    self.assertIn(function.__name__, "\n".join(trace))
                self.flushLoggedErrors(LookupError)

    def test_it_is_cut(self) -> None:
        self.run_job = lambda job: fail(LookupError("x" * EXCEPTION_BYTES))
        self.start(tracebacks=True)
        self.assign()
        self.assertEqual(len(self.server.heard()[0][2]), EXCEPTION_BYTES)
        self.flushLoggedErrors(LookupError)


class TimeLimitTests(PlayedWorkerTestCase):
    TEXT = b"TimeLimitExceeded: the function ran longer than its time limit of 2.5 seconds"

    def limited(self, function: Any, **options: Any) -> None:
        self.start(**options)
        self.worker.register("slow", function, time_limit=2.5)
        self.assertEqual(self.server.heard(), [("CAN_DO", b"slow")], "the server is not told")
        self.assign(function=b"slow")

    def test_at_the_limit_the_job_fails_and_is_cancelled(self) -> None:
        cancelled: list[str] = []
        waiting: Deferred[bytes] = Deferred()

        async def coroutine(job: Job) -> bytes:
            try:
                return await waiting
            except CancelledError:
                cancelled.append("coroutine")
                raise

        for function in (coroutine, lambda job: Deferred(lambda _: cancelled.append("Deferred"))):
            self.setUp()
            waiting = Deferred()
            self.limited(function, tracebacks=True)
            self.clock.advance(2.4)
            self.assertEqual(self.server.heard(), [])
            with capturedLogs() as logs:
                self.clock.advance(0.1)
            self.assertEqual(self.server.heard(), [("WORK_EXCEPTION", b"H:1", self.TEXT), GRAB])
            self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn], "no defect")
        self.assertEqual(cancelled, ["coroutine", "Deferred"])

    def test_a_server_that_forwards_no_exceptions_is_told_of_a_failure(self) -> None:
        self.limited(lambda job: Deferred(), exceptions=False)
        with capturedLogs():
            self.clock.advance(2.5)
        self.assertEqual(self.server.heard(), [("WORK_FAIL", b"H:1"), GRAB])

    def test_within_the_limit(self) -> None:
        for result in (succeed(b"r"), Deferred(), fail(LookupError())):
            self.setUp()
            self.limited(lambda job, result=result: result, check_interval=None)
            self.clock.advance(2.4)
            if not result.called:
                result.callback(b"r")
            self.assertEqual(len(self.server.heard()), 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(LookupError)

    def test_one_that_will_not_be_cancelled_keeps_its_place(self) -> None:
        stubborn: Deferred[bytes] = Deferred()

        def function(job: Job) -> Deferred[bytes]:
            inner: Deferred[bytes] = Deferred(lambda _: None)
            return inner.addErrback(lambda _: stubborn)

        self.limited(function, check_interval=None)
        with capturedLogs():
            self.clock.advance(2.5)
        self.assertEqual(self.server.heard(), [("WORK_EXCEPTION", b"H:1", self.TEXT)])
        self.clock.advance(100)
        self.assertEqual(self.server.heard(), [])
        stubborn.callback(b"late")
        self.assertEqual(self.server.heard(), [GRAB])

    def test_a_lost_connection_cancels_it_too(self) -> None:
        cancelled: list[Any] = []
        self.limited(lambda job: Deferred(cancelled.append))
        with capturedLogs():
            self.server.lose()
        self.assertEqual(len(cancelled), 1)
        self.clock.advance(100)

    def test_mistakes(self) -> None:
        for limit in (0, -1, float("nan"), float("inf"), MAX_TIMEOUT_MS):
            with self.assertRaises(ValueError):
                self.worker.register("g", self.run_job, time_limit=limit)
