"""What administrators set for functions is kept in the store, against what the configuration says.

Kinds of settings: pauses, ``maxqueue``, ``maxrate``, and each limit of runs. Ways to set one: admin lines,
`Administration`, which HTTP calls, and failures that pause a function. Ways for one to end: another command,
``drop function``, a reload, a start with another configuration, another server on the database.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import req, res
from tests.server.sites import LEASE, Site
from tests.server.stores import UNAVAILABLE, SharedStore
from tests.server.test_writer import SavingTestCase, handle, submit
from tests.store.model import ModelDatabase
from txgearman.broker.policy import NO_RULES, FunctionRules, RunRules
from txgearman.broker.setting_kinds import (
    KINDS,
    RUN_KINDS,
    is_valid,
    value_of,
    value_of_runs,
    with_value,
)
from txgearman.errors import StoreUnavailable
from txgearman.server.config.options import FunctionSettings
from txgearman.server.persistence import settings as settings_module
from txgearman.server.persistence.lease import RENEWALS
from txgearman.server.persistence.settings import RETRY_INTERVAL
from txgearman.store.contract import SettingChanges

LOADED = "{count} settings of functions loaded from the store: they hold over the configuration"


class SettingTestCase(SavingTestCase):
    """``f`` is limited to 10 jobs by the configuration where a test says so."""

    limited = {"f": FunctionSettings(queue_limit=(10, 10, 10))}

    def say(self, *lines: bytes) -> bytes:
        """What an administrator is answered; the store has what that changed."""
        admin = self.connect()
        admin.receive(*(line + b"\n" for line in lines))
        self.commit()
        return self.heard(admin)

    def restart(self, **settings: Any) -> None:
        self.stop()
        self.start(**settings)
        self.commit()

    def shown(self) -> dict[bytes, tuple[Any, ...]]:
        """The limits of each function that has some, and which are paused."""
        functions = self.factory.broker.functions.by_name.values()
        return {
            function.name: (
                function.limits,
                function.rate and (function.rate.per_second, function.rate.burst),
                function.paused,
            )
            for function in functions
        }

    def kept(self) -> dict[tuple[bytes, str], Any]:
        """The values in the store, by function and kind."""
        return {key: json.loads(text)["value"] for key, text in self.store.kept.settings.items()}


class KeepingTests(SettingTestCase):
    def test_settings_outlive_a_restart(self) -> None:
        self.say(b"maxqueue f 5", b"maxqueue g 1 0 3", b"maxrate f 2.5 7", b"create function h")
        self.factory.administration.pause_function(b"h")
        before = self.shown()
        self.assertEqual(before[b"f"], ((5, 5, 5), (2.5, 7), False))
        self.assertEqual(before[b"g"], ((1, None, 3), None, False))
        self.assertEqual(before[b"h"], (None, None, True))
        with capturedLogs() as events:
            self.restart()
        self.assertEqual(self.shown(), before)
        self.assertEqual([event["count"] for event in events if event["log_format"] == LOADED], [4])
        self.restart()
        self.assertEqual(self.shown(), before, "and the next")

    def test_the_answer_comes_behind_the_commit(self) -> None:
        self.say(b"create function f")
        for line in (
            b"maxqueue f 5",
            b"maxrate f 2.5 7",
            b"limit f max-running 3",
            b"pause function f",
            b"resume function f",
            b"drop function f",
        ):
            with self.subTest(line):
                admin = self.connect()
                admin.receive(line + b"\n", req(16, b"behind it"))
                self.assertEqual(self.heard(admin), b"", "all that is behind it waits, too")
                kept = dict(self.store.kept.settings)
                self.commit()
                self.assertNotEqual(self.store.kept.settings, kept)
                self.assertEqual(self.heard(admin), b"OK\r\n" + res(17, b"behind it"))

    def test_what_changes_nothing_is_answered_at_once(self) -> None:
        self.say(b"maxqueue f 5")
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [5, 5, 5]})
        admin = self.connect()
        admin.receive(b"create function g\n", b"version\n")
        self.assertTrue(self.heard(admin).startswith(b"OK\r\nOK "))

    def test_several_that_wait(self) -> None:
        peers = [self.connect() for _ in range(3)]
        for number, peer in enumerate(peers):
            peer.receive(b"maxqueue f %d\n" % (number + 1))
            if number == 0:
                self.turn()
        self.thread.run()
        self.assertEqual([self.heard(peer) for peer in peers], [b"OK\r\n", b"", b""], "others are on the way")
        self.commit()
        self.assertEqual([self.heard(peer) for peer in peers], [b"", b"OK\r\n", b"OK\r\n"])

    def test_what_the_store_says_is_one_line_of_the_answer(self) -> None:
        self.store.failing = StoreUnavailable("two\nlines\x1b[2J")
        refused = self.say(b"maxqueue f 5")
        self.assertEqual((refused.count(b"\n"), refused.count(b"\x1b")), (1, 0), refused)

    def test_a_store_that_is_away(self) -> None:
        self.store.failing = UNAVAILABLE
        said = self.say(b"maxqueue f 5", b"version")
        refused, _, rest = said.partition(b"\r\n")
        self.assertTrue(refused.startswith(b"ERR NOT_SAVED It+holds+on+this+server"), refused)
        self.assertIn(b"the+disk+is+full", refused)
        self.assertTrue(rest.startswith(b"OK "), "in the order of the requests")
        self.assertEqual((self.shown()[b"f"][0], self.kept()), ((5, 5, 5), {}), "it holds at once")
        self.store.failing = None
        self.turn(RETRY_INTERVAL)
        self.commit()
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [5, 5, 5]})
        self.assertEqual(self.say(b"maxqueue f 6"), b"OK\r\n")

    def test_a_store_that_is_back_is_tried_at_once(self) -> None:
        self.store.failing = UNAVAILABLE
        self.say(b"maxqueue f 5")
        self.store.failing = None
        self.assertEqual(self.say(b"maxqueue f 6"), b"OK\r\n")
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [6, 6, 6]})

    def test_a_peer_that_has_gone(self) -> None:
        admin = self.connect()
        admin.receive(b"maxqueue f 5\n")
        admin.lose()
        self.commit()
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [5, 5, 5]})

    def test_a_server_that_is_abandoned(self) -> None:
        admin = self.connect()
        admin.receive(b"maxqueue f 5\n")
        self.turn()
        self.store_writer.abandon()
        self.assertIn(b"ERR NOT_SAVED", self.heard(admin))

    def test_limits_of_runs_outlive_it_too(self) -> None:
        rules = RunRules(3, 2.5, 7, 2, b"\xff/", 9)
        self.factory.administration.limit_runs(b"f", rules)
        self.factory.administration.limit_runs(b"g", RunRules(max_running=1))
        self.commit()
        self.assertEqual({kind for name, kind in self.kept() if name == b"f"}, set(RUN_KINDS))
        self.restart()
        self.assertEqual((self.runs(b"f"), self.runs(b"g")), (rules, RunRules(max_running=1)))
        self.factory.administration.limit_runs(b"f", RunRules())
        self.commit()
        self.assertEqual(self.kept(), {(b"g", "max-running"): 1})

    def runs(self, name: bytes) -> RunRules | None:
        """The limits of a function's runs."""
        limits = self.factory.broker.functions.by_name[name].run_limits
        return None if limits is None else limits.rules

    def test_a_reload_changes_the_limits_of_runs_that_it_says_anew_alone(self) -> None:
        def reload(**rules: Any) -> None:
            policy = replace(self.factory.settings.policy, functions=((b"f", FunctionRules(**rules)),))
            self.factory.administration.change_policy(policy)
            self.commit()

        reload(max_running=3, pause_after=4)
        self.factory.administration.limit_runs(b"f", RunRules(max_running=5, pause_after=6))
        self.commit()
        reload(max_running=3, pause_after=4, start_rate=7.0)
        self.assertEqual(self.runs(b"f"), RunRules(max_running=5, start_rate=7.0, pause_after=6))
        self.assertEqual(self.kept(), {(b"f", "max-running"): 5, (b"f", "pause-after"): 6})
        reload(max_running=2, pause_after=4, start_rate=7.0)
        self.assertEqual(self.runs(b"f"), RunRules(max_running=2, start_rate=7.0, pause_after=6))
        self.assertEqual(self.kept(), {(b"f", "pause-after"): 6})

    def test_a_function_that_failures_have_paused_stays_so(self) -> None:
        self.factory.administration.limit_runs(b"f", RunRules(pause_after=1))
        worker = self.worker()
        self.connect().receive(submit())
        self.commit()
        worker.receive(req(9), req(14, handle(1)))
        self.commit()
        self.assertEqual(self.kept(), {(b"f", "pause-after"): 1, (b"f", "paused"): True})
        self.restart()
        self.assertTrue(self.shown()[b"f"][2])

    def test_they_hold_for_the_jobs(self) -> None:
        self.connect().receive(submit())
        self.commit()
        self.say(b"maxqueue f 1")
        self.factory.administration.pause_function(b"f")
        self.restart()
        worker, client = self.worker(), self.connect()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(10))
        client.receive(submit())
        self.assertIn(b"QUEUE_ERROR", self.heard(client))
        self.factory.administration.resume_function(b"f")
        worker.receive(req(9))
        self.assertIn(b"data", self.heard(worker))
        self.commit()
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [1, 1, 1]})

    def test_what_is_lifted_is_kept_no_more(self) -> None:
        self.say(b"maxqueue f 5", b"maxrate f 3")
        self.factory.administration.pause_function(b"f")
        self.say(b"maxqueue f", b"maxrate f")
        self.factory.administration.resume_function(b"f")
        self.commit()
        self.assertEqual(self.kept(), {})
        self.restart()
        self.assertEqual(self.shown(), {})

    def test_a_function_that_was_dropped_does_not_come_back(self) -> None:
        self.say(b"maxqueue f 5", b"maxqueue g 5")
        self.factory.administration.pause_function(b"f")
        self.assertEqual(self.say(b"drop function f"), b"OK\r\n")
        self.assertEqual(self.kept(), {(b"g", "maxqueue"): [5, 5, 5]})
        self.say(b"maxrate f 7")
        self.say(b"maxrate f 8", b"drop function f", b"create function f", b"maxrate f 9")
        self.restart()
        self.assertEqual(self.shown()[b"f"], (None, (9, 9), False))
        # All of it in one transaction, and ahead of it.
        self.say(b"maxqueue f 6", b"drop function f")
        self.restart()
        self.assertEqual(list(self.shown()), [b"g"])

    def test_draining_is_no_setting(self) -> None:
        self.say(b"create function f")
        self.factory.administration.drain()
        self.say(b"maxqueue f 5")
        self.restart()
        self.assertEqual(self.shown(), {b"f": ((5, 5, 5), None, False)})

    def test_without_a_change_nothing_is_written(self) -> None:
        self.restart(functions=self.limited)
        self.say(b"create function f", b"maxqueue f 10", b"maxqueue g")
        self.factory.administration.resume_function(b"f")
        self.turn()
        self.assertEqual((self.thread.calls, self.store.kept.settings_version), ([], 0))

    def test_they_are_written_as_far_as_the_store_takes_them_when_the_server_ends(self) -> None:
        self.factory.administration.set_limits(b"f", (5, 5, 5))
        self.factory.administration.set_limits(b"g", (6, 6, 6))
        self.assertEqual(len(self.thread.calls), 1)
        self.restart()
        self.assertEqual(list(self.shown()), [b"f", b"g"])


