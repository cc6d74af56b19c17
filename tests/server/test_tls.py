"""The server behind an ``ssl:`` endpoint: its transport is not a plain connection."""

from __future__ import annotations

import contextlib
import tempfile
import unittest
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.task import deferLater
from twisted.trial import util
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST
from tests.server.lines import Line, close
from tests.server.peers import req, res
from tests.support import free_port, on_reactor
from txgearman.server import GearmanService, Settings, make_service


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and its self-signed certificate, as files."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[int, GearmanService]]:
    """A TLS server on a free port."""
    with tempfile.TemporaryDirectory(prefix="txgearman-tls-") as folder:
        key, certificate = write_certificate(Path(folder))
        port = free_port()
        endpoint = f"ssl:{port}:interface={HOST}:privateKey={key}:certKey={certificate}"
        service = make_service(Settings(listen=(endpoint,), handle_prefix="H:test", **settings))
        service.startService()
        try:
            yield port, service
        finally:
            await defer.maybeDeferred(service.stopService)


async def connect(port: int) -> Line:
    """A TLS connection that trusts everybody."""
    from twisted.internet import reactor
    from twisted.internet.ssl import CertificateOptions

    endpoint = wrapClientTLS(CertificateOptions(verify=False), TCP4ClientEndpoint(reactor, HOST, port))
    line: Line = await connectProtocol(endpoint, Line())
    return line


@unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class TlsTest(TestCase):
    """On real sockets."""

    # What Twisted passes to pyOpenSSL; not our doing.
    suppress = [util.suppress(category=DeprecationWarning, message="Passing pyOpenSSL")]

    @on_reactor
    async def test_both_protocols(self) -> None:
        async with serving() as (port, _):
            line = await connect(port)
            self.assertEqual(await line.ask(req(18, b"f", b"", b"x"), b"1"), res(8, b"H:test:1"))
            self.assertEqual(
                await line.ask(b"status\nworkers\n", b" - :\n.\n"),
                b"f\t1\t0\t0\n.\n1 127.0.0.1 - :\n.\n",
            )
            await close(line)

    @on_reactor
    async def test_a_handshake_that_is_never_finished(self) -> None:
        from twisted.internet import reactor

        # Long enough for a handshake on a busy machine.
        async with serving(handshake_timeout=1.0) as (port, service):
            there = await connect(port)
            await there.say()
            silent = await connectProtocol(TCP4ClientEndpoint(reactor, HOST, port), Line())
            await silent.lost.addTimeout(15, reactor)
            self.assertEqual(service.factory.traffic.dropped, {"handshake-timeout": 1})
            # One that is finished may be idle for as long as it likes.
            self.assertEqual(await there.ask(req(16, b"x"), b"x"), res(17, b"x"))
            await close(there)

    @on_reactor
    async def test_one_connection_too_many(self) -> None:
        async with serving(max_connections=1) as (port, _):
            there = await connect(port)
            await there.say()
            refused = await connect(port)
            await refused.lost
            self.assertEqual(refused.received, b"")
            await there.say()
            await close(there)

    @on_reactor
    async def test_keepalive_values(self) -> None:
        async with serving(keepalive_idle=10, keepalive_interval=11, keepalive_count=12) as (port, service):
            line = await connect(port)
            self.assertEqual(await line.ask(req(16, b"x"), b"x"), res(17, b"x"))
            self.assertEqual(list(service.factory.connections), [1])
            await close(line)

    @on_reactor
    async def test_a_flood_to_a_slow_reader_arrives_whole_and_in_order(self) -> None:
        from twisted.internet import reactor

        data = bytes(range(256)) * 2048
        async with serving() as (port, _):
            line = await connect(port)
            await line.say()
            line.transport.pauseProducing()
            line.transport.write(b"".join(req(16, b"%02d" % number + data) for number in range(20)))
            line.transport.write(b"status\n" + req(16, b"end"))
            await deferLater(reactor, 0)
            line.transport.resumeProducing()
            heard = await line.heard(res(17, b"end"))
            expected = b"".join(res(17, b"%02d" % number + data) for number in range(20))
            self.assertTrue(heard == expected + b".\n" + res(17, b"end"))
            await close(line)

    @on_reactor
    async def test_behind_a_broken_stream_nothing_is_heard(self) -> None:
        async with serving() as (port, service):
            line = await connect(port)
            await line.say()
            line.transport.write(b"\0BAD" + bytes(8))
            line.transport.write(b"\n" + req(18, b"f", b"", bytes(100_000)))
            await line.lost
            self.assertEqual(service.factory.broker.total, 0)

    @on_reactor
    async def test_stopping_ends_the_connections(self) -> None:
        async with serving() as (port, service):
            line = await connect(port)
            await line.say(req(36, b"f", b"", b"253402300799", b""))
        self.assertEqual(service.factory.connections, {})
        await line.lost
