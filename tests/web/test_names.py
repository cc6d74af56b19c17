"""Functions of any name, in all that the web side makes of names.

That are: the paths and the JSON of the interface for programs, its OpenAPI description, the documents and
patches of the dashboard, and the labels of metrics. What a browser makes of them is in test_browser.
"""

from __future__ import annotations

from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Response, Web
from tests.web.names import NAMES
from tests.web.test_jobs import events
from tests.web.test_metrics import ServerHealth, samples_of
from txgearman.server import Settings
from txgearman.web.metrics import function_label


class NamesTest(SynchronousTestCase):
    def setUp(self) -> None:
        settings = Settings(handle_prefix="H:t", metrics_functions=len(NAMES))
        self.web = Web(server=settings, health=ServerHealth())
        self.handles: dict[bytes, str] = {}

    def fill(self) -> None:
        """Give each function a job and a worker."""
        peer = Peer(self.web.gearman)
        self.web.gearman.connect(peer)
        for number, name in enumerate(NAMES, 1):
            peer.ask(req(18, name, b"", b"data of " + name), req(1, name))
            self.handles[name] = f"H:t:{number}"

    def ask(self, method: str, name: bytes, rest: str = "", body: bytes = b"", query: str = "") -> Response:
        """What is answered for a function: the same, whether its name is in the path or beside it."""
        named = f"?function={quote(name, safe='')}"
        beside = self.web.ask(method, f"/api/v1/function{rest}{named}{query and '&' + query}", body)
        if method == "GET":
            path = f"/api/v1/functions/{quote(name, safe='')}{rest}{query and '?' + query}"
            there = self.web.ask(method, path, body)
            # The second of the wall clock may change between the two.
            there.headers["date"] = beside.headers["date"]
            self.assertEqual(there, beside)
        return beside

    def test_json(self) -> None:
        self.fill()
        shown = self.web.get(f"/api/v1/functions?limit={len(NAMES)}").json()
        self.assertEqual(
            sorted(row["id"] for row in shown["functions"]), sorted(quote(n, safe="") for n in NAMES)
        )
        for name in NAMES:
            function = self.ask("GET", name).json()
            self.assertEqual(function["name"], name.decode("utf-8", "backslashreplace"))
            self.assertEqual((function["total"], function["workers"]), (1, 1))
            (job,) = self.ask("GET", name, "/jobs", query="limit=7").json()["jobs"]
            self.assertEqual(job["handle"], self.handles[name])
            # From the job back to its function.
            self.assertEqual(
                self.web.get(f"/api/v1/jobs/{job['handle']}").json()["function_id"], function["id"]
            )

    def test_changes(self) -> None:
        for name in NAMES:
            accepted = self.ask("POST", name, "/jobs", b"data", "background=true")
            self.assertEqual(accepted.status, 202, name)
            self.assertTrue(
                self.ask("PATCH", name, "", b'{"paused":true,"limits":{"low":3}}').json()["paused"]
            )
        for function in self.web.get(f"/api/v1/functions?limit={len(NAMES)}").json()["functions"]:
            self.assertEqual((function["paused"], function["limits"]["low"]), (True, 3), function)
        for name in NAMES:
            exchange = self.web.begin("DELETE", f"/api/v1/function/jobs?function={quote(name, safe='')}")
            while not exchange.response.status:
                self.web.gearman.turn()
            self.assertEqual(self.ask("DELETE", name).status, 204, name)
        self.assertEqual(self.web.inspection.function_count, 0)

    def test_the_name_is_said_once(self) -> None:
        for query in ("", "?function=a&function=b", "?name=a"):
            self.assertEqual(self.web.get(f"/api/v1/function{query}").status, 404, query)

    def test_documents_of_the_dashboard(self) -> None:
        exchange = self.web.begin("GET", "/api/v1/live?view=functions")
        self.fill()
        self.web.gearman.turn(1)
        patch = events(exchange)[-1][1]["patch"]
        names = sorted(quote(name, safe="") for name in NAMES)
        self.assertEqual((sorted(patch["rows"]), sorted(patch["order"])), (names, names))
        for name in NAMES:
            one = self.web.begin("GET", f"/api/v1/live?view=function&function={quote(name, safe='')}")
            self.assertEqual(events(one)[-1][1]["patch"]["function"]["id"], quote(name, safe=""))

    def test_metrics(self) -> None:
        self.fill()
        samples = samples_of(self.web.get("/metrics").body.decode())
        for name in NAMES:
            self.assertEqual(
                samples[
                    "txgearman_jobs_queued",
                    frozenset({("function", function_label(name)), ("priority", "normal")}),
                ],
                1,
                name,
            )

    def test_the_description_is_of_no_function(self) -> None:
        before = self.web.get("/api/v1/openapi.json").json()
        self.fill()
        self.assertEqual(self.web.get("/api/v1/openapi.json").json(), before)
        self.assertIn("/function,", before["info"]["description"])
