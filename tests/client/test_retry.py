"""Submissions with ``retry``: jobs that are lost with their server are submitted again, so often."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused

from tests.client.several import BACKOFF, SeveralServersTestCase
from txgearman.client import DataUpdate, Job
from txgearman.client.retrying import RETRY_SECONDS
from txgearman.errors import ConnectionLost, JobFailed, NotConnected, ServerError, TimedOut
from txgearman.wire.packets import ERROR, JOB_CREATED, WORK_COMPLETE, WORK_DATA, WORK_FAIL, WORK_STATUS


class RetryTestCase(SeveralServersTestCase):
    def running(self, retry: int, **options: Any) -> tuple[Job, int]:
        """A job that a server has accepted, and which one."""
        submitted = self.client.submit("f", b"data", retry=retry, **options)
        (index,) = self.where()
        self.endpoints[index].server.say(JOB_CREATED, b"H:1")
        return self.successResultOf(submitted), index

    def accept(self, handle: bytes) -> int:
        """Let the server that was asked accept the submission; returns which it is."""
        heard = self.heard()
        (index,) = [index for index, packets in enumerate(heard) if packets]
        self.assertEqual(heard[index], [("SUBMIT_JOB", b"f", b"", b"data")])
        self.endpoints[index].server.say(JOB_CREATED, handle)
        return index


class RunningJobTests(RetryTestCase):
    def test_it_runs_again_elsewhere(self) -> None:
        self.connect()
        job, index = self.running(retry=1)
        result = job.result()
        self.endpoints[index].server.lose()
        other = self.accept(b"H:2")
        self.assertNotEqual(other, index)
        self.assertEqual((job.handle, job.server), (b"H:2", f"#{other}"))
        self.assertNoResult(result)
        self.endpoints[other].server.say(WORK_COMPLETE, b"H:2", b"r")
        self.assertEqual(self.successResultOf(result), b"r")

    def test_so_often_and_no_more(self) -> None:
        self.connect()
        job, index = self.running(retry=2)
        result = job.result()
        for handle in (b"H:2", b"H:3"):
            self.endpoints[index].server.lose()
            index = self.accept(handle)
        self.assertNoResult(result)
        self.endpoints[index].server.lose()
        self.failureResultOf(result, ConnectionLost)
        self.assertEqual(self.where(), [])

    def test_updates_go_on(self) -> None:
        self.connect()
        job, index = self.running(retry=1)
        got: list[Any] = []
        job.on_data(got.append)
        self.endpoints[index].server.say(WORK_DATA, b"H:1", b"one")
        self.endpoints[index].server.lose()
        other = self.accept(b"H:2")
        self.endpoints[other].server.say(WORK_DATA, b"H:2", b"one")
        self.endpoints[other].server.say(WORK_STATUS, b"H:2", b"1", b"2")
        self.assertEqual((got, job.last_status), ([b"one", b"one"], (1, 2)))

        async def read() -> list[Any]:
            return [update async for update in job.updates()]

        reading = Deferred.fromCoroutine(read())
        self.endpoints[other].server.say(WORK_COMPLETE, b"H:2", b"")
        self.assertNotIn(DataUpdate(b"one"), self.successResultOf(reading))

    def test_what_the_worker_says_ends_it(self) -> None:
        self.connect()
        job, index = self.running(retry=5)
        self.endpoints[index].server.say(WORK_FAIL, b"H:1")
        self.failureResultOf(job.result(), JobFailed)
        self.endpoints[index].server.lose()
        self.assertEqual(self.where(), [])

    def test_it_waits_for_a_server(self) -> None:
        self.endpoints = self.endpoints[:1]
        self.connect()
        job, _index = self.running(retry=1)
        result = job.result()
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        self.clock.advance(BACKOFF)
        self.assertNoResult(result)
        self.endpoints[0].refusal = None
        self.clock.advance(BACKOFF)
        self.accept(b"H:2")
        self.endpoints[0].server.say(WORK_COMPLETE, b"H:2", b"r")
        self.assertEqual(self.successResultOf(result), b"r")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_has_found_a_server_does_not_go_on_waiting_for_the_others(self) -> None:
        self.connect()
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        for _ in range(5):
            _job, index = self.running(retry=1)
            self.endpoints[index].server.lose()
            self.accept(b"H:2")
            self.clock.advance(BACKOFF)
            self.heard()
        self.assertEqual(
            [server._persistent_waiters for server in self.client._dispatch.servers], [[], [], []]
        )

    def test_but_not_for_ever(self) -> None:
        for timeout, limit in ((None, RETRY_SECONDS), (25, 25)):
            self.setUp()
            self.connect()
            job, index = self.running(retry=9, timeout=timeout)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            result = job.result()
            for endpoint in self.endpoints:
                endpoint.refusal = Refused()
                if endpoint is not self.endpoints[index]:
                    endpoint.server.lose()
            self.endpoints[index].server.lose()
            self.clock.pump([0.1] * int(limit * 10 - 1))
            self.assertNoResult(result)
            self.clock.pump([0.1] * 2)
            self.failureResultOf(result, ConnectionLost)

    def test_a_server_that_refuses_it_ends_it(self) -> None:
        self.connect()
        job, index = self.running(retry=3)
        self.endpoints[index].server.lose()
        (other,) = self.where()
        self.endpoints[other].server.say(ERROR, b"QUEUE_ERROR", b"full")
        self.assertEqual(self.failureResultOf(job.result(), ServerError).value.code, "QUEUE_ERROR")

    def test_not_behind_close(self) -> None:
        self.connect()
        job, _index = self.running(retry=3)
        self.client.close()
        error = self.failureResultOf(job.result()).value
        self.assertIs(type(error), ConnectionLost)
        self.assertEqual(self.where(), [])

    def test_close_while_it_waits_for_a_server(self) -> None:
        self.endpoints = self.endpoints[:1]
        self.connect()
        job, _index = self.running(retry=3)
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        self.successResultOf(self.client.close())
        self.failureResultOf(job.result(), ConnectionLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_job_nobody_wants_any_more_is_not_submitted_again(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"data", retry=3)
        submitted.cancel()
        self.failureResultOf(submitted, CancelledError)
        (index,) = self.where()
        self.endpoints[index].server.say(JOB_CREATED, b"H:1")
        self.endpoints[index].server.lose()
        self.assertEqual(self.where(), [])

    def test_a_late_answer_to_a_submission_given_up(self) -> None:
        self.connect()
        for end in ("result", "loss"):
            self.setUp()
            self.connect()
            job, index = self.running(retry=5, timeout=5)
            result = job.result()
            self.endpoints[index].server.lose()
            (other,) = self.where()
            self.clock.advance(5)
            self.failureResultOf(result, ConnectionLost)
            self.endpoints[other].server.say(JOB_CREATED, b"H:2")
            if end == "result":
                self.endpoints[other].server.say(WORK_COMPLETE, b"H:2", b"late")
            else:
                self.endpoints[other].server.lose()
            self.failureResultOf(job.result(), ConnectionLost)
            self.assertEqual(self.where(), [])


class SubmissionTests(RetryTestCase):
    def test_it_waits_for_a_server(self) -> None:
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
        self.make()
        submitted = self.client.submit("f", b"data", retry=1)
        self.clock.advance(BACKOFF)
        self.assertNoResult(submitted)
        self.endpoints[2].refusal = None
        self.clock.advance(BACKOFF)
        self.accept(b"H:1")
        self.assertEqual(self.successResultOf(submitted).server, "#2")

    def test_but_not_for_ever(self) -> None:
        for timeout, limit in ((None, RETRY_SECONDS), (5, 5)):
            self.setUp()
            for endpoint in self.endpoints:
                endpoint.refusal = Refused()
            self.make()
            submitted = self.client.submit("f", b"data", retry=1, timeout=timeout)
            self.clock.pump([0.1] * int(limit * 10 - 1))
            self.assertNoResult(submitted)
            self.clock.pump([0.1] * 2)
            self.failureResultOf(submitted, TimedOut)

    def test_lost_before_it_was_accepted(self) -> None:
        """The other servers are free, then each round over the servers is one of the times."""
        self.endpoints = self.endpoints[:2]
        self.connect()
        submitted = self.client.submit("f", b"data", retry=1)
        for number in range(4):
            if number == 2:
                self.assertEqual(self.where(), [], "not at once, when all were tried")
                self.clock.advance(BACKOFF)
            self.assertNoResult(submitted)
            (index,) = self.where()
            self.endpoints[index].server.lose()
        self.failureResultOf(submitted, ConnectionLost)
        self.assertEqual(self.where(), [])

    def test_a_background_job(self) -> None:
        self.endpoints = self.endpoints[:1]
        self.connect()
        submitted = self.client.submit("f", b"data", retry=1, background=True)
        self.endpoints[0].server.lose()
        self.clock.advance(BACKOFF)
        self.assertEqual(self.heard(), [[("SUBMIT_JOB_BG", b"f", b"", b"data")]])
        self.endpoints[0].server.say(JOB_CREATED, b"H:1")
        self.successResultOf(submitted)
        self.endpoints[0].server.lose()
        self.clock.advance(BACKOFF)
        self.assertEqual(self.where(), [], "the server has it, so it is not lost")

    def refuse_all(self) -> None:
        """Let each server say that it is about to end, as it is asked."""
        for _ in self.endpoints:
            (index,) = self.where()
            self.endpoints[index].server.say(ERROR, b"SHUTTING_DOWN", b"The server is shutting down")

    def test_servers_that_are_about_to_end_are_waited_for(self) -> None:
        """While their connections last too, and it is none of the times."""
        self.connect()
        submitted = self.client.submit("f", b"data", retry=1)
        for _ in range(3):
            self.refuse_all()
            self.assertNoResult(submitted)
            self.assertEqual(self.where(), [], "not at once")
            self.clock.advance(1)
        self.endpoints[self.where()[0]].server.lose()
        self.accept(b"H:1")
        self.successResultOf(submitted)
        self.assertEqual(self.clock.getDelayedCalls(), self.backoffs())

    def backoffs(self) -> list[Any]:
        """The clock's calls that connect again."""
        return [server._backoff for server in self.client._dispatch.servers if server._backoff is not None]

    def test_but_not_for_ever_either(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"data", retry=1, timeout=0.01)
        self.refuse_all()
        self.clock.advance(0.01)
        self.failureResultOf(submitted, TimedOut)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nor_behind_close(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"data", retry=1)
        self.refuse_all()
        self.client.close()
        for endpoint in self.endpoints:
            endpoint.server.hang_up()
        self.failureResultOf(submitted, NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_job_that_was_lost_waits_for_servers_that_are_about_to_end(self) -> None:
        self.endpoints = self.endpoints[:1]
        self.connect()
        job, _index = self.running(retry=1)
        result = job.result()
        self.endpoints[0].server.lose()
        self.clock.advance(BACKOFF)
        self.refuse_all()
        self.assertNoResult(result)
        self.clock.advance(1)
        self.accept(b"H:2")
        self.endpoints[0].server.say(WORK_COMPLETE, b"H:2", b"r")
        self.assertEqual(self.successResultOf(result), b"r")

    def test_close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
        self.make()
        submitted = self.client.submit("f", b"data", retry=1)
        self.successResultOf(self.client.close())
        self.failureResultOf(submitted, NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bad_numbers(self) -> None:
        self.make()
        for retry in (-1, 1.5):
            with self.assertRaises(ValueError):
                self.client.submit("f", b"", retry=retry)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            self.client.submit("f", b"", retry=1, timeout=-1)
        self.assertEqual([endpoint.attempts for endpoint in self.endpoints], [0, 0, 0])
