"""Endpoints of servers, and the addresses that they try. Nothing is connected here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
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
"""Seconds between the attempts at two addresses of one name, and before the failure of the last one is
reported. RFC 8305 recommends no less."""

_HOST_AND_PORT: Final = re.compile(r"(?:(?P<host>[\w.-]*[A-Za-z.][\w.-]*)(?::(?P<port>\d+))?|(?P<alone>\d+))")
"""What people write who expect an address: a host, with a port or without, or a port."""

_TRUST_ROOTS: Final = re.compile(r":trustRoots=((?:\\.|[^:\\])+)")

Endpoint = str | IStreamClientEndpoint
"""A server: the string of a Twisted client endpoint, or such an endpoint."""


def endpoint_from(reactor: IReactorTime, endpoint: Endpoint) -> IStreamClientEndpoint:
    """Make the endpoint of a server.

    It tries all addresses of a name, IPv6 and IPv4. Twisted's own ``tcp:`` and ``ssl:`` try only IPv4.

    Args:
        reactor: The reactor.
        endpoint: The string of an endpoint, such as ``tcp:127.0.0.1:4730``, or an endpoint, which is
            returned.

    Returns:
        The endpoint.

    Raises:
        ValueError: Twisted's `clientFromString` does not understand the string. For a host or a port without
            a kind of endpoint, and for ``trustRoots`` that name no folder, the text says what to write.
    """
    if not isinstance(endpoint, str):
        return endpoint
    try:
        made = clientFromString(reactor, endpoint)
    except Exception as error:
        # The parsers of the kinds of endpoints raise anything.
        mistake = _mistake_in(endpoint, error)
        if mistake is not None:
            raise ValueError(mistake) from error
        raise
    return _with_all_addresses(reactor, made)


def _mistake_in(endpoint: str, error: Exception) -> str | None:
    """What is wrong with a string that makes no endpoint, where that is known. `error` is its parser's."""
    if isinstance(error, NameError) and endpoint.startswith(("tls:", "ssl:")):
        # Twisted's parser uses names that it could not import.
        return "TLS needs packages: pip install 'txgearman[tls]'"
    address = _HOST_AND_PORT.fullmatch(endpoint)
    if address:
        host, port = address["host"] or "localhost", address["port"] or address["alone"] or "4730"
        return f"a server's address is 'tcp:{host}:{port}', not {endpoint!r}"
    trust_roots = _TRUST_ROOTS.search(endpoint)
    if trust_roots:
        folder = re.sub(r"\\(.)", r"\1", trust_roots[1])
        if not Path(folder).is_dir():
            return f"trustRoots is a folder with CAs in files named *.pem, and {folder!r} is not a folder"
    return None


def tcp_endpoint(
    reactor: Any, host: str, port: int, timeout: float, bind_address: Any = None
) -> IStreamClientEndpoint:
    """Make the endpoint of a host and a port.

    For a name the attempt at the next address starts after `ATTEMPT_DELAY` (RFC 8305). A single address fails
    without that delay.

    Args:
        reactor: The reactor.
        host: A name or an address.
        port: The port.
        timeout: Seconds that the attempt at one address may take.
        bind_address: The local address, as for Twisted's endpoints.

    Returns:
        The endpoint.
    """
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout, bind_address)
    # A test's clock cannot look up names.
    if isIPAddress(host) or not IReactorPluggableNameResolver.providedBy(reactor):
        return TCP4ClientEndpoint(reactor, host, port, timeout, bind_address)
    return HostnameEndpoint(reactor, host, port, timeout, bind_address, ATTEMPT_DELAY)


def _with_all_addresses(reactor: Any, endpoint: Any) -> IStreamClientEndpoint:
    """Replace an endpoint that Twisted made of a description by one that tries all addresses of a name."""
    if isinstance(endpoint, TCP4ClientEndpoint | SSL4ClientEndpoint):
        plain = tcp_endpoint(
            reactor, endpoint._host, endpoint._port, endpoint._timeout, endpoint._bindAddress
        )
        if isinstance(endpoint, TCP4ClientEndpoint):
            return plain
        return wrapClientTLS(endpoint._sslContextFactory, plain)
    if isinstance(endpoint, _WrapperEndpoint):
        # The ``endpoint=`` of a ``tls:`` description.
        endpoint._wrappedEndpoint = _with_all_addresses(reactor, endpoint._wrappedEndpoint)
    return endpoint  # type: ignore[no-any-return]


def named_endpoints(
    reactor: IReactorTime, endpoints: Endpoint | Sequence[Endpoint]
) -> list[tuple[str, IStreamClientEndpoint]]:
    """Make the endpoints of one server or several, and name them.

    Args:
        reactor: The reactor.
        endpoints: One endpoint or several.

    Returns:
        For each the server's name and the endpoint. The name is its string, or its index such as ``#0``.

    Raises:
        ValueError: There is no endpoint, or one twice, or a string is not understood.
    """
    one = isinstance(endpoints, str) or hasattr(endpoints, "connect")
    given = cast("list[Endpoint]", [endpoints] if one else [*cast("Sequence[Endpoint]", endpoints)])
    if not given:
        raise ValueError("at least one endpoint is needed")
    named = {}
    for index, endpoint in enumerate(given):
        name = endpoint if isinstance(endpoint, str) else f"#{index}"
        if name in named or endpoint in given[:index]:
            raise ValueError(f"the endpoint {name} is given twice")
        named[name] = endpoint_from(reactor, endpoint)
    return list(named.items())
