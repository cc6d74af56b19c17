"""Requests that come faster than they are answered, or whose answers are not taken: nobody else waits for
them, they take a bounded memory, and answers keep the order of their requests.

Places where a read brings much to do, which share the time of one turn: the requests of one read, those of
many connections, a body in many chunks, a head of many lines, and requests behind an answer that came later
or was not taken. No real time is measured: a request takes a stated part of the time that there is.
"""

from __future__ import annotations

import re
from typing import ClassVar

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import SilentWorker
from tests.web.asking import HERE, Exchange, Web
from txgearman.broker.entities import Worker
from txgearman.web.http.body import STALLED
from txgearman.web.http.channel import BODY_LIMIT, HEAD_LIMIT, MAX_UNREAD, PIECE
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.site import IDLE_LIMIT
from txgearman.web.http.time_slice import PAUSE_SECONDS, SLICE_SECONDS, TimeSlice

READ = 64 * 1024
"""Bytes of one read of Twisted's transports."""

COST = 0.3 * SLICE_SECONDS
PER_TURN = 4
"""Requests that can be begun in one turn if each takes `COST`."""

DATE = re.compile(rb"Date: [^\r]*\r\n")
HEAD = b"Host: localhost\r\n"
GET = b"GET /nothing HTTP/1.1\r\n" + HEAD + b"\r\n"
JOBS = "/api/v1/functions/f/jobs"


def submit(number: int, more: bytes = b"") -> bytes:
    """A request for a job, whose answer has the job's handle."""
    body = b"%d" % number
    head = b"POST %b?background=true HTTP/1.1\r\n%b%b" % (JOBS.encode(), HEAD, more)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def jobs_of(web: Web) -> list[bytes]:
    """The data of all jobs, in their order."""
    worker = Worker(SilentWorker())
    web.broker.can_do(worker, b"f")
    found = []
    while (job := web.broker.grab(worker)) is not None:
        found.append(job.data)
    return found


class PipelineCase(SynchronousTestCase):
    """Requests take `COST` each."""

    def setUp(self) -> None:
        self.web = Web()
        self.clock = self.web.gearman.clock
        self.begun = 0
        begin = LimitedRequest.process

        def process(request: LimitedRequest) -> None:
            self.begun += 1
            self.clock.rightNow += COST
            begin(request)

        self.patch(LimitedRequest, "process", process)

    def connect(self) -> Exchange:
        return Exchange(self.web, HERE)

    def reads(self, exchange: Exchange) -> bool:
        """Whether the server reads from a connection."""
        return bool(exchange.transport.producerState == "producing")

    def turns(self, exchange: Exchange) -> list[int]:
        """The number of answers that each turn of the reactor begins, until there is nothing to do."""
        found = []
        before = exchange.answers
        while self.web.one_turn():
            found.append(exchange.answers - before)
            before = exchange.answers
        return found


