"""Where a server is. Nothing is connected here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

Endpoint = str | IStreamClientEndpoint
"""Where a server is: the string of a Twisted client endpoint, or one."""


def endpoint_from(reactor: IReactorTime, endpoint: Endpoint) -> IStreamClientEndpoint:
    """The endpoint itself, or what its description such as ``tcp:127.0.0.1:4730`` describes.

    Raises `ValueError` for a description that Twisted's `clientFromString` does not understand.
    """
    if isinstance(endpoint, str):
        described: IStreamClientEndpoint = clientFromString(reactor, endpoint)
        return described
    return endpoint


def named_endpoints(
    reactor: IReactorTime, endpoints: Endpoint | Sequence[Endpoint]
) -> list[tuple[str, IStreamClientEndpoint]]:
    """One endpoint or several, each with the server's name: its string, or its place such as ``#0``.

    Raises `ValueError` for none, for one twice, and for a description that cannot be understood.
    """
    one = isinstance(endpoints, str) or hasattr(endpoints, "connect")
    several = cast("list[Endpoint]", [endpoints] if one else [*cast("Sequence[Endpoint]", endpoints)])
    if not several:
        raise ValueError("at least one endpoint is needed")
    named = {}
    for place, endpoint in enumerate(several):
        name = endpoint if isinstance(endpoint, str) else f"#{place}"
        if name in named or endpoint in several[:place]:
            raise ValueError(f"the endpoint {name} is given twice")
        named[name] = endpoint_from(reactor, endpoint)
    return list(named.items())
