"""When something that recurs is due: cron expressions in time zones, and multiples of seconds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from twisted.trial.unittest import SynchronousTestCase

from txgearman.broker.recurrence import MAX_CRON, Cron, Every, Recurrence

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")


def at(text: str, zone: tzinfo) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def ticks(recurrence: Recurrence, when: float) -> Iterator[float]:
    """The ticks after a time."""
    tick = recurrence.next_after(when)
    while tick is not None:
        yield tick
        tick = recurrence.next_after(tick)


class CronTestCase(SynchronousTestCase):
    def assert_ticks(self, text: str, zone: str, since: str, *expected: str) -> None:
        """The first ticks after a time, each with its distance from UTC."""
        info = ZoneInfo(zone)
        found = itertools.islice(ticks(Cron(text, info), at(since, info)), len(expected))
        self.assertEqual([datetime.fromtimestamp(tick, info).isoformat() for tick in found], [*expected])


class ClockChangeTests(CronTestCase):
    """Debian's rules. The days are those on which the zones changed their clocks."""

    def test_a_fixed_time_in_the_skipped_hour_ticks_once_right_behind_it(self) -> None:
        self.assert_ticks(
            "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00",
            "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00",
        )  # fmt: skip
        self.assert_ticks(
            "30 2 * * *", "America/New_York", "2026-03-07T12:00",
            "2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00",
        )  # fmt: skip
        self.assert_ticks(
            "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
            "2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00",
        )  # fmt: skip

    def test_a_fixed_time_in_the_repeated_hour_ticks_once(self) -> None:
        self.assert_ticks(
            "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00",
            "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00",
        )  # fmt: skip
        self.assert_ticks(
            "30 1 * * *", "America/New_York", "2026-10-31T12:00",
            "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00",
        )  # fmt: skip
        self.assert_ticks(
            "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00",
            "2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30",
        )  # fmt: skip

    def test_nor_twice_where_the_server_starts_in_the_second_of_the_hours(self) -> None:
        zone = ZoneInfo("America/New_York")
        second = datetime(2026, 11, 1, 1, 10, tzinfo=zone, fold=1).timestamp()
        found = Cron("30 1 * * *", zone).next_after(second)
        self.assertEqual(found, at("2026-11-02T01:30", zone))

    def test_steps_go_on_as_time_goes(self) -> None:
        self.assert_ticks(
            "*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45",
            "2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00", "2026-10-25T03:00:00+01:00",
        )  # fmt: skip
        self.assert_ticks(
            "*/30 * * * *", "Europe/Berlin", "2026-03-29T01:15",
            "2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00",
        )  # fmt: skip
        self.assert_ticks(
            "*/15 * * * *", "Australia/Lord_Howe", "2026-04-05T01:35",
            "2026-04-05T01:45:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T01:45:00+10:30",
            "2026-04-05T02:00:00+10:30",
        )  # fmt: skip

    def test_the_day_that_apia_skipped(self) -> None:
        self.assert_ticks(
            "0 12 * * *", "Pacific/Apia", "2011-12-28T13:00",
            "2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00",
        )  # fmt: skip

    def test_what_goes_on_is_right_minute_by_minute(self) -> None:
        """Beside a reference that looks at each minute, over all changes of three years."""
        for zone in map(ZoneInfo, ZONES):
            for text, fits in (
                ("*/20 * * * *", lambda wall: wall.minute % 20 == 0),
                ("* 2 * * *", lambda wall: wall.hour == 2),
                (
                    "*/15 1-3 * * mon-fri",
                    lambda w: w.minute % 15 == 0 and 1 <= w.hour <= 3 and w.weekday() < 5,
                ),
                ("0 * 1 * *", lambda wall: wall.minute == 0 and wall.day == 1),
            ):
                with self.subTest(zone.key, text=text):
                    for change in changes(zone):
                        begin = change - 6 * 3600
                        minutes = (begin + 60.0 * minute for minute in range(1, 12 * 60))
                        expected = [m for m in minutes if fits(datetime.fromtimestamp(m, zone))]
                        end = begin + 12 * 3600
                        found = itertools.takewhile(lambda tick: tick < end, ticks(Cron(text, zone), begin))  # noqa: B023
                        self.assertEqual(list(found), expected, datetime.fromtimestamp(change, zone))


