"""Results of background jobs over HTTP: what is answered to whoever asks for one."""

from __future__ import annotations

from typing import Any

from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.web.asking import Exchange, Response, Web
from tests.web.test_jobs import JobCase
from txgearman.broker.kept_result import MAX_RESULT_BYTES
from txgearman.server import Settings
from txgearman.server.config.options import FunctionSettings
from txgearman.server.extensions.result_waits import POLL_INTERVAL
from txgearman.server.persistence.writer import StoreWriter
from txgearman.web import WebSettings

KEEPING = {"f": FunctionSettings(keep_results=3600.0, attempts=2, backoff=10.0, jitter=0.0, expires=1000.0)}


class ResultCase(JobCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, **settings: Any) -> None:
        self.web = Web(WebSettings(), server=Settings(functions=KEEPING, **settings))
        self.broker = self.web.broker
        self.administration = self.web.administration

    def submit(self, function: str = "f") -> str:
        path = f"/api/v1/functions/{function}/jobs?background=true"
        return str(self.web.ask("POST", path, b"data").json()["handle"])

    def result(self, handle: str, query: str = "") -> Response:
        return self.web.get(f"/api/v1/jobs/{handle}/result{query}")

    def wait(self, handle: str, seconds: int) -> Exchange:
        return self.web.begin("GET", f"/api/v1/jobs/{handle}/result?wait={seconds}")

    def pass_time(self, seconds: float) -> None:
        self.web.gearman.clock.advance(seconds)
        self.turn()

    def fail(self) -> None:
        worker = self.worker()
        self.broker.fail(worker, self.give(worker))


class AnswerTests(ResultCase):
    def test_the_result(self) -> None:
        handle = self.submit()
        worker = self.worker()
        self.give(worker)
        self.broker.report_data(worker, handle.encode(), b"\0part")
        self.broker.complete(worker, handle.encode(), b"\xffend")
        for _ in range(2):
            response = self.result(handle)
            self.assertEqual((response.status, response.body), (200, b"\0part\xffend"))
            self.assertEqual(response.headers["content-type"], "application/octet-stream")
            self.assertEqual(response.headers["content-length"], "9")

    def test_only_its_head(self) -> None:
        handle = self.submit()
        worker = self.worker()
        self.broker.complete(worker, self.give(worker), b"end")
        response = self.web.ask("HEAD", f"/api/v1/jobs/{handle}/result")
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertEqual(response.headers["content-length"], "3")

    def test_it_waits_runs_or_is_retried(self) -> None:
        handle = self.submit()
        states = [self.result(handle)]
        worker = self.worker()
        self.give(worker)
        states.append(self.result(handle))
        self.broker.fail(worker, handle.encode())
        states.append(self.result(handle))
        self.assertEqual([response.status for response in states], [202] * 3)
        self.assertEqual(
            [response.json() for response in states],
            [{"handle": handle, "state": state} for state in ("queued", "running", "retrying")],
        )

    def test_it_failed(self) -> None:
        handle = self.submit()
        self.fail()
        self.pass_time(10)
        worker = self.worker()
        self.give(worker)
        self.broker.exception(worker, handle.encode(), b"oh no\nat line 7")
        response = self.result(handle)
        self.assertEqual((response.status, response.code), (502, "job-raised"))
        self.assertIn("oh no\nat line 7", response.json()["detail"])

    def test_it_failed_and_is_not_dead(self) -> None:
        self.begin(dead_jobs=0)
        handle = self.submit()
        for _ in range(2):
            self.fail()
            self.pass_time(10)
        self.assertEqual((self.result(handle).status, self.result(handle).code), (502, "job-failed"))

    def test_its_time_limit_and_its_workers(self) -> None:
        functions = {"f": FunctionSettings(keep_results=60.0, attempts=1, time_limit=5.0, job_retries=1)}
        self.web = Web(WebSettings(), server=Settings(functions=functions))
        self.broker = self.web.broker
        late, lost = self.submit(), self.submit()
        worker, other = self.worker(), self.worker()
        self.give(worker)
        self.give(other)
        self.broker.leave_worker(other)
        self.pass_time(5)
        self.assertEqual([self.result(handle).status for handle in (late, lost)], [502, 502])
        self.assertEqual([self.result(handle).code for handle in (late, lost)], ["job-timed-out", "job-lost"])

    def test_others_ended_it(self) -> None:
        handle = self.submit()
        self.broker.cancel(handle.encode())
        self.assertEqual((self.result(handle).status, self.result(handle).code), (410, "job-cancelled"))
        handle = self.submit()
        self.pass_time(1000)
        self.assertEqual((self.result(handle).status, self.result(handle).code), (410, "job-expired"))

    def test_it_is_kept_no_longer(self) -> None:
        handle = self.submit()
        worker = self.worker()
        self.broker.complete(worker, self.give(worker), b"end")
        self.pass_time(3600)
        self.assertEqual((self.result(handle).status, self.result(handle).code), (410, "result-gone"))

    def test_it_was_never_kept(self) -> None:
        handle = self.submit("g")
        worker = self.worker(b"g")
        self.broker.complete(worker, self.give(worker), b"end")
        self.assertEqual((self.result(handle).status, self.result(handle).code), (410, "result-gone"))

    def test_nothing_is_remembered_of_it(self) -> None:
        self.begin(history=0)
        handle = self.submit("g")
        worker = self.worker(b"g")
        self.broker.complete(worker, self.give(worker), b"end")
        for unknown in (handle, "H:t:99", "x", "%ff"):
            response = self.result(unknown)
            self.assertEqual((response.status, response.code), (404, "no-such-job"), unknown)

    def test_it_was_too_large(self) -> None:
        handle = self.submit()
        worker = self.worker()
        self.broker.complete(worker, self.give(worker), bytes(MAX_RESULT_BYTES + 1))
        self.assertEqual((self.result(handle).status, self.result(handle).code), (502, "result-too-large"))


