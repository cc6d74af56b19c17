"""What every store must do with schedules and their ticks, as tests; `StoreContract` inherits them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.store.jobs import job, stored
from tests.store.schedules import ScheduleTable
from txgearman.errors import StoreUnavailable
from txgearman.store.contract import Changes, Store, StoredSchedule, Tick, Written

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

NOON = 1_800_000_000.0


class ScheduleContract(_TestCase):
    """`store` is open on an empty database of its own."""

    store: Store

    def restart(self) -> None:
        raise NotImplementedError

    def write_tick(self, number: int, tick: float, **how: object) -> Written:
        """Save a job of a tick of the schedule ``s``."""
        return self.store.write(Changes([job(number, **how)], ticks={number: Tick(b"s", tick)}))  # type: ignore[arg-type]

    def numbers(self) -> list[int]:
        return [each.number for each in stored(self.store)]

    def schedules(self) -> list[StoredSchedule]:
        """What is stored of schedules, without their versions."""
        return [each._replace(version=0) for each in self.store.schedules.read()]

    def version(self, name: bytes = b"s") -> int:
        (found,) = [each.version for each in self.store.schedules.read() if each.name == name]
        return found

    def test_schedules_are_kept(self) -> None:
        self.assertEqual(self.schedules(), [])
        first = StoredSchedule(b"b", NOON + 0.25, True)
        other = StoredSchedule(b"a\xff\0", NOON, False, '{"cron": "\N{SNOWMAN}"}', bytes(range(256)))
        for schedule in (first, other, first):
            self.store.schedules.save(schedule)
        self.restart()
        self.assertEqual(self.schedules(), [other, first])
        changed = first._replace(paused=False, since=NOON + 9)
        self.store.schedules.save(changed)
        self.assertEqual(self.schedules(), [other, changed])
        self.store.schedules.delete(b"b")
        self.store.schedules.delete(b"none")
        self.assertEqual(self.schedules(), [other])

    def test_a_pause_changes_nothing_else(self) -> None:
        schedule = StoredSchedule(b"s", NOON, False, "{}", b"data")
        self.store.schedules.save(schedule)
        self.assertEqual(self.store.schedules.pause(b"s", NOON + 5, True), self.version())
        self.assertEqual(self.schedules(), [schedule._replace(since=NOON + 5, paused=True)])
        self.assertIsNone(self.store.schedules.pause(b"t", NOON, True))
        self.assertEqual(len(self.schedules()), 1)

    def test_those_of_a_file_keep_their_pause(self) -> None:
        """Another server may have paused it since this one looked."""
        self.store.schedules.note_of_file([b"s"], NOON)
        self.assertEqual(self.schedules(), [StoredSchedule(b"s", NOON, False)])
        self.store.schedules.save(StoredSchedule(b"s", NOON + 1, True, "{}", b"data"))
        self.store.schedules.note_of_file([b"s", b"t"], NOON + 2)
        expected = [StoredSchedule(b"s", NOON + 1, True), StoredSchedule(b"t", NOON + 2, False)]
        self.assertEqual(self.schedules(), expected)

    def test_very_many_of_a_file(self) -> None:
        names = [b"s%d" % number for number in range(1200)]
        for _ in range(2):
            self.store.schedules.note_of_file(names, NOON)
            self.assertEqual({each.name for each in self.schedules()}, set(names))

    def test_a_change_of_what_is_not_known_any_more(self) -> None:
        """Another server was faster: its change must not be lost."""
        schedule = StoredSchedule(b"s", NOON, False, "{}", b"")
        self.assertIsNone(self.store.schedules.save(schedule, 7), "there is none")
        first = self.store.schedules.save(schedule, 0)
        self.assertEqual(first, self.version())
        changes = self.store.schedules.changes()
        for known in (0, 7):
            self.assertIsNone(self.store.schedules.save(schedule._replace(data=b"lost"), known))
        self.assertEqual((self.schedules(), self.store.schedules.changes()), ([schedule], changes))
        second = self.store.schedules.save(schedule._replace(data=b"second"), first)
        assert first is not None
        assert second is not None
        self.assertGreater(second, first)
        self.assertIsNone(self.store.schedules.save(schedule, first))
        self.assertEqual([each.data for each in self.schedules()], [b"second"])
        self.store.schedules.delete(b"s")
        self.assertIsNone(self.store.schedules.save(schedule, second))
        third = self.store.schedules.save(schedule, 0)
        assert third is not None
        self.assertGreater(third, second, "it is another schedule, of the same name")

    def claimed(self, number: int, version: int | None, tick: float = NOON) -> bool:
        """Whether a job has a tick that follows from a version of the schedule ``s``."""
        ticks = {number: Tick(b"s", tick, version)}
        written = self.store.write(Changes([job(number), job(number + 1)], ticks=ticks))
        self.assertEqual(number in self.numbers(), not written.ticks_refused)
        self.assertIn(number + 1, self.numbers(), "others are not concerned")
        return written.ticks_refused != {number}

    def test_a_tick_of_a_schedule_that_was_removed_or_changed(self) -> None:
        """A server hears of that a few seconds later. What was answered holds at once all the same."""
        schedule = StoredSchedule(b"s", NOON, False, "{}", b"")
        old = self.store.schedules.save(schedule)
        self.assertTrue(self.claimed(10, old))
        new = self.store.schedules.save(schedule._replace(data=b"new"))
        self.assertFalse(self.claimed(20, old, NOON + 1))
        self.assertTrue(self.claimed(30, new, NOON + 1))
        paused = self.store.schedules.pause(b"s", NOON, True)
        self.assertFalse(self.claimed(40, new, NOON + 2))
        self.store.schedules.delete(b"s")
        self.assertFalse(self.claimed(50, paused, NOON + 2))
        self.store.schedules.save(schedule)
        self.assertFalse(self.claimed(60, paused, NOON + 2))
        self.assertTrue(self.claimed(70, self.version(), NOON + 2))

    def test_a_tick_of_a_file_that_is_paused(self) -> None:
        self.assertTrue(self.claimed(10, None), "nothing needs to be stored of it")
        self.store.schedules.note_of_file([b"s"], NOON)
        self.assertTrue(self.claimed(20, None, NOON + 1))
        self.store.schedules.pause(b"s", NOON, True)
        self.assertFalse(self.claimed(30, None, NOON + 2))
        self.store.schedules.pause(b"s", NOON, False)
        self.assertTrue(self.claimed(40, None, NOON + 2))

    def test_a_tick_that_was_done_with_before_the_schedule_changed(self) -> None:
        """As where the answer to the first write was lost."""
        version = self.store.schedules.save(StoredSchedule(b"s", NOON, False, "{}", b""))
        for _ in range(2):
            self.assertTrue(self.claimed(10, version))
            self.store.schedules.pause(b"s", NOON, True)

    def test_changes_are_counted_and_ticks_are_not(self) -> None:
        seen = [self.store.schedules.changes()]
        for change in (
            lambda: self.store.schedules.save(StoredSchedule(b"s", NOON, False)),
            lambda: self.store.schedules.pause(b"s", NOON, True),
            lambda: self.store.schedules.note_of_file([b"s"], NOON),
            lambda: self.store.schedules.delete(b"s"),
        ):
            change()
            seen.append(self.store.schedules.changes())
        self.assertEqual(len(set(seen)), 5)
        self.write_tick(1, NOON)
        self.store.schedules.skip_ticks([Tick(b"s", NOON + 1)])
        self.restart()
        self.assertEqual(self.store.schedules.changes(), seen[-1])

    def test_a_tick_has_one_job(self) -> None:
        self.assertEqual(self.write_tick(1, NOON).ticks_done, frozenset())
        self.assertEqual(self.write_tick(2, NOON).ticks_done, {2})
        self.assertEqual(self.write_tick(3, NOON + 60).ticks_done, frozenset())
        self.assertEqual(self.numbers(), [1, 3])
        self.restart()
        self.assertEqual(self.write_tick(4, NOON + 60).ticks_done, {4})

    def test_the_same_write_twice_is_once(self) -> None:
        """As where the answer to the first was lost."""
        for _ in range(2):
            self.assertEqual(self.write_tick(1, NOON), Written({}, []))
        self.assertEqual(self.numbers(), [1])

    def test_a_tick_is_done_with_when_its_job_has_ended(self) -> None:
        self.write_tick(1, NOON)
        self.store.write(Changes(removals=[1]))
        self.assertEqual(self.write_tick(2, NOON).ticks_done, {2})
        self.assertEqual(self.numbers(), [])

    def test_a_duplicate_has_the_tick_too(self) -> None:
        self.write_tick(1, NOON, unique=b"u")
        written = self.write_tick(2, NOON + 60, unique=b"u")
        self.assertEqual((written.duplicates, written.ticks_done), ({2: b"H:test:1"}, frozenset()))
        self.store.write(Changes(removals=[1]))
        self.assertEqual(self.write_tick(3, NOON + 60, unique=b"u").ticks_done, {3})

    def test_others_of_the_same_write_are_saved(self) -> None:
        self.write_tick(1, NOON)
        ticks = {2: Tick(b"s", NOON), 4: Tick(b"t", NOON)}
        written = self.store.write(Changes([job(number) for number in (2, 3, 4)], ticks=ticks))
        self.assertEqual(written.ticks_done, {2})
        self.assertEqual(self.numbers(), [1, 3, 4])

    def test_of_two_jobs_of_one_write_the_first_has_the_tick(self) -> None:
        ticks = {number: Tick(b"s", NOON) for number in (1, 2)}
        written = self.store.write(Changes([job(1), job(2)], ticks=ticks))
        self.assertEqual((written.ticks_done, self.numbers()), ({2}, [1]))

    def test_a_tick_without_a_job(self) -> None:
        for _ in range(2):
            self.store.schedules.skip_ticks([Tick(b"s", NOON), Tick(b"a", NOON)])
        self.assertEqual(self.write_tick(1, NOON).ticks_done, {1})
        self.write_tick(2, NOON + 60)
        self.store.schedules.skip_ticks([Tick(b"s", NOON + 60)])
        self.assertEqual(self.write_tick(2, NOON + 60).ticks_done, frozenset(), "it has its job still")

    def test_very_many_ticks_without_jobs(self) -> None:
        ticks = [Tick(b"s%d" % (number % 700), NOON + number // 700) for number in range(3000)]
        self.store.schedules.skip_ticks(ticks)
        self.assertEqual(self.store.schedules.forget_ticks(NOON + 9), 3000)

    def test_the_last_tick_is_known(self) -> None:
        for name in (b"s", b"other"):
            self.store.schedules.save(StoredSchedule(name, NOON, False))
        for number, tick in ((1, 60), (2, 180), (3, 120)):
            self.write_tick(number, NOON + tick)
        last = {schedule.name: schedule.last_tick for schedule in self.store.schedules.read()}
        self.assertEqual(last, {b"s": NOON + 180, b"other": None})

    def test_old_ticks_are_forgotten(self) -> None:
        for number in range(1, 6):
            self.write_tick(number, NOON + number)
        self.assertEqual(self.store.schedules.forget_ticks(NOON + 3), 2)
        self.assertEqual(self.store.schedules.forget_ticks(NOON + 3), 0)
        self.assertEqual(self.write_tick(6, NOON + 2).ticks_done, frozenset())
        self.assertEqual(self.write_tick(7, NOON + 3).ticks_done, {7})

    def test_those_of_a_deleted_schedule_are_forgotten(self) -> None:
        self.store.schedules.save(StoredSchedule(b"s", NOON, False))
        self.write_tick(1, NOON)
        self.store.schedules.delete(b"s")
        self.assertEqual(self.write_tick(2, NOON).ticks_done, frozenset())

    def test_very_many_at_once(self) -> None:
        numbers = range(1, 3001)
        ticks = {number: Tick(b"s%d" % (number % 700), NOON + number // 700 * 60) for number in numbers}
        written = self.store.write(Changes([job(number) for number in numbers], ticks=ticks))
        self.assertEqual((written.ticks_done, len(self.numbers())), (frozenset(), 3000))

    def test_ticks_as_in_a_model(self) -> None:
        chance = random.Random(self.id())
        table, number = ScheduleTable(), 0
        for _ in range(60):
            ticks = {}
            for _ in range(chance.randrange(1, 5)):
                number += 1
                ticks[number] = Tick(chance.choice((b"a", b"b")), NOON + chance.randrange(12))
            if chance.random() < 0.2:
                name, tick = chance.choice((b"a", b"b")), NOON + chance.randrange(12)
                table.ticks.setdefault((name, tick), None)
                self.store.schedules.skip_ticks([Tick(name, tick)])
            if chance.random() < 0.1:
                before = NOON + chance.randrange(6)
                self.assertEqual(self.store.schedules.forget_ticks(before), table.forget(before))
            written = self.store.write(Changes([job(each) for each in ticks], ticks=ticks))
            self.assertEqual((written.ticks_done, written.ticks_refused), table.claim(ticks))


class TickTransactionContract(_TestCase):
    """Of stores that are databases: `store` is open on an empty one of its own."""

    store: Store

    def test_a_tick_is_claimed_with_its_job_or_not_at_all(self) -> None:
        """Whoever is cut off or killed between the two leaves the tick to others."""
        store: Any = self.store
        insert = store._writes._insert

        def cut(*_arguments: object) -> int:
            raise StoreUnavailable("gone")

        store._writes._insert = cut
        self.assertRaises(StoreUnavailable, self.claim, 1)
        store._writes._insert = insert
        self.assertEqual(self.claim(2).ticks_done, frozenset())
        self.assertEqual([each.number for each in stored(self.store)], [2])

    def claim(self, number: int) -> Written:
        return self.store.write(Changes([job(number)], ticks={number: Tick(b"s", NOON)}))
