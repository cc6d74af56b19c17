"""Keeping a connection to one server: backoff between attempts, and who is told."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint
from txgearman.client.connector import Connector
from txgearman.client.protocol import ClientProtocol
from txgearman.client.send_budget import SendBudget
from txgearman.errors import NotConnected


class ConnectorTests(SynchronousTestCase):
    """The backoff before attempt n is n + 1 times 10 seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.connector: Connector[Any] = Connector(
            self.clock,
            self.endpoint,
            lambda ended: ClientProtocol(self.clock, 1000, ended, SendBudget(1000)),
            retry_policy=lambda failures: 10 * (failures + 1),
        )

    def attempts_at(self, *seconds: float) -> None:
        """From now on there are attempts at these times and no others."""
        start, before = self.clock.seconds(), self.endpoint.attempts
        found = []
        while self.clock.seconds() < start + seconds[-1]:
            self.clock.advance(1)
            if self.endpoint.attempts != before:
                before = self.endpoint.attempts
                found.append(self.clock.seconds() - start)
        self.assertEqual(found, list(seconds))

    def test_nothing_happens_before_the_first_use(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.connector.down)

    def test_a_lost_connection_is_made_again(self) -> None:
        self.connector.connect()
        for _ in range(3):
            self.endpoint.server.lose()
            self.assertTrue(self.connector.down)
            self.attempts_at(10)
            self.assertIsNotNone(self.connector.protocol)
            self.assertFalse(self.connector.down)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_attempts_are_repeated_with_growing_backoff(self) -> None:
        self.endpoint.refusal = Refused()
        self.failureResultOf(self.connector.connect(), NotConnected)
        self.assertTrue(self.connector.down)
        self.attempts_at(10, 30, 60)
        self.endpoint.refusal = None
        self.attempts_at(40)
        self.endpoint.server.lose()
        self.attempts_at(10)

    def test_a_connection_lost_while_it_is_made_is_a_failed_attempt(self) -> None:
        self.endpoint.drop = True
        self.failureResultOf(self.connector.connect(), NotConnected)
        self.attempts_at(10, 30)

    def test_who_asks_does_not_wait_for_the_backoff(self) -> None:
        self.endpoint.refusal = Refused()
        self.failureResultOf(self.connector.connect(), NotConnected)
        self.endpoint.refusal = None
        self.successResultOf(self.connector.connect())
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_persistent_caller_waits_for_as_many_attempts_as_it_takes(self) -> None:
        self.endpoint.refusal = Refused()
        persistent, given_up = self.connector.when_connected(), self.connector.when_connected()
        self.attempts_at(10, 30)
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertNoResult(persistent)
        self.endpoint.refusal = None
        self.attempts_at(30)
        self.assertIs(self.successResultOf(persistent), self.connector.protocol)
        self.assertIs(self.successResultOf(self.connector.when_connected()), self.connector.protocol)

    def test_an_endpoint_that_raises_is_one_that_fails(self) -> None:
        """One of the user's own may."""

        def connect(_factory: object) -> Any:
            raise OSError("no such device")

        self.endpoint.connect = connect  # type: ignore[method-assign]
        failure = self.failureResultOf(self.connector.connect(), NotConnected)
        self.assertIn("no such device", str(failure.value))

    def test_close_ends_the_backoff_and_the_waits(self) -> None:
        self.endpoint.refusal = Refused()
        persistent = self.connector.when_connected()
        self.successResultOf(self.connector.close())
        self.failureResultOf(persistent, NotConnected)
        self.failureResultOf(self.connector.when_connected(), NotConnected)
        self.failureResultOf(self.connector.connect(), NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_ends_an_attempt_and_none_follows(self) -> None:
        self.endpoint.hold = True
        waiting = self.connector.connect()
        self.connector.close()
        self.failureResultOf(waiting, NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_policy_only_who_asks_connects(self) -> None:
        connector: Connector[Any] = Connector(
            self.clock, self.endpoint, lambda ended: ClientProtocol(self.clock, 1000, ended, SendBudget(1000))
        )
        connector.connect()
        self.endpoint.server.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(connector.connect())
