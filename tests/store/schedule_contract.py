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

    def test_schedules_are_kept(self) -> None:
        self.assertEqual(self.store.schedules.read(), [])
        first = StoredSchedule(b"b", NOON + 0.25, True)
        other = StoredSchedule(b"a\xff\0", NOON, False, '{"cron": "\N{SNOWMAN}"}', bytes(range(256)))
        for schedule in (first, other, first):
            self.store.schedules.save(schedule)
        self.restart()
        self.assertEqual(self.store.schedules.read(), [other, first])
        changed = first._replace(paused=False, since=NOON + 9)
        self.store.schedules.save(changed)
        self.assertEqual(self.store.schedules.read(), [other, changed])
        self.store.schedules.delete(b"b")
        self.store.schedules.delete(b"none")
        self.assertEqual(self.store.schedules.read(), [other])

    def test_a_pause_changes_nothing_else(self) -> None:
        schedule = StoredSchedule(b"s", NOON, False, "{}", b"data")
        self.store.schedules.save(schedule)
        self.assertTrue(self.store.schedules.pause(b"s", NOON + 5, True))
        self.assertEqual(self.store.schedules.read(), [schedule._replace(since=NOON + 5, paused=True)])
        self.assertFalse(self.store.schedules.pause(b"t", NOON, True))
        self.assertEqual(len(self.store.schedules.read()), 1)

    def test_those_of_a_file_keep_their_pause(self) -> None:
        """Another server may have paused it since this one looked."""
        self.store.schedules.note_of_file([b"s"], NOON)
        self.assertEqual(self.store.schedules.read(), [StoredSchedule(b"s", NOON, False)])
        self.store.schedules.save(StoredSchedule(b"s", NOON + 1, True, "{}", b"data"))
        self.store.schedules.note_of_file([b"s"], NOON + 2)
        self.assertEqual(self.store.schedules.read(), [StoredSchedule(b"s", NOON + 1, True)])

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
            self.assertEqual(written.ticks_done, table.claim(ticks))


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
