"""Heartbeats: finding a server that vanished without a word, and leaving alone one that is only slow."""

from __future__ import annotations

import socket
import tempfile
import unittest
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial import util
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.connection.memory import PlayedServer, packet
from tests.interop.programs import HOST
from tests.server.test_tls import write_certificate
from tests.support import on_reactor
from txgearman.connection.heartbeat import MIN_PROGRESS_BYTES, Heartbeat, LivenessCheck, liveness_check_from
from txgearman.connection.protocol import KEEPALIVE, PacketFactory, PacketProtocol
from txgearman.net import fast_write
from txgearman.wire.packets import ECHO_RES, NOOP

if TYPE_CHECKING:
    _Base = TestCase
else:
    _Base = object

CHECK = LivenessCheck(30.0, 10.0)
ECHO = ("ECHO_REQ", b"")


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[str] = []
        self.delivered = 0
        self.reply_pending = False
        self.heartbeat = Heartbeat(
            self.clock,
            CHECK,
            lambda: self.told.append("ask"),
            lambda: self.reply_pending,
            lambda: self.delivered,
            self.told.append,
        )
        self.heartbeat.start()

    def test_a_silent_peer_is_asked_and_given_up(self) -> None:
        self.clock.advance(29.9)
        self.assertEqual(self.told, [])
        self.clock.advance(0.1)
        self.assertEqual(self.told, ["ask"])
        self.clock.advance(9.9)
        self.assertEqual(self.told, ["ask"])
        self.clock.advance(0.1)
        self.assertEqual(self.told, ["ask", "the server did not answer within 10 seconds"])
        self.assertEqual(self.clock.getDelayedCalls(), [], "it is told once")

    def test_a_peer_that_answers_is_left_alone(self) -> None:
        self.clock.advance(30)
        for round_ in range(1, 5):
            self.assertEqual(self.told, ["ask"] * round_)
            self.clock.advance(4)
            self.heartbeat.note_data(self.clock.seconds())
            self.clock.advance(6)
            self.clock.advance(23)
            self.assertEqual(self.told, ["ask"] * round_)
            self.clock.advance(1)
        self.assertEqual(self.told, ["ask"] * 5, "each 30 seconds after the last byte")

    def test_a_peer_that_talks_is_not_asked(self) -> None:
        for _ in range(10):
            self.clock.advance(29)
            self.heartbeat.note_data(self.clock.seconds())
        self.assertEqual(self.told, [])

    def test_a_transfer_to_the_peer_that_goes_on_is_life(self) -> None:
        self.clock.advance(30)
        for _ in range(5):
            self.delivered += MIN_PROGRESS_BYTES
            self.clock.advance(10)
        self.assertEqual(self.told, ["ask"])
        self.delivered += MIN_PROGRESS_BYTES - 1
        self.clock.advance(10)
        self.assertEqual(len(self.told), 2, "and one that stands still is not")

    def expect_reply(self) -> None:
        self.reply_pending = True
        self.heartbeat.expect_reply()

    def note_data(self) -> None:
        self.heartbeat.note_data(self.clock.seconds())

    def test_an_answer_that_is_due_is_not_waited_for_longer_than_for_an_echo(self) -> None:
        self.clock.advance(5)
        self.expect_reply()
        self.clock.advance(9.9)
        self.assertEqual(self.told, [])
        self.clock.advance(0.1)
        self.assertEqual(self.told, ["the server did not answer within 10 seconds"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_that_come_keep_it_quiet(self) -> None:
        for _ in range(20):
            self.expect_reply()
            self.clock.advance(4)
            self.note_data()
            self.reply_pending = False
            self.clock.advance(4)
        self.assertEqual(self.told, [])
        self.clock.advance(26)
        self.assertEqual(self.told, ["ask"], "30 seconds after the last byte")

    def test_an_answer_due_behind_others_has_its_whole_time(self) -> None:
        self.expect_reply()
        self.clock.advance(9)
        self.note_data()
        self.clock.advance(1)
        self.clock.advance(9.9)
        self.assertEqual(self.told, [], "another was asked for up to the end of the first ten seconds")
        self.clock.advance(0.1)
        self.assertEqual(self.told, ["the server did not answer within 10 seconds"])

    def test_what_is_due_while_much_is_on_its_way_is_waited_for(self) -> None:
        self.expect_reply()
        for _ in range(5):
            self.delivered += MIN_PROGRESS_BYTES
            self.clock.advance(10)
        self.assertEqual(self.told, [])

    def test_nothing_is_expected_of_a_peer_that_is_not_watched(self) -> None:
        self.heartbeat.stop()
        self.expect_reply()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_a_busy_reactor_has_not_read_yet_counts(self) -> None:
        self.clock.advance(30)
        expiry = self.clock.getDelayedCalls()[0]
        # A turn of the reactor: what is due, then what can be read.
        self.clock.rightNow += 1000
        expire = expiry.func
        expiry.cancel()
        expire()
        self.assertEqual(self.told, ["ask"])
        self.heartbeat.note_data(self.clock.seconds())
        self.clock.advance(0)
        self.assertEqual(self.told, ["ask"])

    def test_stopped_it_is_silent(self) -> None:
        for elapsed in (0, 30):
            self.setUp()
            self.clock.advance(elapsed)
            self.heartbeat.stop()
            self.heartbeat.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_while_it_asks(self) -> None:
        def ask() -> None:
            heartbeat.stop()

        heartbeat = Heartbeat(self.clock, CHECK, ask, bool, int, self.told.append)
        self.heartbeat.stop()
        heartbeat.start()
        self.clock.advance(30)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_options(self) -> None:
        self.assertEqual(liveness_check_from(1, 2.5), LivenessCheck(1, 2.5))
        for off in ((None, 1), (1, None), (0, 1), (1, 0)):
            self.assertIsNone(liveness_check_from(*off))
        for bad in ((-1, 1), (1, float("nan")), (float("inf"), 1)):
            with self.assertRaises(ValueError):
                liveness_check_from(*bad)


class Recorded(PacketProtocol):
    def __init__(self, clock: Any, check: LivenessCheck | None) -> None:
        super().__init__(clock, 1000, check)
        self.ends: list[str] = []

    def ended(self, why: str) -> None:
        self.ends.append(why)


class CheckedConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.protocol = Recorded(self.clock, CHECK)
        self.server = PlayedServer(self.protocol)

    def test_a_dead_server_is_cut_off(self) -> None:
        self.clock.advance(30)
        self.assertEqual(self.server.heard(), [ECHO])
        with capturedLogs() as logs:
            self.clock.advance(10)
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn])
        self.assertEqual(self.protocol.ends, ["the server did not answer within 10 seconds"])
        self.assertTrue(self.server.transport.disconnected)
        self.server.lose()
        self.assertEqual(len(self.protocol.ends), 1)

    def test_any_byte_is_life(self) -> None:
        answer = packet(ECHO_RES, b"x" * 900)
        for byte in answer[:20]:
            self.clock.advance(30)
            self.server.send(bytes([byte]))
            self.clock.advance(10)
        self.assertEqual(self.protocol.ends, [])

    def test_the_answer_is_life(self) -> None:
        for _ in range(3):
            self.clock.advance(30)
            self.assertEqual(self.server.heard(), [ECHO])
            self.server.say(ECHO_RES, b"")
            self.clock.advance(10)
        self.assertEqual(self.protocol.ends, [])

    def lose(self) -> None:
        self.server.lose()

    def test_nothing_is_asked_behind_the_end(self) -> None:
        for end in (lambda: self.protocol.close("enough"), self.lose):
            self.setUp()
            end()
            self.server.heard()
            self.clock.advance(1000)
            self.assertEqual(self.server.heard(), [])
            self.assertEqual(len(self.protocol.ends), 1)

    def test_without_a_check_nothing_is_asked(self) -> None:
        protocol = Recorded(self.clock, None)
        server = PlayedServer(protocol)
        self.clock.advance(1000)
        self.assertEqual(server.heard(), [])
        server.say(NOOP)


