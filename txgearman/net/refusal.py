"""A connection that is refused."""

from __future__ import annotations

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol


class RefusedConnection(Protocol):
    """A connection that is told why it is refused, and closed.

    Args:
        message: The bytes to send. Nothing is sent over TLS, as that would take a whole handshake.
    """

    def __init__(self, message: bytes) -> None:
        self._message = message

    def connectionMade(self) -> None:
        assert self.transport is not None
        if ISSLTransport.providedBy(self.transport):
            self.transport.abortConnection()
            return
        self.transport.write(self._message)
        self.transport.loseConnection()
