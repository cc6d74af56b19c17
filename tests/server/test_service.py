"""The server as a service: several in one process, starting, ending, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import defer
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.programs import HOST, exchange
from tests.server.lines import Line, close, connect
from tests.server.peers import SocketlikeTransport, req, res
from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.support import free_port, on_reactor
from txgearman.errors import StoreUnavailable
from txgearman.server import GearmanService, Settings, make_service, service
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.store.contract import QueueLength

PREFIX = "H:test"


class ClockedTestCase(SynchronousTestCase):
    """A service on a reactor in memory, which only moves when it is told to."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.ended = 0
        self.service = self.make()

    def make(self) -> GearmanService:
        return make_service(
            Settings(listen=("tcp:4730:interface=127.0.0.1",), handle_prefix=PREFIX),
            reactor=self.reactor,
            on_shutdown=self.end,
        )

    def end(self) -> None:
        self.ended += 1

    def connect(self) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.service.factory.buildProtocol(None))
        return transport

    def turn(self) -> None:
        self.reactor.advance(0)


class ShutdownTest(ClockedTestCase):
    """``shutdown`` and ``shutdown graceful``."""

    def setUp(self) -> None:
        super().setUp()
        self.service.startService()

    def test_at_once(self) -> None:
        self.service.shut_down(graceful=False)
        self.assertEqual(self.ended, 0, "not before the answer is under way")
        self.turn()
        self.assertEqual(self.ended, 1)

    def test_graceful_without_jobs(self) -> None:
        self.service.shut_down(graceful=True)
        self.reactor.advance(1)
        self.assertEqual(self.ended, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_graceful_waits_for_the_last_job(self) -> None:
        client, worker = self.connect(), self.connect()
        client.receive(req(18, b"f", b"", b"1"), req(7, b"f", b"", b"2"))
        self.service.shut_down(graceful=True)
        self.reactor.pump([0.25] * 100)
        self.assertEqual(self.ended, 0)
        # Who is there may go on, and submit more.
        client.receive(req(18, b"f", b"", b"3"))
        worker.receive(req(1, b"f"), req(9), req(9), req(9), req(13, b"H:test:1", b""))
        worker.receive(req(13, b"H:test:2", b"r"))
        self.reactor.pump([0.25] * 100)
        self.assertEqual(self.ended, 0)
        self.assertTrue(client.value().endswith(res(13, b"H:test:2", b"r")))
        worker.receive(req(14, b"H:test:3"))
        self.reactor.pump([0.25] * 2)
        self.assertEqual(self.ended, 1)
        self.reactor.pump([0.25] * 10)
        self.assertEqual(self.ended, 1)

    def test_graceful_waits_for_scheduled_jobs(self) -> None:
        client = self.connect()
        client.receive(req(36, b"f", b"", b"253402300799", b""))
        self.service.shut_down(graceful=True)
        self.reactor.pump([60] * 10)
        self.assertEqual(self.ended, 0)
        client.receive(b"cancel job H:test:1\n")
        self.reactor.advance(1)
        self.assertEqual(self.ended, 1)

    def test_graceful_twice_ends_once(self) -> None:
        self.service.shut_down(graceful=True)
        self.service.shut_down(graceful=True)
        self.reactor.pump([1] * 3)
        self.assertEqual(self.ended, 1)

    def test_at_once_twice_ends_once(self) -> None:
        # To stop a reactor a second time is an error.
        self.service.shut_down(graceful=False)
        self.service.shut_down(graceful=False)
        self.turn()
        self.assertEqual(self.ended, 1)

    def test_at_once_behind_graceful(self) -> None:
        self.connect().receive(req(18, b"f", b"", b""))
        self.service.shut_down(graceful=True)
        self.service.shut_down(graceful=False)
        self.turn()
        self.assertEqual(self.ended, 1)

    def test_by_an_administrator(self) -> None:
        admin = self.connect()
        admin.receive(b"shutdown\n")
        self.turn()
        self.assertEqual((admin.value(), self.ended), (b"OK\r\n", 1))

    def test_without_on_shutdown_the_service_stops(self) -> None:
        service = make_service(Settings(listen=()), reactor=self.reactor)
        service.startService()
        service.shut_down(graceful=False)
        self.turn()
        self.assertFalse(service.running)


class DrainTest(ClockedTestCase):
    """What SIGTERM does before the service is stopped."""

    def setUp(self) -> None:
        super().setUp()
        self.service.startService()
        self.client, self.worker = self.connect(), self.connect()
        self.worker.receive(req(1, b"f"))

    def run_one(self) -> None:
        """One job runs, another waits."""
        self.client.receive(req(7, b"f", b"", b"1"), req(18, b"f", b"", b"2"))
        self.worker.receive(req(9))
        self.turn()
        self.client.taken()
        self.worker.taken()

    def test_nothing_runs(self) -> None:
        self.client.receive(req(18, b"f", b"", b""))
        with capturedLogs() as events:
            self.successResultOf(self.service.drain(60))
        self.assertEqual(events, [])

    def test_a_running_job_may_end(self) -> None:
        self.run_one()
        with capturedLogs() as events:
            drained = self.service.drain(60)
        self.assertEqual(texts(events), ["Draining: 1 jobs run and have 60 seconds"])
        self.reactor.pump([1] * 50)
        self.assertNoResult(drained)
        self.worker.receive(req(13, b"H:test:1", b"r"), req(9))
        self.turn()
        self.assertEqual(self.worker.taken(), res(10), "it gets no other")
        self.assertEqual(self.client.taken(), res(13, b"H:test:1", b"r"))
        self.reactor.advance(1)
        self.successResultOf(drained)

    def test_not_for_ever(self) -> None:
        self.run_one()
        drained = self.service.drain(60)
        self.reactor.pump([1] * 59)
        self.assertNoResult(drained)
        self.reactor.advance(1)
        self.successResultOf(drained)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_time_at_all(self) -> None:
        self.run_one()
        self.successResultOf(self.service.drain(0))

    def test_a_new_job_is_refused(self) -> None:
        self.run_one()
        self.service.drain(60)
        self.client.receive(req(18, b"f", b"", b""))
        self.turn()
        self.assertEqual(self.client.taken(), res(19, b"SHUTTING_DOWN", b"Server is shutting down"))

    def test_a_worker_that_leaves_ends_it(self) -> None:
        self.run_one()
        drained = self.service.drain(60)
        self.worker.lose()
        self.reactor.advance(1)
        self.successResultOf(drained)

    def test_it_takes_the_place_of_a_graceful_shutdown(self) -> None:
        self.run_one()
        self.service.shut_down(graceful=True)
        drained = self.service.drain(60)
        self.worker.receive(req(13, b"H:test:1", b"r"))
        self.reactor.advance(1)
        self.successResultOf(drained)
        self.assertEqual(self.ended, 0, "whoever drains ends it")

    def test_what_is_lost_is_said(self) -> None:
        self.run_one()
        self.successResultOf(self.service.drain(0))
        with capturedLogs() as events:
            self.service.stopService()
            for transport in (self.client, self.worker):
                transport.lose()
            self.turn()
        said = "Stopping. 2 jobs are not done, 1 of them run: they are lost, as there is no store"
        self.assertIn(said, texts(events))


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [formatEvent(event) for event in events]


class StopTest(ClockedTestCase):
    """stopService leaves no timer behind, whatever the connections were doing."""

    def setUp(self) -> None:
        super().setUp()
        self.service.startService()
        self.transports: list[SocketlikeTransport] = []

    def connect(self) -> SocketlikeTransport:
        transport = super().connect()
        self.transports.append(transport)
        return transport

    def assert_stops(self) -> None:
        stopping = defer.maybeDeferred(self.service.stopService)
        self.turn()
        for transport in self.transports:
            self.assertTrue(transport.disconnecting or transport.aborted)
            transport.lose()
        self.turn()
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.service.factory.connections, {})

    def test_idle(self) -> None:
        self.assert_stops()

    def test_with_connections(self) -> None:
        self.connect()
        self.connect().receive(req(16, b"x"))
        self.assert_stops()

    def test_the_last_answers_are_sent(self) -> None:
        transport = self.connect()
        transport.receive(req(16, b"x"))
        self.assert_stops()
        self.assertEqual(transport.value(), res(17, b"x"))

    def test_with_scheduled_jobs(self) -> None:
        self.connect().receive(req(36, b"f", b"", b"253402300799", b""))
        self.assert_stops()

    def test_with_a_running_job_with_a_time_limit(self) -> None:
        self.connect().receive(req(23, b"f", b"5000"), req(18, b"f", b"", b""), req(9))
        self.assert_stops()

    def test_with_a_woken_worker(self) -> None:
        worker = self.connect()
        worker.receive(req(1, b"f"), req(4))
        worker.receive(req(18, b"f", b"", b""))
        self.assert_stops()

    def test_with_a_sleeper_for_the_job_of_a_lost_worker(self) -> None:
        # The end of the first connection queues its job again, which wakes the second.
        one, two = self.connect(), self.connect()
        one.receive(req(1, b"f"), req(18, b"f", b"", b""), req(9))
        two.receive(req(1, b"f"), req(4))
        self.assert_stops()

    def test_during_a_graceful_shutdown(self) -> None:
        self.connect().receive(req(18, b"f", b"", b""))
        self.service.shut_down(graceful=True)
        self.turn()
        self.assert_stops()
        self.reactor.advance(10)
        self.assertEqual(self.ended, 0)

    def test_a_peer_that_never_reads_does_not_hold_it_up_for_ever(self) -> None:
        transport = self.connect()
        transport.receive(*[req(16, bytes(40_000))] * 10)
        self.assertFalse(transport.reading)
        stopping = defer.maybeDeferred(self.service.stopService)
        self.reactor.pump([1] * 60)
        self.assertTrue(transport.aborted, "it will never take its bytes, so its connection is to be cut")
        transport.lose()
        self.turn()
        self.successResultOf(stopping)

    def test_twice(self) -> None:
        self.connect()
        self.assert_stops()
        self.transports.clear()
        self.assert_stops()

    def test_before_it_was_started(self) -> None:
        service = self.make()
        self.successResultOf(defer.maybeDeferred(service.stopService))
        gc.collect()  # unhandled errors of Deferreds are logged when these are freed
        self.assertEqual(self.flushLoggedErrors(), [])


