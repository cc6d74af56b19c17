"""TLS on a reactor that is not installed. Knows nothing of Gearman.

Twisted leaves small writes of a TLS connection to the clock of the installed reactor, if it is not told
another one. Its endpoints do not tell it. In a blocking program that reactor does not run, so nothing would
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


def described_endpoint(reactor: Any, description: str) -> Any:
    """The endpoint of a `description`, as for other clients, with TLS that works on `reactor`."""
    endpoint: Any = endpoint_from(reactor, description)
    # Above TLS is a wrapper. What it needs is in a closure, so it makes its own factory, which is told then.
    return _ToldEndpoint(reactor, endpoint) if hasattr(endpoint, "_wrapperFactory") else endpoint


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """TLS above `endpoint`. `options` is called for each attempt, which fails with what that raises."""

    def __init__(self, reactor: Any, endpoint: Any, options: Callable[[], Any]) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._options = options

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return maybeDeferred(self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory  # what it needs is an extra, and slow to import

        outer = TLSMemoryBIOFactory(self._options(), True, factory, self._reactor)
        return self._endpoint.connect(outer).addCallback(lambda protocol: protocol.wrappedProtocol)


@implementer(IStreamClientEndpoint)
class _ToldEndpoint:
    """What ``tls:`` or ``ssl:`` describes, with its clock."""

    def __init__(self, reactor: Any, endpoint: Any) -> None:
        self._reactor = reactor
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        outer = self._endpoint._wrapperFactory(protocolFactory)
        outer._clock = self._reactor
        attempt: Deferred[Any] = self._endpoint._wrappedEndpoint.connect(outer)
        return attempt.addCallback(lambda protocol: protocol.wrappedProtocol)


def options_from(host: str, keyfile: str, certfile: str, ca_certs: str) -> Any:
    """The options of a client with a certificate for a server called `host`, from files in PEM form."""
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
