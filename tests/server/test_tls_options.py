"""TLS by the server's own options: who is let in, what the others are told, and other certificates."""

from __future__ import annotations

import socket
import ssl
import sys
import unittest
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial import util
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.programs import HOST, run_program, running
from tests.server.lines import Line, close
from tests.server.lines import connect as connect_plainly
from tests.server.peers import PREFIX, error, req, res
from tests.support import free_port, needs_program, on_reactor
from txgearman import Client, Worker
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.errors import ClientError
from txgearman.server import GearmanService, Settings, make_service
from txgearman.server.service import check_settings

if find_spec("OpenSSL"):
    from OpenSSL import SSL

    from tests.certificates import Authority, authorities
    from txgearman.server.config.tls_options import TlsFiles, TlsVerify
    from txgearman.server.tls import LOOK_INTERVAL, ServerTls, make_context

needs_tls = unittest.skipUnless(find_spec("OpenSSL"), "not installed: pyOpenSSL")

NAME = "jobs.example.com"
"""What the server's certificate is for."""


class Serving:
    """A TLS server on a free port of this machine, and what clients need to reach it."""

    def __init__(self, folder: Path, ours: Authority, others: Authority, **settings: Any) -> None:
        self.folder, self.ours, self.others = folder, ours, others
        self.port = free_port()
        self.certificate = ours.issue(folder / "server.pem", NAME)
        self.settings = Settings(
            tls=(f"tcp:{self.port}:interface={HOST}",),
            tls_certificate=str(self.certificate),
            handle_prefix=PREFIX,
            **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()},
        )
        self.service: GearmanService = make_service(self.settings)

    def endpoint(
        self, name: str = NAME, trust: Authority | None = None, certificate: Path | None = None
    ) -> str:
        """The string of a client endpoint that verifies the server."""
        shown = "" if certificate is None else f":certificate={certificate}:privateKey={certificate}"
        # The name of the certificate leads to no server in a test, so the way there is told apart.
        where = f"endpoint=tcp\\:{HOST}\\:{self.port}"
        return f"tls:{name}:{self.port}:trustRoots={(trust or self.ours).folder}:{where}{shown}"

    async def connect(self, **how: Any) -> Line:
        from twisted.internet import reactor

        line: Line = await connectProtocol(clientFromString(reactor, self.endpoint(**how)), Line())
        return line

    def client(self, name: str, *names: str, by: Authority | None = None) -> Path:
        """A client's certificate."""
        return (by or self.ours).issue(self.folder / f"{name}.pem", *(names or (name,)), common_name=name)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Serving]:
    with authorities() as (folder, ours, others):
        if "tls_ca" in settings:
            settings["tls_ca"] = ours.ca
        server = Serving(folder, ours, others, **settings)
        server.service.startService()
        try:
            yield server
        finally:
            await defer.maybeDeferred(server.service.stopService)


class TlsTestCase(TestCase):
    # What Twisted's client side passes to pyOpenSSL; not our doing.
    suppress = [util.suppress(category=DeprecationWarning, message="Passing pyOpenSSL")]

    def logged(self, events: list[Any]) -> list[str]:
        return [str(formatEvent(event)) for event in events if event["log_namespace"].startswith("txgearman")]

    async def until(self, condition: Any) -> None:
        from tests.interop.programs import until

        async def asked() -> bool:
            return bool(condition())

        await until(asked, "the server has noticed")


