"""What is held for peers over HTTP: it counts in the one send budget, and no reader costs more than is said.

Places: events that wait, the payload that is being made JSON of, parts of a result ahead of its end, results
and other answers that are not taken, bodies of requests behind their end. Those of the Gearman protocol are
in `tests/server/test_budget.py`.
"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from random import Random
from typing import Any

from tests.server.held import really_held
from tests.web.asking import Exchange, Web
from tests.web.test_jobs import JOBS, STREAM, JobCase, events
from txgearman.broker.entities import Worker
from txgearman.server import Settings
from txgearman.web import WebSettings
from txgearman.web.http import stream
from txgearman.web.http.body import PIECE
from txgearman.web.http.encoding import JSON_PIECE, LOOK_PIECE, payload, payload_pieces
from txgearman.web.http.responses import to_json
from txgearman.web.http.stream import AT_ONCE, HEARTBEAT, MAX_UNSENT

KIB = 1024
MIB = 1024 * KIB


class PayloadTests(JobCase):
    """A large payload becomes the same JSON as a small one, piece by piece."""

    def test_it_is_the_same(self) -> None:
        random = Random(5)
        texts = [
            b"",
            b"x",
            b"\0" * 100_000,
            'grün € 𝄞 \N{RIGHT-TO-LEFT MARK}\n"\\'.encode() * 20_000,
            random.randbytes(300_000),
            b"x" * LOOK_PIECE + b"\xff",
            b"x" * (LOOK_PIECE - 1) + "€".encode() + b"y" * 10,
            b"x" * (JSON_PIECE - 1) + "𝄞".encode() * JSON_PIECE,
            # The text ends within a character.
            b"x" * LOOK_PIECE + "€".encode()[:2],
            b"x" * (LOOK_PIECE - 1) + "€".encode()[:2],
        ]
        for data in texts:
            pieces = list(payload_pieces(data))
            self.assertTrue(b"".join(pieces) == to_json(payload(data)), data[:20])
            self.assertLessEqual(max(map(len, pieces)), 6 * JSON_PIECE)


class BudgetCase(JobCase):
    """A web side whose budget is looked at."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.web = Web(WebSettings(), Settings(web="8080", handle_prefix="H:t", **settings))
        self.broker = self.web.broker
        self.administration = self.web.administration
        self.budget = self.web.gearman.server.budget

    def assert_counted(self) -> None:
        self.assertEqual(self.budget.used, really_held(self.budget))


class StreamBudgetTests(BudgetCase):
    READERS = 12

    def follow(self, readers: int, pauses: bool = True) -> tuple[list[Exchange], Worker, bytes]:
        """So many readers of one job's events, its worker and its handle."""
        exchanges = [self.web.begin("POST", JOBS + "?unique=u", headers=STREAM) for _ in range(readers)]
        for exchange in exchanges:
            exchange.transport.pauses = pauses
        worker = self.worker()
        return exchanges, worker, self.give(worker)

    def test_a_large_event_for_many_who_do_not_read_is_held_once(self) -> None:
        """JSON would have six times as many bytes of it, for each of them."""
        _, worker, handle = self.follow(self.READERS)
        data = bytes(3 * MIB)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.broker.report_data(worker, handle, data)
        self.turn()
        held, peak = tracemalloc.get_traced_memory()
        self.assertLess(held, self.READERS * (12 * JSON_PIECE + 4 * PIECE))
        self.assertLess(peak, self.READERS * (12 * JSON_PIECE + 4 * PIECE) + 4 * LOOK_PIECE)
        self.assertEqual(self.budget.used, len(data))
        self.assert_counted()

    def test_its_json_is_made_in_many_turns(self) -> None:
        exchanges, worker, handle = self.follow(1, pauses=False)
        self.broker.complete(worker, handle, bytes(3 * MIB))
        lengths = [len(exchanges[0].transport.value())]
        while self.web.one_turn():
            lengths.append(len(exchanges[0].transport.value()))
        steps = [after - before for before, after in pairwise(lengths)]
        self.assertLessEqual(max(steps), 6 * JSON_PIECE + PIECE + KIB)
        self.assertEqual(events(exchanges[0])[-1], ("complete", payload(bytes(3 * MIB))))
        self.assertTrue(exchanges[0].transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.budget.used, 0)

    def test_an_event_of_any_size_reaches_one_who_reads(self) -> None:
        self.patch(stream, "MAX_UNSENT", MIB)
        (exchange,), worker, handle = self.follow(1)
        data = b"x" * (2 * MIB)
        self.broker.report_data(worker, handle, data)
        self.broker.report_status(worker, handle, b"1", b"2")
        self.turn()
        heard = [exchange.transport.value()]
        while self.budget.used:
            exchange.transport.clear()
            exchange.transport.resume()
            self.turn()
            heard.append(exchange.transport.value())
        self.assertFalse(exchange.response.closed)
        exchange.transport.clear()
        exchange.transport.pauses = False
        exchange.transport.resume()
        for piece in heard:
            exchange.transport.write(piece)
        found = dict(events(exchange))
        self.assertTrue(found["data"] == payload(data))
        self.assertEqual(found["status"], {"numerator": 1, "denominator": 2})

    def test_one_who_does_not_read_it_has_until_the_next_sign_of_life(self) -> None:
        (exchange,), worker, handle = self.follow(1)
        self.broker.report_data(worker, handle, bytes(MAX_UNSENT + 1))
        self.turn()
        self.web.gearman.turn(HEARTBEAT - 1)
        self.assertFalse(exchange.response.closed)
        self.web.gearman.turn(HEARTBEAT + 1)
        self.assertTrue(exchange.response.closed)
        self.assertEqual(self.budget.used, 0)

    def test_what_waits_for_one_who_had_stopped_reading(self) -> None:
        for size, closed in ((MAX_UNSENT, False), (MAX_UNSENT + 1, True)):
            self.serve()
            (exchange,), worker, handle = self.follow(1)
            exchange.transport.producer.pauseProducing()
            self.broker.report_data(worker, handle, bytes(size))
            self.turn()
            self.assertEqual(exchange.response.closed, closed, size)
            self.assert_counted()

    def test_many_small_events(self) -> None:
        (exchange,), worker, handle = self.follow(1)
        exchange.transport.producer.pauseProducing()
        for size in (1, AT_ONCE, AT_ONCE + 1, 3 * PIECE):
            self.broker.report_data(worker, handle, b"x" * size)
        self.broker.report_status(worker, handle, b"1", b"2")
        self.turn()
        self.assertGreater(self.budget.used, 3 * PIECE + 2 * AT_ONCE)
        self.assert_counted()
        exchange.transport.pauses = False
        exchange.transport.producer.resumeProducing()
        self.turn()
        sizes = [len(value["data"]) for what, value in events(exchange) if what == "data"]
        self.assertEqual(sizes, [1, AT_ONCE, AT_ONCE + 1, 3 * PIECE])
        self.assertEqual(self.budget.used, 0)

    def test_the_limit_for_all_holds_for_them(self) -> None:
        self.serve(max_unsent_total=4 * MIB)
        for _ in range(3):
            _, worker, handle = self.follow(1)
            self.broker.report_data(worker, handle, bytes(3 * MIB))
            self.turn()
            self.assertLessEqual(self.budget.used, 4 * MIB)
            self.broker.complete(worker, handle, b"")
            self.turn()
        self.assertGreaterEqual(self.web.gearman.server.traffic.dropped["max-unsent-total"], 1)


