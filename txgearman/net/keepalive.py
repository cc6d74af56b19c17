"""Finding peers that vanished without a word: TCP keepalive, for the ends of all roles."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import ITCPTransport

_SYSTEM_DEFAULT: Final = 0
_NUMBERS: Final[tuple[int | None, ...]] = tuple(
    getattr(socket, name, None) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
)
"""The socket options; None for one that this system does not have."""


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

    @classmethod
    def of(cls, sock: socket.socket) -> Keepalive:
        """Read the values of a socket over TCP.

        Args:
            sock: The socket.

        Returns:
            Its values; 0 where the system does not tell.
        """
        return cls(
            *(
                _SYSTEM_DEFAULT if number is None else sock.getsockopt(socket.IPPROTO_TCP, number)
                for number in _NUMBERS
            )
        )

    def set_on(self, sock: socket.socket, system: Keepalive) -> None:
        """Set this, and no delay of small packets, on a socket over TCP.

        Args:
            sock: The socket. What it accepts inherits both on Linux.
            system: The values that it had at first, for those that are left to the system.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        before = Keepalive.of(sock)
        Keepalive(
            *(
                # The system's own may be greater than what can be set.
                min(own, most) if wanted == _SYSTEM_DEFAULT and own != present else wanted
                for wanted, present, own, most in zip(self, before, system, MAX_KEEPALIVE, strict=True)
            )
        )._set_times_on(sock)

    def __iter__(self) -> Iterator[int]:
        return iter((self.idle, self.interval, self.count))

    def _set_times_on(self, sock: socket.socket) -> None:
        for number, value in zip(_NUMBERS, self, strict=True):
            if value != _SYSTEM_DEFAULT and number is not None:
                sock.setsockopt(socket.IPPROTO_TCP, number, value)


MAX_KEEPALIVE: Final = Keepalive(32767, 32767, 127)
"""The largest values that Linux takes."""
