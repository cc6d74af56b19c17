"""Admin commands: against our server in memory, gearmand, and a server played by the test."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.connection.memory import PlayedEndpoint
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.server.lines import close, connect
from tests.server.peers import req, res
from tests.server.test_admin_jobs import Process
from tests.support import on_reactor
from txgearman.client import (
    Admin,
    BulkResult,
    Client,
    ConnectionStatus,
    DeadJobEntry,
    FunctionLimits,
    FunctionStatus,
    JobEntry,
    JobSummary,
    Priority,
    PriorityStatus,
    ScheduleStatus,
    ServerLimit,
)
from txgearman.client.admin_protocol import AdminProtocol
from txgearman.errors import AdminError, ConnectionLost, NotConnected, TimedOut
from txgearman.server import Settings
from txgearman.server.interfaces import Reloaded
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

    def test_schedules(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example", allow_unsaved_schedules=True))
        admin = self.admin = Admin(self.gearman.clock, self.gearman.endpoint)
        definition = {"function": "größe", "cron": "0 * * * *", "timezone": "Asia/Tokyo"}
        self.ask(admin.create_schedule("stündlich", definition, b"\xff data"))
        self.ask(admin.create_schedule(rb"back\slash", {"function": "f", "every": 60}, "text"))
        self.ask(admin.pause_schedule(rb"back\slash"))
        now = self.gearman.clock.seconds()
        paused = ScheduleStatus(
            r"back\slash",
            "f",
            "every 60s",
            "UTC",
            "paused",
            None,
            None,
            ticks=0,
            skipped=0,
            missed=0,
            refused=0,
        )
        first, second = self.ask(admin.schedules())
        self.assertEqual(first, paused)
        self.assertEqual((second.name, second.state), ("stündlich", "active"))
        self.assertEqual((second.next % 3600, second.next > now), (0, True))
        handle = self.ask(admin.run_schedule("stündlich"))
        info = self.ask(admin.job(handle))
        self.assertEqual((info.function, info.data, info.unique), ("größe", b"\xff data", "stündlich"))
        self.ask(admin.resume_schedule(rb"back\slash"))
        self.ask(admin.drop_schedule("stündlich"))
        self.assertEqual([each.state for each in self.ask(admin.schedules())], ["active"])
        refused = admin.drop_schedule("stündlich")
        self.assertRaisesRegex(AdminError, "^UNKNOWN_SCHEDULE", self.ask, refused)
        for name in ("", "nul\0"):
            self.assertRaises(ValueError, admin.pause_schedule, name)
        self.assertRaises(ValueError, admin.create_schedule, "s", {"function": "f" * 9000})

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
        functions = self.gearman.server.broker.functions.by_name  # the broker shows no limits
        for limits, expected in {(5,): (5, 5, 5), (1, None, 3): (1, None, 3), (): None}.items():
            self.ask(self.admin.set_max_queue("resize", *limits))
            self.assertEqual(functions[b"resize"].limits, expected)

    def test_limits_of_functions(self) -> None:
        for change in (
            self.admin.set_max_queue("resize", 5, None, 7),
            self.admin.set_max_rate("resize", 2.5, 4),
            self.admin.limit_runs("resize", "max-running", 3),
            self.admin.limit_runs("resize", "start-rate", 0.5),
            self.admin.limit_runs("resize", "key-separator", "\t "),
        ):
            self.ask(change)
        expected = FunctionLimits("resize", 5, 0, 7, 2.5, 4, 0, 3, 0.5, 0, 0, "\t ", 0)
        self.assertEqual(self.ask(self.admin.function_limits()), (expected,))
        self.assertRaisesRegex(
            AdminError, "^INVALID_ARGUMENTS", self.ask, self.admin.limit_runs("resize", "max-walking", 1)
        )
        self.ask(self.admin.limit_runs("resize"))
        self.ask(self.admin.set_max_rate("resize"))
        expected = FunctionLimits("resize", 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, ":", 0)
        self.assertEqual(self.ask(self.admin.function_limits()), (expected,))

    def test_limits_of_the_server(self) -> None:
        limits = {each.name: each for each in self.ask(self.admin.limits())}
        settings = self.gearman.server.settings
        self.assertEqual(
            limits["max-functions"], ServerLimit("max-functions", settings.max_functions, used=2, refused=0)
        )

    def test_functions_with_all_that_is_counted(self) -> None:
        self.ask(self.admin.pause_function("resize"))
        functions = {each.function: each for each in self.ask(self.admin.functions())}
        resize = functions["resize"]
        self.assertEqual((resize.state, resize.queued, resize.submitted, resize.ended), ("paused", 2, 2, 0))
        self.assertEqual((functions["paint"].state, functions["paint"].workers), ("active", 1))
        self.ask(self.admin.cancel("H:example:1"))
        self.ask(self.admin.resume_function("resize"))
        resize = self.ask(self.admin.functions())[0]
        self.assertEqual((resize.state, resize.dropped, resize.ended), ("active", 1, 1))
        with self.assertRaisesRegex(AdminError, "^UNKNOWN_FUNCTION"):
            self.ask(self.admin.pause_function("none"))

    def test_finding_jobs(self) -> None:
        client = self.gearman.client()
        self.ask(client.submit("größe\t", b"data", background=True, unique="two words"))
        first, second, third = self.ask(self.admin.find_jobs())
        self.assertEqual((first.handle, second.background), ("H:example:1", False))
        expected = JobSummary(
            handle="H:example:3",
            function="größe\t",
            unique="two words",
            state="queued",
            priority="normal",
            background=True,
            attempts=0,
            losses=0,
            age=0.0,
            size=4,
            numerator=0,
            denominator=0,
            worker="",
        )
        self.assertEqual(third, expected)
        for filters, found in (
            ({"function": "größe\t"}, (third,)),
            ({"unique": "two words", "states": ["queued", "running"], "older_than": 0}, ()),
            ({"states": ["running"]}, ()),
            ({"unique": "cat"}, (first,)),
        ):
            self.assertEqual(self.ask(self.admin.find_jobs(**filters)), found)  # type: ignore[arg-type]
        with self.assertRaisesRegex(AdminError, "^INVALID_ARGUMENTS"):
            self.ask(self.admin.find_jobs(states=["dead"]))

    def test_what_was_said_of_a_job(self) -> None:
        client = self.gearman.client()
        now = self.gearman.clock.seconds()
        job = self.ask(
            client.submit("f", b"", run_at=now + 60, priority=Priority.HIGH, attempts=7, backoff=2)
        )
        info = self.ask(self.admin.job(job.handle))
        self.assertEqual((info.run_at, info.max_attempts, info.backoff, info.attempts), (now + 60, 7, 2, 0))
        self.assertEqual((info.expires, info.keep_result, info.unique_for, info.traceparent), (None,) * 4)

    def test_quiet(self) -> None:
        (number,) = [each.number for each in self.ask(self.admin.connections()) if each.functions]
        self.ask(self.admin.quiet(number))
        (painter,) = [each for each in self.ask(self.admin.connections()) if each.functions]
        self.assertEqual((painter.client_id, painter.quiet, painter.running), ("painter", True, 0))
        self.ask(self.admin.quiet(number, False))
        self.assertFalse(any(each.quiet for each in self.ask(self.admin.connections())))
        with self.assertRaisesRegex(AdminError, "^UNKNOWN_CONNECTION"):
            self.ask(self.admin.quiet(999))

    def test_the_process(self) -> None:
        for call in (self.admin.reload, self.admin.drain):
            self.assertRaisesRegex(AdminError, "^NOT_ALLOWED", self.ask, call())
        process = self.gearman.server.process = Process(Reloaded(["max-jobs"], []))
        self.assertEqual(self.ask(self.admin.reload()), "changed: max-jobs")
        self.ask(self.admin.drain())
        self.assertEqual(process.told, ["reload", "drain"])
        process.reloaded = Reloaded([], [], "a.toml:1: no option")
        with self.assertRaisesRegex(AdminError, "^WRONG_CONFIGURATION a.toml:1: no option$"):
            self.ask(self.admin.reload())

    def test_cancel(self) -> None:
        for handle in ("H:example:1", b"H:example:2"):
            self.ask(self.admin.cancel(handle))
        self.assertEqual(self.ask(self.admin.jobs()), ())
        with self.assertRaisesRegex(AdminError, "UNKNOWN_JOB"):
            self.ask(self.admin.cancel("H:example:1"))

    def test_cancel_by_force(self) -> None:
        broker = self.gearman.server.broker
        told: list[tuple[bytes, bool]] = []
        self.patch(type(broker), "cancel", lambda _, handle, force=False: told.append((handle, force)))
        for force in (False, True):
            self.ask(self.admin.cancel("H:example:1", force))
        self.assertEqual(told, [(b"H:example:1", False), (b"H:example:1", True)])

    def test_shutdown(self) -> None:
        calls: list[bool] = []
        self.patch(self.gearman.server, "shut_down", lambda *, graceful: calls.append(graceful))
        self.ask(self.admin.shutdown())
        self.ask(self.admin.shutdown(graceful=True))
        self.assertEqual(calls, [False, True])

    def test_commands_sent_together_are_answered_in_order(self) -> None:
        pending = [
            self.admin.unique_jobs(),
            self.admin.cancel("H:none"),
            self.admin.version(),
            self.admin.jobs(),
        ]
        uniques, cancelled, version, jobs = pending
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
            lambda: self.admin.set_max_rate("f", -1),
            lambda: self.admin.set_max_rate("f", float("nan")),
            lambda: self.admin.set_max_rate("f", 1, -1),
            lambda: self.admin.limit_runs("f", "max-running"),
            lambda: self.admin.limit_runs("f", None, 1),
            lambda: self.admin.limit_runs("f", "two words", 1),
            lambda: self.admin.limit_runs("two words"),
            lambda: self.admin.pause_function(""),
            lambda: self.admin.quiet(-1),
            lambda: self.admin.find_jobs(older_than=-1),
            lambda: self.admin.find_jobs(states=["two words"]),
            lambda: self.admin.find_jobs(unique="u" * 65),
            lambda: Admin(self.gearman.clock, self.gearman.endpoint, timeout=-1),
        ):
            with self.assertRaises(ValueError):
                call()


class DeadJobsTests(SynchronousTestCase):
    """What becomes of jobs that fail, on our own server."""

    def begin(self, **settings: Any) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example", **settings))
        self.gearman.clock.advance(1_700_000_000)
        self.admin = Admin(self.gearman.clock, self.gearman.endpoint)
        self.client = self.gearman.client()

    def let_fail(self, function: str, *payloads: bytes, unique: str = "") -> None:
        """Let a worker fail a job of each payload."""
        for payload in payloads:
            self.ask(self.client.submit(function, payload, background=True, unique=unique))
        worker = self.gearman.worker(client_id="painter")
        worker.register(function, raise_error)
        self.ask(worker.start())
        self.gearman.turn(1)
        self.ask(worker.stop())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(payloads))

    def ask(self, deferred: Deferred[Any]) -> Any:
        return self.gearman.wait(deferred)

    def refusal(self, deferred: Deferred[Any]) -> str:
        with self.assertRaises(AdminError) as caught:
            self.ask(deferred)
        return caught.exception.text

    def test_list(self) -> None:
        self.begin()
        self.assertEqual(self.ask(self.admin.dead()), ())
        self.let_fail("resize", b"a", unique="cat")
        self.gearman.turn(10)
        self.let_fail("two words", b"b")
        first = DeadJobEntry("H:example:1", "resize", "cat", 1_700_000_000, 1, "raised", "ValueError: bad")
        second = DeadJobEntry("H:example:2", "two words", "", 1_700_000_011, 1, "raised", "ValueError: bad")
        self.assertEqual(self.ask(self.admin.dead()), (second, first))
        self.assertEqual(self.ask(self.admin.dead("two words")), (second,))
        self.assertEqual(self.ask(self.admin.dead(b"none")), ())

    def test_one_job(self) -> None:
        self.begin()
        self.let_fail("resize", b"\0\xff", unique="cat")
        info = self.ask(self.admin.job("H:example:1"))
        self.assertEqual((info.handle, info.function, info.unique), ("H:example:1", "resize", "cat"))
        self.assertEqual((info.state, info.outcome, info.background), ("dead", "raised", True))
        self.assertEqual((info.attempts, info.losses, info.priority), (1, 0, "normal"))
        self.assertEqual((info.data, info.error), (b"\0\xff", b"ValueError: bad\nline two"))
        self.assertEqual((info.submitted, info.ended, info.next_run), (1_700_000_000, 1_700_000_000, None))
        self.assertIn("painter", info.worker)
        self.assertEqual(self.refusal(self.admin.job("H:none:1")), "UNKNOWN_JOB")

    def test_retry_and_forget(self) -> None:
        self.begin()
        self.let_fail("resize", b"a", b"b")
        self.ask(self.admin.retry("H:example:1"))
        self.assertEqual(self.ask(self.admin.job(b"H:example:1")).state, "queued")
        self.ask(self.admin.forget("H:example:2"))
        self.assertEqual(self.ask(self.admin.dead()), ())
        for verb in (self.admin.retry, self.admin.forget, self.admin.kill):
            for handle in ("H:example:1", "H:example:2"):
                self.assertEqual(self.refusal(verb(handle)), "UNKNOWN_JOB")

    def test_a_unique_that_is_in_use(self) -> None:
        self.begin()
        self.let_fail("resize", b"a", unique="cat")
        self.ask(self.client.submit("resize", b"", background=True, unique="cat"))
        self.assertEqual(self.refusal(self.admin.retry("H:example:1")), "UNIQUE_IN_USE")
        self.assertEqual(self.ask(self.admin.retry_dead("resize")), BulkResult(0, 1))
        self.assertEqual(len(self.ask(self.admin.dead())), 1)

    def test_all_of_a_function(self) -> None:
        self.begin()
        for function in ("resize", r"App\tasks x"):
            self.let_fail(function, b"a", b"b")
        self.assertEqual(self.ask(self.admin.retry_dead(r"App\tasks x")), BulkResult(2, 0))
        self.assertEqual(self.ask(self.admin.forget_dead("resize")), BulkResult(2, 0))
        self.assertEqual(self.ask(self.admin.dead()), ())
        self.assertEqual(self.ask(self.admin.forget_dead("resize")), BulkResult(0, 0))

    def test_a_job_that_waits_for_its_next_attempt(self) -> None:
        self.begin(attempts=2, jitter=0)
        self.let_fail("resize", b"a", b"b")
        info = self.ask(self.admin.job("H:example:1"))
        self.assertEqual((info.state, info.next_run, info.ended), ("retrying", 1_700_000_015, None))
        self.ask(self.admin.kill("H:example:1"))
        self.ask(self.admin.retry("H:example:2"))
        states = [self.ask(self.admin.job(f"H:example:{number}")).state for number in (1, 2)]
        self.assertEqual(states, ["dead", "queued"])

    def test_wrong_arguments(self) -> None:
        self.begin()
        for call in (self.admin.job, self.admin.retry, self.admin.forget, self.admin.kill):
            for handle in ("", "H" * 64, "H:\0"):
                self.assertRaises(ValueError, call, handle)
        for call in (self.admin.dead, self.admin.retry_dead, self.admin.forget_dead):
            for function in ("", "f" * 513):
                self.assertRaises(ValueError, call, function)


def raise_error(_job: object) -> bytes:
    raise ValueError("bad\nline two")


class PlayedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.admin = Admin(self.clock, self.endpoint, timeout=5)

    def say(self, data: bytes) -> None:
        self.endpoint.server.send(data)

    def echoes(self) -> list[bytes]:
        """What the server echoes behind the lists it was asked for, the newest last."""
        said = self.endpoint.server.transport.value()
        return [res(17, end_mark) for end_mark in re.findall(rb"\0REQ\0\0\0\x10\0\0\0\x10(.{16})", said)]

    def answer(self, lines: bytes) -> None:
        """Answer the last list."""
        self.say(lines + self.echoes()[-1])

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
        for cut in range(len(b"f\t1\t0\t0\n.\nOK 7\r\n") + len(res(17, b"x" * 16))):
            status, pid = self.admin.status(), self.admin.getpid()
            stream = b"f\t1\t0\t0\n.\n" + self.echoes()[-1] + b"OK 7\r\n"
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
        good = b"f\t1\t0\t0\n.\n"
        for answer in (
            b"nonsense\n.\nECHO",
            b"f\t1\t0\tx\n.\nECHO",
            b"f\t1\t0\t0\nECHO",
            b"ECHO",
            good + res(17, b"x" * 16),
            good + res(17, b""),
            good + res(6),
            good + b"ECHOmore\n",
            good + b"ECHOECHO",
        ):
            with self.subTest(answer):
                self.setUp()
                status = self.admin.status()
                with capturedLogs() as logs:
                    self.say(answer.replace(b"ECHO", self.echoes()[-1]))
                self.assertEqual(len(logs), 1)
                self.assertTrue(self.endpoint.server.transport.disconnected)
                if b"ECHOmore" in answer or b"ECHOECHO" in answer:
                    self.successResultOf(status)
                else:
                    self.failureResultOf(status, ConnectionLost)

    def test_a_line_that_cannot_be_understood_drops_the_connection(self) -> None:
        for ask, answer in (
            (Admin.getpid, b"OK x\n"),
            (lambda admin_: admin_.cancel("H:1"), b"f\t1\t0\t0\n"),
            (Admin.version, res(17, b"x" * 16)),
        ):
            self.setUp()
            pending: Deferred[Any] = ask(self.admin)
            with capturedLogs():
                self.say(answer)
            self.failureResultOf(pending, ConnectionLost)
            self.assertTrue(self.endpoint.server.transport.disconnected)

    def test_no_unique_ends_a_list_or_refuses_it(self) -> None:
        # gearmand prints them as they are. What was behind the first dot was the answer to the next command.
        for names in ([b"."], [b"ERR UNKNOWN_COMMAND x"], [b"OK 1.0"], [b".", b"", b".", b"OK", b"ERR"], []):
            with self.subTest(names):
                uniques, version = self.admin.unique_jobs(), self.admin.version()
                self.answer(b"".join(name + b"\n" for name in names) + b".\n")
                self.say(b"OK 1.1\n")
                self.assertEqual(self.successResultOf(uniques), tuple(name.decode() for name in names))
                self.assertEqual(self.successResultOf(version), "1.1")

    def test_a_list_that_is_refused(self) -> None:
        status, version = self.admin.status(), self.admin.version()
        self.answer(b"ERR ACCESS_DENIED You+may+not\r\n")
        self.say(b"OK 1.1\n")
        self.assertEqual(self.failureResultOf(status, AdminError).value.text, "ACCESS_DENIED You may not")
        self.assertEqual(self.successResultOf(version), "1.1")

    def test_a_server_that_refuses_a_connection(self) -> None:
        for answer, kind in (
            (b"ERR TLS_REQUIRED This+port+speaks+TLS+only\r\n", AdminError),
            (b"ERR\t1\t0\t0\nf\t1\t0\t0\n", ConnectionLost),
            (b"f\t1\t0\t0\n", ConnectionLost),
        ):
            with self.subTest(answer):
                self.setUp()
                status, version = self.admin.status(), self.admin.version()
                self.say(answer)
                self.endpoint.server.lose()
                error = self.failureResultOf(status, kind).value
                if kind is AdminError:
                    self.assertEqual(str(error), "TLS_REQUIRED This port speaks TLS only")
                self.failureResultOf(version, ConnectionLost)

    def test_a_server_that_ends_its_lines_with_cr_lf(self) -> None:
        status = self.admin.status()
        self.answer(b"f\t1\t0\t0\r\n.\r\n")
        self.assertEqual(self.successResultOf(status), (FunctionStatus("f", 1, 0, 0),))

    def test_escapes_are_turned_back_where_the_server_is_ours(self) -> None:
        for version, name in (
            (b"OK txgearman-1.0\n", "a\tb"),
            (b"OK 1.1.20+ds\n", "a\\tb"),
            # gearmand refuses this to nobody, ours may.
            (b"ERR ACCESS_DENIED You+may+not+use+this+command+version\r\n", "a\tb"),
        ):
            with self.subTest(version):
                self.setUp()
                status, pid, uniques = self.admin.status(), self.admin.getpid(), self.admin.unique_jobs()
                first, second = self.echoes()
                self.say(b"a\\tb\t1\t0\t0\n.\n" + first)
                self.assertNoResult(status)
                self.say(b"OK 7\n" + b"a\\tb\n.\n" + second)
                self.assertEqual(self.successResultOf(pid), 7)
                self.assertEqual(self.endpoint.server.transport.value().count(b"version\r\n"), 1)
                self.say(version)
                self.assertEqual(self.successResultOf(status), (FunctionStatus(name, 1, 0, 0),))
                self.assertEqual(self.successResultOf(uniques), (name,))
                # It is known from then on.
                uniques = self.admin.unique_jobs()
                self.answer(b"a\\tb\n.\n")
                self.assertEqual(self.successResultOf(uniques), (name,))

    def test_without_escapes_nothing_more_is_asked(self) -> None:
        uniques = self.admin.unique_jobs()
        self.answer(b"App\\Jobs\n.\n")
        self.assertEqual(self.successResultOf(uniques), ("App\\Jobs",))
        self.assertNotIn(b"version", self.endpoint.server.transport.value())

    def test_the_connection_is_lost_while_the_version_is_asked(self) -> None:
        uniques = self.admin.unique_jobs()
        self.answer(b"a\\tb\n.\n")
        self.endpoint.server.lose()
        self.failureResultOf(uniques, ConnectionLost)

    def test_it_is_closed_by_who_reads_a_list_that_waited(self) -> None:
        uniques = [self.admin.unique_jobs(), self.admin.unique_jobs()]
        uniques[0].addCallback(lambda found: (found, self.admin.close())[0])
        for echo in self.echoes():
            self.say(b"a\\tb\n.\n" + echo)
        self.say(b"OK txgearman-1.0\n")
        self.assertEqual(self.successResultOf(uniques[0]), ("a\tb",))
        self.failureResultOf(uniques[1], ConnectionLost)

    def test_rows_that_are_none_once_the_version_is_known(self) -> None:
        status = self.admin.status()
        self.answer(b"a\\tb\n.\n")
        with capturedLogs():
            self.say(b"OK txgearman-1.0\n")
        self.failureResultOf(status, ConnectionLost)
        self.assertTrue(self.endpoint.server.transport.disconnected)

    def test_a_line_at_the_limit_and_one_past_it(self) -> None:
        self.patch(AdminProtocol, "MAX_LENGTH", 20)
        version = self.admin.version()
        self.say(b"OK 12345678901234567\n")
        self.assertEqual(self.successResultOf(version), "12345678901234567")
        version = self.admin.version()
        self.say(b"OK 123456789012345678\n")
        self.failureResultOf(version, ConnectionLost)

    def test_a_row_that_looks_like_an_error(self) -> None:
        uniques = self.admin.unique_jobs()
        self.answer(b"mine\nERR UNKNOWN_COMMAND\n.\n")
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
        self.assertTrue(IProtocolFactory.providedBy(self.admin._connector._factory))


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
                for refused in (admin_.dead(), admin_.dead("f"), admin_.job(job.handle)):
                    with self.assertRaisesRegex(AdminError, "^UNKNOWN_SHOW_ARGUMENTS$"):
                        await refused
                with self.assertRaisesRegex(AdminError, "^UNKNOWN_SHOW_ARGUMENTS$"):
                    await admin_.schedules()
                for refused in (admin_.retry(job.handle), admin_.forget_dead("f"), admin_.kill(job.handle)):
                    with self.assertRaisesRegex(AdminError, "^UNKNOWN_COMMAND"):
                        await refused
                with self.assertRaisesRegex(AdminError, "UNKNOWN_COMMAND"):
                    await admin_.shutdown()
            else:
                await admin_.shutdown()
                self.assertEqual(await server.program.ended(), 0)

    @on_reactor
    async def test_names_of_any_kind(self) -> None:
        from twisted.internet import reactor

        uniques = (
            "",
            ".",
            "ERR UNKNOWN_COMMAND x",
            "OK 1.0",
            "sp ace",
            "\x1b[31m",
            "App\\tasks",
            "größe",
            "\t",
        )
        functions = (*uniques[1:], ":", "App\\Jobs", "\\\\", "two\nlines\t1\t1", "\n.\n", "\u009b\u2028")
        async with (
            self.serve_alone() as server,
            Admin(reactor, server.endpoint) as admin_,  # type: ignore[arg-type]
        ):
            line = await connect(server.port)
            await line.say(req(22, b"my : id"), *(req(1, name.encode()) for name in functions))
            await line.say(*(req(18, b"f", unique.encode(), b"x") for unique in uniques))
            pending = [admin_.unique_jobs(), admin_.version(), admin_.status(), admin_.version()]
            found, version, statuses, again = [await each for each in pending]
            self.assertEqual(sorted(found), sorted(uniques))  # type: ignore[arg-type]
            self.assertRegex(str(version), r"\d\.\d")
            self.assertEqual(version, again)
            self.assertEqual(
                sorted((each.function, each.total, each.workers) for each in statuses),  # type: ignore[union-attr]
                sorted([("f", len(uniques), 0), *((name, 0, 1) for name in functions)]),
            )
            priorities = await admin_.priority_status()
            self.assertEqual({each.function for each in priorities}, {"f", *functions})
            connections = [each for each in await admin_.workers() if each.functions]
            if self.kind == "txgearman":
                (connection,) = connections
                self.assertEqual(connection.client_id, "my : id")
                self.assertEqual(set(connection.functions), set(functions))
            else:
                # Which spaces and line feeds are parts of names nobody can tell, but the list is shown.
                self.assertIn("größe", {name for each in connections for name in each.functions})
            await close(line)


class AdminOnGearmandTests(OnGearmand, AdminExpectations, TestCase):
    pass


class AdminOnTxgearmanTests(OnTxgearman, AdminExpectations, TestCase):
    pass
