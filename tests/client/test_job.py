"""A submitted job: its result, its updates, and several jobs under one handle."""

from __future__ import annotations

from gc import collect as collect_garbage
from typing import Any
from weakref import ref

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs

from tests.client.played import PlayedClientTestCase
from tests.connection.memory import packet, recorder
from txgearman.client import DataUpdate, Job, StatusUpdate, Update, WarningUpdate
from txgearman.client import job as job_module
from txgearman.errors import ConnectionLost, JobFailed, JobRaised, NoResult, TimedOut
from txgearman.wire.packets import (
    JOB_CREATED,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)


async def collect(job: Job, into: list[Any]) -> None:
    """Append each update to `into`, and the error behind them if there is one."""
    try:
        async for update in job.updates():
            into.append(update)  # noqa: PERF401 - the tests look at it while it goes on
    except Exception as error:
        into.append(error)


class ResultTests(PlayedClientTestCase):
    def test_each_who_asks_gets_the_result(self) -> None:
        job = self.created()
        before = [job.result(), job.result(timeout=5)]
        self.server.say(WORK_COMPLETE, b"H:1", b"a\0b")
        for result in (*before, job.result(), job.result(timeout=5)):
            self.assertEqual(self.successResultOf(result), b"a\0b")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_empty_result_is_one(self) -> None:
        job = self.created()
        self.server.say(WORK_COMPLETE, b"H:1", b"")
        self.assertEqual(self.successResultOf(job.result()), b"")

    def test_a_failed_job(self) -> None:
        job = self.created()
        before = job.result()
        self.server.say(WORK_FAIL, b"H:1")
        for result in (before, job.result()):
            self.assertEqual(self.failureResultOf(result, JobFailed).value.handle, b"H:1")

    def test_the_nul_that_gearmand_puts_behind_the_handle_of_a_failure(self) -> None:
        job = self.created()
        self.server.send(b"\0RES\0\0\0\x0e\0\0\0\x04H:1\0")
        self.failureResultOf(job.result(), JobFailed)

    def test_a_job_that_raised(self) -> None:
        job = self.created()
        self.server.say(WORK_EXCEPTION, b"H:1", b"ValueError: \0\xff")
        error = self.failureResultOf(job.result(), JobRaised).value
        self.assertEqual((error.handle, error.data), (b"H:1", b"ValueError: \0\xff"))

    def test_a_failure_nobody_asks_for_is_not_logged(self) -> None:
        for end in (packet(WORK_FAIL, b"H:1"), packet(WORK_EXCEPTION, b"H:1", b"why")):
            self.created()
            self.server.send(end)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_result_that_does_not_come_in_time(self) -> None:
        job = self.created()
        short, long = job.result(timeout=5), job.result()
        self.clock.advance(5)
        self.failureResultOf(short, TimedOut)
        self.assertNoResult(long)
        self.server.say(WORK_COMPLETE, b"H:1", b"late")
        self.assertEqual(self.successResultOf(long), b"late")
        self.assertEqual(self.successResultOf(job.result()), b"late")

    def test_bad_time_limits_raise(self) -> None:
        with self.assertRaises(ValueError):
            self.created().result(timeout=-1)

    def test_cancelling_ends_one_waiting_only(self) -> None:
        job = self.created()
        one, two = job.result(), job.result(timeout=5)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.assertNoResult(one)
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.assertEqual(self.successResultOf(one), b"r")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_those_who_gave_up_are_forgotten(self) -> None:
        job = self.created()
        result = job.result(timeout=5)
        self.clock.advance(5)
        self.failureResultOf(result, TimedOut)
        forgotten = ref(result)
        del result
        collect_garbage()
        self.assertIsNone(forgotten())
        self.assertNoResult(job.result())

    def test_one_who_is_told_can_cancel_the_others(self) -> None:
        job = self.created()
        first, second = job.result(), job.result()
        first.addCallback(lambda result: second.cancel())
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.failureResultOf(second, CancelledError)

    def test_one_who_is_told_can_ask_again(self) -> None:
        job = self.created()
        again: list[bytes] = []
        job.result().addCallback(lambda result: job.result().addCallback(recorder(again)))
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.assertEqual(again, [b"r"])

    def test_a_job_ends_once(self) -> None:
        job = self.created()
        with capturedLogs() as logs:
            self.server.say(WORK_COMPLETE, b"H:1", b"r")
            self.server.say(WORK_COMPLETE, b"H:1", b"again")
            self.server.say(WORK_FAIL, b"H:1")
            self.server.say(WORK_DATA, b"H:1", b"more")
        self.assertEqual(self.successResultOf(job.result()), b"r")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.debug] * 3)

    def test_a_background_job_has_no_result_and_no_updates(self) -> None:
        for options in ({"background": True}, {"run_at": 1000}, {"background": True, "reducer": "r"}):
            job = self.created(**options)
            self.assertTrue(job.background)
            self.failureResultOf(job.result(), NoResult)
            for ask in (
                job.updates,
                lambda job=job: job.on_data(print),
                lambda job=job: job.on_warning(print),
                lambda job=job: job.on_status(print),
            ):
                with self.assertRaises(NoResult):
                    ask()


