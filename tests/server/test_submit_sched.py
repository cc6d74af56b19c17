"""SUBMIT_JOB_SCHED: which schedule it makes, what it is answered, and how its handle is used."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import Peer, ServerTestCase, error, req, res
from tests.server.test_schedules import Servers
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.errors import InvalidArgument
from txgearman.server.config.schedule_options import MAX_ADDED_DATA, Weekdays
from txgearman.server.persistence.schedules import LOOK_INTERVAL
from txgearman.server.schedules.submit_sched import schedule_of_packet

SCHED, CREATED, GET_STATUS, STATUS_RES, ECHO = 35, 8, 15, 20, 16
EVERY_MINUTE = (b"*", b"*", b"*", b"*", b"*")
DAY = 86_400.0


def packet(*times: bytes, function: bytes = b"f", unique: bytes = b"u", data: bytes = b"data") -> bytes:
    return req(SCHED, function, unique, *(times or EVERY_MINUTE), data)


class FieldsTests(SynchronousTestCase):
    """What the five fields mean."""

    def cron(self, *times: bytes, weekdays: Weekdays = Weekdays.MONDAY_0) -> str:
        return schedule_of_packet(b"f", b"u", times, b"", weekdays).recurrence.text

    def test_empty_is_any(self) -> None:
        self.assertEqual(self.cron(b"", b"", b"", b"", b""), "* * * * *")
        self.assertEqual(self.cron(b"*/5", b"8-18", b"1,15", b"jan", b"mon-fri"), "*/5 8-18 1,15 jan mon-fri")

    def test_numbers_of_weekdays(self) -> None:
        for field, from_monday in (
            (b"0", "1"),
            (b"6", "7"),
            (b"0-4", "1-5"),
            (b"5-6", "6-7"),
            (b"0,2,6", "1,3,7"),
            (b"0-6/2", "1-7/2"),
            (b"*/2", "1-7/2"),
            (b"4/2", "5-7/2"),
            (b"mon,sun", "mon,sun"),
            (b"", "*"),
        ):
            with self.subTest(field):
                self.assertEqual(self.cron(b"", b"", b"", b"", field).split()[-1], from_monday)
                if field:
                    as_cron = self.cron(b"", b"", b"", b"", field, weekdays=Weekdays.SUNDAY_0)
                    self.assertEqual(as_cron.split()[-1], field.decode())

    def test_the_days_they_come_on(self) -> None:
        """Against Python's own calendar, whose Monday is 0."""
        chance = random.Random(35)
        for _ in range(60):
            days = sorted(chance.sample(range(7), chance.randrange(1, 7)))
            field = ",".join(map(str, days)).encode()
            for weekdays in Weekdays:
                schedule = schedule_of_packet(b"f", b"", (b"0", b"0", b"", b"", field), b"", weekdays)
                found, tick = set(), 1_800_000_000.0
                for _ in range(7):
                    following = schedule.recurrence.next_after(tick)
                    assert following is not None
                    tick = following
                    found.add(datetime.fromtimestamp(tick, UTC).weekday())
                shift = 0 if weekdays is Weekdays.MONDAY_0 else -1
                self.assertEqual(found, {(day + shift) % 7 for day in days})

    def test_day_and_weekday_mean_either(self) -> None:
        schedule = schedule_of_packet(b"f", b"", (b"0", b"0", b"13", b"", b"4"), b"", Weekdays.MONDAY_0)
        tick, found = 1_800_000_000.0, []
        for _ in range(20):
            following = schedule.recurrence.next_after(tick)
            assert following is not None
            tick = following
            found.append(datetime.fromtimestamp(tick, UTC))
        self.assertTrue(all(day.day == 13 or day.weekday() == 4 for day in found))
        self.assertTrue(any(day.weekday() != 4 for day in found))
        self.assertTrue(any(day.day != 13 for day in found))

    def test_wrong_ones_are_named(self) -> None:
        for times, name in (
            ((b"60", b"", b"", b"", b""), "minute"),
            ((b"", b"24", b"", b"", b""), "hour"),
            ((b"", b"", b"0", b"", b""), "day"),
            ((b"", b"", b"31", b"2", b""), "day"),
            ((b"", b"", b"", b"13", b""), "month"),
            ((b"", b"", b"", b"", b"7"), "weekday"),
            ((b"", b"", b"", b"", b"moo"), "day of week"),
            ((b"0 0", b"", b"", b"", b""), "minute"),
            ((b"", b"\xff", b"", b"", b""), "hour"),
            ((b"", b"", b"", b"1" * 65, b""), "month"),
        ):
            with self.subTest(times):
                wrong = self.assertRaises(
                    InvalidArgument, schedule_of_packet, b"f", b"u", times, b"", Weekdays.MONDAY_0
                )
                self.assertIn(name, wrong.text)

    def test_any_fields_are_understood_or_refused(self) -> None:
        chance = random.Random(1)
        for _ in range(2000):
            times = [
                bytes(chance.choices(b"0123456789*/,-amonLW#@ \xff", k=chance.randrange(5))) for _ in range(5)
            ]
            try:
                schedule_of_packet(b"f", b"u", times, b"", chance.choice(list(Weekdays)))
            except InvalidArgument:
                continue

    def test_which_are_the_same(self) -> None:
        def name(function: bytes, unique: bytes, minute: bytes, data: bytes) -> bytes:
            times = (minute, b"", b"", b"", b"")
            return schedule_of_packet(function, unique, times, data, Weekdays.MONDAY_0).name

        self.assertEqual(name(b"f", b"u", b"1", b"a"), name(b"f", b"u", b"2", b"b"))
        self.assertEqual(name(b"f", b"", b"1", b"a"), name(b"f", b"", b"1", b"a"))
        others = {name(b"f", b"u", b"1", b"a"), name(b"g", b"u", b"1", b"a"), name(b"f", b"v", b"1", b"a")}
        others |= {name(b"f", b"", b"1", b"a"), name(b"f", b"", b"2", b"a"), name(b"f", b"", b"1", b"b")}
        self.assertEqual(len(others), 6)


