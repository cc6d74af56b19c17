"""The client's connection: when it is made, shared, lost and closed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.client.played import EXCEPTIONS
from tests.connection.memory import PlayedEndpoint
from txgearman.client import Client
from txgearman.connection.protocol import CLOSE_TIMEOUT
from txgearman.errors import ConnectionLost, NotConnected, TimedOut
from txgearman.wire.packets import ECHO_RES, OPTION_RES


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint(hold=True)
        verifyObject(IStreamClientEndpoint, self.endpoint)
        self.client = Client(self.clock, self.endpoint)

    def accept(self) -> None:
        self.endpoint.accept()

    def echo(self, data: bytes) -> None:
        """Let the client ask for an echo on the newest connection and get it."""
        echo = self.client.echo(data)
        self.assertEqual(self.endpoint.server.heard()[-1], ("ECHO_REQ", data))
        self.endpoint.server.say(ECHO_RES, data)
        self.assertEqual(self.successResultOf(echo), data)

    def test_nothing_connects_before_it_is_needed(self) -> None:
        self.assertEqual(self.endpoint.attempts, 0)

    def test_requests_made_meanwhile_share_one_attempt_and_keep_their_order(self) -> None:
        first, second, connected = self.client.echo(b"1"), self.client.echo(b"2"), self.client.connect()
        self.assertEqual(self.endpoint.attempts, 1)
        self.assertNoResult(connected)
        self.accept()
        self.assertIsNone(self.successResultOf(connected))
        server = self.endpoint.server
        self.assertEqual(server.heard(), [EXCEPTIONS, ("ECHO_REQ", b"1"), ("ECHO_REQ", b"2")])
        server.say(OPTION_RES, b"exceptions")
        server.say(ECHO_RES, b"1")
        server.say(ECHO_RES, b"2")
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (b"1", b"2"))
        self.echo(b"3")
        self.successResultOf(self.client.connect())
        self.assertEqual(self.endpoint.attempts, 1)

    def test_no_connection(self) -> None:
        self.endpoint.refusal = Refused()
        first, second = self.client.echo(b"1"), self.client.connect()
        self.accept()
        for deferred in (first, second):
            error = self.failureResultOf(deferred, NotConnected).value
            self.assertIsInstance(error, ConnectionLost, "those who do not care need one name only")
            self.assertIs(error.__cause__, self.endpoint.refusal)
        self.endpoint.refusal = None
        again = self.client.connect()
        self.accept()
        self.successResultOf(again)

    def test_giving_up_waiting_for_a_connection_that_others_wait_for(self) -> None:
        first, second = self.client.echo(b"1"), self.client.echo(b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.accept()
        self.assertEqual(self.endpoint.server.heard(), [EXCEPTIONS, ("ECHO_REQ", b"2")])
        self.assertNoResult(second)

    def test_a_connection_that_takes_too_long(self) -> None:
        echo, connected = self.client.echo(b"1", timeout=5), self.client.connect(timeout=6)
        self.clock.advance(5)
        self.failureResultOf(echo, TimedOut)
        self.assertNoResult(connected)
        self.clock.advance(1)
        self.failureResultOf(connected, TimedOut)
        self.accept()
        self.assertEqual(self.endpoint.server.heard(), [EXCEPTIONS], "a request given up is not sent")

    def test_the_time_limit_counts_from_the_call(self) -> None:
        echo = self.client.echo(b"1", timeout=5)
        self.clock.advance(4)
        self.accept()
        self.clock.advance(1)
        self.failureResultOf(echo, TimedOut)
        self.endpoint.server.say(OPTION_RES, b"exceptions")
        self.endpoint.server.say(ECHO_RES, b"1")
        self.echo(b"2")

    def test_a_lost_connection_is_made_again_when_needed(self) -> None:
        connected = self.client.connect()
        self.accept()
        self.successResultOf(connected)
        self.endpoint.server.lose()
        self.assertEqual(self.endpoint.attempts, 1)
        echo = self.client.echo(b"1")
        self.assertEqual(self.endpoint.attempts, 2)
        self.accept()
        self.assertEqual(self.endpoint.server.heard(), [EXCEPTIONS, ("ECHO_REQ", b"1")])
        self.assertNoResult(echo)

    def test_a_connection_lost_while_it_is_made(self) -> None:
        self.endpoint.drop = True
        first, second = self.client.connect(), self.client.echo(b"1")
        self.accept()
        self.failureResultOf(first, NotConnected)
        self.failureResultOf(second, NotConnected)
        self.endpoint.drop = False
        again = self.client.connect()
        self.accept()
        self.successResultOf(again)

    def test_one_who_is_told_of_the_connection_can_close_it(self) -> None:
        first, second = self.client.connect(), self.client.echo(b"1")
        first.addCallback(lambda _: self.client.close())
        self.accept()
        self.failureResultOf(second, NotConnected)
        self.endpoint.server.hang_up()
        self.successResultOf(first)

    def test_one_who_is_told_of_the_failure_can_try_again(self) -> None:
        self.endpoint.refusal = Refused()
        again: list[Deferred[None]] = []
        first = self.client.connect()
        first.addErrback(lambda failure: again.append(self.client.connect()))
        self.accept()
        self.assertEqual(self.endpoint.attempts, 2)
        self.endpoint.refusal = None
        self.accept()
        self.successResultOf(again[0])

    def test_an_endpoint_can_be_a_string(self) -> None:
        Client(Clock(), "tcp:127.0.0.1:4730")
        with self.assertRaises(ValueError):
            Client(Clock(), "nonsense:")


class CloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.client = Client(self.clock, self.endpoint)

    def test_all_that_waits_fails_and_later_calls_too(self) -> None:
        echo = self.client.echo(b"1")
        closed = self.client.close()
        self.assertIn("the client was closed", str(self.failureResultOf(echo, ConnectionLost).value))
        self.assertEqual(self.endpoint.server.heard()[-1], ("ECHO_REQ", b"1"), "what was written is sent")
        self.assertNoResult(closed)
        self.failureResultOf(self.client.echo(b"2"), NotConnected)
        again = self.client.close()
        self.endpoint.server.hang_up()
        for deferred in (closed, again, self.client.close()):
            self.assertIsNone(self.successResultOf(deferred))
        self.failureResultOf(self.client.connect(), NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_hangs_is_cut_off(self) -> None:
        self.successResultOf(self.client.connect())
        closed = self.client.close()
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(self.endpoint.server.transport.disconnected)
        self.endpoint.server.hang_up()
        self.successResultOf(closed)

    def test_without_a_connection(self) -> None:
        self.successResultOf(self.client.close())
        self.failureResultOf(self.client.submit("f", b""), NotConnected)
        self.assertEqual(self.endpoint.attempts, 0)

    def test_behind_a_lost_connection(self) -> None:
        self.successResultOf(self.client.connect())
        self.endpoint.server.lose()
        self.successResultOf(self.client.close())

    def test_while_the_connection_is_made(self) -> None:
        self.endpoint.hold = True
        echo = self.client.echo(b"1")
        self.successResultOf(self.client.close())
        self.assertIn("the client was closed", str(self.failureResultOf(echo, NotConnected).value))
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_an_attempt_that_succeeds_in_spite_of_it(self) -> None:
        class Unstoppable(PlayedEndpoint):
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                attempt, uncancelled = super().connect(protocolFactory), Deferred[Any]()
                attempt.addBoth(uncancelled.callback)
                uncancelled.cancel = lambda: None  # type: ignore[method-assign]
                return uncancelled

        endpoint = Unstoppable(hold=True)
        client = Client(self.clock, endpoint)
        echo = client.echo(b"1")
        client.close()
        endpoint.accept()
        self.failureResultOf(echo, NotConnected)
        self.assertTrue(endpoint.server.transport.disconnecting)
        endpoint.server.hang_up()

    def test_async_with_connects_and_closes(self) -> None:
        inside: Deferred[None] = Deferred()

        async def use() -> None:
            async with self.client as client:
                self.assertIs(client, self.client)
                await inside

        using = Deferred.fromCoroutine(use())
        self.assertEqual(self.endpoint.attempts, 1)
        inside.errback(LookupError("inside"))
        self.assertNoResult(using)
        self.endpoint.server.hang_up()
        self.failureResultOf(using, LookupError)

    def test_async_with_without_a_server(self) -> None:
        self.endpoint.refusal = Refused()

        async def use() -> None:
            async with self.client:
                raise AssertionError("not reached")

        self.failureResultOf(Deferred.fromCoroutine(use()), NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [], "and nobody tries any more")
