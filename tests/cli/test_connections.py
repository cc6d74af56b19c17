"""What a worker's person is told of connections that fail, in memory."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.cli.connections import ReportingEndpoint


class ReportingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.errors = io.StringIO()
        self.enterContext(contextlib.redirect_stderr(self.errors))

    def endpoint(self, server: str) -> ReportingEndpoint:
        # Twisted's endpoints for TLS need a reactor that looks up names.
        endpoint = ReportingEndpoint(self.clock, server.replace("tls:", "tcp:"))
        endpoint._server, endpoint._endpoint = server, self
        return endpoint

    def connect(self, _factory: Any) -> Deferred[Any]:
        """What the endpoint below does."""
        return fail(Refused()) if self.refusing else succeed("protocol")

    def attempt(self, endpoint: ReportingEndpoint, refusing: bool = False, seconds: float = 0.2) -> str:
        """Let it connect, and that be lost after some seconds; returns what is said."""
        self.refusing = refusing
        attempt = endpoint.connect(None)
        self.failureResultOf(attempt, Refused) if refusing else self.successResultOf(attempt)
        self.clock.advance(seconds)
        said = self.errors.getvalue()
        self.errors.seek(0)
        self.errors.truncate()
        return said

    def test_the_first_failure_and_the_connection_behind_it(self) -> None:
        endpoint = self.endpoint("tcp:127.0.0.1:1")
        refused = "txgearman: tcp:127.0.0.1:1: Connection was refused by other side; trying again\n"
        expected = [
            (True, refused),
            (True, ""),
            (False, "txgearman: tcp:127.0.0.1:1: connected\n"),
            (False, ""),
        ]
        self.assertEqual([(each, self.attempt(endpoint, each)) for each, _ in expected], expected)

    def test_connections_that_are_lost_at_once(self) -> None:
        for server, why in (
            ("tcp:127.0.0.1:1", "no Gearman server listens there, or it has too many connections"),
            ("tls:127.0.0.1:1", "this port speaks no TLS, or this machine does not trust its certificate"),
        ):
            endpoint = self.endpoint(server)
            lost = "the connection is lost as soon as it is made"
            text = f"txgearman: {server}: {lost}: maybe {why}; trying again\n"
            said = [self.attempt(endpoint) for _ in range(6)]
            self.assertEqual(said, ["", "", "", text, "", ""])
            # One that held, and a server that is started again now and then, are no trouble.
            said = [self.attempt(endpoint, seconds=60)]
            for _ in range(5):
                said += [self.attempt(endpoint), self.attempt(endpoint, seconds=60)]
            self.assertEqual(set(said), {""})
