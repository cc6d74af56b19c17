"""Stopping a worker: no new jobs, time for those that run, the rest goes back to the server."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from tests.worker.played import GRAB, OPTIONS, PlayedWorkerTestCase
from txgearman.errors import NotConnected
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import NO_JOB, NOOP
from txgearman.worker import DRAIN_SECONDS, Job, Worker


class DrainTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.results: dict[bytes, Deferred[bytes]] = {}

    def run_job(self, job: Job) -> Deferred[bytes]:
        self.results[job.handle] = Deferred()
        return self.results[job.handle]

    def busy(self, **options: Any) -> None:
        """A worker with a running job ``H:1``, whose server has no other."""
        self.start(**options)
        self.assign()
        if options.get("concurrency", 1) > 1:
            self.server.say(NO_JOB)
        self.server.heard()

    def test_running_jobs_end_and_no_new_one_is_taken(self) -> None:
        self.busy(concurrency=2)
        stopped = self.worker.stop()
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [])
        self.results[b"H:1"].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r")])
        self.assertNoResult(stopped)
        self.server.hang_up()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_job_that_was_on_its_way_is_run(self) -> None:
        self.start(concurrency=2)
        self.assign(b"H:1")
        self.worker.stop()
        self.assign(b"H:2")
        self.server.heard()
        self.results[b"H:1"].callback(b"1")
        self.results[b"H:2"].callback(b"2")
        reports = [("WORK_COMPLETE", b"H:1", b"1"), ("WORK_COMPLETE", b"H:2", b"2")]
        self.assertEqual(self.server.heard(), reports)
        self.server.hang_up()

    def test_what_was_asked_for_is_waited_for(self) -> None:
        """A job that is turned away has lost an attempt."""
        self.start(concurrency=4)
        for handle in (b"H:1", b"H:2"):
            self.assign(handle)
            self.results[handle].callback(b"r")
        self.assertEqual(self.server.heard().count(GRAB), 3, "one of which is answered")
        stopped = self.worker.stop()
        self.assertFalse(self.server.transport.disconnecting)
        self.assign(b"H:3")
        self.results[b"H:3"].callback(b"3")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:3", b"3")])
        self.assertFalse(self.server.transport.disconnecting, "there is another answer to come")
        self.server.say(NO_JOB)
        self.server.hang_up()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_jobs_are(self) -> None:
        self.start()
        stopped = self.worker.stop(3)
        self.clock.advance(2.9)
        self.assertFalse(self.server.transport.disconnecting)
        self.clock.advance(0.1)
        self.server.hang_up()
        self.successResultOf(stopped)

    def test_what_still_runs_at_the_limit_is_cancelled_and_goes_back(self) -> None:
        for options, stop, limit in (
            ({}, lambda worker: worker.stop(), DRAIN_SECONDS),
            ({}, lambda worker: worker.stop(3), 3),
            ({"drain": 5}, lambda worker: worker.stop(), 5),
            ({"drain": 5}, lambda worker: worker.stopService(), 5),
        ):
            self.setUp()
            self.busy(**options)
            stopped = stop(self.worker)
            self.clock.advance(limit - 0.1)
            self.assertFalse(self.results[b"H:1"].called)
            with capturedLogs():
                self.clock.advance(0.1)
            self.assertTrue(self.results[b"H:1"].called, "cancelled")
            self.assertEqual(self.server.heard(), [])
            self.server.hang_up()
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_any_time(self) -> None:
        self.busy()
        with capturedLogs():
            stopped = self.worker.stop(0)
        self.assertTrue(self.results[b"H:1"].called)
        self.server.hang_up()
        self.successResultOf(stopped)

    def test_losing_patience(self) -> None:
        self.busy()
        first = self.worker.stop(1000)
        with capturedLogs():
            second = self.worker.stop(0)
        self.server.hang_up()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_connection_that_is_lost_meanwhile_is_not_made_again(self) -> None:
        self.busy()
        stopped = self.worker.stop()
        with capturedLogs():
            self.server.lose()
        self.successResultOf(stopped)
        self.clock.advance(1000)
        self.assertEqual(self.endpoint.attempts, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_starting_again_after_a_drain(self) -> None:
        self.busy()
        stopped = self.worker.stop()
        self.results[b"H:1"].callback(b"r")
        self.server.hang_up()
        self.successResultOf(stopped)
        self.worker.startService()
        self.assertEqual(self.server.heard(), [*OPTIONS, ("CAN_DO", b"f"), GRAB])

    def test_starting_again_during_a_drain(self) -> None:
        """It is done after the drain, which would otherwise have ended what was started."""
        self.busy()
        stopped = self.worker.stop()
        started = self.worker.start()
        self.results[b"H:1"].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r")])
        self.assertNoResult(started)
        self.server.hang_up()
        self.successResultOf(stopped)
        self.assertEqual(self.server.heard(), [*OPTIONS, ("CAN_DO", b"f"), GRAB])
        self.server.say(NO_JOB)
        self.successResultOf(started)

    def test_starting_again_behind_a_server_that_was_given_up(self) -> None:
        """Its connection is not quite gone yet."""
        self.busy()
        with capturedLogs():
            self.server.send(b"\0RES\xff\xff\xff\xff\0\0\0\0")
        stopped = self.worker.stop()
        started = self.worker.start()
        self.assertNoResult(stopped)
        self.server.lose()
        self.successResultOf(stopped)
        self.server.say(NO_JOB)
        self.successResultOf(started)

    def test_a_function_with_a_limit_of_its_own_that_comes_during_a_drain(self) -> None:
        """Its connection is made when the others are, and not cut with those that end."""
        self.busy(concurrency=2)
        self.worker.stop(3)
        started = self.worker.start()
        self.worker.register("g", self.run_job, concurrency=1)
        self.assertEqual(self.endpoint.attempts, 1)
        with capturedLogs():
            self.clock.advance(3)
        self.server.hang_up()
        self.server.say(NO_JOB)
        self.successResultOf(started)
        self.assertEqual(self.endpoint.attempts, 3)

    def test_starting_and_stopping_again_during_a_drain(self) -> None:
        self.busy()
        first = self.worker.stop()
        started = self.worker.start()
        second = self.worker.stop()
        self.failureResultOf(started, NotConnected)
        self.results[b"H:1"].callback(b"r")
        self.server.hang_up()
        self.successResultOf(first)
        self.successResultOf(second)
        self.clock.advance(1000)
        self.assertEqual(self.endpoint.attempts, 1)

    def test_not_to_wait_for_the_end(self) -> None:
        self.busy()
        stopped = self.worker.stop()
        stopped.cancel()
        self.failureResultOf(stopped, CancelledError)
        started = self.worker.start()
        self.results[b"H:1"].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r")])
        self.server.hang_up()
        self.server.say(NO_JOB)
        self.successResultOf(started)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_bad_limits(self) -> None:
        for limit in (-1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                Worker(self.clock, self.endpoint, drain=limit)
            with self.assertRaises(ValueError):
                self.worker.stop(limit)


class GivenBackTests(PlayedWorkerTestCase):
    def test_another_worker_gets_what_did_not_end(self) -> None:
        gearman = MemoryGearman()
        runs: list[tuple[str, Deferred[bytes]]] = []
        workers = {}
        for name in ("first", "second"):
            workers[name] = gearman.worker(drain=5)

            def function(job: Job, name: str = name) -> Deferred[bytes]:
                runs.append((name, Deferred()))
                return runs[-1][1]

            workers[name].register("f", function)
        gearman.wait(workers["first"].start())
        job = gearman.wait(gearman.client().submit("f", b""))
        gearman.turn()
        gearman.wait(workers["second"].start())
        stopped = workers["first"].stop()
        gearman.turn(4.9)
        self.assertEqual([name for name, _ in runs], ["first"])
        with capturedLogs():
            gearman.wait(stopped)
        gearman.turn()
        self.assertEqual([name for name, _ in runs], ["first", "second"])
        runs[1][1].callback(b"r")
        self.assertEqual(gearman.wait(job.result()), b"r")
