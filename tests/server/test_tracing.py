"""Traces of jobs: the spans that are made of their ways, and how they get to a collector."""

from __future__ import annotations

import gzip
import logging
import signal
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.interop.programs import HOST, assert_no_traceback
from tests.server.lines import close, connect
from tests.server.peers import req, res
from tests.server.test_twistd import twistd
from tests.support import free_port, on_reactor
from txgearman.broker.entities import Function, Job
from txgearman.broker.job_extras import JobExtras
from txgearman.broker.job_options import JobOptions
from txgearman.broker.job_states import Outcome
from txgearman.server import GearmanServerFactory, Settings, make_service
from txgearman.wire.codec import encode
from txgearman.wire.options import SUBMIT_EXTENDED
from txgearman.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    OPTION_REQ,
    REQUEST,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EXTENDED,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
)

INSTALLED = find_spec("opentelemetry") is not None

if INSTALLED:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import StatusCode

    from txgearman.server.monitoring.tracing import LOG_INTERVAL, STOP_TIMEOUT, Traces, traces_url

WALL = 1_700_000_000.0
NS = 1_000_000_000
URL = "http://127.0.0.1:1"


class ThreadClock(Clock):
    """A clock to which threads may hand calls; they are made when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.handed.append(call)


def job_of(handle: bytes = b"H:t:1", submitted: float = WALL, options: JobOptions | None = None) -> Job:
    """A job of a function whose name is no text."""
    function = Function(b"a\\\xff", ((0, 1, 2),))
    return Job(handle, function, b"", b"", 0, True, submitted, JobExtras(None, WALL + 5.0, options))


def join() -> None:
    """Wait for the threads that end the sending of spans."""
    for thread in threading.enumerate():
        if thread.name == "txgearman-traces":
            thread.join(10.0)


@unittest.skipUnless(INSTALLED, "not installed: opentelemetry")
class SpanTests(SynchronousTestCase):
    """The spans of jobs on a server that is fed by hand."""

    def setUp(self) -> None:
        self.start()

    def start(self, ratio: float = 1.0, **settings: Any) -> None:
        self.clock = ThreadClock()
        self.exporter = InMemorySpanExporter()
        self.traces = Traces(self.clock, URL, ratio, lambda _url: SimpleSpanProcessor(self.exporter))
        self.traces.start()
        self.addCleanup(join)
        self.addCleanup(self.traces.stop)
        self.factory = GearmanServerFactory(
            self.clock,
            Settings(handle_prefix="H:t", **settings),
            wall_clock=lambda: WALL + self.clock.seconds(),
            follower=self.traces,
        )
        self.client, self.worker = self.connect(), self.connect()
        self.say(self.worker, CAN_DO, b"resize")

    def connect(self) -> Any:
        connection = self.factory.buildProtocol(None)
        connection.makeConnection(StringTransport())
        return connection

    def say(self, connection: Any, kind: int, *fields: bytes) -> None:
        connection.dataReceived(encode(REQUEST, kind, fields))
        self.clock.advance(0)

    def submit(self, kind: int = SUBMIT_JOB_BG, data: bytes = b"secret") -> None:
        self.say(self.client, kind, b"resize", b"a unique", data)

    def run_one(self) -> None:
        """A job waits for a second and runs for two."""
        self.submit()
        self.clock.advance(1.0)
        self.say(self.worker, GRAB_JOB)
        self.clock.advance(2.0)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def lines(self) -> list[tuple[str, float, float, str]]:
        """Name, begin and end in seconds, and status of each span."""
        return [
            (
                span.name,
                (span.start_time or 0) / NS - WALL,
                (span.end_time or 0) / NS - WALL,
                span.status.status_code.name,
            )
            for span in self.spans()
        ]

    def endings(self) -> list[object]:
        return [(span.attributes or {}).get("gearman.outcome") for span in self.spans()]

    def test_completed(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_COMPLETE, b"H:t:1", b"result")
        expected = [
            ("wait resize", 0.0, 1.0, "UNSET"),
            ("process resize", 1.0, 3.0, "UNSET"),
            ("job resize", 0.0, 3.0, "UNSET"),
        ]
        self.assertEqual(self.lines(), expected)
        self.assertEqual(self.endings(), [None, "completed", "completed"])

    def test_they_are_one_trace(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_COMPLETE, b"H:t:1", b"")
        wait, process, job = self.spans()
        self.assertIsNone(job.parent)
        for step in (wait, process):
            assert step.parent is not None
            self.assertEqual(step.parent.span_id, job.context.span_id)
            self.assertEqual(step.context.trace_id, job.context.trace_id)
        self.run_one()
        self.say(self.worker, WORK_COMPLETE, b"H:t:2", b"")
        self.assertEqual(len({span.context.span_id for span in self.spans()}), 6)
        self.assertEqual(len({span.context.trace_id for span in self.spans()}), 2)

    def test_attributes(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_COMPLETE, b"H:t:1", b"")
        common = {
            "messaging.system": "gearman",
            "messaging.destination.name": "resize",
            "messaging.message.id": "H:t:1",
        }
        wait, process, job = (dict(span.attributes or {}) for span in self.spans())
        self.assertEqual(wait, {**common, "messaging.operation.name": "wait"})
        running = {"messaging.operation.name": "process", "gearman.run": 1, "gearman.outcome": "completed"}
        self.assertEqual(process, {**common, **running})
        self.assertEqual(
            job,
            {
                **common,
                "messaging.operation.name": "job",
                "messaging.message.body.size": 6,
                "gearman.priority": "normal",
                "gearman.background": True,
                "gearman.runs": 1,
                "gearman.outcome": "completed",
            },
        )

    def test_neither_data_nor_unique_leave_the_server(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_EXCEPTION, b"H:t:1", b"secret")
        written = "".join(span.to_json() for span in self.spans())
        self.assertNotIn("secret", written)
        self.assertNotIn("a unique", written)

    def test_failed(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_FAIL, b"H:t:1")
        self.assertEqual([line[3] for line in self.lines()], ["UNSET", "ERROR", "ERROR"])
        self.assertEqual(self.endings(), [None, "failed", "failed"])
        self.assertEqual((self.spans()[2].attributes or {})["error.type"], "failed")

    def test_exception(self) -> None:
        self.run_one()
        self.say(self.worker, WORK_EXCEPTION, b"H:t:1", b"why")
        self.assertEqual([line[3] for line in self.lines()], ["UNSET", "ERROR", "ERROR"])
        self.assertEqual(self.endings(), [None, "raised", "raised"])

    def test_a_worker_lost_it_and_another_did_it(self) -> None:
        self.run_one()
        self.worker.connectionLost()
        self.clock.advance(1.0)
        other = self.connect()
        self.say(other, CAN_DO, b"resize")
        self.say(other, GRAB_JOB)
        self.say(other, WORK_COMPLETE, b"H:t:1", b"")
        expected = [
            ("wait resize", 0.0, 1.0, "UNSET"),
            ("process resize", 1.0, 3.0, "ERROR"),
            ("wait resize", 3.0, 4.0, "UNSET"),
            ("process resize", 4.0, 4.0, "UNSET"),
            ("job resize", 0.0, 4.0, "UNSET"),
        ]
        self.assertEqual(self.lines(), expected)
        self.assertEqual(self.endings(), [None, "lost", None, "completed", "completed"])
        self.assertEqual((self.spans()[4].attributes or {})["gearman.runs"], 2)

    def test_lost(self) -> None:
        self.start(job_retries=1)
        self.run_one()
        self.worker.connectionLost()
        self.assertEqual([line[3] for line in self.lines()], ["UNSET", "ERROR", "ERROR"])
        self.assertEqual(self.endings(), [None, "lost", "lost"])

    def test_cancelled(self) -> None:
        self.submit()
        self.factory.broker.cancel(b"H:t:1")
        self.assertEqual([line[3] for line in self.lines()], ["UNSET", "UNSET"])
        self.assertEqual(self.endings(), [None, "cancelled"])

    def test_abandoned(self) -> None:
        self.submit(SUBMIT_JOB)
        self.client.connectionLost()
        self.assertEqual([line[3] for line in self.lines()], ["UNSET", "UNSET"])
        self.assertEqual(self.endings(), [None, "abandoned"])
        self.assertIs((self.spans()[1].attributes or {})["gearman.background"], False)

    def test_not_saved(self) -> None:
        self.traces.ended(job_of(), 0, WALL + 1.0, Outcome.NOT_SAVED)
        self.assertEqual(self.endings(), ["not-saved"])
        self.assertIs(self.spans()[0].status.status_code, StatusCode.ERROR)

    def test_a_name_of_any_bytes(self) -> None:
        self.traces.ended(job_of(), 0, WALL + 1.0, None)
        (span,) = self.spans()
        self.assertEqual(span.name, "job a\\\\xff")
        self.assertEqual((span.attributes or {})["gearman.priority"], "high")
        self.assertEqual((span.attributes or {})["gearman.run_at"], WALL + 5.0)

    def ids(self, job: Job) -> tuple[int, int]:
        """The ids of a job's trace and span on a server that has just started."""
        self.start()
        self.traces.ended(job, 0, WALL, None)
        (span,) = self.spans()
        return span.context.trace_id, span.context.span_id

    def test_the_same_job_is_the_same_trace_on_every_server(self) -> None:
        ids = self.ids(job_of())
        self.assertEqual(self.ids(job_of()), ids)
        self.assertNotEqual(self.ids(job_of(b"H:t:2")), ids)
        # Without a store handles begin anew with each start.
        self.assertNotEqual(self.ids(job_of(submitted=WALL + 0.25)), ids)

    def test_the_ratio_is_that_of_the_jobs(self) -> None:
        handles = [b"H:somewhere.example:%d" % number for number in range(1, 20_001)]
        for ratio, least, most in (
            (0.0, 0, 0),
            (0.01, 150, 250),
            (0.5, 9_800, 10_200),
            (1.0, 20_000, 20_000),
        ):
            traces = Traces(self.clock, URL, ratio)
            jobs = map(job_of, handles)
            self.assertTrue(least <= sum(map(traces.follows, jobs)) <= most, ratio)

    def test_the_trace_of_the_client_goes_on(self) -> None:
        trace, span = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
        self.say(self.client, OPTION_REQ, SUBMIT_EXTENDED)
        traceparent = b"traceparent=00-%032x-%016x-01" % (trace, span)
        self.say(self.client, SUBMIT_JOB_EXTENDED, b"resize", b"", traceparent + b"\nbackground=1", b"")
        self.say(self.worker, GRAB_JOB)
        self.say(self.worker, WORK_COMPLETE, b"H:t:1", b"")
        spans = {each.name: each for each in self.spans()}
        self.assertEqual(spans.keys(), {"wait resize", "process resize", "job resize"})
        self.assertEqual({each.context.trace_id for each in spans.values()}, {trace})
        job = spans["job resize"]
        assert job.parent is not None
        self.assertEqual((job.parent.trace_id, job.parent.span_id), (trace, span))
        self.assertTrue(job.parent.is_remote)
        for name in ("wait resize", "process resize"):
            parent = spans[name].parent
            assert parent is not None
            self.assertEqual(parent.span_id, job.context.span_id)

    def test_with_a_trace_of_its_own_the_client_decides_whether_the_job_is_followed(self) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
        for flags, followed in (("01", True), ("03", True), ("00", False), ("02", False)):
            job = job_of(options=JobOptions(traceparent=trace + flags))
            for ratio in (0.0, 1.0):
                self.assertEqual(Traces(self.clock, URL, ratio).follows(job), followed)
        # Options without a trace change nothing.
        self.assertTrue(Traces(self.clock, URL, 1.0).follows(job_of(options=JobOptions(attempts=2))))
        self.assertFalse(Traces(self.clock, URL, 0.0).follows(job_of(options=JobOptions(attempts=2))))

    def test_sampling_of_opentelemetry_is_not_done_on_top(self) -> None:
        with patch.dict("os.environ", {"OTEL_TRACES_SAMPLER": "always_off"}):
            self.start()
        self.run_one()
        self.assertEqual(len(self.spans()), 1)

    def test_the_name_of_the_service(self) -> None:
        for environment, expected in (
            ({}, "txgearman"),
            ({"OTEL_SERVICE_NAME": "jobs"}, "jobs"),
            ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=more,a=b"}, "more"),
        ):
            with patch.dict("os.environ", environment):
                self.start()
            self.run_one()
            attributes = self.spans()[0].resource.attributes
            self.assertEqual(attributes["service.name"], expected)
            self.assertIn("service.version", attributes)