@needs_tls
class VerifiedTest(TlsTestCase):
    """Our own client and worker, with verification."""

    @on_reactor
    async def test_client_and_worker(self) -> None:
        from twisted.internet import reactor

        async with serving() as server:
            worker = Worker(reactor, server.endpoint())
            worker.register("reverse", lambda job: job.data[::-1])
            await worker.start()
            async with Client(reactor, server.endpoint()) as client:
                job = await client.submit("reverse", b"x" * 100_000 + b"y")
                self.assertEqual(await job.result(timeout=30), b"y" + b"x" * 100_000)
            await worker.stop()

    @on_reactor
    async def test_a_wrong_name_or_authority_is_refused_by_the_client(self) -> None:
        async with serving() as server:
            for how in ({"name": "other.example.com"}, {"trust": server.others}):
                with self.subTest(how):
                    line = await server.connect(**how)
                    line.transport.write(req(16, b"x"))
                    await line.lost
                    self.assertEqual(line.received, b"")

    @on_reactor
    async def test_our_client_does_not_send_to_a_server_it_cannot_verify(self) -> None:
        from twisted.internet import reactor

        async with serving() as server:
            async with Client(reactor, server.endpoint("other.example.com")) as client:
                with self.assertRaises((ClientError, defer.TimeoutError)):
                    await client.submit("f", b"secret", background=True).addTimeout(1, reactor)
            self.assertEqual(server.service.factory.broker.total, 0)

    @on_reactor
    async def test_protocols(self) -> None:
        def shake(oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context(cafile=str(server.ours.ca))
            context.minimum_version, context.maximum_version = oldest, newest
            context.set_ciphers("ALL:@SECLEVEL=0")
            with (
                socket.create_connection((HOST, server.port)) as plain,
                context.wrap_socket(plain, server_hostname=NAME) as connection,
            ):
                return connection.version()

        v = ssl.TLSVersion
        async with serving() as server:
            self.assertEqual(await deferToThread(shake, v.TLSv1_2, v.TLSv1_2), "TLSv1.2")
            self.assertEqual(await deferToThread(shake, v.TLSv1_2, v.TLSv1_3), "TLSv1.3")
            with warnings.catch_warnings():
                # Python's own, about the old protocols that are tried here.
                warnings.simplefilter("ignore", DeprecationWarning)
                with self.assertRaises(ssl.SSLError) as refused:
                    await deferToThread(shake, v.TLSv1, v.TLSv1_1)
            self.assertIn("version", str(refused.exception).lower())


@needs_tls
class ClientCertificateTest(TlsTestCase):
    """Who must show what."""

    @on_reactor
    async def test_required(self) -> None:
        async with serving(tls_ca=True) as server:
            good = server.client("worker-1")
            line = await server.connect(certificate=good)
            self.assertEqual(await line.say(req(18, b"f", b"", b"x")), res(8, b"H:test:1"))
            await close(line)
            stranger = server.client("stranger", by=server.others)
            for certificate, why in (
                (None, "peer did not return a certificate"),
                (stranger, "certificate verify failed"),
            ):
                with capturedLogs() as events:
                    line = await server.connect(certificate=certificate)
                    line.transport.write(req(18, b"f", b"", b"x"))
                    await line.lost
                    await self.until(lambda: not server.service.factory.connections)
                self.assertEqual(line.received, b"")
                (told,) = self.logged(events)
                self.assertIn(why, told)
                self.assertIn(HOST, told)
            self.assertEqual(server.service.factory.broker.total, 1)

    @on_reactor
    async def test_optional(self) -> None:
        async with serving(tls_ca=True, tls_verify=TlsVerify.OPTIONAL) as server:
            line = await server.connect()
            self.assertEqual(await line.say(req(18, b"f", b"", b"x")), res(8, b"H:test:1"))
            await close(line)
            line = await server.connect(certificate=server.client("stranger", by=server.others))
            line.transport.write(req(18, b"f", b"", b"x"))
            await line.lost
            self.assertEqual(server.service.factory.broker.total, 1)

    @on_reactor
    async def test_rights_by_the_name_in_the_certificate(self) -> None:
        access = AccessPolicy(
            (
                Rule("workers", certificates=("worker-*",), work=(b"resize",)),
                Rule("everybody", submit=(b"resize",)),
            )
        )
        async with serving(tls_ca=True, tls_verify=TlsVerify.OPTIONAL, access=access) as server:
            alternative = server.client("anything", "worker-2")
            for certificate, allowed in (
                (server.client("worker-1", "elsewhere.example.com"), True),
                (alternative, True),
                (server.client("guest"), False),
                (None, False),
            ):
                line = await server.connect(certificate=certificate)
                denied = error(b"ACCESS_DENIED", b"You may not work on 'resize'")
                self.assertEqual(await line.say(req(1, b"resize")), b"" if allowed else denied)
                self.assertEqual(await line.say(req(18, b"resize", b"u", b"")), res(8, b"H:test:1"))
                await close(line)

    @on_reactor
    async def test_a_malformed_certificate_names_nobody(self) -> None:
        """OpenSSL lets it in; tests/server/test_certificates.py has more of them."""
        access = AccessPolicy((Rule("workers", certificates=("worker-*",), submit=(b"f",)),))
        async with serving(tls_ca=True, access=access) as server:
            certificate = server.ours.issue_malformed(server.folder / "malformed.pem")
            with capturedLogs() as events:
                line = await server.connect(certificate=certificate)
                self.assertIn(b"ACCESS_DENIED", await line.say(req(18, b"f", b"", b"")))
                await close(line)
            (told,) = self.logged(events)
            self.assertIn("with a malformed certificate: denied to submit", told)


@needs_tls
class WithoutTlsTest(TlsTestCase):
    """Peers that speak the wrong language, either way."""

    @on_reactor
    async def test_a_plain_client_is_told_and_closed(self) -> None:
        async with serving() as server:
            for said, answer in (
                (req(7, b"f", b"", b"x"), error(b"TLS_REQUIRED", b"This port speaks TLS only")),
                (b"status\n", b"ERR TLS_REQUIRED This+port+speaks+TLS+only\r\n"),
                (b"GET / HTTP/1.1\r\n\r\n", b"ERR TLS_REQUIRED This+port+speaks+TLS+only\r\n"),
            ):
                with capturedLogs() as events:
                    line = await connect_plainly(server.port)
                    line.transport.write(said)
                    line.transport.write(said)
                    await line.lost
                    await self.until(lambda: not server.service.factory.connections)
                self.assertEqual(line.received, answer)
                self.assertEqual(
                    self.logged(events),
                    ["A peer at 127.0.0.1 speaks no TLS; this endpoint does not speak without"],
                )
            self.assertEqual(server.service.factory.broker.total, 0)

    @on_reactor
    async def test_a_tls_client_at_a_plain_port_is_closed(self) -> None:
        from twisted.internet import reactor

        with authorities() as (_folder, ours, _others):
            port = free_port()
            service = make_service(Settings(listen=(f"tcp:{port}:interface={HOST}",)))
            service.startService()
            try:
                with capturedLogs() as events:
                    endpoint = f"tls:{NAME}:{port}:trustRoots={ours.folder}:endpoint=tcp\\:{HOST}\\:{port}"
                    line: Line = await connectProtocol(clientFromString(reactor, endpoint), Line())
                    await line.lost
                    await self.until(lambda: not service.factory.connections)
                (told,) = self.logged(events)
                self.assertIn("speaks TLS", told)
            finally:
                await defer.maybeDeferred(service.stopService)

    @on_reactor
    async def test_a_silent_client_is_dropped(self) -> None:
        async with serving(handshake_timeout=0.1) as server:
            with capturedLogs() as events:
                for said in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"):
                    line = await connect_plainly(server.port)
                    line.transport.write(said)
                    await line.lost
            self.assertIn("TLS was not agreed", self.logged(events)[0])


@needs_tls
class OtherFilesTest(TlsTestCase):
    """Certificates that are replaced while the server runs."""

    def issuer(self, line: Line) -> str:
        certificate: Any = line.transport.getPeerCertificate()
        return str(certificate.to_cryptography().serial_number)

    @on_reactor
    async def test_a_reload(self) -> None:
        async with serving() as server:
            old = await server.connect()
            await old.say(req(18, b"f", b"", b"x"))
            server.ours.issue(server.certificate, NAME)
            self.assertEqual(server.service.reconfigure(server.settings), ([], []))
            new = await server.connect()
            self.assertEqual(
                await new.say(req(15, b"H:test:1")), res(20, b"H:test:1", b"1", b"0", b"0", b"0")
            )
            self.assertEqual(await old.say(req(18, b"f", b"", b"x")), res(8, b"H:test:2"))
            self.assertNotEqual(self.issuer(old), self.issuer(new))
            await close(old, new)

    @on_reactor
    async def test_a_reload_with_files_that_cannot_be_used_changes_nothing(self) -> None:
        async with serving() as server:
            server.certificate.write_text("nonsense")
            with self.assertRaises(ValueError):
                server.service.reconfigure(server.settings)
            line = await server.connect()
            self.assertEqual(await line.say(req(16, b"x")), res(17, b"x"))
            await close(line)

    def test_changed_files_are_noticed(self) -> None:
        clock = Clock()
        with authorities() as (folder, ours, _others):
            certificate = ours.issue(folder / "server.pem", NAME)
            key = folder / "key.pem"
            key.write_bytes(certificate.read_bytes())
            tls = ServerTls(TlsFiles(str(certificate), str(key)), clock)
            first = tls._context
            tls.serverConnectionForTLS(None)
            ours.issue(certificate, NAME, "www.example.com")
            tls.serverConnectionForTLS(None)
            self.assertIs(tls._context, first, "not looked at again so soon")
            clock.advance(LOOK_INTERVAL)
            with capturedLogs() as events:
                tls.serverConnectionForTLS(None)
                clock.advance(LOOK_INTERVAL)
                tls.serverConnectionForTLS(None)
            self.assertIs(tls._context, first, "the key is still the old one")
            (told,) = self.logged(events)
            self.assertIn("Changed TLS files are not used", told)
            key.write_bytes(certificate.read_bytes())
            clock.advance(LOOK_INTERVAL)
            with capturedLogs() as events:
                tls.serverConnectionForTLS(None)
            self.assertIsNot(tls._context, first)
            self.assertIn("valid until", self.logged(events)[0])


@needs_tls
class WrongFilesTest(SynchronousTestCase):
    """What cannot be used is named, ahead of the start."""

    def test_each(self) -> None:
        from cryptography.hazmat.primitives import serialization

        with authorities() as (folder, ours, others):
            good = str(ours.issue(folder / "good.pem", NAME))
            other = str(others.issue(folder / "other.pem", NAME))
            text = folder / "text.pem"
            text.write_text("no certificate")
            missing = str(folder / "missing.pem")
            locked = folder / "locked.pem"
            key = serialization.load_pem_private_key(Path(good).read_bytes(), None)
            locked.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )
            for files, said in (
                (TlsFiles(missing), f"the TLS certificate cannot be read: {missing}: No such file"),
                (TlsFiles(str(text)), f"no usable TLS certificate in {text}"),
                (TlsFiles(good, str(text)), f"no usable TLS key in {text}"),
                (TlsFiles(good, missing), "the TLS key cannot be read"),
                (TlsFiles(good, other), f"the TLS key in {other} is not that of the certificate in {good}"),
                (TlsFiles(good, str(locked)), f"no usable TLS key in {locked}"),
                (TlsFiles(good, good, missing), "the TLS CA cannot be read"),
                (TlsFiles(good, good, str(text)), f"no usable TLS CA in {text}"),
            ):
                with self.subTest(files):
                    with self.assertRaises(ValueError) as caught:
                        make_context(files)
                    self.assertIn(said, str(caught.exception))
            self.assertIsInstance(make_context(TlsFiles(good, None, str(ours.ca))), SSL.Context)

    def test_settings_that_cannot_be(self) -> None:
        for settings in (
            {"tls": ("tcp:1",)},
            {"web_tls": True},
            {"tls_key": "/key"},
            {"tls_ca": "/ca"},
        ):
            with self.assertRaises(ValueError) as caught:
                Settings(**settings)
            self.assertIn("tls-certificate", str(caught.exception))
        with self.assertRaises(ValueError):
            check_settings(Clock(), Settings(tls=("tcp:1",), tls_certificate="/does/not/exist"))

    def test_without_a_plain_endpoint_of_its_own_accord(self) -> None:
        settings = Settings(tls=("tcp:1",), tls_certificate="/c")
        self.assertEqual((settings.listen, settings.endpoints), ((), ("tcp:1",)))
        settings = Settings(tls=("tcp:1",), tls_certificate="/c", listen=("unix:/s",))
        self.assertEqual(settings.endpoints, ("unix:/s", "tcp:1"))


