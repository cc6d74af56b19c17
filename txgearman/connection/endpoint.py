"""Where a server is. Nothing is connected here."""

from __future__ import annotations

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint


def endpoint_from(reactor: IReactorTime, endpoint: str | IStreamClientEndpoint) -> IStreamClientEndpoint:
    """The endpoint itself, or what its description such as ``tcp:127.0.0.1:4730`` describes.

    Raises `ValueError` for a description that Twisted's `clientFromString` does not understand.
    """
    if isinstance(endpoint, str):
        described: IStreamClientEndpoint = clientFromString(reactor, endpoint)
        return described
    return endpoint
