"""What signals mean to the process, and what administrators may do with it in the same way.

Nothing is done in a handler itself, but by the reactor after it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from twisted.application.service import Service

from txgearman.server.interfaces import Reloaded
from txgearman.server.process.systemd import Supervisor
from txgearman.server.service import GearmanService

STOP_MARGIN: Final = 20.0
"""Seconds that a supervisor is asked to wait beyond ``--drain-timeout``: for closing connections, and for
what the store still has to write."""


class SignalService(Service):
    """Handles signals while it runs.

    SIGTERM drains the server and ends the process, a second one and SIGINT end it at once. SIGUSR1 is a
    graceful shutdown, as for gearmand. SIGHUP reads the configuration again. SIGUSR2 toggles debugging.

    Args:
        server: The server that is drained or shut down.
        supervisor: Is told that the process stops, and how long that may take.
        reactor: Does what a signal asks for.
        drain_timeout: Gives the seconds that running jobs have after SIGTERM, as configured by then.
        reload: Reads the configuration again.
        stop: Ends the process.

    Attributes:
        reload: As given.
    """

    def __init__(
        self,
        server: GearmanService,
        supervisor: Supervisor,
        reactor: Any,
        *,
        drain_timeout: Callable[[], float],
        reload: Callable[[], Reloaded],
        stop: Callable[[], object],
    ) -> None:
        self._server = server
        self._supervisor = supervisor
        self._reactor = reactor
        self._drain_timeout = drain_timeout
        self.reload = reload
        self._stop = stop
        self._draining = False

    def startService(self) -> None:
        super().startService()
        signal.signal(signal.SIGUSR1, self._shut_down)
        signal.signal(signal.SIGHUP, self._reload_configuration)
        signal.signal(signal.SIGUSR2, self._toggle_debug)
        # Not before the reactor has set its own.
        self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        # The reactor's own note the signal, by which twistd then ends the process: to whoever started it, a
        # stop that was asked for would look like a crash. gearmand exits with 0.
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._stop_at_once)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self._draining:
            self._stop_at_once(number, frame)
        else:
            self._draining = True
            self._reactor.callFromThread(self._drain)

    def _stop_at_once(self, _number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._stop)

    def drain(self) -> None:
        """Do what SIGTERM does, after this turn: the administrator is answered first."""
        if not self._draining:
            self._draining = True
            self._reactor.callLater(0, self._drain)

    def _drain(self) -> None:
        seconds = self._drain_timeout()
        margin = seconds + STOP_MARGIN
        self._supervisor.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(margin * 1e6)}")
        self._server.drain(seconds).addBoth(lambda _: self._stop())

    def _toggle_debug(self, _number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._toggle)

    def _toggle(self) -> None:
        threshold = self._server.factory.threshold
        if threshold is not None:
            threshold.toggle_debug()
            self._server.factory.activity.happened("change level of the log", threshold.current.value)

    def _shut_down(self, _number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._server.shut_down, graceful=True)

    def _reload_configuration(self, _number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)
