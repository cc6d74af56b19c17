"""A worker of several servers, all played: registering on each, taking turns, and losing one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint, PlayedServer
from tests.worker.played import GRAB, OPTIONS, SLEEP
from txgearman.errors import NotConnected
from txgearman.wire.packets import ECHO_RES, JOB_ASSIGN_UNIQ, NO_JOB, NOOP
from txgearman.worker import Job, Worker

RETRY = 10.0


class SeveralTestCase(SynchronousTestCase):
    """`start` makes a worker whose function ``f`` gives the Deferreds in `results`, by handle."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoints = [PlayedEndpoint(), PlayedEndpoint()]
        self.results: dict[bytes, Deferred[bytes]] = {}

    def make(self, **options: Any) -> Worker:
        return Worker(self.clock, self.endpoints, retry_policy=lambda attempt: RETRY, **options)

    def start(self, **options: Any) -> None:
        self.worker = self.make(**options)
        self.worker.register("f", self.run_job)
        self.worker.startService()

    def run_job(self, job: Job) -> Deferred[bytes]:
        self.results[job.handle] = Deferred()
        return self.results[job.handle]

    def end(self, handle: bytes) -> None:
        self.results.pop(handle).callback(b"r")

    def assign(self, server: PlayedServer, handle: bytes) -> None:
        server.say(JOB_ASSIGN_UNIQ, handle, b"f", b"u", b"")

    @property
    def servers(self) -> list[PlayedServer]:
        """The server's end of the newest connection to each."""
        return [endpoint.server for endpoint in self.endpoints]

    def heard(self) -> list[list[tuple[Any, ...]]]:
        return [server.heard() for server in self.servers]


class ServersTests(SeveralTestCase):
    def test_it_registers_on_each(self) -> None:
        self.start(client_id="w")
        introduction = [("SET_CLIENT_ID", b"w"), *OPTIONS, ("CAN_DO", b"f")]
        self.assertEqual(self.heard(), [[*introduction, GRAB], introduction])
        self.worker.register("g", self.run_job)
        self.assertEqual(self.heard(), [[("CAN_DO", b"g")]] * 2)
        self.worker.unregister("g")
        self.assertEqual(self.heard(), [[("CANT_DO", b"g")]] * 2)

    def test_one_at_a_time_it_grabs_on_each_in_turn_and_sleeps_when_none_has_a_job(self) -> None:
        self.start()
        first, second = self.servers
        self.heard()
        first.say(NO_JOB)
        self.assertEqual(self.heard(), [[], [GRAB]])
        second.say(NO_JOB)
        self.assertEqual(self.heard(), [[SLEEP], [SLEEP]])
        second.say(NOOP)
        self.assertEqual(self.heard(), [[], [GRAB]])
        self.assign(second, b"H:1")
        first.say(NOOP)
        self.assertEqual(self.heard(), [[], []], "it is at its limit")
        self.end(b"H:1")
        self.assertEqual(self.heard(), [[GRAB], [("WORK_COMPLETE", b"H:1", b"r")]], "the other's turn")

    def test_the_limit_holds_over_all_servers(self) -> None:
        self.start(concurrency=3)
        first, second = self.servers
        self.heard()
        self.assign(first, b"H:1")
        self.assign(second, b"H:2")
        self.assertEqual(self.heard(), [[GRAB], []], "two run, one was asked for")
        self.assign(first, b"H:3")
        self.assertEqual(self.heard(), [[], []])
        self.end(b"H:1")
        self.assertEqual(self.heard(), [[("WORK_COMPLETE", b"H:1", b"r")], [GRAB]])

    def test_one_handle_on_two_servers(self) -> None:
        """Servers number their jobs by themselves."""
        self.start(concurrency=2)
        self.heard()
        self.assign(self.servers[0], b"H:1")
        first = self.results[b"H:1"]
        self.assign(self.servers[1], b"H:1")
        first.callback(b"first")
        self.results[b"H:1"].callback(b"second")
        self.assertEqual(
            [heard[0] for heard in self.heard()],
            [("WORK_COMPLETE", b"H:1", b"first"), ("WORK_COMPLETE", b"H:1", b"second")],
        )

    def test_mistakes(self) -> None:
        for endpoints in ([], [self.endpoints[0], self.endpoints[0]], ["nonsense:"]):
            with self.assertRaises(ValueError):
                Worker(self.clock, endpoints)


