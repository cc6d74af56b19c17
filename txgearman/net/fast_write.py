"""Writing to a socket at once when nothing waits ahead, instead of by way of the reactor.

And seeing how much of what was written is not with the peer yet.

Twisted's `write` buffers and asks the reactor to tell when the socket is writable: two system calls
and one turn of the loop more for each answer. Offering the bytes to the socket first and leaving only
what it does not take to `write` gave two fifths more answers per second.

The ends of connections of all roles write by this. It is the one place that looks inside Twisted's TCP
transport.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.tcp import Connection

try:
    import fcntl
    import termios
except ImportError:  # not on Windows
    _asks_kernel = False
else:
    _asks_kernel = hasattr(termios, "TIOCOUTQ")

if TYPE_CHECKING:
    from twisted.internet.interfaces import ITransport

MAX_PIECES: Final = 512
"""Pieces given to the socket in one call; Linux takes 1024."""


def write(transport: ITransport, data: bytes) -> None:
    """Send `data` on `transport`, at once if nothing waits to be sent.

    Whatever is not a plain TCP or UNIX connection in the state to take bytes, TLS for example, gets
    `data` by its own `write`; so does a connection whose socket fails, so that the reactor meets the
    error itself and ends the connection in its usual way.
    """
    if (
        isinstance(transport, Connection)
        # As `takes_bytes`, without the call: so nearly every reply leaves.
        and not transport.dataBuffer
        and not transport._tempDataBuffer
        and transport.connected
        and not transport.disconnecting
        and not transport._writeDisconnected
        and not getattr(transport, "TLS", False)
    ):
        # As its writeSomeData, with less around it.
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)


def offer(transport: ITransport, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
    """Offer `pieces`, one behind the other, to the socket of `transport`; returns how many bytes it took.

    They are neither joined nor copied. 0 where something waits ahead of them, and for whatever is not a plain
    TCP or UNIX connection: these take bytes by their own `write`.
    """
    if isinstance(transport, Connection) and takes_bytes(transport):
        try:
            return transport.socket.sendmsg(pieces[:MAX_PIECES])
        except OSError:
            # The reactor is to meet the error itself, as in `write`.
            return 0
    return 0


def takes_bytes(connection: Connection) -> bool:
    """Whether nothing waits to be sent on a plain connection that is open for sending."""
    return (
        not connection.dataBuffer
        and not connection._tempDataBuffer
        and bool(connection.connected)
        and not connection.disconnecting
        and not connection._writeDisconnected
        and not getattr(connection, "TLS", False)
    )


def kept(transport: ITransport) -> int | None:
    """Bytes that `transport` holds as the system has not taken them; None where that cannot be known."""
    if not isinstance(transport, Connection) or getattr(transport, "TLS", False):
        return None
    # What was sent of its buffer is held until the rest was too.
    return int(len(transport.dataBuffer) + transport._tempDataLen)


def unsent(transport: ITransport) -> int:
    """Bytes written to `transport` that the peer has not acknowledged; less of them is progress.

    Counts what Twisted keeps and, where the system tells it, what the kernel keeps. 0 for transports
    that are no sockets of Twisted's.
    """
    # Not asked by type: TLS stands in between and passes these names on to the connection below it.
    socketed: Any = transport
    if not hasattr(socketed, "_tempDataLen"):
        return 0
    kept = len(socketed.dataBuffer) - socketed.offset + socketed._tempDataLen
    # TLS passes nothing on before the end of its handshake. A connection without TLS has no such thing.
    held_back = sum(map(len, getattr(socketed, "_appSendBuffer", ())))
    return int(kept) + held_back + _unacknowledged(socketed.fileno())


def _unacknowledged(descriptor: int) -> int:
    """Bytes in the kernel's queue of a socket; 0 where the system does not tell."""
    if not _asks_kernel:
        return 0
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    # A socket that is closed has no descriptor.
    except (OSError, ValueError):
        return 0
    return int(queued)
