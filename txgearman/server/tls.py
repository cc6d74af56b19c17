"""TLS for the server's endpoints: the context made of the operator's files, and the answer to peers without.

Loaded only where an endpoint speaks TLS, as it needs pyOpenSSL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    ISSLTransport,
    ITransport,
)
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.server.config.option_kinds import about_option
from txgearman.server.config.tls_options import TlsFiles
from txgearman.wire.codec import encode
from txgearman.wire.packets import ERROR, RESPONSE

LOOK_INTERVAL: Final = 10.0
"""Seconds between two looks at whether the files have changed."""

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2: with forward secrecy and authenticated encryption. TLS 1.3 has no others."""

SESSION_SECONDS: Final = 300
"""Seconds for which a session can be resumed. Nothing of it is kept here: the client has it as a ticket."""

TICKET_KEY_SECONDS: Final = 3600.0
"""Seconds for which tickets are made by one key. With TLS 1.2, who gets hold of a key can read what was sent
in sessions that were resumed by its tickets. TLS 1.3 exchanges keys anew in each."""

HANDSHAKE_RECORD: Final = 22
"""The first byte of every TLS connection (RFC 8446, 5.1). No packet and no admin command begins with it."""

_WHY: Final = "This port speaks TLS only"

_log = Logger()


def make_context(files: TlsFiles) -> SSL.Context:
    """The context for connections of clients. Raises `ValueError`, naming the file."""
    try:
        return _context_of(files)
    except SSL.Error as error:
        # What can be read may still be refused, a key that is too short for example.
        why = ", ".join(str(each[-1]) for each in error.args[0]) if error.args else "no reason given"
        raise ValueError(f"the TLS files of {files.certificate} cannot be used: {why}") from None


def _context_of(files: TlsFiles) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if files.ca is None:
        # A client may resume its session, by a ticket, in place of a whole handshake.
        context.set_timeout(SESSION_SECONDS)
    else:
        # So each connection is verified anew.
        context.set_options(SSL.OP_NO_TICKET)
    with about_option("tls-certificate"):
        first, *others = _certificates("certificate", files.certificate)
    context.use_certificate(first)
    for other in others:
        context.add_extra_chain_cert(other)
    key = files.certificate if files.key is None else files.key
    with about_option("tls-certificate" if files.key is None else "tls-key"):
        try:
            context.use_privatekey(_key(key))
            context.check_privatekey()
        except SSL.Error:
            raise ValueError(
                f"the TLS key in {key} is not that of the certificate in {files.certificate}"
            ) from None
    if files.ca is not None:
        with about_option("tls-ca"):
            _certificates("CA", files.ca)
        context.load_verify_locations(files.ca)
        # Tells clients which certificate is wanted.
        context.load_client_ca(os.fsencode(files.ca))
        required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if files.required else 0
        context.set_verify(SSL.VERIFY_PEER | required)
    return context


def _read(what: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"the TLS {what} cannot be read: {path}: {error.strerror}") from None


def _certificates(what: str, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(what, path))
    except ValueError as error:
        raise ValueError(f"there is no usable TLS {what} in {path}: {error}") from None


def _key(path: str) -> Any:
    content = _read("key", path)
    try:
        return load_pem_private_key(content, password=None)
    # One that has a password is a TypeError.
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"there is no usable TLS key in {path}: {error}") from None


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """Files that were read and fit each other: the `context` made of them, their `state` before, and what the
    log says of the certificate."""

    files: TlsFiles
    context: SSL.Context
    state: list[tuple[int, int, int] | None]
    described: dict[str, object]


