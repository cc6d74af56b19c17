"""Limits of runs that hold for several servers on one database together: slots move to where jobs wait."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req, res
from tests.server.sites import LEASE, Site
from tests.store.model import ModelDatabase
from txgearman.broker.policy import RunRules
from txgearman.server.config.options import FunctionSettings
from txgearman.server.persistence import slots
from txgearman.server.persistence.lease import RENEWALS
from txgearman.server.persistence.slots import FIRST_POLL, LAST_POLL, RETRY_INTERVAL, SlotCount

NO_JOB = res(10)
POLLS = round(1 / FIRST_POLL)
STEP = LEASE / POLLS


class SharedLimitCase(SynchronousTestCase):
    """Three servers on one database, with a limit for ``f``."""

    rules: dict[str, Any] = {"max_running": 1}

    def setUp(self) -> None:
        self.now = 0.0
        self.database = ModelDatabase(lambda: 5e8 + self.now)
        self.sites = [self.site(name) for name in ("first", "second", "third")]
        self.first, self.second, self.third = self.sites
        self.exchanges = 0
        self.pass_time(STEP)

    def site(self, name: str) -> Site:
        functions = {"f": FunctionSettings(**self.rules)}
        return Site(name, self.database, lambda: 1e9 + self.now, functions=functions)

    def pass_time(self, seconds: float) -> None:
        """Let time pass everywhere, with a database that answers at once."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            for site in self.sites:
                site.turn(STEP)
                self.commit(site)

    def commit(self, site: Site) -> None:
        site.turn()
        while site.thread.calls:
            self.exchanges += site.thread.calls[0][1] == site.store.exchange_slots
            site.thread.run()
            site.turn()

    def submit(self, site: Site, jobs: int = 1, unique: bytes = b"", kind: int = 7) -> None:
        """Jobs; for clients that wait, if it is not said otherwise."""
        client = site.connect()
        for number in range(jobs):
            client.receive(req(kind, b"f", unique and b"%b:%d" % (unique, number), b"data"))

    def grab(self, site: Site, worker: SocketlikeTransport) -> bytes | None:
        """The handle of the job that a worker gets."""
        worker.receive(req(9))
        heard = site.heard(worker)
        return None if heard == NO_JOB else heard[12:].split(b"\0")[0]

    def wait_for_job(self, site: Site, worker: SocketlikeTransport, seconds: float) -> bytes:
        """What a worker gets that asks again and again, as a slot that nobody uses moves on."""
        end = self.now + seconds
        while (handle := self.grab(site, worker)) is None:
            self.assertLess(self.now, end)
            self.pass_time(STEP)
        return handle

    def complete(self, site: Site, worker: SocketlikeTransport, handle: bytes) -> None:
        worker.receive(req(13, handle, b""))
        site.heard(worker)

    def running(self) -> list[int]:
        """How many jobs of ``f`` run on each server."""
        functions = [site.factory.broker.functions.by_name.get(b"f") for site in self.sites]
        return [0 if function is None else function.running for function in functions]


