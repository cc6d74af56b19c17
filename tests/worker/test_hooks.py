"""Hooks around jobs: when they are called, with what, and that they harm no job."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.worker.played import GRAB, PlayedWorkerTestCase
from txgearman.errors import FailJob, JobOver, TimeLimitExceeded
from txgearman.worker import Hooks, Job


class HooksTestCase(PlayedWorkerTestCase):
    """`calls` are those of the hooks and the function, in order."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[tuple[Any, ...]] = []

    def run_job(self, job: Job) -> Any:
        self.calls.append(("run",))
        return self.outcome()

    def outcome(self) -> Any:
        return b"r"

    def hooks(self, **others: Any) -> Hooks:
        """All three hooks, which note their calls; `others` take the place of one."""
        noting: dict[str, Any] = {
            "before_job": lambda job: self.calls.append(("before", job.handle)),
            "after_job": lambda job, result: self.calls.append(("after", job.handle, result)),
            "on_failure": lambda job, failure: self.calls.append(("failed", type(failure.value))),
        }
        return Hooks(**{**noting, **others})


class CalledTests(HooksTestCase):
    def test_around_a_job_that_goes_well(self) -> None:
        self.start(hooks=self.hooks())
        self.assign()
        self.assertEqual(self.calls, [("before", b"H:1"), ("run",), ("after", b"H:1", b"r")])
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])

    def test_one_hook_alone(self) -> None:
        for name in ("before_job", "after_job"):
            self.setUp()
            self.start(hooks=Hooks(**{name: getattr(self.hooks(), name)}))
            self.assign()
            self.assertEqual(len(self.calls), 2)
            self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])

    def test_around_jobs_that_fail(self) -> None:
        for outcome, kind in ((LookupError(), LookupError), (FailJob(), FailJob)):
            self.setUp()
            self.outcome = lambda outcome=outcome: fail(outcome)
            self.start(hooks=self.hooks())
            self.assign()
            self.assertEqual(self.calls, [("before", b"H:1"), ("run",), ("failed", kind)])
            self.assertEqual(len(self.server.heard()), 2)
        self.flushLoggedErrors(LookupError)

    def test_a_result_that_cannot_be_sent_is_a_failure(self) -> None:
        for outcome, kind in ((7, TypeError), (bytes(100), ValueError)):
            self.setUp()
            self.outcome = lambda outcome=outcome: outcome
            self.start(hooks=self.hooks(), max_packet=100)
            self.assign()
            self.assertEqual(self.calls[2:], [("failed", kind)])
            self.assertEqual(self.server.heard()[0][0], "WORK_EXCEPTION")
            self.flushLoggedErrors(kind)

    def test_a_job_beyond_its_time_limit(self) -> None:
        self.start(hooks=self.hooks())
        self.worker.register("slow", lambda job: Deferred(), time_limit=5)
        self.assign(function=b"slow")
        self.clock.advance(5)
        self.assertEqual(self.calls, [("before", b"H:1"), ("failed", TimeLimitExceeded)])

    def test_a_job_whose_connection_is_lost(self) -> None:
        self.outcome = Deferred
        self.start(hooks=self.hooks())
        self.assign()
        with capturedLogs():
            self.server.lose()
        self.assertEqual(self.calls, [("before", b"H:1"), ("run",), ("failed", CancelledError)])

    def test_a_result_behind_the_loss_of_the_connection(self) -> None:
        stubborn: Deferred[bytes] = Deferred()
        self.outcome = lambda: Deferred().addErrback(lambda _: stubborn)
        self.start(hooks=self.hooks())
        self.assign()
        with capturedLogs():
            self.server.lose()
        stubborn.callback(b"late")
        self.assertEqual(self.calls[2:], [("failed", JobOver)])


class WaitedForTests(HooksTestCase):
    def test_each_is_waited_for(self) -> None:
        waits: dict[str, Deferred[None]] = {name: Deferred() for name in ("before", "after")}

        async def before(job: Job) -> None:
            await waits["before"]

        def after(job: Job, result: bytes) -> Deferred[None]:
            job.send_data(b"almost")
            return waits["after"]

        self.start(hooks=self.hooks(before_job=before, after_job=after))
        self.assign()
        self.assertEqual((self.calls, self.server.heard()), ([], []))
        waits["before"].callback(None)
        self.assertEqual(self.calls, [("run",)])
        self.assertEqual(self.server.heard(), [("WORK_DATA", b"H:1", b"almost")], "it can still send")
        waits["after"].callback(None)
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])

    def test_a_connection_that_is_lost_meanwhile(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.start(hooks=self.hooks(after_job=lambda job, result: waiting))
        self.assign()
        with capturedLogs():
            self.server.lose()
        waiting.callback(None)
        self.assertEqual(self.server.heard(), [])
        self.clock.advance(100)
        self.assertIn(GRAB, self.server.heard(), "its slot is free again")


class RaisingTests(HooksTestCase):
    def raising(self, *arguments: Any) -> None:
        raise ArithmeticError("a hook's own fault")

    async def raising_late(self, *arguments: Any) -> None:
        raise ArithmeticError("a hook's own fault")

    def leaving(self, *arguments: Any) -> None:
        raise SystemExit(1)

    def test_before_the_job_it_fails_the_job(self) -> None:
        for hook in (self.raising, self.raising_late):
            self.setUp()
            self.start(hooks=self.hooks(before_job=hook))
            self.assign()
            self.assertEqual(self.calls, [("failed", ArithmeticError)], "the function is not called")
            text = b"ArithmeticError: a hook's own fault"
            self.assertEqual(self.server.heard(), [("WORK_EXCEPTION", b"H:1", text), GRAB])
            self.flushLoggedErrors(ArithmeticError)

    def test_before_the_job_it_may_refuse_it(self) -> None:
        def refuse(job: Job) -> None:
            raise FailJob("not here")

        self.start(hooks=self.hooks(before_job=refuse))
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_FAIL", b"H:1"), GRAB])

    def test_behind_the_job_it_is_logged_and_harms_nothing(self) -> None:
        for hook in (self.raising, self.raising_late, self.leaving):
            for outcome, name in ((b"r", "WORK_COMPLETE"), (fail(LookupError()), "WORK_EXCEPTION")):
                self.setUp()
                self.outcome = lambda outcome=outcome: outcome
                self.start(hooks=self.hooks(after_job=hook, on_failure=hook))
                self.assign()
                report, grab = self.server.heard()
                self.assertEqual((report[0], grab), (name, GRAB))
                self.flushLoggedErrors(LookupError)
                self.assertEqual(len(self.flushLoggedErrors(ArithmeticError, SystemExit)), 1)

    def test_what_a_hook_is_told_of_a_failure(self) -> None:
        failures: list[Failure] = []
        self.outcome = lambda: fail(LookupError("größe"))
        self.start(hooks=Hooks(on_failure=lambda job, failure: failures.append(failure)))
        self.assign()
        self.assertEqual([str(failure.value) for failure in failures], ["größe"])
        self.flushLoggedErrors(LookupError)
