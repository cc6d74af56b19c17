"""Who did what over HTTP, and the list of what was done."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Response, Web
from txgearman.access.actor import Actor
from txgearman.server import Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.web import WebSettings
from txgearman.web.http.guard import WebRight
from txgearman.web.http.routing import Route

API = "/api/v1"
TOKEN = "0123456789abcdef"
SCHEDULE = b'{"function":"f","every":60}'

REQUESTS: tuple[tuple[str, str, bytes, tuple[str, str, str, int | None]], ...] = (
    ("PATCH", "/functions/f", b'{"paused":true}', ("change function", "f", '{"paused":true}', None)),
    ("DELETE", "/jobs/H:t:1?force=true", b"", ("cancel job", "H:t:1", "force True", 1)),
    ("POST", "/jobs/H:t:2/retry", b"", ("retry job", "H:t:2", "", 1)),
    ("DELETE", "/functions/f/jobs", b"", ("cancel jobs", "f", "", 3)),
    ("DELETE", "/functions/f", b"", ("drop function", "f", "", None)),
    ("POST", "/functions/f/dead/retry?search=x", b"", ("retry dead", "f", "search x", 0)),
    ("DELETE", "/functions/f/dead", b"", ("forget dead", "f", "", 0)),
    ("POST", "/dead/retry?function=f&per_second=9", b"", ("retry dead", "", "function f, per_second 9", 0)),
    ("DELETE", "/dead", b"", ("forget dead", "", "", 0)),
    ("PUT", "/schedules/s", SCHEDULE, ("create schedule", "s", SCHEDULE.decode(), None)),
    ("PATCH", "/schedules/s", b'{"paused":true}', ("change schedule", "s", '{"paused":true}', None)),
    ("POST", "/schedules/s/run", b"", ("run schedule", "s", "", 1)),
    ("DELETE", "/schedules/s", b"", ("drop schedule", "s", "", None)),
    ("PATCH", "/connections/1", b'{"quiet":true}', ("change connection", "1", '{"quiet":true}', None)),
)
"""Requests that change something, in an order in which all do, and what is remembered of each."""


class ActivityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, settings: WebSettings | None = None) -> None:
        functions = {"f": FunctionSettings(attempts=2, backoff=10, jitter=0)}
        server = Settings(handle_prefix="H:t", functions=functions, allow_unsaved_schedules=True)
        self.web = Web(settings, server)
        self.client, self.worker = Peer(self.web.gearman), Peer(self.web.gearman)
        for peer in (self.client, self.worker):
            self.web.gearman.connect(peer)

    def ask(self, method: str, path: str, body: bytes = b"", **how: Any) -> Response:
        return self.web.ask(method, API + path, body, **how)

    def events(self, query: str = "") -> list[dict[str, Any]]:
        found = self.ask("GET", f"/activity{query}").json()["events"]
        assert isinstance(found, list)
        return found

    def routes(self) -> tuple[Route, ...]:
        routes: tuple[Route, ...] = self.web.site.resource.children[b"api"].routes
        return routes

    def test_every_route_that_changes_something(self) -> None:
        self.client.ask(*[req(18, b"f", b"", b"x")] * 4)
        self.worker.ask(req(1, b"f"))
        self.assertIn(b"H:t:1", self.worker.ask(req(9)))
        self.assertIn(b"H:t:2", self.worker.ask(req(9)))
        self.worker.ask(req(14, b"H:t:2"))
        for method, path, body, expected in REQUESTS:
            if path.endswith("/functions/f") and method == "DELETE":
                self.worker.ask(req(3))
            with capturedLogs() as logs:
                exchange = self.web.begin(method, API + path, body)
                self.web.gearman.turn(1)
            self.assertIn(exchange.response.status, (200, 202, 204), (path, exchange.response))
            newest = self.events()[0]
            self.assertEqual(tuple(newest[name] for name in ("action", "target", "detail", "jobs")), expected)
            self.assertEqual((newest["via"], newest["actor"]["address"]), ("http", "127.0.0.1"))
            lines = [
                line for line in map(formatEvent, logs) if line.startswith("Action over http by 127.0.0.1")
            ]
            self.assertEqual(len(lines), 1, lines)
        self.assertEqual(len(self.events("?limit=500")), len(REQUESTS))
        shown = {(method, expected[0]) for method, _, _, expected in REQUESTS}
        self.assertEqual(shown, {(route.method, route.action) for route in self.routes() if route.action})

    def test_a_route_without_a_name_for_its_action_cannot_be(self) -> None:
        for right in (WebRight.MANAGE, WebRight.SCHEDULE):
            with self.assertRaisesRegex(ValueError, "POST /x needs a name"):
                Route("POST", "/x", right, lambda call: None, "", {204: ""})

    def test_what_is_refused_is_no_action(self) -> None:
        for method, path, body in (
            ("DELETE", "/jobs/H:t:9", b""),
            ("PATCH", "/functions/none", b'{"paused":true}'),
            ("PUT", "/schedules/s", b"{}"),
            ("POST", "/schedules/s/preview", SCHEDULE),
        ):
            self.ask(method, path, body)
        self.assertEqual(self.events(), [])

    def test_whoever_leaves_halfway(self) -> None:
        self.client.ask(*[req(18, b"f", b"", b"x")] * 30)
        self.worker.ask(req(1, b"f"))
        for number in range(1, 31):
            self.worker.ask(req(9), req(14, b"H:t:%d" % number))
            self.client.ask(b"kill job H:t:%d\n" % number)
        exchange = self.web.begin("POST", f"{API}/dead/retry?per_second=10")
        self.web.gearman.turn(1)
        exchange.leave()
        newest = self.events()[0]
        self.assertEqual(
            (newest["action"], newest["detail"]), ("retry dead", "per_second 10, not to its end")
        )
        self.assertTrue(0 < newest["jobs"] < 30, newest)

    def test_the_token(self) -> None:
        self.serve(WebSettings(token=TOKEN.encode()))
        self.ask("PUT", "/schedules/s", SCHEDULE, headers={"Authorization": f"Bearer {TOKEN}"})
        self.assertTrue(self.events()[0]["actor"]["web_token"])

    def test_pages_and_searches(self) -> None:
        activity = self.web.gearman.server.activity
        for number in range(1, 6):
            activity.acted(Actor("192.0.2.7"), "admin", "drop function", b"f/%d" % number)
            activity.happened("start")
        page = self.ask("GET", "/activity?by=people&limit=2").json()
        self.assertEqual([event["number"] for event in page["events"]], [9, 7])
        self.assertEqual((page["total"], page["next"]), (5, 7))
        page = self.ask("GET", "/activity?by=people&limit=3&before=7").json()
        self.assertEqual([event["target"] for event in page["events"]], ["f/3", "f/2", "f/1"])
        self.assertEqual((page["next"], page["events"][0]["target_id"]), (None, "f%2F3"))
        self.assertEqual([event["actor"] for event in self.events("?by=server&limit=1")], [None])
        self.assertEqual([event["number"] for event in self.events("?search=F/4")], [7])
        self.assertEqual(len(self.events("?search=192.0.2.7")), 5)
        activity.acted(Actor("192.0.2.7"), "admin", "drop function", "Bär".encode())
        self.assertEqual([event["number"] for event in self.events("?search=B%C3%84R")], [11])

    def test_live(self) -> None:
        exchange = self.web.begin("GET", f"{API}/live?view=activity")
        self.web.gearman.server.activity.happened("start")
        self.web.gearman.turn(1)
        patches = [
            json.loads(line[6:])["patch"]
            for line in exchange.response.body.decode().splitlines()
            if line.startswith("data: {") and '"patch"' in line
        ]
        self.assertEqual(patches, [{"last": 0}, {"last": 1}])
        exchange.leave()
