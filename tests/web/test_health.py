"""``/healthz`` and ``/readyz`` of a whole service, on a reactor in memory."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req
from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.web.asking import HERE, Exchange, Response
from txgearman.server import GearmanService, Settings
from txgearman.server.persistence.writer import StoreWriter


class HealthTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.service = GearmanService(self.reactor, Settings(web="8080"))
        self.site = self.service._web.site

    def ask(self, path: str, method: str = "GET") -> Response:
        exchange = Exchange(self, HERE)
        exchange.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return exchange.response

    @property
    def gearman(self) -> HealthTest:
        """For `Exchange`, which turns the server's clock."""
        return self

    def turn(self) -> None:
        self.reactor.advance(0)

    def assert_ready(self) -> None:
        response = self.ask("/readyz")
        self.assertEqual((response.status, response.json()), (200, {"status": "ok"}))

    def assert_not_ready(self, why: str) -> None:
        response = self.ask("/readyz")
        self.assertEqual((response.status, response.code, response.json()["detail"]), (503, "not-ready", why))
        self.assertEqual(self.ask("/healthz").status, 200, "it lives all the same")

    def test_from_start_to_end(self) -> None:
        self.assert_not_ready("the server does not listen")
        self.service.startService()
        self.assert_ready()
        self.successResultOf(self.service.stopService())
        self.assert_not_ready("the server does not listen")
        self.service.startService()
        self.assert_ready()

    def test_a_graceful_shutdown(self) -> None:
        self.service.startService()
        transport = SocketlikeTransport()
        transport.connect(self.service.factory.buildProtocol(None))
        transport.receive(req(18, b"f", b"", b""), b"shutdown graceful\n")
        self.reactor.advance(1)
        self.assert_not_ready("the server is shutting down")
        jobs, web = (listener for listener in self.service._listeners or ())
        self.assertEqual((jobs.running, web.running), (0, 1), "the web side tells of it to the end")

    def test_draining(self) -> None:
        self.service.startService()
        self.service.drain(0)
        self.assert_not_ready("the server is shutting down")

    def test_a_store_that_cannot_save(self) -> None:
        store, thread = ListStore(), Thread()
        self.service.startService()
        self.service.store_writer = store_writer = StoreWriter(store, self.reactor, thread)
        self.service.factory.use_store(store_writer, store_writer.open("this", 10))
        store_writer.load(self.service.factory.broker)
        self.assert_ready()
        store.failing = UNAVAILABLE
        transport = SocketlikeTransport()
        transport.connect(self.service.factory.buildProtocol(None))
        transport.receive(req(18, b"f", b"", b""))
        self.reactor.advance(0)
        thread.run_all()
        self.assert_not_ready("the store is unavailable")
        store.failing = None
        self.reactor.advance(1)
        thread.run_all()
        self.assert_ready()

    def test_methods(self) -> None:
        self.assertEqual(self.ask("/healthz", "HEAD").status, 200)
        response = self.ask("/healthz", "POST")
        self.assertEqual((response.status, response.headers["allow"]), (405, "GET, HEAD"))
