"""The client of a run: made of the servers that were named, connected, and closed behind the body."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.cli.exit_codes import InvalidArgument
from txgearman.cli.run import print_message
from txgearman.client import Client
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import NotConnected

ANSWER_SECONDS: Final = 10.0
"""Seconds that a connection, and a server's answer to what it can answer at once, may take."""
_GIVEN_UP: Final = (CancelledError, ConnectingCancelledError)


@contextlib.asynccontextmanager
async def connected(reactor: Any, servers: Sequence[str], limit: float) -> AsyncIterator[Client]:
    """A client that has a connection. `limit` is in seconds.

    Raises `InvalidArgument` for an endpoint string that Twisted does not know, `NotConnected` and
    `TimedOut`.
    """
    check_servers(reactor, servers)
    client = Client(reactor, list(dict.fromkeys(servers)))
    try:
        try:
            await client.connect(limit)
        except NotConnected as error:
            raise NotConnected(f"{', '.join(servers)}: {error}") from error
        yield client
    finally:
        await client.close()


@implementer(IStreamClientEndpoint)
class Told:
    """A server to which connections are made again and again: the first failure, and its end, are told.

    Raises `InvalidArgument` for an endpoint string that Twisted does not know.
    """

    def __init__(self, reactor: Any, server: str) -> None:
        check_servers(reactor, [server])
        self._server = server
        self._endpoint = endpoint_from(reactor, server)
        self._told = False

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect to the server."""
        return self._endpoint.connect(factory).addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> Any:
        if self._told:
            print_message(f"{self._server}: connected")
        self._told = False
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        if not self._told and not isinstance(failure.value, _GIVEN_UP):
            self._told = True
            print_message(f"{self._server}: {failure.getErrorMessage().rstrip('.')}; trying again")
        return failure


def check_servers(reactor: Any, servers: Sequence[str]) -> None:
    """Raise `InvalidArgument` for the first endpoint string that Twisted does not know."""
    for server in servers:
        try:
            endpoint_from(reactor, server)
        except Exception as error:
            # Its parsers raise what they please.
            raise InvalidArgument(f"{server!r} is no server's address: {error}") from error
