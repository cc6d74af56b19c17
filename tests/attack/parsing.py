"""Attacks by what is parsed: HTTP requests, cursors, certificates, lines. Each gets a documented answer."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import ask, http
from tests.attack.names import submit
from tests.attack.peers import count, packets
from tests.processes.packets import Type, request
from tests.processes.servers import HOST


class HeadRequests(Attack):
    """HEAD is GET without a body, and nothing that a peer sends is an error of the server."""

    name = "head-requests"
    about = "HEAD for each path, with queries and paths that are no text."
    web = True

    PATHS: Final = (
        *("/", "/healthz", "/readyz", "/metrics", "/static/x", "/api/v1/server", "/api/v1/functions"),
        *("/api/v1/functions/f", "/api/v1/functions/f/jobs", "/api/v1/jobs/H:x:1", "/api/v1/connections"),
        *("/api/v1/openapi.json", "/api/v1/status?unique=x", "/api/v1", "/nothing", "//", "/%00", "/%ff"),
    )

    def run(self, target: Target) -> None:
        for path in self.PATHS:
            got, head = (ask(target, http(method, path)) for method in ("GET", "HEAD"))
            target.expect(
                (head.status == got.status or (got.status, head.status) == (404, 405)) and not head.body,
                f"HEAD {path} gets {head.status} and {len(head.body)} bytes, GET {got.status}",
            )
        for path in (
            "/?\x8c",
            "/healthz?\x8c=\xff",
            "/\x8c",
            "/api/v1/functions?search=\x8c",
            "/api/v1/%8c?%8c",
        ):
            for method in ("HEAD", "GET", "OPTIONS", "DELETE"):
                answer = ask(target, http(method, path))
                target.expect(answer.status not in (0, 500), f"{method} {path!r} gets {answer.status}")


class BadCursors(Attack):
    """A number that is none is the peer's fault, and has nothing to do with the store."""

    name = "bad-cursors"
    about = "Cursors, limits and offsets in HTTP requests that are beyond 64 bits, negative, or no numbers."
    web = True

    NUMBERS: Final = (
        "9999999999999999999",
        "-1",
        "1e9",
        "nan",
        "inf",
        "0x10",
        "1" * 5_000,
        "",
        "٣",
        "%00",
        "1.5",
    )

    def options(self, target: Target) -> list[str]:
        # Most jobs are in the store alone, which then is asked.
        return ["--store", f"sqlite:///{target.folder}/jobs.db", "--store-ahead", "10"]

    def run(self, target: Target) -> None:
        target.connect().talk(submit(b"f") * 100)
        for number in self.NUMBERS:
            text = "".join(char if char.isascii() else f"%{ord(char) & 255:02x}" for char in number)
            for path in (
                f"functions/f/jobs?after={text}",
                f"functions/f/jobs?after=stored-1-{text}",
                f"functions/f/jobs?after=stored-{text}-1",
                f"functions/f/jobs?limit={text}",
                f"functions?limit={text}",
                f"connections?after={text}",
                f"connections/{text}",
                f"jobs/H:x:1/data?offset={text}",
                f"jobs/H:x:1/data?length={text}",
            ):
                answer = ask(target, http("GET", f"/api/v1/{path}"))
                target.expect(answer.status in (200, 400, 404), f"GET {path[:80]} gets {answer.status}")
            for name in ("run_at", "timeout"):
                path = f"functions/f/jobs?background=true&{name}={text}"
                answer = ask(target, http("POST", f"/api/v1/{path}", b"x"))
                target.expect(answer.status in (200, 202, 400), f"POST {path[:80]} gets {answer.status}")
        for document in (
            b'{"limits":{"high":1e999}}',
            b"[" * 50_000,
            b'{"paused":NaN}',
            b'{"limits":{"low":-1}}',
        ):
            answer = ask(target, http("PATCH", "/api/v1/functions/f", document))
            target.expect(answer.status == 400, f"PATCH {document[:40]!r} gets {answer.status}")


class BadCertificates(Attack):
    """A client whose certificate cannot be read is denied."""

    name = "bad-certificates"
    about = "TLS clients whose certificates, signed by our CA, have alternative names that are malformed."
    tls = True
    bounds = Bounds(log_lines=60)

    NAMES: Final = (
        # An address, a domain, an URI, an IP address of a length that there is not, an object identifier that
        # does not end, and names of kinds that hold other things.
        *(
            b"\x30\x03\x81\x01\xff",
            b"\x30\x02\x82\x00",
            b"\x30\x05\x82\x03\xff\xfe\x00",
            b"\x30\x04\x82\x02a\x00",
        ),
        *(
            b"\x30\x03\x86\x01\x80",
            b"\x30\x05\x87\x03\x7f\x00\x00",
            b"\x30\x02\x87\x00",
            b"\x30\x03\x88\x01\x80",
        ),
        *(b"\x30\x06\xa0\x04\x06\x02\x2a\x03", b"\x30\x04\xa3\x02\x05\x00", b"\x30\x04\xa4\x02\x30\x00"),
        *(b"\x30\x06\xa5\x04\xa1\x02\x0c\x00", b"\x30\x00", b"\x30\x82\x40\x02" + b"\x82\x00" * 0x2001),
        # No names at all: libraries do not send these, attackers may.
        *(b"", b"\x30", b"\x30\x80", b"garbage", b"\x04\x02xx"),
    )

    def options(self, target: Target) -> list[str]:
        self._authority = _Authority(target.folder)
        return [
            *("--tls-ca", str(self._authority.certificate), "--tls-verify", "optional"),
            *("--config", str(_visitors(target.folder))),
        ]

    def run(self, target: Target) -> None:
        for number, name in enumerate(self.NAMES):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            try:
                # OpenSSL refuses some of them already here.
                context.load_cert_chain(self._authority.issue(number, name))
                peer = target.connect_tls(context)
                peer.send(request(Type.ECHO_REQ, b"x") + submit(b"secret", b"", b"x"))
                answers = peer.read()
            except OSError:
                continue
            target.expect(not count(answers, Type.JOB_CREATED), f"{name[:20]!r} may submit")


