"""Running jobs: what a worker reports of each, when it asks for the next, and how many run at once."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel, capturedLogs

from tests.connection.memory import packet
from tests.worker.played import GRAB, SLEEP, PlayedWorkerTestCase
from txgearman.errors import FailJob, JobFailed, JobOver
from txgearman.wire.packets import (
    ERROR,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    OPTION_RES,
)
from txgearman.worker import Job, Worker
from txgearman.worker.protocol import MAX_SPURIOUS_WAKEUPS, SPURIOUS_WAKEUP_BACKOFF, WRITE_BUFFER_SECONDS


class ReportTests(PlayedWorkerTestCase):
    def report_of(self, function: Any) -> tuple[Any, ...]:
        """What is reported of a job of this function; the next job is asked for behind it."""
        self.setUp()
        self.run_job = function
        self.start()
        self.assign()
        report, grab = self.server.heard()
        self.assertEqual(grab, GRAB)
        return report

    def test_results(self) -> None:
        async def coroutine(job: Job) -> bytes:
            await succeed(None)
            return job.data * 2

        async def nothing(job: Job) -> None:
            return None

        for function, result in {
            lambda job: b"a\0b": b"a\0b",
            lambda job: None: b"",
            lambda job: succeed(b"later"): b"later",
            lambda job: succeed(None): b"",
            coroutine: b"datadata",
            nothing: b"",
        }.items():
            self.assertEqual(self.report_of(function), ("WORK_COMPLETE", b"H:1", result))

    def test_exceptions(self) -> None:
        def raises(job: Job) -> bytes:
            raise LookupError("größe")

        async def coroutine(job: Job) -> bytes:
            await succeed(None)
            raise LookupError("größe")

        for function in (raises, coroutine, lambda job: fail(LookupError("größe"))):
            with self.subTest(function):
                report = self.report_of(function)
                self.assertEqual(report, ("WORK_EXCEPTION", b"H:1", "LookupError: größe".encode()))
                self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_what_is_not_bytes_is_the_jobs_failure(self) -> None:
        for value in ("text", succeed("text"), 7):
            name, handle, text = self.report_of(lambda job, value=value: value)
            self.assertEqual((name, handle), ("WORK_EXCEPTION", b"H:1"))
            self.assertRegex(text, b"^TypeError: the function f must return bytes or None, not (str|int)$")
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_result_larger_than_a_packet_is_the_jobs_failure(self) -> None:
        results = iter([bytes(96), bytes(97)])
        self.run_job = lambda job: next(results)
        self.start(max_packet=100)
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", bytes(96)), GRAB])
        self.assign()
        name, handle, text = self.server.heard()[0]
        self.assertEqual((name, handle), ("WORK_EXCEPTION", b"H:1"))
        self.assertIn(b"at most 100", text)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_failing_a_job_on_purpose(self) -> None:
        def fails(job: Job) -> bytes:
            raise FailJob("not today")

        async def coroutine(job: Job) -> bytes:
            raise FailJob("not today")

        for function in (fails, coroutine, lambda job: fail(FailJob("not today"))):
            with capturedLogs() as logs:
                self.assertEqual(self.report_of(function), ("WORK_FAIL", b"H:1"))
            self.assertEqual(
                [e["log_level"] for e in logs if "not today" in str(e.get("error"))], [LogLevel.info]
            )

    def test_failing_with_data_of_its_own(self) -> None:
        failure = FailJob("not today", data=b"a\0\xff")
        self.run_job = lambda job: fail(failure)
        self.start(max_packet=100)
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_EXCEPTION", b"H:1", b"a\0\xff"), GRAB])
        failure = FailJob("too much", data=bytes(97))
        with capturedLogs() as logs:
            self.assign()
        self.assertEqual(self.server.heard(), [("WORK_FAIL", b"H:1"), GRAB])
        self.assertIn("at most 100", str([e.get("why") for e in logs]))
        self.assertRaises(TypeError, FailJob, "no", data="text")

    def test_failing_with_data_at_a_server_that_knows_no_exceptions(self) -> None:
        self.run_job = lambda job: fail(FailJob("not today", data=b"why"))
        self.start(exceptions=False)
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_FAIL", b"H:1"), GRAB])

    def test_a_failure_met_as_a_client_is_an_exception(self) -> None:
        report = self.report_of(lambda job: fail(JobFailed(b"H:9")))
        self.assertEqual(report, ("WORK_EXCEPTION", b"H:1", b"JobFailed: job H:9 failed"))
        self.flushLoggedErrors(JobFailed)

    def test_a_function_that_wants_to_end_the_process(self) -> None:
        def leave(job: Job) -> bytes:
            raise SystemExit(1)

        self.assertEqual(self.report_of(leave), ("WORK_EXCEPTION", b"H:1", b"SystemExit: 1"))
        self.flushLoggedErrors(SystemExit)

    def test_a_server_that_knows_no_exceptions_is_told_of_failures(self) -> None:
        self.run_job = lambda job: fail(LookupError("why"))
        self.start(exceptions=False)
        self.server.say(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
        self.server.say(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_FAIL", b"H:1"), GRAB])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1, "the cause is in the worker's log")

    def test_report_and_next_request_leave_in_one_write(self) -> None:
        self.start()
        writes: list[bytes] = []
        self.patch(self.server.transport, "write", writes.append)
        self.assign()
        self.assertEqual(len(writes), 1)

    def test_reports_of_one_read_leave_in_one_write_unless_a_job_takes_long(self) -> None:
        taken = iter([0.0, 0.0, 0.0, 2 * WRITE_BUFFER_SECONDS, 0.0])
        self.run_job = lambda job: self.takes(next(taken))
        self.start(concurrency=10)
        writes: list[bytes] = []
        transport: Any = self.server.transport
        transport.write = writes.append
        self.server.send(
            b"".join(packet(JOB_ASSIGN_UNIQ, b"H:%d" % number, b"f", b"", b"") for number in range(5))
        )
        reports = [re.findall(rb"H:\d", write) for write in writes]
        self.assertEqual(reports, [[b"H:0", b"H:1", b"H:2"], [b"H:3"], [b"H:4"]])

    def takes(self, seconds: float) -> bytes:
        self.clock.rightNow += seconds
        return b"r"

    def test_what_a_function_is_given(self) -> None:
        given: list[tuple[Any, ...]] = []

        def function(job: Job) -> None:
            given.append((job.handle, job.function, job.unique, job.reducer, job.data))
            self.assertFalse(job.over)
            self.assertIn("H:1", repr(job))

        self.run_job = function
        self.start()
        self.server.say(JOB_ASSIGN, b"H:1", b"f", b"a\0b")
        self.server.say(JOB_ASSIGN_UNIQ, b"H:1", b"f", b"k", b"a\0b")
        self.server.say(JOB_ASSIGN_ALL, b"H:1", b"f", b"k", b"sum", b"a\0b")
        self.server.say(JOB_ASSIGN_ALL, b"H:1", b"f", b"", b"", b"")
        self.assertEqual(
            given,
            [
                (b"H:1", b"f", b"", None, b"a\0b"),
                (b"H:1", b"f", b"k", None, b"a\0b"),
                (b"H:1", b"f", b"k", b"sum", b"a\0b"),
                (b"H:1", b"f", b"", None, b""),
            ],
        )


class SendTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.result: Deferred[bytes] = Deferred()
        self.jobs: list[Job] = []

    def run_job(self, job: Job) -> Deferred[bytes]:
        self.jobs.append(job)
        return self.result

    def test_what_is_sent_ahead_of_the_result(self) -> None:
        self.start(max_packet=100)
        self.assign()
        (job,) = self.jobs
        job.send_data(b"a\0b")
        self.assertEqual(self.server.heard(), [("WORK_DATA", b"H:1", b"a\0b")], "it leaves at once")
        job.send_warning(b"")
        job.send_status(1, 3)
        job.send_data(bytes(96))
        self.result.callback(b"r")
        self.assertEqual(
            self.server.heard(),
            [
                ("WORK_WARNING", b"H:1", b""),
                ("WORK_STATUS", b"H:1", b"1", b"3"),
                ("WORK_DATA", b"H:1", bytes(96)),
                ("WORK_COMPLETE", b"H:1", b"r"),
                GRAB,
            ],
        )

    def test_what_cannot_be_sent(self) -> None:
        self.start(max_packet=100)
        self.assign()
        (job,) = self.jobs
        for call in (
            lambda: job.send_data("text"),  # type: ignore[arg-type]
            lambda: job.send_warning(None),  # type: ignore[arg-type]
            lambda: job.send_status(0.5, 1),  # type: ignore[arg-type]
            lambda: job.send_status(b"1", 1),  # type: ignore[arg-type]
        ):
            with self.assertRaises(TypeError):
                call()
        for refused in (lambda: job.send_data(bytes(97)), lambda: job.send_status(-1, 1)):
            with self.assertRaises(ValueError):
                refused()
        self.assertEqual(self.server.heard(), [])

    def test_nothing_is_sent_for_a_job_that_is_over(self) -> None:
        self.start()
        self.assign()
        self.result.callback(b"r")
        self.server.heard()
        (job,) = self.jobs
        self.assertTrue(job.over)
        for call in (
            lambda: job.send_data(b""),
            lambda: job.send_warning(b""),
            lambda: job.send_status(0, 1),
        ):
            with self.assertRaises(JobOver):
                call()
        self.assertEqual(self.server.heard(), [])


class LoopTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.results: dict[bytes, Deferred[bytes]] = {}

    def run_job(self, job: Job) -> Deferred[bytes]:
        self.results[job.handle] = Deferred()
        return self.results[job.handle]

    def test_a_worker_without_a_job_sleeps_until_it_is_woken(self) -> None:
        self.start()
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [SLEEP])
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [GRAB])
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [], "one request at a time")
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [SLEEP])

    def wake_spuriously(self, times: int) -> None:
        for _ in range(times):
            self.server.say(NOOP)
            self.assertEqual(self.server.heard(), [GRAB])
            self.server.say(NO_JOB)
            self.assertEqual(self.server.heard(), [SLEEP])

    def test_endless_spurious_wakeups_are_answered_with_backoff(self) -> None:
        self.start(concurrency=2)
        self.server.say(NO_JOB)
        self.server.heard()
        self.wake_spuriously(MAX_SPURIOUS_WAKEUPS)
        self.server.say(NOOP)
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [])
        self.clock.advance(SPURIOUS_WAKEUP_BACKOFF)
        self.assertEqual(self.server.heard(), [GRAB])
        self.server.say(NO_JOB)
        self.server.heard()
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [], "it goes on pausing")
        self.clock.advance(SPURIOUS_WAKEUP_BACKOFF)
        self.assign(b"H:1")
        self.assertEqual(self.server.heard(), [GRAB, GRAB])
        self.server.say(NO_JOB)
        self.server.heard()
        self.wake_spuriously(MAX_SPURIOUS_WAKEUPS)

    def test_wakes_after_a_real_sleep_are_not_counted(self) -> None:
        self.start()
        self.server.say(NO_JOB)
        self.server.heard()
        for _ in range(3 * MAX_SPURIOUS_WAKEUPS):
            self.clock.advance(2 * SPURIOUS_WAKEUP_BACKOFF)
            self.wake_spuriously(1)

    def test_nothing_is_asked_for_during_the_pause(self) -> None:
        self.start(concurrency=2)
        self.assign(b"H:1")
        self.server.say(NO_JOB)
        self.server.heard()
        self.wake_spuriously(MAX_SPURIOUS_WAKEUPS)
        self.server.say(NOOP)
        self.results[b"H:1"].callback(b"r")
        self.worker.register("g", self.run_job)
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), ("CAN_DO", b"g")])
        self.server.lose()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1, "only the next attempt to connect is left")

    def test_one_job_at_a_time_by_default(self) -> None:
        self.start()
        self.assign(b"H:1")
        self.assertEqual(self.server.heard(), [])
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [], "a worker that is not asleep is not woken")
        self.results[b"H:1"].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])

    def test_as_many_as_it_is_told_to(self) -> None:
        self.start(concurrency=3)
        for handle in (b"H:1", b"H:2"):
            self.assign(handle)
            self.assertEqual(self.server.heard(), [GRAB], "no more than there is room for")
        self.assign(b"H:3")
        self.assertEqual(self.server.heard(), [])
        for handle in (b"H:2", b"H:1"):
            self.results[handle].callback(b"r")
            self.assertEqual(self.server.heard(), [("WORK_COMPLETE", handle, b"r"), GRAB])
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [], "one more answer is due")
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [SLEEP])
        self.results[b"H:3"].callback(b"r")
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:3", b"r")], "the server wakes it")
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [GRAB])

    def test_one_handle_twice(self) -> None:
        """A server that took a job back at its time limit may give it to the same worker again."""
        self.start(concurrency=2)
        self.assign(b"H:1")
        first = self.results[b"H:1"]
        self.assign(b"H:1")
        self.server.heard()
        first.callback(b"first")
        self.results[b"H:1"].callback(b"second")
        self.assertEqual(
            self.server.heard(),
            [("WORK_COMPLETE", b"H:1", b"first"), GRAB, ("WORK_COMPLETE", b"H:1", b"second"), GRAB],
        )

    def test_concurrency_is_at_least_one(self) -> None:
        with self.assertRaises(ValueError):
            Worker(self.clock, self.endpoint, concurrency=0)

    def test_errors_of_the_server_are_logged_and_survived(self) -> None:
        self.start()
        with capturedLogs() as logs:
            self.server.say(ERROR, b"JOB_NOT_FOUND", b"Job given in work result not found")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn])
        self.assign()
        self.results[b"H:1"].errback(LookupError())
        self.assertEqual(self.server.heard(), [("WORK_EXCEPTION", b"H:1", b"LookupError"), GRAB])
        self.flushLoggedErrors(LookupError)

    def test_what_is_not_for_workers_is_ignored(self) -> None:
        self.start()
        with capturedLogs() as logs:
            self.server.say(JOB_CREATED, b"H:1")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.debug])
        self.assertFalse(self.server.transport.disconnecting)

    def test_packets_cut_anywhere(self) -> None:
        self.start()
        stream = packet(OPTION_RES, b"exceptions") + packet(JOB_ASSIGN_UNIQ, b"H:1", b"f", b"", b"a\0b")
        for cut in range(len(stream)):
            self.server.send(stream[:cut])
            self.server.send(stream[cut:])
            self.results.pop(b"H:1").callback(b"r")
            self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])


class LostTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.result: Deferred[bytes] = Deferred()
        self.jobs: list[Job] = []

    def run_job(self, job: Job) -> Any:
        self.jobs.append(job)
        return self.result

    def test_a_running_job_is_cancelled_and_its_outcome_discarded(self) -> None:
        cancelled: list[Deferred[bytes]] = []
        self.result = Deferred(cancelled.append)
        self.start()
        self.assign()
        with capturedLogs() as logs:
            self.server.lose()
        self.assertEqual(cancelled, [self.result])
        discarded = [event for event in logs if event["log_level"] is LogLevel.warn]
        self.assertEqual(len(discarded), 1)
        self.assertEqual(discarded[0]["job"].handle, b"H:1")
        with self.assertRaises(JobOver):
            self.jobs[0].send_data(b"")
        self.assertEqual(self.server.heard(), [])

    def test_a_coroutine_can_clean_up(self) -> None:
        seen: list[str] = []
        waiting: Deferred[None] = Deferred()

        async def function(job: Job) -> bytes:
            try:
                await waiting
            except CancelledError:
                seen.append("cancelled")
                raise
            return b""

        self.run_job = function
        self.start()
        self.assign()
        with capturedLogs():
            self.server.lose()
        self.assertEqual(seen, ["cancelled"])

    def test_one_that_will_not_be_cancelled_is_not_reported(self) -> None:
        stubborn: Deferred[bytes] = Deferred()
        inner: Deferred[bytes] = Deferred(lambda cancelled: None)
        inner.addErrback(lambda failure: stubborn)
        self.result = inner
        self.start()
        self.assign()
        with capturedLogs():
            self.server.lose()
        self.clock.advance(100)
        self.assertNotIn(GRAB, self.server.heard(), "its slot is held as long as it runs")
        stubborn.callback(b"late")
        self.assertEqual(self.server.heard(), [GRAB])

    def test_cancelling_that_raises_hinders_no_other(self) -> None:
        def broken(cancelled: Deferred[bytes]) -> None:
            raise LookupError("my own fault")

        second: list[Deferred[bytes]] = []
        results = iter([Deferred(broken), Deferred(second.append)])
        self.run_job = lambda job: next(results)
        self.start(concurrency=2)
        self.assign(b"H:1")
        self.assign(b"H:2")
        with capturedLogs():
            self.server.lose()
        self.assertEqual(len(second), 1)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_a_function_that_stops_the_worker(self) -> None:
        def stop(job: Job) -> bytes:
            self.worker.stop()
            return b"r"

        self.run_job = stop
        self.start()
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"r")], "it is the last")
        self.server.hang_up()

    def test_one_that_stops_the_worker_and_goes_on(self) -> None:
        cancelled: list[Deferred[bytes]] = []

        def stop(job: Job) -> Deferred[bytes]:
            self.worker.stop(0)
            return Deferred(cancelled.append)

        self.run_job = stop
        self.start()
        with capturedLogs():
            self.assign()
        self.assertEqual(len(cancelled), 1)
        self.server.hang_up()
