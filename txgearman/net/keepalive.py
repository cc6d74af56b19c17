"""Finding peers that vanished without a word: TCP keepalive, for the ends of all roles."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import ITCPTransport

_SYSTEM_DEFAULT: Final = 0


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP keepalive, which finds peers that vanished without a word. 0 leaves a value to the system.

    Attributes:
        idle: Seconds of silence before the first probe.
        interval: Seconds between probes.
        count: Probes without an answer after which the connection is given up.
    """

    idle: int = _SYSTEM_DEFAULT
    interval: int = _SYSTEM_DEFAULT
    count: int = _SYSTEM_DEFAULT

    def apply(self, transport: ITCPTransport) -> None:
        """Set this, and no delay of small packets, on a connection. gearmand always sets both.

        Args:
            transport: The transport of the connection. One that is no TCP connection is left without
                keepalive. One whose
                socket has inherited this is left as it is.
        """
        if getattr(transport, "inherited", None) is self:
            return
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        # Below TLS is the transport with the socket.
        socketed: Any = getattr(transport, "transport", transport)
        if not hasattr(socketed, "getHandle"):
            return
        handle = socketed.getHandle()
        # Twisted's UNIX transports pass for TCP ones, but know no such options.
        if handle.family not in (socket.AF_INET, socket.AF_INET6):
            return
        self._set_times_on(handle)

    def set_on(self, sock: socket.socket) -> None:
        """Set this, and no delay of small packets, on a socket over TCP.

        Args:
            sock: The socket. What it accepts inherits both on Linux.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._set_times_on(sock)

    def _set_times_on(self, sock: socket.socket) -> None:
        for option, value in (
            ("TCP_KEEPIDLE", self.idle),
            ("TCP_KEEPINTVL", self.interval),
            ("TCP_KEEPCNT", self.count),
        ):
            number = getattr(socket, option, None)  # not on every system
            if value != _SYSTEM_DEFAULT and number is not None:
                sock.setsockopt(socket.IPPROTO_TCP, number, value)


MAX_KEEPALIVE: Final = Keepalive(32767, 32767, 127)
"""The largest values that Linux takes."""