class ConfigurationTests(SettingTestCase):
    """Whoever spoke last is obeyed: the administrator or the configuration."""

    def test_a_command_holds_over_the_configuration(self) -> None:
        self.restart(functions=self.limited)
        self.assertEqual(self.say(b"maxqueue f 5"), b"OK\r\n")
        self.restart(functions=self.limited)
        self.assertEqual(self.shown()[b"f"], ((5, 5, 5), None, False))
        self.say(b"maxqueue f 0")
        self.restart(functions=self.limited)
        self.assertEqual(self.shown()[b"f"], (None, None, False), "no limit, over one of the configuration")
        self.say(b"maxqueue f 10")
        self.assertEqual(self.kept(), {}, "what the configuration says too is no setting any more")

    def test_until_the_configuration_says_something_else(self) -> None:
        self.restart(functions=self.limited)
        self.say(b"maxqueue f 5", b"maxrate f 3")
        changed = {"f": FunctionSettings(queue_limit=(20, 20, 20))}
        with capturedLogs() as events:
            self.restart(functions=changed)
        self.assertEqual([event["kind"] for event in events if "kind" in event], ["maxqueue"])
        self.connect().receive(submit())
        self.commit()
        self.assertEqual(self.shown()[b"f"], ((20, 20, 20), (3, 3), False), "the other setting holds")
        self.assertEqual(self.kept(), {(b"f", "maxrate"): [3.0, 0]})
        self.restart(functions=self.limited)
        self.assertEqual(self.shown()[b"f"], ((10, 10, 10), (3, 3), False), "and it does not come back")

    def reload(self, **functions: FunctionSettings) -> None:
        self.factory.reconfigure(replace(self.factory.settings, functions=functions))
        self.commit()

    def test_a_reload_changes_what_it_says_anew_alone(self) -> None:
        self.restart(functions=self.limited)
        self.say(b"maxqueue f 5", b"maxrate f 3")
        self.factory.administration.pause_function(b"f")
        with capturedLogs() as events:
            self.reload(f=FunctionSettings(queue_limit=(10, 10, 10), time_limit=7.0, submit_rate=4.0))
        said = [(event["kind"], event["value"]) for event in events if "holds no more" in event["log_format"]]
        self.assertEqual(said, [("maxrate", "[3.0, 0]")], "the log says what was forgotten")
        self.assertEqual(self.shown()[b"f"], ((5, 5, 5), (4, 4), True))
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [5, 5, 5], (b"f", "paused"): True})
        self.reload(f=FunctionSettings(submit_rate=4.0))
        self.assertEqual(self.shown()[b"f"], (None, (4, 4), True))
        self.restart(functions={"f": FunctionSettings(submit_rate=4.0)})
        self.assertEqual(self.shown()[b"f"], (None, (4, 4), True))

    def test_what_is_not_understood_is_left_alone(self) -> None:
        texts = ["", "{", "7", '{"value": 7, "configured": false}', '{"value": true}']
        values: dict[tuple[bytes, str], str | None] = {
            (b"f%d" % number, "paused"): text for number, text in enumerate(texts)
        }
        values[b"g", "from a newer version"] = '{"value": true, "configured": false}'
        self.store.kept.change_settings(SettingChanges(values=values))
        with capturedLogs() as events:
            self.restart()
        warnings = [event for event in events if "is not understood" in event["log_format"]]
        self.assertEqual(len(warnings), len(values))
        self.assertEqual(self.shown(), {})
        self.assertEqual(self.store.kept.settings, values)