class Deaf(Protocol):
    """A server that reads nothing until it is told to, and then little at a time."""

    transport: Any

    def __init__(self, arrived: Deferred[Deaf]) -> None:
        self.gone: Deferred[None] = Deferred()
        self._arrived = arrived

    def connectionMade(self) -> None:
        self._arrived.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class SocketExpectations(_Base):
    """What only sockets can show, with and without TLS."""

    async def listen(self, factory: Factory) -> Any:
        """A listening port that makes its protocols by `factory`."""
        raise NotImplementedError

    def endpoint(self, port: int) -> Any:
        """A client endpoint that leads there."""
        raise NotImplementedError

    async def joined(self) -> tuple[Any, Any, Any]:
        """A listening port, the server's end and the client's end of a connection, whose clock is `clock`."""
        self.clock = Clock()
        arrived: Deferred[Deaf] = Deferred()
        port = await self.listen(Factory.forProtocol(lambda: Deaf(arrived)))
        endpoint = self.endpoint(port.getHost().port)
        protocol = await endpoint.connect(PacketFactory(lambda: Recorded(self.clock, CHECK)))
        return port, await arrived, protocol

    async def part(self, port: Any, server: Any, protocol: Any) -> None:
        """End both ends; the server's, which may not be reading, hears of nothing."""
        # A TLS connection that has ended must not be aborted again.
        if not server.gone.called:
            server.transport.abortConnection()
        if not protocol._disconnected:
            protocol._abort()
        await port.stopListening()
        await protocol.close("done")
        await server.gone

    async def delivered(self, server: Any, protocol: Any, size: int) -> None:
        """Let the server read, a turn of the reactor at a time, until `size` bytes in all have reached it."""
        while protocol._delivered() < size:
            server.transport.resumeProducing()
            await self.turn()
        server.transport.pauseProducing()

    async def turn(self) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, 0)  # type: ignore[arg-type]

    @on_reactor
    async def test_what_is_delivered(self) -> None:
        port, server, protocol = await self.joined()
        try:
            size = 20_000_000  # more than the system keeps for a peer that does not read
            protocol.write(bytes(size))
            self.assertGreater(fast_write.unsent(protocol.transport), 0)
            self.assertLess(protocol._delivered(), size // 2, "be it ahead of a handshake")
            await self.delivered(server, protocol, size)
            self.assertEqual(protocol._delivered(), size)
        finally:
            await self.part(port, server, protocol)
        fast_write.unsent(protocol.transport)  # a closed connection can be asked too

    @on_reactor
    async def test_a_slow_reader_is_not_dead_until_it_stops(self) -> None:
        port, server, protocol = await self.joined()
        try:
            protocol.write(bytes(20_000_000))
            self.clock.advance(CHECK.interval)
            for _ in range(20):
                await self.delivered(server, protocol, protocol._delivered() + MIN_PROGRESS_BYTES)
                self.clock.pump([CHECK.timeout, 0])
                self.assertEqual(protocol.ends, [])
            self.assertGreater(fast_write.unsent(protocol.transport), 0, "it was long enough on its way")
            with capturedLogs():
                while not protocol.ends:
                    # What the system still takes for the server counts as delivered.
                    await self.turn()
                    self.clock.pump([CHECK.timeout, 0])
            self.assertEqual(protocol.ends, ["the server did not answer within 10 seconds"])
        finally:
            await self.part(port, server, protocol)

    @on_reactor
    async def test_keepalive_is_set(self) -> None:
        port, server, protocol = await self.joined()
        try:
            # Below TLS is the transport with the socket.
            handle = getattr(protocol.transport, "transport", protocol.transport).getHandle()
            self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
            for option, value in (
                ("TCP_KEEPIDLE", KEEPALIVE.idle),
                ("TCP_KEEPINTVL", KEEPALIVE.interval),
                ("TCP_KEEPCNT", KEEPALIVE.count),
            ):
                if hasattr(socket, option):
                    self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)), value)
        finally:
            await self.part(port, server, protocol)


