"""The admin commands about schedules: what they answer, what they change, and who may use them.

What is changed is durable before ``OK`` is said. The places of that kind are adding, removing, pausing and
resuming; each is tested with a store that cannot be written to.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.server.peers import ServerTestCase
from tests.server.sites import Site
from tests.server.test_schedules import MIDNIGHT, Servers
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.server.persistence.schedules import LOOK_INTERVAL
from txgearman.wire.names import escape_word

FILE = {"s": ScheduleSettings(function="f", every=60.0)}
DEFINITION = b'{"function":"g","cron":"*/5\\x20*\\x20*\\x20*\\x20*","timezone":"Europe/Berlin","data":"x"}'
UNKNOWN = b"ERR UNKNOWN_SCHEDULE There+is+no+such+schedule\r\n"


class ScheduleLinesTest(ServerTestCase):
    """Without a store."""

    def setUp(self) -> None:
        self.gearman = self.serve(schedules=FILE, allow_unsaved_schedules=True)
        self.admin = self.peer()

    def ask(self, line: bytes) -> bytes:
        return self.admin.ask(line + b"\n")

    def test_show(self) -> None:
        now = int(self.gearman.clock.seconds())
        self.assertEqual(
            self.ask(b"show schedules"), b"s\tf\tevery 60s\tUTC\tactive\t%d\t-\t0\t0\t0\t0\n.\n" % (now + 60)
        )
        self.gearman.turn(121)
        self.assertEqual(
            self.ask(b"SHOW Schedules"),
            b"s\tf\tevery 60s\tUTC\tactive\t%d\t%d\t1\t1\t0\t0\n.\n" % (now + 180, now + 60),
            "its first job lives at the second tick",
        )

    def test_pause_and_resume(self) -> None:
        self.assertEqual(self.ask(b"pause schedule s"), b"OK\r\n")
        self.assertIn(b"\tpaused\t-\t-\t", self.ask(b"show schedules"))
        self.gearman.turn(120)
        self.assertEqual(self.ask(b"status"), b".\n")
        self.assertEqual(self.ask(b"resume schedule s"), b"OK\r\n")
        self.gearman.turn(60)
        self.assertEqual(self.ask(b"status"), b"f\t1\t0\t0\n.\n")

    def test_run(self) -> None:
        self.ask(b"pause schedule s")
        self.assertEqual(self.ask(b"run schedule s"), b"OK H:test:1\r\n")
        self.assertEqual(self.ask(b"run schedule s"), b"OK H:test:1\r\n", "its job lives")

    def test_create_and_drop(self) -> None:
        self.assertEqual(self.ask(b"create schedule new " + DEFINITION), b"OK\r\n")
        self.assertIn(b"new\tg\t*/5 * * * *\tEurope/Berlin\tactive\t", self.ask(b"show schedules"))
        self.gearman.turn(300)
        self.assertIn(b"g\t1\t0\t0\n", self.ask(b"status"))
        self.assertEqual(self.ask(b"create schedule new " + DEFINITION), b"OK\r\n", "in place of the first")
        self.assertEqual(self.ask(b"drop schedule new"), b"OK\r\n")
        self.assertEqual(self.ask(b"drop schedule new"), UNKNOWN)
        self.assertNotIn(b"new", self.ask(b"show schedules"))

    def test_the_data_may_be_any_bytes(self) -> None:
        written = json.dumps(
            {"function": "g", "every": "1m", "data": 'a\n\t"\\ \N{SNOWMAN}'}, separators=",:"
        )
        self.assertEqual(self.ask(b"create schedule a " + escape_word(written.encode())), b"OK\r\n")
        self.ask(b'create schedule b {"function":"g","every":60,"data_base64":"/wA="}')
        schedules = self.gearman.server.scheduling.schedules
        data = [schedules.detail(name).schedule.data for name in (b"a", b"b")]
        self.assertEqual(data, ['a\n\t"\\ \N{SNOWMAN}'.encode(), b"\xff\0"])

    def test_those_of_the_file_cannot_be_changed(self) -> None:
        for line in (b"drop schedule s", b"create schedule s " + DEFINITION):
            self.assertTrue(self.ask(line).startswith(b"ERR SCHEDULE_OF_FILE "), line)
        self.assertEqual(self.ask(b"show schedules").count(b"\n"), 2)

    def test_unknown(self) -> None:
        for verb in (b"drop", b"pause", b"resume", b"run"):
            self.assertEqual(self.ask(verb + b" schedule none"), UNKNOWN)

    def test_wrong_definitions(self) -> None:
        for definition, why in (
            (b"{", b"line"),
            (b"[]", b"JSON+object"),
            (b'{"function":"f"}', b"one+of+cron+and+every"),
            (b'{"function":"f","every":60,"evrey":1}', b"evrey"),
            (b'{"function":"f","every":0}', b"every"),
            (b'{"function":"f","every":true}', b"every"),
            (b'{"function":"f","every":1e999}', b"every"),
            (b'{"function":"f","cron":"0\\x200\\x2031\\x202\\x20*"}', b"day"),
            (b'{"function":"f","every":60,"timezone":"Mars"}', b"time+zone"),
            (b'{"function":"\\\\ud800","every":60}', b"half+of+a+surrogate+pair"),
            (b'{"function":"f","every":60,"data":1}', b"texts"),
            (b'{"function":"f","every":60,"data_base64":"?"}', b"cannot+be+read"),
            (b'{"function":"f","every":60,"data":"a","data_base64":""}', b"only+one"),
            (b'{"function":"f","every":60,"data_file":"/etc/passwd"}', b"data_file"),
            (b"[" * 5000, b""),
        ):
            with self.subTest(definition[:60]):
                answer = self.ask(b"create schedule new " + definition)
                self.assertTrue(answer.startswith(b"ERR INVALID_ARGUMENT "), answer)
                self.assertIn(why, answer)
        self.assertTrue(
            self.ask(b"create schedule a\\x20b " + DEFINITION).startswith(b"ERR INVALID_ARGUMENT ")
        )
        self.assertTrue(self.ask(b"create schedule \xff " + DEFINITION).startswith(b"ERR INVALID_ARGUMENT "))
        self.assertEqual(len(self.gearman.server.scheduling.schedules), 1)

    def test_words_that_are_missing_or_wrong(self) -> None:
        for line in (
            b"pause",
            b"pause schedule",
            b"resume s s",
            b"run function s",
            b"run schedule s s",
            b"drop schedule",
            b"create schedule s",
            b"create schedule s {} {}",
        ):
            self.assertTrue(self.ask(line).startswith(b"ERR INVALID_ARGUMENTS"), line)

    def test_commands_for_functions_are_as_before(self) -> None:
        self.assertEqual(self.ask(b"create function schedule"), b"OK\r\n")
        self.assertEqual(self.ask(b"drop function schedule"), b"OK\r\n")

    def test_as_many_as_may_be(self) -> None:
        self.gearman = self.serve(schedules=FILE, allow_unsaved_schedules=True, max_schedules=2)
        self.admin = self.peer()
        self.assertEqual(self.ask(b"create schedule a " + DEFINITION), b"OK\r\n")
        answer = self.ask(b"create schedule b " + DEFINITION)
        self.assertTrue(answer.startswith(b"ERR TOO_MANY_SCHEDULES There+are+2"), answer)
        self.assertEqual(self.ask(b"create schedule a " + DEFINITION), b"OK\r\n", "a change adds none")
        self.assertIn(b"max-schedules\t2\t2\t1\n", self.ask(b"show limits"))

    def test_without_a_store_they_have_to_be_allowed(self) -> None:
        self.gearman = self.serve(schedules=FILE)
        self.admin = self.peer()
        answer = self.ask(b"create schedule a " + DEFINITION)
        self.assertTrue(answer.startswith(b"ERR NO_STORE ") and b"allow-unsaved-schedules" in answer, answer)
        self.assertEqual(self.ask(b"pause schedule s"), b"OK\r\n")


class RightsTest(ServerTestCase):
    """The right of its own."""

    def asked_with(self, *admin: str, submit: tuple[bytes, ...] = (b"*",)) -> Callable[[bytes], bytes]:
        rule = Rule("all", admin=frozenset(admin), submit=submit)
        settings = {"schedules": FILE, "allow_unsaved_schedules": True, "access": AccessPolicy((rule,))}
        peer = self.peer(self.serve(**settings))
        return lambda line: peer.ask(line + b"\n")

    def test_with_the_right(self) -> None:
        ask = self.asked_with("schedule")
        for line in (b"pause schedule s", b"resume schedule s", b"create schedule n " + DEFINITION):
            self.assertEqual(ask(line), b"OK\r\n")
        self.assertEqual(ask(b"drop schedule n"), b"OK\r\n")
        self.assertEqual(ask(b"run schedule s"), b"OK H:test:1\r\n")
        for line in (b"show schedules", b"drop function f", b"create function f"):
            self.assertTrue(ask(line).startswith(b"ERR ACCESS_DENIED"), line)

    def test_other_rights_are_not_enough(self) -> None:
        """Rules that were written before there were schedules allow nothing with them."""
        ask = self.asked_with("view", "manage", "shutdown", "create", "drop")
        for line in (
            b"pause schedule s",
            b"resume schedule s",
            b"run schedule s",
            b"drop schedule s",
            b"create schedule n " + DEFINITION,
        ):
            self.assertTrue(ask(line).startswith(b"ERR ACCESS_DENIED"), line)
        self.assertTrue(ask(b"show schedules").startswith(b"s\t"))

    def test_single_commands(self) -> None:
        ask = self.asked_with("pause")
        self.assertEqual(ask(b"pause schedule s"), b"OK\r\n")
        self.assertTrue(ask(b"resume schedule s").startswith(b"ERR ACCESS_DENIED"))

    def test_who_adds_one_must_be_allowed_to_submit_its_jobs(self) -> None:
        ask = self.asked_with("schedule", submit=(b"f",))
        self.assertTrue(ask(b"create schedule n " + DEFINITION).startswith(b"ERR ACCESS_DENIED"))
        self.assertEqual(ask(b'create schedule n {"function":"f","every":60}'), b"OK\r\n")


class DurableTest(Servers):
    """With a store, which several servers may share."""

    def ask(self, site: Site, line: bytes) -> bytes:
        """What is answered before the store has answered, and what then."""
        peer = site.connect()
        peer.receive(line + b"\n")
        self.assertEqual(site.heard(peer), b"", "nothing is said before it is durable")
        site.commit()
        return site.heard(peer)

    def names(self, site: Site) -> list[str]:
        return [
            f"{detail.schedule.name.decode()} {detail.state}" for detail in site.factory.scheduling.schedules
        ]

    def test_they_outlive_the_server(self) -> None:
        site = self.site()
        self.assertEqual(self.ask(site, b"create schedule n " + DEFINITION), b"OK\r\n")
        self.assertEqual(self.ask(site, b"pause schedule n"), b"OK\r\n")
        self.restart(site)
        self.assertEqual(self.names(site), ["n paused", "s active"])
        schedule = site.factory.scheduling.schedules.detail(b"n").schedule
        self.assertEqual((schedule.data, schedule.timezone), (b"x", "Europe/Berlin"))
        self.assertEqual(self.ask(site, b"drop schedule n"), b"OK\r\n")
        self.restart(site)
        self.assertEqual(self.names(site), ["s active"])

    def test_what_cannot_be_written_is_refused_and_not_done(self) -> None:
        site = self.site()
        self.ask(site, b"create schedule n " + DEFINITION)
        self.ask(site, b"pause schedule n")
        before = self.names(site)
        site.store.cut = True
        for line in (
            b"create schedule m " + DEFINITION,
            b"drop schedule n",
            b"pause schedule s",
            b"resume schedule n",
        ):
            self.assertTrue(self.ask(site, line).startswith(b"ERR NOT_SAVED "), line)
        self.assertEqual(self.names(site), before)

    def test_ticks_missed_while_the_server_was_away(self) -> None:
        site = self.site()
        self.ask(site, b'create schedule n {"function":"f","every":60,"overlap":"queue"}')
        self.turn(1, site)
        self.now += 200
        self.restart(site)
        self.turn(1, site)
        self.assertIn(b"n:%d" % (MIDNIGHT + 180), self.ran)

    def test_a_pause_of_one_of_the_file_that_the_store_does_not_know(self) -> None:
        """The store was away when the server began."""
        site = self.site()
        self.database.schedule_table.delete(b"s")
        self.assertEqual(self.ask(site, b"pause schedule s"), b"OK\r\n")
        self.restart(site)
        self.assertEqual(self.names(site), ["s paused"])

    def test_other_servers_hear_of_it(self) -> None:
        one, other = self.site("a"), self.site("b")
        self.ask(one, b"create schedule n " + DEFINITION)
        self.ask(one, b"pause schedule s")
        self.assertEqual(self.names(other), ["s active"])
        self.turn(LOOK_INTERVAL, one, other)
        self.assertEqual(self.names(other), ["n active", "s paused"])
        self.assertEqual(self.ask(other, b"pause schedule n"), b"OK\r\n")
        changed = DEFINITION.replace(b'"x"', b'"y"')
        self.assertEqual(self.ask(other, b"create schedule n " + changed), b"OK\r\n")
        self.turn(LOOK_INTERVAL, one, other)
        self.assertEqual(self.names(one), ["n paused", "s paused"])
        self.assertEqual(one.factory.scheduling.schedules.detail(b"n").schedule.data, b"y")
        self.assertEqual(self.ask(one, b"drop schedule n"), b"OK\r\n")
        self.assertEqual(self.ask(other, b"pause schedule n"), UNKNOWN, "it is not there any more")
        self.turn(LOOK_INTERVAL, one, other)
        self.assertEqual(self.names(other), ["s paused"])

    def test_an_outage_only_delays_that(self) -> None:
        one, other = self.site("a"), self.site("b")
        other.store.cut = True
        self.ask(one, b"create schedule n " + DEFINITION)
        self.turn(2 * LOOK_INTERVAL, one, other)
        other.store.cut = False
        self.turn(LOOK_INTERVAL, one, other)
        self.assertEqual(self.names(other), ["n active", "s active"])

    def test_one_that_this_server_cannot_read_stops_nothing(self) -> None:
        site = self.site()
        self.ask(site, b"create schedule n " + DEFINITION)
        table = self.database.schedule_table.schedules
        table[b"n"] = table[b"n"]._replace(definition='{"function": "f", "newer": 1}')
        self.restart(site)
        self.assertEqual(self.names(site), ["s active"])
        self.assertIn(b"n", table)

    def test_a_file_takes_the_place_of_one_that_was_added(self) -> None:
        site = self.site()
        self.ask(site, b"create schedule n " + DEFINITION)
        site.factory.scheduling.obey(
            [settings.schedule(name) for name, settings in {**FILE, "n": FILE["s"]}.items()]
        )
        site.commit()
        self.assertTrue(self.ask_now(site, b"drop schedule n").startswith(b"ERR SCHEDULE_OF_FILE "))
        self.assertIsNone(self.database.schedule_table.schedules[b"n"].definition)

    def ask_now(self, site: Site, line: bytes) -> bytes:
        peer = site.connect()
        peer.receive(line + b"\n")
        return site.heard(peer)
