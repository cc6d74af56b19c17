"""Admin commands: against our server in memory, gearmand, and a server played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.connection.memory import PlayedEndpoint
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.support import on_reactor
from txgearman.client import Admin, Client, ConnectionStatus, FunctionStatus, JobEntry, PriorityStatus, admin
from txgearman.errors import AdminError, ConnectionLost, NotConnected, TimedOut
from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.version import VERSION


class InMemoryTests(SynchronousTestCase):
    """Every command on our own server."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example"))
        self.admin = Admin(self.gearman.clock, self.gearman.endpoint)
        client = self.gearman.client()
        self.gearman.wait(client.submit("resize", b"", background=True, unique="cat"))
        self.gearman.wait(client.submit("resize", b""))
        worker = self.gearman.worker(client_id="painter")
        worker.register("paint", lambda job: b"")
        self.gearman.wait(worker.start())

    def ask(self, deferred: Deferred[Any]) -> Any:
        return self.gearman.wait(deferred)

    def test_lists(self) -> None:
        self.assertEqual(
            set(self.ask(self.admin.status())),
            {FunctionStatus("resize", 2, 0, 0), FunctionStatus("paint", 0, 0, 1)},
        )
        self.assertIn(PriorityStatus("resize", 0, 2, 0, 0), self.ask(self.admin.priority_status()))
        self.assertEqual(
            [(each.client_id, each.functions) for each in self.ask(self.admin.workers())],
            [("-", ()), ("painter", ("paint",)), ("-", ())],
        )
        self.assertIsInstance(self.ask(self.admin.workers())[0], ConnectionStatus)
        self.assertEqual(
            self.ask(self.admin.jobs()),
            (JobEntry("H:example:1", 0, False, True), JobEntry("H:example:2", 0, False, False)),
        )
        self.assertEqual(self.ask(self.admin.unique_jobs()), ("cat", ""))

    def test_lines(self) -> None:
        self.assertEqual(self.ask(self.admin.version()), f"txgearman-{VERSION}")
        self.assertEqual(self.ask(self.admin.verbose()), "INFO")
        self.assertGreater(self.ask(self.admin.getpid()), 0)

    def test_functions(self) -> None:
        self.ask(self.admin.create_function("größe"))
        self.assertIn(FunctionStatus("größe", 0, 0, 0), self.ask(self.admin.status()))
        self.ask(self.admin.drop_function("größe"))
        with self.assertRaisesRegex(AdminError, "function not found") as caught:
            self.ask(self.admin.drop_function("größe"))
        self.assertEqual(caught.exception.text, "function not found")

    def test_limits(self) -> None:
        functions = self.gearman.server.broker._functions  # the broker shows no limits
        for limits, expected in {(5,): (5, 5, 5), (1, None, 3): (1, None, 3), (): None}.items():
            self.ask(self.admin.set_max_queue("resize", *limits))
            self.assertEqual(functions[b"resize"].limits, expected)

    def test_cancel(self) -> None:
        for handle in ("H:example:1", b"H:example:2"):
            self.ask(self.admin.cancel(handle))
        self.assertEqual(self.ask(self.admin.jobs()), ())
        with self.assertRaisesRegex(AdminError, "UNKNOWN_JOB"):
            self.ask(self.admin.cancel("H:example:1"))

    def test_shutdown(self) -> None:
        calls: list[bool] = []
        self.patch(self.gearman.server, "shut_down", lambda *, graceful: calls.append(graceful))
        self.ask(self.admin.shutdown())
        self.ask(self.admin.shutdown(graceful=True))
        self.assertEqual(calls, [False, True])

    def test_commands_sent_together_are_answered_in_order(self) -> None:
        asked = [
            self.admin.unique_jobs(),
            self.admin.cancel("H:none"),
            self.admin.version(),
            self.admin.jobs(),
        ]
        uniques, cancelled, version, jobs = asked
        self.assertEqual(self.ask(uniques), ("cat", ""))
        self.failureResultOf(cancelled, AdminError)
        self.assertIn(VERSION, self.successResultOf(version))
        self.assertEqual(len(self.successResultOf(jobs)), 2)

    def test_wrong_arguments(self) -> None:
        for call in (
            lambda: self.admin.create_function("two words"),
            lambda: self.admin.drop_function("two\nlines"),
            lambda: self.admin.drop_function(""),
            lambda: self.admin.cancel(""),
            lambda: self.admin.cancel("H" * 64),
            lambda: self.admin.set_max_queue("f", -1),
            lambda: self.admin.set_max_queue("f", 2**31),
            lambda: self.admin.set_max_queue("f", 1, 2),
            lambda: Admin(self.gearman.clock, self.gearman.endpoint, timeout=-1),
        ):
            with self.assertRaises(ValueError):
                call()


class PlayedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.admin = Admin(self.clock, self.endpoint, timeout=5)

    def say(self, data: bytes) -> None:
        self.endpoint.server.send(data)

    def test_it_connects_when_it_is_needed_and_again_after_a_loss(self) -> None:
        self.assertEqual(self.endpoint.attempts, 0)
        version = self.admin.version()
        self.assertEqual(self.endpoint.server.transport.value(), b"version\r\n")
        self.endpoint.server.lose()
        self.failureResultOf(version, ConnectionLost)
        self.clock.advance(100)
        self.assertEqual(self.endpoint.attempts, 1)
        version = self.admin.version()
        self.say(b"OK 1\n")
        self.assertEqual(self.successResultOf(version), "1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_cut_anywhere(self) -> None:
        stream = b"f\t1\t0\t0\n.\nOK 7\r\n"
        for cut in range(len(stream)):
            status, pid = self.admin.status(), self.admin.getpid()
            self.say(stream[:cut])
            self.say(stream[cut:])
            self.assertEqual(self.successResultOf(status), (FunctionStatus("f", 1, 0, 0),))
            self.assertEqual(self.successResultOf(pid), 7)

    def test_no_server(self) -> None:
        self.endpoint.refusal = Refused()
        self.failureResultOf(self.admin.status(), NotConnected)

    def test_a_time_out_drops_the_connection(self) -> None:
        jobs = self.admin.jobs()
        self.clock.advance(3)
        version = self.admin.version()
        self.say(b"H:1\t0\t0\t0\n")
        self.clock.advance(2)
        self.failureResultOf(jobs, TimedOut)
        self.failureResultOf(version, ConnectionLost)
        self.assertTrue(self.endpoint.server.transport.disconnected)
        again = self.admin.version()
        self.say(b"OK 1\n")
        self.assertEqual(self.successResultOf(again), "1")

    def test_giving_up_waiting(self) -> None:
        first, second = self.admin.version(), self.admin.version()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.say(b"OK 1\nOK 2\n")
        self.assertEqual(self.successResultOf(second), "2")

    def test_an_answer_that_cannot_be_understood_drops_the_connection(self) -> None:
        for answer in (b"nonsense\n.\n", b"f\t1\t0\tx\n.\n", b"f\t1\t0\t0\n.\nmore\n"):
            self.setUp()
            status = self.admin.status()
            with capturedLogs() as logs:
                self.say(answer)
            self.assertEqual(len(logs), 1)
            self.assertTrue(self.endpoint.server.transport.disconnected)
            if answer.endswith(b"more\n"):
                self.successResultOf(status)
            else:
                self.failureResultOf(status, ConnectionLost)

    def test_a_line_at_the_limit_and_one_past_it(self) -> None:
        self.patch(admin.AdminProtocol, "MAX_LENGTH", 20)
        version = self.admin.version()
        self.say(b"OK 12345678901234567\n")
        self.assertEqual(self.successResultOf(version), "12345678901234567")
        version = self.admin.version()
        self.say(b"OK 123456789012345678\n")
        self.failureResultOf(version, ConnectionLost)

    def test_a_row_that_looks_like_an_error(self) -> None:
        uniques = self.admin.unique_jobs()
        self.say(b"mine\nERR UNKNOWN_COMMAND\n.\n")
        self.assertEqual(self.successResultOf(uniques), ("mine", "ERR UNKNOWN_COMMAND"))

    def test_a_server_that_ends_has_obeyed_shutdown(self) -> None:
        shutdown, version = self.admin.shutdown(), self.admin.version()
        self.endpoint.server.lose()
        self.assertIsNone(self.successResultOf(shutdown))
        self.failureResultOf(version, ConnectionLost)

    def test_close(self) -> None:
        version = self.admin.version()
        closed = self.admin.close()
        self.failureResultOf(version, ConnectionLost)
        self.assertNoResult(closed)
        self.endpoint.server.lose()
        self.successResultOf(closed)
        self.failureResultOf(self.admin.version(), NotConnected)
        self.successResultOf(self.admin.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_without_a_connection(self) -> None:
        self.successResultOf(self.admin.close())
        self.assertEqual(self.endpoint.attempts, 0)

    def test_async_with(self) -> None:
        async def use() -> str:
            async with self.admin as admin_:
                return await admin_.version()

        used = Deferred.fromCoroutine(use())
        self.say(b"OK 1\n")
        self.endpoint.server.lose()
        self.assertEqual(self.successResultOf(used), "1")

    def test_factory_type(self) -> None:
        self.assertTrue(IProtocolFactory.providedBy(self.admin._link._factory))


class AdminExpectations(Expectations):
    """What every server does, and what differs."""

    @on_reactor
    async def test_commands(self) -> None:
        from twisted.internet import reactor

        async with (
            self.serve_alone() as server,
            Client(reactor, server.endpoint) as client,  # type: ignore[arg-type]
            Admin(reactor, server.endpoint) as admin_,  # type: ignore[arg-type]
        ):
            job = await client.submit("größe", b"", background=True, unique="k")
            self.assertEqual(await admin_.status(), (FunctionStatus("größe", 1, 0, 0),))
            self.assertEqual(await admin_.priority_status(), (PriorityStatus("größe", 0, 1, 0, 0),))
            self.assertEqual(await admin_.jobs(), (JobEntry(job.handle.decode(), 0, False, True),))
            self.assertEqual(await admin_.unique_jobs(), ("k",))
            self.assertEqual([each.host for each in await admin_.workers()], ["127.0.0.1"] * 2)
            self.assertEqual(await admin_.getpid(), server.pid)
            self.assertRegex(await admin_.version(), r"\d+\.\d+")
            self.assertRegex(await admin_.verbose(), "^[A-Z]+$")
            await admin_.set_max_queue("größe", 1)
            await admin_.cancel(job.handle)
            await admin_.create_function("new")
            self.assertIn("new", [each.function for each in await admin_.status()])
            await admin_.drop_function("new")
            for refused in (admin_.drop_function("new"), admin_.cancel("H:none:1")):
                with self.assertRaises(AdminError):
                    await refused
            if self.kind == "gearmand":
                with self.assertRaisesRegex(AdminError, "UNKNOWN_COMMAND"):
                    await admin_.shutdown()
            else:
                await admin_.shutdown()
                self.assertEqual(await server.program.ended(), 0)


class AdminOnGearmandTests(OnGearmand, AdminExpectations, TestCase):
    pass


class AdminOnTxgearmanTests(OnTxgearman, AdminExpectations, TestCase):
    pass
