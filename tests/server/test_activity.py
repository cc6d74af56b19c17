"""Who did what: each action is one line of the log and one event. And what the server did by itself."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import ServerTestCase, req
from tests.server.test_admin_jobs import Process
from txgearman.access.actor import Actor, actor_of
from txgearman.access.policy import ADMIN_COMMANDS, AccessPolicy, Identity, Right, Rule
from txgearman.errors import StoreUnavailable
from txgearman.server import protocol
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.interfaces import Reloaded
from txgearman.server.monitoring.activity import MAX_BYTES, MAX_DETAIL, MAX_EVENTS, Activity, Event
from txgearman.server.persistence.outage import Outage
from txgearman.server.process.logs import json_line

CAN_DO, GRAB_JOB, WORK_FAIL, SUBMIT_JOB_BG, SET_CLIENT_ID, SUBMIT_JOB_SCHED = 1, 9, 14, 18, 22, 35
ME = Actor("192.0.2.1")
SCHEDULE = rb'{"function":"f","every":60}'

LINES = (
    (b"create function g", ("create function", b"g", "", None)),
    (b"maxqueue g 5", ("maxqueue", b"g", "5", None)),
    (b"MaxRate g 2 3", ("maxrate", b"g", "2 3", None)),
    (b"limit g max-running 2", ("limit", b"g", "max-running 2", None)),
    (b"pause function g", ("pause function", b"g", "", None)),
    (b"resume function g", ("resume function", b"g", "", None)),
    (b"quiet 1", ("quiet", b"1", "", None)),
    (b"unquiet 1", ("unquiet", b"1", "", None)),
    (b"reload", ("reload", b"", "", None)),
    (b"drop function g", ("drop function", b"g", "", None)),
    (b"cancel job H:test:1", ("cancel job", b"H:test:1", "", 1)),
    (b"kill job H:test:2", ("kill job", b"H:test:2", "", 1)),
    (b"retry dead f", ("retry dead", b"f", "", 1)),
    (b"forget dead f", ("forget dead", b"f", "", 0)),
    (b"create schedule s " + SCHEDULE, ("create schedule", b"s", SCHEDULE.decode(), None)),
    (b"pause schedule s", ("pause schedule", b"s", "", None)),
    (b"resume schedule s", ("resume schedule", b"s", "", None)),
    (b"run schedule s", ("run schedule", b"s", "", 1)),
    (b"drop schedule s", ("drop schedule", b"s", "", None)),
    (b"shutdown graceful", ("shutdown", b"graceful", "", None)),
)
"""Admin lines that change something, in an order in which all do, and what is remembered of them."""


class ActionsTestCase(ServerTestCase):
    def setUp(self) -> None:
        functions = {"f": FunctionSettings(attempts=2, backoff=10, jitter=0)}
        self.gearman = self.serve(functions=functions, allow_unsaved_schedules=True)
        self.gearman.server.process = Process(Reloaded([], []))
        self.admin = self.peer()

    @property
    def activity(self) -> Activity:
        return self.gearman.server.activity

    @property
    def events(self) -> list[Event]:
        """The events so far, the oldest first."""
        return list(self.activity.newest_first())[::-1]

    def run_and_fail(self, *handles: bytes) -> None:
        worker = self.worker(b"f")
        for handle in handles:
            self.assertIn(handle, worker.ask(req(GRAB_JOB)))
            worker.ask(req(WORK_FAIL, handle))
        worker.hang_up()


def described(event: Event) -> tuple[Any, ...]:
    return event.action, event.target, event.detail, event.jobs


def actions_in(logs: list[LogEvent]) -> list[str]:
    return [line for line in map(formatEvent, logs) if line.startswith("Action ")]


class AdminLinesTest(ActionsTestCase):
    def test_every_command_that_changes_something(self) -> None:
        self.admin.ask(*[req(SUBMIT_JOB_BG, b"f", b"", b"x")] * 2)
        self.admin.ask(req(SET_CLIENT_ID, b"ops"))
        for line, expected in LINES:
            if line.startswith(b"kill"):
                self.run_and_fail(b"H:test:2")
            with capturedLogs() as logs:
                answer = self.admin.ask(line + b"\n")
            self.assertTrue(answer.startswith(b"OK"), (line, answer))
            self.assertEqual(described(self.events[-1]), expected, line)
            (said,) = actions_in(logs)
            self.assertTrue(said.startswith("Action over admin by 127.0.0.1 (ops): " + expected[0]), said)
        self.assertEqual(len(self.events), len(LINES))
        tried = {line.split()[0].lower().decode() for line, _ in LINES} | {"verbose"}
        changing = {name for name, right in ADMIN_COMMANDS.items() if right is not Right.VIEW} - {"retry"}
        self.assertLessEqual(changing, tried, "a line of LINES is missing for a new command")

    def test_what_changes_nothing_is_no_action(self) -> None:
        for line in (
            b"status",
            b"verbose",
            b"show jobs",
            b"cancel job H:test:9",
            b"drop function none",
            b"retry job H:test:9",
            b"kill job H:test:9",
            b"drop schedule none",
            b"maxqueue",
        ):
            self.admin.ask(line + b"\n")
        self.assertEqual(self.events, [])

    def test_who_has_gone_before_the_answer(self) -> None:
        self.admin.ask(*[req(SUBMIT_JOB_BG, b"f", b"", b"x")] * 300)
        for number in range(1, 301):
            self.run_and_fail(b"H:test:%d" % number)
            self.admin.ask(b"kill job H:test:%d\n" % number)
        # The first page is done within the call; the rest is done when the peer has left.
        connection: Any = self.gearman.server.connections[1]
        connection.dataReceived(b"forget dead f\n")
        # As of a UNIX socket that is closed.
        self.patch(protocol, "identity_of", self._raise)
        self.gearman.cut()
        self.gearman.turn()
        self.assertEqual(described(self.events[-1]), ("forget dead", b"f", "", 300))

    @staticmethod
    def _raise(_transport: object) -> None:
        raise OSError("bad file descriptor")

    def test_the_rule_of_whoever_did_it(self) -> None:
        rules = (Rule("all", admin=frozenset("*")), Rule("nobody", certificates=("x",)))
        self.gearman = self.serve(access=AccessPolicy(rules))
        self.peer().ask(b"create function f\n")
        self.assertEqual(self.events[-1].actor, Actor("127.0.0.1", rules=("all",)))

    def test_a_schedule_that_is_submitted(self) -> None:
        self.admin.ask(req(SUBMIT_JOB_SCHED, b"f", b"u", b"30", b"", b"", b"", b"", b"x"))
        (event,) = self.events
        self.assertEqual((event.via, event.action, event.detail), ("packet", "create schedule", "30 * * * *"))


class ServersOwnTest(ActionsTestCase):
    def test_a_function_that_is_paused_by_itself(self) -> None:
        self.admin.ask(b"limit f pause-after 1\n", req(SUBMIT_JOB_BG, b"f", b"", b"x"))
        self.run_and_fail(b"H:test:1")
        event = self.events[-1]
        self.assertEqual((event.actor, event.action, event.target), (None, "pause function", b"f"))

    def test_the_store_goes_away_and_comes_back(self) -> None:
        activity = Activity(lambda: 7.0)
        outage = Outage(activity.happened)
        for _ in range(3):
            outage.begin(Failure(StoreUnavailable("gone")))
        self.assertTrue(outage.end())
        self.assertFalse(outage.end())
        back, away = activity.newest_first()
        self.assertEqual(described(away), ("store unavailable", b"", "gone", None))
        self.assertEqual(back.action, "store available again")
        self.assertEqual((back.time, back.number), (7.0, 2))


class ActivityTest(SynchronousTestCase):
    def test_so_many_are_remembered(self) -> None:
        activity = Activity(lambda: 0.0)
        for number in range(MAX_EVENTS + 5):
            activity.happened("start", str(number))
        events = list(activity.newest_first())
        self.assertEqual((len(activity), events[0].number, events[-1].number), (MAX_EVENTS, 1005, 6))

    def test_so_many_bytes_are_remembered(self) -> None:
        """The longest that there can be, from a peer that fits many rules with long names."""
        activity = Activity(lambda: 0.0)
        actor = Actor("host", rules=("r" * 4000,) * 20)
        for _ in range(20):
            activity.acted(actor, "http", "drop function", b"f" * 10_000, "d" * 10_000)
        events = list(activity.newest_first())
        self.assertLess(len(events), 20)
        self.assertEqual((len(events[0].target), len(events[0].detail)), (512, MAX_DETAIL))
        self.assertLessEqual(sum(event.weight for event in events), MAX_BYTES)

    def test_a_line_and_its_fields(self) -> None:
        digest = sha256(b"secret").digest()
        policy = AccessPolicy((Rule("ops", tokens=(digest,)), Rule("here", certificates=("*.example",))))
        identity = Identity(certificate=frozenset({"a.example", "b.example"}), token=b"secret")
        actor = actor_of(identity, "192.0.2.1", client_id=b"\n\xff", rights=policy.rights_of(identity))
        with capturedLogs() as logs:
            Activity(lambda: 0.0).acted(actor, "http", "cancel jobs", b"f\n", "a\nb", 3)
        line = json.loads(json_line(logs[0]))
        self.assertEqual(
            line["message"],
            r"Action over http by 192.0.2.1 (\n\xff) with a certificate for a.example, b.example, "
            r"by the rules ops, here: cancel jobs f\n (a\nb); jobs changed: 3",
        )
        self.assertEqual(
            line["fields"],
            {
                "action": "cancel jobs",
                "target": r"f\n",
                "detail": r"a\nb",
                "jobs": 3,
                "via": "http",
                "address": "192.0.2.1",
                "client_id": r"\n\xff",
                "certificate": "a.example, b.example",
                "user": None,
                "rules": "ops, here",
                "web_token": False,
            },
        )