@needs_tls
class WebTest(TlsTestCase):
    """The web side behind TLS."""

    @on_reactor
    async def test_https(self) -> None:
        web = free_port()

        def ask() -> bytes:
            context = ssl.create_default_context(cafile=str(server.ours.ca))
            with (
                socket.create_connection((HOST, web)) as plain,
                context.wrap_socket(plain, server_hostname=NAME) as connection,
            ):
                connection.sendall(b"GET /api/v1/server HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b"".join(iter(lambda: connection.recv(65536), b""))

        async with serving(web=f"tcp:{web}:interface={HOST}", web_tls=True) as server:
            self.assertIn(b" 200 OK\r\n", await deferToThread(ask))


GEAR = """\
import sys, threading, gear
port, certificate, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]
how = dict(ssl_key=certificate, ssl_cert=certificate, ssl_ca=ca)
worker = gear.Worker("w")
worker.addServer("127.0.0.1", port, **how)
worker.waitForServer()
worker.registerFunction("reverse")
def work():
    job = worker.getJob()
    job.sendWorkComplete(job.arguments[::-1])
threading.Thread(target=work, daemon=True).start()
done = threading.Event()
class Client(gear.Client):
    def handleWorkComplete(self, packet):
        job = super().handleWorkComplete(packet)
        print(job.data[0].decode(), flush=True)
        done.set()
client = Client("c")
client.addServer("127.0.0.1", port, **how)
client.waitForServer()
client.submitJob(gear.Job("reverse", b"olleh" * 10000))
assert done.wait(30)
"""


@needs_tls
class ForeignTest(TlsTestCase):
    """Clients and workers of others."""

    @unittest.skipUnless(find_spec("gear"), "not installed: gear")
    @on_reactor
    async def test_gear(self) -> None:
        async with serving(tls_ca=True) as server:
            certificate = server.client("gear")
            code, output, errors = await run_program(
                [sys.executable, "-c", GEAR, str(server.port), str(certificate), str(server.ours.ca)]
            )
            self.assertEqual((code, output), (0, b"hello" * 10000 + b"\n"), errors)

    @unittest.skipUnless(find_spec("gear"), "not installed: gear")
    @on_reactor
    async def test_gear_refuses_another_authority(self) -> None:
        async with serving() as server:
            certificate = server.client("gear")
            command = [sys.executable, "-c", GEAR, str(server.port), str(certificate), str(server.others.ca)]
            with capturedLogs() as events:
                async with running(*command):
                    await self.until(lambda: any("unknown ca" in told for told in self.logged(events)))

    @needs_program("gearman")
    @on_reactor
    async def test_libgearman_of_debian_speaks_plain_though_asked_for_tls(self) -> None:
        async with serving() as server:
            with capturedLogs() as events:
                command = ["gearman", "-S", "-h", HOST, "-p", str(server.port), "-b", "-f", "f", "x"]
                _code, _output, errors = await run_program(command)
            if not any("speaks no TLS" in told for told in self.logged(events)):
                raise unittest.SkipTest("this libgearman does speak TLS")
            self.assertEqual(server.service.factory.broker.total, 0)
            self.assertIn(b"TLS_REQUIRED:This port speaks TLS only", errors)
