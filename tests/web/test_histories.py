"""Random histories of connections of both kinds: what is counted of them is right, and nothing is left.

Peers send whole requests and packets, parts of them and nonsense, read or do not, go and stay; time passes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from tests.server.held import really_held
from tests.web.asking import HERE, Transport, Web
from txgearman.server import Settings
from txgearman.server.budgets.unfinished import COUNTED_FROM
from txgearman.web import LimitedSite, WebSettings
from txgearman.web.http.channel import LimitedChannel
from txgearman.wire.codec import REQUEST, frame
from txgearman.wire.packets import CAN_DO, ECHO_REQ, GRAB_JOB, SUBMIT_JOB, SUBMIT_JOB_BG

HISTORIES = int(os.environ.get("TXGEARMAN_HISTORIES", "60"))
STEPS = 80
LARGEST = 60_000

POST = b"POST /f HTTP/1.1\r\nHost: localhost\r\n"
REQUESTS = (
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"GET /api/v1/live?view=overview HTTP/1.1\r\nHost: localhost\r\n\r\n",
    *(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size) for size in (0, 10, 40_000, LARGEST)),
    POST + b"Content-Length: %d\r\n\r\n" % (LARGEST + 1),
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"4e20\r\n" + bytes(20_000) + b"\r\n") * 2 + b"0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"4e20\r\n" + bytes(20_000) + b"\r\n") * 4,
    POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    b"\x16\x03\x01",
)
PACKETS = (
    *(frame(REQUEST, SUBMIT_JOB, b"f\0\0" + bytes(size)) for size in (0, COUNTED_FROM, 50_000, LARGEST)),
    *(frame(REQUEST, ECHO_REQ, bytes(size)) for size in (1, COUNTED_FROM + 1, LARGEST)),
    frame(REQUEST, SUBMIT_JOB_BG, b"f\0\0x"),
    frame(REQUEST, CAN_DO, b"f"),
    frame(REQUEST, GRAB_JOB, b""),
    b"status\nshow jobs\n",
    b"\x16\x03",
)


class History:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        settings = Settings(
            web="8080",
            max_packet=LARGEST,
            max_unfinished_total=self.random.choice((1, 70_000, 200_000)),
            max_connections=self.random.choice((3, 100)),
            web_max_connections=self.random.choice((3, 100)),
            max_unsent=self.random.choice((1024, 100_000)),
            max_unsent_total=self.random.choice((5_000, 1_000_000)),
        )
        self.web = Web(WebSettings(max_data=LARGEST), settings)
        self.server = self.web.gearman.server
        self.site = LimitedSite(self.web.site)
        self.transports: list[Transport] = []
        # What each still has to send of what it has begun.
        self.rest: dict[Transport, bytes] = {}

    def connect(self) -> None:
        peer = IPv4Address("TCP", f"192.0.2.{self.random.randrange(3)}", 50000)
        transport = Transport(IPv4Address("TCP", HERE, 4730), peer)
        transport.lingers, transport.pauses = (self.random.random() < 0.3 for _ in range(2))
        transport.protocol = self.random.choice((self.site, self.server)).buildProtocol(peer)
        transport.protocol.makeConnection(transport)
        self.transports.append(transport)
        self.rest[transport] = b""

    def send(self, transport: Transport) -> None:
        if not self.rest[transport]:
            over_http = isinstance(transport.protocol, LimitedChannel)
            one = self.random.choice(REQUESTS if over_http else PACKETS)
            self.rest[transport] = one * self.random.choice((1, 1, 2))
        size = self.random.choice((1, 12, 100, COUNTED_FROM, 30_000, 65_536))
        data, self.rest[transport] = self.rest[transport][:size], self.rest[transport][size:]
        transport.protocol.dataReceived(data)
        if self.random.random() < 0.7:
            self.web.gearman.turn()

    def happen(self) -> None:
        chance = self.random.random()
        live = [transport for transport in self.transports if transport.connected]
        if chance < 0.15 or not live:
            self.connect()
        elif chance < 0.2:
            self.random.choice(live).end()
        elif chance < 0.28:
            self.web.gearman.turn(self.random.choice((0.1, 3, 6, 19, 61)))
        elif chance < 0.38:
            transport = self.random.choice(live)
            if transport.producer is not None:
                transport.resume()
        else:
            self.send(self.random.choice(live))

    def wrong(self) -> Iterator[str]:
        server = self.server
        unfinished = server.unfinished
        if not sum(unfinished._sizes.values()) == unfinished.total <= unfinished.limit:
            yield f"unfinished: {unfinished.total} of {unfinished.limit} are counted, {unfinished._sizes}"
        if server.budget.used != really_held(server.budget):
            yield f"unsent: {server.budget.used} are counted, {really_held(server.budget)} are there"
        for admission, there in (
            (server.admission, server.connections),
            (server.web_admission, self.site.protocols),
        ):
            if not admission.count == sum(admission._of.values()) == len(there):
                yield f"connections: {admission.count} are counted, {len(there)} are there"

    def run(self) -> list[str]:
        """Let it happen; returns what is wrong after the first step that went wrong, or in the end."""
        for _ in range(STEPS):
            self.happen()
            if wrong := list(self.wrong()):
                return wrong
        for transport in self.transports:
            transport.end()
        self.web.gearman.turn()
        server = self.server
        left = [
            server.unfinished.total,
            server.budget.used,
            server.admission.count,
            server.web_admission.count,
        ]
        # The timers of the broker's jobs are no connection's.
        calls = [str(call) for call in self.web.gearman.clock.getDelayedCalls() if "tick" not in str(call)]
        return [*self.wrong(), *(f"{left} are left" for _ in range(any(left))), *calls]


class HistoriesTests(SynchronousTestCase):
    def test_what_is_counted_is_right_and_nothing_is_left(self) -> None:
        for seed in range(HISTORIES):
            self.assertEqual(History(seed).run(), [], f"history {seed}")
        self.assertEqual(self.flushLoggedErrors(), [])
