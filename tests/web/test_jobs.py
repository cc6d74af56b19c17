"""Submitting and following jobs over HTTP."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import SilentWorker
from tests.server.stores import ListStore, Thread
from tests.web.asking import Exchange, Web
from txgearman.broker.entities import Worker
from txgearman.broker.job_options import NO_OPTIONS, JobOptions
from txgearman.broker.job_states import JobState
from txgearman.server import Settings
from txgearman.server.persistence.writer import StoreWriter
from txgearman.web import WebSettings
from txgearman.web.http.stream import HEARTBEAT, MAX_UNSENT

JOBS = "/api/v1/functions/f/jobs"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STREAM = {"Accept": "text/event-stream"}


def events(exchange: Exchange) -> list[tuple[str, Any]]:
    """The server-sent events that have come, with their data."""
    found = []
    for block in exchange.response.body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


class JobCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.web = Web(WebSettings(max_data=1000))
        self.broker = self.web.broker
        self.inspection = self.web.inspection
        self.administration = self.web.administration

    def worker(self, *functions: bytes) -> Worker:
        worker = Worker(SilentWorker())
        for function in functions or (b"f",):
            self.broker.can_do(worker, function)
        return worker

    def give(self, worker: Worker) -> bytes:
        job = self.broker.grab(worker)
        assert job is not None
        return job.handle

    def turn(self) -> None:
        self.web.gearman.turn()


class BackgroundTests(JobCase):
    def test_it_is_answered_with_its_handle(self) -> None:
        response = self.web.ask("POST", JOBS + "?background=true&priority=high&unique=u", b"\0\xff data")
        self.assertEqual((response.status, response.json()), (202, {"handle": "H:t:1"}))
        self.assertEqual(response.headers["location"], "/api/v1/jobs/H%3At%3A1")
        self.assertEqual(response.headers["x-gearman-job-handle"], "H:t:1")
        job = self.inspection.job_detail(b"H:t:1")
        self.assertEqual((job.function, job.data, job.unique), (b"f", b"\0\xff data", b"u"))
        self.assertEqual((job.priority, job.background, job.clients), (0, True, 0))

    def test_headers_say_the_same(self) -> None:
        headers = {"X-Gearman-Background": "true", "X-Gearman-Priority": "low", "X-Gearman-Unique": "u"}
        self.assertEqual(self.web.ask("POST", JOBS, b"x", headers=headers).status, 202)
        job = self.inspection.job_detail(b"H:t:1")
        self.assertEqual((job.priority, job.background, job.unique), (2, True, b"u"))

    def test_a_time(self) -> None:
        self.web.ask("POST", JOBS + "?background=true&run_at=500")
        job = self.inspection.job_detail(b"H:t:1")
        self.assertEqual((job.state, job.run_in), (JobState.SCHEDULED, 500.0))

    def test_options_of_the_job(self) -> None:
        expected = JobOptions(60, 5, 0, keep_result=9, unique_for=3600, traceparent=TRACEPARENT)
        query = "&expires=60&attempts=5&backoff=0&keep_result=9&unique_for=3600"
        headers = {
            "X-Gearman-Expires": "60",
            "X-Gearman-Attempts": "5",
            "X-Gearman-Backoff": "0",
            "X-Gearman-Keep-Result": "9",
            "X-Gearman-Unique-For": "3600",
            "traceparent": TRACEPARENT,
        }
        for number, (path, how) in enumerate(
            (
                (JOBS + "?background=true" + query, {"traceparent": TRACEPARENT}),
                (JOBS + "?background=true", headers),
                (JOBS + "?background=true" + query + "&traceparent=" + TRACEPARENT, {"traceparent": "no"}),
                ("/f?background=true", headers),
            ),
            1,
        ):
            with self.subTest(path, how=how):
                self.assertEqual(self.web.ask("POST", path, headers=how).status, 202)
                job = self.broker.life.handles.get(b"H:t:%d" % number)
                assert job is not None
                self.assertEqual(job.options, expected)
                shown = json.loads(self.web.ask("GET", f"/api/v1/jobs/H:t:{number}").body)["options"]
                self.assertEqual(shown, dataclasses.asdict(expected))

    def test_no_options_of_the_job(self) -> None:
        self.web.ask("POST", JOBS + "?background=true")
        shown = json.loads(self.web.ask("GET", "/api/v1/jobs/H:t:1").body)["options"]
        self.assertEqual(shown, dataclasses.asdict(NO_OPTIONS))

    def test_a_traceparent_that_is_malformed_is_ignored(self) -> None:
        for header in ("", "00-x", "\xff", TRACEPARENT + "x" * 1000):
            response = self.web.ask("POST", JOBS + "?background=true", headers={"traceparent": header})
            self.assertEqual(response.status, 202, header[:70])
        self.assertEqual({job.options for _, job in self.broker.life.handles}, {None})

    def test_any_bytes_name_a_function(self) -> None:
        self.web.ask("POST", "/api/v1/functions/a%2Fb%20%ff/jobs?background=true")
        self.assertEqual(self.inspection.job_detail(b"H:t:1").function, b"a/b \xff")

    def test_a_form_is_data_too(self) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self.web.ask("POST", JOBS + "?background=true", b"a=b&background=false", headers=headers)
        self.assertEqual(self.inspection.job_detail(b"H:t:1").data, b"a=b&background=false")

    def test_refusals(self) -> None:
        self.administration.set_limits(b"f", (1, 1, 1))
        self.web.ask("POST", JOBS + "?background=true")
        response = self.web.ask("POST", JOBS + "?background=true")
        self.assertEqual((response.status, response.code), (429, "queue-error"))
        self.administration.drain()
        response = self.web.ask("POST", "/api/v1/functions/g/jobs?background=true")
        self.assertEqual((response.status, response.code), (503, "shutting-down"))

    def test_wrong_requests(self) -> None:
        for query, code in (
            ("?background=yes", "bad-parameter"),
            ("?priority=urgent", "bad-parameter"),
            ("?run_at=-1&background=true", "bad-parameter"),
            ("?timeout=0", "bad-parameter"),
            ("?attempts=0", "bad-parameter"),
            ("?attempts=1001", "bad-parameter"),
            ("?expires=315360001", "bad-parameter"),
            ("?backoff=0.5", "bad-parameter"),
            ("?unique_for=-1", "bad-parameter"),
            ("?unique=" + "u" * 65, "bad-parameter"),
            ("?unique=%00", "bad-name"),
            ("?unique=a&unique=b", "bad-parameter"),
            ("?nice=1", "unknown-parameter"),
        ):
            response = self.web.ask("POST", JOBS + query)
            self.assertEqual((response.status, response.code), (400, code), query)
        response = self.web.ask("POST", f"/api/v1/functions/{'f' * 513}/jobs")
        self.assertEqual((response.status, response.code), (400, "argument-too-large"))
        self.assertEqual(self.broker.total, 0)


class ForegroundTests(JobCase):
    def test_the_result_is_the_answer(self) -> None:
        exchange = self.web.begin("POST", JOBS, b"abc")
        worker = self.worker()
        handle = self.give(worker)
        self.broker.report_data(worker, handle, b"one ")
        self.turn()
        self.assertEqual(exchange.response.status, 0)
        self.broker.complete(worker, handle, b"\xfftwo")
        self.turn()
        response = exchange.response
        self.assertEqual((response.status, response.body), (200, b"one \xfftwo"))
        self.assertEqual(response.headers["content-type"], "application/octet-stream")
        self.assertEqual(response.headers["x-gearman-job-handle"], handle.decode())
        self.assertEqual(response.headers["x-gearman-command"], "WORK_COMPLETE")

    def test_one_that_may_be_the_same_as_a_job_in_the_store(self) -> None:
        self.web = Web(WebSettings(), Settings(store_ahead=1))
        server, thread = self.web.gearman.server, Thread()
        store_writer = StoreWriter(ListStore(), self.web.gearman.clock, thread)
        server.use_store(store_writer, store_writer.open("this", 10))
        store_writer.load(server.broker)
        for _ in range(3):
            self.web.begin("POST", JOBS + "?background=true")
        thread.run_all()
        self.assertTrue(server.inspection.may_have_stored_jobs)
        exchange = self.web.begin("POST", JOBS + "?unique=u")
        self.assertEqual(len(thread.calls), 1)
        thread.run()
        self.assertEqual(thread.calls, [], "it is looked for once")
        worker = Worker(SilentWorker())
        server.broker.can_do(worker, b"f")
        while (job := server.broker.grab(worker)) is not None:
            server.broker.complete(worker, job.handle, b"done")
            thread.run_all()
        self.turn()
        self.assertEqual(exchange.response.body, b"done")

    def test_failures_are_problems(self) -> None:
        for what, values, code in (("fail", (), "job-failed"), ("exception", (b"boom \xff",), "job-raised")):
            exchange = self.web.begin("POST", JOBS)
            worker = self.worker()
            getattr(self.broker, what)(worker, self.give(worker), *values)
            self.turn()
            self.assertEqual((exchange.response.status, exchange.response.code), (502, code))
        self.assertIn("boom \\xff", exchange.response.json()["detail"])

    def test_a_client_that_leaves_takes_its_waiting_job_along(self) -> None:
        exchange = self.web.begin("POST", JOBS)
        self.assertEqual(self.broker.total, 1)
        exchange.leave()
        self.assertEqual(self.broker.total, 0)

    def test_a_running_job_goes_on_without_its_client(self) -> None:
        exchange = self.web.begin("POST", JOBS)
        worker = self.worker()
        handle = self.give(worker)
        exchange.leave()
        self.broker.complete(worker, handle, b"")
        self.turn()
        self.assertEqual(exchange.response.status, 0)

    def test_a_time_limit(self) -> None:
        exchange = self.web.begin("POST", JOBS + "?timeout=5")
        self.web.gearman.turn(4.9)
        self.assertEqual(exchange.response.status, 0)
        self.web.gearman.turn(0.2)
        self.assertEqual((exchange.response.status, exchange.response.code), (504, "timed-out"))
        self.assertEqual(self.broker.total, 0)

    def test_parts_of_a_result_are_kept_up_to_the_limit(self) -> None:
        exchange = self.web.begin("POST", JOBS)
        worker = self.worker()
        handle = self.give(worker)
        self.broker.report_data(worker, handle, b"x" * 1000)
        self.turn()
        self.assertEqual(exchange.response.status, 0)
        self.broker.report_data(worker, handle, b"x")
        self.turn()
        self.assertEqual((exchange.response.status, exchange.response.code), (502, "result-too-large"))

    def test_requests_in_a_row_on_one_connection(self) -> None:
        """The end of one lets the next in, in the middle of nothing."""
        exchange = self.web.begin("POST", JOBS)
        exchange.send(b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
        worker = self.worker()
        self.broker.complete(worker, self.give(worker), b"first")
        self.turn()
        self.assertEqual(self.broker.total, 1)
        self.broker.complete(worker, self.give(worker), b"second")
        self.turn()
        self.assertTrue(exchange.transport.value().endswith(b"second"))


class StreamTests(JobCase):
    def test_everything_the_worker_sends(self) -> None:
        exchange = self.web.begin("POST", JOBS, headers=STREAM)
        self.assertEqual(exchange.response.headers["content-type"], "text/event-stream")
        worker = self.worker()
        handle = self.give(worker)
        self.broker.report_data(worker, handle, "grün\n\ndata: x".encode())
        self.broker.report_warning(worker, handle, b"\xff")
        self.broker.report_status(worker, handle, b"1.5", b"9")
        self.broker.complete(worker, handle, b"done")
        self.turn()
        self.assertEqual(
            events(exchange),
            [
                ("created", {"handle": "H:t:1"}),
                ("data", {"encoding": "utf-8", "data": "grün\n\ndata: x"}),
                ("warning", {"encoding": "base64", "data": "/w=="}),
                ("status", {"numerator": 1, "denominator": 9}),
                ("complete", {"encoding": "utf-8", "data": "done"}),
            ],
        )
        self.assertTrue(exchange.transport.value().endswith(b"0\r\n\r\n"))

    def test_failures_and_time_limits(self) -> None:
        failed = self.web.begin("POST", JOBS + "?timeout=9", headers=STREAM)
        worker = self.worker()
        self.broker.fail(worker, self.give(worker))
        late = self.web.begin("POST", JOBS + "?timeout=9", headers=STREAM)
        self.web.gearman.turn(10)
        self.assertEqual(events(failed)[-1], ("fail", {}))
        self.assertEqual(events(late)[-1], ("timeout", {}))
        self.assertEqual(self.broker.total, 0)

    def test_a_refusal_is_a_problem_and_no_stream(self) -> None:
        self.administration.set_limits(b"f", (1, 1, 1))
        self.web.ask("POST", JOBS + "?background=true")
        self.assertEqual(self.web.ask("POST", JOBS, headers=STREAM).code, "queue-error")

    def test_a_job_of_somebody_else(self) -> None:
        self.web.ask("POST", JOBS + "?background=true")
        exchange = self.web.begin("GET", "/api/v1/jobs/H%3At%3A1/events")
        worker = self.worker()
        self.broker.complete(worker, self.give(worker), b"result")
        self.turn()
        self.assertEqual(events(exchange), [("complete", {"encoding": "utf-8", "data": "result"})])

    def test_who_stops_to_follow_a_background_job_does_not_end_it(self) -> None:
        self.web.ask("POST", JOBS + "?background=true")
        self.web.begin("GET", "/api/v1/jobs/H%3At%3A1/events").leave()
        self.assertEqual((self.broker.total, self.inspection.job_detail(b"H:t:1").clients), (1, 0))

    def test_signs_of_life(self) -> None:
        exchange = self.web.begin("POST", JOBS, headers=STREAM)
        before = len(exchange.transport.value())
        self.web.gearman.turn(HEARTBEAT + 1)
        self.assertGreater(len(exchange.transport.value()), before)
        exchange.leave()
        self.assertEqual(self.web.gearman.clock.getDelayedCalls(), [])

    def test_a_reader_that_does_not_read_is_dropped(self) -> None:
        exchange = self.web.begin("POST", JOBS, headers=STREAM)
        worker = self.worker()
        handle = self.give(worker)
        exchange.transport.producer.pauseProducing()
        written = len(exchange.transport.value())
        for _ in range(MAX_UNSENT // 1_000_000):
            self.broker.report_data(worker, handle, b"x" * 1_000_000)
            self.turn()
        self.assertEqual(len(exchange.transport.value()), written)
        self.assertFalse(exchange.response.closed)
        self.broker.report_data(worker, handle, b"x" * 1_000_000)
        self.turn()
        self.assertTrue(exchange.response.closed)
        self.assertEqual(self.inspection.job_detail(handle).clients, 0)

    def test_a_reader_that_reads_again_gets_all(self) -> None:
        exchange = self.web.begin("POST", JOBS, headers=STREAM)
        worker = self.worker()
        handle = self.give(worker)
        exchange.transport.producer.pauseProducing()
        for number in range(3):
            self.broker.report_data(worker, handle, b"%d" % number)
            self.turn()
        exchange.transport.producer.resumeProducing()
        self.assertEqual([data["data"] for what, data in events(exchange) if what == "data"], ["0", "1", "2"])


class GearmandStyleTests(JobCase):
    def test_the_path_is_the_function(self) -> None:
        for method in ("POST", "PUT"):
            exchange = self.web.begin(method, "/a/b%20c", b"abc")
            worker = self.worker(b"a/b c")
            self.broker.complete(worker, self.give(worker), b"cba")
            self.turn()
            self.assertEqual((exchange.response.status, exchange.response.body), (200, b"cba"))

    def test_without_a_unique_the_same_data_is_the_same_job(self) -> None:
        headers = {"X-Gearman-Background": "true"}
        handles = {self.web.ask("POST", "/f", b"same", headers=headers).json()["handle"] for _ in range(2)}
        self.assertEqual(len(handles), 1)

    def test_reading_a_path_submits_nothing(self) -> None:
        self.assertEqual(self.web.get("/f").status, 404)
        self.assertEqual(self.broker.total, 0)

    def test_paths_of_the_server_are_no_functions(self) -> None:
        self.assertEqual(self.web.ask("POST", "/api/v1/nothing", b"x").status, 404)
        self.assertEqual(self.web.ask("POST", "/", b"x").status, 405)
        self.assertEqual(self.broker.total, 0)
