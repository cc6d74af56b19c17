"""What every request passes: hosts, origins, limits, headers, paths and methods."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Exchange, Web
from txgearman.web import LimitedSite, WebSettings
from txgearman.web.guard import SECURITY_HEADERS
from txgearman.web.site import MAX_CONNECTIONS

SERVER = "/api/v1/server"
ELSEWHERE = "192.0.2.7"


class HeaderTests(SynchronousTestCase):
    def test_every_answer_has_the_security_headers(self) -> None:
        web = Web()
        for path in (SERVER, "/nothing/there", "/api/v2/server"):
            response = web.get(path)
            for name, value in SECURITY_HEADERS:
                self.assertEqual(response.headers[name.decode().lower()], value.decode())

    def test_scripts_and_styles_in_pages_and_frames_are_forbidden(self) -> None:
        policy = Web().get(SERVER).headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)


class HostTests(SynchronousTestCase):
    """At a loopback address only the names of this machine are served, against DNS rebinding."""

    def status(self, host: str, at: str = "127.0.0.1") -> int:
        return Web().get(SERVER, headers={"Host": host}, host=at).status

    def test_names_of_this_machine(self) -> None:
        for host in (
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost",
            "127.0.0.1:1",
            "127.9.9.9",
        ):
            self.assertEqual(self.status(host), 200, host)

    def test_the_address_of_ipv6(self) -> None:
        self.assertEqual(self.status("[::1]:8080"), 200)

    def test_other_names(self) -> None:
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.0.2.7",
            "",
            "[x",
        ):
            self.assertEqual(self.status(host), 421, host)

    def test_any_name_at_other_addresses(self) -> None:
        self.assertEqual(self.status("jobs.example", at=ELSEWHERE), 200)


class PathTests(SynchronousTestCase):
    def test_unknown_paths(self) -> None:
        web = Web()
        for path in (
            "/nothing",
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/",
            "/api/v1/server/x",
            "/api/v2/server",
        ):
            response = web.get(path)
            self.assertEqual((response.status, response.code), (404, "not-found"), path)

    def test_unknown_methods(self) -> None:
        response = Web().ask("POST", SERVER)
        self.assertEqual((response.status, response.code), (405, "wrong-method"))
        self.assertEqual(response.headers["allow"], "GET, HEAD")

    def test_head_has_no_body(self) -> None:
        response = Web().ask("HEAD", SERVER)
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertGreater(int(response.headers["content-length"]), 0)

    def test_unknown_and_repeated_parameters(self) -> None:
        response = Web().get(SERVER + "?x=1")
        self.assertEqual((response.status, response.code), (400, "unknown-parameter"))


class BodyLimitTests(SynchronousTestCase):
    def test_at_the_limit(self) -> None:
        web = Web(WebSettings(max_data=10))
        self.assertEqual(web.ask("POST", SERVER, b"0123456789").status, 405)

    def test_one_past_it_is_refused_before_it_is_read(self) -> None:
        web = Web(WebSettings(max_data=10))
        exchange = Exchange(web, "127.0.0.1")
        exchange.send(b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n")
        self.assertEqual((exchange.response.status, exchange.response.code), (413, "too-large"))
        self.assertTrue(exchange.response.closed)

    def test_chunks_are_counted(self) -> None:
        web = Web(WebSettings(max_data=10))
        exchange = Exchange(web, "127.0.0.1")
        exchange.send(b"POST /f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(b"8\r\n01234567\r\n")
        self.assertEqual(exchange.response.status, 0)
        exchange.send(b"3\r\n012\r\n")
        self.assertEqual((exchange.response.status, exchange.response.code), (413, "too-large"))
        self.assertTrue(exchange.response.closed)


class ConnectionLimitTests(SynchronousTestCase):
    def test_at_the_limit_and_past_it(self) -> None:
        site = LimitedSite(Web().site)
        transports = []
        for _ in range(MAX_CONNECTIONS):
            protocol = site.buildProtocol(None)
            assert protocol is not None
            transport = StringTransport()
            protocol.makeConnection(transport)
            transports.append((protocol, transport))
        self.assertIsNone(site.buildProtocol(None))
        protocol, _ = transports.pop()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(site.buildProtocol(None))
        site.close()
        self.assertTrue(all(transport.disconnecting for _, transport in transports))