class OutageTests(SettingTestCase):
    def test_a_setting_holds_at_once_and_is_written_when_the_store_is_back(self) -> None:
        self.store.failing = UNAVAILABLE
        self.assertEqual(self.say(b"maxqueue f 5", b"maxrate f 3").count(b"ERR NOT_SAVED "), 2)
        self.assertEqual(self.shown()[b"f"], ((5, 5, 5), (3, 3), False))
        self.assertIsNotNone(self.store_writer.outage)
        self.say(b"maxqueue f 7", b"drop function g")
        self.store.failing = None
        self.turn(RETRY_INTERVAL)
        self.commit()
        self.assertEqual(self.kept(), {(b"f", "maxqueue"): [7, 7, 7], (b"f", "maxrate"): [3.0, 0]})

    def test_what_was_dropped_meanwhile_is_not_written(self) -> None:
        self.store.failing = UNAVAILABLE
        self.say(b"maxqueue f 5")
        self.say(b"drop function f")
        self.store.failing = None
        self.turn(RETRY_INTERVAL)
        self.commit()
        self.assertEqual(self.kept(), {})

    def test_a_server_that_ends_meanwhile_says_so(self) -> None:
        self.store.failing = UNAVAILABLE
        self.say(b"maxqueue f 5")
        with capturedLogs() as events:
            self.stop()
        said = [event["log_format"] for event in events]
        self.assertIn("{count} settings of functions could not be written", said)
        self.store.failing = None
        self.start()

    def test_a_defect_does_not_refuse_jobs(self) -> None:
        self.store.failing = ZeroDivisionError("a defect")
        self.say(b"maxqueue f 5")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(self.store_writer.outage)

    def test_very_many_are_written_in_parts(self) -> None:
        self.patch(settings_module, "CHANGES_AT_ONCE", 3)
        self.store.failing = UNAVAILABLE
        self.say(*(b"maxqueue f%d 5" % number for number in range(10)))
        self.say(*(b"drop function f%d" % number for number in range(5)))
        self.store.failing = None
        before = self.store.kept.settings_version
        self.turn(RETRY_INTERVAL)
        self.commit()
        self.assertEqual({name for name, _ in self.kept()}, {b"f%d" % number for number in range(5, 10)})
        self.assertEqual(self.store.kept.settings_version - before, 4)


