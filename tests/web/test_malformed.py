"""What a peer sends over HTTP is caught where it is parsed: no traceback, no flood of the log.

The places where bytes of a peer are parsed: the request line, headers and bodies (`web.http.channel`,
`web.http.request`), paths, parameters and JSON (`web.http.routes`, `web.api.job_search`), who sends it
(`web.http.guard`, `identity`), what a browser has already (`web.dashboard.files`), and the format of metrics
(`web.metrics`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Exchange, Web
from tests.web.test_metrics import ServerHealth
from tests.web.test_stored import StoredCase
from txgearman.access.patterns import MAX_SHOWN
from txgearman.access.policy import AccessPolicy, Right, Rule
from txgearman.server import Settings
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.web import WebSettings
from txgearman.web.http.routing import MAX_JSON

CASES = 20_000
"""Requests that are made up: about two seconds."""

LONGEST_LINE = 1000
"""Characters that a line of the log has at most, whatever a peer sends."""

STATUSES = frozenset(
    {200, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 421, 429, 501, 502, 503}
)
"""What docs/http.rst says may be answered, where no job is waited for."""

FUNCTION = b"f\xff/\n"
SERVED = ("/", "/static/app.js", "/healthz", "/readyz", "/metrics", "/api/v1/openapi.json")
READ_ONLY = (*SERVED, "/nothing", "/api", "/static", "/api/v1/nothing", "/f", "/*", "//", "/%")
SAMPLES = {"{function}": "f%FF%2F%0A", "{handle}": "H:t:1", "{number}": "1", "{schedule}": "s"}


class Wire:
    """A request and its answer, byte by byte as they are on the wire."""

    def __init__(self, web: Web, data: bytes, method: str = "GET") -> None:
        self.exchange = Exchange(web, "127.0.0.1")
        self.exchange.send(data)
        self.raw = self.exchange.transport.value()
        self.status = 0
        if self.raw:
            with HTTPResponse(_Socket(self.raw), method=method) as answer:  # type: ignore[arg-type]
                answer.begin()
            self.status = answer.status
            self.headers = {name.lower(): value for name, value in answer.getheaders() if name != "Date"}
            self.rest = self.raw.partition(b"\r\n\r\n")[2]


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)

    def makefile(self, _mode: str) -> BytesIO:
        return self._file


def served(**settings: Any) -> Web:
    """A server with a worker, a job that runs and one that waits."""
    schedules = {"s": ScheduleSettings(function="f", every=3600.0)}
    server = Settings(handle_prefix="H:t", schedules=schedules, **settings)
    web = Web(WebSettings(max_data=100_000), server, ServerHealth())
    peer = Peer(web.gearman)
    web.gearman.connect(peer)
    peer.ask(req(18, FUNCTION, b"u", b"data"), req(18, FUNCTION, b"v", b"data"), req(1, FUNCTION), req(9))
    return web


def readable(web: Web) -> list[str]:
    """The paths of everything that GET is for."""
    paths = list(SERVED)
    for route in web.site.resource.children[b"api"].routes:
        if route.method == "GET":
            path = f"/api/v1{route.path}"
            for name, sample in SAMPLES.items():
                path = path.replace(name, sample)
            paths.append(path)
    return paths


class QuietCase(SynchronousTestCase):
    @contextmanager
    def quiet(self, *, lines: int = 0, what: object = "") -> Iterator[None]:
        """Nothing is logged but so many lines, none of them an error or longer than it may be."""
        with capturedLogs() as events:
            yield
        texts = [formatEvent(event) for event in events]
        self.assertLessEqual(len(events), lines, f"{what}: {texts}")
        for event, text in zip(events, texts, strict=True):
            self.assertLess(event["log_level"], LogLevel.error, f"{what}: {text}")
            self.assertLessEqual(len(text), LONGEST_LINE, what)


class HeadTests(QuietCase):
    """HEAD is answered as GET is, without the body (RFC 9110, 9.3.2), and is worth no line of the log."""

    def both(self, web: Web, path: str, headers: bytes = b"") -> tuple[Wire, Wire]:
        rest = path.encode("latin-1") + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n"
        with self.quiet(what=path):
            get = Wire(web, b"GET " + rest)
            head = Wire(web, b"HEAD " + rest, "HEAD")
        self.assertEqual(head.status, get.status, path)
        self.assertEqual(head.rest, b"", path)
        # The length of what changes from one request to the next may change, too.
        expected = {k: v for k, v in get.headers.items() if k not in ("transfer-encoding", "content-length")}
        self.assertEqual({k: v for k, v in head.headers.items() if k != "content-length"}, expected, path)
        self.assertEqual("content-length" in head.headers, "content-length" in get.headers, path)
        return get, head

    def test_everything_that_can_be_read(self) -> None:
        web = served()
        for path in readable(web):
            get, _head = self.both(web, path)
            # The job that there is has no result yet.
            self.assertEqual(get.status, 202 if path.endswith("/result") else 200, path)

    def test_what_is_not_there(self) -> None:
        web = served()
        for path in (
            "/nothing", "/api", "/static/nothing", "/?\x8c", "/\x8c", "/api/v1/jobs/H:t:99",
            "/api/v1/jobs/H:t:99/events", "/api/v1/functions?after=x",
        ):  # fmt: skip
            self.both(web, path)

    def test_what_is_known_already(self) -> None:
        web = served()
        tag = Wire(web, b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n").headers["etag"].encode()
        get, _head = self.both(web, "/static/app.js", b"If-None-Match: " + tag + b"\r\n")
        self.assertEqual(get.status, 304)

    def test_the_connection_goes_on(self) -> None:
        web = served()
        exchange = Exchange(web, "127.0.0.1")
        for path in readable(web):
            exchange.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        found = re.findall(rb"HTTP/1\.1 (?:200 OK|202 Accepted)\r\n", exchange.transport.value())
        self.assertEqual(len(found), len(readable(web)))
        self.assertTrue(exchange.transport.connected)

    def test_where_only_changes_are_made(self) -> None:
        web = served(access=AccessPolicy((Rule("all", admin=frozenset({Right.MANAGE})),)))
        with self.quiet():
            self.assertEqual(web.ask("HEAD", "/api/v1/server").status, 401, "as GET is")


class RequestTests(QuietCase):
    def setUp(self) -> None:
        self.web = served()

    def answer(self, line: bytes, headers: bytes = b"Host: localhost\r\n", body: bytes = b"") -> Wire:
        with self.quiet(what=(line, headers[:100])):
            return Wire(self.web, line + b" HTTP/1.1\r\n" + headers + b"\r\n" + body)

    def test_lengths_that_are_none(self) -> None:
        for length in (b"9" * 5000, b"9" * 21, b"-1", b"+1", b"1_0", b"", b"\xb2", b"1, 1", b"0x10"):
            answer = self.answer(b"POST /f", b"Host: localhost\r\nContent-Length: " + length + b"\r\n")
            self.assertEqual(answer.status, 400, length[:40])
            self.assertFalse(answer.exchange.transport.connected)

    def test_chunks_that_are_none(self) -> None:
        for body in (b"x\r\n", b"-1\r\n", b"\r\n\r\n", b"1\r\nab\r\n", b"1;\x00\r\na\r\n", b"f" * 2000):
            answer = self.answer(b"POST /f", b"Host: localhost\r\nTransfer-Encoding: chunked\r\n", body)
            self.assertEqual(answer.status, 400, body[:40])
        too_large = self.answer(
            b"POST /f",
            b"Host: localhost\r\nTransfer-Encoding: chunked\r\n",
            b"f" * 1000 + b"\r\n" + bytes(200_000),
        )
        self.assertEqual(too_large.status, 413)

    def test_hosts(self) -> None:
        for host in (
            b"[",
            b"[::1",
            b"]",
            b"[x]",
            b"localhost:x",
            b"\xff",
            b"a\xc2\xb2",
            b"@",
            b"",
            b"1" * 9000,
        ):
            answer = self.answer(b"GET /api/v1/server", b"Host: " + host + b"\r\n")
            self.assertIn(answer.status, (200, 421), host[:40])

    def test_numbers(self) -> None:
        for number in (
            "18446744073709551616", "9223372036854775808", "-1", "1e3", "0x1", "%D9%A3", "1" * 9000, "%FF",
            "", "1%00", "NaN",
        ):  # fmt: skip
            for path in (
                "functions?after=", "functions?limit=", "connections?after=", "functions/f/jobs?after=",
                "functions/f%FF%2F%0A/jobs?after=", "jobs/H:t:1/data?offset=", "live?after=",
                "jobs/H:t:1/data?length=", "functions/f/jobs?limit=",
            ):  # fmt: skip
                status = self.answer(f"GET /api/v1/{path}{number}".encode()).status
                self.assertEqual(status, 400, path + number[:40])
            self.assertEqual(
                self.answer(f"GET /api/v1/connections/{number}".encode()).status, 404, number[:40]
            )
            self.assertEqual(self.answer(f"GET /api/v1/jobs/H:t:{number}".encode()).status, 404, number[:40])
            for parameter in (
                "run_at", "timeout", "background", "priority", "expires", "attempts", "backoff",
                "keep_result", "unique_for",
            ):  # fmt: skip
                header = f"Host: localhost\r\nX-Gearman-{parameter.replace('_', '-')}: {number}\r\n"
                if "%" not in number and number:
                    self.assertEqual(self.answer(b"POST /f", header.encode()).status, 400, header[:80])

    def test_a_long_name_is_not_sent_back(self) -> None:
        answer = self.web.get("/api/v1/server?" + "x" * 9000 + "=1")
        self.assertEqual((answer.status, answer.code), (400, "unknown-parameter"))
        self.assertLess(len(answer.body), 200 + 4 * MAX_SHOWN)

    def test_json_is_as_long_as_it_needs_to_be(self) -> None:
        path = "/api/v1/functions/f%FF%2F%0A"
        at_limit = b'{"paused":true}'.ljust(MAX_JSON)
        self.assertEqual(self.web.ask("PATCH", path, at_limit).status, 200)
        past_it = self.web.ask("PATCH", path, at_limit + b" ")
        self.assertEqual((past_it.status, past_it.code), (413, "too-large"))

    def test_formats_of_metrics(self) -> None:
        for accept in (
            b"application/openmetrics-text; version=x", b"text/plain;version=1..;escaping=\xff",
            b"application/openmetrics-text;version=" + b"9" * 5000, b";;;,,,", b"\xff",
        ):  # fmt: skip
            headers = b"Host: localhost\r\nAccept: " + accept + b"\r\nAccept-Encoding: gzip;q=x, \xff\r\n"
            for path in (b"/metrics", b"/metrics?name[]=%FF", b"/metrics?\x8c;x", b"/metrics/favicon.ico"):
                self.assertEqual(self.answer(b"GET " + path, headers).status, 200, accept[:60])


class StoredPlaceTests(StoredCase):
    def test_places_that_no_database_knows(self) -> None:
        """A number of more than 64 bits never reaches the store."""
        for number in ("9999999999999999999", str(2**63)):
            for place in (number, f"stored-1-{number}"):
                with capturedLogs() as events:
                    response = self.web.get(f"/api/v1/functions/f/jobs?after={place}")
                self.assertEqual((response.status, response.code, events), (400, "bad-parameter", []), place)
        last = self.ask("GET", f"/api/v1/functions/f/jobs?after=stored-1-{2**63 - 1}")
        self.assertEqual((last.status, last.json()["jobs"]), (200, []))

    def test_handles_that_no_database_knows(self) -> None:
        for number in ("9" * 5000, str(2**63), str(2**64), "-1", "1_0", "%D9%A3", ""):
            for path in ("", "/data", "/events"):
                with capturedLogs() as events:
                    status = self.ask("GET", f"/api/v1/jobs/H:t:{number}{path}").status
                self.assertEqual((status, events), (404, []), number[:40])


class MadeUpTests(QuietCase):
    """Requests made up by a seeded generator, of parts that are right and parts that are not."""

    METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE")
    ODD_METHODS = (b"OPTIONS", b"PRI", b"get", b"T!", b"G\x80T")
    ODD = (
        b"", b"%", b"%zz", b"%00", b"%FF", b"\x8c", b"\xb0", b"..", b"%2e%2E", b"*", b"/" * 3000,
        b"__proto__", b"+", b"18446744073709551616", b"-1", b"9" * 5000, b"%0d%0aX:%20y", b"{function}",
        b"%D9%A3", b"a" * 600, b"[", b";", b"%25", b"true", b"stored-1-9999999999999999999", b"null", b"#",
        b"?",
    )  # fmt: skip
    HEADERS = (
        b"Host", b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Expect", b"Connection",
        b"Authorization", b"Origin", b"Sec-Fetch-Site", b"If-None-Match", b"If-Modified-Since", b"Accept",
        b"Accept-Encoding", b"Cookie", b"Range", b"X-Gearman-Unique", b"X-Gearman-Priority", b"Upgrade",
        b"X-Gearman-Run-At", b"X-Gearman-Timeout", b"X-Gearman-Background", b"X Y", b"\xff", b"",
    )  # fmt: skip
    VALUES = (
        *ODD, b"\xff\xfe", b"chunked", b"identity", b"100-continue", b"close", b"Bearer \xff", b"http://[",
        b"5", b"gzip;q=\xff", b"text/event-stream", b"application/openmetrics-text; version=x", b"\x01",
        b'W/"x", *', b"multipart/form-data; boundary=", b"bytes=0-", b"Sat, 99 Foo 2999", b"a\r\n b",
    )  # fmt: skip
    BODIES = (
        b"", b"5", b"{", b"[" * 5000, b'{"paused":1}', b'{"limits":{"high":1e999}}', b"\xff\xfe{", b"null",
        b'{"limits":{"\\ud800":null}}', b'{"quiet":"x"}', b'{"limits":[]}', b"9" * 5000,
        b"2\r\nab\r\n0\r\n\r\n", b'{"limits":{"low":NaN}}', b'{"__proto__":{}}',
        b'{"paused":true,"paused":false}',
    )  # fmt: skip

    def request(self, chance: random.Random, paths: list[str]) -> bytes:
        path = chance.choice(paths).encode()
        for _ in range(chance.choice((0, 0, 1, 2))):
            parts = path.split(b"/")
            parts[chance.randrange(len(parts))] = chance.choice(self.ODD)
            path = b"/".join(parts)
        names = [*self.names, *self.ODD]
        query = [
            chance.choice(names) + chance.choice((b"=", b"==", b"")) + chance.choice(self.VALUES)
            for _ in range(chance.choice((0, 0, 0, 0, 1, 3)))
        ]
        target = path + (b"?" + chance.choice((b"&", b";")).join(query) if query else b"")
        version = chance.choice((*(b"HTTP/1.1",) * 50, b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b""))
        body = chance.choice(self.BODIES)
        lines = [chance.choice((*self.METHODS * 9, *self.ODD_METHODS)) + b" " + target + b" " + version]
        lines += [b"Host: localhost"] * (chance.random() < 0.9)
        lines += [b"Content-Length: %d" % len(body)] * (chance.random() < 0.8)
        lines += [b"X-Gearman-Background: true"] * (chance.random() < 0.7)
        for _ in range(chance.choice((0, 0, 0, 1, 3))):
            lines.append(
                chance.choice(self.HEADERS)
                + chance.choice((b": ", b":", b"", b" : "))
                + chance.choice(self.VALUES)
            )
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def test_no_request_is_a_fault_of_the_server(self) -> None:
        web = served()
        routes = web.site.resource.children[b"api"].routes
        self.names = sorted({parameter.name.encode() for route in routes for parameter in route.parameters})
        paths = [*readable(web), *READ_ONLY]
        chance = random.Random(2)
        seen: Counter[int] = Counter()
        for number in range(CASES):
            data = self.request(chance, paths)
            # Whole, or in two pieces.
            cut = chance.choice((len(data), chance.randrange(len(data))))
            with self.quiet(lines=1, what=(number, data[:300])):
                exchange = Exchange(web, "127.0.0.1")
                exchange.send(data[:cut])
                if cut < len(data) and exchange.transport.connected:
                    exchange.send(data[cut:])
                # To cancel all jobs of a function takes some turns.
                for _ in range(4):
                    web.gearman.turn()
                raw = exchange.transport.value()
                for answer in (b"\r\n" + raw).split(b"\r\nHTTP/1.1 ")[1:] or [b""]:
                    if answer and not answer.startswith(b"100 "):
                        seen[int(answer[:3])] += 1
                        self.assertIn(int(answer[:3]), STATUSES, (number, data[:300]))
                exchange.leave()
        # It is not that all were turned away at the first letter.
        for status in (200, 202, 204, 400, 404, 405, 421):
            self.assertGreater(seen[status], 10, seen)