class WaitTests(ResultCase):
    def test_it_is_answered_when_it_is_there(self) -> None:
        handle = self.submit()
        waiting = self.wait(handle, 60)
        worker = self.worker()
        self.give(worker)
        self.pass_time(30)
        self.assertEqual(waiting.response.status, 0)
        self.broker.complete(worker, handle.encode(), b"end")
        self.turn()
        self.assertEqual((waiting.response.status, waiting.response.body), (200, b"end"))
        self.assertEqual(len(self.web.gearman.server.results), 0)

    def test_or_when_it_failed_or_was_cancelled(self) -> None:
        handles = [self.submit(), self.submit()]
        waiting = [self.wait(handle, 60) for handle in handles]
        self.fail()
        self.broker.cancel(handles[1].encode())
        self.turn()
        self.assertEqual([each.response.status for each in waiting], [0, 410])
        self.pass_time(10)
        self.fail()
        self.turn()
        self.assertEqual(waiting[0].response.status, 502)

    def test_the_time_is_over(self) -> None:
        handle = self.submit()
        waiting = self.wait(handle, 5)
        self.give(self.worker())
        self.pass_time(4.5)
        self.assertEqual(waiting.response.status, 0)
        self.pass_time(0.5)
        self.assertEqual((waiting.response.status, waiting.response.json()["state"]), (202, "running"))
        self.assertEqual(len(self.web.gearman.server.results), 0)

    def test_nobody_waits_any_more(self) -> None:
        handle = self.submit()
        waiting = self.wait(handle, 60)
        self.assertEqual(len(self.web.gearman.server.results), 1)
        waiting.leave()
        self.assertEqual(len(self.web.gearman.server.results), 0)

    def test_jobs_of_functions_that_keep_nothing_are_looked_at(self) -> None:
        handle = self.submit("g")
        waiting = self.wait(handle, 60)
        worker = self.worker(b"g")
        self.broker.complete(worker, self.give(worker), b"end")
        self.turn()
        self.assertEqual(waiting.response.status, 0)
        self.pass_time(POLL_INTERVAL)
        self.assertEqual((waiting.response.status, waiting.response.code), (410, "result-gone"))

    def test_wrong_times(self) -> None:
        for wait in ("-1", "3601", "x"):
            response = self.result("H:t:1", f"?wait={wait}")
            self.assertEqual((response.status, response.code), (400, "bad-parameter"), wait)


class StoredTests(ResultCase):
    """With a store, in a thread that runs when it is told to."""

    def setUp(self) -> None:
        self.web = Web(WebSettings(), server=Settings(functions=KEEPING))
        self.store, self.thread = ListStore(), Thread()
        writer = StoreWriter(self.store, self.web.gearman.clock, self.thread, self.web.gearman.clock.seconds)
        self.web.gearman.server.use_store(writer, writer.open("name", 10.0))
        writer.load(self.web.gearman.server.broker)
        self.broker = self.web.gearman.server.broker

    def commit(self) -> None:
        self.pass_time(1)
        self.thread.run_all()
        self.turn()

    def running(self) -> tuple[str, Any]:
        """A job that is with a worker."""
        submitting = self.web.begin("POST", "/api/v1/functions/f/jobs?background=true", b"data")
        self.commit()
        worker = self.worker()
        self.give(worker)
        return submitting.response.json()["handle"], worker

    def test_the_answer_comes_when_the_result_is_stored(self) -> None:
        handle, worker = self.running()
        waiting = self.wait(handle, 60)
        self.broker.complete(worker, handle.encode(), b"end")
        asking = self.web.begin("GET", f"/api/v1/jobs/{handle}/result")
        self.turn()
        self.assertEqual((waiting.response.status, asking.response.status), (0, 0))
        self.commit()
        self.commit()
        for exchange in (waiting, asking):
            self.assertEqual((exchange.response.status, exchange.response.body), (200, b"end"))
        self.assertEqual((self.store.jobs, len(self.store.kept_results)), ({}, 1))

    def test_a_server_that_remembers_nothing_of_the_job_knows_that_it_was_completed(self) -> None:
        """As after a restart, and on the other servers of a database."""
        handle, worker = self.running()
        submitted = self.web.gearman.clock.seconds() - 1
        self.broker.complete(worker, handle.encode(), b"end")
        self.commit()
        self.broker.ended_jobs.history = None
        asking = self.web.begin("GET", f"/api/v1/jobs/{handle}")
        self.commit()
        shown = asking.response.json()
        self.assertEqual(
            (asking.response.status, shown["state"], shown["outcome"]), (200, "ended", "completed")
        )
        self.assertEqual(
            (shown["function"], shown["submitted"], shown["priority"]), ("f", submitted, "normal")
        )
        for other in (handle + "0", "H:other:" + handle.rpartition(":")[2]):
            asking = self.web.begin("GET", f"/api/v1/jobs/{other}")
            self.commit()
            self.assertEqual(asking.response.status, 404, other)

    def test_a_store_that_is_away_is_no_reason_to_say_that_there_is_no_job(self) -> None:
        handle, worker = self.running()
        self.broker.complete(worker, handle.encode(), b"end")
        self.commit()
        self.broker.ended_jobs.history = None
        self.store.failing = UNAVAILABLE
        asking = self.web.begin("GET", f"/api/v1/jobs/{handle}")
        self.commit()
        self.assertEqual(asking.response.status, 503)
