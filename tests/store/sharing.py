"""What every store must do that several servers share, as tests; a store's test case inherits them."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

from tests.store.contract import LEASE
from tests.store.jobs import RETRIED_AT, bury, dead_jobs, death, job, result, save, stored
from txgearman.errors import LeaseLost, UniqueInUse
from txgearman.store.contract import (
    MAX_SLOTS,
    Changes,
    Coalesced,
    Retry,
    Setting,
    SettingChanges,
    Slot,
    SlotChanges,
    Store,
    WantedSlots,
    Written,
)

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

ENDED: Final = 0.0
"""A lease that is over as soon as it begins, for a server that is to be thought dead."""


class SharedContract(_TestCase):
    """For any database."""

    def opened(self, name: str, lease: float = LEASE) -> Store:
        """Another server on this test's database."""
        raise NotImplementedError

    def test_they_know_each_other(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        self.opened("third", ENDED)
        self.assertEqual(first.servers(), ["first", "second"])
        first.close()
        self.assertEqual(second.servers(), ["second"])

    def test_each_owns_what_it_saved(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1), job(2, run_at=5.0))
        save(second, job(3), job(4, run_at=5.0))
        self.assertEqual([job.number for job in stored(first)], [1, 2])
        self.assertEqual([job.number for job in stored(second)], [3, 4])
        self.assertEqual(second.take_over(10, 1), [])

    def test_none_changes_what_another_owns(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1), job(2, run_at=5.0))
        second.write(Changes([job(3)], [1, 2], {1: 5, 2: 5}))
        self.assertEqual(stored(first), [job(1), job(2, run_at=5.0)])

    def test_a_unique_holds_for_all(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"), job(2, b"-"), job(3, b"v"))
        self.assertEqual(save(second, job(4, b"u"), job(5, b"-")), {4: b"H:test:1", 5: b"H:test:2"})
        first.write(Changes(removals=[3]))
        self.assertEqual(save(second, job(6, b"v"), job(7, b"-")), {7: b"H:test:2"})

    def test_any_finds_the_jobs_of_all(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"), job(2, b"-", b"data"))
        self.assertEqual(second.find(1), first.find(1))
        self.assertEqual(second.find_unique(b"u"), first.find_unique(b"u"))
        self.assertEqual(second.find_duplicate(b"reverse", b"-", b"data"), job(2, b"-", b"data"))

    def test_a_lease_that_ended_unnoticed_can_be_renewed(self) -> None:
        late, other = self.opened("late", ENDED), self.opened("other")
        save(late, job(1))
        late.renew()
        self.assertEqual(stored(late), [job(1)])
        self.assertEqual(other.servers(), ["other"])

    def test_the_jobs_of_a_dead_server_get_new_places(self) -> None:
        dead, living = self.opened("dead", ENDED), self.opened("living")
        save(
            dead, job(1, position=9), job(2, b"u"), job(3, priority=0), job(4, run_at=5.0), job(5, b"-", b"d")
        )
        save(living, job(6))
        jobs = living.take_over(10, 100)
        # High priority first, then by place; what waits for its time comes last.
        self.assertEqual([job.number for job in jobs], [3, 2, 5, 1, 4])
        self.assertEqual([job.position for job in jobs], [100, 101, 102, 103, 104])
        self.assertEqual(jobs[2], job(5, b"-", b"d", position=102))
        self.assertEqual(sorted(stored(living)), sorted([*jobs, job(6)]))
        self.assertEqual(living.take_over(10, 200), [])

    def test_of_one_that_closed_at_once(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1))
        first.close()
        self.assertEqual([job.number for job in second.take_over(10, 5)], [1])

    def test_in_batches(self) -> None:
        for start in (1, 11):
            dead = self.opened("dead", ENDED)
            save(dead, *(job(number) for number in range(start, start + 9)), job(start + 9, run_at=5.0))
        living = self.opened("living")
        batches = []
        while jobs := living.take_over(4, 1):
            batches.append([job.number for job in jobs])
        self.assertEqual(list(itertools.chain(*batches)), list(range(1, 21)))
        self.assertEqual([len(batch) for batch in batches], [4] * 5)

    def test_what_is_taken_over_can_be_taken_over_again(self) -> None:
        first = self.opened("first", ENDED)
        save(first, job(1), job(2))
        second = self.opened("second", ENDED)
        self.assertEqual(len(second.take_over(10, 10)), 2)
        third = self.opened("third")
        self.assertEqual([job.position for job in third.take_over(10, 50)], [50, 51])

    def test_it_comes_back_as_a_new_server(self) -> None:
        slow, living = self.opened("slow", ENDED), self.opened("living")
        save(slow, job(1, b"u"))
        jobs = living.take_over(10, 50)
        with self.assertRaises(LeaseLost):
            slow.renew()
        self.assertEqual(slow.open("slow", LEASE), 3)
        self.assertEqual(stored(slow), [])
        self.assertEqual(save(slow, job(2), job(3, b"u")), {3: b"H:test:1"})
        slow.write(Changes(removals=[1]))
        self.assertEqual(stored(living), jobs)
        self.assertEqual(living.servers(), ["living", "slow"])

    def test_opening_again_gives_up_the_jobs(self) -> None:
        server = self.opened("server")
        save(server, job(1))
        server.open("server", LEASE)
        self.assertEqual(stored(server), [])
        self.assertEqual([job.number for job in server.take_over(10, 1)], [1])

    # -- failed jobs ----------------------------------------------------------------------------------

    def test_none_fails_or_buries_what_another_owns(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1), job(2))
        second.write(Changes(retries={1: Retry(1, 5.0, 1, b"why")}, deaths={2: death(job(2))}))
        self.assertEqual(stored(first), [job(1), job(2)])
        self.assertEqual(dead_jobs(first), [])

    def test_a_job_that_is_retried_is_taken_over_with_those_that_wait_for_a_time(self) -> None:
        dead, living = self.opened("dead", ENDED), self.opened("living")
        save(dead, job(1), job(2), job(3, run_at=5.0))
        retry = Retry(2, 1.5e9, 1, b"why")
        dead.write(Changes(retries={1: retry}))
        jobs = living.take_over(10, 50)
        retried = job(1, position=51)._replace(**retry._asdict())
        self.assertEqual(jobs, [job(2, position=50), retried, job(3, position=52, run_at=5.0)])
        self.assertEqual(living.scheduled(0, 9), jobs[1:])

    def test_dead_jobs_belong_to_nobody(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1), job(2), job(3))
        bury(first, death(job(1)), death(job(2)), death(job(3)))
        first.close()
        self.assertEqual([dead.number for dead in dead_jobs(second)], [3, 2, 1])
        self.assertEqual(second.take_over(10, 50), [])
        self.assertEqual(second.dead_jobs.find(1), death(job(1)))
        self.assertEqual(second.dead_jobs.retry(1, 60, RETRIED_AT), job(1, position=60, submitted=RETRIED_AT))
        self.assertEqual(second.dead_jobs.forget([2]), 1)
        self.assertEqual(second.dead_jobs.evict(0, 0, 0.0, 9), 1)

    def test_one_server_runs_a_dead_job_again(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        bury(first, death(job(1, b"u")))
        retried = job(1, b"u", position=50, submitted=RETRIED_AT)
        self.assertEqual(second.dead_jobs.retry(1, 50, RETRIED_AT), retried)
        self.assertIsNone(first.dead_jobs.retry(1, 60, RETRIED_AT))
        self.assertEqual((stored(first), stored(second)), ([], [retried]))
        # What it knew of the job that died is of no use any more.
        first.write(Changes(removals=[1], deaths={1: death(job(1, b"u"))}))
        self.assertEqual(stored(second), [retried])

    def test_a_unique_that_another_server_has_keeps_a_dead_job_dead(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        bury(first, death(job(1, b"u")))
        save(second, job(2, b"u"))
        with self.assertRaises(UniqueInUse):
            first.dead_jobs.retry(1, 50, RETRIED_AT)
        self.assertEqual(dead_jobs(second), [death(job(1, b"u"))])

    def test_a_job_that_another_server_joined_is_not_dead(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"), job(2))
        save(second, job(3, b"u"))
        deaths = {1: death(job(1, b"u")), 2: death(job(2))}
        (each,) = first.write(Changes(deaths=deaths)).coalesced
        self.assertEqual(each.job, job(1, b"u"))
        self.assertEqual((stored(first), dead_jobs(first)), ([job(1, b"u")], [death(job(2))]))
        # Who knows of that submit buries it.
        written = first.write(Changes(coalesced={1: each.at}, deaths=deaths))
        self.assertEqual(written.coalesced, [])
        self.assertEqual((stored(first), len(dead_jobs(first))), ([], 2))

    def test_what_another_server_has_has_not_ended_here(self) -> None:
        """It was this server's, which lost its lease and went on with the job for those who wait."""
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1), job(2))
        second.write(Changes(unsaved_ends={1: death(job(1)), 2: result(job(2)), 3: death(job(3))}))
        self.assertEqual((stored(first), dead_jobs(first)), ([job(1), job(2)], [death(job(3))]))
        self.assertIsNone(first.results.find(2, 0.0))

    def test_a_server_without_a_lease_keeps_no_end(self) -> None:
        dead, living = self.opened("dead", ENDED), self.opened("living")
        living.take_over(10, 1)
        for end in (death(job(1)), result(job(1))):
            with self.assertRaises(LeaseLost):
                dead.write(Changes(unsaved_ends={1: end}))
        self.assertEqual((dead_jobs(living), living.results.find(1, 0.0)), ([], None))

    # -- settings -------------------------------------------------------------------------------------

    def test_settings_hold_for_all(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        first.settings.change(SettingChanges(values={(b"f", "a"): "1"}))
        settings = second.settings.read()
        self.assertEqual(settings.settings, [Setting(b"f", "a", "1")])
        self.assertEqual(second.renew().settings_version, settings.version)
        first.close()
        self.assertEqual(second.settings.read(), settings)

    def test_a_renewal_tells_of_changed_settings(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        before = second.renew().settings_version
        self.assertEqual(second.renew().settings_version, before)
        first.settings.change(SettingChanges(values={(b"f", "a"): "1"}))
        behind = second.renew().settings_version
        self.assertGreater(behind, before)
        first.settings.change(SettingChanges(dropped={b"f"}))
        self.assertGreater(second.renew().settings_version, behind)

    # -- slots ----------------------------------------------------------------------------------------

    def want(self, store: Store, *keys: bytes, most: int = 1) -> list[Slot]:
        """Want a slot of each of these keys of ``f``; returns what the server has got and not confirmed."""
        return store.exchange_slots(SlotChanges(wanted={(b"f", key): most for key in keys}))

    def take(self, store: Store, *keys: bytes, most: int = 1) -> list[Slot]:
        """The same where they are free, and confirm them."""
        slots = self.want(store, *keys, most=most)
        self.assertEqual([slot.key for slot in slots], [*keys])
        store.exchange_slots(SlotChanges(confirmed=slots))
        return slots

    def release(self, store: Store, *slots: Slot) -> list[Slot]:
        return store.exchange_slots(SlotChanges(released=[*slots]))

    def pass_on(self, store: Store, slot: Slot) -> None:
        """Confirm a slot, and give it back."""
        store.exchange_slots(SlotChanges(confirmed=[slot]))
        self.release(store, slot)

    def new(self, store: Store) -> list[Slot]:
        return store.exchange_slots(SlotChanges())

    def test_a_slot_has_one_owner(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        (slot,) = self.want(first, b"")
        self.assertEqual(slot[:2], (b"f", b""))
        self.assertEqual(self.want(second, b""), [])
        self.assertEqual(self.new(first), [slot], "until it is confirmed")
        self.assertEqual([store.renew().has_new_slots for store in (first, second)], [True, False])
        self.assertEqual(first.exchange_slots(SlotChanges(confirmed=[slot])), [])
        self.assertIs(first.renew().has_new_slots, False)
        self.assertEqual(self.new(first), [])
        self.assertEqual(self.release(first, slot), [])
        self.assertEqual([each[:2] for each in self.new(second)], [(b"f", b"")])

    def test_limits_have_slots_of_their_own(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        name, key = bytes(range(256)) * 2, bytes(range(256))[::-1]
        changes = SlotChanges(wanted={(name, key): 1, (name, b""): 1, (b"", b""): 1, (b"", key): 1})
        for store in (first, second):
            store.exchange_slots(changes)
        self.assertEqual({slot[:2] for slot in self.new(first)}, set(changes.wanted))
        self.assertEqual(self.new(second), [])
        self.assertEqual([slot.key for slot in self.want(second, b"k")], [b"k"])

    def test_as_many_as_there_may_be(self) -> None:
        servers = [self.opened(str(number)) for number in range(3)]
        slots: list[Slot] = []
        for _ in range(2):
            for server in servers:
                slots += self.want(server, b"", most=4)
                server.exchange_slots(SlotChanges(confirmed=slots))
        self.assertEqual(len(set(slots)), 4)
        self.assertEqual([self.want(server, b"", most=4) for server in servers], [[]] * 3)
        # One more for whoever knows of a raised limit.
        self.assertEqual(len(self.want(servers[2], b"", most=5)), 1)
        self.assertEqual([self.new(server) for server in servers[:2]], [[], []])

    def test_a_lowered_limit_stops_nothing_and_gives_none(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        slots = [slot for _ in range(4) for slot in self.take(first, b"", most=4)]
        self.assertEqual(self.want(second, b"", most=2), [])
        for slot in slots[:2]:
            self.release(first, slot)
            self.assertEqual(self.new(second), [], "as many as there may be are taken still")
        self.release(first, slots[2])
        self.assertEqual(len(self.new(second)), 1)

    def test_who_wanted_first_has_it_first(self) -> None:
        servers = [self.opened(str(number)) for number in range(4)]
        (slot,) = self.take(servers[0], b"")
        for server in (servers[2], servers[1], servers[3], servers[2]):
            self.want(server, b"")
        # Who gives it back and wants it again comes last.
        changes = SlotChanges(released=[slot], wanted={(b"f", b""): 1})
        self.assertEqual(servers[0].exchange_slots(changes), [])
        for owner in (2, 1, 3, 0):
            has = [index for index, server in enumerate(servers) if self.new(server)]
            self.assertEqual(has, [owner])
            self.pass_on(servers[owner], *self.new(servers[owner]))
        self.assertEqual([self.new(server) for server in servers], [[]] * 4)

    def test_who_wants_none_any_more_gets_none(self) -> None:
        first, second, third = self.opened("first"), self.opened("second"), self.opened("third")
        (slot,) = self.take(first, b"")
        self.want(second, b"")
        self.want(third, b"")
        second.exchange_slots(SlotChanges(unwanted={(b"f", b""), (b"g", b"")}))
        self.release(first, slot)
        self.assertEqual(([], 1), (self.new(second), len(self.new(third))))
        # With one call it wants anew.
        second.exchange_slots(SlotChanges(unwanted={(b"f", b"")}, wanted={(b"f", b""): 2}))
        self.assertEqual(len(self.new(second)), 1)

    def test_what_is_said_again_does_no_harm(self) -> None:
        """A server says the same again where it was not told what came of it."""
        first, second = self.opened("first"), self.opened("second")
        (slot,) = self.take(first, b"")
        self.want(second, b"")
        both = SlotChanges(released=[slot], wanted={(b"f", b""): 1})
        first.exchange_slots(both)
        (its,) = self.new(second)
        self.assertEqual(first.exchange_slots(both), [])
        self.assertEqual(self.new(second), [its])
        self.pass_on(second, its)
        (again,) = self.new(first)
        self.assertEqual(again, slot, "it looks as the one that was given back")
        self.assertEqual(first.exchange_slots(both), [again])
        self.pass_on(first, again)
        self.assertEqual(self.new(first), [again], "as it was wanted again")

    def test_none_gives_back_what_another_has(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        (slot,) = self.take(first, b"")
        self.want(second, b"")
        self.pass_on(second, slot)
        self.assertEqual(self.new(second), [])
        self.release(first, slot, slot._replace(number=7), slot._replace(key=b"unknown"))
        self.assertEqual(len(self.new(second)), 1)

    def test_a_renewal_tells_what_others_want(self) -> None:
        first, second, third = self.opened("first"), self.opened("second"), self.opened("third")
        self.assertEqual(first.renew().wanted_slots, [])
        self.take(first, b"", b"k")
        self.want(second, b"", b"k")
        self.want(third, b"")
        self.want(first, b"")
        wanted = sorted(first.renew().wanted_slots)
        self.assertEqual(wanted, [WantedSlots(b"f", b"", 2), WantedSlots(b"f", b"k", 1)])
        self.assertEqual([server.renew().wanted_slots for server in (second, third)], [[], []])

    def test_but_not_what_would_come_back_at_once(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        for server, slots in ((first, 2), (second, 2), (first, 1)):
            for _ in range(slots):
                self.take(server, b"", most=5)
        for server in (first, second):
            self.want(server, b"", most=5)
        self.assertEqual(first.renew().wanted_slots, [WantedSlots(b"f", b"", 1)])
        self.assertEqual(second.renew().wanted_slots, [])

    def test_the_slots_of_a_dead_server_are_free(self) -> None:
        first, second = self.opened("first", ENDED), self.opened("second")
        self.take(first, b"", b"k")
        self.want(second, b"", b"k")
        self.assertEqual(self.new(second), [], "nobody has noticed")
        self.assertEqual(second.take_over(10, 50), [])
        self.assertEqual(sorted(slot.key for slot in self.new(second)), [b"", b"k"])
        with self.assertRaises(LeaseLost):
            self.new(first)
        with self.assertRaises(LeaseLost):
            self.want(first, b"other")
        first.open("first", LEASE)
        self.assertEqual(self.new(first), [])
        self.assertEqual(len(self.want(first, b"other")), 1)

    def test_so_are_those_of_one_that_closed(self) -> None:
        first, second, third = self.opened("first"), self.opened("second"), self.opened("third")
        self.want(first, b"")
        self.want(second, b"")
        self.want(third, b"")
        first.close()
        second.close()
        # What it wanted is forgotten, too.
        third.take_over(10, 50)
        self.assertEqual(len(self.new(third)), 1)
        self.assertEqual(third.renew().has_orphans, False)

    def test_with_a_new_lease_a_server_has_no_slots(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        self.take(first, b"")
        self.want(second, b"")
        first.open("first", LEASE)
        self.assertEqual(self.new(first), [])
        second.take_over(10, 50)
        self.assertEqual(len(self.new(second)), 1)

    def test_very_many_slots(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        keys = [b"%d" % number for number in range(2 * MAX_SLOTS + 100)]
        slots: list[Slot] = []
        new = self.want(first, *keys)
        while new:
            slots += new
            new = first.exchange_slots(SlotChanges(confirmed=new))
            self.assertLessEqual(len(new), MAX_SLOTS)
        self.assertEqual(sorted(slot.key for slot in slots), sorted(keys))
        self.assertEqual(self.want(second, *keys), [])
        self.assertEqual(len(first.renew().wanted_slots), MAX_SLOTS)
        self.release(first, *slots)
        self.assertEqual(len(self.new(second)), MAX_SLOTS)

    # -- submits that are answered with another server's job ------------------------------------------

    def coalesced(
        self, store: Store, *removals: int, known: dict[int, float] | None = None
    ) -> list[Coalesced]:
        """What is kept of the jobs that a server wants to remove."""
        return store.write(Changes(removals=list(removals), coalesced=known or {})).coalesced

    def test_a_job_that_another_server_joined_is_not_removed(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"), job(2, b"-"), job(3, b"v"), job(4))
        save(second, job(5, b"u"), job(6, b"-"))
        found = sorted(each.job for each in self.coalesced(first, 1, 2, 3, 4))
        self.assertEqual(found, [job(1, b"u"), job(2, b"-")])
        self.assertEqual(stored(first), [job(1, b"u"), job(2, b"-")])
        self.assertEqual(save(second, job(7, b"u"), job(8, b"v")), {7: b"H:test:1"})

    def test_when_it_was_joined(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        before = time.monotonic()
        save(second, job(2, b"u"))
        behind = time.monotonic()
        (each,) = self.coalesced(first, 1)
        # Two clocks are read here, which may differ by a little.
        self.assertGreater(each.ago, -0.01)
        self.assertLess(each.ago, time.monotonic() - before + 0.01)
        (later,) = self.coalesced(first, 1)
        self.assertEqual(later.at, each.at)
        self.assertGreater(later.ago, each.ago)
        self.assertLess(later.ago - (time.monotonic() - behind), behind - before + 0.01)

    def test_it_is_removed_by_who_knows_of_the_join(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"), job(2, b"v"), job(3))
        save(second, job(4, b"u"), job(5, b"v"))
        known = {each.job.number: each.at for each in self.coalesced(first, 1, 2)}
        # With another job's removal, and with one that takes the unique over.
        self.assertEqual(self.coalesced(first, 1, 3, known={1: known[1]}), [])
        self.assertEqual(stored(first), [job(2, b"v")])
        written = first.write(Changes([job(6, b"v")], [2], {}, {2: known[2]}))
        self.assertEqual(written, Written({}, []))
        self.assertEqual(stored(first), [job(6, b"v")])

    def test_not_by_who_knows_of_an_earlier_one(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        save(second, job(2, b"u"))
        (known,) = self.coalesced(first, 1)
        save(second, job(3, b"u"))
        (each,) = self.coalesced(first, 1, known={1: known.at})
        self.assertGreater(each.at, known.at)
        self.assertEqual(self.coalesced(first, 1, known={1: each.at}), [])

    def test_a_job_that_is_the_same_as_one_that_is_kept_is_so_too(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        save(second, job(2, b"u"))
        duplicates, coalesced, *_ = first.write(Changes([job(3, b"u")], [1]))
        self.assertEqual((duplicates, [each.job.number for each in coalesced]), ({3: b"H:test:1"}, [1]))

    def test_its_own_server_does_not_join(self) -> None:
        first = self.opened("first")
        save(first, job(1, b"u"))
        self.assertEqual(save(first, job(2, b"u")), {2: b"H:test:1"})
        self.assertEqual(self.coalesced(first, 1), [])
        self.assertEqual(stored(first), [])

    def test_a_job_that_another_server_has_taken_over_is_its_own_duplicate(self) -> None:
        first, second = self.opened("first", ENDED), self.opened("second")
        save(first, job(1, b"u"), job(2))
        second.take_over(10, 50)
        first.open("first", LEASE)
        self.assertEqual(save(first, job(1, b"u"), job(2), job(3)), {1: b"H:test:1", 2: b"H:test:2"})
        found = [each.job for each in self.coalesced(second, 1, 2)]
        self.assertEqual(found, [job(1, b"u", position=50), job(2, position=51)])
        self.assertEqual(stored(first), [job(3)])

    def test_a_coalesced_submit_is_known_to_who_takes_the_job_over(self) -> None:
        first, second, third = self.opened("first", ENDED), self.opened("second"), self.opened("third")
        save(first, job(1, b"u"))
        save(second, job(2, b"u"))
        self.assertEqual(len(third.take_over(10, 50)), 1)
        (each,) = self.coalesced(third, 1)
        self.assertEqual(each.job, job(1, b"u", position=50))
        self.assertEqual(self.coalesced(third, 1, known={1: each.at}), [])
        self.assertEqual(stored(third), [])
