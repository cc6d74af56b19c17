"""Requests and their answers: each Deferred fires once, and with the answer to its own request."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, capturedLogs

from tests.client.played import EXCEPTIONS, PlayedClientTestCase
from tests.connection.memory import packet, recorder
from txgearman.client import Client, JobStatus, Priority
from txgearman.errors import ConnectionLost, NotConnected, ServerError, TimedOut
from txgearman.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    NOOP,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
)


class AnswerTests(PlayedClientTestCase):
    def test_a_submission_fires_with_the_job_once_it_is_accepted(self) -> None:
        submitted = self.client.submit("reverse", b"a\0b", unique="k", priority=Priority.HIGH)
        self.assertEqual(self.server.heard(), [("SUBMIT_JOB_HIGH", b"reverse", b"k", b"a\0b")])
        self.assertNoResult(submitted)
        self.server.say(JOB_CREATED, b"H:host:7")
        job = self.successResultOf(submitted)
        self.assertEqual(
            (job.handle, job.function, job.unique, job.background), (b"H:host:7", b"reverse", b"k", False)
        )
        self.assertIn("H:host:7", repr(job))

    def test_a_server_that_refuses_the_connection_says_why(self) -> None:
        self.client = Client(self.clock, self.endpoint, check_interval=None)
        self.successResultOf(self.client.connect())
        echo = self.client.echo(b"e")
        with capturedLogs():
            self.server.say(ERROR, b"TLS_REQUIRED", b"This port speaks TLS only")
        self.assertNoResult(echo)
        self.server.lose()
        error = self.failureResultOf(echo, ConnectionLost).value
        self.assertEqual(
            str(error), "no answer came: the server said TLS_REQUIRED: This port speaks TLS only"
        )
        self.assertIsInstance(error.__cause__, ServerError)

    def test_answers_go_to_the_requests_in_their_order(self) -> None:
        first = self.client.submit("f", b"1")
        echo = self.client.echo(b"e")
        second = self.client.submit("f", b"2", background=True)
        status = self.client.status(b"H:9")
        third = self.client.submit("f", b"3")
        self.assertEqual(len(self.server.heard()), 5)
        self.server.say(JOB_CREATED, b"H:1")
        self.assertEqual(self.successResultOf(first).handle, b"H:1")
        self.assertNoResult(echo)
        self.server.say(ECHO_RES, b"e")
        self.assertEqual(self.successResultOf(echo), b"e")
        self.server.say(ERROR, b"QUEUE_ERROR", b"Job queue is full")
        self.failureResultOf(second, ServerError)
        self.server.say(STATUS_RES, b"H:9", b"0", b"0", b"0", b"0")
        self.assertFalse(self.successResultOf(status).known)
        self.assertNoResult(third)
        self.server.say(JOB_CREATED, b"H:3")
        self.assertEqual(self.successResultOf(third).handle, b"H:3")

    def test_answers_cut_anywhere(self) -> None:
        stream = packet(JOB_CREATED, b"H:1") + packet(WORK_COMPLETE, b"H:1", b"a\0b") + packet(ECHO_RES, b"e")
        for cut in range(len(stream)):
            submitted, echo = self.client.submit("f", b""), self.client.echo(b"e")
            self.server.send(stream[:cut])
            self.server.send(stream[cut:])
            self.assertEqual(self.successResultOf(self.successResultOf(submitted).result()), b"a\0b")
            self.assertEqual(self.successResultOf(echo), b"e")

    def test_an_error_says_what_the_server_said(self) -> None:
        submitted = self.client.submit("f", b"")
        self.server.say(ERROR, b"QUEUE_ERROR", "voll: größe \udcff".encode("utf-8", "surrogateescape"))
        error = self.failureResultOf(submitted, ServerError).value
        self.assertEqual((error.code, error.text), ("QUEUE_ERROR", "voll: größe \\xff"))

    def test_wrong_arguments_raise_at_the_call_and_send_nothing(self) -> None:
        client = Client(self.clock, self.endpoint, max_packet=10)
        for call in (
            lambda: client.submit("f", "text"),  # type: ignore[arg-type]
            lambda: client.echo("text"),  # type: ignore[arg-type]
            lambda: client.status(7),  # type: ignore[arg-type]
        ):
            with self.assertRaises(TypeError):
                call()
        for refused in (
            lambda: client.submit("f", b"12345678"),
            lambda: client.submit("f", b"", timeout=-1),
            lambda: client.echo(b"12345678901"),
            lambda: client.echo(b"", timeout=float("nan")),
            lambda: client.connect(timeout=-1),
            lambda: client.status(b"H" * 64),
            lambda: client.status_by_unique("k" * 65),
            lambda: client.status_by_unique("a\0b"),
        ):
            with self.assertRaises(ValueError):
                refused()
        self.assertEqual(self.endpoint.attempts, 1, "only the connection of setUp")

    def test_what_is_not_for_clients_is_ignored(self) -> None:
        echo = self.client.echo(b"e")
        with capturedLogs() as logs:
            self.server.say(NOOP)
        self.server.say(ECHO_RES, b"e")
        self.successResultOf(echo)
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.debug])

    def test_an_error_nobody_asked_for_is_logged_and_survived(self) -> None:
        with capturedLogs() as logs:
            self.server.say(ERROR, b"SERVER_ERROR", b"out of sorts")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn])
        echo = self.client.echo(b"e")
        self.server.say(ECHO_RES, b"e")
        self.successResultOf(echo)

    def test_an_answer_out_of_turn_drops_the_connection(self) -> None:
        for name, answer in {
            "another packet": packet(ECHO_RES, b"e"),
            "the option again": packet(OPTION_RES, b"exceptions"),
            "of another job": packet(STATUS_RES, b"H:10", b"1", b"1", b"0", b"0"),
        }.items():
            with self.subTest(name):
                self.setUp()
                status, submitted = self.client.status(b"H:1"), self.client.submit("f", b"")
                with capturedLogs() as logs:
                    self.server.send(answer)
                self.failureResultOf(status, ConnectionLost)
                self.failureResultOf(submitted, ConnectionLost)
                self.assertTrue(self.server.transport.disconnected)
                self.assertEqual([event["log_level"] for event in logs], [LogLevel.error])

    def test_an_answer_without_a_request_drops_the_connection(self) -> None:
        with capturedLogs():
            self.server.say(JOB_CREATED, b"H:1")
        self.assertTrue(self.server.transport.disconnected)

    def test_many_submissions_are_written_without_waiting_for_answers(self) -> None:
        submitted = [self.client.submit("f", b"%d" % number) for number in range(100)]
        self.assertEqual([heard[3] for heard in self.server.heard()], [b"%d" % n for n in range(100)])
        self.server.send(b"".join(packet(JOB_CREATED, b"H:%d" % number) for number in range(100)))
        self.assertEqual(
            [self.successResultOf(d).handle for d in submitted], [b"H:%d" % n for n in range(100)]
        )


class StatusTests(PlayedClientTestCase):
    def test_of_a_handle(self) -> None:
        job = self.created(b"H:1")
        for asked in (job, b"H:1", "H:1"):
            status = self.client.status(asked)
            self.assertEqual(self.server.heard(), [("GET_STATUS", b"H:1")])
            self.server.say(STATUS_RES, b"H:1", b"1", b"0", b"3", b"10")
            self.assertEqual(self.successResultOf(status), JobStatus(True, False, 3, 10, None))

    def test_of_a_unique(self) -> None:
        status = self.client.status_by_unique("k")
        self.assertEqual(self.server.heard(), [("GET_STATUS_UNIQUE", b"k")])
        self.server.say(STATUS_RES_UNIQUE, b"k", b"1", b"1", b"3", b"10", b"2")
        self.assertEqual(self.successResultOf(status), JobStatus(True, True, 3, 10, 2))

    def test_numbers_that_are_none(self) -> None:
        for text, number in {
            b"": 0,
            b"abc": 0,
            b"1.5": 1,
            b" 7": 7,
            b"-3": -3,
            b"12abc": 12,
            b"1_000": 1,
            b"4294967295": 4294967295,
            b"9" * 5000: int(b"9" * 20),
            "٣".encode(): 0,
        }.items():
            status = self.client.status(b"H:1")
            self.server.say(STATUS_RES, b"H:1", b"1", b"1", text, b"0")
            self.assertEqual(self.successResultOf(status).numerator, number)


class CancelTests(PlayedClientTestCase):
    def test_a_cancelled_submission_leaves_the_order_of_answers(self) -> None:
        first, second = self.client.submit("f", b"1"), self.client.submit("f", b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        with capturedLogs() as logs:
            self.server.say(JOB_CREATED, b"H:1")
            self.server.say(JOB_CREATED, b"H:2")
            job = self.successResultOf(second)
            self.assertEqual(job.handle, b"H:2")
            self.server.say(WORK_COMPLETE, b"H:1", b"ignored")
        self.assertEqual(logs, [], "its job's packets are expected")
        self.server.say(WORK_COMPLETE, b"H:2", b"two")
        self.assertEqual(self.successResultOf(job.result()), b"two")

    def test_a_cancelled_submission_that_is_refused(self) -> None:
        first, second = self.client.submit("f", b"1"), self.client.submit("f", b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.server.say(ERROR, b"QUEUE_ERROR", b"Job queue is full")
        self.assertNoResult(second)

    def test_cancelled_questions(self) -> None:
        for ask, answer in (
            (lambda: self.client.echo(b"e"), packet(ECHO_RES, b"e")),
            (lambda: self.client.status(b"H"), packet(STATUS_RES, b"H", b"0", b"0", b"0", b"0")),
        ):
            first, second = ask(), ask()
            first.cancel()
            self.failureResultOf(first, CancelledError)
            self.server.send(answer)
            self.assertNoResult(second)
            self.server.send(answer)
            self.successResultOf(second)

    def test_what_was_cancelled_is_not_told_of_the_lost_connection(self) -> None:
        submitted = self.client.submit("f", b"1")
        submitted.cancel()
        self.failureResultOf(submitted, CancelledError)
        self.server.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class TimeOutTests(PlayedClientTestCase):
    def test_a_request_that_is_not_answered_in_time(self) -> None:
        submitted = self.client.submit("f", b"", timeout=5)
        echo = self.client.echo(b"e", timeout=6)
        self.clock.advance(4.9)
        self.assertNoResult(submitted)
        self.clock.advance(0.1)
        self.assertIn("5", str(self.failureResultOf(submitted, TimedOut).value))
        self.assertNoResult(echo)
        self.server.say(JOB_CREATED, b"H:1")
        self.server.say(ECHO_RES, b"e")
        self.assertEqual(self.successResultOf(echo), b"e")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_news_of_a_job_whose_submission_timed_out_are_ignored(self) -> None:
        submitted = self.client.submit("f", b"", timeout=5)
        self.clock.advance(5)
        self.failureResultOf(submitted, TimedOut)
        self.server.say(JOB_CREATED, b"H:1")
        self.server.say(WORK_COMPLETE, b"H:1", b"late")
        self.server.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class LostTests(PlayedClientTestCase):
    def test_all_that_waits_fails_once(self) -> None:
        job = self.created()
        waiting = [
            self.client.submit("f", b""),
            self.client.echo(b""),
            self.client.status(b"H"),
            self.client.status_by_unique(b"k"),
            job.result(),
            job.result(),
        ]
        self.server.lose(ConnectionDone())
        for deferred in waiting:
            self.assertIn("closed cleanly", str(self.failureResultOf(deferred, ConnectionLost).value))
        self.failureResultOf(job.result(), ConnectionLost)

    def test_each_failure_is_an_exception_of_its_own(self) -> None:
        job = self.created()
        results = [job.result(), job.result()]
        self.server.lose()
        one, two = (self.failureResultOf(result).value for result in results)
        self.assertIsNot(one, two)

    def test_what_ended_before_keeps_its_result(self) -> None:
        job = self.created()
        self.server.say(WORK_COMPLETE, b"H:1", b"r")
        self.server.lose()
        self.assertEqual(self.successResultOf(job.result()), b"r")

    def test_jobs_nobody_asks_about_log_nothing(self) -> None:
        self.created()
        self.server.lose()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_asking_again_when_told_of_the_loss_takes_a_new_connection(self) -> None:
        retried: list[object] = []
        echo = self.client.echo(b"1")
        echo.addErrback(lambda failure: self.client.echo(b"2").addCallback(recorder(retried)))
        other = self.client.echo(b"3")
        lost = self.server
        lost.lose()
        self.failureResultOf(other, ConnectionLost)
        self.assertEqual(self.endpoint.attempts, 2)
        self.assertEqual(self.server.heard(), [EXCEPTIONS, ("ECHO_REQ", b"2")])
        self.server.say(OPTION_RES, b"exceptions")
        self.server.say(ECHO_RES, b"2")
        self.assertEqual(retried, [b"2"])


class OptionTests(PlayedClientTestCase):
    def test_a_server_without_exceptions_is_used_all_the_same(self) -> None:
        client = Client(self.clock, self.endpoint)
        echo = client.echo(b"e")
        with capturedLogs() as logs:
            self.server.say(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn])
        self.assertNoResult(echo)
        self.server.say(ECHO_RES, b"e")
        self.successResultOf(echo)

    def test_a_connection_lost_before_the_option_is_answered(self) -> None:
        client = Client(self.clock, self.endpoint)
        self.successResultOf(client.connect())
        self.server.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class HungServerTests(PlayedClientTestCase):
    def test_a_request_that_is_not_answered_finds_a_server_that_hangs(self) -> None:
        self.client = Client(self.clock, self.endpoint)
        self.successResultOf(self.client.connect())
        self.server.say(OPTION_RES, b"exceptions")
        self.clock.advance(25)
        submitted = self.client.submit("f", b"data")
        with capturedLogs() as logs:
            self.clock.pump([9.9, 0.1, 0])
        self.failureResultOf(submitted, ConnectionLost)
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.warn])

    def test_a_server_that_hangs_counts_again_when_it_answers(self) -> None:
        self.client = Client(self.clock, self.endpoint, retry_policy=lambda attempt: 1.0)
        self.successResultOf(self.client.connect())
        with capturedLogs():
            self.clock.pump([30, 10, 0])
            self.assertEqual(list(self.client.servers.values()), [False])
            # Its system takes the connection, and nothing answers on it.
            self.clock.advance(1)
            self.assertEqual(self.server.heard(), [EXCEPTIONS, ("ECHO_REQ", b"")])
            submitted = self.client.submit("f", b"data")
            self.clock.pump([10, 0])
        self.failureResultOf(submitted, NotConnected)
        self.assertEqual(self.server.heard(), [], "nothing was sent that could be lost")
        self.clock.advance(1)
        submitted = self.client.submit("f", b"data")
        self.assertEqual(list(self.client.servers.values()), [False])
        self.server.say(OPTION_RES, b"exceptions")
        self.server.say(ECHO_RES, b"")
        self.assertEqual(list(self.client.servers.values()), [True])
        self.assertEqual(self.server.heard()[-1], ("SUBMIT_JOB", b"f", b"", b"data"))
        self.assertNoResult(submitted)

    def test_closed_while_a_server_is_on_trial(self) -> None:
        self.client = Client(self.clock, self.endpoint, retry_policy=lambda attempt: 1.0)
        self.successResultOf(self.client.connect())
        with capturedLogs():
            self.clock.pump([30, 10, 0, 1])
        submitted = self.client.submit("f", b"data")
        closed = self.client.close()
        self.failureResultOf(submitted, NotConnected)
        self.assertNoResult(closed)
        self.server.hang_up()
        self.successResultOf(closed)
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])
