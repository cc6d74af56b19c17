"""JOB_CANCEL: the server says that a job is to stop. What runs is stopped, and nothing is reported of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import LogLevel, capturedLogs

from tests.worker.played import GRAB, PlayedWorkerTestCase
from txgearman.errors import JobCancelled, JobOver
from txgearman.wire.packets import JOB_CANCEL, NO_JOB
from txgearman.worker import Hooks, Job


class CancelTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.jobs: list[Job] = []
        self.outcomes: list[Deferred[bytes]] = []

    def run_job(self, job: Job) -> Any:
        self.jobs.append(job)
        self.outcomes.append(Deferred())
        return self.outcomes[-1]

    def begin(self, **options: Any) -> Job:
        """A worker that runs one job."""
        self.start(**options)
        self.assign()
        self.server.heard()
        return self.jobs[-1]

    def cancel(self, handle: bytes = b"H:1", reason: bytes = b"cancelled") -> list[Any]:
        """Cancel a job; returns what the worker says to that."""
        self.server.say(JOB_CANCEL, handle, reason)
        return self.server.heard()

    def test_a_deferred_is_cancelled_and_the_next_job_is_asked_for(self) -> None:
        self.begin()
        with capturedLogs() as logs:
            self.assertEqual(self.cancel(reason=b"timed-out"), [GRAB])
        (event,) = logs
        self.assertEqual((event["log_level"], event["reason"]), (LogLevel.info, "timed-out"))
        self.assign(b"H:2")
        self.outcomes[1].callback(b"done")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:2", b"done"), GRAB])

    def test_what_the_job_shows_and_raises(self) -> None:
        job = self.begin()
        self.assertEqual((job.cancelled, job.cancel_reason, job.over), (False, None, False))
        self.cancel(reason=b"abandoned")
        self.assertEqual((job.cancelled, job.cancel_reason, job.over), (True, "abandoned", True))
        calls: tuple[Callable[[], object], ...] = (
            lambda: job.send_data(b""),
            lambda: job.send_warning(b""),
            lambda: job.send_status(0, 1),
            job.room,
        )
        for call in calls:
            with self.assertRaisesRegex(JobCancelled, "abandoned") as caught:
                call()
            self.assertEqual(caught.exception.reason, "abandoned")
            self.assertIsInstance(caught.exception, JobOver)
        self.assertEqual(self.server.heard(), [])

    def test_a_coroutine_may_clean_up_and_holds_its_place_meanwhile(self) -> None:
        cleaned: Deferred[None] = Deferred()

        async def function(job: Job) -> bytes:
            try:
                await Deferred()
            finally:
                await cleaned
            return b"never"

        for limit in (None, 10.0):
            with self.subTest(time_limit=limit):
                cleaned = Deferred()
                self.setUp()
                self.worker.register("g", function, time_limit=limit)
                self.worker.startService()
                self.server.heard()
                self.assign(function=b"g")
                self.assertEqual(self.cancel(), [])
                self.clock.advance(20)
                self.assertEqual(self.server.heard(), [])
                cleaned.callback(None)
                self.assertEqual(self.server.heard(), [GRAB])
                self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_a_function_gives_in_spite_of_it_is_dropped(self) -> None:
        async def defiant(job: Job) -> bytes:
            with contextlib.suppress(CancelledError):
                await Deferred()
            return b"result"

        async def broken(job: Job) -> bytes:
            try:
                await Deferred()
            finally:
                raise LookupError("in the clean-up")

        for function in (defiant, broken):
            with self.subTest(function):
                self.setUp()
                self.worker.register("g", function)
                self.worker.startService()
                self.server.heard()
                self.assign(function=b"g")
                self.assertEqual(self.cancel(), [GRAB])

    def test_the_same_job_may_come_again_while_the_first_run_still_ends(self) -> None:
        first_ends: Deferred[None] = Deferred()

        async def function(job: Job) -> bytes:
            self.jobs.append(job)
            try:
                return await Deferred()
            finally:
                if len(self.jobs) == 1:
                    await first_ends

        self.run_job = function  # type: ignore[method-assign]
        first = self.begin(concurrency=2)
        self.cancel(reason=b"timed-out")
        self.assign()
        second = self.jobs[-1]
        self.assertEqual((first.cancelled, second.cancelled), (True, False))
        second.send_status(1, 2)
        self.assertEqual(self.server.heard(), [("WORK_STATUS", b"H:1", b"1", b"2")])
        self.assertEqual(self.cancel(), [GRAB])
        self.assertTrue(second.cancelled)
        first_ends.callback(None)
        self.assertEqual(self.server.heard(), [GRAB], "nothing is reported of either")

    def test_unknown_and_reported_jobs_and_a_second_time(self) -> None:
        job = self.begin()
        self.assertEqual(self.cancel(b"H:9"), [])
        self.assertFalse(job.cancelled)
        self.outcomes[0].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])
        self.assertEqual(self.cancel(), [], "it crossed with the report")
        self.assertFalse(job.cancelled)
        self.assign()
        self.assertEqual(self.cancel(), [GRAB])
        self.assertEqual(self.cancel(), [])

    def test_slots_with_several_at_once(self) -> None:
        self.start(concurrency=3)
        self.assign(b"H:1")
        self.assign(b"H:2")
        self.assign(b"H:3")
        self.server.heard()
        self.assertEqual(self.cancel(b"H:2"), [GRAB])
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [("PRE_SLEEP",)])
        self.assertEqual(
            self.cancel(b"H:1") + self.cancel(b"H:3"), [], "it sleeps, and is woken for the next"
        )
        self.assertEqual([limit.free_slots for limit in self.worker._config.limits], [3])

    def test_hooks(self) -> None:
        calls: list[Any] = []
        hooks = Hooks(
            after_job=lambda job, result: calls.append(result),
            on_failure=lambda job, failure: calls.append((job.cancelled, failure.type)),
        )
        self.begin(hooks=hooks)
        self.assertEqual(self.cancel(), [GRAB])
        self.assertEqual(calls, [(True, CancelledError)])

    def test_while_a_hook_behind_the_job_takes_its_time(self) -> None:
        hook: Deferred[None] = Deferred()
        job = self.begin(hooks=Hooks(after_job=lambda job, result: hook))
        self.outcomes[0].callback(b"r")
        self.assertEqual(self.cancel(), [])
        self.assertTrue(job.cancelled)
        hook.callback(None)
        self.assertEqual(self.server.heard(), [GRAB])

    def test_while_a_hook_ahead_of_the_job_takes_its_time(self) -> None:
        self.start(hooks=Hooks(before_job=lambda job: Deferred()))
        self.assign()
        self.assertEqual(self.cancel(), [GRAB])
        self.assertEqual(self.jobs, [], "the function is not called")

    def test_a_worker_that_stops_does_not_wait_for_it(self) -> None:
        self.begin()
        stopped = self.worker.stop(100)
        self.assertNoResult(stopped)
        self.cancel()
        self.server.hang_up()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_lost_connection_behind_it(self) -> None:
        cleaned: Deferred[None] = Deferred()

        async def function(job: Job) -> bytes:
            self.jobs.append(job)
            try:
                await Deferred()
            finally:
                await cleaned
            return b""

        self.run_job = function  # type: ignore[method-assign]
        self.begin()
        self.cancel()
        with capturedLogs() as logs:
            self.server.lose()
        self.assertNotIn("its outcome is discarded", " ".join(event["log_format"] for event in logs))
        cleaned.callback(None)
        self.assertEqual([limit.free_slots for limit in self.worker._config.limits], [1])

    def test_a_deferred_that_had_fired_already(self) -> None:
        self.run_job = lambda job: succeed(b"r")  # type: ignore[method-assign]
        self.start()
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])
        self.assertEqual(self.cancel(), [])
