"""Keeping a connection to one server: backoff between attempts, and who is told."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint
from txgearman.client.link import Link
from txgearman.client.protocol import ClientProtocol
from txgearman.client.send_budget import SendBudget
from txgearman.errors import NotConnected


class LinkTests(SynchronousTestCase):
    """The backoff before attempt n is n + 1 times 10 seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.link: Link[Any] = Link(
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
        self.assertFalse(self.link.down)

    def test_a_lost_connection_is_made_again(self) -> None:
        self.link.connect()
        for _ in range(3):
            self.endpoint.server.lose()
            self.assertTrue(self.link.down)
            self.attempts_at(10)
            self.assertIsNotNone(self.link.protocol)
            self.assertFalse(self.link.down)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_attempts_are_repeated_with_growing_backoff(self) -> None:
        self.endpoint.refusal = Refused()
        self.failureResultOf(self.link.connect(), NotConnected)
        self.assertTrue(self.link.down)
        self.attempts_at(10, 30, 60)
        self.endpoint.refusal = None
        self.attempts_at(40)
        self.endpoint.server.lose()
        self.attempts_at(10)

    def test_a_connection_lost_while_it_is_made_is_a_failed_attempt(self) -> None:
        self.endpoint.drop = True
        self.failureResultOf(self.link.connect(), NotConnected)
        self.attempts_at(10, 30)

    def test_who_asks_does_not_wait_for_the_backoff(self) -> None:
        self.endpoint.refusal = Refused()
        self.failureResultOf(self.link.connect(), NotConnected)
        self.endpoint.refusal = None
        self.successResultOf(self.link.connect())
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_patient_one_waits_for_as_many_attempts_as_it_takes(self) -> None:
        self.endpoint.refusal = Refused()
        patient, given_up = self.link.wait(), self.link.wait()
        self.attempts_at(10, 30)
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertNoResult(patient)
        self.endpoint.refusal = None
        self.attempts_at(30)
        self.assertIs(self.successResultOf(patient), self.link.protocol)
        self.assertIs(self.successResultOf(self.link.wait()), self.link.protocol)

    def test_an_endpoint_that_raises_is_one_that_fails(self) -> None:
        """One of the user's own may."""

        def connect(_factory: object) -> Any:
            raise OSError("no such device")

        self.endpoint.connect = connect  # type: ignore[method-assign]
        failure = self.failureResultOf(self.link.connect(), NotConnected)
        self.assertIn("no such device", str(failure.value))

    def test_close_ends_the_backoff_and_the_patience(self) -> None:
        self.endpoint.refusal = Refused()
        patient = self.link.wait()
        self.successResultOf(self.link.close())
        self.failureResultOf(patient, NotConnected)
        self.failureResultOf(self.link.wait(), NotConnected)
        self.failureResultOf(self.link.connect(), NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_ends_an_attempt_and_none_follows(self) -> None:
        self.endpoint.hold = True
        waiting = self.link.connect()
        self.link.close()
        self.failureResultOf(waiting, NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_policy_only_who_asks_connects(self) -> None:
        link: Link[Any] = Link(
            self.clock, self.endpoint, lambda ended: ClientProtocol(self.clock, 1000, ended, SendBudget(1000))
        )
        link.connect()
        self.endpoint.server.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(link.connect())