class KindsTests(SynchronousTestCase):
    def test_what_the_rules_say_is_valid(self) -> None:
        rules = replace(
            FunctionSettings(queue_limit=(1, 0, 3), submit_rate=2.5, submit_burst=7).rules,
            max_running=3,
            start_rate=0.5,
            start_burst=7,
            max_running_per_key=2,
            key_separator=b"\xff:",
            pause_after=9,
        )
        for kind in KINDS:
            for each in (NO_RULES, rules):
                value = json.loads(json.dumps(value_of(each, kind)))
                self.assertTrue(is_valid(kind, value), kind)
                if kind in RUN_KINDS:
                    runs = with_value(NO_RULES.runs, kind, value)
                    self.assertEqual(value_of_runs(runs, kind), value)

    def test_other_values_are_not(self) -> None:
        wrong = {
            "paused": [None, 1, "true", []],
            "maxqueue": [None, 5, [1, 2], [1, 2, 3, 4], [0, 1, 1], [-1, 1, 1], [True, 1, 1], [1.5, 1, 1]],
            "maxrate": [None, 5, [1], [1, 2, 3], [-1, 0], [1, -1], [1, 1.5], [None, 0], [True, 0]],
            "max-running": [None, True, -1, 1.5, [1], "1"],
            "start-rate": [None, 5, [1], [1, 2, 3], [-1, 0], [1, -1], [1, 1.5], [None, 0], [True, 0]],
            "max-running-per-key": [None, 5, [1], [1, ""], [1, 7], [-1, ":"], [1.5, ":"], [1, "\u0100"]],
            "pause-after": [None, True, -1, 1.5, [1], "1"],
        }
        self.assertEqual(set(wrong), set(KINDS))
        for kind, values in wrong.items():
            for value in values:
                self.assertFalse(is_valid(kind, value), (kind, value))
        self.assertFalse(is_valid("unknown", True))


