"""The admin commands that gearmand lacks: lists of jobs, functions, connections, and what changes these."""

from __future__ import annotations

from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.server.peers import ServerTestCase, SocketlikeTransport, req, res
from tests.server.stores import UNAVAILABLE, ListStore
from tests.server.test_writer import SavingTestCase, submit
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.admin import job_list
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.interfaces import Reloaded

CAN_DO, SUBMIT_JOB, GRAB_JOB, NO_JOB, WORK_STATUS, WORK_COMPLETE, WORK_FAIL = 1, 7, 9, 10, 12, 13, 14
SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG, SET_CLIENT_ID = 18, 32, 22


class AdminTestCase(ServerTestCase):
    def setUp(self) -> None:
        self.gearman = self.serve(functions={"retried": FunctionSettings(attempts=2, backoff=10, jitter=0)})
        self.admin = self.peer()

    def ask(self, line: str) -> str:
        return self.admin.ask(line.encode() + b"\n").decode()

    def rows(self, line: str) -> list[list[str]]:
        """The columns of each row of a list."""
        *rows, end = self.ask(line).split("\n")[:-1]
        self.assertEqual(end, ".", rows)
        return [row.split("\t") for row in rows]


class JobsTest(AdminTestCase):
    """``jobs``"""

    def setUp(self) -> None:
        super().setUp()
        self.admin.ask(req(SUBMIT_JOB_BG, b"f", b"a key", b"data"))
        self.gearman.clock.advance(5)
        self.admin.ask(req(SUBMIT_JOB, b"g h", b"", b""), req(SUBMIT_JOB_HIGH_BG, b"f", b"k", b"x" * 1000))

    def handles(self, line: str) -> str:
        return " ".join([row[0].removeprefix("H:test:") for row in self.rows(line)])

    def test_all_that_is_shown(self) -> None:
        worker = self.worker(b"f")
        worker.ask(req(SET_CLIENT_ID, b"painter"), req(GRAB_JOB))
        worker.ask(req(WORK_STATUS, b"H:test:3", b"3", b"4"))
        self.assertEqual(
            self.rows("jobs"),
            [
                ["H:test:1", "f", "a key", "queued", "normal", "1", "0", "0", "5.000", "4", "0", "0", ""],
                ["H:test:2", "g h", "", "queued", "normal", "0", "0", "0", "0.000", "0", "0", "0", ""],
                [
                    *("H:test:3", "f", "k", "running", "high", "1", "0", "0", "0.000", "1000", "3", "4"),
                    "painter 127.0.0.1",
                ],
            ],
        )

    def test_filters(self) -> None:
        self.worker(b"f").ask(req(GRAB_JOB))
        for line, expected in (
            ("Jobs", "1 2 3"),
            ("jobs function=f", "1 3"),
            (r"jobs FUNCTION=g\x20h", "2"),
            (r"jobs unique=a\x20key", "1"),
            ("jobs unique=", "2"),
            ("jobs state=running", "3"),
            ("jobs state=queued,Running function=f", "1 3"),
            ("jobs state=scheduled,saving,retrying,stored", ""),
            ("jobs older-than=4.5", "1"),
            ("jobs older-than=0", "1"),
            ("jobs function=f state=queued unique=k older-than=0", ""),
            ("jobs function=none", ""),
        ):
            self.assertEqual(self.handles(line), expected, line)

    def test_one_that_waits_for_its_next_attempt(self) -> None:
        self.admin.ask(req(SUBMIT_JOB_BG, b"retried", b"", b""))
        self.worker(b"retried").ask(req(GRAB_JOB), req(WORK_FAIL, b"H:test:4"))
        (row,) = self.rows("jobs state=retrying")
        self.assertEqual((row[3], row[6]), ("retrying", "1"))

    def test_wrong_filters(self) -> None:
        for line in (
            "jobs f",
            "jobs name=f",
            "jobs function=f function=g",
            "jobs state=dead",
            "jobs state=",
            "jobs older-than=",
            "jobs older-than=-1",
            "jobs older-than=nan",
            "jobs older-than=inf",
            "jobs ",
        ):
            answer = self.ask(line)
            self.assertTrue(answer.startswith("ERR INVALID_ARGUMENTS "), (line, answer))
        self.assertTrue(self.ask("jobs a=1 b=1 c=1 d=1 e=1").startswith("ERR TOO_MANY_ARGS"))

    def test_others_are_served_between_two_pages(self) -> None:
        turns: list[Deferred[None]] = []

        def next_turn(_reactor: object, _seconds: float) -> Deferred[None]:
            turns.append(Deferred())
            return turns[-1]

        with (
            mock.patch.object(job_list, "PAGE", 2),
            mock.patch.object(job_list, "deferLater", next_turn),
        ):
            self.assertNotIn(b"\n.\n", self.admin.ask(b"jobs\n"))
            self.assertEqual(len(turns), 1)
            # What ends meanwhile is no trouble.
            self.assertEqual(self.peer().ask(b"cancel job H:test:3\n"), b"OK\r\n")
            turns[0].callback(None)
            answer = self.admin.heard()
        self.assertEqual(len(turns), 1)
        self.assertNotIn(b"H:test:3", answer)
        self.assertTrue(answer.endswith(b"\n.\n"), answer)