class SubmitTest(ServerTestCase):
    """On the wire, without a store."""

    def setUp(self) -> None:
        self.gearman = self.serve(allow_unsaved_schedules=True)
        self.client = self.peer()

    def status(self, handle: bytes, peer: Peer | None = None) -> bytes:
        return (peer or self.client).ask(req(GET_STATUS, handle))

    def test_jobs_come_again_and_again(self) -> None:
        self.assertEqual(self.client.ask(packet()), res(CREATED, b"H:test:1"))
        worker = self.worker(b"f")
        for number in (2, 3):
            self.assertEqual(worker.ask(req(9)), res(10))
            self.gearman.turn(60)
            handle = b"H:test:%d" % number
            self.assertEqual(worker.ask(req(30)), res(31, handle, b"f", b"u", b"data"))
            worker.ask(req(13, handle, b""))
        self.assertEqual(self.status(b"H:test:1"), res(STATUS_RES, b"H:test:1", b"1", b"0", b"0", b"0"))

    def test_another_with_its_unique_replaces_it(self) -> None:
        self.client.ask(packet())
        again = self.client.ask(packet(b"30", b"", b"", b"", b"", data=b"new"))
        self.assertEqual(again, res(CREATED, b"H:test:1"))
        (detail,) = self.gearman.server.scheduling.schedules
        self.assertEqual((detail.schedule.recurrence.text, detail.schedule.data), ("30 * * * *", b"new"))
        self.assertEqual(self.client.ask(packet(unique=b"v")), res(CREATED, b"H:test:2"))

    def test_cancel(self) -> None:
        self.client.ask(packet())
        self.assertEqual(self.client.ask(b"cancel job H:test:1\n"), b"OK\r\n")
        self.assertEqual(self.client.ask(b"show schedules\n"), b".\n")
        self.assertEqual(self.status(b"H:test:1"), res(STATUS_RES, b"H:test:1", b"0", b"0", b"0", b"0"))
        self.assertEqual(self.client.ask(b"cancel job H:test:1\n"), b"ERR UNKNOWN_JOB\r\n")
        self.assertEqual(self.client.ask(packet()), res(CREATED, b"H:test:2"), "it is another one")

    def test_answers_keep_their_order(self) -> None:
        asked = (req(18, b"g", b"", b""), packet(), req(18, b"g", b"", b""), req(ECHO, b"x"))
        self.assertEqual(
            self.client.ask(*asked),
            res(8, b"H:test:1") + res(8, b"H:test:2") + res(8, b"H:test:3") + res(17, b"x"),
        )

    def test_what_is_refused(self) -> None:
        for asked, code in (
            (packet(b"60", b"", b"", b"", b""), b"INVALID_ARGUMENT"),
            (packet(function=b""), b"INVALID_ARGUMENT"),
            (packet(function=b"\xff"), b"INVALID_ARGUMENT"),
            (packet(unique=b"\xff"), b"INVALID_ARGUMENT"),
            (packet(data=bytes(MAX_ADDED_DATA + 1)), b"INVALID_ARGUMENT"),
            (packet(function=b"f" * 513), b"ARGUMENT_TOO_LARGE"),
            (packet(unique=b"u" * 65), b"ARGUMENT_TOO_LARGE"),
        ):
            with self.subTest(asked[:60]):
                answer = self.client.ask(asked)
                self.assertEqual((answer[7], answer[12:].split(b"\0")[0]), (19, code))
        self.assertEqual(self.client.ask(b"show schedules\n"), b".\n")
        self.assertEqual(self.client.ask(packet(data=bytes(MAX_ADDED_DATA))), res(CREATED, b"H:test:1"))

    def test_too_many(self) -> None:
        self.gearman = self.serve(allow_unsaved_schedules=True, max_schedules=1)
        client = self.peer()
        client.ask(packet())
        self.assertIn(b"TOO_MANY_SCHEDULES", client.ask(packet(unique=b"v")))

    def test_without_a_store(self) -> None:
        self.gearman = self.serve()
        answer = self.peer().ask(packet(), req(ECHO, b"here"))
        self.assertEqual(answer[12:].split(b"\0")[0], b"INVALID_COMMAND")
        self.assertIn(b"allow-unsaved-schedules", answer)
        self.assertTrue(answer.endswith(res(17, b"here")))

    def test_weekdays_by_the_option(self) -> None:
        for weekdays, text in ((Weekdays.MONDAY_0, "* * * * 1"), (Weekdays.SUNDAY_0, "* * * * 0")):
            self.gearman = self.serve(allow_unsaved_schedules=True, sched_weekday=weekdays)
            self.peer().ask(packet(b"", b"", b"", b"", b"0"))
            (detail,) = self.gearman.server.scheduling.schedules
            self.assertEqual(detail.schedule.recurrence.text, text)


