"""Waiting until a transport takes more."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.flow import Flow


class FlowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = StringTransport()
        self.flow = Flow(self.transport)

    def test_room_while_the_transport_takes_more(self) -> None:
        self.successResultOf(self.flow.room())
        self.flow.pauseProducing()
        first, given_up, last = (self.flow.room() for _ in range(3))
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertNoResult(first)
        self.flow.resumeProducing()
        self.successResultOf(first)
        self.successResultOf(last)
        self.successResultOf(self.flow.room())

    def test_one_that_fills_it_again_lets_the_others_wait(self) -> None:
        self.flow.pauseProducing()
        self.flow.room().addCallback(lambda _: self.flow.pauseProducing())
        second = self.flow.room()
        self.flow.resumeProducing()
        self.assertNoResult(second)
        self.flow.resumeProducing()
        self.successResultOf(second)

    def test_nobody_waits_for_a_transport_that_is_gone(self) -> None:
        self.flow.pauseProducing()
        waiting = self.flow.room()
        self.flow.stopProducing()
        self.flow.end()
        self.successResultOf(waiting)
        self.successResultOf(self.flow.room())
        self.assertIsNone(self.transport.producer)
