"""Names in certificates of clients, and certificates that cannot be understood. No sockets."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, error, req
from tests.web.asking import Exchange, Web
from txgearman.access.identity import identity_of
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server import GearmanServerFactory, Settings
from txgearman.testing import MemoryGearman

NAME = b"worker-1"
POLICY = AccessPolicy((Rule("workers", certificates=("*",), submit=(b"*",), admin=frozenset({"view"})),))

SEQUENCE, CONTEXT, CONSTRUCTED = 0x30, 0x80, 0x20
SUBJECT_ALTERNATIVE_NAME, ISSUER_ALTERNATIVE_NAME = "2.5.29.17", "2.5.29.18"


def tlv(tag: int, content: bytes) -> bytes:
    """A value of less than 64 KiB in DER."""
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    return bytes((tag, 0x82, length >> 8, length & 255)) + content


def alternative(*names: tuple[int, bytes]) -> bytes:
    """A SubjectAlternativeName of names, each with its number in GeneralName (RFC 5280, 4.2.1.6)."""
    return tlv(SEQUENCE, b"".join(tlv(CONTEXT | number, content) for number, content in names))


@cache
def key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def certificate(*extensions: tuple[str, bytes]) -> bytes:
    """A certificate in DER with the common name `NAME` and these extensions, whatever is in them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, NAME.decode())])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key().public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    for oid, value in extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def malformed() -> Iterator[tuple[str, bytes]]:
    """Certificates that OpenSSL reads, each with what is wrong in it."""
    for what, value in (
        ("nothing", b""),
        ("text", b"DNS:worker-1"),
        ("no sequence", tlv(0x04, b"worker-1")),
        ("cut off", alternative((2, NAME))[:-1]),
        ("too much", alternative((2, NAME)) + b"x"),
        ("a length beyond the end", b"\x30\x7f\x82\x08worker-1"),
        ("an endless length", b"\x30\x80\x82\x08worker-1"),
        ("a name of an unknown kind", alternative((9, NAME))),
        ("a DNS name that is no ASCII", alternative((2, b"worker-\xff"))),
        ("an e-mail address that is no ASCII", alternative((1, b"\xffworker"))),
        ("a URI that is no ASCII", alternative((6, b"\x80"))),
        ("an address of five bytes", alternative((7, b"\x01\x02\x03\x04\x05"))),
        ("a name behind a bad one", alternative((7, b"\x01"), (2, NAME))),
        ("a directory name that is none", alternative((4 | CONSTRUCTED, b"\x01"))),
        ("another name that is none", alternative((0 | CONSTRUCTED, b"\xff"))),
        ("a registered number that is none", alternative((8, b"\x80"))),
        ("an X.400 address", alternative((3 | CONSTRUCTED, b""))),
    ):
        yield what, certificate((SUBJECT_ALTERNATIVE_NAME, value))
    names = alternative((2, NAME))
    twice = certificate((SUBJECT_ALTERNATIVE_NAME, names), (ISSUER_ALTERNATIVE_NAME, names))
    yield "two lists of names", twice.replace(b"\x55\x1d\x12", b"\x55\x1d\x11")
    yield "another extension", certificate(("2.5.29.19", b"x"), (SUBJECT_ALTERNATIVE_NAME, names))
    plain = certificate()
    at = plain.rindex(NAME)
    # The tag of a string of ASCII; where others are wrong OpenSSL ends the handshake.
    yield "a common name that is no ASCII", plain[: at - 2] + b"\x16\x08" + b"\xff" * 8 + plain[at + 8 :]


class Transport(SocketlikeTransport):
    """A connection over TLS whose peer has shown a certificate."""

    shown: Any = None

    def getPeerCertificate(self) -> Any:
        return self.shown


def showing(der: bytes) -> Transport:
    from OpenSSL import crypto

    transport = Transport("192.0.2.1")
    transport.shown = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
    return transport


@unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class CertificateTest(SynchronousTestCase):
    def test_names(self) -> None:
        shown = alternative((2, b"a.example"), (1, b"b@example"), (6, b"urn:c"), (7, b"\x7f\0\0\1"), (2, b""))
        identity = identity_of(showing(certificate((SUBJECT_ALTERNATIVE_NAME, shown))))
        names = {"worker-1", "a.example", "b@example", "urn:c", ""}
        self.assertEqual((identity.certificate, identity.has_malformed_certificate), (names, False))

    def test_what_cannot_be_understood_names_nobody(self) -> None:
        for what, der in malformed():
            identity = identity_of(showing(der))
            self.assertEqual(identity.certificate, frozenset(), what)
            self.assertEqual(identity.described, "with a malformed certificate", what)

    def test_it_is_denied_with_one_line_of_the_log(self) -> None:
        factory = GearmanServerFactory(MemoryGearman().clock, Settings(handle_prefix="H:t", access=POLICY))
        for what, der in malformed():
            transport = showing(der)
            with capturedLogs() as events:
                transport.connect(factory.buildProtocol(None))
                transport.receive(req(18, b"f", b"", b""), req(18, b"g", b"", b""))
                factory.reactor.advance(0)
            self.assertEqual(transport.value().count(b"ACCESS_DENIED"), 2, what)
            (event,) = events
            self.assertEqual(event["log_level"], LogLevel.warn)
            self.assertIn("with a malformed certificate: denied to submit", str(formatEvent(event)))
        self.assertEqual(factory.broker.total, 0)

    def test_over_http_too(self) -> None:
        web = Web(server=Settings(access=POLICY))
        for what, der in malformed():
            exchange = Exchange(web, "127.0.0.1")
            exchange.transport.getPeerCertificate = showing(der).getPeerCertificate  # type: ignore[attr-defined]
            with capturedLogs() as events:
                exchange.send(b"GET /api/v1/server HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual((exchange.response.status, events), (401, []), what)

    def test_the_others_are_let_in(self) -> None:
        factory = GearmanServerFactory(MemoryGearman().clock, Settings(handle_prefix="H:t", access=POLICY))
        transport = showing(certificate())
        transport.connect(factory.buildProtocol(None))
        transport.receive(req(18, b"f", b"", b""))
        self.assertNotIn(error(b"ACCESS_DENIED", b"")[:20], transport.value())
        self.assertEqual(factory.broker.total, 1)