def load(files: TlsFiles) -> LoadedFiles:
    """Read the files. Raises `ValueError`, naming the one that cannot be used."""
    state = _state(files)
    return LoadedFiles(files, make_context(files), state, _described(files.certificate))


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the TLS side of connections, with the files as they are now.

    `reactor` gives the time. Raises `ValueError` if the files cannot be used.
    """

    def __init__(self, files: TlsFiles, reactor: Any) -> None:
        self.reactor = reactor
        self.use(files)

    def use(self, files: TlsFiles) -> None:
        """Use these files for new connections. Raises `ValueError` if they cannot be used, and changes
        nothing then."""
        self.adopt(load(files))

    def adopt(self, loaded: LoadedFiles) -> None:
        """Use these files for new connections. Nothing of it can fail."""
        self._context = loaded.context
        self._files = loaded.files
        self._state = loaded.state
        self._looked = self._made = self.reactor.seconds()
        _log.info("TLS certificate of {names}, valid until {until}", **loaded.described)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        if self.reactor.seconds() - self._looked >= LOOK_INTERVAL:
            self._look()
        return SSL.Connection(self._context, None)

    def _look(self) -> None:
        """Use the files anew if they have changed, once all of them fit each other."""
        self._looked = self.reactor.seconds()
        state = _state(self._files)
        if state == self._state:
            if self._looked - self._made >= TICKET_KEY_SECONDS:
                self._change_ticket_key()
            return
        try:
            self.use(self._files)
        except ValueError as error:
            self._state = state
            _log.error("Changed TLS files are not used: {error}", error=error)

    def _change_ticket_key(self) -> None:
        """Have a new key for tickets, which comes with a new context."""
        self._made = self._looked
        try:
            self._context = make_context(self._files)
        except ValueError as error:
            # They have just been changed. Of that the next look tells.
            _log.error("The key of TLS tickets is not changed: {error}", error=error)

    def wrap(self, factory: IProtocolFactory) -> TLSMemoryBIOFactory:
        """A factory that speaks TLS, and whose connections in it are those of `factory`."""
        return _TlsFactory(self, False, factory, self.reactor)


def _state(files: TlsFiles) -> list[tuple[int, int, int] | None]:
    """What changes when one of the files does."""
    states: list[tuple[int, int, int] | None] = []
    for path in (files.certificate, files.key, files.ca):
        try:
            status = None if path is None else os.stat(path)
        except OSError:
            status = None
        states.append(status and (status.st_mtime_ns, status.st_size, status.st_ino))
    return states


def _described(path: str) -> dict[str, object]:
    """Of the first certificate in a file the names, and until when it is valid."""
    certificate = _certificates("certificate", path)[0]
    until = certificate.not_valid_after_utc
    if until < datetime.now(UTC):
        _log.warn("The TLS certificate in {path} is not valid any more", path=path)
    return {"names": certificate.subject.rfc4514_string() or "no name", "until": until.date().isoformat()}


class _TlsFactory(TLSMemoryBIOFactory):
    noisy = False

    def __init__(self, creator: ServerTls, is_client: bool, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(creator, is_client, factory, reactor)
        self.protocol = _TlsTransport
        self.reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> Any:
        wrapped = self.wrappedFactory.buildProtocol(addr)
        # Twisted's own would wrap even the None of a factory that lets nobody in.
        return None if wrapped is None else self.protocol(self, wrapped)


@implementer(ISSLTransport)
class _TlsTransport(BufferingTLSTransport):
    """Tells peers without TLS what they have met."""

    factory: _TlsFactory
    _begun = False
    _refused = False

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._begun:
            self._begun = True
            if data[0] != HANDSHAKE_RECORD:
                self._refuse(data)
                return
        super().dataReceived(data)

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        if reason is not None:
            # The traceback has the frame that has the failure, and this transport: a cycle.
            reason.tb = None
            if reason.value is not None:
                reason.value.__traceback__ = None
        super()._tlsShutdownFinished(reason)

    def _refuse(self, data: bytes) -> None:
        """Answer a peer without TLS in its own words, and end the connection."""
        self._refused = True
        self._log_protocol_error("speaks no TLS; this endpoint does not speak without")
        if data[0]:
            answer = f"ERR TLS_REQUIRED {_WHY.replace(' ', '+')}\r\n".encode()
        else:
            answer = encode(RESPONSE, ERROR, [b"TLS_REQUIRED", _WHY.encode()])
        transport = cast(ITransport, self.transport)
        transport.write(answer)
        transport.loseConnection()

    def _log_protocol_error(self, what: str) -> None:
        _log.warn("A peer at {host} {what}", host=getattr(self.getPeer(), "host", "unix"), what=what)
