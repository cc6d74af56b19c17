"""Backpressure: waiting until a transport takes more."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.backpressure import Backpressure


class BackpressureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = StringTransport()
        self.backpressure = Backpressure(self.transport)

    def test_it_is_writable_while_the_transport_takes_more(self) -> None:
        self.successResultOf(self.backpressure.writable())
        self.backpressure.pauseProducing()
        first, given_up, last = (self.backpressure.writable() for _ in range(3))
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertNoResult(first)
        self.backpressure.resumeProducing()
        self.successResultOf(first)
        self.successResultOf(last)
        self.successResultOf(self.backpressure.writable())

    def test_one_that_fills_it_again_lets_the_others_wait(self) -> None:
        self.backpressure.pauseProducing()
        self.backpressure.writable().addCallback(lambda _: self.backpressure.pauseProducing())
        second = self.backpressure.writable()
        self.backpressure.resumeProducing()
        self.assertNoResult(second)
        self.backpressure.resumeProducing()
        self.successResultOf(second)

    def test_nobody_waits_for_a_transport_that_is_gone(self) -> None:
        self.backpressure.pauseProducing()
        waiting = self.backpressure.writable()
        self.backpressure.stopProducing()
        self.backpressure.close()
        self.successResultOf(waiting)
        self.successResultOf(self.backpressure.writable())
        self.assertIsNone(self.transport.producer)
