"""The worker's functions and connections: offering, reconnecting, stopping, and being a service."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from tests.worker.played import GRAB, OPTIONS, SLEEP, PlayedWorkerTestCase
from txgearman.connection.protocol import CLOSE_TIMEOUT
from txgearman.errors import NotConnected
from txgearman.wire.limits import MAX_CLIENT_ID
from txgearman.wire.packets import NO_JOB, NOOP
from txgearman.worker import DRAIN_SECONDS, Job, Worker


def reverse(job: Job) -> bytes:
    return job.data[::-1]


class FunctionTests(PlayedWorkerTestCase):
    def test_what_a_worker_says_at_first(self) -> None:
        worker = Worker(self.clock, self.endpoint, client_id="wörker")
        worker.register("reverse", reverse)
        worker.register(b"limited", reverse, timeout=1.5)
        worker.startService()
        self.assertEqual(
            self.server.heard(),
            [
                ("SET_CLIENT_ID", "wörker".encode()),
                *OPTIONS,
                ("CAN_DO", b"reverse"),
                ("CAN_DO_TIMEOUT", b"limited", b"1500"),
                GRAB,
            ],
        )

    def test_without_a_client_id(self) -> None:
        self.worker.startService()
        self.assertEqual(self.server.heard(), [*OPTIONS, GRAB])

    def test_bad_client_ids(self) -> None:
        Worker(self.clock, self.endpoint, client_id="x" * MAX_CLIENT_ID)
        for client_id in ("x" * (MAX_CLIENT_ID + 1), "a\0b"):
            with self.assertRaises(ValueError):
                Worker(self.clock, self.endpoint, client_id=client_id)

    def test_the_decorator_leaves_the_function_as_it_is(self) -> None:
        @self.worker.function("twice", timeout=2)
        def twice(job: Job) -> bytes:
            return job.data * 2

        self.assertIs(self.worker.function("reverse")(reverse), reverse)
        self.worker.startService()
        self.assertEqual(
            self.server.heard()[len(OPTIONS) : -1],
            [("CAN_DO_TIMEOUT", b"twice", b"2000"), ("CAN_DO", b"reverse")],
        )
        self.assign(function=b"twice", data=b"ab")
        self.assertEqual(self.server.heard()[0], ("WORK_COMPLETE", b"H:1", b"abab"))
        self.assertEqual(twice.__name__, "twice")

    def test_each_function_gets_its_own_jobs(self) -> None:
        self.worker.register("one", lambda job: b"1")
        self.worker.register("two", lambda job: b"2")
        self.worker.startService()
        self.server.heard()
        self.assign(function=b"two")
        self.assertEqual(self.server.heard()[0], ("WORK_COMPLETE", b"H:1", b"2"))

    def test_registering_while_a_job_is_asked_for(self) -> None:
        self.start()
        self.worker.register("g", reverse)
        self.assertEqual(self.server.heard(), [("CAN_DO", b"g")])

    def test_registering_wakes_a_sleeping_worker(self) -> None:
        self.start()
        self.server.say(NO_JOB)
        self.server.heard()
        self.worker.register("g", reverse, timeout=1)
        self.assertEqual(self.server.heard(), [("CAN_DO_TIMEOUT", b"g", b"1000"), GRAB])
        self.server.say(NOOP)
        self.assertEqual(self.server.heard(), [], "the answer to the sleep before")
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [SLEEP])

    def test_unregistering(self) -> None:
        self.start()
        self.worker.unregister("f")
        self.assertEqual(self.server.heard(), [("CANT_DO", b"f")])
        self.worker.register("f", reverse)
        self.assertEqual(self.server.heard(), [("CAN_DO", b"f")])

    def test_a_job_that_crossed_with_unregistering_is_left_to_the_server(self) -> None:
        self.start()
        self.worker.unregister("f")
        self.server.heard()
        self.assign()
        self.assertEqual(self.server.heard(), [GRAB])

    def test_mistakes(self) -> None:
        self.worker.register("f", reverse)
        for mistake in (
            lambda: self.worker.register(b"f", reverse),
            lambda: self.worker.register("", reverse),
            lambda: self.worker.register("a\0b", reverse),
            lambda: self.worker.register("g", reverse, timeout=0),
            lambda: self.worker.unregister("g"),
        ):
            with self.assertRaises(ValueError):
                mistake()
        with self.assertRaises(TypeError):
            self.worker.register("g", b"reverse")  # type: ignore[arg-type]
        self.worker.startService()
        self.assertEqual(self.server.heard(), [*OPTIONS, ("CAN_DO", b"f"), GRAB])


class ConnectionTests(PlayedWorkerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.attempts: list[int] = []

    def policy(self, attempt: int) -> float:
        self.attempts.append(attempt)
        return attempt * 10.0

    def test_a_lost_connection_is_made_again_and_the_functions_offered_again(self) -> None:
        self.start(retry_policy=self.policy, client_id="w")
        self.worker.register("g", reverse)
        self.server.say(NO_JOB)
        self.server.lose()
        self.assertEqual(self.endpoint.attempts, 1)
        self.worker.register("h", reverse)
        self.worker.unregister("g")
        self.assertEqual(self.server.heard()[-1], SLEEP, "nothing is said on the lost connection")
        self.clock.advance(10)
        self.assertEqual(self.endpoint.attempts, 2)
        self.assertEqual(
            self.server.heard(),
            [("SET_CLIENT_ID", b"w"), *OPTIONS, ("CAN_DO", b"f"), ("CAN_DO", b"h"), GRAB],
        )
        self.assign()
        self.assertEqual(self.server.heard(), [("WORK_COMPLETE", b"H:1", b"atad"), GRAB])

    def test_a_server_that_breaks_the_protocol_is_left_and_tried_again(self) -> None:
        self.start(retry_policy=self.policy)
        with capturedLogs() as logs:
            self.server.send(b"HTTP/1.1 400 Bad Request\r\n")
        self.assertIn(LogLevel.error, [event["log_level"] for event in logs])
        self.assertTrue(self.server.transport.disconnected)
        self.server.hang_up()
        self.clock.advance(10)
        self.assertEqual(self.endpoint.attempts, 2)

    def test_attempts_go_on_with_the_backoff_of_the_policy(self) -> None:
        self.endpoint.refusal = Refused()
        worker = Worker(self.clock, self.endpoint, retry_policy=self.policy)
        started = worker.start()
        self.clock.advance(10)
        self.clock.advance(20)
        self.assertNoResult(started)
        self.endpoint.refusal = None
        self.clock.advance(29)
        self.assertEqual((self.attempts, self.endpoint.attempts), ([1, 2, 3], 3))
        self.clock.advance(1)
        self.assertEqual(self.server.heard(), [*OPTIONS, GRAB])
        self.assertNoResult(started)
        self.server.say(NO_JOB)
        self.assertIsNone(self.successResultOf(started))

    def test_a_policy_that_fails_is_logged_and_the_default_takes_its_place(self) -> None:
        self.endpoint.refusal = Refused()
        worker = Worker(self.clock, self.endpoint, retry_policy=lambda _: 1 / 0)
        started = worker.start()
        self.endpoint.refusal = None
        self.clock.advance(1)
        self.server.say(NO_JOB)
        self.successResultOf(started)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelling_the_start_ends_the_waiting_only(self) -> None:
        self.endpoint.hold = True
        started = self.worker.start()
        started.cancel()
        self.failureResultOf(started, CancelledError)
        self.endpoint.accept()
        self.assertEqual(self.server.heard(), [*OPTIONS, GRAB])

    def test_starting_twice_waits_for_the_one_connection(self) -> None:
        with capturedLogs() as logs:
            first, second = self.worker.start(), self.worker.start()
        self.assertEqual(logs, [])
        self.server.say(NO_JOB)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.endpoint.attempts, 1)

    def test_stopping(self) -> None:
        self.start()
        self.server.say(NO_JOB)
        self.assertEqual(self.server.heard(), [SLEEP])
        stopped = self.worker.stop()
        self.assertNoResult(stopped)
        self.assign()
        self.assertEqual(self.server.heard(), [], "a job that comes now is left to the server")
        self.worker.register("g", reverse)
        self.server.hang_up()
        self.successResultOf(stopped)
        self.clock.advance(1000)
        self.assertEqual(self.endpoint.attempts, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_before_there_is_a_connection(self) -> None:
        for prepare in (lambda: None, lambda: self.clock.advance(10)):
            self.setUp()
            self.endpoint.refusal = Refused()
            worker = Worker(self.clock, self.endpoint, retry_policy=self.policy)
            started = worker.start()
            prepare()
            self.successResultOf(worker.stop())
            self.failureResultOf(started, NotConnected)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_while_the_connection_is_made(self) -> None:
        self.endpoint.hold = True
        started = self.worker.start()
        self.successResultOf(self.worker.stop())
        self.failureResultOf(started, NotConnected)
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_stopping_what_was_never_started(self) -> None:
        self.successResultOf(self.worker.stop())

    def test_a_server_that_hangs_does_not_hold_up_the_stop(self) -> None:
        self.start()
        stopped = self.worker.stop()
        self.clock.advance(DRAIN_SECONDS)
        self.assertTrue(self.server.transport.disconnecting, "it did not answer what it was asked")
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(self.server.transport.disconnected)
        self.server.hang_up()
        self.successResultOf(stopped)

    def test_starting_again(self) -> None:
        self.start()
        stopped = self.worker.stop()
        self.server.say(NO_JOB)
        self.server.hang_up()
        self.successResultOf(stopped)
        self.worker.startService()
        self.assertEqual(self.server.heard(), [*OPTIONS, ("CAN_DO", b"f"), GRAB])


class ServiceTests(PlayedWorkerTestCase):
    def test_a_worker_is_a_service(self) -> None:
        verifyObject(IService, self.worker)
        parent: Any = MultiService()
        self.worker.setServiceParent(parent)
        self.assertEqual(self.endpoint.attempts, 0)
        parent.startService()
        self.assertEqual(self.server.heard(), [*OPTIONS, GRAB])
        stopped = parent.stopService()
        self.server.say(NO_JOB)
        self.server.hang_up()
        self.successResultOf(stopped)

    def test_an_endpoint_can_be_a_string(self) -> None:
        Worker(Clock(), "tcp:127.0.0.1:4730")
