"""Who is at the other end of a connection, as far as that is certain: address, UNIX user, certificate."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from twisted.internet.address import UNIXAddress

from txgearman.access.policy import Identity

_CREDENTIALS: Final = struct.Struct("3i")
"""Process, user and group, as Linux's SO_PEERCRED has them."""


def identity_of(transport: Any) -> Identity:
    """Who is at the other end of a connection, as far as that is certain."""
    peer = transport.getPeer()
    names = _names_in_certificate(transport)
    return Identity(
        certificate=names or frozenset(),
        has_malformed_certificate=names is None,
        address=_address(getattr(peer, "host", "")),
        unix=isinstance(peer, UNIXAddress),
        uid=_user(transport) if isinstance(peer, UNIXAddress) else None,
    )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _user(transport: Any) -> int | None:
    """The user at the other end of a UNIX socket; None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    # Below TLS is the transport with the socket.
    handle = getattr(getattr(transport, "transport", transport), "getHandle", lambda: None)()
    if option is None or handle is None:
        return None
    credentials = handle.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _names_in_certificate(transport: Any) -> frozenset[str] | None:
    """The common name and the alternative names (DNS, e-mail, URI) in the certificate that the peer showed.
    None where it cannot be understood, even if only a part: what else it says is not to be believed.

    OpenSSL ends connections whose certificate no CA of ours has signed, so it is verified. But OpenSSL does
    not look at all that is in it.
    """
    get = getattr(transport, "getPeerCertificate", None)
    certificate = None if get is None else get()
    if certificate is None:
        return frozenset()
    from cryptography import x509

    try:
        parsed = certificate.to_cryptography()
        names = {
            str(attribute.value)
            for attribute in parsed.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
        }
        try:
            alternative = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset(names)
        for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
            names.update(alternative.get_values_for_type(kind))
    except Exception:
        # Mostly a ValueError, but each kind of extension has others of its own.
        return None
    return frozenset(names)
