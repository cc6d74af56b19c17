"""Schedules of a server: the configuration file, a store that outlives it, and other servers beside it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import PREFIX, req
from tests.server.sites import LEASE, Site
from tests.server.stores import ListStore
from tests.server.test_configuration import FileTestCase
from tests.server.test_service import ClockedTestCase
from tests.store.model import ModelDatabase
from txgearman.broker.schedule import Schedule
from txgearman.errors import ScheduleConflict
from txgearman.server import Settings
from txgearman.server.config.configuration import ConfigurationError, read_configuration
from txgearman.server.config.schedule_options import MAX_SCHEDULES, ScheduleSettings
from txgearman.server.persistence.schedules import FORGET_INTERVAL
from txgearman.server.process.twistd import CONFIGURABLE
from txgearman.server.schedules.scheduling import schedules_of
from txgearman.testing import MemoryGearman

MIDNIGHT = 1_800_057_600.0


class FileTests(FileTestCase):
    """What the file may say, and its mistakes by line."""

    def test_all_there_is(self) -> None:
        (self.folder / "payload").write_bytes(b"from \xff a file")
        self.write(
            '[schedules.report]\nfunction = "make-report"\ncron = "30 3 * * mon-fri"\n'
            'timezone = "Europe/Berlin"\ndata-file = "payload"\nunique = "u"\npriority = "low"\n'
            'jitter = "5m"\n'
            'missed = "all"\nmissed-window = "2h"\noverlap = "queue"\nenabled = false\n'
            '[schedules.poll]\nfunction = "poll"\nevery = "90s"\ndata = "text"\n'
        )
        report, poll = schedules_of(self.options().settings)
        self.assertEqual(
            (report.name, report.function, report.data, report.unique, report.priority, report.jitter),
            (b"report", b"make-report", b"from \xff a file", b"u", 2, 300.0),
        )
        self.assertEqual((report.missed.value, report.missed_window), ("all", 7200.0))
        self.assertEqual(
            (report.overlap.value, report.enabled, report.timezone), ("queue", False, "Europe/Berlin")
        )
        # The third hour of a Monday in winter.
        self.assertEqual(report.recurrence.next_after(MIDNIGHT) % 86_400, 2.5 * 3600)
        self.assertEqual((poll.data, poll.recurrence.next_after(0)), (b"text", 90))

    def test_mistakes(self) -> None:
        for lines, line, why in (
            ('cron = "61 * * * *"', 3, "minute"),
            ('cron = "0 0 31 2 *"', 3, "day of month"),
            ('cron = "@reboot"', 3, "nickname"),
            ("every = 0.5", 3, "whole number of seconds"),
            ('every = "1s"\ncron = "* * * * *"', 1, "not both"),
            ("", 1, "one of cron and every"),
            ('every = "1s"\ntimezone = "Europe/Atlantis"', 4, "time zone"),
            ('every = "1s"\ntimezone = "../../etc/passwd"', 4, "time zone"),
            ('every = "1s"\npriority = "urgent"', 4, "priority"),
            ('every = "1s"\nmissed = "some"', 4, "missed"),
            ('every = "1s"\ndata = "x"\ndata-file = "y"', 1, "only one of data"),
            ('every = "1s"\ndata-file = "nowhere"', 1, "data-file nowhere"),
            ('every = "1s"\nevrey = 1', 4, "did you mean 'every'"),
        ):
            with self.subTest(lines):
                self.write(f'[schedules.s]\nfunction = "f"\n{lines}\n')
                error = self.assertRaises(ConfigurationError, read_configuration, self.path, CONFIGURABLE)
                self.assertIn(why, str(error))
                self.assertIn(f"{self.path}:{line}: ", str(error))

    def test_names_and_functions(self) -> None:
        for text in (
            '[schedules."a b"]\nfunction = "f"\nevery = 60\n',
            f'[schedules.{"n" * 60}]\nfunction = "f"\nevery = 60\n',
            "[schedules.s]\nevery = 60\n",
            '[schedules.s]\nfunction = "*"\nevery = 60\n',
            "schedules = 1\n",
        ):
            with self.subTest(text):
                self.write(text)
                self.assertRaises(ConfigurationError, read_configuration, self.path, CONFIGURABLE)

    def test_how_many_there_may_be(self) -> None:
        each = ScheduleSettings(function="f", every=60.0)
        self.assertRaises(ValueError, Settings, schedules={f"s{n}": each for n in range(MAX_SCHEDULES + 1)})


class MemoryTests(SynchronousTestCase):
    """As users may test their own schedules: by turning the clock."""

    def test_jobs_come_by_themselves(self) -> None:
        each = ScheduleSettings(function="greet", every=60.0, data="hello")
        gearman = MemoryGearman(Settings(handle_prefix=PREFIX, schedules={"hourly": each}))
        done: list[bytes] = []
        worker = gearman.worker()
        worker.register("greet", lambda job: done.append(job.data))
        gearman.wait(worker.start())
        gearman.turn(59)
        self.assertEqual(done, [])
        gearman.turn(121)
        self.assertEqual(done, [b"hello"] * 3)
        gearman.stop()
        gearman.turn(120)
        self.assertEqual(len(done), 3)


class ReloadTests(ClockedTestCase):
    """Schedules change while the server runs."""

    def settings(self, **schedules: ScheduleSettings) -> Settings:
        return Settings(listen=("tcp:4730:interface=127.0.0.1",), handle_prefix=PREFIX, schedules=schedules)

    def setUp(self) -> None:
        super().setUp()
        self.every = ScheduleSettings(function="f", every=60.0, overlap="queue")  # type: ignore[arg-type]
        self.service.startService()
        self.wall = 0.0
        self.patch(self.service.factory.scheduling.schedules._timer, "wall_clock", self.reactor.seconds)

    def queued(self) -> int:
        return self.service.factory.broker.total

    def test_added_changed_and_removed(self) -> None:
        changed, waiting = self.service.reconfigure(self.settings(a=self.every))
        self.assertEqual((changed, waiting), (["schedules.a"], []))
        self.reactor.pump([1] * 61)
        self.assertEqual(self.queued(), 1)
        both = self.settings(a=self.every, b=ScheduleSettings(function="g", every=30.0))
        self.assertEqual(self.service.reconfigure(both)[0], ["schedules.b"])
        self.reactor.pump([1] * 59)
        self.assertEqual(self.queued(), 3, "one of each: the first keeps its place in time")
        self.assertEqual(self.service.reconfigure(self.settings())[0], ["schedules.a", "schedules.b"])
        self.reactor.pump([1] * 120)
        self.assertEqual(self.queued(), 3)

    def test_a_file_that_cannot_be_read_changes_nothing(self) -> None:
        self.service.reconfigure(self.settings(a=self.every))
        wrong = ScheduleSettings(function="f", every=60.0, data_file="/no/such/file")
        error = self.assertRaises(ValueError, self.service.reconfigure, self.settings(b=wrong))
        self.assertIn("schedules.b", str(error))
        self.reactor.pump([1] * 61)
        self.assertEqual(self.queued(), 1)

    def test_nothing_ticks_behind_a_shutdown(self) -> None:
        self.service.reconfigure(self.settings(a=self.every))
        client = self.connect()
        client.receive(req(18, b"f", b"", b"1"))
        self.service.shut_down(graceful=True)
        self.reactor.pump([1] * 200)
        self.assertEqual(self.queued(), 1)
        client.receive(b"cancel job H:test:1\n")
        self.reactor.advance(1)
        self.assertEqual(self.ended, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Servers(SynchronousTestCase):
    """Servers in memory on one store, each with the same schedules and a worker that does all at once."""

    def setUp(self) -> None:
        self.now = MIDNIGHT
        self.database = ModelDatabase(lambda: self.now)
        self.ran: list[bytes] = []
        self.payloads: list[bytes] = []

    def site(self, name: str = "a", **how: Any) -> Site:
        settings = ScheduleSettings(function="f", **{"every": 60.0, **how})
        site = Site(name, self.database, lambda: self.now, schedules={"s": settings})
        self.begin(site)
        return site

    def begin(self, site: Site) -> None:
        site.factory.scheduling.begin(schedules_of(site.factory.settings), site.store_writer.schedules.load())

    def restart(self, site: Site) -> None:
        site.start()
        self.begin(site)

    def turn(self, seconds: float, *sites: Site, work: bool = True) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            for site in sites:
                site.turn(1)
                site.commit()
                if work:
                    self.work(site)

    def work(self, site: Site) -> None:
        broker = site.factory.broker
        worker = site.factory.buildProtocol(None).worker
        broker.can_do(worker, b"f")
        while (job := broker.grab(worker)) is not None:
            self.ran.append(job.unique)
            self.payloads.append(job.data)
            broker.complete(worker, job.handle, b"")
        site.commit()

    def times(self) -> Counter[float]:
        return Counter(int(unique.split(b":")[1]) - MIDNIGHT for unique in self.ran)


class StoreTests(Servers):
    def test_a_start_makes_up_for_what_was_missed(self) -> None:
        for missed, expected in (("skip", []), ("one", [300]), ("all", [120, 180, 240, 300])):
            with self.subTest(missed):
                self.setUp()
                site = self.site(missed=missed, overlap="queue")
                self.turn(70, site)
                self.now += 235
                self.restart(site)
                self.now += 31
                site.turn()
                site.commit()
                self.work(site)
                self.assertEqual(sorted(self.times()), [60, *expected])

    def test_no_tick_comes_twice_in_a_restart(self) -> None:
        """The job was committed, or was not, when the server was killed."""
        for committed in (True, False):
            with self.subTest(committed):
                self.setUp()
                site = self.site(overlap="queue")
                self.turn(59, site)
                self.now += 1
                site.turn(1)
                if committed:
                    site.commit()
                self.restart(site)
                while site.store.take_over(100, 1):
                    pass
                self.turn(LEASE * 3, site)
                self.assertEqual(self.times(), {60: 1})

    def test_a_pause_outlives_the_server(self) -> None:
        site = self.site(overlap="queue")
        site.factory.scheduling.pause(b"s")
        site.commit()
        self.restart(site)
        self.turn(200, site)
        self.assertEqual(self.ran, [])
        site.factory.scheduling.pause(b"s", False)
        self.turn(60, site)
        self.assertEqual(sorted(self.times()), [240])

    def test_a_removed_schedule_is_forgotten(self) -> None:
        site = self.site()
        self.turn(60, site)
        site.factory.scheduling.obey([])
        site.commit()
        self.assertEqual(site.store.schedules.read(), [])

    def test_old_ticks_are_forgotten(self) -> None:
        site = self.site()
        self.turn(61, site)
        self.now += 2 * 86_400
        site.turn(FORGET_INTERVAL)
        site.commit()
        self.assertNotIn((b"s", MIDNIGHT + 60), self.database.schedule_table.ticks)

    def test_without_the_store_nothing_is_lost(self) -> None:
        store = ListStore()
        self.assertIs(store.shared, False)
        site = self.site(overlap="queue")
        site.store.cut = True
        self.turn(65, site)
        self.assertEqual(self.ran, [])
        site.store.cut = False
        self.turn(60, site)
        self.assertEqual(self.times(), {60: 1, 120: 1})

    def test_a_lost_answer_makes_no_second_job(self) -> None:
        site = self.site(overlap="queue")
        site.store.deaf = True
        self.turn(63, site)
        site.store.deaf = False
        self.turn(60, site)
        self.assertEqual(self.times(), {60: 1, 120: 1})


class SeveralServersTests(Servers):
    def test_each_tick_is_one_job_among_all(self) -> None:
        sites = [self.site(name, overlap="queue") for name in "abc"]
        self.turn(300, *sites)
        self.assertEqual(self.times(), {60: 1, 120: 1, 180: 1, 240: 1, 300: 1})

    def test_an_overlap_is_seen_wherever_the_job_lives(self) -> None:
        sites = [self.site(name) for name in "ab"]
        self.turn(300, *sites, work=False)
        self.assertEqual(len(self.database.jobs), 1)
        skipped = sum(detail.skipped for site in sites for detail in site.factory.scheduling.schedules)
        self.assertGreaterEqual(skipped, 4)

    def added(self, **how: Any) -> tuple[Site, Site]:
        """Two servers without a schedule of the file, and with one that was added a while ago."""
        sites = []
        for name in "ab":
            site = Site(name, self.database, lambda: self.now)
            site.factory.scheduling.begin([], site.store_writer.schedules.load())
            sites.append(site)
        first, second = sites
        self.put(first, **how)
        self.turn(10, first, second)
        self.assertIn(b"n", second.factory.scheduling.schedules)
        return first, second

    def put(self, site: Site, **how: Any) -> None:
        members = {"function": "f", "every": 60, "overlap": "queue", **how}
        done = site.factory.scheduling.put(site.factory.scheduling.read(b"n", members))
        site.commit()
        self.successResultOf(done)

    def test_no_server_ticks_behind_a_removal_a_pause_or_a_change_of_which_it_has_not_heard(self) -> None:
        for what in ("remove", "pause", "put"):
            with self.subTest(what):
                self.setUp()
                first, second = self.added()
                self.turn(49, first, second)
                if what == "remove":
                    done = first.factory.scheduling.remove(b"n")
                elif what == "pause":
                    done = first.factory.scheduling.pause(b"n")
                else:
                    members = {"function": "f", "every": 3600}
                    done = first.factory.scheduling.put(first.factory.scheduling.read(b"n", members))
                first.commit()
                self.successResultOf(done)
                # The first one is stopped, so that the tick is the second's.
                self.turn(20, second)
                self.assertEqual(self.ran, [])
                self.assertEqual(self.database.schedule_table.ticks, {})
                self.assertEqual(self.database.jobs, {})
                schedules = second.factory.scheduling.schedules
                if what == "remove":
                    self.assertNotIn(b"n", schedules)
                elif what == "pause":
                    self.assertTrue(schedules.detail(b"n").paused)
                else:
                    self.assertEqual(schedules.detail(b"n").next_due, MIDNIGHT + 3600)

    def test_a_tick_is_not_lost_where_the_schedule_was_changed_just_before_it(self) -> None:
        """The server that changed it is killed, and the other has not heard of the change."""
        first, second = self.added()
        self.turn(49, first, second)
        self.put(first, data="new")
        self.turn(4, second)
        self.assertEqual(self.times(), {60: 1})
        self.assertEqual(self.payloads, [b"new"])

    def test_submits_with_the_unique_of_a_tick_that_is_refused(self) -> None:
        first, second = self.added(unique="u", overlap="skip")
        self.turn(49, first, second)
        first.factory.scheduling.remove(b"n")
        first.commit()
        self.now += 1
        second.turn(1)
        client = second.connect()
        client.receive(req(18, b"f", b"u", b"of a client"))
        second.commit()
        self.assertTrue(second.heard(client).startswith(b"\0RES\0\0\0\x08"), "it is accepted")
        self.turn(5, second)
        self.assertEqual(self.ran, [b"u"])

    def test_changes_at_two_servers_at_once(self) -> None:
        first, second = self.added()
        done = []
        for site, members in ((first, {"jitter": 5.0}), (second, {"priority": "low"})):
            scheduling = site.factory.scheduling

            def changed(schedule: Schedule, scheduling: Any = scheduling, members: Any = members) -> Schedule:
                changed: Schedule = scheduling.read(b"n", {**schedule.definition(), **members})
                return changed

            done.append(scheduling.change(b"n", changed))
        for _ in range(3):
            first.commit()
            second.commit()
        for each in done:
            self.successResultOf(each)
        self.turn(6, first, second)
        for site in (first, second):
            schedule = site.factory.scheduling.schedules.detail(b"n").schedule
            self.assertEqual((schedule.jitter, schedule.priority), (5.0, 2))

    def test_a_change_does_not_undo_a_pause_elsewhere(self) -> None:
        first, second = self.added()
        first.factory.scheduling.pause(b"n")
        first.commit()
        self.put(second, data="new")
        self.assertTrue(self.database.schedule_table.schedules[b"n"].paused)
        self.assertTrue(second.factory.scheduling.schedules.detail(b"n").paused)

    def test_a_schedule_that_others_change_all_the_time(self) -> None:
        first, second = self.added()
        store = second.store.schedules
        save = store.save
        self.patch(store, "save", lambda row, known: self.put(first) or save(row, known))
        done = second.factory.scheduling.put(
            second.factory.scheduling.read(b"n", {"function": "f", "every": 9})
        )
        second.commit()
        self.failureResultOf(done, ScheduleConflict)

    def test_random_stops_kills_and_cuts(self) -> None:
        for seed in range(12):
            with self.subTest(seed):
                self.setUp()
                self.walk(random.Random(seed))

    def walk(self, chance: random.Random) -> None:
        sites = [self.site(name, overlap="queue", missed="all", missed_window=900.0) for name in "abc"]
        for _ in range(40):
            site = chance.choice(sites)
            what = chance.randrange(6)
            if what == 0:
                self.restart(site)
            elif what == 1:
                site.store.cut = True
            elif what == 2:
                site.store.deaf = True
            else:
                site.store.cut = site.store.deaf = False
            self.turn(chance.choice((1, 5, 20)), *sites)
        for site in sites:
            site.store.cut = site.store.deaf = False
        self.turn(120, *sites)
        ticks = set(range(60, int(self.now - MIDNIGHT) - 60, 60))
        times = self.times()
        self.assertEqual(ticks - times.keys(), set(), "a tick is missing")
        # A job may run twice, as any may whose end was not written. It has one handle then.
        owners = Counter(self.database.schedule_table.ticks)
        self.assertEqual(len(owners), len(set(owners)))