class UpdateTests(PlayedClientTestCase):
    def tell_all(self) -> None:
        self.server.say(WORK_DATA, b"H:1", b"a\0b")
        self.server.say(WORK_WARNING, b"H:1", b"careful")
        self.server.say(WORK_STATUS, b"H:1", b"1", b"3")

    ALL: tuple[Update, ...] = (DataUpdate(b"a\0b"), WarningUpdate(b"careful"), StatusUpdate(1, 3))

    def test_iteration_follows_the_job_to_its_end(self) -> None:
        job = self.created()
        seen: list[Any] = []
        iterating = Deferred.fromCoroutine(collect(job, seen))
        self.tell_all()
        self.assertEqual(seen, list(self.ALL))
        self.tell_all()
        self.assertNoResult(iterating)
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.successResultOf(iterating)
        self.assertEqual(seen, list(self.ALL) * 2)
        self.assertEqual(self.successResultOf(job.result()), b"r")

    def test_updates_ahead_of_the_iteration_are_not_lost(self) -> None:
        job = self.created()
        self.tell_all()
        seen: list[Any] = []
        Deferred.fromCoroutine(collect(job, seen))
        self.assertEqual(seen, list(self.ALL))

    def test_updates_in_one_read_with_the_acceptance_and_the_end(self) -> None:
        submitted = self.client.submit("f", b"")
        self.server.send(
            packet(JOB_CREATED, b"H:1")
            + packet(WORK_DATA, b"H:1", b"d")
            + packet(WORK_COMPLETE, b"H:1", b"r")
        )
        job = self.successResultOf(submitted)
        seen: list[Any] = []
        self.successResultOf(Deferred.fromCoroutine(collect(job, seen)))
        self.assertEqual(seen, [DataUpdate(b"d")])

    def test_iteration_of_an_ended_job_without_updates(self) -> None:
        job = self.created()
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        seen: list[Any] = []
        self.successResultOf(Deferred.fromCoroutine(collect(job, seen)))
        self.assertEqual(seen, [])

    def test_iteration_raises_what_the_result_would(self) -> None:
        for end, error in (
            (lambda: self.server.say(WORK_FAIL, b"H:1"), JobFailed),
            (lambda: self.server.say(WORK_EXCEPTION, b"H:1", b"why"), JobRaised),
            (self.server.lose, ConnectionLost),
        ):
            before, after = [], []  # type: list[Any], list[Any]
            job = self.created()
            iterating = Deferred.fromCoroutine(collect(job, before))
            self.tell_all()
            end()
            self.successResultOf(iterating)
            self.assertEqual(before[:-1], list(self.ALL))
            self.assertIsInstance(before[-1], error)
            self.successResultOf(Deferred.fromCoroutine(collect(job, after)))
            self.assertIsInstance(after[-1], error, "also when the iteration begins after the end")

    def test_last_status(self) -> None:
        job = self.created()
        self.assertEqual(job.last_status, (0, 0))
        self.server.say(WORK_STATUS, b"H:1", b"1", b"3")
        self.assertEqual(job.last_status, (1, 3))
        self.server.say(WORK_STATUS, b"H:1", b"half", b"3 parts")
        self.assertEqual(job.last_status, (0, 3))

    def test_callbacks_take_the_updates_of_their_kind(self) -> None:
        job = self.created()
        data, warnings, statuses = [], [], []  # type: list[Any], list[Any], list[Any]
        self.tell_all()
        job.on_data(recorder(data))
        job.on_warning(recorder(warnings))
        self.tell_all()
        self.assertEqual((data, warnings), ([b"a\0b"] * 2, [b"careful"] * 2))
        job.on_status(recorder(statuses))
        self.assertEqual(statuses, [(1, 3)] * 2)
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        rest: list[Any] = []
        self.successResultOf(Deferred.fromCoroutine(collect(job, rest)))
        self.assertEqual(rest, [])

    def test_cancelling_an_iteration_leaves_the_updates_to_the_next(self) -> None:
        job = self.created()
        first, second = [], []  # type: list[Any], list[Any]
        iterating = Deferred.fromCoroutine(collect(job, first))
        self.server.say(WORK_DATA, b"H:1", b"1")
        iterating.cancel()
        self.successResultOf(iterating)
        self.assertEqual(first[0], DataUpdate(b"1"))
        self.assertIsInstance(first[1], CancelledError)
        self.server.say(WORK_DATA, b"H:1", b"2")
        Deferred.fromCoroutine(collect(job, second))
        self.assertEqual(second, [DataUpdate(b"2")])

    def test_an_abandoned_submission_keeps_nothing(self) -> None:
        submitted = self.client.submit("f", b"")
        submitted.cancel()
        self.failureResultOf(submitted, CancelledError)
        self.patch(job_module, "UpdateStream", None)
        with capturedLogs() as logs:
            self.server.say(JOB_CREATED, b"H:1")
            self.tell_all()
            self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.assertEqual(logs, [])


