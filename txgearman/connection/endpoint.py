"""Where a server is, and by which of its addresses it is reached. Nothing is connected here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    _WrapperEndpoint,
    clientFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTime, IStreamClientEndpoint

ATTEMPT_DELAY: Final = 0.1
"""Seconds between the attempts at two addresses of one name, and until the last one's refusal is told. What
RFC 8305 recommends as the least."""

Endpoint = str | IStreamClientEndpoint
"""Where a server is: the string of a Twisted client endpoint, or one."""


def endpoint_from(reactor: IReactorTime, endpoint: Endpoint) -> IStreamClientEndpoint:
    """The endpoint itself, or what its description such as ``tcp:127.0.0.1:4730`` describes.

    All addresses of a name are tried, of IPv6 and of IPv4; Twisted's own ``tcp:`` and ``ssl:`` know those of
    IPv4 only. Raises `ValueError` for a description that Twisted's `clientFromString` does not understand.
    """
    if isinstance(endpoint, str):
        return _of_all_addresses(reactor, clientFromString(reactor, endpoint))
    return endpoint


def tcp_endpoint(
    reactor: Any, host: str, port: int, timeout: float, bind_address: Any = None
) -> IStreamClientEndpoint:
    """The endpoint of a host, which is a name or an address, and a port.

    An attempt at one address may take `timeout` seconds. With a name the next is begun after `ATTEMPT_DELAY`
    (RFC 8305); a single address is told of a refusal at once.
    """
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout, bind_address)
    # The clock of a test looks up no names.
    if isIPAddress(host) or not IReactorPluggableNameResolver.providedBy(reactor):
        return TCP4ClientEndpoint(reactor, host, port, timeout, bind_address)
    return HostnameEndpoint(reactor, host, port, timeout, bind_address, ATTEMPT_DELAY)


def _of_all_addresses(reactor: Any, endpoint: Any) -> IStreamClientEndpoint:
    """As `endpoint`, which Twisted made of a description, but for names by all their addresses."""
    if isinstance(endpoint, TCP4ClientEndpoint | SSL4ClientEndpoint):
        plain = tcp_endpoint(
            reactor, endpoint._host, endpoint._port, endpoint._timeout, endpoint._bindAddress
        )
        if isinstance(endpoint, TCP4ClientEndpoint):
            return plain
        return wrapClientTLS(endpoint._sslContextFactory, plain)
    if isinstance(endpoint, _WrapperEndpoint):
        # The ``endpoint=`` of ``tls:``.
        endpoint._wrappedEndpoint = _of_all_addresses(reactor, endpoint._wrappedEndpoint)
    return endpoint  # type: ignore[no-any-return]


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
