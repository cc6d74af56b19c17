"""What the connections of one server share: the broker, its timer, and the turn-end flush."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory

from txgearman.broker.broker import Broker
from txgearman.server.protocol import GearmanServerProtocol
from txgearman.server.settings import Settings

if TYPE_CHECKING:
    Shutdown = Callable[[bool], None]


class GearmanServerFactory(Factory):
    """Makes the connections of one Gearman server, which may listen in several places.

    `reactor` gives the time and calls back; `settings` default to `Settings`; `wall_clock` gives
    seconds since the epoch, for jobs that are to run at a time; `on_shutdown` is called with whether
    jobs are to be finished first when an administrator says ``shutdown``; without it nothing happens.

    `connections` are the live ones by number, `broker` holds the jobs.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        settings: Settings | None = None,
        wall_clock: Callable[[], float] = time.time,
        on_shutdown: Shutdown | None = None,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        self.connections: dict[int, GearmanServerProtocol] = {}
        self.broker = Broker(self.settings.policy, reactor.seconds, wall_clock, self)
        self._reactor = reactor
        self._on_shutdown = on_shutdown
        self._connected = 0
        self._timer: IDelayedCall | None = None
        self._unflushed: list[GearmanServerProtocol] = []

    def buildProtocol(self, addr: IAddress | None) -> GearmanServerProtocol:  # type: ignore[override]
        self._connected += 1
        return GearmanServerProtocol(self, self._connected)

    def shut_down(self, graceful: bool) -> None:
        """An administrator wants the server to end, `graceful` when its jobs are done."""
        if self._on_shutdown is not None:
            self._on_shutdown(graceful)

    def stop(self) -> None:
        """Let nothing of this server call back any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # -- the broker's timer (Alarm) -------------------------------------------------------------

    def ring_in(self, delay: float) -> None:
        """Call the broker's `tick` in `delay` seconds, and not when it was said before."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self.broker.tick)

    # -- writing once a turn --------------------------------------------------------------------

    def flush_soon(self, connection: GearmanServerProtocol) -> None:
        """Flush `connection` after all that this turn of the reactor has read was handled.

        So the answers to a read, and what the reads of others have to tell the same connection, leave
        in one write, and at once: left to the reactor's own buffer it would cost two calls of
        epoll_ctl and a wait more.
        """
        if not self._unflushed:
            self._reactor.callLater(0, self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        connections, self._unflushed = self._unflushed, []
        for connection in connections:
            connection.flush()
