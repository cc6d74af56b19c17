"""Posts to a web server on a real socket, which answers as told: well, badly, endlessly, or not at all."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from tests.certificates import Authority
from tests.interop.programs import HOST, assert_no_traceback
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.server.test_twistd import twistd
from tests.support import free_port, on_reactor
from txgearman.server.config.tls_options import TlsFiles
from txgearman.server.monitoring import http_poster
from txgearman.server.monitoring.http_poster import MAX_RESPONSE, HTTPPoster, PostRefused
from txgearman.server.tls import ServerTls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class WebServer(Factory):
    """Keeps the head and the body of each request, and answers it by the next of `answers`, the last one for
    all further ones. An answer may be a function, which is called with the connection."""

    noisy = False

    def __init__(self, *answers: bytes | Callable[[Connection], None]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[dict[bytes, bytes], bytes]] = []
        self.connections: list[Connection] = []
        self.line = b""

    def buildProtocol(self, _address: Any) -> Connection:
        connection = Connection(self)
        self.connections.append(connection)
        return connection


class Connection(LineReceiver):
    """One connection, for one request."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.head: dict[bytes, bytes] = {}
        self.body = b""
        self.ended: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        if not line:
            self.setRawMode()
        elif b": " not in line:
            self.server.line = line
        else:
            name, _, value = line.partition(b": ")
            self.head[name.lower()] = value

    def rawDataReceived(self, data: bytes) -> None:
        self.body += data
        if len(self.body) == int(self.head[b"content-length"]):
            self.server.requests.append((self.head, self.body))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, bytes):
                self.transport.write(answer)
            else:
                answer(self)

    def connectionLost(self, _reason: Any = None) -> None:
        self.ended.callback(None)


@asynccontextmanager
async def listening(server: Factory, port: int) -> AsyncIterator[None]:
    from twisted.internet import reactor

    listener = await TCP4ServerEndpoint(reactor, port, interface=HOST).listen(server)
    try:
        yield
    finally:
        await listener.stopListening()


