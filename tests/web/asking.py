"""Requests to a web side in memory: bytes in, bytes out, no socket and no reactor. No expectations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.web import WebSettings, make_site
from txgearman.web.interfaces import ServerHealth

HERE = "127.0.0.1"


@dataclass
class Response:
    """What came back: `headers` have lower-case names. `status` is 0 as long as nothing has come."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem document."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json()
        assert problem["status"] == self.status
        return str(problem["code"])


class Transport(StringTransport):
    """Ends a connection as soon as that is asked for; one that `lingers` only when it is aborted. One that
    `pauses` has enough with every piece that is written, until it is told to `resume`."""

    connected = True
    pauses = False
    lingers = False
    protocol: Any

    def write(self, data: bytes) -> None:
        super().write(data)
        producer: Any = self.producer
        if self.pauses and producer is not None:
            producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def resume(self) -> None:
        producer: Any = self.producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        # Sockets do not mind when there is none.
        self.producer = None

    def loseConnection(self) -> None:
        self.disconnecting = True
        if not self.lingers:
            self.end()

    def abortConnection(self) -> None:
        self.end()

    def end(self) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionLost()))


class Exchange:
    """One connection with one request under way."""

    def __init__(self, web: Web, host: str) -> None:
        address = IPv4Address("TCP", host, 8080)
        self._web = web
        self.transport = Transport(address, IPv4Address("TCP", host, 50000))
        self._protocol = web.site.buildProtocol(None)
        self.transport.protocol = self._protocol
        self._protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.deliver(data)
        self._web.gearman.turn()

    def deliver(self, data: bytes) -> None:
        """One read of the server brings `data`; the reactor does nothing else yet."""
        self._protocol.dataReceived(data)

    def leave(self) -> None:
        """The peer closes its connection."""
        self.transport.end()
        self._web.gearman.turn()

    @property
    def answers(self) -> int:
        """How many answers have begun."""
        return self.transport.value().count(b"HTTP/1.1 ")

    @property
    def response(self) -> Response:
        """What has come so far."""
        raw = self.transport.value()
        if not raw:
            return Response(0, {}, b"", not self.transport.connected)
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        if headers.get("transfer-encoding") == "chunked":
            body = _dechunked(body)
        return Response(int(first.split()[1]), headers, body, not self.transport.connected)


def _dechunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        data = rest[length + 2 :]
    return b"".join(parts)


class ThreadlessClock(Clock):
    """A clock with a pool of threads that are none: what is called there is called at once."""

    def getThreadPool(self) -> ThreadlessClock:
        return self

    def callInThread(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)

    callFromThread = callInThread


class Web:
    """The web side of a job server in memory. `settings` are those of the web side, `server` the server's."""

    def __init__(
        self,
        settings: WebSettings | None = None,
        server: Settings | None = None,
        health: ServerHealth | None = None,
    ) -> None:
        self.gearman = MemoryGearman(server or Settings(handle_prefix="H:t"), ThreadlessClock())
        self.broker = self.gearman.server.broker
        self.inspection = self.gearman.server.inspection
        self.administration = self.gearman.server.administration
        self.site = make_site(self.gearman.server, settings or WebSettings(), self.gearman.clock, health)

    def one_turn(self) -> bool:
        """One turn of the reactor; whether there was anything to do. What is called for in it is left to the
        next turn, where the clock would do it at once."""
        clock = self.gearman.clock
        due = [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]
        for call in due:
            if call.active():
                clock.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        return bool(due)

    def begin(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        host: str = HERE,
    ) -> Exchange:
        """Send a request that may take a while."""
        exchange = Exchange(self, host)
        lines = {"Host": f"{host}:8080", **(headers or {})}
        if body or method in ("POST", "PUT", "PATCH"):
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        exchange.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        return exchange

    def ask(self, method: str, path: str, body: bytes = b"", **how: Any) -> Response:
        """Send a request and return its answer, which is to come while the clock stands still."""
        response = self.begin(method, path, body, **how).response
        assert response.status, "no answer"
        return response

    def get(self, path: str, **how: Any) -> Response:
        return self.ask("GET", path, **how)