@unittest.skipUnless(INSTALLED, "not installed: opentelemetry")
class LifeTests(SynchronousTestCase):
    """Starting, stopping, and a collector that is not there."""

    def setUp(self) -> None:
        self.clock = ThreadClock()

    def handlers(self) -> int:
        return len(logging.getLogger("opentelemetry").handlers)

    def test_the_url(self) -> None:
        self.assertEqual(traces_url("http://here:4318"), "http://here:4318/v1/traces")
        self.assertEqual(traces_url("http://here:4318/"), "http://here:4318/v1/traces")
        self.assertEqual(traces_url("https://here/our/traces"), "https://here/our/traces")

    def test_stopping_waits_for_the_last_spans_in_a_thread_of_its_own(self) -> None:
        threads = []

        class Processor(SpanProcessor):
            def shutdown(self) -> None:
                threads.append(threading.current_thread())

        traces = Traces(self.clock, URL, 1.0, lambda _url: Processor())
        before = self.handlers()
        traces.start()
        self.assertEqual(self.handlers(), before + 1)
        stopped = traces.stop()
        join()
        self.assertNoResult(stopped)
        self.clock.handed.pop()()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(threads)
        self.assertIsNot(threads[0], threading.current_thread())
        self.assertEqual(self.handlers(), before)
        self.successResultOf(traces.stop())

    def test_stopping_does_not_take_for_ever(self) -> None:
        release = threading.Event()

        class Processor(SpanProcessor):
            def shutdown(self) -> None:
                release.wait(60.0)

        traces = Traces(self.clock, URL, 1.0, lambda _url: Processor())
        traces.start()
        with capturedLogs() as logged:
            stopped = traces.stop()
            self.clock.advance(STOP_TIMEOUT - 0.1)
            self.assertNoResult(stopped)
            self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual([event["log_level"] for event in logged], [LogLevel.warn])
        release.set()
        join()
        # What comes too late changes nothing.
        self.clock.handed.pop()()

    def test_it_can_be_started_again(self) -> None:
        exporter = InMemorySpanExporter()
        traces = Traces(self.clock, URL, 1.0, lambda _url: SimpleSpanProcessor(exporter))
        job = job_of()
        traces.ended(job, 0, WALL, None)
        traces.start()
        traces.ended(job, 0, WALL, None)
        traces.stop()
        join()
        traces.ended(job, 0, WALL, None)
        self.assertEqual(len(exporter.get_finished_spans()), 1)
        exporter = InMemorySpanExporter()
        traces.start()
        traces.ended(job, 0, WALL, None)
        self.assertEqual(len(exporter.get_finished_spans()), 1)
        traces.stop()
        join()

    def test_what_opentelemetry_warns_of_is_told_seldom(self) -> None:
        now = [0.0]
        with patch("txgearman.server.monitoring.tracing.time.monotonic", lambda: now[0]):
            traces = Traces(self.clock, URL, 1.0, lambda _url: SpanProcessor())
            traces.start()
            theirs = logging.getLogger("opentelemetry.exporter.anything")
            with capturedLogs() as logged:
                theirs.info("nothing")
                for _ in range(3):
                    theirs.warning("collector %s", "down")
                now[0] += LOG_INTERVAL - 0.1
                theirs.warning("down as ever")
                now[0] += 0.1
                theirs.error("still down")
        traces.stop()
        join()
        texts = [event["log_format"].format(**event) for event in logged if "what" in event]
        self.assertEqual(texts, ["Traces: collector down", "Traces: still down; 4 since the last such line"])

    def test_a_missing_package_is_named(self) -> None:
        with patch.dict(sys.modules, {"opentelemetry.sdk.trace": None}):
            del sys.modules["txgearman.server.monitoring.tracing"]
            with self.assertRaisesRegex(ValueError, r"pip install 'txgearman\[opentelemetry\]'"):
                make_service(Settings(traces=URL), reactor=MemoryReactorClock())


