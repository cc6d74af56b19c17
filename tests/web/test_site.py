"""What every request passes: hosts, origins, limits, headers, paths and methods."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.web.asking import HERE, Exchange, Transport, Web
from txgearman.server import Settings
from txgearman.web import LimitedSite, WebSettings
from txgearman.web.http.body import PIECE, STALLED
from txgearman.web.http.channel import BODY_LIMIT, HEAD_LIMIT, SLOWEST
from txgearman.web.http.guard import SECURITY_HEADERS
from txgearman.web.http.site import IDLE_LIMIT, PATIENCE
from txgearman.web.http.stream import HEARTBEAT

SERVER = "/api/v1/server"
ELSEWHERE = "192.0.2.7"


class HeaderTests(SynchronousTestCase):
    def test_every_answer_has_the_security_headers(self) -> None:
        web = Web()
        for path in (SERVER, "/nothing/there", "/api/v2/server"):
            response = web.get(path)
            for name, value in SECURITY_HEADERS:
                self.assertEqual(response.headers[name.decode().lower()], value.decode())
            self.assertEqual(response.headers["cache-control"], "no-store")

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


class UnfinishedBodyTests(SynchronousTestCase):
    """Bodies that come slowly are counted together with packets that do."""

    HEAD = b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"

    def setUp(self) -> None:
        self.web = Web(server=Settings(max_packet=1024, max_unfinished_total=1))
        self.unfinished = self.web.gearman.server.unfinished

    def begin(self, size: int) -> Exchange:
        exchange = Exchange(self.web, "127.0.0.1")
        exchange.send(self.HEAD + bytes(size))
        return exchange

    def test_at_the_limit_and_one_past_it(self) -> None:
        first, second = self.begin(500), self.begin(524)
        self.assertEqual(self.unfinished.total, 1024)
        second.send(bytes(1))
        self.assertEqual((first.response.status, first.response.code), (503, "too-much-unfinished"))
        self.assertTrue(first.response.closed)
        self.assertFalse(second.response.closed)
        self.assertEqual((self.unfinished.total, self.unfinished.refused), (525, 1))

    def test_what_is_whole_or_gone_does_not_count(self) -> None:
        self.begin(500).leave()
        self.assertEqual(self.unfinished.total, 0)
        self.begin(500).send(bytes(400))
        self.assertEqual(self.unfinished.total, 0)
        self.assertEqual(self.web.broker.total, 1)

    def test_a_body_that_is_refused_does_not_count(self) -> None:
        web = Web(WebSettings(max_data=100))
        exchange = Exchange(web, "127.0.0.1")
        exchange.send(b"POST /f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(b"64\r\n" + bytes(100) + b"\r\n")
        self.assertEqual(web.gearman.server.unfinished.total, 100)
        exchange.send(b"1\r\n0\r\n")
        self.assertEqual((exchange.response.status, web.gearman.server.unfinished.total), (413, 0))


class ConnectionLimitTests(SynchronousTestCase):
    """HTTP connections have limits of their own."""

    def serve(self, **settings: Any) -> None:
        self.web = Web(server=Settings(**settings))
        self.site = LimitedSite(self.web.site)

    def connect(self, host: str = "192.0.2.1", tls: bool = False) -> Transport:
        transport = Transport(IPv4Address("TCP", HERE, 8080), IPv4Address("TCP", host, 50000))
        if tls:
            directlyProvides(transport, ISSLTransport)
        transport.protocol = self.site.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        return transport

    def test_at_the_limit_and_past_it(self) -> None:
        self.serve(web_max_connections=3)
        there = [self.connect() for _ in range(3)]
        refused = self.connect()
        self.assertIn(b"503 Service Unavailable", refused.value())
        self.assertIn(b'"code":"too-many-connections"', refused.value())
        self.assertFalse(refused.connected)
        there.pop().end()
        self.assertTrue(self.connect().connected)
        self.assertFalse(self.connect().connected)
        self.assertEqual(self.web.gearman.server.web_admission.refused, 2)
        self.site.close()
        self.assertFalse(any(transport.connected for transport in there))

    def test_of_one_address(self) -> None:
        self.serve(web_max_connections_per_address=2)
        self.assertTrue(all(self.connect().connected for _ in range(2)))
        refused = self.connect()
        self.assertIn(b"2 connections of this address", refused.value())
        self.assertFalse(refused.connected)
        self.assertTrue(self.connect("192.0.2.2").connected)

    def test_over_tls_it_is_only_closed(self) -> None:
        self.serve(web_max_connections=1)
        self.connect()
        refused = self.connect(tls=True)
        self.assertEqual((refused.value(), refused.connected), (b"", False))

    def test_who_is_owed_no_answer_makes_room_the_oldest_first(self) -> None:
        self.serve(web_max_connections=3)
        waits, begun, silent = (self.connect() for _ in range(3))
        waits.protocol.dataReceived(b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        begun.protocol.dataReceived(b"POST /f HTTP/1.1\r\nHost: loc")
        self.assertFalse(self.connect().connected)
        self.web.gearman.turn(PATIENCE)
        self.assertTrue(self.connect().connected)
        self.assertEqual((begun.connected, silent.connected), (False, True))
        self.assertTrue(self.connect().connected)
        self.assertFalse(silent.connected)
        self.assertFalse(self.connect().connected)
        self.assertTrue(waits.connected)

    def test_who_has_made_room_is_not_late_too(self) -> None:
        self.serve(web_max_connections=1)
        self.connect().protocol.dataReceived(b"POST /f HTTP/1.1\r\nHost: loc")
        self.web.gearman.turn(PATIENCE)
        self.connect().protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with capturedLogs() as events:
            self.web.gearman.turn(HEAD_LIMIT)
        self.assertEqual(events, [])

    def test_they_do_not_count_among_those_of_the_gearman_protocol(self) -> None:
        self.serve(max_connections=1)
        self.connect()
        client = self.web.gearman.client()
        self.assertEqual(self.web.gearman.wait(client.echo(b"x")), b"x")

    def test_they_are_among_the_limits_that_are_shown(self) -> None:
        self.serve(web="8080", web_max_connections=3)
        self.connect()
        shown = {limit.name: limit for limit in self.web.gearman.server.limits()}
        self.assertEqual((shown["web-max-connections"].limit, shown["web-max-connections"].used), (3, 1))
        self.assertEqual(shown["web-max-connections-per-address"].used, 1)


class ArrivalTests(SynchronousTestCase):
    """Requests have to arrive in time, however the bytes are spread."""

    START = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    POST = b"POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"

    def setUp(self) -> None:
        self.web = Web(server=Settings(web="8080"))
        self.exchange = Exchange(self.web, "127.0.0.1")

    def trickle(self, piece: bytes, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.exchange.send(piece)
            self.web.gearman.turn(1)

    def assert_too_slow(self) -> None:
        self.assertEqual((self.exchange.response.status, self.exchange.response.code), (408, "too-slow"))
        self.assertTrue(self.exchange.response.closed)

    def test_a_head_byte_by_byte(self) -> None:
        with capturedLogs() as events:
            self.exchange.send(self.START + b"X: ")
            self.trickle(b"x", HEAD_LIMIT - 1)
            self.assertFalse(self.exchange.response.closed)
            self.trickle(b"x", 1)
        self.assert_too_slow()
        self.assertEqual(len(events), 1)
        self.assertIn("did not arrive in time", events[0]["log_format"])

    def test_a_head_in_time(self) -> None:
        self.exchange.send(self.START)
        self.web.gearman.turn(HEAD_LIMIT - 1)
        self.exchange.send(b"\r\n")
        self.web.gearman.turn(2)
        self.assertEqual(self.exchange.response.status, 404)
        self.assertFalse(self.exchange.response.closed)

    def test_nothing_at_all(self) -> None:
        self.web.gearman.turn(HEAD_LIMIT)
        self.assert_too_slow()

    def test_between_requests_a_connection_may_be_silent_for_longer(self) -> None:
        self.exchange.send(self.START + b"\r\n")
        self.web.gearman.turn(IDLE_LIMIT - 1)
        self.assertFalse(self.exchange.response.closed)
        with capturedLogs() as events:
            self.web.gearman.turn(1)
        self.assertTrue(self.exchange.response.closed)
        self.assertEqual(events, [])

    def test_the_head_of_a_second_request(self) -> None:
        self.exchange.send(self.START + b"\r\n")
        self.web.gearman.turn(HEAD_LIMIT)
        self.exchange.transport.clear()
        self.exchange.send(self.START)
        self.trickle(b"x", HEAD_LIMIT)
        self.assert_too_slow()

    def test_the_head_of_a_second_request_that_began_ahead_of_the_first_answer(self) -> None:
        self.exchange.send(self.POST.replace(b"60000", b"0") + self.START)
        self.web.gearman.turn(HEAD_LIMIT * 2)
        self.assertFalse(self.exchange.response.closed)
        (handle,) = [view.handle for view in self.web.inspection.jobs()]
        self.web.broker.cancel(handle)
        self.web.gearman.turn()
        self.assertEqual(self.exchange.response.status, 502)
        self.exchange.transport.clear()
        self.web.gearman.turn(HEAD_LIMIT)
        self.assert_too_slow()

    def test_a_body_that_stops(self) -> None:
        self.exchange.send(self.POST + bytes(SLOWEST * 5))
        self.web.gearman.turn(BODY_LIMIT + 4)
        self.assertFalse(self.exchange.response.closed)
        self.web.gearman.turn(1)
        self.assert_too_slow()

    def test_a_body_that_comes_slowly_but_surely(self) -> None:
        self.exchange.send(self.POST)
        self.trickle(bytes(SLOWEST), 60000 / SLOWEST)
        self.assertFalse(self.exchange.response.closed)
        self.assertEqual(self.web.broker.total, 1)

    def test_who_waits_for_an_answer_may_wait(self) -> None:
        self.exchange.send(self.POST + bytes(60000))
        self.web.gearman.turn(86400)
        self.assertFalse(self.exchange.response.closed)


class EndingTests(SynchronousTestCase):
    """A connection that is to end does, also where the peer does nothing for it."""

    ASK = b"GET /healthz HTTP/1.%d\r\nHost: localhost\r\n%b\r\n"
    TOO_LARGE = (
        b"POST /f HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"b\r\n01234567890\r\n0\r\n\r\n"
    )

    def setUp(self) -> None:
        self.web = Web(WebSettings(max_data=10))
        self.exchange = Exchange(self.web, "127.0.0.1")
        self.exchange.transport.lingers = True

    def assert_ends(self) -> None:
        self.assertTrue(self.exchange.response.status)
        self.assertTrue(self.exchange.transport.disconnecting)
        # Whatever else may come.
        self.exchange.send(self.ASK % (1, b"") * 2 + self.TOO_LARGE)
        self.web.gearman.turn(STALLED - 1)
        self.assertTrue(self.exchange.transport.connected)
        self.web.gearman.turn(1)
        self.assertFalse(self.exchange.transport.connected)

    def test_behind_the_last_answer(self) -> None:
        self.exchange.send(self.ASK % (1, b"Connection: close\r\n"))
        self.assert_ends()

    def test_behind_an_answer_to_an_old_client(self) -> None:
        self.exchange.send(self.ASK % (0, b""))
        self.assert_ends()

    def test_behind_a_bad_request(self) -> None:
        self.exchange.send(b"GET\r\n\r\n")
        self.assert_ends()

    def test_behind_a_body_that_is_too_large_and_whole(self) -> None:
        self.exchange.send(self.TOO_LARGE)
        self.assert_ends()

    def test_behind_a_time_limit(self) -> None:
        self.exchange.send(self.ASK % (1, b""))
        self.web.gearman.turn(IDLE_LIMIT)
        self.assert_ends()

    def test_nobody_is_told_to_go_on_who_is_refused(self) -> None:
        expecting = b"Expect: 100-continue\r\nContent-Length: %d\r\n"
        self.exchange.send(self.ASK.replace(b"GET", b"POST") % (1, expecting % 11))
        self.assertEqual(self.exchange.response.status, 413)
        self.assertNotIn(b"100 Continue", self.exchange.transport.value())
        other = Exchange(self.web, "127.0.0.1")
        other.send(self.ASK.replace(b"GET", b"POST") % (1, expecting % 10))
        self.assertEqual(other.response.status, 100)


class SlowReaderTests(SynchronousTestCase):
    """Large answers are handed over as they are taken, and nobody may stop to take them."""

    DATA = b"x" * (10 * PIECE)

    def setUp(self) -> None:
        self.web = Web(server=Settings(web="8080", handle_prefix="H:t"))
        self.web.ask("POST", "/api/v1/functions/f/jobs?background=true", self.DATA)
        self.exchange = Exchange(self.web, "127.0.0.1")
        self.transport = self.exchange.transport
        self.transport.pauses = True
        self.exchange.send(b"GET /api/v1/jobs/H:t:1/data HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def test_little_is_kept_for_a_reader(self) -> None:
        sizes = []
        taken = b""
        while len(taken) < len(self.DATA):
            sizes.append(len(self.transport.value()))
            taken += self.transport.value()
            self.transport.clear()
            self.transport.resume()
        self.assertLess(max(sizes), 2 * PIECE)
        self.assertTrue(taken.endswith(b"\r\n\r\n" + self.DATA))
        self.exchange.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(self.exchange.response.status, 404)

    def test_one_that_takes_some_now_and_then(self) -> None:
        for _ in range(8):
            self.web.gearman.turn(STALLED - 1)
            self.transport.resume()
        self.assertTrue(self.transport.connected)

    def test_one_that_takes_nothing(self) -> None:
        self.web.gearman.turn(STALLED - 1)
        self.assertTrue(self.transport.connected)
        self.web.gearman.turn(1)
        self.assertFalse(self.transport.connected)

    def test_one_that_goes(self) -> None:
        producer: Any = self.transport.producer
        self.exchange.leave()
        # A transport may still ask for more.
        producer.resumeProducing()
        self.web.gearman.turn(STALLED)


class StalledStreamTests(SynchronousTestCase):
    def test_a_reader_of_events_that_takes_nothing(self) -> None:
        web = Web(server=Settings(web="8080"))
        exchange = web.begin("GET", "/api/v1/live?view=overview")
        stream = next(iter(web.site.resource.children[b"api"]._live._viewers)).stream
        stream.pauseProducing()
        for _ in range(3):
            web.gearman.turn(HEARTBEAT)
            stream.pauseProducing()
        self.assertFalse(exchange.response.closed)
        stream.resumeProducing()
        stream.pauseProducing()
        for _ in range(3):
            web.gearman.turn(HEARTBEAT)
        self.assertFalse(exchange.response.closed)
        for _ in range(2):
            web.gearman.turn(HEARTBEAT)
        self.assertTrue(exchange.response.closed)