class SharedSettingTests(SynchronousTestCase):
    """Two servers on one database: a setting that one was told holds for both within a renewal."""

    def setUp(self) -> None:
        self.now = 0.0
        self.database = ModelDatabase(lambda: 5e8 + self.now)
        self.first, self.second = self.sites = [self.site("first"), self.site("second")]

    def site(self, name: str, **settings: Any) -> Site:
        return Site(name, self.database, lambda: 1e9 + self.now, **settings)

    def pass_time(self, seconds: float) -> None:
        """Let time pass everywhere, with a database that answers."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for site in self.sites:
                site.turn(0.1)
                site.commit()

    def renew(self) -> None:
        """Let each lease be renewed, and what comes of that."""
        self.pass_time(LEASE / RENEWALS + 0.1)

    def function(self, site: Site) -> Any:
        return site.factory.broker.functions.by_name[b"f"]

    def test_a_limit_holds_for_both(self) -> None:
        self.first.factory.administration.set_limits(b"f", (5, 6, 7))
        self.first.factory.administration.set_rate(b"f", 2.5, 3)
        self.renew()
        function = self.function(self.second)
        self.assertEqual(
            (function.limits, function.rate.per_second, function.rate.burst), ((5, 6, 7), 2.5, 3)
        )
        self.second.factory.administration.set_limits(b"f", (None, None, None))
        self.renew()
        self.assertIsNone(self.function(self.first).limits)
        self.assertEqual(self.function(self.first).rate.per_second, 2.5)

    def test_a_pause_and_its_end(self) -> None:
        worker, client = self.second.worker(), self.second.connect()
        self.first.worker()
        self.first.factory.administration.pause_function(b"f")
        self.renew()
        client.receive(submit())
        self.second.commit()
        worker.receive(req(9), req(4))
        self.assertEqual(self.second.heard(worker), res(10))
        self.first.factory.administration.resume_function(b"f")
        self.renew()
        self.assertEqual(self.second.heard(worker), res(6), "who sleeps is woken")
        worker.receive(req(9))
        self.assertIn(b"data", self.second.heard(worker))

    def test_a_function_that_one_drops_has_no_settings_anywhere(self) -> None:
        self.first.factory.administration.set_limits(b"f", (5, 5, 5))
        self.renew()
        self.first.factory.administration.drop_function(b"f")
        self.renew()
        self.assertIsNone(self.function(self.second).limits)
        self.assertNotIn(b"f", self.first.factory.broker.functions.by_name)
        self.assertEqual(self.database.settings, {})

    def test_what_one_has_dropped_does_not_come_back_with_what_it_was_just_reading(self) -> None:
        self.second.factory.administration.set_limits(b"f", (5, 5, 5))
        self.second.commit()
        self.first.worker()
        self.renew_up_to_the_answer(self.first)
        (answer,) = self.first.thread.calls
        self.first.thread.calls.clear()
        deferred, function, arguments = answer
        read = function(*arguments)
        self.first.factory.administration.create_function(b"f").workers = 0
        self.first.factory.administration.drop_function(b"f")
        deferred.callback(read)
        self.assertNotIn(b"f", self.first.factory.broker.functions.by_name)
        self.renew()
        self.assertNotIn(b"f", self.first.factory.broker.functions.by_name)
        self.assertEqual(self.database.settings, {})

    def renew_up_to_the_answer(self, site: Site) -> None:
        """Let a server ask for new settings, and not be answered yet."""
        for _ in range(round(10 * LEASE)):
            site.turn(0.1)
            while site.thread.calls:
                if site.thread.calls[0][1] == site.store.settings.read:
                    return
                site.thread.run()
        self.fail("the settings are not read")

    def test_without_a_change_the_settings_are_not_read(self) -> None:
        self.first.factory.administration.set_limits(b"f", (5, 5, 5))
        self.renew()
        self.renew()
        for site in self.sites:
            self.patch(site.store.settings, "read", None)
        self.pass_time(2 * LEASE)
        self.assertEqual([site.store_writer.outage for site in self.sites], [None, None])

    def test_a_server_that_starts_has_those_of_the_others(self) -> None:
        self.first.factory.administration.set_limits(b"f", (5, 5, 5))
        self.first.commit()
        self.second.start()
        self.assertEqual(self.function(self.second).limits, (5, 5, 5))

    def test_they_are_written_with_the_next_lease_where_one_is_lost(self) -> None:
        self.first.store.cut = True
        self.first.factory.administration.set_limits(b"f", (5, 5, 5))
        self.pass_time(2 * LEASE)
        self.assertEqual(self.database.settings, {})
        self.first.store.cut = False
        self.pass_time(2 * LEASE)
        self.assertEqual(self.function(self.second).limits, (5, 5, 5))
        self.assertEqual(self.function(self.first).limits, (5, 5, 5))

    def test_one_whose_commit_was_not_heard_of_is_written_again(self) -> None:
        self.first.store.deaf = True
        self.first.factory.administration.set_limits(b"f", (5, 5, 5))
        self.pass_time(1)
        self.first.store.deaf = False
        self.first.factory.administration.set_limits(b"f", (6, 6, 6))
        self.pass_time(LEASE)
        for site in self.sites:
            self.assertEqual(self.function(site).limits, (6, 6, 6))


class SharedStoreTests(SettingTestCase):
    def setUp(self) -> None:
        self.store = SharedStore()
        self.start()
        self.commit()

    def test_a_defect_in_reading_does_not_stop_the_renewals(self) -> None:
        self.store.kept.change_settings(SettingChanges(values={(b"f", "paused"): "{}"}))
        self.patch(self.store.settings, "read", lambda: 1 / 0)
        for _ in range(round(20 * LEASE)):
            self.turn(0.1)
            self.thread.run_all()
        self.assertGreater(self.store.renewals, RENEWALS)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertIsNone(self.store_writer.outage)
