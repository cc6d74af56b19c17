"""Results of offline jobs: what a client asks for, what the answers become, and what happens meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.client.played import PlayedClientTestCase
from tests.client.several import SeveralServersTestCase
from txgearman.errors import (
    BadPayload,
    ConnectionLost,
    JobFailed,
    JobRaised,
    NotConnected,
    NotSupported,
    ResultGone,
    ResultPending,
    ServerError,
    TimedOut,
    UnknownJob,
)
from txgearman.server import Settings
from txgearman.server.config.options import FunctionSettings
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import ECHO_RES, ERROR, JOB_CREATED, OPTION_RES, RESULT_RES

ASK = ("GET_RESULT", b"H:1", b"0")
WAIT = ("GET_RESULT", b"H:1", b"1")
OPTION = ("OPTION_REQ", b"results")
RUNNING = (b"H:1", b"pending", b"running", b"")
DONE = (b"H:1", b"completed", b"", b"a\0b")


class ResultTestCase(PlayedClientTestCase):
    def ask(self, wait: bool = False, **options: Any) -> Deferred[Any]:
        """Ask for the result, on a connection whose server has the option."""
        asked = self.client.result("H:1", wait=wait, **options)
        if self.server.heard() == [OPTION]:
            self.server.say(OPTION_RES, b"results")
            self.assertEqual(self.server.heard(), [ASK])
        return asked

    def wait(self, **options: Any) -> Deferred[Any]:
        """Wait for the result of a job that runs."""
        waiting = self.ask(wait=True, **options)
        self.server.say(RESULT_RES, *RUNNING)
        self.assertEqual(self.server.heard(), [WAIT])
        self.server.say(RESULT_RES, *RUNNING)
        self.assertNoResult(waiting)
        return waiting


class AnswerTests(ResultTestCase):
    def test_the_option_is_asked_for_once_on_a_connection(self) -> None:
        first = self.ask()
        self.server.say(RESULT_RES, *DONE)
        self.assertEqual(self.successResultOf(first), b"a\0b")
        second = self.client.result(b"H:1")
        self.assertEqual(self.server.heard(), [ASK])
        self.server.say(RESULT_RES, *DONE)
        self.assertEqual(self.successResultOf(second), b"a\0b")

    def test_what_the_answers_become(self) -> None:
        for answer, error, text in (
            ((b"pending", b"retrying", b""), ResultPending, "no result yet: it is retrying"),
            ((b"failed", b"failed", b""), JobFailed, "failed"),
            ((b"failed", b"timed-out", b"too slow"), JobFailed, "failed"),
            ((b"failed", b"raised", b"oh\0no"), JobRaised, "raised: oh\0no"),
            ((b"too-large", b"", b""), ResultGone, "too large to be kept"),
            ((b"gone", b"completed", b""), ResultGone, "its result is not kept"),
            ((b"gone", b"cancelled", b""), ResultGone, "ended as cancelled"),
            ((b"unknown", b"", b""), UnknownJob, "no server knows of the job H:1"),
            ((b"in the future", b"perhaps", b""), ResultGone, "ended as perhaps"),
        ):
            asked = self.ask()
            self.server.heard()
            self.server.say(RESULT_RES, b"H:1", *answer)
            failure = self.failureResultOf(asked, error)
            self.assertIn(text, str(failure.value))
            self.assertEqual(failure.value.handle, b"H:1")

    def test_a_server_without_results(self) -> None:
        first, second = self.client.result("H:1"), self.client.result("H:2")
        self.assertEqual(self.server.heard(), [OPTION])
        self.server.say(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
        for asked in (first, second):
            error = self.failureResultOf(asked, NotSupported).value
            self.assertIn("lacks the extension results", str(error))
        self.failureResultOf(self.client.result("H:1"), NotSupported)
        self.assertEqual(self.server.heard(), [])

    def test_a_refusal(self) -> None:
        asked = self.ask()
        self.server.say(ERROR, b"ACCESS_DENIED", b"You may not see the results of jobs")
        self.assertEqual(self.failureResultOf(asked, ServerError).value.code, "ACCESS_DENIED")

    def test_wrong_arguments(self) -> None:
        with self.assertRaises(TypeError):
            self.client.result(7)  # type: ignore[arg-type]
        for handle, timeout in ((b"H" * 64, None), ("a\0b", None), ("H:1", -1.0)):
            with self.assertRaises(ValueError):
                self.client.result(handle, timeout=timeout)

    def test_an_answer_that_nobody_asked_for(self) -> None:
        self.server.say(RESULT_RES, *DONE)
        self.assertFalse(self.server.transport.disconnecting)
        with capturedLogs():
            self.server.say(RESULT_RES, *RUNNING)
        self.assertTrue(self.server.transport.disconnected)


class WaitTests(ResultTestCase):
    def test_it_holds_up_no_other_request(self) -> None:
        waiting = self.wait()
        echo, submitted = self.client.echo(b"e"), self.client.submit("f", b"")
        self.server.say(ECHO_RES, b"e")
        self.successResultOf(echo)
        self.server.say(RESULT_RES, *DONE)
        self.assertEqual(self.successResultOf(waiting), b"a\0b")
        self.server.say(JOB_CREATED, b"H:2")
        self.successResultOf(submitted)

    def test_several_who_wait_for_one_job_share_a_wait(self) -> None:
        first = self.wait()
        second = self.client.result("H:1")
        self.assertEqual(self.server.heard(), [ASK])
        self.server.say(RESULT_RES, *RUNNING)
        self.assertEqual(self.server.heard(), [])
        self.server.say(RESULT_RES, b"H:1", b"failed", b"raised", b"why")
        for waiting in (first, second):
            self.failureResultOf(waiting, JobRaised)

    def test_the_time_is_over(self) -> None:
        waiting, other = self.wait(timeout=5), self.client.result("H:1", timeout=10)
        self.server.say(RESULT_RES, *RUNNING)
        self.clock.advance(5)
        self.failureResultOf(waiting, TimedOut)
        self.assertNoResult(other)
        self.clock.advance(5)
        self.failureResultOf(other, TimedOut)
        self.server.say(RESULT_RES, *DONE)
        self.assertFalse(self.server.transport.disconnected)

    def test_a_cancelled_question_leaves_the_order_of_answers(self) -> None:
        asked = self.ask()
        echo = self.client.echo(b"e")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.server.say(RESULT_RES, *DONE)
        self.server.say(ECHO_RES, b"e")
        self.successResultOf(echo)

    def test_it_goes_on_when_the_server_is_back(self) -> None:
        waiting = self.wait()
        self.endpoint.refusal = OSError("down")
        self.server.lose()
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.endpoint.refusal = None
        self.clock.pump([1.0] * 30)
        self.assertEqual(len(self.endpoint.servers), 2)
        self.server.heard()
        self.server.say(OPTION_RES, b"exceptions")
        self.server.say(OPTION_RES, b"results")
        self.assertEqual(self.server.heard(), [ASK])
        self.server.say(RESULT_RES, *DONE)
        self.assertEqual(self.successResultOf(waiting), b"a\0b")

    def test_not_without_a_first_answer(self) -> None:
        asked = self.ask(wait=True)
        self.server.lose()
        self.failureResultOf(asked, ConnectionLost)

    def test_the_client_is_closed(self) -> None:
        waiting = self.wait()
        self.client.close()
        self.failureResultOf(waiting, ConnectionLost)
        self.failureResultOf(self.client.result("H:1"), NotConnected)


class SeveralServersTests(SeveralServersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def answer(self, index: int, *answer: bytes) -> None:
        self.endpoints[index].server.say(RESULT_RES, b"H:1", *answer)

    def ask(self, wait: bool) -> Deferred[Any]:
        asked = self.client.result("H:1", wait=wait)
        self.assertEqual(self.heard(), [[OPTION]] * 3)
        self.endpoints[0].server.say(ERROR, b"UNKNOWN_OPTION", b"no")
        for endpoint in self.endpoints[1:]:
            endpoint.server.say(OPTION_RES, b"results")
        self.assertEqual(self.heard(), [[], [ASK], [ASK]])
        return asked

    def test_one_that_knows_the_job_is_believed(self) -> None:
        asked = self.ask(wait=True)
        self.answer(1, b"unknown", b"", b"")
        self.answer(2, b"pending", b"queued", b"")
        self.assertEqual(self.heard(), [[], [], [WAIT]])
        self.answer(2, b"pending", b"running", b"")
        self.answer(2, b"completed", b"", b"x")
        self.assertEqual(self.successResultOf(asked), b"x")

    def test_none_knows_it(self) -> None:
        asked = self.ask(wait=True)
        self.answer(1, b"unknown", b"", b"")
        self.answer(2, b"unknown", b"", b"")
        self.failureResultOf(asked, UnknownJob)

    def test_the_others_are_not_believed_while_the_one_that_had_it_is_away(self) -> None:
        asked = self.ask(wait=True)
        self.answer(1, b"unknown", b"", b"")
        self.answer(2, b"pending", b"queued", b"")
        self.heard()
        self.endpoints[2].refusal = OSError("down")
        self.endpoints[2].server.lose()
        for _ in range(3):
            self.clock.advance(1)
            while self.endpoints[1].server.heard() == [ASK]:
                self.answer(1, b"unknown", b"", b"")
        self.assertNoResult(asked)
        self.clock.pump([1.0] * 5)
        # On one database the other one answers for it.
        self.answer(1, b"completed", b"", b"x")
        self.assertEqual(self.successResultOf(asked), b"x")


class InMemoryTests(SynchronousTestCase):
    """With a server of ours, as users' own tests have it."""

    def test_from_submit_to_result(self) -> None:
        settings = Settings(functions={"f": FunctionSettings(keep_results=60.0)})
        gearman = MemoryGearman(settings)
        client = gearman.client()
        job = gearman.wait(client.submit("f", b"x", background=True))
        pending = client.result(job, wait=False)
        gearman.turn()
        self.failureResultOf(pending, ResultPending)
        waiting = client.result(job)
        worker = gearman.worker()
        worker.register("f", lambda job: job.data.upper())
        gearman.wait(worker.start())
        self.assertEqual(gearman.wait(waiting), b"X")
        self.assertEqual(gearman.wait(client.result(job.handle)), b"X")
        gearman.clock.advance(60)
        gone = client.result(job)
        gearman.turn()
        self.assertEqual(self.failureResultOf(gone, ResultGone).value.reason, "completed")

    def test_the_codec_decodes(self) -> None:
        gearman = MemoryGearman(Settings(functions={"f": FunctionSettings(keep_results=60.0)}))
        client = gearman.client(codec="json")
        worker = gearman.worker()
        worker.register("f", lambda job: job.data)
        gearman.wait(worker.start())
        for data, value in (({"a": 1}, {"a": 1}), ("text", "text")):
            job = gearman.wait(client.submit("f", data, background=True))
            self.assertEqual(gearman.wait(client.result(job)), value)
        plain = gearman.client()
        job = gearman.wait(plain.submit("f", b"no JSON", background=True))
        self.assertEqual(gearman.wait(plain.result(job)), b"no JSON")
        asked = client.result(job.handle)
        gearman.turn()
        self.failureResultOf(asked, BadPayload)