class StoredJobsTest(SavingTestCase):
    """``jobs`` where most of a queue is in the store alone."""

    def setUp(self) -> None:
        self.store = ListStore()
        self.start(store_ahead=2)
        self.client = self.connect()
        self.client.receive(*[submit(b"x" * number, unique=b"u%d" % number) for number in range(6)])
        self.commit()
        self.heard(self.client)

    def states(self, line: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """Unique, state and size of the jobs of a list."""
        self.client.receive(line + b"\n")
        self.commit()
        *rows, end = self.heard(self.client).split(b"\n")[:-1]
        self.assertEqual(end, b".")
        return [(columns[2], columns[3], columns[9]) for columns in (row.split(b"\t") for row in rows)]

    def test_they_are_behind_those_in_memory(self) -> None:
        queued = [(b"u0", b"queued", b"0"), (b"u1", b"queued", b"1")]
        stored = [(b"u%d" % number, b"stored", b"%d" % number) for number in range(2, 6)]
        for line, expected in (
            (b"jobs", queued + stored),
            (b"jobs function=f", queued + stored),
            (b"jobs function=g", []),
            (b"jobs state=queued", queued + stored),
            (b"jobs state=stored", stored),
            (b"jobs state=running", []),
            (b"jobs unique=u4", stored[2:3]),
            (b"jobs older-than=1", []),
        ):
            self.assertEqual(self.states(line), expected, line)
        with mock.patch.object(job_list, "PAGE", 1):
            self.assertEqual(self.states(b"jobs"), queued + stored)

    def test_a_list_that_the_store_breaks_off_is_not_taken_for_whole(self) -> None:
        self.store.failing = UNAVAILABLE
        self.client.receive(b"jobs\n")
        self.turn()
        self.thread.run()
        answer = self.heard(self.client)
        self.assertNotIn(b"\n.\n", answer)
        self.assertIn(b"\nERR ", answer)
        self.assertTrue(self.client.disconnecting)


class JobOptionsTest(AdminTestCase):
    """``show job`` tells what was said of the job."""

    def test_what_was_said_alone(self) -> None:
        run_at = f"{int(self.gearman.clock.seconds() + 100)}"
        said = f"background=1 run_at={run_at} expires=60 attempts=7 backoff=2.5 keep_result=30 unique_for=9"
        attributes = said.replace(" ", "\n").encode()
        self.admin.ask(req(26, b"submit-extended"), req(1007, b"f", b"u", attributes, b""))
        self.admin.ask(req(SUBMIT_JOB_BG, b"f", b"", b""))
        values = dict(line.split("\t") for line in self.ask("show job H:test:1").split("\n")[:-2])
        expected = {
            "run_at": run_at,
            "next_run": run_at,
            "expires": "60",
            "max_attempts": "7",
            "attempts": "0",
            "backoff": "2.500",
            "keep_result": "30",
            "unique_for": "9",
        }
        self.assertEqual({name: values[name] for name in expected}, expected)
        plain = self.ask("show job H:test:2")
        for name in expected.keys() - {"attempts"}:
            self.assertNotIn(f"{name}\t", plain)


class FunctionsTest(AdminTestCase):
    """``show functions``, ``pause function`` and ``resume function``"""

    def test_the_counts(self) -> None:
        self.admin.ask(*[req(SUBMIT_JOB_BG, b"f g", b"", b"")] * 4)
        worker = self.worker(b"f g")
        worker.ask(req(GRAB_JOB))
        worker.ask(req(WORK_COMPLETE, b"H:test:1", b""), req(GRAB_JOB))
        worker.ask(req(WORK_FAIL, b"H:test:2"), req(GRAB_JOB))
        self.ask("cancel job H:test:4")
        self.assertEqual(
            self.rows("show functions"),
            [["f g", "active", "-", "0", "0", "0", "1", "1", "1", "0", "4", "1", "1", "1", "0", "0"]],
        )

    def test_pausing(self) -> None:
        self.admin.ask(req(SUBMIT_JOB_BG, b"f g", b"", b""))
        worker = self.worker(b"f g")
        self.assertEqual(self.ask(r"pause function f\x20g"), "OK\r\n")
        self.assertEqual(self.rows("show functions")[0][1], "paused")
        self.assertEqual(worker.ask(req(GRAB_JOB)), res(NO_JOB))
        self.assertEqual(self.ask(r"Resume FUNCTION f\x20g"), "OK\r\n")
        self.assertEqual(self.rows("show functions")[0][1], "active")
        self.assertIn(b"H:test:1", worker.ask(req(GRAB_JOB)))

    def test_a_pause_after_failures(self) -> None:
        self.ask("limit f pause-after 1")
        self.admin.ask(req(SUBMIT_JOB_BG, b"f", b"", b""))
        self.worker(b"f").ask(req(GRAB_JOB), req(WORK_FAIL, b"H:test:1"))
        self.assertEqual(self.rows("show functions")[0][1], "paused-by-failures")
        self.ask("resume function f")
        self.assertEqual(self.rows("show functions")[0][1], "active")

    def test_refusals(self) -> None:
        for line, answer in (
            ("pause function f", "ERR UNKNOWN_FUNCTION\r\n"),
            ("resume function f", "ERR UNKNOWN_FUNCTION\r\n"),
            ("pause function", "ERR INVALID_ARGUMENTS "),
            ("pause function f g", "ERR INVALID_ARGUMENTS "),
            ("pause f g", "ERR INVALID_ARGUMENTS "),
        ):
            self.assertTrue(self.ask(line).startswith(answer), line)

    def test_nothing_is_resumed_while_the_server_drains(self) -> None:
        self.ask("create function f")
        self.gearman.server.administration.drain()
        self.assertTrue(self.ask("resume function f").startswith("ERR SHUTTING_DOWN"))

    def test_the_right(self) -> None:
        for words, allowed in ((("manage",), True), (("*",), True), (("schedule", "view", "pause"), False)):
            rule = Rule("all", admin=frozenset(words))
            peer = self.peer(self.serve(access=AccessPolicy((rule,))))
            for line in (b"pause function f\n", b"resume function f\n"):
                answer = b"ERR UNKNOWN_FUNCTION" if allowed else b"ERR ACCESS_DENIED"
                self.assertTrue(peer.ask(line).startswith(answer), (words, line))


class ConnectionsTest(AdminTestCase):
    """``show connections``, ``quiet`` and ``unquiet``"""

    def test_quiet(self) -> None:
        worker = self.worker(b"f", b"g")
        worker.ask(req(SET_CLIENT_ID, b"a\tpainter"), req(SUBMIT_JOB_BG, b"f", b"", b""))
        self.gearman.clock.advance(2)
        self.assertEqual(self.ask("quiet 2"), "OK\r\n")
        self.assertEqual(worker.ask(req(GRAB_JOB)), res(NO_JOB))
        self.assertEqual(
            self.rows("show connections")[1], ["2", "127.0.0.1", r"a\tpainter", "2", "0", "1", "2.000"]
        )
        self.assertEqual(self.ask("unquiet 2"), "OK\r\n")
        self.assertIn(b"H:test:1", worker.ask(req(GRAB_JOB)))
        self.assertEqual(self.rows("show connections")[1][3:6], ["2", "1", "0"])

    def test_wrong_numbers(self) -> None:
        for line in ("quiet 9", "quiet x", "quiet -1", "unquiet 1.0", f"quiet {'9' * 5000}"):
            self.assertEqual(self.ask(line), "ERR UNKNOWN_CONNECTION\r\n", line)
        for line in ("quiet", "quiet 1 2"):
            self.assertTrue(self.ask(line).startswith("ERR INVALID_ARGUMENTS "))


class Process:
    """A process that notes what it is told."""

    def __init__(self, reloaded: Reloaded) -> None:
        self.reloaded = reloaded
        self.told: list[str] = []

    def drain(self) -> None:
        self.told.append("drain")

    def reload(self) -> Reloaded:
        self.told.append("reload")
        return self.reloaded


class ProcessTest(AdminTestCase):
    """``reload`` and ``shutdown drain``"""

    def told(self, reloaded: Reloaded) -> Process:
        self.gearman.server.process = process = Process(reloaded)
        return process

    def test_reload(self) -> None:
        for reloaded, answer in (
            (Reloaded([], []), "OK changed: nothing\r\n"),
            (
                Reloaded(["max-jobs", "functions.f"], ["listen"]),
                "OK changed: max-jobs, functions.f; needs a new start: listen\r\n",
            ),
            (
                Reloaded([], [], "a.toml:3: no option\nof this name"),
                "ERR WRONG_CONFIGURATION a.toml:3:+no+option+of+this+name\r\n",
            ),
        ):
            process = self.told(reloaded)
            self.assertEqual(self.ask("reload"), answer)
            self.assertEqual(process.told, ["reload"])

    def test_drain(self) -> None:
        process = self.told(Reloaded([], []))
        self.assertEqual(self.ask("Shutdown Drain"), "OK\r\n")
        self.assertEqual(process.told, ["drain"])

    def test_within_another_program(self) -> None:
        self.assertEqual(self.ask("reload"), "ERR NOT_ALLOWED reload+is+not+up+to+this+server\r\n")
        self.assertEqual(
            self.ask("shutdown drain"), "ERR NOT_ALLOWED shutdown+drain+is+not+up+to+this+server\r\n"
        )

    def asked_from_elsewhere(self, line: bytes, *admin: str) -> tuple[bytes, list[str]]:
        """The answer to a line from another machine, with a rule that allows so much; without one no
        policy."""
        access = AccessPolicy((Rule("all", admin=frozenset(admin)),)) if admin else None
        clock = Clock()
        factory = GearmanServerFactory(clock, Settings(access=access))
        factory.process = process = Process(Reloaded([], []))
        transport = SocketlikeTransport("192.0.2.1")
        transport.connect(factory.buildProtocol(None))
        transport.receive(line + b"\n")
        clock.advance(0)
        return transport.value(), process.told

    def test_who_may(self) -> None:
        elsewhere = b"ERR NOT_ALLOWED %b+is+for+connections+from+this+machine\r\n"
        cases: tuple[tuple[bytes, tuple[str, ...], bytes, list[str]], ...] = (
            (b"reload", (), elsewhere % b"reload", []),
            (b"reload", ("manage",), b"OK changed: nothing\r\n", ["reload"]),
            (b"reload", ("reload",), b"OK changed: nothing\r\n", ["reload"]),
            (b"reload", ("view",), b"ERR ACCESS_DENIED You+may+not+use+this+command+reload\r\n", []),
            (b"shutdown drain", (), elsewhere % b"shutdown", []),
            (b"shutdown drain", ("shutdown",), b"OK\r\n", ["drain"]),
            (
                b"shutdown drain",
                ("manage",),
                b"ERR ACCESS_DENIED You+may+not+use+this+command+shutdown\r\n",
                [],
            ),
        )
        for line, admin, answer, told in cases:
            self.assertEqual(self.asked_from_elsewhere(line, *admin), (answer, told), (line, admin))
