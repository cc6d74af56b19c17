"""Where a server listens: the endpoints of Twisted's strings, with a longer backlog, checked ports, and the
sockets that systemd holds. Those are handed over as LISTEN_FDS says (sd_listen_fds(3)), which Twisted knows.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any, Final

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txgearman.net.polling import PolledEndpoint, Poller

BACKLOG: Final = 4096
"""Connections that may wait to be accepted, at an endpoint whose string says no ``backlog``. Beyond it the
system drops what asks for one, and a client asks again after a second: with Twisted's 50 the 51st of a burst.
Linux takes no more than net.core.somaxconn, which is 4,096 too."""

_TWISTEDS_BACKLOG: Final = 50
LAST_PORT: Final = 2**16 - 1
"""The last port of TCP."""


class _HeldUnixPort(unix.Port):
    """A UNIX socket that somebody else made and will hand to the next one.

    Twisted would open its file to everybody at the start, forget most of those who wait to be let in, and
    remove the file at the end.
    """

    def startListening(self) -> None:
        if unix._inFilesystemNamespace(self._bindPath):
            self.mode = stat.S_IMODE(os.stat(self._bindPath).st_mode)
        self.backlog = socket.SOMAXCONN
        super().startListening()

    def connectionLost(self, reason: Any) -> None:
        self._shouldShutdown = False
        tcp.Port.connectionLost(self, reason)


@implementer(IStreamServerEndpoint)
class _HeldUnixEndpoint:
    def __init__(self, reactor: Any, fileno: int) -> None:
        self._reactor = reactor
        self._fileno = fileno

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> unix.Port:
        os.set_blocking(self._fileno, False)
        port: unix.Port = _HeldUnixPort._fromListeningDescriptor(self._reactor, self._fileno, factory)
        port.startListening()
        os.close(self._fileno)
        return port


def endpoint_of(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The server endpoint of a description, with `BACKLOG` if that says nothing else.

    Args:
        reactor: The reactor that listens.
        description: A string for `twisted.internet.endpoints.serverFromString`.

    Returns:
        The endpoint, not listening yet.

    Raises:
        ValueError: The port cannot be, or whatever the endpoint's own parser raises.
    """
    endpoint = serverFromString(reactor, description)
    port = _port_of(endpoint)
    if port is not None and not 0 <= port <= LAST_PORT:
        raise ValueError(f"a port is 0 to {LAST_PORT}, not {port}")
    if "backlog=" not in description:
        _set_backlog(endpoint)
    if getattr(endpoint, "addressFamily", None) == socket.AF_UNIX:
        return _HeldUnixEndpoint(reactor, endpoint.fileno)
    return endpoint  # type: ignore[no-any-return]


def _unwrapped(endpoint: Any) -> Any:
    """The endpoint that listens: that of ``haproxy:`` is around another one."""
    while (wrapped := getattr(endpoint, "_wrappedEndpoint", None)) is not None:
        endpoint = wrapped
    return endpoint


def _set_backlog(endpoint: Any) -> None:
    """Give `BACKLOG` to an endpoint that has Twisted's. A socket that systemd holds listens already."""
    listening = _unwrapped(endpoint)
    if getattr(listening, "_backlog", None) == _TWISTEDS_BACKLOG:
        listening._backlog = BACKLOG


def _port_of(endpoint: Any) -> int | None:
    """The TCP port of an endpoint; None if it has none.

    Twisted's parsers take any number, and listening there is an `OverflowError`.
    """
    return getattr(_unwrapped(endpoint), "_port", None)


class _ListeningService(StreamServerEndpointService):
    """Fails at the start if it cannot listen, and says where."""

    # As Twisted's own: who cannot listen is to fail at the start.
    _raiseSynchronously = True

    def __init__(self, endpoint: IStreamServerEndpoint, factory: IProtocolFactory, description: str) -> None:
        super().__init__(endpoint, factory)
        self._description = description

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except CannotListenError:
            raise
        except Exception as error:
            # Such as that of a folder where no UNIX socket may be made.
            raise CannotListenError(None, self._description, error) from error


def listening_service(
    description: str, factory: IProtocolFactory, reactor: Any, poller: Poller | None = None
) -> StreamServerEndpointService:
    """A service that listens at what a description says, from privileged start to stop. Connections are
    watched by `poller`, or else by the reactor."""
    endpoint = endpoint_of(reactor, description)
    if poller is not None:
        endpoint = PolledEndpoint(endpoint, poller)
    return _ListeningService(endpoint, factory, description)
