"""Connections of the command: a client for the length of a block, and endpoints that report failures."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.cli.exit_codes import InvalidArgument
from txgearman.cli.hints import add_hint, lost_at_once
from txgearman.cli.run import print_message
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import ClientError, NotConnected, TimedOut

if TYPE_CHECKING:
    from txgearman.client import Client

REPLY_TIMEOUT: Final = 10.0
"""Seconds that connecting may take, and the reply to a request that a server can answer at once."""
_AT_ONCE: Final = 5.0
"""Seconds within which a connection that is lost was of no use."""
_LOSSES_PRINTED: Final = 3
"""So many such losses in a row are printed: a server that is started again loses one."""
_CANCELLED: Final = (CancelledError, ConnectingCancelledError)


@contextlib.asynccontextmanager
async def connected(reactor: Any, servers: Sequence[str], limit: float) -> AsyncIterator[Client]:
    """Make a client, connect it, and close it after the block.

    Args:
        reactor: The reactor.
        servers: The endpoint strings of the servers.
        limit: Seconds that connecting may take.

    Yields:
        The client.

    Raises:
        InvalidArgument: Twisted does not understand an endpoint string.
        NotConnected: No server can be reached.
        TimedOut: Connecting takes too long.
    """
    from txgearman.client import Client

    check_servers(reactor, servers)
    client = Client(reactor, list(dict.fromkeys(servers)))
    try:
        try:
            await client.connect(limit)
        except NotConnected as error:
            raise NotConnected(f"{', '.join(servers)}: {error}") from error
        yield client
    except ClientError as error:
        # A job that takes too long says nothing about its server.
        if len(set(servers)) == 1 and not isinstance(error, TimedOut):
            add_hint(error, servers[0])
        raise
    finally:
        await client.close()


@implementer(IStreamClientEndpoint)
class ReportingEndpoint:
    """The endpoint of a server, for a worker that reconnects. Prints the first failure, and the connection
    after it; and once that connections are lost as soon as they are made, several in a row.

    Args:
        reactor: The reactor.
        server: The endpoint string of the server.

    Raises:
        InvalidArgument: Twisted does not understand the endpoint string.
    """

    def __init__(self, reactor: Any, server: str) -> None:
        check_servers(reactor, [server])
        self._server = server
        self._endpoint = endpoint_from(reactor, server)
        self._failure_printed = False
        self._reactor = reactor
        self._connected_at = -inf
        self._lost_at_once = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect to the server."""
        is_at_once = self._reactor.seconds() - self._connected_at < _AT_ONCE
        self._lost_at_once = self._lost_at_once + 1 if is_at_once else 0
        if self._lost_at_once == _LOSSES_PRINTED:
            print_message(f"{self._server}: {lost_at_once(self._server)}; trying again")
        return self._endpoint.connect(factory).addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> Any:
        if self._failure_printed:
            print_message(f"{self._server}: connected")
        self._failure_printed = False
        self._connected_at = self._reactor.seconds()
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        if not self._failure_printed and not isinstance(failure.value, _CANCELLED):
            self._failure_printed = True
            print_message(f"{self._server}: {failure.getErrorMessage().rstrip('.')}; trying again")
        return failure


def check_servers(reactor: Any, servers: Sequence[str]) -> None:
    """Raise `InvalidArgument` for the first endpoint string that Twisted does not understand."""
    for server in servers:
        try:
            endpoint_from(reactor, server)
        except Exception as error:
            # The parsers of Twisted's plugins raise anything.
            raise InvalidArgument(f"{server!r} is not the address of a server: {error}") from error