class AnswerBudgetTests(BudgetCase):
    """Whole answers."""

    def wait(self, pauses: bool = True) -> tuple[Exchange, Worker, bytes]:
        exchange = self.web.begin("POST", JOBS)
        exchange.transport.pauses = pauses
        worker = self.worker()
        return exchange, worker, self.give(worker)

    def test_a_result_that_is_not_taken(self) -> None:
        exchange, worker, handle = self.wait()
        self.broker.complete(worker, handle, bytes(MIB))
        self.turn()
        self.assertEqual(self.budget.used, MIB)
        while self.budget.used:
            self.assert_counted()
            exchange.transport.resume()
        self.assertEqual(exchange.response.body, bytes(MIB))
        self.assertEqual(exchange.response.headers["content-length"], str(MIB))

    def test_parts_ahead_of_the_result(self) -> None:
        exchange, worker, handle = self.wait(pauses=False)
        parts = (bytes(MIB), b"x", bytes(100_000), b"y" * 100, b"z")
        for part in parts[:-1]:
            self.broker.report_data(worker, handle, part)
            self.turn()
        self.assertEqual(self.budget.used, sum(map(len, parts[:-1])))
        self.assert_counted()
        self.broker.complete(worker, handle, parts[-1])
        self.turn()
        self.assertTrue(exchange.response.body == b"".join(parts))
        self.assertEqual(self.budget.used, 0)

    def test_parts_of_a_job_that_fails_or_takes_too_long(self) -> None:
        for late in (False, True):
            exchange = self.web.begin("POST", JOBS + "?timeout=5")
            worker = self.worker()
            handle = self.give(worker)
            self.broker.report_data(worker, handle, bytes(MIB))
            self.turn()
            self.assertEqual(self.budget.used, MIB)
            if late:
                self.web.gearman.turn(6)
            else:
                self.broker.fail(worker, handle)
                self.turn()
            self.assertIn(exchange.response.status, (502, 504))
            self.assertEqual(self.budget.used, 0)

    def test_a_large_answer_of_any_kind_is_handed_over_as_it_is_taken(self) -> None:
        for number in range(200):
            self.administration.create_function(b"%03d" % number + b"\xff" * 500)
        exchange = Exchange(self.web, "127.0.0.1")
        exchange.transport.pauses = True
        exchange.send(b"GET /api/v1/functions?limit=200 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertLess(len(exchange.transport.value()), 2 * PIECE)
        self.assertGreater(self.budget.used, 4 * PIECE)
        self.assert_counted()
        while self.budget.used:
            exchange.transport.resume()
        self.assertEqual(len(exchange.response.json()["functions"]), 200)

    def test_a_body_is_not_held_beside_its_job(self) -> None:
        body = Random(1).randbytes(MIB)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.web.begin("POST", JOBS, body)
        held, _ = tracemalloc.get_traced_memory()
        self.assertLess(held, 1.5 * MIB)

    def test_the_limit_for_all_holds_for_them(self) -> None:
        self.serve(max_unsent_total=4 * MIB)
        exchanges = []
        for _ in range(10):
            exchange, worker, handle = self.wait()
            exchanges.append(exchange)
            self.broker.complete(worker, handle, bytes(MIB) + b"%d" % len(exchanges))
            self.turn()
            self.assertLessEqual(self.budget.used, 4 * MIB)
        dropped = self.web.gearman.server.traffic.dropped["max-unsent-total"]
        self.assertEqual(dropped, sum(exchange.response.closed for exchange in exchanges))
        self.assertGreaterEqual(dropped, 6)
