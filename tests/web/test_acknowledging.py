"""Requests whose head and body are two writes, without TCP_NODELAY: the body does not wait for 40 ms."""

from __future__ import annotations

import select
import socket
from typing import Any
from unittest import SkipTest

from twisted.internet import tcp
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.net.test_polling import SECONDS, HandReactor
from tests.net.test_quickack import MOST_DELAYED, unacknowledged
from tests.web.asking import Exchange, Web
from txgearman.net.polling import Poller
from txgearman.web import LimitedSite

REQUESTS = 40
BODY = b'{"data": "x"}'
HEAD = (
    b"POST /functions/f/jobs?background=true HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
)


class SocketTest(SynchronousTestCase):
    """With a real socket, as the system does the waiting."""

    def setUp(self) -> None:
        if not hasattr(select, "epoll") or not hasattr(socket, "TCP_QUICKACK"):
            raise SkipTest("this system cannot acknowledge at once")
        self.web = Web()
        self.poller = Poller(HandReactor())
        self.port: Any = tcp.Port(0, LimitedSite(self.web.site), interface="127.0.0.1", reactor=self.poller)
        self.port.startListening()
        self.poller.serve(self.port)
        self.addCleanup(self.end)
        self.peer = socket.create_connection(self.port.socket.getsockname())
        self.addCleanup(self.peer.close)
        self.peer.settimeout(SECONDS)
        self.port.doRead()

    def end(self) -> None:
        for descriptor in self.poller.removeAll():
            descriptor.connectionLost(Failure(CONNECTION_LOST))
        self.poller.close()

    def send(self, data: bytes) -> None:
        """Send by one write, and let the server read it."""
        self.peer.send(data)
        self.assertTrue(select.select([self.poller], [], [], SECONDS)[0])
        self.poller.doRead()

    def answer(self) -> bytes:
        while self.web.one_turn() or self.poller.getWriters():
            self.poller.doRead()
        return self.peer.recv(65536)

    def test_a_head_is_acknowledged_before_the_body_comes(self) -> None:
        delayed = 0
        for _ in range(REQUESTS):
            self.send(HEAD)
            delayed += bool(unacknowledged(self.peer))
            self.send(BODY)
            self.assertIn(b"202 Accepted", self.answer())
        self.assertLessEqual(delayed, MOST_DELAYED)


class CallTest(SynchronousTestCase):
    """Which reads are told, and which cost nothing."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.exchange = Exchange(Web(), "127.0.0.1")
        channel: Any = self.exchange._protocol
        channel._quick_ack = self

    def unanswered(self) -> bool:
        self.calls.append("unanswered")
        return True

    def resumed(self) -> None:
        self.calls.append("resumed")

    def test_a_whole_request_costs_nothing(self) -> None:
        self.exchange.send(HEAD + BODY)
        self.exchange.send(HEAD + BODY)
        self.assertEqual(self.calls, [])

    def test_parts_and_the_rest(self) -> None:
        self.exchange.send(HEAD)
        self.exchange.send(BODY[:4])
        self.assertEqual(self.calls, ["unanswered", "unanswered"])
        self.exchange.send(BODY[4:])
        self.assertEqual(self.calls[2:], ["resumed"])