def changes(zone: ZoneInfo) -> Iterator[float]:
    """When a zone changes its clocks from 2024 to 2026, to the hour; one hour at least."""
    hour = datetime(2024, 1, 1, tzinfo=UTC)
    yield hour.timestamp()
    while hour.year < 2027:
        later = hour + timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            yield hour.timestamp()
        hour = later


class CalendarTests(CronTestCase):
    def test_leap_days_and_ends_of_months(self) -> None:
        self.assert_ticks(
            "0 0 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"
        )
        self.assert_ticks(
            "0 0 31 * *", "UTC", "2026-01-31T00:00", "2026-03-31T00:00:00+00:00", "2026-05-31T00:00:00+00:00"
        )

    def test_day_of_month_and_of_week_mean_either(self) -> None:
        self.assert_ticks(
            "0 0 13 * fri", "UTC", "2026-02-05T00:00",
            "2026-02-06T00:00:00+00:00", "2026-02-13T00:00:00+00:00", "2026-02-20T00:00:00+00:00",
        )  # fmt: skip

    def test_names_lists_ranges_steps_and_sunday_twice(self) -> None:
        since = at("2026-01-01T00:00", UTC)
        for one, other in (
            ("0 0 * jan-mar,jun *", "0 0 * 1,2,3,6 *"),
            ("0 0 * * SUN", "0 0 * * 7"),
            ("0 0 * * 0", "0 0 * * 7"),
            ("5/20 * * * *", "5,25,45 * * * *"),
            ("10-30/10 8-10 * * *", "10,20,30 8,9,10 * * *"),
            ("@daily", "0 0 * * *"),
            ("@Hourly", "0 * * * *"),
            ("@weekly", "0 0 * * sun"),
            ("@yearly", "0 0 1 jan *"),
        ):
            with self.subTest(one):
                found, expected = (list(itertools.islice(ticks(Cron(t), since), 30)) for t in (one, other))
                self.assertEqual(found, expected)

    def test_asking_anew_is_the_same_as_going_on(self) -> None:
        cron, since = Cron("*/7 3 * * *"), at("2026-01-01T00:00", UTC)
        found = list(itertools.islice(ticks(cron, since), 20))
        anew = [Cron("*/7 3 * * *").next_after(tick) for tick in found[:-1]]
        self.assertEqual(anew, found[1:])
        self.assertEqual(cron.next_after(since), found[0])
        self.assertEqual(cron.next_after(since + 0.5), found[0])


class MistakeTests(SynchronousTestCase):
    def test_what_is_wrong_is_named(self) -> None:
        for text, why in (
            ("61 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of week"),
            ("0 0 31 2 *", "day of month"),
            ("0 0 31 feb,apr *", "day of month"),
            ("* * * *", "five fields"),
            ("* * * * * *", "five fields"),
            ("", "five fields"),
            ("0 0 L * *", "L, W or #"),
            ("0 0 LW * *", "L, W or #"),
            ("0 0 * * 5L", "L, W or #"),
            ("0 0 * * fri#2", "L, W or #"),
            ("@reboot", "nickname"),
            ("5-1 * * * *", "minute"),
            ("*/0 * * * *", "minute"),
            ("a * * * *", "minute"),
            ("\u0661 * * * *", "minute"),
            ("0," * MAX_CRON + "0 * * * *", "characters"),
        ):
            with self.subTest(text[:20]):
                self.assertRaisesRegex(ValueError, why, Cron, text)


class EveryTests(SynchronousTestCase):
    def test_it_ticks_at_multiples(self) -> None:
        every = Every(90.0, "90s")
        self.assertEqual(list(itertools.islice(ticks(every, 100.0), 3)), [180.0, 270.0, 360.0])
        self.assertEqual(every.next_after(180.0), 270.0)
        self.assertEqual(every.next_after(179.999), 180.0)

    def test_numbers_that_cannot_be(self) -> None:
        for seconds in (0.0, -1.0, 0.5, 1.5):
            self.assertRaises(ValueError, Every, seconds, "")
