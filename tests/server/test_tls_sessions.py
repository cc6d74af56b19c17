"""Sessions of TLS that are resumed by a ticket: whose, for how long, and when no more. In memory."""

from __future__ import annotations

import contextlib
import ssl
import unittest
from importlib.util import find_spec
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

if find_spec("OpenSSL"):
    from OpenSSL import SSL

    from tests.certificates import authorities
    from txgearman.server.config.tls_options import TlsFiles
    from txgearman.server.tls import SESSION_SECONDS, TICKET_KEY_SECONDS, ServerTls

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Peer:
    """A client that keeps its last session."""

    def __init__(self, version: ssl.TLSVersion, certificate: str | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.minimum_version = self.context.maximum_version = version
        if certificate is not None:
            self.context.load_cert_chain(certificate)
        self.session: ssl.SSLSession | None = None

    def resumes(self, tls: ServerTls) -> bool:
        """Connect, get an answer, and tell whether that was by the session before."""
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(received, sent, session=self.session)
        server = tls.serverConnectionForTLS(None)
        server.set_accept_state()
        for step in (client.do_handshake, client.do_handshake, lambda: client.write(b"ask")):
            with contextlib.suppress(ssl.SSLWantReadError):
                step()
            self._exchange(server, received, sent)
        server.send(b"answer")
        self._exchange(server, received, sent)
        assert client.read(6) == b"answer"
        self.session = client.session
        return bool(client.session_reused)

    @staticmethod
    def _exchange(server: Any, received: ssl.MemoryBIO, sent: ssl.MemoryBIO) -> None:
        data = sent.read()
        if data:
            server.bio_write(data)
        for what in (server.do_handshake, lambda: server.recv(100)):
            with contextlib.suppress(SSL.WantReadError):
                what()
        with contextlib.suppress(SSL.WantReadError):
            received.write(server.bio_read(100_000))


@unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")
class SessionTest(SynchronousTestCase):
    def setUp(self) -> None:
        made = authorities()
        self.folder, self.ours, self.others = made.__enter__()
        self.addCleanup(made.__exit__, None, None, None)
        self.certificate = str(self.ours.issue(self.folder / "server.pem", "jobs.example.com"))
        self.clock = Clock()

    def tls(self, **files: Any) -> ServerTls:
        return ServerTls(TlsFiles(self.certificate, **files), self.clock)

    def test_it_is_resumed(self) -> None:
        tls = self.tls()
        for version in VERSIONS:
            with self.subTest(version):
                peer = Peer(version)
                self.assertEqual([False, True, True], [peer.resumes(tls) for _ in range(3)])

    def test_it_does_not_last(self) -> None:
        peer = Peer(ssl.TLSVersion.TLSv1_2)
        peer.resumes(self.tls())
        assert peer.session is not None
        self.assertEqual(
            (SESSION_SECONDS, True), (peer.session.ticket_lifetime_hint, peer.session.has_ticket)
        )

    def test_where_clients_show_certificates_each_connection_is_verified(self) -> None:
        tls = self.tls(ca=str(self.ours.ca))
        shown = str(self.ours.issue(self.folder / "client.pem", "client"))
        for version in VERSIONS:
            with self.subTest(version):
                peer = Peer(version, shown)
                self.assertEqual([False, False], [peer.resumes(tls) for _ in range(2)])

    def test_it_ends_with_other_files(self) -> None:
        tls = self.tls()
        for version in VERSIONS:
            with self.subTest(version):
                peer = Peer(version)
                peer.resumes(tls)
                tls.use(TlsFiles(self.certificate))
                self.assertEqual([False, True], [peer.resumes(tls) for _ in range(2)])

    def test_it_ends_with_the_key_of_its_ticket(self) -> None:
        tls = self.tls()
        peers = [Peer(version) for version in VERSIONS]
        for peer in peers:
            peer.resumes(tls)
        self.clock.advance(TICKET_KEY_SECONDS - 1)
        self.assertEqual([True, True], [peer.resumes(tls) for peer in peers])
        self.clock.advance(11)
        self.assertEqual([False, False], [peer.resumes(tls) for peer in peers])
        self.assertEqual([True, True], [peer.resumes(tls) for peer in peers])
