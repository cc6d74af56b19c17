"""Random histories: what servers and networks do while somebody uses them. No tests here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock

from tests.connection.memory import PlayedEndpoint, PlayedServer

HISTORIES = int(os.environ.get("TXGEARMAN_HISTORIES", "300"))
STEPS = 100


class PlayedHistory:
    """A clock, some servers, as many as one of the numbers in `servers`, and the Deferreds that must fire
    once."""

    def __init__(self, seed: int, servers: Sequence[int]) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.endpoints = [
            PlayedEndpoint(hold=self.random.random() < 0.2) for _ in range(self.random.choice(servers))
        ]
        self.asked: list[tuple[str, Deferred[Any], list[Any]]] = []

    # -- what the user asked for ----------------------------------------------------------------

    def track(self, name: str, deferred: Deferred[Any]) -> None:
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.asked.append((name, deferred, results))

    def cancel(self) -> None:
        if self.asked:
            self.random.choice(self.asked)[1].cancel()

    # -- what servers and networks do -----------------------------------------------------------

    def live(self) -> list[PlayedServer]:
        servers = [server for endpoint in self.endpoints for server in endpoint.servers]
        return [server for server in servers if not server.lost]

    def with_a_server(self, do: Callable[[PlayedServer], None]) -> None:
        if live := self.live():
            do(self.random.choice(live))

    def disturb(self) -> None:
        """Lose a connection, refuse the next or let one through that is held up, or let time pass."""
        endpoint = self.random.choice(self.endpoints)
        chance = self.random.random()
        if chance < 0.2:
            self.with_a_server(lambda server: server.lose())
        elif chance < 0.4:
            endpoint.refusal = self.random.choice((None, Refused()))
        elif chance < 0.6:
            if endpoint._held:
                endpoint.accept()
        else:
            self.clock.advance(self.random.choice((0, 0.1, 1, 7, 40)))

    def hang_up(self) -> None:
        """Now and then, end connections that the other side has closed."""
        for server in self.live():
            if server.transport.disconnecting and self.random.random() < 0.5:
                server.lose()

    # -- the end --------------------------------------------------------------------------------

    def lose_all(self) -> None:
        for server in self.live():
            server.lose()

    def left(self) -> list[str]:
        """What is wrong when all is over: Deferreds that did not fire once, and calls that are left."""
        wrong = [f"{name} fired {results}" for name, _, results in self.asked if len(results) != 1]
        return wrong + [f"{call} is left" for call in self.clock.getDelayedCalls()]
