"""TLS on a reactor that is not installed. Knows nothing of Gearman.

Twisted defers small writes of a TLS connection by the clock of the installed reactor, unless it gets another
clock. Its endpoints give it none. In a blocking program the installed reactor does not run, so nothing would
ever be sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from txgearman.connection.endpoint import endpoint_from

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def endpoint_from_description(reactor: Any, description: str) -> Any:
    """The endpoint that `description` describes. Its TLS works on `reactor`."""
    endpoint: Any = endpoint_from(reactor, description)
    # Twisted's endpoint of TLS keeps its options in a closure. So it makes the factory, and that gets the
    # clock.
    return _ClockedTlsEndpoint(reactor, endpoint) if hasattr(endpoint, "_wrapperFactory") else endpoint


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """TLS over another endpoint.

    Args:
        reactor: The reactor.
        endpoint: The other endpoint.
        options: Makes the TLS options, for each attempt. If it raises, the attempt fails.
    """

    def __init__(self, reactor: Any, endpoint: Any, options: Callable[[], Any]) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._options = options

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return maybeDeferred(self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory  # pyOpenSSL is an extra, and slow to import

        outer = TLSMemoryBIOFactory(self._options(), True, factory, self._reactor)
        return self._endpoint.connect(outer).addCallback(lambda protocol: protocol.wrappedProtocol)


@implementer(IStreamClientEndpoint)
class _ClockedTlsEndpoint:
    """The endpoint of a ``tls:`` or ``ssl:`` description, with the reactor's clock."""

    def __init__(self, reactor: Any, endpoint: Any) -> None:
        self._reactor = reactor
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        outer = self._endpoint._wrapperFactory(protocolFactory)
        outer._clock = self._reactor
        attempt: Deferred[Any] = self._endpoint._wrappedEndpoint.connect(outer)
        return attempt.addCallback(lambda protocol: protocol.wrappedProtocol)


def tls_options(host: str, keyfile: str, certfile: str, ca_certs: str) -> Any:
    """The TLS options of a client with a certificate, from files in PEM form.

    Args:
        host: The name that the server's certificate must have.
        keyfile: The client's key.
        certfile: The client's certificate, and others of its chain.
        ca_certs: The authorities, of which one must have signed the server's certificate.

    Returns:
        What `optionsForClientTLS` returns.
    """
    from twisted.internet.ssl import (
        Certificate,
        PrivateCertificate,
        optionsForClientTLS,
        trustRootFromCertificates,
    )

    def certificates(pem: bytes) -> list[Any]:
        return [Certificate.loadPEM(one) for one in _CERTIFICATE.findall(pem)]

    certificate, key, authorities = (Path(file).read_bytes() for file in (certfile, keyfile, ca_certs))
    return optionsForClientTLS(
        host,
        trustRootFromCertificates(certificates(authorities)),
        PrivateCertificate.loadPEM(certificate + b"\n" + key),
        extraCertificateOptions={"extraCertChain": [one.original for one in certificates(certificate)[1:]]},
    )