class MovingTests(SharedLimitCase):
    def test_who_waits_in_vain_looks_less_and_less(self) -> None:
        worker = self.first.worker()
        self.submit(self.first, 1)
        self.wait_for_job(self.first, worker, LEASE)
        self.second.worker().receive(req(9))
        self.submit(self.second, 1)
        self.pass_time(LEASE)
        self.exchanges = 0
        self.pass_time(10 * LEASE)
        # Each look comes as soon as the last poll says, or a quarter sooner.
        self.assertGreaterEqual(self.exchanges, 10 / LAST_POLL - 1)
        self.assertLessEqual(self.exchanges, 10 / (0.7 * LAST_POLL))

    def test_the_first_look_comes_soon(self) -> None:
        worker = self.first.worker()
        self.submit(self.first, 1)
        handle = self.wait_for_job(self.first, worker, LEASE)
        other = self.second.worker()
        self.submit(self.second, 1)
        self.assertIsNone(self.grab(self.second, other))
        # The first one hears that its slot is wanted.
        self.pass_time(LEASE / RENEWALS + STEP)
        self.complete(self.first, worker, handle)
        self.wait_for_job(self.second, other, LEASE * LAST_POLL + 2 * STEP)

    def test_they_are_shown(self) -> None:
        worker = self.first.worker()
        self.submit(self.first, 2)
        self.wait_for_job(self.first, worker, LEASE)
        self.submit(self.second, 1)
        self.assertIsNone(self.grab(self.second, self.second.worker()))
        self.pass_time(STEP)
        seen = [site.store_writer.slots.by_function for site in self.sites]
        self.assertEqual(
            seen, [{b"f": SlotCount(1, self.first.store_writer.slots.wanted)}, {b"f": SlotCount(0, 1)}, {}]
        )
        admin = self.second.connect()
        admin.receive(b"show store\n", b"show function limits\n")
        shown = self.second.heard(admin)
        self.assertIn(b"slots-leased\t0\nslots-wanted\t1\n", shown)
        self.assertIn(b"\t:\t0\t0\t1\n", shown)
        self.second.store_writer.slots.lost()
        self.assertEqual(self.second.store_writer.slots.by_function.get(b"f", SlotCount(0, 0)).leased, 0)

    def test_three_servers_drain_their_queues_one_job_at_a_time(self) -> None:
        workers = [site.worker() for site in self.sites]
        has: list[bytes | None] = [None] * 3
        done = [0] * 3
        longest = [0.0] * 3
        since = self.now
        for site in self.sites:
            self.submit(site, 400)
        while min(done) < 400 and self.now < 1000:
            for index, site in enumerate(self.sites):
                handle = has[index]
                if handle is not None:
                    self.complete(site, workers[index], handle)
                    done[index] += 1
                has[index] = self.grab(site, workers[index])
                self.assertLessEqual(sum(self.running()), 1)
                if has[index] is not None or done[index] == 400:
                    if sum(self.running()) != self.running()[index] or since != self.now:
                        since = self.now
                    longest[index] = 0.0
                else:
                    longest[index] += STEP
                self.assertLess(longest[index], LEASE, "who waits is not left out")
            self.pass_time(STEP)
        self.assertEqual(done, [400] * 3)
        self.assertLess(self.now, 1200 * STEP * 1.6, "the slot is in use for most of the time")

    def test_a_slot_moves_to_where_jobs_wait_within_a_lease(self) -> None:
        first, second = self.first.worker(), self.second.worker()
        self.submit(self.first, 1000)
        self.pass_time(LEASE)
        handle = self.grab(self.first, first)
        self.submit(self.second)
        began = self.now
        while (other := self.grab(self.second, second)) is None:
            assert handle is not None
            self.complete(self.first, first, handle)
            handle = self.grab(self.first, first)
            if handle is None:
                break
            self.pass_time(STEP)
        self.pass_time(3 * STEP)
        other = other or self.grab(self.second, second)
        self.assertIsNotNone(other)
        self.assertLess(self.now - began, LEASE / RENEWALS + 5 * STEP)
        self.assertIsNone(self.grab(self.first, first))

    def test_a_sleeper_is_woken_where_the_slot_comes_to(self) -> None:
        worker = self.second.worker()
        worker.receive(req(9), req(4))
        self.second.heard(worker)
        self.submit(self.second)
        self.assertEqual(self.second.heard(worker), b"", "there is no slot here")
        self.commit(self.second)
        self.assertEqual(self.second.heard(worker), res(6))
        self.assertIsNotNone(self.grab(self.second, worker))

    def test_one_server_alone_does_not_ask_for_each_job(self) -> None:
        worker = self.first.worker()
        self.submit(self.first, 500)
        self.pass_time(STEP)
        self.exchanges = 0
        for _ in range(500):
            handle = self.grab(self.first, worker)
            assert handle is not None
            self.complete(self.first, worker, handle)
        # One at a time, with nothing that waits in between, at most a second apart.
        for _ in range(50):
            self.submit(self.first)
            self.pass_time(STEP)
            handle = self.grab(self.first, worker)
            assert handle is not None
            self.complete(self.first, worker, handle)
            self.pass_time(3 * STEP)
        self.assertLessEqual(self.exchanges, 1, "that which confirms the slot")

    def test_a_slot_that_is_of_no_use_goes_back(self) -> None:
        worker = self.first.worker()
        self.submit(self.first)
        self.pass_time(STEP)
        handle = self.grab(self.first, worker)
        assert handle is not None
        self.complete(self.first, worker, handle)
        self.assertEqual(self.first.store_writer.slots.held, 1)
        self.pass_time(2 * LEASE / RENEWALS + 5 * STEP)
        self.assertEqual(self.first.store_writer.slots.held, 0)
        self.assertEqual((self.database.slots, self.database.confirmed), ({}, set()))
        self.exchanges = 0
        self.pass_time(LEASE)
        self.assertEqual(self.exchanges, 0, "where nobody wants or has one, nobody asks")

    def test_a_job_that_is_cancelled_wants_none(self) -> None:
        first, second = self.first.worker(), self.second.worker()
        self.submit(self.first)
        self.pass_time(STEP)
        handle = self.grab(self.first, first)
        assert handle is not None
        self.submit(self.second)
        self.pass_time(STEP)
        self.assertEqual(self.second.store_writer.slots.wanted, 1)
        self.second.factory.broker.cancel(next(iter(self.second.factory.broker.life.handles))[0])
        self.pass_time(STEP)
        self.assertEqual(
            (self.second.store_writer.slots.wanted, any(self.database.wants.values())), (0, False)
        )
        self.complete(self.first, first, handle)
        self.pass_time(LEASE)
        self.assertEqual(self.database.slots, {})
        self.assertIsNone(self.grab(self.second, second))