class PlainSocketTests(SocketExpectations, TestCase):
    async def listen(self, factory: Factory) -> Any:
        from twisted.internet import reactor

        return await TCP4ServerEndpoint(reactor, 0, interface=HOST).listen(factory)  # type: ignore[arg-type]

    def endpoint(self, port: int) -> Any:
        from twisted.internet import reactor

        return TCP4ClientEndpoint(reactor, HOST, port)  # type: ignore[arg-type]


@unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class TlsSocketTests(SocketExpectations, TestCase):
    # What Twisted passes to pyOpenSSL; not our doing.
    suppress = [util.suppress(category=DeprecationWarning, message="Passing pyOpenSSL")]

    async def listen(self, factory: Factory) -> Any:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory(prefix="txgearman-tls-") as folder:
            key, certificate = write_certificate(Path(folder))
            description = f"ssl:0:interface={HOST}:privateKey={key}:certKey={certificate}"
            return await serverFromString(reactor, description).listen(factory)

    def endpoint(self, port: int) -> Any:
        from twisted.internet import reactor
        from twisted.internet.ssl import CertificateOptions

        plain = TCP4ClientEndpoint(reactor, HOST, port)  # type: ignore[arg-type]
        return wrapClientTLS(CertificateOptions(verify=False), plain)
