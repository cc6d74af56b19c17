"""What the HTTP interface shows, and what it changes for an administrator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.server.peers import Peer, req
from tests.web.test_jobs import JobCase
from txgearman.web.api import job_search
from txgearman.worker import Job


class ViewCase(JobCase):
    def submit(self, function: str, count: int = 1, query: str = "", data: bytes = b"") -> None:
        for _ in range(count):
            path = f"/api/v1/functions/{function}/jobs?background=true{query}"
            self.assertEqual(self.web.ask("POST", path, data).status, 202)

    def change(self, path: str, wish: Any) -> Any:
        return self.web.ask("PATCH", path, json.dumps(wish).encode())


class FunctionTests(ViewCase):
    def test_a_function(self) -> None:
        self.submit("f", 2)
        self.submit("f", query="&priority=high")
        worker = self.worker()
        self.broker.fail(worker, self.give(worker))
        shown = self.web.get("/api/v1/functions/f").json()
        self.assertEqual(shown["queued"], {"high": 0, "normal": 2, "low": 0})
        self.assertEqual((shown["id"], shown["name"], shown["workers"]), ("f", "f", 1))
        self.assertEqual((shown["submitted"], shown["failed"], shown["total"]), (3, 1, 2))

    def test_names_of_any_bytes(self) -> None:
        self.submit("%00".replace("00", "07") + "%2F%ff%3Cb%3E")
        (shown,) = self.web.get("/api/v1/functions").json()["functions"]
        self.assertEqual((shown["id"], shown["name"]), ("%07%2F%FF%3Cb%3E", "\x07/\\xff<b>"))
        self.assertEqual(self.web.get(f"/api/v1/functions/{shown['id']}").json(), shown)

    def test_pages_and_search(self) -> None:
        for name in ("c", "a", "B", "ab"):
            self.administration.create_function(name.encode())
        page = self.web.get("/api/v1/functions?limit=3").json()
        self.assertEqual([each["name"] for each in page["functions"]], ["B", "a", "ab"])
        self.assertEqual((page["total"], page["next"]), (4, 3))
        page = self.web.get("/api/v1/functions?limit=3&after=3").json()
        self.assertEqual(([each["name"] for each in page["functions"]], page["next"]), (["c"], None))
        page = self.web.get("/api/v1/functions?search=b").json()
        self.assertEqual([each["name"] for each in page["functions"]], ["B", "ab"])

    def test_pause_and_limits(self) -> None:
        self.submit("f")
        shown = self.change(
            "/api/v1/functions/f", {"paused": True, "limits": {"high": 5, "low": None}}
        ).json()
        self.assertEqual((shown["paused"], shown["limits"]), (True, {"high": 5, "normal": None, "low": None}))
        self.assertIsNone(self.broker.grab(self.worker()))
        shown = self.change("/api/v1/functions/f", {"paused": False}).json()
        self.assertEqual((shown["paused"], shown["limits"]["high"]), (False, 5))

    def test_limits_of_runs(self) -> None:
        for _ in range(3):
            self.submit("f")
        shown = self.change(
            "/api/v1/functions/f",
            {"run_limits": {"max_running": 1, "start_rate": 0.5, "key_separator": "/", "pause_after": 3.0}},
        ).json()
        limits = {
            "max_running": 1,
            "start_rate": 0.5,
            "start_burst": None,
            "max_running_per_key": None,
            "key_separator": "/",
            "pause_after": 3,
        }
        self.assertEqual((shown["run_limits"], shown["blocked"]), (limits, 2))
        worker = self.worker()
        job = self.broker.grab(worker)
        assert job is not None
        self.assertIsNone(self.broker.grab(worker))
        self.broker.complete(worker, job.handle, b"")
        shown = self.change("/api/v1/functions/f", {"run_limits": {"start_rate": None}}).json()
        self.assertEqual(shown["run_limits"], limits | {"start_rate": None})
        self.assertIsNotNone(self.broker.grab(worker))
        self.assertFalse(shown["paused_by_failures"])

    def test_wrong_changes(self) -> None:
        self.submit("f")
        for wish in (
            [],
            {"paused": 1},
            {"pause": True},
            {"limits": {"high": 0}},
            {"limits": {"high": True}},
            {"limits": {"urgent": 1}},
            {"limits": {"low": 1.5}},
            {"limits": {"low": 10**16}},
            {"run_limits": {"max_running": 0}},
            {"run_limits": {"max_running": 1.5}},
            {"run_limits": {"max_running": True}},
            {"run_limits": {"max_running": "1"}},
            {"run_limits": {"start_rate": -1}},
            {"run_limits": {"start_rate": 10**10}},
            {"run_limits": {"key_separator": ""}},
            {"run_limits": {"key_separator": "x" * 17}},
            {"run_limits": {"key_separator": None}},
            {"run_limits": {"key_separator": ":\ud800"}},
            {"run_limits": {"speed": 1}},
            {"run_limits": []},
        ):
            self.assertEqual(self.change("/api/v1/functions/f", wish).status, 400, wish)
        for body in (b"", b"{", b"[" * 100_000, b"\xff"):
            self.assertIn(self.web.ask("PATCH", "/api/v1/functions/f", body[:1000]).code, ("bad-json",))
        self.assertEqual(self.change("/api/v1/functions/g", {"paused": True}).code, "no-such-function")
        self.assertEqual(self.web.get("/api/v1/functions/f").json()["limits"]["high"], None)

    def test_drop(self) -> None:
        self.submit("f")
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/f").code, "function-in-use")
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/f/jobs").status, 204)
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/f").status, 204)
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/f").code, "no-such-function")

    def test_cancel_all(self) -> None:
        self.submit("f", 5)
        self.submit("g")
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/f/jobs").status, 204)
        self.assertEqual(self.broker.total, 1)
        self.assertEqual(self.web.ask("DELETE", "/api/v1/functions/h/jobs").code, "no-such-function")


class JobViewTests(ViewCase):
    def handles(self, query: str = "") -> tuple[list[str], str | None]:
        page = self.web.get("/api/v1/functions/f/jobs" + query).json()
        return [job["handle"].removeprefix("H:t:") for job in page["jobs"]], page["next"]

    def test_pages(self) -> None:
        self.submit("f", 3)
        self.submit("g")
        self.submit("f", 2)
        self.assertEqual(self.handles("?limit=2"), (["1", "2"], "2"))
        self.assertEqual(self.handles("?limit=2&after=2"), (["3", "5"], "5"))
        self.assertEqual(self.handles("?limit=2&after=5"), (["6"], None))

    def test_states(self) -> None:
        self.submit("f", 3)
        self.submit("f", query="&run_at=99")
        worker = self.web.gearman.worker()
        worker.register("f", lambda _job: Deferred())
        self.web.gearman.wait(worker.start())
        self.assertEqual(self.handles("?state=running"), (["1"], None))
        self.assertEqual(self.handles("?state=queued"), (["2", "3"], None))
        self.assertEqual(self.handles("?state=scheduled"), (["4"], None))
        job = self.web.get("/api/v1/jobs/H:t:1").json()
        (connection,) = self.web.get("/api/v1/connections?role=worker").json()["connections"]
        self.assertEqual((job["state"], job["worker"]), ("running", connection["number"]))
        self.assertEqual([each["handle"] for each in connection["jobs"]], ["H:t:1"])
        self.assertEqual((connection["functions"], connection["jobs_total"]), (["f"], 1))

    def test_search_looks_into_data_uniques_and_handles(self) -> None:
        self.submit("f", data=b"needle in data \xff")
        self.submit("f", query="&unique=needle")
        self.submit("f", data=b"hay")
        self.patch(job_search, "SEARCHED_BYTES", 100)
        self.submit("f", data=b"x" * 100 + b"needle")
        self.assertEqual(self.handles("?search=needle")[0], ["1", "2"])
        self.assertEqual(self.handles("?search=%ff")[0], ["1"])
        self.assertEqual(self.handles("?search=t:3")[0], ["3"])

    def test_a_search_lets_others_have_their_turn(self) -> None:
        """Places where something is searched for: jobs in memory, running jobs, jobs of the store (a page of
        which is of bounded size), functions by name (twice), connections. Bytes are counted, not time."""
        data = b"a" * job_search.SEARCHED_BYTES
        jobs = 3 * job_search.SLICE_BYTES // len(data)
        peer = Peer(self.web.gearman)
        self.web.gearman.connect(peer)
        peer.ask(*[req(18, b"f", b"", data)] * (jobs - 1), req(18, b"f", b"", b"a" * 99 + b"b"))
        for state, search in (("", "b"), ("queued", "ab"), ("running", "b")):
            if state == "running":
                peer.ask(req(1, b"f"), *[req(9)] * jobs)
            looked_at = self.bytes_by_turn(f"?state={state}&search={search}&limit=1".replace("state=&", ""))
            self.assertGreaterEqual(len(looked_at), 3, state)
            self.assertLessEqual(max(looked_at), job_search.SLICE_BYTES + job_search.SEARCHED_BYTES, state)
            self.assertGreater(sum(looked_at), len(data) * (jobs - 1), state)

    def bytes_by_turn(self, query: str) -> list[int]:
        """How many bytes a search that finds one job looks at in each turn of the reactor."""
        turns = [0]
        matches = job_search.JobFilter.matches

        def count(this: job_search.JobFilter, job: Any) -> bool:
            turns[-1] += min(len(job.data), job_search.SEARCHED_BYTES)
            return matches(this, job)

        def give_way(*arguments: Any) -> Any:
            turns.append(0)
            return deferLater(*arguments)

        self.patch(job_search.JobFilter, "matches", count)
        self.patch(job_search, "deferLater", give_way)
        page = self.web.get("/api/v1/functions/f/jobs" + query).json()
        self.patch(job_search.JobFilter, "matches", matches)
        self.assertEqual(len(page["jobs"]), 1)
        return turns

    def test_a_search_is_linear(self) -> None:
        """`bytes.find` and ``in`` take the product of both lengths for some data, see `compile_search`."""

        class Data(bytes):
            def find(self, *_: Any) -> int:
                raise AssertionError("not linear")

            __contains__ = find  # type: ignore[assignment]

        job_filter = job_search.JobFilter(b"f", None, b"a" * 500 + b"b" + b"a" * 500)
        detail = self.inspection.job_detail
        self.submit("f")
        for data, found in ((b"a" * 2499, False), (b"a" * 1000 + b"b" + b"a" * 500, True)):
            job = replace(detail(b"H:t:1"), data=Data(data), unique=Data(b"u"), handle=Data(b"h"))
            self.assertIs(job_filter.matches_stored(job), found)

    def test_any_bytes_are_looked_for_as_they_are(self) -> None:
        for search in (b".", b"\\", b"[a", b"\n", b"(", b"\xff", b"^a$", b"\0"):
            self.assertTrue(job_search.compile_search(search)(b"x" + search + b"y"), search)
            self.assertFalse(job_search.compile_search(search)(b"xay"), search)

    def test_data(self) -> None:
        self.submit("f", data=b"0123\xff\0")
        response = self.web.get("/api/v1/jobs/H:t:1/data")
        self.assertEqual(response.body, b"0123\xff\0")
        self.assertEqual(response.headers["content-disposition"], "attachment")
        self.assertEqual(response.headers["content-type"], "application/octet-stream")
        self.assertEqual(self.web.get("/api/v1/jobs/H:t:1/data?offset=2&length=3").body, b"23\xff")

    def test_cancel(self) -> None:
        self.submit("f")
        self.assertEqual(self.web.ask("DELETE", "/api/v1/jobs/H:t:1").status, 204)
        self.assertEqual(self.web.ask("DELETE", "/api/v1/jobs/H:t:1").code, "no-such-job")
        job = self.web.get("/api/v1/jobs/H:t:1").json()
        self.assertEqual((job["state"], job["outcome"], job["size"]), ("ended", "cancelled", None))
        self.assertEqual(self.web.get("/api/v1/jobs/H:t:1/data").code, "data-gone")
        self.assertEqual(self.web.get("/api/v1/jobs/H:t:1/events").code, "no-such-job")
        for path in ("", "/data", "/events"):
            self.assertEqual(self.web.get("/api/v1/jobs/H:t:9" + path).code, "no-such-job")

    def test_cancel_by_force(self) -> None:
        for query, is_cut in (("", False), ("?force=false", False), ("?force=true", True)):
            with self.subTest(query):
                self.setUp()
                self.submit("f")
                worker = Peer(self.web.gearman)
                self.web.gearman.connect(worker)
                worker.ask(req(1, b"f"), req(9))
                self.assertEqual(self.web.ask("DELETE", f"/api/v1/jobs/H:t:1{query}").status, 204)
                worker.heard()
                self.assertEqual(worker.lost is not None, is_cut)
        self.assertEqual(self.web.ask("DELETE", "/api/v1/jobs/H:t:1?force=perhaps").status, 400)

    def test_status_by_unique(self) -> None:
        self.submit("f", query="&unique=u")
        self.assertTrue(self.web.get("/api/v1/status?unique=u").json()["known"])
        self.assertFalse(self.web.get("/api/v1/status?unique=v").json()["known"])


class ConnectionTests(ViewCase):
    def start(self, count: int = 1) -> list[int]:
        for _ in range(count):
            worker = self.web.gearman.worker()
            worker.register("f", self.work)
            self.web.gearman.wait(worker.start())
        return sorted(self.web.gearman.server.connections)

    def work(self, job: Job) -> bytes:
        return bytes(job.data)

    def test_pages(self) -> None:
        numbers = self.start(3)
        page = self.web.get("/api/v1/connections?limit=2").json()
        self.assertEqual([each["number"] for each in page["connections"]], numbers[:2])
        page = self.web.get(f"/api/v1/connections?limit=2&after={page['next']}").json()
        self.assertEqual([each["number"] for each in page["connections"]], numbers[2:])
        self.assertIsNone(page["next"])
        self.assertEqual(self.web.get("/api/v1/connections?role=client").json()["connections"], [])

    def test_quiet(self) -> None:
        (number,) = self.start()
        path = f"/api/v1/connections/{number}"
        self.assertTrue(self.change(path, {"quiet": True}).json()["quiet"])
        self.submit("f")
        self.web.gearman.turn(5)
        self.assertEqual(self.broker.total, 1)
        self.assertFalse(self.change(path, {"quiet": False}).json()["quiet"])
        self.web.gearman.turn(5)
        self.assertEqual(self.broker.total, 0)

    def test_unknown_ones(self) -> None:
        for number in ("99", "x", "9" * 30, "-1"):
            self.assertEqual(self.web.get(f"/api/v1/connections/{number}").code, "no-such-connection")
            self.assertEqual(
                self.change(f"/api/v1/connections/{number}", {"quiet": True}).code, "no-such-connection"
            )
