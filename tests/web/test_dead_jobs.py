"""Failed jobs over HTTP: their retries, their death, and what is remembered of them."""

from __future__ import annotations

from typing import Any

from tests.web.asking import Web
from tests.web.test_jobs import STREAM, JobCase, events
from txgearman.server import Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.web import WebSettings

DEAD = "/api/v1/dead"


class DeadJobCase(JobCase):
    def setUp(self) -> None:
        functions = {
            "f": FunctionSettings(attempts=2, backoff=10.0, jitter=0.0),
            "online": FunctionSettings(attempts=2, backoff=10.0, jitter=0.0, retry_online=True),
        }
        self.web = Web(WebSettings(), server=Settings(functions=functions))
        self.broker = self.web.broker
        self.inspection = self.web.inspection
        self.administration = self.web.administration

    def submit(self, data: bytes = b"data", query: str = "", function: str = "f") -> str:
        path = f"/api/v1/functions/{function}/jobs?background=true{query}"
        return str(self.web.ask("POST", path, data).json()["handle"])

    def raise_in(self, error: bytes = b"oh no\nat line 7") -> None:
        worker = self.worker(b"f", b"online")
        handle = self.give(worker)
        self.broker.exception(worker, handle, error)

    def wait(self) -> None:
        self.web.gearman.clock.advance(10)

    def kill(self, query: str = "", error: bytes = b"oh no\nat line 7") -> str:
        handle = self.submit(query=query)
        self.raise_in()
        self.wait()
        self.raise_in(error)
        return handle

    def job(self, handle: str) -> dict[str, Any]:
        return dict(self.web.get(f"/api/v1/jobs/{handle}").json())

    def dead(self, query: str = "") -> list[str]:
        return [job["handle"] for job in self.web.get(DEAD + query).json()["jobs"]]


class RetryTests(DeadJobCase):
    def test_a_job_that_waits_for_its_retry(self) -> None:
        handle = self.submit()
        self.raise_in()
        job = self.job(handle)
        self.assertEqual(
            (job["state"], job["attempts"], job["outcome"], job["error"]),
            ("retrying", 1, "raised", "oh no\nat line 7"),
        )
        self.assertAlmostEqual(job["run_in"], 10.0)
        page = self.web.get("/api/v1/functions/f/jobs?state=retrying").json()
        self.assertEqual([row["handle"] for row in page["jobs"]], [handle])
        self.assertEqual(self.web.ask("POST", f"/api/v1/jobs/{handle}/retry").status, 204)
        self.assertEqual(self.job(handle)["state"], "queued")

    def test_its_readers_hear_of_a_retry_where_they_wait_for_it(self) -> None:
        exchange = self.web.begin("POST", "/api/v1/functions/online/jobs", b"data", headers=STREAM)
        self.web.gearman.turn()
        self.raise_in()
        self.web.gearman.turn()
        self.assertEqual(events(exchange)[-1], ("retry", {"attempts": 1, "in": 10.0}))
        self.wait()
        self.raise_in()
        self.web.gearman.turn()
        self.assertEqual(events(exchange)[-1][0], "exception")


class DeadTests(DeadJobCase):
    def test_it_is_shown_with_all_its_runs(self) -> None:
        handle = self.kill(query="&unique=u&expires=90")
        job = self.job(handle)
        self.assertEqual(job["options"]["expires"], 90)
        self.assertEqual(
            (job["state"], job["outcome"], job["attempts"], job["losses"], job["size"], job["unique"]),
            ("dead", "raised", 2, 0, 4, "u"),
        )
        self.assertEqual([run["outcome"] for run in job["runs"]], ["raised", "raised"])
        self.assertEqual(self.web.get(f"/api/v1/jobs/{handle}/data").body, b"data")
        (row,) = self.web.get(DEAD).json()["jobs"]
        self.assertEqual((row["error"], row["outcome"], row["attempts"]), ("oh no\nat line 7", "raised", 2))

    def test_filter_search_and_pages(self) -> None:
        handles = []
        for number in range(3):
            handles.insert(0, self.kill(error=b"number %d" % number))
        self.assertEqual(self.dead(), handles)
        self.assertEqual(self.dead("?search=number%201"), [handles[1]])
        self.assertEqual(self.dead("?function=g"), [])
        first = self.web.get(DEAD + "?limit=2").json()
        rest = self.web.get(f"{DEAD}?limit=2&after={first['next']}").json()
        self.assertEqual([job["handle"] for job in first["jobs"] + rest["jobs"]], handles)
        self.assertIsNone(rest["next"])
        self.assertEqual(self.web.get(DEAD + "?after=x").code, "bad-parameter")

    def test_one_is_retried_once(self) -> None:
        handle = self.kill()
        self.assertEqual(self.web.ask("POST", f"/api/v1/jobs/{handle}/retry").status, 204)
        self.assertEqual((self.job(handle)["state"], self.dead()), ("queued", []))
        self.assertEqual(self.web.ask("POST", f"/api/v1/jobs/{handle}/retry").code, "no-such-job")

    def test_not_while_its_unique_is_used(self) -> None:
        handle = self.kill(query="&unique=u")
        self.submit(query="&unique=u")
        response = self.web.ask("POST", f"/api/v1/jobs/{handle}/retry")
        self.assertEqual((response.status, response.code, self.dead()), (409, "unique-in-use", [handle]))

    def test_one_is_forgotten(self) -> None:
        handle = self.kill()
        self.assertEqual(self.web.ask("DELETE", f"/api/v1/jobs/{handle}").status, 204)
        self.assertEqual(self.dead(), [])
        self.assertEqual(self.job(handle)["state"], "ended")

    def test_all_of_a_function_at_a_rate(self) -> None:
        for _ in range(3):
            self.kill()
        exchange = self.web.begin("POST", "/api/v1/functions/f/dead/retry?per_second=10")
        self.assertEqual(len(self.dead()), 2)
        self.web.gearman.clock.advance(0.1)
        self.assertEqual(len(self.dead()), 1)
        self.web.gearman.clock.advance(0.1)
        self.assertEqual(exchange.response.json(), {"retried": 3, "skipped": 0})

    def test_all_of_a_function_are_forgotten(self) -> None:
        for _ in range(3):
            self.kill()
        response = self.web.ask("DELETE", "/api/v1/functions/f/dead")
        self.assertEqual((response.json(), self.dead()), ({"forgotten": 3, "skipped": 0}, []))
