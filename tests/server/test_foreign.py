"""Peers that speak another protocol: nothing behind their first line is obeyed.

A web page of any origin can make a browser on this machine connect to 127.0.0.1 and send an HTTP request,
whose body the page chooses. A server that takes the head of the request for wrong lines, and goes on, obeys
the body. Every way in leads through one connection class, so one rule holds everywhere: TCP, UNIX sockets,
TLS after its handshake. The other ports that a page can reach are those of ``--web``, which
``tests/web/test_guard.py`` is about.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet import defer
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial import util
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, txgearmand
from tests.server import test_tls
from tests.server.lines import Line
from tests.server.lines import connect as connect_tcp
from tests.server.peers import Peer, ServerTestCase, req, res
from tests.support import free_port, on_reactor
from tests.web.browser import browser, needs_browser
from tests.wire.streams import cut, whole_bytes_and_halves
from txgearman.access.patterns import MAX_SHOWN
from txgearman.broker.inspection import Inspection
from txgearman.server import GearmanService, Settings, make_service

BODY = (
    b"maxqueue evil 5\r\ncreate function evil\nshutdown\n"
    + req(18, b"evil", b"", b"data")
    + req(1, b"evil")
    + b"maxqueue evil 5\n"
)
"""What a web page would have the server obey."""

LASTING_BODY = BODY.replace(b"shutdown\n", b"")
"""The same, without what would end the server that is looked at."""

HEAD = (
    b"Host: 127.0.0.1:4730\r\nContent-Type: text/plain\r\nversion\r\nstatus: x\r\nContent-Length: 99\r\n\r\n"
)

METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"post", b"M-SEARCH", b"x!#$%&'*+.^_`|~9")
"""Known ones and others; RFC 9110 lets a method be any token."""

COMMANDS_AS_METHODS = (b"status", b"VERSION", b"shutdown", b"show", b"create", b"maxqueue", b"cancel")

REQUEST_LINES = (
    *[method + b" /some?where HTTP/1.1" for method in (*METHODS, *COMMANDS_AS_METHODS)],
    b"GET / HTTP/1.0",
    b"GET http://127.0.0.1:4730/ HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"status * http/9.9",
    b"status /with space HTTP/1.1",
    b"version  /  HTTP/1.1",
    b"show jobs HTTP/1.1",
    b"status / HTTP/1.1 and more and more",
)

OTHER_FIRST_LINES = (
    b"",
    b"GET /",
    b" status",
    b"\tstatus",
    b"status\tjobs",
    b"nonsense",
    b"Host: 127.0.0.1",
    b"EHLO example.org",
    b"USER somebody",
    b"*1",
    b"SSH-2.0-OpenSSH_9.2",
    b"{",
    b"\xff\xfe",
    b"status\0",
    b"x" * 8192,
)

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))


class ForeignTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.shutdowns: list[bool] = []
        self.gearman = self.serve()

    def serve(self, **settings: Any) -> Any:
        gearman = super().serve(**settings)
        gearman.server.shut_down = lambda *, graceful: self.shutdowns.append(graceful)  # type: ignore[method-assign]
        return gearman

    def say(self, pieces: Iterable[bytes]) -> tuple[Peer, bytes, list[Any]]:
        """The peer that sent these pieces, what it heard, and what the log says."""
        peer = self.peer()
        heard = b""
        with capturedLogs() as events:
            for piece in pieces:
                if peer.lost is None:
                    heard += peer.ask(piece)
        return peer, heard, [event for event in events if event["log_level"] >= LogLevel.info]

    def assert_shut_out(self, pieces: Iterable[bytes], answer: bytes, logged: str) -> None:
        dropped = self.gearman.server.traffic.dropped
        before = dropped["broken-stream"]
        peer, heard, events = self.say(pieces)
        self.assertIsNotNone(peer.lost)
        self.assertEqual(heard, answer)
        ((level, text),) = [(event["log_level"], formatEvent(event)) for event in events]
        self.assertEqual(level, LogLevel.warn)
        self.assertIn(logged, text)
        self.assertLess(len(text), 400)
        self.assertEqual(dropped["broken-stream"], before + 1)
        self.assert_nothing_was_obeyed()

    def assert_nothing_was_obeyed(self) -> None:
        broker = self.gearman.server.broker
        self.assertEqual(
            (list(Inspection(broker).functions()), list(Inspection(broker).limits()), broker.total),
            ([], [], 0),
        )
        self.assertEqual(self.shutdowns, [])

    def test_http(self) -> None:
        answer = b"ERR UNKNOWN_COMMAND This+port+speaks+Gearman+and+not+HTTP\r\n"
        for line in REQUEST_LINES:
            for line_end in (b"\r\n", b"\n"):
                with self.subTest(line):
                    stream = line + line_end + HEAD + BODY
                    for pieces in whole_bytes_and_halves(stream):
                        self.assert_shut_out(pieces, answer, "speaks HTTP")

    def test_other_first_lines(self) -> None:
        for line in OTHER_FIRST_LINES:
            with self.subTest(line):
                word = line.split(b" ")[0][:MAX_SHOWN].replace(b"\t", rb"\t").replace(b"\0", rb"\x00")
                answer = b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % word
                for pieces in whole_bytes_and_halves(line + b"\r\n" + BODY):
                    self.assert_shut_out(pieces, answer, "the first line is no admin command")

    def test_tls_without_a_line_end(self) -> None:
        for stream in (CLIENT_HELLO, CLIENT_HELLO + b"\n" + BODY):
            for pieces in whole_bytes_and_halves(stream):
                self.assert_shut_out(pieces, b"", "speaks TLS")

    def test_cut_in_two_at_every_place(self) -> None:
        stream = b"status / HTTP/1.1\r\nA: b\r\n\r\n" + BODY
        answer = b"ERR UNKNOWN_COMMAND This+port+speaks+Gearman+and+not+HTTP\r\n"
        for place in range(len(stream)):
            self.assert_shut_out(cut(stream, [place]), answer, "speaks HTTP")

    def test_a_first_line_without_an_end(self) -> None:
        self.assert_shut_out([b"GET /" + b"x" * 8192], b"", "more than 8192 bytes")

    def test_peers_of_gearman_are_let_in(self) -> None:
        for first in (
            b"version\n",
            b"STATUS\r\n",
            b"status x y\n",
            b"show jobs\n",
            b"drop function x\n",
            req(4),
        ):
            peer = self.peer()
            peer.ask(first)
            # From then on a wrong line is an error of its own, as with gearmand.
            unknown = b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n"
            self.assertEqual(
                peer.ask(b"GET / HTTP/1.1\n\nnonsense\n"), unknown * 3 % (b"GET", b"", b"nonsense")
            )
            self.assertIsNone(peer.lost)

    def test_a_packet_that_is_refused_is_one_of_gearman(self) -> None:
        peer = self.peer()
        peer.ask(req(99))
        peer.ask(b"nonsense\n")
        self.assertIsNone(peer.lost)

    def test_an_administrator_who_forgets_words(self) -> None:
        # It is answered and may go on, but is not taken for a peer of Gearman for that.
        for line in (b"show", b"cancel job", b"create function", b"maxqueue", b"drop"):
            peer = self.peer()
            self.assertTrue(peer.ask(line + b"\n").startswith(b"ERR "))
            self.assertIsNone(peer.lost)
            self.assertIn(b"OK", peer.ask(b"version\n"))
            self.assert_shut_out([line + b"\n" + b"status / HTTP/1.1\n" + BODY], *self.behind(line))

    def behind(self, line: bytes) -> tuple[bytes, str]:
        refused = self.peer().ask(line + b"\n")
        return refused + b"ERR UNKNOWN_COMMAND This+port+speaks+Gearman+and+not+HTTP\r\n", "speaks HTTP"

    def test_forgotten_words_do_not_keep_a_connection(self) -> None:
        # Who has sent nothing right makes room when others want in.
        gearman = self.serve(max_connections=1)
        first = self.peer(gearman)
        first.ask(b"show\n")
        gearman.turn(6)
        self.assertEqual(self.peer(gearman).ask(req(16, b"x")), res(17, b"x"))
        self.assertIsNotNone(first.lost)


@contextlib.asynccontextmanager
async def serving_unix(path: str) -> AsyncIterator[GearmanService]:
    service = make_service(Settings(listen=(f"unix:{path}",)))
    service.startService()
    try:
        yield service
    finally:
        await defer.maybeDeferred(service.stopService)


class SocketTest(TestCase):
    """On real sockets: a body that comes in one piece with its head is not obeyed, the connection ends."""

    suppress = [util.suppress(category=DeprecationWarning, message="Passing pyOpenSSL")]

    async def assert_shut_out(self, line: Line, service: GearmanService) -> None:
        from twisted.internet import reactor

        line.transport.write(b"POST / HTTP/1.1\r\n" + HEAD + LASTING_BODY)
        await line.lost.addTimeout(15, reactor)
        self.assertEqual(service.factory.broker.total, 0)
        self.assertEqual(list(service.factory.inspection.functions()), [])

    @on_reactor
    async def test_tcp(self) -> None:
        port = free_port()
        service = make_service(Settings(listen=(f"tcp:{port}:interface={HOST}",)))
        service.startService()
        try:
            await self.assert_shut_out(await connect_tcp(port), service)
        finally:
            await defer.maybeDeferred(service.stopService)

    @on_reactor
    async def test_unix(self) -> None:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory(prefix="txgearman-foreign-") as folder:
            path = str(Path(folder) / "socket")
            async with serving_unix(path) as service:
                line: Line = await connectProtocol(UNIXClientEndpoint(reactor, path), Line())
                await self.assert_shut_out(line, service)

    @on_reactor
    async def test_tls(self) -> None:
        async with test_tls.serving() as (port, service):
            await self.assert_shut_out(await test_tls.connect(port), service)


ATTACK = """
<form id="form" method="post" enctype="text/plain" target="frame"><textarea name="x"></textarea></form>
<iframe name="frame"></iframe>
<script>
const body = new Uint8Array(%(body)s);
async function attack() {
  const address = "http://127.0.0.1:%(port)d/", line = "\\r\\nmaxqueue evil 5\\r\\n";
  await fetch(address, {method: "POST", mode: "no-cors", body}).catch(() => 0);
  await fetch(address, {method: "POST", mode: "no-cors", body: line}).catch(() => 0);
  const form = document.getElementById("form");
  form.action = address;
  form.elements[0].value = line;
  form.submit();
}
attack().then(() => setTimeout(() => { document.title = "done"; }, 300));
</script>
"""


@needs_browser
class BrowserTest(TestCase):
    """A real browser, with a page of another origin that attacks the Gearman port in three ways."""

    @on_reactor
    async def test_a_web_page_cannot_drive_the_server(self) -> None:
        async with txgearmand() as server:
            page = ATTACK % {"port": server.port, "body": list(LASTING_BODY)}
            await deferToThread(self.visit, page)
            self.assertEqual(await server.ask("status"), b".\n")
            self.assertEqual(await server.ask("show function limits"), b".\n")
            self.assertGreaterEqual(server.log().count("speaks HTTP"), 3)

    def visit(self, page: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_: Any) -> None:
                pass

        # A browser that runs already may open a connection ahead of need, and say nothing on it.
        with ThreadingHTTPServer((HOST, 0), Handler) as site:
            serving = Thread(target=site.serve_forever, args=(0.05,))
            serving.start()
            try:
                with browser(f"http://localhost:{site.server_port}") as visitor:
                    visitor.chrome.get(visitor.address)
                    visitor.until("the attack is over", "document.title === 'done'")
            finally:
                site.shutdown()
                serving.join()