class PosterTest(TestCase):
    async def post(
        self, server: WebServer, url: str = "http://{place}/hook?token=t#f", body: bytes = b"{}"
    ) -> BaseException | None:
        """Post once; returns what that failed with. The connection has ended behind it."""
        from twisted.internet import reactor

        port = free_port()
        async with listening(server, port):
            self.poster = HTTPPoster(reactor, url.format(place=f"{HOST}:{port}"))
            try:
                await self.poster.post(body)
            except Exception as error:
                return error
            finally:
                for connection in server.connections:
                    await connection.ended
        return None

    @on_reactor
    async def test_a_post(self) -> None:
        server = WebServer(OK)
        body = b'{"jobs":[]}' * 10_000
        self.assertIsNone(await self.post(server, body=body))
        ((head, posted),) = server.requests
        self.assertEqual(posted, body)
        self.assertEqual(server.line, b"POST /hook?token=t HTTP/1.1")
        self.assertEqual(head[b"content-type"], b"application/json")
        self.assertEqual(head[b"host"].partition(b":")[0], HOST.encode())
        self.assertNotIn(b"authorization", head)

    @on_reactor
    async def test_credentials_are_sent_and_not_shown(self) -> None:
        server = WebServer(OK)
        self.assertIsNone(await self.post(server, "http://me:p%40ss@{place}"))
        self.assertEqual(server.requests[0][0][b"authorization"], b"Basic bWU6cEBzcw==")
        self.assertEqual(server.line, b"POST / HTTP/1.1")
        self.assertRegex(self.poster.origin, rf"^http://{HOST}:\d+$")

    @on_reactor
    async def test_all_other_codes_are_refusals_and_redirects_are_not_followed(self) -> None:
        for code in (302, 307, 404, 500):
            server = WebServer(b"HTTP/1.1 %d X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n" % code)
            error = await self.post(server)
            self.assertIsInstance(error, PostRefused)
            self.assertEqual((str(error), len(server.requests)), (f"it answered {code}", 1))

    @on_reactor
    async def test_an_answer_without_an_end(self) -> None:
        """A body behind a good code, and a head: with one line of many, many lines, many answers of 1xx."""
        endless = {
            b"HTTP/1.1 200 OK\r\n\r\n": (b"x" * 1000, None),
            b"HTTP/1.1 200 OK\r\nA: b\r\n": (b" c" * 500 + b"\r\n", Exception),
            b"HTTP/1.1 200 OK\r\nA: c\r\n": (b"B: c\r\n" * 200, Exception),
            b"": (b"HTTP/1.1 100 Continue\r\n\r\n" * 40, Exception),
        }
        for begin, (piece, expected) in endless.items():
            written = 0

            def answer(connection: Connection, begin: bytes = begin, piece: bytes = piece) -> None:
                from twisted.internet import reactor

                def go_on() -> None:
                    nonlocal written
                    if not connection.ended.called:
                        connection.transport.write(piece)
                        written += len(piece)
                        reactor.callLater(0, go_on)

                connection.transport.write(begin)
                go_on()

            error = await self.post(WebServer(answer))
            self.assertIsInstance(error, expected or type(None), begin)
            self.assertGreater(written, MAX_RESPONSE)

    @on_reactor
    async def test_a_web_server_that_says_nothing(self) -> None:
        with patch.object(http_poster, "REQUEST_TIMEOUT", 0.1):
            error = await self.post(WebServer(lambda _connection: None))
        self.assertEqual(str(error), "it did not answer in 0.1 seconds")

    @on_reactor
    async def test_the_code_was_in_time_and_the_body_was_not(self) -> None:
        with patch.object(http_poster, "REQUEST_TIMEOUT", 0.1):
            self.assertIsNone(await self.post(WebServer(OK[:-1])))

    @on_reactor
    async def test_a_request_may_be_cancelled(self) -> None:
        from twisted.internet import reactor

        port = free_port()
        server = WebServer(lambda _connection: asked.callback(None))
        asked: Deferred[None] = Deferred()
        async with listening(server, port):
            request = HTTPPoster(reactor, f"http://{HOST}:{port}").post(b"{}")
            failed: list[Any] = []
            request.addErrback(failed.append)
            await asked
            request.cancel()
            self.assertEqual(len(failed), 1, "at once")
            await server.connections[0].ended

    @on_reactor
    async def test_nobody_listens(self) -> None:
        from twisted.internet import reactor

        with self.assertRaisesRegex(Exception, "refused"):
            await HTTPPoster(reactor, f"http://{HOST}:{free_port()}").post(b"{}")

    @on_reactor
    async def test_certificates_are_verified(self) -> None:
        """That of another host is none, either. The system's certificates are those of ``SSL_CERT_FILE``."""
        from twisted.internet import reactor

        server, port = WebServer(OK), free_port()
        with TemporaryDirectory(prefix="txgearman-poster-") as folder:
            authority = Authority(Path(folder) / "ca")
            certificate = authority.issue(Path(folder) / "server.pem", "localhost")
            tls = ServerTls(TlsFiles(str(certificate)), reactor)
            async with listening(tls.wrap(server), port):
                here = HTTPPoster(reactor, f"https://localhost:{port}")
                with self.assertRaisesRegex(Exception, "certificate verify failed"):
                    await here.post(b"{}")
                with patch.dict("os.environ", SSL_CERT_FILE=str(authority.ca)):
                    here = HTTPPoster(reactor, f"https://localhost:{port}")
                    await here.post(b"{}")
                    elsewhere = HTTPPoster(reactor, f"https://{HOST}:{port}")
                    with self.assertRaisesRegex(Exception, "Mismatch"):
                        await elsewhere.post(b"{}")
                for connection in server.connections:
                    await connection.ended
        self.assertEqual(len(server.requests), 1)


class TwistdTest(TestCase):
    @on_reactor
    async def test_a_server_that_ends_tells_of_the_last_death(self) -> None:
        server, port = WebServer(OK), free_port()
        option = f"--dead-webhook=http://me:secret@{HOST}:{port}/token"
        async with listening(server, port), twistd(option) as gearmand:
            peer = await connect(gearmand.port)
            handle = (await peer.say(req(1, b"f"), req(18, b"f", b"u", b"payload")))[12:]
            await peer.say(req(9), req(14, handle))
            await close(peer)
            gearmand.signal(signal.SIGTERM)
            self.assertEqual(await gearmand.program.ended(), 0)
            assert_no_traceback(gearmand.log)
            self.assertNotIn("secret", gearmand.log)
            self.assertNotIn("token", gearmand.log)
            self.assertNotIn("Starting factory", gearmand.log)
        ((_head, body),) = server.requests
        (job,) = json.loads(body)["jobs"]
        self.assertEqual((job["handle"], job["unique"], job["size"]), (handle.decode(), "u", 7))
        self.assertNotIn(b"payload", body)