class SharedHandleTests(PlayedClientTestCase):
    """gearmand gives one handle for two submits of a unique, and sends each packet twice."""

    def test_each_packet_goes_to_one_of_the_jobs(self) -> None:
        jobs = [self.created(unique="k"), self.created(unique="k"), self.created(unique="k")]
        seen: list[list[bytes]] = [[], [], []]
        for job, into in zip(jobs, seen, strict=True):
            job.on_data(recorder(into))
        for data in (b"1", b"2"):
            self.server.send(packet(WORK_DATA, b"H:1", data) * 3)
        self.assertEqual(seen, [[b"1", b"2"]] * 3)
        results = [job.result() for job in jobs]
        self.server.send(packet(WORK_COMPLETE, b"H:1", b"r") * 3)
        self.assertEqual([self.successResultOf(result) for result in results], [b"r"] * 3)

    def test_one_that_joins_later(self) -> None:
        first = self.created(unique="k")
        one, two = [], []  # type: list[bytes], list[bytes]
        first.on_data(recorder(one))
        self.server.say(WORK_DATA, b"H:1", b"1")
        second = self.created(unique="k")
        second.on_data(recorder(two))
        self.server.send(packet(WORK_DATA, b"H:1", b"2") * 2)
        self.assertEqual((one, two), ([b"1", b"2"], [b"2"]))

    def test_a_cancelled_one_takes_its_share(self) -> None:
        job = self.created(unique="k")
        gone = self.client.submit("f", b"", unique="k")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.server.say(JOB_CREATED, b"H:1")
        seen: list[bytes] = []
        job.on_data(recorder(seen))
        with capturedLogs() as logs:
            self.server.send(packet(WORK_DATA, b"H:1", b"1") * 2)
            self.server.send(packet(WORK_COMPLETE, b"H:1", b"r") * 2)
        self.assertEqual(seen, [b"1"])
        self.assertEqual(self.successResultOf(job.result()), b"r")
        self.assertEqual(logs, [])

    def test_a_background_one_has_no_share(self) -> None:
        offline = self.created(unique="k", background=True)
        job = self.created(unique="k")
        self.assertEqual(offline.handle, job.handle)
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.assertEqual(self.successResultOf(job.result()), b"r")

    def test_all_fail_with_the_connection(self) -> None:
        jobs = [self.created(unique="k"), self.created(unique="k")]
        self.server.lose()
        for job in jobs:
            self.failureResultOf(job.result(), ConnectionLost)
