"""Very many background jobs by one request over HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import SilentWorker
from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.web.asking import Exchange, Web
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.broker.entities import Worker
from txgearman.server import Settings
from txgearman.server.persistence.writer import StoreWriter
from txgearman.web import WebSettings
from txgearman.web.api.bulk import MAX_UNANSWERED, SLICE_BYTES, SLICE_LINES
from txgearman.web.http.body import STALLED

JOBS = "/api/v1/functions/f/jobs"
LINES = {"Content-Type": "application/x-ndjson; charset=utf-8"}


def lines_of(*jobs: dict[str, Any] | str) -> bytes:
    """A body with a line for each job; a str is a line as it stands."""
    return b"".join((job if isinstance(job, str) else json.dumps(job)).encode() + b"\n" for job in jobs)


def answers(exchange: Exchange) -> list[dict[str, Any]]:
    """The answers that have come."""
    return [json.loads(line) for line in exchange.response.body.splitlines()]


def codes(exchange: Exchange) -> list[str]:
    """The code of each answer, which is ``accepted`` where it has a handle."""
    return [answer.get("code", "accepted") for answer in answers(exchange)]


class BulkCase(SynchronousTestCase):
    server = Settings(handle_prefix="H:t")

    def setUp(self) -> None:
        self.web = Web(WebSettings(max_data=SLICE_BYTES * 20), server=self.server)

    def submit(self, *jobs: dict[str, Any] | str, query: str = "") -> Exchange:
        return self.web.begin("POST", JOBS + query, lines_of(*jobs), headers=LINES)

    def jobs(self) -> list[tuple[bytes, bytes, bytes]]:
        """Handle, unique and data of all jobs, as a worker gets them."""
        worker = Worker(SilentWorker())
        self.web.broker.can_do(worker, b"f")
        found = []
        while (job := self.web.broker.grab(worker)) is not None:
            found.append((job.handle, job.unique, job.data))
        return found


class LineTests(BulkCase):
    def test_each_line_is_a_job_and_has_an_answer_in_its_order(self) -> None:
        exchange = self.submit({"data": "one"}, {"data": "zwölf"}, {"data": "AP8=", "encoding": "base64"}, {})
        self.assertEqual(exchange.response.status, 200)
        self.assertEqual(exchange.response.headers["content-type"], "application/x-ndjson")
        handles = [answer["handle"].encode() for answer in answers(exchange)]
        data = [b"one", "zwölf".encode(), b"\0\xff", b""]
        self.assertEqual(self.jobs(), list(zip(handles, [b""] * 4, data, strict=True)))

    def test_the_connection_goes_on(self) -> None:
        exchange = self.submit({"data": "one"})
        exchange.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        self.assertEqual(exchange.answers, 2)

    def test_what_a_line_says_comes_before_what_the_request_says(self) -> None:
        self.submit(
            {"data": "request's"},
            {"data": "own", "unique": "u", "priority": "high"},
            query="?priority=low&attempts=3",
        )
        self.assertEqual(
            [(unique, data) for _, unique, data in self.jobs()], [(b"u", b"own"), (b"", b"request's")]
        )

    def test_a_time_to_run_at(self) -> None:
        self.web.gearman.clock.advance(1000)
        self.submit({"data": "later", "run_at": int(self.web.gearman.clock.seconds()) + 60}, {"data": "now"})
        self.assertEqual([data for *_, data in self.jobs()], [b"now"])
        self.web.gearman.turn(61)
        self.assertEqual([data for *_, data in self.jobs()], [b"later"])

    def test_duplicates_have_one_handle(self) -> None:
        first, second = answers(self.submit({"unique": "u", "data": "1"}, {"unique": "u", "data": "2"}))
        self.assertEqual(first, second)

    def test_empty_lines_have_no_answer(self) -> None:
        self.assertEqual(codes(self.submit("", {"data": "x"}, "  ", "")), ["accepted"])
        self.assertEqual(codes(self.web.begin("POST", JOBS, b"", headers=LINES)), [])

    def test_the_last_line_needs_no_end(self) -> None:
        exchange = self.web.begin("POST", JOBS, b'{"data":"a"}\n{"data":"b"}', headers=LINES)
        self.assertEqual(codes(exchange), ["accepted"] * 2)

    def test_a_wrong_line_is_refused_and_the_others_are_not(self) -> None:
        wrong: dict[str | int, str] = {
            "{": "bad-json",
            "[]": "bad-json",
            "[" * 10_000: "bad-json",
            '{"data":1}': "bad-data",
            '{"data":"%"  ,"encoding":"base64"}': "bad-data",
            '{"data":"x","encoding":"latin-1"}': "bad-data",
            '{"data":"\\ud800"}': "bad-data",
            '{"background":"true"}': "bad-member",
            '{"unique":1}': "bad-parameter",
            '{"unique":"\\u0000"}': "bad-name",
            '{"unique":"\\ud800"}': "bad-parameter",
            '{"priority":"\\udfff"}': "bad-parameter",
            '{"traceparent":"\\ud800"}': "bad-parameter",
            '{"\\ud800":1}': "bad-member",
            '{"data":"x"} {}': "bad-json",
            '"x"': "bad-json",
            '{"unique":"%s"}' % ("x" * 1000): "bad-parameter",
            '{"priority":"urgent"}': "bad-parameter",
            '{"run_at":"now"}': "bad-parameter",
            '{"run_at":true}': "bad-parameter",
            '{"run_at":-1}': "bad-parameter",
            '{"attempts":1e3}': "bad-parameter",
            '{"run_at":%s}' % ("9" * 5000): "bad-json",
        }
        exchange = self.submit({"data": "first"}, *map(str, wrong), {"data": "last"})
        self.assertEqual(codes(exchange), ["accepted", *wrong.values(), "accepted"])
        self.assertEqual([data for *_, data in self.jobs()], [b"first", b"last"])

    def test_a_wrong_request_submits_nothing(self) -> None:
        for path in ("/api/v1/functions/%00/jobs", JOBS + "?priority=urgent", JOBS + "?unique=%00"):
            exchange = self.web.begin("POST", path, lines_of({"data": "x"}), headers=LINES)
            self.assertEqual(exchange.response.status, 400, path)
        self.assertEqual(self.web.inspection.total, 0)

    def test_what_is_no_utf_8_is_refused(self) -> None:
        body = b'{"data":"a"}\n{"data":"\xff"}\n{"data":"\xed\xa0\x80"}\n{"data":"b"}\n'
        exchange = self.web.begin("POST", JOBS, body, headers=LINES)
        self.assertEqual(codes(exchange), ["accepted", "bad-json", "bad-json", "accepted"])

    def test_a_byte_order_mark_and_white_space_are_passed_over(self) -> None:
        body = b'\xef\xbb\xbf{"data":"a"}\r\n \t{ "data" : "b" } \r\n'
        exchange = self.web.begin("POST", JOBS, body, headers=LINES)
        self.assertEqual(codes(exchange), ["accepted"] * 2)
        self.assertEqual([data for *_, data in self.jobs()], [b"a", b"b"])
        self.assertEqual(self.web.gearman.server.budget.used, 0)

    def test_other_types_are_the_data_of_one_job(self) -> None:
        self.web.begin(
            "POST", JOBS + "?background=true", b'{"data":"x"}\n', headers={"Content-Type": "text/x"}
        )
        self.assertEqual([data for *_, data in self.jobs()], [b'{"data":"x"}\n'])


class LimitTests(BulkCase):
    server = Settings(handle_prefix="H:t", max_jobs=3)

    def test_a_full_server_refuses_the_rest(self) -> None:
        exchange = self.submit(*({"data": str(number)} for number in range(5)))
        self.assertEqual(codes(exchange), ["accepted"] * 3 + ["queue-error"] * 2)


class TurnTests(BulkCase):
    def begin(self, *jobs: dict[str, Any] | str) -> Exchange:
        """Deliver a request whose answer is not waited for."""
        exchange = Exchange(self.web, "127.0.0.1")
        body = lines_of(*jobs)
        head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
        head = head.replace("Host: x", "Host: 127.0.0.1") + f"Content-Length: {len(body)}\r\n\r\n"
        exchange.deliver(head.encode() + body)
        while not exchange.answers:
            self.web.one_turn()
        return exchange

    def test_others_are_served_in_between(self) -> None:
        exchange = self.begin(*({"data": "x"} for _ in range(SLICE_LINES * 2 + 1)))
        self.assertEqual(self.web.inspection.total, SLICE_LINES)
        self.web.one_turn()
        self.assertEqual(self.web.inspection.total, SLICE_LINES * 2)
        self.web.gearman.turn()
        self.assertEqual(codes(exchange), ["accepted"] * (SLICE_LINES * 2 + 1))

    def test_large_lines_take_a_turn_each(self) -> None:
        self.begin(*({"data": "x" * SLICE_BYTES} for _ in range(3)))
        self.assertEqual(self.web.inspection.total, 1)

    def test_a_reader_that_does_not_read_is_not_worked_for(self) -> None:
        exchange = self.begin(*({"data": "x"} for _ in range(SLICE_LINES * 3)))
        producer: Any = exchange.transport.producer
        producer.pauseProducing()
        self.web.gearman.turn()
        self.assertEqual(self.web.inspection.total, SLICE_LINES)
        producer.resumeProducing()
        self.web.gearman.turn()
        self.assertEqual(codes(exchange), ["accepted"] * SLICE_LINES * 3)

    def test_a_reader_that_never_reads_is_cut_off(self) -> None:
        exchange = self.begin(*({"data": "x"} for _ in range(SLICE_LINES * 3)))
        producer: Any = exchange.transport.producer
        producer.pauseProducing()
        self.web.gearman.turn(STALLED + 1)
        self.assertFalse(exchange.transport.connected)

    def test_who_may_submit_no_more_is_refused_the_rest(self) -> None:
        self.web = Web(server=Settings(access=AccessPolicy((Rule("all", submit=(b"f",)),))))
        exchange = self.begin(*({"data": "x"} for _ in range(SLICE_LINES + 2)))
        self.web.gearman.server.reconfigure(Settings(access=AccessPolicy((Rule("all", submit=(b"g",)),))))
        self.web.gearman.turn()
        # Nobody has shown a token, so one is asked for.
        self.assertEqual(codes(exchange), ["accepted"] * SLICE_LINES + ["token-needed"] * 2)

    def test_a_peer_that_goes_leaves_what_was_accepted(self) -> None:
        exchange = self.begin(*({"data": "x"} for _ in range(SLICE_LINES * 3)))
        exchange.leave()
        self.assertEqual(self.web.inspection.total, SLICE_LINES)
        self.assertEqual(len(self.jobs()), SLICE_LINES)


class StoreTests(BulkCase):
    def setUp(self) -> None:
        super().setUp()
        self.store, self.thread = ListStore(), Thread()
        server = self.web.gearman.server
        self.writer = StoreWriter(self.store, self.web.gearman.clock, self.thread)
        server.use_store(self.writer, self.writer.open("this", 10))
        self.writer.load(server.broker)
        self.thread.run_all()

    def test_a_job_is_answered_when_it_is_saved(self) -> None:
        exchange = self.submit({"data": "a"}, "{", {"data": "b"})
        self.assertEqual(answers(exchange), [])
        self.thread.run_all()
        self.web.gearman.turn()
        self.assertEqual(codes(exchange), ["accepted", "bad-json", "accepted"])
        self.assertEqual([job.data for job in self.store.jobs.values()], [b"a", b"b"])

    def test_a_store_that_fails(self) -> None:
        self.store.failing = UNAVAILABLE
        exchange = self.submit({"data": "a"}, {"data": "b"})
        self.thread.run_all()
        self.web.gearman.turn()
        self.assertEqual(codes(exchange), ["queue-error"] * 2)

    def test_no_more_than_so_many_wait_for_it(self) -> None:
        exchange = self.submit(*({"data": ""} for _ in range(MAX_UNANSWERED + 10)))
        self.assertEqual(self.writer.pending.unsaved, MAX_UNANSWERED)
        while self.thread.calls:
            self.thread.run()
            self.web.gearman.turn()
        self.assertEqual(codes(exchange), ["accepted"] * (MAX_UNANSWERED + 10))