class OptionTests(SynchronousTestCase):
    def test_what_is_no_collector(self) -> None:
        for url in ("", "here:4318", "grpc://here:4317", "http://", "http://[::1", "http://here:x"):
            with self.assertRaisesRegex(ValueError, "traces must be a URL"):
                Settings(traces=url)

    def test_no_password_in_the_url(self) -> None:
        with self.assertRaisesRegex(ValueError, "OTEL_EXPORTER_OTLP_HEADERS"):
            Settings(traces="http://me:secret@here")

    def test_the_ratio_is_one_of_all_at_most(self) -> None:
        for ratio in (-0.1, 1.1):
            with self.assertRaisesRegex(ValueError, "traces-ratio"):
                Settings(traces_ratio=ratio)


class OffTests(SynchronousTestCase):
    def test_nothing_is_loaded_and_nobody_follows(self) -> None:
        code = (
            "import sys\n"
            "from twisted.internet.testing import MemoryReactorClock\n"
            "import txgearman.server.process.twistd, txgearman.broker.broker\n"
            "from txgearman.server import Settings, make_service\n"
            "service = make_service(Settings(web='8080'), reactor=MemoryReactorClock())\n"
            "assert type(service.factory.broker) is txgearman.broker.broker.Broker\n"
            "service.startService()\n"
            "loaded = [name for name in sys.modules if name.startswith(('opentelemetry', 'google'))]\n"
            "assert not loaded, loaded\n"
            "assert 'txgearman.server.monitoring.tracing' not in sys.modules\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)


class Collector(Resource):
    """A collector that keeps what it gets, or answers with `code`."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[bytes, dict[bytes, list[bytes]], bytes]] = []
        self.code = 200

    def render_POST(self, request: Any) -> bytes:
        body = request.content.read()
        if request.getHeader("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.requests.append((request.path, dict(request.requestHeaders.getAllRawHeaders()), body))
        request.setResponseCode(self.code)
        return b""


@unittest.skipUnless(INSTALLED, "not installed: opentelemetry")
class TwistdTests(TestCase):
    """A real server, and a collector that is there or not."""

    async def do_jobs(self, port: int) -> None:
        client, worker = await connect(port), await connect(port)
        handle = (await client.say(req(7, b"resize", b"", b"secret")))[12:]
        await worker.say(req(1, b"resize"), req(9))
        await worker.say(req(13, handle, b"done"))
        await client.heard(res(13, handle, b"done"))
        await close(client, worker)

    @on_reactor
    async def test_spans_reach_the_collector(self) -> None:
        from twisted.internet import reactor

        collector, port = Collector(), free_port()
        site = Site(collector)
        listening = await TCP4ServerEndpoint(reactor, port, interface=HOST).listen(site)
        try:
            options = (f"--traces=http://{HOST}:{port}", "--traces-ratio=1")
            environment = {"OTEL_SERVICE_NAME": "jobs", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=abc"}
            with patch.dict("os.environ", environment):
                async with twistd(*options) as server:
                    await self.do_jobs(server.port)
                    # The end sends what is left.
                    server.signal(signal.SIGTERM)
                    self.assertEqual(await server.program.ended(), 0)
                    assert_no_traceback(server.log)
        finally:
            await listening.stopListening()
            for channel in list(getattr(site, "_channels", ())):
                channel.abortConnection()
        self.assertTrue(collector.requests)
        spans = []
        for path, headers, body in collector.requests:
            self.assertEqual(path, b"/v1/traces")
            self.assertEqual(headers[b"Content-Type"], [b"application/x-protobuf"])
            self.assertEqual(headers[b"X-Key"], [b"abc"])
            self.assertNotIn(b"secret", body)
            message = ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                self.assertEqual(attributes["service.name"], "jobs")
                spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.assertEqual([span.name for span in spans], ["wait resize", "process resize", "job resize"])
        job = spans[-1]
        self.assertEqual([span.parent_span_id for span in spans], [job.span_id, job.span_id, b""])
        self.assertEqual({span.trace_id for span in spans}, {job.trace_id})

    @on_reactor
    async def test_a_collector_that_is_down_costs_nothing_but_a_line_of_the_log(self) -> None:
        options = (f"--traces=http://{HOST}:{free_port()}", "--traces-ratio=1")
        with patch.dict("os.environ", {"OTEL_BSP_SCHEDULE_DELAY": "10"}):
            async with twistd(*options) as server:
                await self.do_jobs(server.port)
                await server.program.wrote(b"Traces: ")
                await self.do_jobs(server.port)
                server.signal(signal.SIGTERM)
                self.assertEqual(await server.program.ended(), 0)
                assert_no_traceback(server.log)
                lines = [line for line in server.log.splitlines() if "ransient" in line or "xport" in line]
                self.assertEqual(len(lines), 1, server.log)
