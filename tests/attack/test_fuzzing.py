"""Conversations of fixed seeds with servers in memory. ``make attack`` has longer ones with real servers.

Errors of the server come out of ``turn``, and those that it logs fail a test by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.attack.attack import LOG_LINE
from tests.attack.conversations import cut, http_request, pieces_of
from tests.attack.documented import undocumented, wrong_answer
from tests.server.peers import Peer, error, req, res
from tests.web.asking import HERE, Exchange, Web
from txgearman.server import Settings
from txgearman.testing import MemoryGearman

CONVERSATIONS = 500
"""Of each kind, which take less than a second."""

REQUESTS = 300
"""Which take three."""


class WatchedTestCase(SynchronousTestCase):
    """Whatever is said, the log has no traceback, and no line that is long."""

    def setUp(self) -> None:
        globalLogPublisher.addObserver(self.check)
        self.addCleanup(globalLogPublisher.removeObserver, self.check)
        self.wrong: list[str] = []

    def check(self, event: LogEvent) -> None:
        # An event that cannot be put into words has a traceback in their place.
        text = eventAsText(event)
        if "Traceback" in text or len(text) > LOG_LINE:
            self.wrong.append(text)

    def assert_well(self, answers: bytes, judge: Callable[[bytes], Iterable[str]], said: str) -> None:
        """The answers are documented, and the log is as it should be."""
        self.assertEqual(list(judge(answers)), [], said)
        self.assertEqual(self.wrong, [], said)
        self.assertEqual(self.flushLoggedErrors(), [], said)


class ConversationsTest(WatchedTestCase):
    def converse(self, seed: int, lines: float) -> None:
        """Three peers say what chance has them say; a fourth is served as ever."""
        rng = random.Random(seed)
        gearman = MemoryGearman(Settings(handle_prefix="H:fuzz"))
        peers = [Peer(gearman) for _ in range(3)]
        for peer in peers:
            gearman.connect(peer)
        honest = Peer(gearman)
        gearman.connect(honest)
        for number, piece in pieces_of(rng, peers, lines):
            if peers[number].lost is None:
                peers[number].say(piece)
                gearman.turn()
        for peer in peers:
            self.assert_well(peer.heard(), undocumented, f"seed {seed}")
        self.assertEqual(honest.ask(req(16, b"x")), res(17, b"x"), f"seed {seed}")
        self.assertTrue(honest.ask(b"version\n").startswith(b"OK "), f"seed {seed}")

    def test_packets(self) -> None:
        for seed in range(CONVERSATIONS):
            self.converse(seed, lines=0.05)

    def test_lines(self) -> None:
        for seed in range(CONVERSATIONS):
            self.converse(seed, lines=0.9)


class RequestsTest(WatchedTestCase):
    def test_requests(self) -> None:
        for seed in range(REQUESTS):
            rng = random.Random(seed)
            data = http_request(rng)
            web = Web()
            exchange = Exchange(web, HERE)
            for piece in cut(rng, data):
                if exchange.transport.connected:
                    exchange.send(piece)
            # Jobs that are waited for, and streams, end with the connection.
            web.gearman.turn(1.0)
            exchange.leave()
            self.assert_well(exchange.transport.value(), wrong_answer, f"seed {seed}: {data[:300]!r}")
            self.assertEqual(web.get("/api/v1/server").status, 200)


class OracleTest(SynchronousTestCase):
    """What finds nothing wrong must find what is."""

    def check(self, judge: Callable[[bytes], Iterable[str]], good: bytes, *bad: bytes) -> None:
        self.assertEqual(list(judge(good)), [])
        for one in bad:
            self.assertEqual(len(list(judge(one))), 1, one)

    def test_packets(self) -> None:
        good = res(17, b"\x1b") + error(b"QUEUE_ERROR", b"words") + res(6) + res(8, b"H:x:1")
        self.check(
            undocumented,
            good + good[:-3],
            good + res(7, b"f"),
            good + req(17, b""),
            error(b"NO_SUCH_CODE", b"") + good,
        )

    def test_lines(self) -> None:
        good = "OK\r\nf\t1\t0\t0\nü\t0\t0\t0\n.\nERR UNKNOWN_JOB\r\n".encode() + res(6)
        self.check(
            undocumented,
            good + b"wor",
            good + b"\x1b[2J\n",
            good + b"a\x9bb\n",
            good + b"a\xc2\x9bb\n",
            good + b"a\x7f\n",
        )

    def test_http(self) -> None:
        good = b"HTTP/1.1 404 Not Found\r\n\r\n{}"
        self.check(
            wrong_answer,
            good,
            good.replace(b"404", b"500"),
            good.replace(b"404", b"599"),
            b"Traceback",
            b"HTTP/1.1 4xx No\r\n\r\n",
        )
        self.check(wrong_answer, b"")
