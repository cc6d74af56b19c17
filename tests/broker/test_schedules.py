"""Recurring jobs: each tick once, whatever the clock does, and what becomes of those that were missed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes
from txgearman.broker.handles import number_of
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.broker.recurrence import Cron, Every
from txgearman.broker.schedule import Missed, Overlap, Schedule
from txgearman.broker.schedules import MAX_CATCH_UP, PUNCTUAL, RETRY_SECONDS, Schedules
from txgearman.errors import NotSaved, Refused, ScheduleNotFound

HOUR = 3600.0


class ScheduleNotes:
    """A `ScheduleStore` that writes down its calls."""

    def __init__(self) -> None:
        self.ticks: dict[int, tuple[bytes, float]] = {}
        self.skipped: list[tuple[bytes, float]] = []

    def tick_with_job(self, number: int, schedule: bytes, tick: float) -> None:
        self.ticks[number] = schedule, tick

    def tick_without_job(self, schedule: bytes, tick: float) -> None:
        self.skipped.append((schedule, tick))


class ScheduleBench(Bench):
    """A broker with schedules. `ran` are the uniques of the jobs that ran, with the time."""

    def __init__(self, stored: bool = False, policy: Policy | None = None) -> None:
        self.job_store = KeeperNotes() if stored else None
        super().__init__(Policy(b"H:t") if policy is None else policy, job_store=self.job_store)
        # At the beginning of an hour.
        self.wall_ahead = 500_000 * HOUR - self.now
        self.store = ScheduleNotes() if stored else None
        self.alarm: float | None = None
        alarm = self

        class Alarm:
            def ring_in(self, delay: float) -> None:
                alarm.alarm = alarm.now + delay

        self.schedules = Schedules(self.broker, lambda: self.now, self.wall, Alarm(), self.store)
        self.ran: list[tuple[bytes, float]] = []
        self.runner = self.worker("runner", b"f")

    def add(self, name: str = "s", every: float = 60.0, cron: str | None = None, **how: Any) -> Schedule:
        known = {key: how.pop(key) for key in ("known_since", "paused") if key in how}
        schedule = Schedule(
            name.encode(), b"f", Every(every, f"every {every:g}s") if cron is None else Cron(cron), **how
        )
        self.schedules.add(schedule, **known)
        return schedule

    def run(self, seconds: float, work: bool = True) -> list[float]:
        """Let time pass. Returns when jobs began, in seconds from the beginning of the first hour."""
        begin = len(self.ran)
        end = self.now + seconds
        rings = 0
        while self.alarm is not None and self.alarm <= end:
            self.now = max(self.now, self.alarm)
            self.alarm = None
            self.schedules.tick()
            rings += 1
            assert rings < 10_000, "the alarm rings for ever"
            if work:
                self.work()
        self.now = end
        return [when for _, when in self.ran[begin:]]

    def work(self) -> None:
        while (job := self.broker.grab(self.runner)) is not None:
            self.ran.append((job.unique, self.wall() - 500_000 * HOUR))
            self.broker.complete(self.runner, job.handle, b"")

    def detail(self, name: bytes = b"s") -> Any:
        return self.schedules.detail(name)


class TickTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = ScheduleBench()

    def test_every_minute(self) -> None:
        self.bench.add()
        self.assertEqual(self.bench.run(200), [60, 120, 180])
        detail = self.bench.detail()
        self.assertEqual((detail.ticks, detail.skipped, detail.missed, detail.lateness), (3, 0, 0, 0.0))
        self.assertEqual(detail.last_tick, 500_000 * HOUR + 180)
        self.assertEqual(detail.next_due, 500_000 * HOUR + 240)
        self.assertEqual(detail.last_job, b"H:t:3")

    def test_a_job_is_as_the_schedule_says(self) -> None:
        self.bench.add(data=b"payload", priority=0)
        self.bench.run(60, work=False)
        job = self.bench.grab(self.bench.runner)
        self.assertEqual((job.unique, job.data, job.priority, job.background), (b"s", b"payload", 0, True))

    def test_a_schedule_of_another_unique(self) -> None:
        self.bench.add(unique=b"u")
        self.bench.run(60, work=False)
        self.assertEqual(self.bench.grab(self.bench.runner).unique, b"u")

    def test_jitter_is_the_same_on_all_servers_and_spreads(self) -> None:
        other = ScheduleBench()
        for bench in (self.bench, other):
            bench.add(every=HOUR, jitter=600.0)
        times = self.bench.run(40 * HOUR)
        self.assertEqual(times, other.run(40 * HOUR))
        delays = [when % HOUR for when in times]
        self.assertIn(len(delays), {39, 40})
        self.assertTrue(all(0 <= delay <= 600 for delay in delays))
        self.assertLess(min(delays), 100)
        self.assertGreater(max(delays), 500)

    def test_two_schedules_of_one_time(self) -> None:
        self.bench.add("a")
        self.bench.add("b", cron="* * * * *")
        self.bench.run(60)
        self.assertEqual(sorted(unique for unique, _ in self.bench.ran), [b"a", b"b"])

    def test_very_many_at_once_are_done_in_slices(self) -> None:
        for number in range(2500):
            self.bench.add(f"s{number}")
        self.bench.now = self.bench.alarm or 0.0
        self.bench.schedules.tick()
        self.assertEqual(self.bench.broker.total, 1000)
        self.assertEqual(len(self.bench.run(1)), 2500)

    def test_a_preview(self) -> None:
        schedule = Schedule(b"new", b"f", Cron("30 * * * *"))
        begin = 500_000 * HOUR
        self.assertEqual(
            self.bench.schedules.preview(schedule, 3), [begin + 1800 + hour * HOUR for hour in range(3)]
        )
        self.assertNotIn(b"new", self.bench.schedules)


class OverlapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = ScheduleBench()

    def test_a_tick_is_skipped_while_the_job_before_lives(self) -> None:
        self.bench.add()
        self.bench.run(60, work=False)
        job = self.bench.grab(self.bench.runner)
        self.bench.run(120, work=False)
        self.assertEqual((self.bench.broker.total, self.bench.detail().skipped), (1, 2))
        self.bench.broker.complete(self.bench.runner, job.handle, b"")
        self.bench.run(60, work=False)
        self.assertEqual((self.bench.broker.total, self.bench.detail().ticks), (1, 2))

    def test_also_while_it_waits_for_a_retry(self) -> None:
        policy = Policy(b"H:t", functions=((b"f", FunctionRules(attempts=3, backoff=1000.0, jitter=0.0)),))
        bench = ScheduleBench(policy=policy)
        bench.add()
        bench.run(60, work=False)
        bench.broker.fail(bench.runner, bench.grab(bench.runner).handle)
        bench.run(60, work=False)
        self.assertEqual((bench.broker.total, bench.detail().skipped), (1, 1))

    def test_or_it_is_queued(self) -> None:
        self.bench.add(overlap=Overlap.QUEUE)
        self.bench.run(180, work=False)
        self.assertEqual((self.bench.broker.total, self.bench.detail().skipped), (3, 0))
        self.bench.work()
        begin = 500_000 * 3600
        self.assertEqual(
            [unique for unique, _ in self.bench.ran], [b"s:%d" % (begin + n * 60) for n in (1, 2, 3)]
        )

    def test_a_unique_that_the_function_keeps_is_no_overlap(self) -> None:
        """`unique-for` of the function would answer the next ticks with the job that is completed."""
        policy = Policy(b"H:t", functions=((b"f", FunctionRules(unique_for=1000.0)),))
        bench = ScheduleBench(policy=policy)
        bench.add()
        self.assertEqual(bench.run(180), [60, 120, 180])
        self.assertEqual((bench.detail().skipped, len(bench.broker.ended_jobs.kept_uniques)), (0, 0))

    def test_a_tick_with_a_unique_that_a_client_had_kept_is_skipped(self) -> None:
        policy = Policy(b"H:t", functions=((b"f", FunctionRules(unique_for=100.0)),))
        bench = ScheduleBench(policy=policy)
        bench.submit(bench.client(), b"f", b"s", background=True)
        bench.add()
        bench.work()
        self.assertEqual(bench.run(180), [120, 180])
        self.assertEqual(bench.detail().skipped, 1)

    def test_and_is_done_with_for_all_servers(self) -> None:
        """None does it once the unique is kept no more."""
        policy = Policy(b"H:t", functions=((b"f", FunctionRules(unique_for=100.0)),))
        bench = ScheduleBench(stored=True, policy=policy)
        assert bench.store is not None
        bench.submit(bench.client(), b"f", b"s")
        bench.add()
        bench.work()
        bench.run(60)
        self.assertEqual(bench.detail().skipped, 1)
        self.assertEqual(bench.store.skipped, [(b"s", 500_000 * HOUR + 60)])

    def test_an_online_job_of_the_same_unique_stays_online(self) -> None:
        client = self.bench.client()
        self.bench.submit(client, b"f", b"s")
        self.bench.add()
        self.bench.run(60, work=False)
        self.bench.leave(client, self.bench.worker("other"))
        self.assertEqual((self.bench.broker.total, self.bench.detail().skipped), (0, 1))


class MissedTests(SynchronousTestCase):
    """The server was away until now, and knows the schedule for a day."""

    def missed(
        self, missed: Missed, every: float = 60.0, window: float = 600.0, late: float = 45.0
    ) -> ScheduleBench:
        bench = ScheduleBench()
        bench.now += late
        begin = bench.wall() - 86_400
        bench.add(every=every, missed=missed, missed_window=window, known_since=begin, overlap=Overlap.QUEUE)
        bench.run(0)
        return bench

    def test_none(self) -> None:
        bench = self.missed(Missed.SKIP)
        self.assertEqual((bench.ran, bench.detail().missed), ([], 10))
        self.assertEqual(bench.run(20), [60])

    def test_one_job_for_all(self) -> None:
        bench = self.missed(Missed.ONE)
        self.assertEqual([unique for unique, _ in bench.ran], [b"s:%d" % (500_000 * HOUR)])
        self.assertEqual(bench.detail().missed, 9)

    def test_one_that_is_punctual_is_it(self) -> None:
        bench = self.missed(Missed.ONE, late=PUNCTUAL - 1)
        self.assertEqual((len(bench.ran), bench.detail().missed), (1, 9))

    def test_a_punctual_one_is_not_skipped(self) -> None:
        bench = self.missed(Missed.SKIP, late=PUNCTUAL - 1)
        self.assertEqual((len(bench.ran), bench.detail().missed), (1, 9))

    def test_all_in_their_order(self) -> None:
        bench = self.missed(Missed.ALL)
        begin = 500_000 * HOUR
        self.assertEqual(
            [unique for unique, _ in bench.ran], [b"s:%d" % (begin - 60 * n) for n in range(9, -1, -1)]
        )
        self.assertEqual(bench.detail().missed, 0)

    def test_what_is_older_than_the_window_is_over(self) -> None:
        bench = self.missed(Missed.ALL, every=HOUR, window=2.5 * HOUR)
        self.assertEqual(len(bench.ran), 3)
        bench = self.missed(Missed.ALL, window=0.0)
        self.assertEqual(bench.ran, [])

    def test_a_new_schedule_has_missed_nothing(self) -> None:
        bench = ScheduleBench()
        bench.now += 5
        bench.add(missed=Missed.ALL)
        self.assertEqual(bench.run(50), [])

    def test_very_many_are_bounded(self) -> None:
        bench = self.missed(Missed.ALL, every=1.0, window=80_000.0, late=0.5)
        self.assertEqual(len(bench.ran), MAX_CATCH_UP)
        self.assertGreaterEqual(bench.detail().missed, MAX_CATCH_UP)
        begin = 500_000 * HOUR
        self.assertEqual(bench.ran[-1][0], b"s:%d" % begin)

    def test_a_suspended_machine_does_not_storm(self) -> None:
        """Its monotonic clock stood still."""
        bench = ScheduleBench()
        bench.add()
        bench.run(60)
        bench.wall_ahead += 30 * 86_400
        self.assertEqual(len(bench.run(60)), 1)
        self.assertEqual(bench.run(60), [30 * 86_400 + 180])


class ClockTests(SynchronousTestCase):
    """The wall clock is set."""

    def setUp(self) -> None:
        self.bench = ScheduleBench()
        self.bench.add(missed=Missed.SKIP)
        self.bench.run(2 * HOUR)

    def test_back_by_an_hour_no_tick_comes_twice(self) -> None:
        self.bench.wall_ahead -= HOUR
        self.assertEqual(self.bench.run(HOUR - 1), [])
        self.assertEqual(self.bench.run(61), [2 * HOUR + 60])

    def test_back_by_a_year_it_goes_on_at_once(self) -> None:
        self.bench.wall_ahead -= 365 * 86_400
        times = self.bench.run(181)
        self.assertIn(len(times), {2, 3})
        self.assertEqual([when % 60 for when in times], [0] * len(times))

    def test_forward_by_an_hour_and_back_again(self) -> None:
        self.bench.wall_ahead += HOUR
        self.assertEqual(len(self.bench.run(120)), 2)
        self.bench.wall_ahead -= HOUR
        self.assertEqual(self.bench.run(181), [2 * HOUR + 180, 2 * HOUR + 240, 2 * HOUR + 300])
        # Not again come the two that were done ahead of their time, and the nine that the jump made missed.
        self.assertEqual(len(self.bench.run(HOUR)), 60 - 2 - 9)

    def test_forward_by_a_year_and_back_again(self) -> None:
        self.bench.wall_ahead += 365 * 86_400
        self.bench.run(120)
        self.bench.wall_ahead -= 365 * 86_400
        times = self.bench.run(181)
        self.assertIn(len(times), {2, 3})


class AdministrationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = ScheduleBench(stored=False)

    def test_pause_and_resume(self) -> None:
        self.bench.add(missed=Missed.ALL)
        self.bench.schedules.pause(b"s")
        self.assertEqual(self.bench.run(300), [])
        self.assertIsNone(self.bench.detail().next_due)
        self.bench.schedules.pause(b"s", False)
        self.assertEqual(self.bench.run(60), [360])

    def test_disabled(self) -> None:
        self.bench.add(enabled=False)
        self.assertEqual(self.bench.run(300), [])
        self.bench.add(enabled=True, missed=Missed.ALL)
        self.assertEqual(self.bench.run(60), [360])

    def test_run_now(self) -> None:
        told: list[bytes | Refused] = []
        self.bench.add(enabled=False)
        self.bench.schedules.run(b"s", told.append)
        self.assertEqual(told, [b"H:t:1"])
        self.bench.schedules.run(b"s", told.append)
        self.assertEqual(told, [b"H:t:1"] * 2, "its job lives")
        self.bench.work()
        self.assertEqual(len(self.bench.ran), 1)
        self.assertEqual(self.bench.detail().ticks, 0)

    def test_a_change_keeps_the_place_in_time(self) -> None:
        self.bench.add()
        self.bench.run(60)
        self.bench.add(data=b"new")
        self.assertEqual(self.bench.run(60), [120])
        self.assertEqual(self.bench.detail().ticks, 2)

    def test_a_change_of_its_times_misses_nothing(self) -> None:
        """One of each day that becomes one of each minute has no tick of this morning to make up for."""
        self.bench.add(every=86_400.0, missed=Missed.ALL, missed_window=86_400.0)
        self.bench.run(610)
        self.bench.add(every=60.0, missed=Missed.ALL, missed_window=86_400.0)
        self.assertEqual(self.bench.run(60), [660])
        self.assertEqual(self.bench.detail().missed, 0)

    def test_remove(self) -> None:
        self.bench.add()
        self.bench.schedules.remove(b"s")
        self.assertEqual((self.bench.run(300), len(self.bench.schedules)), ([], 0))
        for verb in (self.bench.schedules.remove, self.bench.schedules.pause, self.bench.schedules.detail):
            self.assertRaises(ScheduleNotFound, verb, b"s")
        self.assertRaises(ScheduleNotFound, self.bench.schedules.run, b"s", print)

    def test_changes_without_end_take_no_memory(self) -> None:
        for number in range(10_000):
            self.bench.add(every=1e6 + number)
        self.assertLess(len(self.bench.schedules._heap), 200)

    def test_nothing_ticks_while_the_server_drains(self) -> None:
        self.bench.add()
        self.bench.administration.drain()
        self.assertEqual(self.bench.run(300), [])
        self.assertIsNone(self.bench.alarm)

    def test_a_refused_job_is_counted(self) -> None:
        policy = Policy(b"H:t", max_jobs=1)
        bench = ScheduleBench(policy=policy)
        bench.queue(b"other")
        bench.add()
        bench.run(120, work=False)
        detail = bench.detail()
        self.assertEqual((detail.refused, detail.ticks), (2, 0))


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = ScheduleBench(stored=True)
        assert self.bench.job_store is not None
        assert self.bench.store is not None
        self.jobs, self.store = self.bench.job_store, self.bench.store
        self.bench.add()

    def test_a_tick_is_saved_with_its_job(self) -> None:
        self.bench.run(60, work=False)
        (job,) = self.jobs.saves
        tick = 500_000 * HOUR + 60
        self.assertEqual(self.store.ticks, {number_of(job.handle): (b"s", tick)})
        self.assertEqual(self.bench.detail().ticks, 0, "not yet")
        self.bench.answers.saved(job)
        detail = self.bench.detail()
        self.assertEqual((detail.ticks, detail.last_tick, detail.last_job), (1, tick, job.handle))

    def test_another_server_has_done_it(self) -> None:
        self.bench.run(60, work=False)
        self.assertFalse(self.bench.answers.stored_before(self.jobs.saves[0], b"", 1))
        detail = self.bench.detail()
        self.assertEqual((detail.ticks, detail.skipped, detail.missed, detail.refused), (0, 0, 0, 0))
        self.assertEqual(self.bench.broker.total, 0)

    def test_who_submits_the_same_meanwhile_gets_the_job(self) -> None:
        self.bench.run(60, work=False)
        client = self.bench.client()
        self.bench.broker.submit(client, b"f", b"s", b"", background=True)
        (job,) = self.jobs.saves
        self.assertTrue(self.bench.answers.stored_before(job, b"", 1), "to be saved once more")
        self.bench.answers.saved(job)
        self.assertEqual(self.bench.broker.total, 1)

    def test_a_duplicate_that_only_the_store_knows_is_an_overlap(self) -> None:
        self.bench.run(60, work=False)
        self.bench.answers.stored_before(self.jobs.saves[0], b"H:other:7", 1)
        self.assertEqual(self.bench.detail().skipped, 1)

    def test_an_overlap_in_memory_is_noted_in_the_store(self) -> None:
        self.bench.run(60, work=False)
        self.bench.answers.saved(self.jobs.saves[0])
        self.bench.run(60, work=False)
        self.assertEqual(self.store.skipped, [(b"s", 500_000 * HOUR + 120)])

    def test_an_outage_is_tried_again(self) -> None:
        self.bench.run(60, work=False)
        self.bench.answers.not_saved(self.jobs.saves.pop(), NotSaved())
        self.jobs.refusal = NotSaved()
        self.bench.run(2 * RETRY_SECONDS, work=False)
        self.jobs.refusal = None
        self.bench.run(RETRY_SECONDS, work=False)
        (job,) = self.jobs.saves
        tick = 500_000 * HOUR + 60
        self.assertEqual(self.store.ticks[number_of(job.handle)], (b"s", tick))
        self.bench.answers.saved(job)
        self.bench.run(60, work=False)
        self.assertEqual((self.bench.detail().ticks, self.bench.detail().lateness), (1, 3 * RETRY_SECONDS))

    def test_a_long_outage_makes_ticks_missed(self) -> None:
        self.jobs.refusal = NotSaved()
        self.bench.run(3 * HOUR, work=False)
        self.jobs.refusal = None
        self.bench.run(RETRY_SECONDS, work=False)
        self.assertEqual(len(self.jobs.saves), 1)
        self.assertGreater(self.bench.detail().missed, 100)

    def test_run_now_waits_for_the_store(self) -> None:
        told: list[bytes | Refused] = []
        self.bench.schedules.run(b"s", told.append)
        self.assertEqual(told, [])
        (job,) = self.jobs.saves
        self.assertEqual(self.store.ticks, {})
        self.bench.answers.saved(job)
        self.assertEqual(told, [job.handle])


class RandomTests(SynchronousTestCase):
    """Random schedules, stops of the clock and settings of it, beside what must hold in any case."""

    def test_each_tick_once(self) -> None:
        for seed in range(60):
            with self.subTest(seed):
                self.walk(random.Random(seed))

    def walk(self, chance: random.Random) -> None:
        bench = ScheduleBench()
        everys = {}
        for number in range(chance.randrange(1, 5)):
            name = f"s{number}"
            everys[name.encode()] = every = chance.choice((60.0, 90.0, 300.0, HOUR))
            bench.add(
                name, every, missed=chance.choice([*Missed]), overlap=Overlap.QUEUE,
                missed_window=chance.choice((0.0, 120.0, 600.0, 2 * HOUR)),
            )  # fmt: skip
        quiet = 0.0
        for _ in range(40):
            step = chance.choice((0.0,) * 6 + (2.0, 45.0, HOUR, -2.0, -45.0, -600.0))
            bench.wall_ahead += step
            quiet = 0.0 if step else quiet
            passed = chance.choice((1.0, 59.0, 60.0, 61.0, 400.0))
            bench.run(passed)
            quiet += passed
        seen = Counter(unique for unique, _ in bench.ran)
        self.assertEqual({unique: count for unique, count in seen.items() if count > 1}, {})
        for unique in seen:
            name, tick = unique.split(b":")
            self.assertEqual(int(tick) % everys[name], 0, "a tick that is none")
        # While the clock runs on as it should, no tick is left out.
        now = bench.wall()
        for name, every in everys.items():
            due = [tick for tick in range(int(now - quiet + 61), int(now) + 1) if tick % every == 0]
            missing = [tick for tick in due if b"%b:%d" % (name, tick) not in seen]
            late = bench.detail(name)
            self.assertTrue(not missing or late.next_due > now, (name, missing))