class ManySlotsTests(SharedLimitCase):
    rules = {"max_running": 6}

    def test_servers_come_to_have_as_many_each(self) -> None:
        """All have long queues, and jobs of a step each."""
        workers = [[site.worker() for _ in range(8)] for site in self.sites]
        for site in self.sites:
            self.submit(site, 5000)
        has: dict[SocketlikeTransport, bytes] = {}

        def turn() -> None:
            for site, its in zip(self.sites, workers, strict=True):
                for worker in its:
                    if worker in has:
                        self.complete(site, worker, has.pop(worker))
                    handle = self.grab(site, worker)
                    if handle is not None:
                        has[worker] = handle
                    self.assertLessEqual(sum(self.running()), 6)
            self.pass_time(STEP)

        for _ in range(6 * POLLS):
            turn()
        self.assertEqual(self.running(), [2, 2, 2])
        self.exchanges = 0
        for _ in range(POLLS):
            turn()
        self.assertEqual(self.running(), [2, 2, 2], "and none moves any more")

    def test_a_limit_that_is_lowered_and_raised(self) -> None:
        workers = [[site.worker() for _ in range(8)] for site in self.sites]
        for site in self.sites:
            self.submit(site, 5000)
        has: dict[SocketlikeTransport, bytes] = {}
        for most in (6, 2, 5):
            self.first.factory.administration.limit_runs(b"f", RunRules(max_running=most))
            seen = []
            for _ in range(4 * POLLS):
                for site, its in zip(self.sites, workers, strict=True):
                    for worker in its:
                        if worker in has:
                            self.complete(site, worker, has.pop(worker))
                        handle = self.grab(site, worker)
                        if handle is not None:
                            has[worker] = handle
                seen.append(sum(self.running()))
                self.pass_time(STEP)
            last = seen[2 * POLLS :]
            self.assertEqual(max(last), most)
            self.assertGreater(sum(last) / len(last), 0.7 * most, "most of them are in use")
        self.first.factory.administration.limit_runs(b"f", RunRules())
        self.pass_time(2 * LEASE)
        for site, its in zip(self.sites, workers, strict=True):
            for worker in its:
                if worker not in has:
                    self.assertIsNotNone(self.grab(site, worker))
        self.pass_time(2 * LEASE)
        self.assertEqual((self.database.slots, any(self.database.wants.values())), ({}, False))


class KeyTests(SharedLimitCase):
    rules = {"max_running_per_key": 1}

    def test_each_key_runs_on_one_server_at_a_time(self) -> None:
        for site in self.sites:
            for key in (b"a", b"b", b"c"):
                self.submit(site, 20, key)
        workers = [[site.worker() for _ in range(3)] for site in self.sites]
        has: dict[SocketlikeTransport, tuple[bytes, bytes]] = {}
        done = 0
        while done < 180 and self.now < 2000:
            for site, its in zip(self.sites, workers, strict=True):
                for worker in its:
                    if worker in has:
                        self.complete(site, worker, has.pop(worker)[0])
                        done += 1
                    handle = self.grab(site, worker)
                    if handle is not None:
                        job = site.factory.broker.life.handles.get(handle)
                        assert job is not None
                        has[worker] = handle, job.unique[:1]
                    keys = [key for _, key in has.values()]
                    self.assertEqual(len(keys), len(set(keys)))
            self.pass_time(STEP)
        self.assertEqual(done, 180)
        self.pass_time(2 * LEASE)
        self.assertEqual((self.database.slots, any(self.database.wants.values())), ({}, False))

    def test_very_many_keys(self) -> None:
        self.patch(slots, "MAX_SPARE", 10)
        self.patch(slots, "MAX_SLOTS", 7)
        worker = self.first.worker()
        for number in range(40):
            self.submit(self.first, 1, b"%d" % number)
        self.pass_time(STEP)
        for _ in range(40):
            handle = self.grab(self.first, worker)
            assert handle is not None
            self.complete(self.first, worker, handle)
        self.assertEqual(self.first.store_writer.slots.held, 10, "the others go back at once")
        self.pass_time(LEASE)
        self.assertEqual(self.database.slots, {})