class TurnTest(PipelineCase):
    """How much is done in one turn."""

    def test_the_requests_of_a_read(self) -> None:
        exchange = self.connect()
        exchange.deliver(GET * 1000)
        self.assertEqual(exchange.answers, PER_TURN)
        steps = self.turns(exchange)
        self.assertEqual(max(steps), PER_TURN)
        self.assertEqual(exchange.answers, 1000)

    def test_the_reads_of_many_connections_in_one_turn(self) -> None:
        exchanges = [self.connect() for _ in range(50)]
        for exchange in exchanges:
            exchange.deliver(GET * 20)
        total = sum(exchange.answers for exchange in exchanges)
        self.assertEqual(total, PER_TURN)
        served = []
        while self.web.one_turn():
            before, total = total, sum(exchange.answers for exchange in exchanges)
            self.assertLessEqual(total - before, PER_TURN)
            served.append(min(exchange.answers for exchange in exchanges))
        self.assertEqual([exchange.answers for exchange in exchanges], [20] * 50)
        # Each has its turn, and nobody twice before that.
        self.assertEqual(served.index(1), -(-49 // PER_TURN) - 1)

    def test_one_request_of_each_connection(self) -> None:
        exchanges = [self.connect() for _ in range(50)]
        for exchange in exchanges:
            exchange.deliver(GET)
        self.assertEqual(sum(exchange.answers for exchange in exchanges), PER_TURN)
        self.web.gearman.turn()
        self.assertEqual([exchange.answers for exchange in exchanges], [1] * 50)

    def test_who_comes_when_others_were_served_need_not_wait(self) -> None:
        for _ in range(10):
            exchange = self.connect()
            exchange.deliver(GET)
            self.assertEqual(exchange.answers, 1)
            self.clock.rightNow += PAUSE_SECONDS

    def test_a_body_in_small_chunks(self) -> None:
        chunks = 0
        keep = LimitedRequest.handleContentChunk

        def handle(request: LimitedRequest, data: bytes) -> None:
            nonlocal chunks
            chunks += 1
            self.clock.rightNow += SLICE_SECONDS / 100
            keep(request, data)

        self.patch(LimitedRequest, "handleContentChunk", handle)
        exchange = self.connect()
        head = b"POST %b?background=true HTTP/1.1\r\n%b" % (JOBS.encode(), HEAD)
        exchange.deliver(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
        most = 100 + PIECE // 6
        total = 0
        while chunks:
            self.assertLessEqual(chunks, most)
            total += chunks
            chunks = 0
            self.web.one_turn()
        self.assertEqual(total, 10_000)
        self.assertEqual(exchange.response.status, 202)
        self.assertEqual(jobs_of(self.web), [b"x" * 10_000])

    def test_an_answer_that_comes_later_does_not_begin_the_next_request(self) -> None:
        """It may come in the middle of the broker's decision."""
        worker = Worker(SilentWorker())
        self.web.broker.can_do(worker, b"f")
        exchange = self.connect()
        waits = b"POST %b HTTP/1.1\r\n%bContent-Length: 1\r\n\r\nx" % (JOBS.encode(), HEAD)
        exchange.send(waits + GET * 3)
        self.assertEqual(exchange.answers, 0)
        job = self.web.broker.grab(worker)
        assert job is not None
        (request,) = exchange.transport.protocol.requests
        self.web.broker.complete(worker, job.handle, b"done")
        self.assertEqual(exchange.answers, 0)
        while request in exchange.transport.protocol.requests:
            self.assertTrue(self.web.one_turn())
            self.assertLessEqual(exchange.answers, 1)
        self.web.gearman.turn()
        self.assertEqual(exchange.answers, 4)


class BackpressureTest(PipelineCase):
    """A peer that does not take its answers is asked nothing more."""

    def test_one_request_for_each_answer_that_is_taken(self) -> None:
        exchange = self.connect()
        exchange.transport.pauses = True
        exchange.send(GET * 100)
        for number in range(1, 101):
            self.web.gearman.turn()
            self.assertEqual(exchange.answers, number)
            exchange.transport.resume()

    def send_all(self, exchange: Exchange, data: bytes) -> bytes:
        """Send while the server reads, and its reactor turns; returns what it has not read."""
        while data and self.reads(exchange):
            exchange.deliver(data[:READ])
            data = data[READ:]
            self.web.one_turn()
        return data

    def test_what_is_read_is_bounded(self) -> None:
        waits = b"POST %b HTTP/1.1\r\n%bContent-Length: 0\r\n\r\n" % (JOBS.encode(), HEAD)
        for first, pauses in ((b"", True), (waits, False), (b"", False)):
            exchange = self.connect()
            exchange.transport.pauses = pauses
            data = first + GET * 40_000
            left = self.send_all(exchange, data)
            self.assertFalse(self.reads(exchange))
            parsed = exchange.answers * len(GET) + len(first)
            self.assertLessEqual(len(data) - len(left) - parsed, MAX_UNREAD + READ)

    def test_reading_goes_on(self) -> None:
        exchange = self.connect()
        exchange.transport.pauses = True
        number = 2 * (MAX_UNREAD + READ) // len(GET)
        left = GET * number
        for expected in range(1, number):
            left = self.send_all(exchange, left)
            self.web.one_turn()
            self.assertEqual(self.begun, expected)
            exchange.transport.resume()
        self.web.one_turn()
        self.assertEqual((self.begun, left), (number, b""))
        exchange.transport.resume()
        self.assertTrue(self.reads(exchange))

    def test_it_is_not_late_with_a_request_that_nobody_looks_at(self) -> None:
        exchange = self.connect()
        exchange.transport.pauses = True
        exchange.send(GET * 100)
        self.web.gearman.turn(HEAD_LIMIT + BODY_LIMIT)
        self.assertEqual((exchange.answers, exchange.response.closed), (1, False))
        exchange.transport.resume()
        self.web.gearman.turn()
        self.assertEqual(exchange.answers, 2)
        # It does not last for ever either.
        exchange.transport.lingers = True
        self.web.gearman.turn(IDLE_LIMIT + STALLED + 2)
        self.assertTrue(exchange.response.closed)

    def test_a_part_of_a_request_behind_others_has_to_be_completed(self) -> None:
        exchange = self.connect()
        exchange.send(GET * 10 + GET[:-5])
        self.assertEqual(exchange.answers, 10)
        self.web.gearman.turn(HEAD_LIMIT + 1)
        self.assertTrue(exchange.response.closed)
        self.assertIn(b"HTTP/1.1 408 ", exchange.transport.value())


class OrderTest(PipelineCase):
    """Answers have the order of the requests, however these come."""

    REQUESTS: ClassVar = [
        submit(1),
        GET,
        b"\r\n" + submit(2),
        b"HEAD /healthz HTTP/1.1\r\n" + HEAD + b"\r\n",
        submit(3, b"Expect: 100-continue\r\n"),
        b"POST %b?background=true HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n"
        % (JOBS.encode(), HEAD),
        submit(5, b"Connection: close\r\n"),
        submit(6),
    ]

    def answers(self, pieces: list[bytes], takes: bool = True) -> bytes:
        self.web = Web()
        self.clock = self.web.gearman.clock
        exchange = self.connect()
        exchange.transport.pauses = not takes
        for piece in pieces:
            exchange.send(piece)
        for _ in self.REQUESTS:
            if exchange.response.closed:
                break
            exchange.transport.resume()
            self.web.gearman.turn()
        self.assertTrue(exchange.response.closed)
        self.assertEqual(jobs_of(self.web), [b"1", b"2", b"3", b"xy", b"5"])
        return DATE.sub(b"", exchange.transport.value())

    def test_in_any_pieces(self) -> None:
        data = b"".join(self.REQUESTS)
        one_by_one = self.answers(self.REQUESTS)
        handles = [one_by_one.index(b"H:t:%d" % number) for number in range(1, 6)]
        self.assertEqual(handles, sorted(handles))
        for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
            self.assertEqual(self.answers(pieces), one_by_one)
        for at in range(1, len(data), 7):
            self.assertEqual(self.answers([data[:at], data[at:]]), one_by_one)
        self.assertEqual(self.answers([data], takes=False), one_by_one)


class Steps:
    """A reader with so many steps to take."""

    def __init__(self, name: str, steps: int, taken: list[str], clock: Clock) -> None:
        self.name = name
        self.steps = steps
        self.taken = taken
        self.clock = clock
        self.fails = self.aborted = False

    def step(self) -> bool:
        self.clock.rightNow += COST
        self.taken.append(self.name)
        self.steps -= 1
        if self.fails:
            raise RuntimeError("as was asked for")
        return self.steps > 0

    def forceAbortClient(self) -> None:
        self.aborted = True


class TimeSliceTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.taken: list[str] = []
        self.slice = TimeSlice(self.clock)

    def reader(self, name: str, steps: int) -> Steps:
        return Steps(name, steps, self.taken, self.clock)

    def turn(self) -> str:
        """What one turn of the reactor does."""
        self.taken.clear()
        for call in list(self.clock.calls):
            self.clock.calls.remove(call)
            call.called = 1
            call.func()
        return "".join(self.taken)

    def test_one_who_is_quick_is_done_at_once_and_nothing_is_called_for(self) -> None:
        self.slice.run(self.reader("a", PER_TURN))
        self.assertEqual(self.taken, ["a"] * PER_TURN)
        self.assertEqual(self.clock.calls, [])

    def test_round_robin(self) -> None:
        a, b, c = (self.reader(name, 6) for name in "abc")
        for reader in (a, b, a, c):
            self.slice.run(reader)
        self.assertEqual(self.taken, ["a"] * 4)
        self.assertEqual([self.turn() for _ in range(5)], ["abca", "bcbc", "bcbc", "bc", ""])
        self.assertEqual(self.clock.calls, [])

    def test_one_that_is_to_wait(self) -> None:
        self.slice.run_later(self.reader("a", 2))
        self.assertEqual(self.taken, [])
        self.slice.run(self.reader("b", 1))
        self.assertEqual(self.taken, ["b"])
        self.assertEqual(self.turn(), "aa")

    def test_one_that_has_ended(self) -> None:
        a, b = self.reader("a", 9), self.reader("b", 2)
        self.slice.run(a)
        self.slice.run(b)
        self.slice.forget(a)
        self.slice.forget(a)
        self.assertEqual(self.turn(), "bb")

    def test_one_that_fails_harms_no_other(self) -> None:
        a, b = self.reader("a", 9), self.reader("b", 2)
        self.slice.run(a)
        self.slice.run(b)
        a.fails = True
        self.assertEqual(self.turn(), "abb")
        self.assertEqual((a.aborted, b.aborted), (True, False))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.turn(), "")

    def test_a_step_that_takes_longer_than_a_pause_is_none(self) -> None:
        self.assertGreater(COST, PAUSE_SECONDS)
        for name in "abcdef":
            self.slice.run(self.reader(name, 1))
        self.assertEqual("".join(self.taken), "abcd")
        self.assertEqual(self.turn(), "ef")

    def test_a_clock_that_is_set_back(self) -> None:
        self.slice.run(self.reader("a", PER_TURN))
        self.clock.rightNow -= 3600
        self.slice.run(self.reader("b", 99))
        self.assertEqual(self.taken.count("b"), PER_TURN)