@contextlib.asynccontextmanager
async def serving(*listen: str, parent: MultiService | None = None) -> AsyncIterator[GearmanService]:
    """A service on the real reactor."""
    service = make_service(Settings(listen=listen, handle_prefix=PREFIX))
    if parent is not None:
        service.setServiceParent(parent)
    outermost = service if parent is None else parent
    outermost.startService()
    try:
        yield service
    finally:
        await defer.maybeDeferred(outermost.stopService)


class StoreTest(SynchronousTestCase):
    """The start and the end of a service with a store."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.store, self.thread = ListStore(), Thread()
        self.patch(service, "one_thread", lambda _reactor: (self.thread, lambda: None))
        settings = Settings(listen=("tcp:4730:interface=127.0.0.1",), handle_prefix=PREFIX)
        self.service = make_service(settings, reactor=self.reactor, store=self.store)

    def test_it_ends_though_clients_and_workers_go_on(self) -> None:
        self.service.startService()
        client = SocketlikeTransport()
        client.connect(self.service.factory.buildProtocol(None))
        client.receive(req(18, b"f", b"", b""))
        self.reactor.advance(0)
        stopping = self.service.stopService()
        turns = 0
        while not client.disconnecting:
            turns += 1
            self.assertLess(turns, 10)
            client.receive(req(18, b"f", b"", b""))
            self.thread.run()
            self.reactor.advance(0)
        client.lose()
        self.thread.run_all()
        self.successResultOf(stopping)
        heard = client.taken()
        self.assertEqual(heard.count(res(8, PREFIX.encode() + b":%d" % (NUMBERS_PER_START + 1))), 1)
        self.assertEqual(heard.count(b"SHUTTING_DOWN"), turns, "the later ones are refused")
        self.assertEqual(len(self.store.jobs), 1)
        self.assertFalse(self.store.is_open)

    def test_a_store_that_fails_while_it_is_loaded_is_closed(self) -> None:
        def fail() -> list[QueueLength]:
            raise UNAVAILABLE

        queue_lengths = self.store.queue_lengths
        self.store.queue_lengths = fail  # type: ignore[method-assign]
        with capturedLogs():
            self.assertRaises(StoreUnavailable, self.service.startService)
        self.assertFalse(self.store.is_open)
        self.store.queue_lengths = queue_lengths  # type: ignore[method-assign]
        self.service.startService()
        self.assertTrue(self.store.is_open)

    def test_a_store_is_given_up_where_something_behind_it_fails_to_start(self) -> None:
        def fail(*_arguments: object, **_more: object) -> None:
            raise CannotListenError(None, 4730, OSError("in use"))

        ended: list[None] = []
        self.patch(service, "one_thread", lambda _reactor: (self.thread, lambda: ended.append(None)))
        listen, self.reactor.listenTCP = self.reactor.listenTCP, fail
        self.assertRaises(CannotListenError, self.service.startService)
        # The thread would keep the process from ending, and the store would be kept from others.
        self.assertEqual((self.store.is_open, len(ended)), (False, 1))
        self.reactor.listenTCP = listen
        self.successResultOf(self.service.stopService())
        self.service.startService()
        self.assertTrue(self.store.is_open)


class RealTest(TestCase):
    """On real sockets."""

    @on_reactor
    async def test_several_servers_know_nothing_of_each_other(self) -> None:
        one, two = free_port(), free_port()
        async with serving(f"tcp:{one}:interface={HOST}"), serving(f"tcp:{two}:interface={HOST}"):
            first, second = await connect(one), await connect(two)
            created = res(8, b"H:test:1")
            self.assertEqual(await first.ask(req(18, b"f", b"u", b"x"), created), created)
            self.assertEqual(await second.ask(b"status\n", b".\n"), b".\n")
            self.assertEqual(await second.ask(req(18, b"f", b"u", b"x"), created), created)
            self.assertEqual(await second.ask(b"workers\n", b".\n"), b"1 127.0.0.1 - :\n.\n")
            await close(first, second)

    @on_reactor
    async def test_one_server_in_several_places(self) -> None:
        from twisted.internet import reactor

        folder = tempfile.mkdtemp(prefix="txgearman-service-")
        self.addCleanup(shutil.rmtree, folder)
        port, path = free_port(), f"{folder}/socket"
        async with serving(f"tcp:{port}:interface={HOST}", f"unix:{path}"):
            line = await connect(port)
            local = await connectProtocol(UNIXClientEndpoint(reactor, path), Line())
            created = res(8, b"H:test:1")
            self.assertEqual(await line.ask(req(18, b"f", b"", b"x"), created), created)
            self.assertEqual(await local.ask(b"status\n", b".\n"), b"f\t1\t0\t0\n.\n")
            self.assertEqual(await local.ask(b"workers\n", b"\n.\n"), b"1 127.0.0.1 - :\n2 unix - :\n.\n")
            await close(line, local)
        self.assertFalse(Path(path).exists())

    @on_reactor
    async def test_a_port_in_use_fails_the_start(self) -> None:
        with socket.socket() as holder:
            holder.bind((HOST, 0))
            holder.listen()
            port = holder.getsockname()[1]
            service = make_service(Settings(listen=(f"tcp:{port}:interface={HOST}",)))
            with self.assertRaises(CannotListenError):
                service.startService()

    @on_reactor
    async def test_after_a_failed_start_the_service_can_be_stopped(self) -> None:
        from twisted.internet import reactor

        free = free_port()
        await self.fail_to_start_and_stop(free, free_port())
        # Unhandled errors of Deferreds are logged when these are freed; the frames that fired them, from
        # which this test was just called, must be gone for that.
        await deferLater(reactor, 0)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        with self.assertRaises(ConnectError):
            await exchange(free, b"version\n", lambda answer: answer.endswith(b"\n"))

    async def fail_to_start_and_stop(self, first: int, last: int) -> None:
        """A service at three ports of which the second is taken: the last is never listened at."""
        with socket.socket() as holder:
            holder.bind((HOST, 0))
            holder.listen()
            ports = (first, holder.getsockname()[1], last)
            service = make_service(Settings(listen=tuple(f"tcp:{port}:interface={HOST}" for port in ports)))
            self.assertRaises(CannotListenError, service.startService)
            await service.stopService()

    @on_reactor
    async def test_a_stopped_service_starts_again_without_the_jobs_it_had(self) -> None:
        port = free_port()
        async with serving(f"tcp:{port}:interface={HOST}") as service:
            line = await connect(port)
            await line.say(req(18, b"f", b"", b""), req(36, b"f", b"", b"253402300799", b""))
            await service.stopService()
            await line.lost
            service.startService()
            line = await connect(port)
            self.assertEqual(await line.ask(b"status\n", b".\n"), b".\n")
            await close(line)

    @on_reactor
    async def test_in_a_multi_service(self) -> None:
        port, parent = free_port(), MultiService()
        async with serving(f"tcp:{port}:interface={HOST}", parent=parent):
            line = await connect(port)
            self.assertEqual(await line.ask(req(16, b"x"), b"x"), res(17, b"x"))
        await line.lost
        with self.assertRaises(ConnectError):
            await connect(port)

    @on_reactor
    async def test_a_shutdown_ends_the_service_and_not_its_parent(self) -> None:
        from twisted.internet import reactor

        port, parent = free_port(), MultiService()
        async with serving(f"tcp:{port}:interface={HOST}", parent=parent) as service:
            line = await connect(port)
            self.assertEqual(await line.ask(b"shutdown\r\n", b"\n"), b"OK\r\n")
            await line.lost.addTimeout(15, reactor)
            self.assertTrue(parent.running)
            self.assertFalse(service.running)

    @on_reactor
    async def test_stopping_waits_until_the_connections_are_gone(self) -> None:
        port = free_port()
        async with serving(f"tcp:{port}:interface={HOST}") as service:
            lines = [await connect(port) for _ in range(3)]
            await lines[0].ask(req(36, b"f", b"", b"253402300799", b"") + req(16, b"x"), b"x")
            await lines[1].ask(req(1, b"g") + req(18, b"g", b"", b"") + req(9) + req(16, b"x"), b"x")
            await lines[2].ask(req(1, b"g") + req(4) + req(16, b"x"), b"x")
        self.assertEqual(service.factory.connections, {})
        for line in lines:
            await line.lost

    @on_reactor
    async def test_a_large_answer_to_a_slow_reader_arrives_whole(self) -> None:
        from twisted.internet import reactor

        port = free_port()
        data = bytes(range(256)) * 4096
        async with serving(f"tcp:{port}:interface={HOST}"):
            line = await connect(port)
            line.transport.pauseProducing()
            line.transport.write(req(16, data) * 12 + b"status\n" + req(16, b"end"))
            # The server's part is done when neither side's socket takes any more.
            await deferLater(reactor, 0)
            line.transport.resumeProducing()
            heard = await line.heard(res(17, b"end"))
            self.assertTrue(heard == res(17, data) * 12 + b".\n" + res(17, b"end"))
            await close(line)
