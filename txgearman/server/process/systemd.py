"""Telling systemd, or whoever speaks its notify protocol, how the process is.

The protocol is a datagram of lines to the socket that NOTIFY_SOCKET names (sd_notify(3)). The sockets that
systemd holds are in `txgearman.net.endpoints`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()


class Supervisor:
    """The one that started this process and wants to know how it is, if there is such a one.

    `environment` is that of the process. What concerns the notify protocol is taken out of it, so that
    programs started from here do not speak in our name.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        # Set where the watchdog is not for us but for whoever started us.
        pid = environment.pop("WATCHDOG_PID", "")
        ours = microseconds.isdecimal() and pid in ("", str(os.getpid()))
        self.watchdog = int(microseconds) / 1e6 if ours else 0.0
        """Seconds within which the process has to be heard of, 0 if it need not."""

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``. A supervisor that does not listen is logged, no more."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _log.warn("Cannot notify {address}: {error}", address=self._address, error=error)


class SupervisedService(Service):
    """Tells the supervisor that the process is ready, once the reactor runs, and alive, as often as it wants
    to hear it. A reactor that hangs says nothing."""

    def __init__(self, supervisor: Supervisor, reactor: Any) -> None:
        self._supervisor = supervisor
        self._reactor = reactor
        self._beat = LoopingCall(supervisor.tell, "WATCHDOG=1")
        self._beat.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        self._supervisor.tell("READY=1", f"MAINPID={os.getpid()}")
        if self._supervisor.watchdog and self.running:
            # Half of it, as sd_watchdog_enabled(3) recommends.
            self._beat.start(self._supervisor.watchdog / 2)

    def stopService(self) -> Deferred[None] | None:
        self._supervisor.tell("STOPPING=1")
        # The watchdog goes on until the process ends: it may still hang.
        return super().stopService()  # type: ignore[no-any-return]


# -- sockets that are held for us -----------------------------------------------------------------
