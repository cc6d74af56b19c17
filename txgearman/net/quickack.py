"""Acknowledging at once what a peer has sent, for peers that wait for that before they send on.

Nagle's algorithm (RFC 896) keeps a small write back while an earlier one is not acknowledged. A receiver
that has nothing to send delays its acknowledgement (RFC 1122, section 4.2.3.2), on Linux by 40 ms. So a peer
that says one thing by two writes, without TCP_NODELAY, stands still for 40 ms between them. TCP_QUICKACK
makes the system acknowledge now. It does not last, so it is set again after each read.

An acknowledgement is a packet of its own. It costs 3 µs of processor time, a sixth of a small job, and peers
with TCP_NODELAY have no use for it. So each connection has a stock of acknowledgements. It gets another stock
only if its peer is seen to stand still when the first is used up.

The connections of the server use this. Nothing about Gearman here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.tcp import Connection

if TYPE_CHECKING:
    from twisted.internet.interfaces import ITransport

FIRST_STOCK: Final = 256
"""Acknowledgements for a new connection. Enough for the many that are short, and less than a millisecond of
processor time for a peer that needs none."""

NEXT_STOCK: Final = 16_384
"""Acknowledgements for a peer that was seen to stand still. It stands still once more when they are used up:
40 ms in about four seconds of small jobs."""

STANDSTILL: Final = 0.035
"""Seconds between two writes of a peer from which it is taken to have waited for an acknowledgement. Linux
delays these by 40 ms at least."""

WATCHED: Final = 8
"""Unacknowledged reads in a row that are timed. Several, as the system does not delay each of the first."""

WATCH_EVERY: Final = 256
"""Of so many unacknowledged reads the first `WATCHED` are timed. To time one costs 0.2 µs."""

_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it


class QuickAck:
    """The acknowledgements of one connection.

    `peer` is its socket, `clock` gives monotonic seconds.
    """

    __slots__ = ("_clock", "_delayed", "_peer", "_since", "_stock")

    def __init__(self, peer: socket.socket, clock: Callable[[], float]) -> None:
        self._peer = peer
        self._clock = clock
        self._stock = FIRST_STOCK
        # Reads since the stock was used up, and when the newest of those that are timed was.
        self._delayed = 0
        self._since = 0.0

    def unanswered(self) -> bool:
        """A read was handled, and nothing is to be sent that would carry its acknowledgement.

        Returns whether to call `resumed` when the peer sends on without having been sent anything.
        """
        if self._stock:
            self._stock -= 1
            assert _QUICKACK is not None
            try:
                self._peer.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                # The connection was lost meanwhile.
                self._stock = 0
            return False
        timed = self._delayed % WATCH_EVERY < WATCHED
        self._delayed += 1
        if timed:
            self._since = self._clock()
        return timed

    def resumed(self) -> None:
        """The peer has sent what completes its request."""
        if self._clock() - self._since >= STANDSTILL:
            self._stock = NEXT_STOCK
            self._delayed = 0


def quick_ack(transport: ITransport, clock: Callable[[], float]) -> QuickAck | None:
    """What acknowledges the reads of `transport`; None where that is not possible or of no use.

    It is for TCP connections, also below TLS: a record is sent as a write is. UNIX sockets have no
    acknowledgements.
    """
    # Below TLS is the transport with the socket.
    socketed: Any = getattr(transport, "transport", transport)
    if _QUICKACK is None or not isinstance(socketed, Connection):
        return None
    peer: socket.socket = socketed.socket
    # Twisted's UNIX transports are a kind of its TCP ones.
    return QuickAck(peer, clock) if peer.family in (socket.AF_INET, socket.AF_INET6) else None