def _visitors(folder: Path) -> Path:
    path = folder / "gearmand.toml"
    path.write_text(
        '[access.here]\nnetwork = ["127.0.0.0/8"]\nsubmit = ["honest"]\nwork = ["honest"]\nadmin = ["view"]\n'
        '[access.clients]\ncertificate = ["*.example.com"]\nsubmit = ["secret"]\n'
    )
    return path


class _Authority:
    """A certificate authority that signs anything."""

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self._x509, self._hash, self._serialization = x509, hashes.SHA256(), serialization
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._common_name = NameOID.COMMON_NAME
        self._folder = folder
        self.certificate = folder / "clients-ca.pem"
        self._name = self._named("ca")
        builder = self._builder(self._name).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.certificate.write_bytes(self._signed(builder))

    def issue(self, number: int, names: bytes) -> Path:
        """A client's certificate with its key, whose alternative names are these bytes."""
        x509 = self._x509
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), names)
        builder = self._builder(self._named("nobody")).add_extension(extension, critical=False)
        path = self._folder / f"client-{number}.pem"
        key = self._key.private_bytes(
            self._serialization.Encoding.PEM,
            self._serialization.PrivateFormat.PKCS8,
            self._serialization.NoEncryption(),
        )
        path.write_bytes(self._signed(builder) + key)
        return path

    def _named(self, text: str):  # type: ignore[no-untyped-def]
        return self._x509.Name([self._x509.NameAttribute(self._common_name, text)])

    def _builder(self, subject):  # type: ignore[no-untyped-def]
        now = datetime.datetime.now(datetime.UTC)
        return (
            self._x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(self._x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _signed(self, builder) -> bytes:  # type: ignore[no-untyped-def]
        signed = builder.sign(self._key, self._hash)
        return bytes(signed.public_bytes(self._serialization.Encoding.PEM))


class WordsTooMany(Attack):
    """An administrator's typing error changes nothing."""

    name = "words-too-many"
    about = "Each admin command with words that it does not take."

    def run(self, target: Target) -> None:
        peer = target.connect()
        answers = peer.talk(submit(b"stays") * 2)
        one, two = (body for kind, body in packets(answers) if kind == Type.JOB_CREATED)
        for line in (
            *(b"create function made too", b"drop function stays too", b"drop function honest too"),
            *(b"cancel job %s x" % one, b"cancel job %s %s" % (one, two), b"maxqueue stays 1 2 3 4"),
            *(b"maxrate stays 1 2 3", b"shutdown now", b"shutdown graceful please"),
            *(b"create made", b"drop stays", b"cancel %s" % one, b"create functions made"),
        ):
            answer = peer.ask(line + b"\n", b"\n")
            target.expect(answer.startswith(b"ERR "), f"{line!r} is answered with {answer!r}")
        rows = target.connect().ask(b"status\n", b".\n").splitlines()
        target.expect(not any(row.startswith(b"made") for row in rows), f"{rows} has what was refused")
        target.expect(any(row.startswith(b"stays\t2\t") for row in rows), f"{rows} lacks jobs of stays")


class EmptyHandles(Attack):
    """A report on no job is one on a job that the worker does not have."""

    name = "empty-handles"
    about = "Reports with an empty handle, and with handles of jobs that are none."

    def run(self, target: Target) -> None:
        peer = target.connect()
        for handle in (b"", b"x", b"H:", b"H:x", b"H:x:", b"H:x:-1", b"H:x:" + b"9" * 40, b"\xff", b":"):
            for kind in (Type.WORK_COMPLETE, Type.WORK_DATA, Type.WORK_WARNING, Type.WORK_EXCEPTION):
                answers = peer.talk(request(kind, handle, b"x"))
                target.expect(
                    count(answers, Type.ERROR, b"JOB_NOT_FOUND\0") == 1,
                    f"{kind.name} of {handle!r} is answered with {answers!r}",
                )
            for packet in (request(Type.WORK_STATUS, handle, b"1", b"2"), request(Type.WORK_FAIL, handle)):
                answers = peer.talk(packet)
                target.expect(
                    count(answers, Type.ERROR, b"JOB_NOT_FOUND\0") == 1,
                    f"a report on {handle!r} is answered with {answers!r}",
                )


class PlainTextToTls(Attack):
    """They say who is at the other end."""

    name = "plain-text-to-tls"
    about = "Packets, lines and HTTP requests without TLS to the TLS port."
    tls = True
    bounds = Bounds(log_lines=60)

    def run(self, target: Target) -> None:
        for data in (submit(b"f"), b"status\n", http("GET", "/", host=HOST), b"\0", bytes(100_000)):
            for _ in range(5):
                peer = target.connect_silently_to_tls()
                peer.send(data)
                target.expect(peer.ends(), f"{data[:20]!r} without TLS, and the connection stays")
                target.expect(b"JOB_CREATED" not in peer.take(), "a job is taken without TLS")
