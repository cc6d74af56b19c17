"""Failed jobs over HTTP, many at a time: actions on all that are found, lists, counts, live documents."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, req
from tests.web.asking import Response, Web
from txgearman.broker.dead_job import MAX_ERROR
from txgearman.broker.failures import MAX_RUNS
from txgearman.server import Settings
from txgearman.web.api import dead_jobs

API = "/api/v1"


class FailureCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.web = Web(server=Settings(handle_prefix="H:t", **settings))
        self.client, self.worker = self.peer(), self.peer()

    def peer(self) -> Peer:
        peer = Peer(self.web.gearman)
        self.web.gearman.connect(peer)
        return peer

    def submit(self, *functions: bytes, unique: bytes = b"", data: bytes = b"data") -> None:
        self.client.ask(*[req(18, function, unique, data) for function in functions])
        self.worker.ask(*[req(1, function) for function in functions])

    def fail(self, *numbers: int, error: bytes = b"it broke\nat line 7") -> None:
        """Let the worker get all jobs that there are, and these fail."""
        self.worker.ask(*[req(9)] * 10)
        self.worker.ask(*[req(25, b"H:t:%d" % number, error) for number in numbers])

    def ask(self, method: str, path: str) -> Response:
        return self.web.ask(method, API + path)

    def handles(self, path: str) -> tuple[list[str], Any]:
        page = self.ask("GET", path).json()
        return [job["handle"].removeprefix("H:t:") for job in page["jobs"]], page["next"]

    def job(self, number: int) -> Any:
        return self.ask("GET", f"/jobs/H:t:{number}").json()


class AllFoundTests(FailureCase):
    def test_those_that_cannot_be_retried_are_skipped(self) -> None:
        self.submit(b"f", unique=b"u")
        self.fail(1)
        self.submit(b"f", unique=b"u")
        self.assertEqual(self.ask("POST", "/dead/retry").json(), {"retried": 0, "skipped": 1})
        self.assertEqual(self.handles("/dead")[0], ["1"])

    def test_all_of_a_function_and_all_that_are_found(self) -> None:
        """The paths with a function, and those without; each may have a search."""
        for verb, method, done in (("/retry", "POST", "retried"), ("", "DELETE", "forgotten")):
            self.serve()
            self.submit(b"f", b"g", b"f", b"g", b"f")
            self.fail(1, 2, 3)
            self.fail(4, 5, error=b"other")
            for path, number, left in (
                (f"/dead{verb}?function=g&search=other", 1, ["5", "3", "2", "1"]),
                (f"/functions/f/dead{verb}?search=other", 1, ["3", "2", "1"]),
                (f"/functions/f/dead{verb}", 2, ["2"]),
                (f"/dead{verb}", 1, []),
            ):
                self.assertEqual(self.ask(method, path).json(), {done: number, "skipped": 0}, path)
                self.assertEqual(self.handles("/dead")[0], left, path)

    def test_a_reader_that_leaves_ends_it(self) -> None:
        self.submit(*[b"f"] * 5)
        self.fail(*range(1, 6))
        exchange = self.web.begin("POST", f"{API}/functions/f/dead/retry?per_second=1")
        exchange.leave()
        self.web.gearman.turn(60)
        self.assertEqual(len(self.handles("/dead")[0]), 4)

    def test_many_give_way_to_others(self) -> None:
        self.patch(dead_jobs, "AT_ONCE", 2)
        self.submit(*[b"f"] * 5)
        self.fail(*range(1, 6))
        pauses = []

        def give_way(*arguments: Any) -> Any:
            pauses.append(arguments[1])
            return deferLater(*arguments)

        self.patch(dead_jobs, "deferLater", give_way)
        self.assertEqual(self.ask("DELETE", "/dead").json(), {"forgotten": 5, "skipped": 0})
        self.assertEqual(pauses, [0, 0])


class RetryTests(FailureCase):
    def setUp(self) -> None:
        self.serve(attempts=3, backoff=60, jitter=0)

    def test_jobs_that_wait_for_a_retry(self) -> None:
        self.submit(b"f", b"g", b"f")
        self.fail(1, 2)
        self.assertEqual(self.handles("/retrying"), (["1", "2"], None))
        handles, cursor = self.handles("/retrying?limit=1")
        self.assertEqual((handles, self.handles(f"/retrying?after={cursor}")), (["1"], (["2"], None)))
        self.assertEqual(self.handles("/functions/f/jobs?state=retrying")[0], ["1"])
        job = self.job(1)
        self.assertEqual((job["state"], job["next_run"], job["attempts"]), ("retrying", 60.0, 1))
        self.assertEqual(self.ask("POST", "/jobs/H:t:1/retry").status, 204)
        self.assertEqual(self.handles("/retrying")[0], ["2"])
        self.assertEqual(self.ask("DELETE", "/jobs/H:t:2").status, 204)
        self.assertEqual(self.job(2)["outcome"], "cancelled")

    def test_all_runs_of_a_job(self) -> None:
        self.submit(b"f")
        for seconds in (60, 120):
            self.fail(1, error=b"after %d" % seconds)
            self.web.gearman.turn(seconds)
        self.worker.ask(req(9), req(13, b"H:t:1", b""))
        job = self.job(1)
        self.assertEqual((job["state"], job["outcome"]), ("ended", "completed"))
        self.assertEqual([run["error"] for run in job["runs"]], ["after 60", "after 120"])
        self.assertEqual([run["ended"] for run in job["runs"]], [0.0, 60.0])
        self.assertEqual(job["ended"], 180.0)

    def test_lists_leave_the_runs_out(self) -> None:
        """Places that list jobs: those of a function, those that wait for a retry, live documents. A job's
        runs may have `MAX_RUNS` errors of `MAX_ERROR` bytes, and a page has 500 jobs."""
        self.serve(attempts=MAX_RUNS + 1, backoff=0)
        self.submit(b"f")
        for _ in range(MAX_RUNS):
            self.fail(1, error=b"x" * MAX_ERROR)
            self.web.gearman.turn(1)
        self.fail()
        self.assertGreater(len(self.ask("GET", "/jobs/H:t:1").body), MAX_RUNS * MAX_ERROR)
        self.assertLess(len(self.ask("GET", "/functions/f/jobs").body), 2 * MAX_ERROR)
        live = self.web.begin("GET", f"{API}/live?view=jobs&handles=H:t:1")
        self.assertLess(len(live.response.body), 2 * MAX_ERROR)
        live.leave()

    def test_totals(self) -> None:
        """What nobody wanted any more is no failure. Places that count: the server's totals, a function's,
        the history behind the plots (which is of the totals)."""
        self.client.ask(*[req(18, b"f", b"", b"")] * 3, req(36, b"f", b"", b"99", b""))
        self.worker.ask(req(1, b"f"))
        self.fail(1, 2)
        self.ask("DELETE", "/jobs/H:t:3")
        self.ask("DELETE", "/jobs/H:t:2")
        for path in ("/server", "/functions/f"):
            shown = self.ask("GET", path).json()
            self.assertEqual((shown["failed"], shown["dropped"]), (0, 2), path)
            self.assertEqual((shown["retrying"], shown["scheduled"], shown["dead"]), (1, 1, 0), path)
        for seconds in (60, 120):
            self.web.gearman.turn(seconds)
            self.fail(1)
        for path in ("/server", "/functions/f"):
            shown = self.ask("GET", path).json()
            self.assertEqual((shown["failed"], shown["retrying"], shown["dead"]), (1, 0, 1), path)

    def test_live(self) -> None:
        self.serve(dead_jobs=2)
        self.submit(b"f", b"\xff", b"\xff")
        self.fail(1, 2, 3)
        exchange = self.web.begin("GET", f"{API}/live?view=dead&handles=H:t:2,H:t:3")

        def patches() -> list[Any]:
            blocks = exchange.response.body.decode().split("\n\n")
            data = [block.split("\n")[1] for block in blocks if block.startswith("event: patch")]
            return [json.loads(line.removeprefix("data: "))["patch"] for line in data]

        (first,) = patches()
        self.assertEqual((first["total"], first["rows"]), (2, {}))
        rows = {"%FF": {"id": "%FF", "name": "\\xff", "dead": 2}}
        self.assertEqual(first["functions"], {"rows": rows, "order": ["%FF"]})
        self.assertEqual(self.ask("GET", "/server").json()["dead_evicted"], 1)
        self.ask("POST", "/jobs/H:t:3/retry")
        self.web.gearman.turn(2)
        _, second = patches()
        self.assertEqual((second["total"], second["functions"]["rows"]["%FF"]), (1, {"dead": 1}))
        self.assertEqual(second["rows"]["H:t:3"]["state"], "queued")
        exchange.leave()
