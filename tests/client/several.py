"""A client of several servers, each played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.played import EXCEPTIONS
from tests.connection.memory import PlayedEndpoint
from txgearman.client import Client
from txgearman.client.hashing import score
from txgearman.wire.packets import OPTION_RES

BACKOFF = 10.0


class SeveralServersTestCase(SynchronousTestCase):
    """`connect` makes a `client` of the played `endpoints`, whose names are ``#0`` and so on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoints = [PlayedEndpoint() for _ in range(3)]

    def make(self, **options: Any) -> None:
        """Make the client, not connected."""
        self.client = Client(
            self.clock, self.endpoints, check_interval=None, retry_policy=lambda failures: BACKOFF, **options
        )

    def connect(self, **options: Any) -> None:
        """Make the client and connect it to all servers."""
        self.make(**options)
        self.successResultOf(self.client.connect())
        self.heard()

    def heard(self) -> list[list[tuple[Any, ...]]]:
        """What each server heard since the last call, but for the option, which is answered."""
        return [self._heard(endpoint) if endpoint.servers else [] for endpoint in self.endpoints]

    def _heard(self, endpoint: PlayedEndpoint) -> list[tuple[Any, ...]]:
        packets = endpoint.server.heard()
        if packets and packets[0] == EXCEPTIONS:
            endpoint.server.say(OPTION_RES, b"exceptions")
            del packets[0]
        return packets

    def where(self) -> list[int]:
        """Which servers heard something since the last call."""
        return [index for index, packets in enumerate(self.heard()) if packets]

    def order(self, function: bytes, unique: bytes) -> list[int]:
        """The servers in the order in which they are asked for a unique."""
        indices = range(len(self.endpoints))
        key = function + b"\0" + unique
        return sorted(indices, key=lambda index: score(f"#{index}", key), reverse=True)