class LossTests(SharedLimitCase):
    def test_the_slots_of_a_killed_server_fall_free_with_its_lease(self) -> None:
        first, second = self.first.worker(), self.second.worker()
        self.submit(self.first)
        self.pass_time(STEP)
        self.assertIsNotNone(self.grab(self.first, first))
        self.submit(self.second)
        self.sites.remove(self.first)
        self.pass_time(LEASE / 2)
        self.assertIsNone(self.grab(self.second, second))
        self.pass_time(LEASE)
        self.assertIsNotNone(self.grab(self.second, second))

    def test_so_do_those_of_one_that_ends(self) -> None:
        first, second = self.first.worker(), self.second.worker()
        self.submit(self.first)
        self.pass_time(STEP)
        self.assertIsNotNone(self.grab(self.first, first))
        self.submit(self.second)
        self.sites.remove(self.first)
        self.first.stop()
        self.assertEqual(self.first.clock.getDelayedCalls(), [])
        self.pass_time(LEASE / RENEWALS + 3 * STEP)
        self.assertIsNotNone(self.grab(self.second, second))

    def test_a_server_that_lost_its_lease_has_none_until_it_gets_some_anew(self) -> None:
        first, second = self.first.worker(), self.second.worker()
        self.submit(self.first, 3)
        self.pass_time(STEP)
        handle = self.grab(self.first, first)
        assert handle is not None
        self.submit(self.second, 2)
        self.first.store.cut = True
        other = self.wait_for_job(self.second, second, 2 * LEASE)
        self.pass_time(LEASE)
        self.complete(self.first, first, handle)
        self.assertIsNone(self.grab(self.first, first))
        self.first.store.cut = False
        self.pass_time(LEASE / 2)
        self.assertIsNone(self.grab(self.first, first), "the other has the slot")
        self.complete(self.second, second, other)
        self.wait_for_job(self.first, first, LEASE)

    def test_an_outage_loses_no_slot_and_no_want(self) -> None:
        """Whether or not the database has done what it was asked for."""
        for how in ("cut", "deaf"):
            self.setUp()
            first, second = self.first.worker(), self.second.worker()
            self.submit(self.first, 2)
            setattr(self.first.store, how, True)
            self.pass_time(LEASE / 2)
            self.assertIsNone(self.grab(self.first, first))
            setattr(self.first.store, how, False)
            self.pass_time(RETRY_INTERVAL + 2 * STEP)
            handle = self.grab(self.first, first)
            assert handle is not None
            self.submit(self.second)
            self.pass_time(LEASE / RENEWALS + 2 * STEP)
            setattr(self.first.store, how, True)
            self.complete(self.first, first, handle)
            self.pass_time(STEP)
            self.assertIsNone(self.grab(self.first, first), "another server wants it")
            self.pass_time(LEASE / 2)
            setattr(self.first.store, how, False)
            handle = self.wait_for_job(self.second, second, RETRY_INTERVAL + LEASE / RENEWALS)
            self.complete(self.second, second, handle)
            # It did not forget to want it.
            self.wait_for_job(self.first, first, LEASE)
            self.assertIsNone(self.first.store_writer.outage)

    def test_a_slot_too_many_is_found_and_goes_back(self) -> None:
        """The database has given one, and takes what is said again for another wish."""
        worker = self.first.worker()
        self.first.store.deaf = True
        self.submit(self.first)
        self.pass_time(STEP)
        self.first.store.deaf = False
        self.pass_time(RETRY_INTERVAL + STEP)
        handle = self.grab(self.first, worker)
        assert handle is not None
        self.assertNotEqual(self.database.wants[b"f", b""], {})
        self.complete(self.first, worker, handle)
        self.pass_time(2 * LEASE)
        self.assertEqual((self.database.slots, any(self.database.wants.values())), ({}, False))

    def test_a_defect_is_logged_and_refuses_no_jobs(self) -> None:
        worker = self.first.worker()
        exchange = self.first.store.exchange_slots
        self.patch(self.first.store, "exchange_slots", lambda changes: 1 / 0)
        self.submit(self.first)
        self.pass_time(STEP)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(self.first.store_writer.outage)
        self.patch(self.first.store, "exchange_slots", exchange)
        self.pass_time(RETRY_INTERVAL + STEP)
        self.assertIsNotNone(self.grab(self.first, worker))