class SchedRightsTest(ServerTestCase):
    """Both rights are needed: to submit, and to schedule."""

    def asked(self, *admin: str, submit: tuple[bytes, ...] = (b"f",)) -> Peer:
        rule = Rule("all", admin=frozenset(admin), submit=submit)
        return self.peer(self.serve(allow_unsaved_schedules=True, access=AccessPolicy((rule,))))

    def test_both(self) -> None:
        denied = error(b"ACCESS_DENIED", b"You may not add schedules")
        self.assertEqual(self.asked("manage").ask(packet()), denied)
        answer = self.asked("schedule", submit=(b"g",)).ask(packet())
        self.assertEqual(answer, error(b"ACCESS_DENIED", b"You may not submit jobs of 'f'"))
        peer = self.asked("schedule")
        self.assertEqual(peer.ask(packet()), res(CREATED, b"H:test:1"))
        self.assertIn(b"ACCESS_DENIED", peer.ask(b"cancel job H:test:1\n"))

    def test_to_cancel_one_takes_both_too(self) -> None:
        peer = self.asked("schedule", "cancel")
        peer.ask(packet())
        self.assertEqual(peer.ask(b"cancel job H:test:1\n"), b"OK\r\n")


class DurableSchedTest(Servers):
    def test_the_handle_is_known_at_all_servers_and_behind_a_restart(self) -> None:
        one, other = self.site("a"), self.site("b")
        client = one.connect()
        client.receive(packet())
        self.assertEqual(one.heard(client), b"", "not before it is durable")
        one.commit()
        answer = one.heard(client)
        self.assertEqual(answer[7], CREATED)
        handle = answer[12:]
        self.turn(LOOK_INTERVAL, one, other)
        self.restart(one)
        for site in (one, other):
            peer = site.connect()
            peer.receive(req(GET_STATUS, handle))
            self.assertEqual(site.heard(peer), res(STATUS_RES, handle, b"1", b"0", b"0", b"0"))
        peer = other.connect()
        peer.receive(b"cancel job " + handle + b"\n")
        other.commit()
        self.assertEqual(other.heard(peer), b"OK\r\n")
        self.turn(LOOK_INTERVAL, one, other)
        self.assertEqual([b"s"], one.factory.scheduling.schedules.names())

    def test_what_cannot_be_written_is_refused(self) -> None:
        site = self.site()
        site.store.cut = True
        client = site.connect()
        client.receive(packet())
        site.commit()
        self.assertIn(b"NOT_SAVED", site.heard(client))
        self.assertEqual([b"s"], site.factory.scheduling.schedules.names())