class LostTests(SeveralTestCase):
    def test_one_server_goes_and_comes_back_while_the_other_is_served(self) -> None:
        self.start(client_id="w")
        first, second = self.servers
        self.heard()
        first.lose()
        self.assertEqual(second.heard(), [GRAB], "what was asked for there holds no slot")
        self.assign(second, b"H:2")
        self.end(b"H:2")
        self.assertEqual(second.heard(), [("WORK_COMPLETE", b"H:2", b"r"), GRAB])
        self.clock.advance(RETRY)
        again = self.servers[0]
        self.assertIsNot(again, first)
        self.assertEqual(again.heard(), [("SET_CLIENT_ID", b"w"), *OPTIONS, ("CAN_DO", b"f")], "not its turn")
        second.say(NO_JOB)
        self.assertEqual(again.heard(), [GRAB])

    def test_a_job_of_a_lost_connection_gives_its_place_to_the_other(self) -> None:
        self.start()
        first, second = self.servers
        self.heard()
        self.assign(first, b"H:1")
        with capturedLogs():
            first.lose()
        self.assertEqual(second.heard(), [GRAB])

    def test_a_server_that_is_down_from_the_begin_is_no_hindrance(self) -> None:
        self.endpoints[0].refusal = Refused()
        self.start()
        self.assertEqual(self.endpoints[1].server.heard(), [*OPTIONS, ("CAN_DO", b"f"), GRAB])
        self.endpoints[0].refusal = None
        self.clock.advance(RETRY)
        self.assertEqual(self.endpoints[0].server.heard(), [*OPTIONS, ("CAN_DO", b"f")])

    def test_the_start_fails_when_it_is_stopped_before_any_is_up(self) -> None:
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
        worker = self.make()
        started = worker.start()
        self.assertNoResult(started)
        self.successResultOf(worker.stop())
        self.failureResultOf(started, NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_without_a_sign_of_life_is_given_up(self) -> None:
        self.start(check_interval=30, check_timeout=10)
        first, second = self.servers
        self.assign(first, b"H:1")
        running = self.results[b"H:1"]
        self.heard()
        told: list[Any] = []
        with capturedLogs() as logs:
            while not running.called and self.clock.seconds() < 2 * (30 + 10):
                self.clock.advance(1)
                self.clock.advance(0)
                told += second.heard()
                if told[-1:] == [("ECHO_REQ", b"")]:
                    second.say(ECHO_RES, b"")
        warnings = [event for event in logs if event["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 2, "the connection, and the job that ran")
        self.assertTrue(running.called, "cancelled")
        self.assertGreaterEqual(self.clock.seconds(), 30 + 10)
        self.assertEqual(first.heard(), [("ECHO_REQ", b"")])
        self.assertIn(GRAB, told, "the slot of the job is free")
        self.assertTrue(first.transport.disconnected)
        self.assertFalse(second.transport.disconnecting)
        first.lose()
        self.clock.advance(RETRY)
        self.assertEqual(self.endpoints[0].attempts, 2)
        self.assertEqual(self.endpoints[1].attempts, 1)

    def test_the_check_can_be_turned_off(self) -> None:
        self.start(check_interval=None)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LaneTests(SeveralTestCase):
    """Functions with a limit of their own, which are asked for on connections of their own."""

    def start_with_limit(self, **options: Any) -> None:
        """``f`` may run as often as the worker can, ``g`` once at a time; to one server."""
        del self.endpoints[1]
        self.start(**{"concurrency": 3, **options})
        self.worker.register("g", self.run_job, concurrency=1)
        self.shared, self.own = self.endpoints[0].servers

    def assign_to(self, server: PlayedServer, function: bytes, handle: bytes) -> None:
        server.say(JOB_ASSIGN_UNIQ, handle, function, b"u", b"")

    def test_jobs_above_the_limit_stay_with_the_server(self) -> None:
        self.start_with_limit(client_id="w")
        introduction = [("SET_CLIENT_ID", b"w"), *OPTIONS]
        self.assertEqual(self.shared.heard(), [*introduction, ("CAN_DO", b"f"), GRAB])
        self.assertEqual(self.own.heard(), [*introduction, ("CAN_DO", b"g"), GRAB])
        self.assign_to(self.own, b"g", b"H:1")
        self.assertEqual(self.own.heard(), [], "no second one")
        self.assign_to(self.shared, b"f", b"H:2")
        self.assertEqual(self.shared.heard(), [GRAB], "others go on")
        self.end(b"H:1")
        self.assertEqual(self.own.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])
        self.shared.say(NO_JOB)
        self.assertEqual((self.shared.heard(), self.own.heard()), ([], []))
        self.own.say(NO_JOB)
        self.assertEqual((self.shared.heard(), self.own.heard()), ([SLEEP], [SLEEP]))

    def test_the_workers_limit_counts_too(self) -> None:
        self.start_with_limit(concurrency=2)
        self.shared.heard()
        self.own.heard()
        self.assign_to(self.shared, b"f", b"H:1")
        self.assertEqual(self.shared.heard(), [])
        self.assign_to(self.own, b"g", b"H:2")
        self.end(b"H:1")
        self.assertEqual(self.shared.heard(), [("WORK_COMPLETE", b"H:1", b"r"), GRAB])

    def test_a_limit_that_the_worker_has_anyway_needs_no_connection(self) -> None:
        del self.endpoints[1]
        self.start(concurrency=2)
        self.worker.register("g", self.run_job, concurrency=2)
        self.assertEqual(self.endpoints[0].attempts, 1)

    def test_unregistering_ends_the_connection_behind_the_last_job(self) -> None:
        self.start_with_limit()
        self.assign_to(self.own, b"g", b"H:1")
        self.own.heard()
        self.worker.unregister("g")
        self.assertEqual(self.own.heard(), [("CANT_DO", b"g")])
        self.assertFalse(self.own.transport.disconnecting)
        self.end(b"H:1")
        self.assertEqual(self.own.heard()[0], ("WORK_COMPLETE", b"H:1", b"r"))
        self.own.hang_up()
        self.worker.register("g", self.run_job, concurrency=2)
        self.assertEqual(self.endpoints[0].server.heard(), [*OPTIONS, ("CAN_DO", b"g"), GRAB])
        stopped = self.worker.stop()
        for server in (self.shared, self.endpoints[0].server):
            server.say(NO_JOB)
            server.hang_up()
        self.successResultOf(stopped)

    def test_what_was_unregistered_does_not_come_back(self) -> None:
        self.start_with_limit()
        self.assign_to(self.own, b"g", b"H:1")
        self.worker.unregister("g")
        stopped = self.worker.stop()
        self.shared.say(NO_JOB)
        self.shared.hang_up()
        self.end(b"H:1")
        self.own.hang_up()
        self.successResultOf(stopped)
        self.worker.startService()
        self.assertEqual(self.endpoints[0].attempts, 3)

    def test_it_comes_back_by_itself(self) -> None:
        self.start_with_limit()
        self.own.lose()
        self.clock.advance(RETRY)
        self.assertEqual(self.endpoints[0].server.heard(), [*OPTIONS, ("CAN_DO", b"g"), GRAB])
        self.assertFalse(self.shared.transport.disconnecting)

    def test_mistakes(self) -> None:
        worker = self.make()
        for concurrency in (0, -1):
            with self.assertRaises(ValueError):
                worker.register("f", self.run_job, concurrency=concurrency)
