"""Several servers on one database: who owns which jobs, and who notices that it does not any more."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.databases import connected, needs_postgresql, shared_postgresql
from tests.store.contract import HERE, LEASE
from tests.store.jobs import RETRIED_AT, bury, dead_jobs, death, job, save, stored
from tests.store.sharing import ENDED, SharedContract
from txgearman.broker.kept_unique import KeptUnique, unique_key
from txgearman.errors import LeaseLost, StoreUnavailable, UniqueInUse
from txgearman.store import session
from txgearman.store.contract import (
    Changes,
    Retry,
    SettingChanges,
    SlotChanges,
    Store,
    StoredJob,
    StoredSchedule,
    Tick,
    Written,
)
from txgearman.store.job_writes import JobWrites
from txgearman.store.postgresql import session as postgresql_session
from txgearman.store.urls import open_store

# All that a server asks of its store but `open` and `close`.
CALLS: Final[dict[str, Callable[[Store], Any]]] = {
    "write nothing": lambda store: store.write(Changes()),
    "write nothing but losses": lambda store: store.write(Changes(losses={1: 1})),
    "write nothing but a removal": lambda store: store.write(Changes(removals=[1])),
    "write nothing but a job": lambda store: save(store, job(70)),
    "write a job with a unique": lambda store: save(store, job(71, b"of its own")),
    "write nothing but a retry": lambda store: store.write(Changes(retries={1: Retry(1, 5.0, 1, b"")})),
    "write nothing but a death": lambda store: bury(store, death(job(1))),
    "dead": dead_jobs,
    "find_dead": lambda store: store.dead_jobs.find(1),
    "retry_dead": lambda store: store.dead_jobs.retry(1, 1, RETRIED_AT),
    "forget_dead": lambda store: store.dead_jobs.forget([1]),
    "dead_counts": lambda store: store.dead_jobs.counts(),
    "evict_dead": lambda store: store.dead_jobs.evict(0, 0, 0.0, 1),
    "write everything": lambda store: store.write(Changes([job(72)], [1], {1: 1})),
    "queue_lengths": lambda store: store.queue_lengths(),
    "fetch": lambda store: store.fetch(b"reverse", 1, 0, 1),
    "scheduled": lambda store: store.scheduled(0, 1),
    "find": lambda store: store.find(1),
    "find_unique": lambda store: store.find_unique(b"u"),
    "find_duplicate": lambda store: store.find_duplicate(b"reverse", b"u", b""),
    "settings": lambda store: store.settings.read(),
    "change_settings": lambda store: store.settings.change(SettingChanges(values={(b"f", "a"): "1"})),
    "exchange_slots": lambda store: store.exchange_slots(SlotChanges(wanted={(b"f", b""): 1})),
    "exchange no slots": lambda store: store.exchange_slots(SlotChanges()),
    "renew": lambda store: store.renew(),
    "take over": lambda store: store.take_over(1, 1),
    "servers": lambda store: store.servers(),
}


class SharedCase(SynchronousTestCase):
    """`url` is that of an empty database."""

    def setUp(self) -> None:
        self.url = shared_postgresql().new_database()

    def opened(self, name: str, lease: float = LEASE) -> Store:
        store = open_store(self.url)
        self.addCleanup(store.close)
        store.open(name, lease)
        return store

    def sql(self, statement: str) -> list[Any]:
        with connected(self.url) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@needs_postgresql
class ContractTests(SharedCase, SharedContract):
    """What every such store must do."""


@needs_postgresql
class LivingTests(SharedCase):
    def test_a_renewed_lease_runs(self) -> None:
        late, other = self.opened("late", ENDED), self.opened("other")
        self.sql("UPDATE txgearman_server SET lease_end = lease_end + 3600 WHERE name = 'late'")
        self.assertEqual(other.servers(), ["late", "other"])
        late.renew()
        self.assertEqual(other.servers(), ["other"])


@needs_postgresql
class KeptUniqueTests(SharedCase):
    """A submit comes to one server while another completes the job with its unique, and keeps that."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = self.opened("one"), self.opened("other")
        self.kept = KeptUnique(job(1).function, unique_key(b"u", b"") or b"", job(1).handle, 100.0)
        save(self.one, job(1, b"u"))

    def completing(self, attribute: str, times: int = 1) -> None:
        """Have the first server complete its job after the next call of a method by the other one."""
        real = getattr(JobWrites, attribute)
        left = [self.complete] * times

        def called(writes: JobWrites, *arguments: Any) -> Any:
            result = real(writes, *arguments)
            if left:
                left.pop()()
            return result

        self.patch(JobWrites, attribute, called)

    def complete(self) -> None:
        self.one.write(Changes(removals=[1], kept_uniques=[self.kept], now=1.0))

    def submit(self) -> Written:
        return self.other.write(Changes([job(2, b"u")], now=1.0, unless_kept=frozenset([2])))

    def test_behind_the_look_for_kept_uniques(self) -> None:
        self.completing("_find_kept")
        self.assertEqual(self.submit().duplicates, {2: job(1).handle})
        self.assertEqual(stored(self.other), [])

    def test_in_the_middle_of_the_statement_that_saves(self) -> None:
        """The statement waits for a lock, between its snapshot and the row of the job. The job is never
        there: another server could answer a submit with it, or this one could fall."""
        save(self.one, job(3, b"a"))
        find_kept = JobWrites._find_kept
        there: list[list[Any]] = []

        def find(writes: JobWrites, *arguments: Any) -> Any:
            there.append(self.sql("SELECT number FROM txgearman_job"))
            return find_kept(writes, *arguments)

        self.patch(JobWrites, "_find_kept", find)
        jobs = [job(4, b"a"), job(2, b"u")]
        with connected(self.url) as connection, ThreadPoolExecutor(1) as executor:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM txgearman_job WHERE number = 3")
            writing = executor.submit(self.other.write, Changes(jobs, now=1.0, unless_kept=frozenset([2])))
            while not self.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
                pass
            self.complete()
            connection.execute("COMMIT")
            self.assertEqual(writing.result().duplicates, {2: job(1).handle})
        self.assertEqual(there[1:], [[(4,)]])
        self.assertEqual([each.number for each in stored(self.other)], [4])

    def test_where_the_first_attempt_had_stored_it(self) -> None:
        """The connection was lost ahead of the second look."""
        self.complete()
        save(self.other, job(2, b"u"))
        self.assertEqual(self.submit().duplicates, {2: job(1).handle})
        self.assertEqual(stored(self.other), [])


@needs_postgresql
class TakingOverTests(SharedCase):
    def test_a_renewal_tells_whether_there_may_be_some(self) -> None:
        living = self.opened("living")
        self.assertIs(living.renew().has_orphans, False)
        dead = self.opened("dead", ENDED)
        save(dead, job(1), job(2))
        self.assertIs(living.renew().has_orphans, True)
        self.assertEqual(len(living.take_over(1, 1)), 1)
        self.assertIs(living.renew().has_orphans, True)
        while living.take_over(1, 2):
            pass
        self.assertIs(living.renew().has_orphans, False)
        closed = self.opened("closed")
        save(closed, job(3))
        closed.close()
        self.assertIs(living.renew().has_orphans, True)

    def test_a_server_without_jobs_is_forgotten(self) -> None:
        living = self.opened("living")
        for jobs in (0, 5):
            dead = self.opened("dead", ENDED)
            save(dead, *(job(number) for number in range(1, jobs + 1)))
            while living.take_over(2, 1):
                pass
            self.assertEqual(self.sql("SELECT name FROM txgearman_server"), [("living",)])

    def test_two_at_the_same_time_get_different_jobs(self) -> None:
        numbers = list(range(1, 501))
        save(self.opened("dead", ENDED), *(job(number) for number in numbers))
        # One that finds the dead while another marks them leaves them for the next time.
        self.assertEqual(self.opened("living").take_over(0, 1), [])
        command = [sys.executable, "-m", "tests.store.taker", self.url]
        takers = [
            subprocess.Popen(
                [*command, name], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name in ("first", "second")
        ]
        for taker in takers:
            assert taker.stdout is not None
            self.assertEqual(taker.stdout.readline(), "ready\n")
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("go\n")
            taker.stdin.flush()
        got = [list(map(int, taker.communicate(timeout=30)[0].split())) for taker in takers]
        self.assertEqual(sorted(itertools.chain(*got)), numbers)
        self.assertNotIn([], got)

    def test_one_that_is_just_writing_is_left_for_the_next_time(self) -> None:
        writing, living = self.opened("writing", ENDED), self.opened("living")
        save(writing, job(1))
        with connected(self.url) as connection:
            # A server that was stopped in the middle of a transaction.
            connection.execute("BEGIN")
            connection.execute("SELECT FROM txgearman_server WHERE name = 'writing' FOR SHARE")
            self.assertEqual(living.take_over(10, 1), [])
            connection.execute("COMMIT")
        self.assertEqual(len(living.take_over(10, 1)), 1)


@needs_postgresql
class FencingTests(SharedCase):
    def test_a_server_that_was_declared_dead_can_do_nothing(self) -> None:
        for batch in (0, 1):
            with self.subTest(taken=batch):
                self.url = shared_postgresql().new_database()
                slow, living = self.opened("slow", ENDED), self.opened("living")
                save(slow, job(1, b"u"))
                # Even before anything is taken over.
                living.take_over(batch, 50)
                rows = self.sql("SELECT * FROM txgearman_job")
                for name, call in CALLS.items():
                    with self.assertRaisesRegex(LeaseLost, "the lease of slow has expired", msg=name):
                        call(slow)
                self.assertEqual(self.sql("SELECT * FROM txgearman_job"), rows)
                self.assertEqual(self.sql("SELECT * FROM txgearman_setting"), [])
                self.assertEqual(self.sql("SELECT * FROM txgearman_slot_want"), [])


@needs_postgresql
class AtTheSameTimeTests(SharedCase):
    """Each thread is a server of its own."""

    def in_threads(self, *works: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(works)) as pool:
            return [future.result(60) for future in [pool.submit(work) for work in works]]

    def test_starting_on_an_empty_database(self) -> None:
        for _ in range(3):
            self.url = shared_postgresql().new_database()
            stores = [open_store(self.url) for _ in range(4)]
            starts = self.in_threads(*(lambda store=store: store.open("server", LEASE) for store in stores))
            self.assertEqual(sorted(starts), [1, 2, 3, 4])
            for store in stores:
                store.close()

    def check_saving_the_same_uniques(self) -> None:
        """Two servers save and remove jobs with the same few uniques, each in its own order."""
        servers = 2
        told: list[dict[int, bytes]] = [{}, {}]
        late = [0, 0]
        # Otherwise one may be done before the other has begun.
        together = threading.Barrier(servers, timeout=20)
        alive: list[dict[int, StoredJob]] = [{}, {}]

        def work(server: int) -> None:
            store, chance = self.opened(f"server {server}"), random.Random(server)
            for batch in range(12):
                first = (server * 1000 + batch + 1) * 1000
                uniques = [b"%d" % chance.randrange(60) for _ in range(30)]
                jobs = [job(first + number, unique) for number, unique in enumerate(uniques)]
                removals = [number for number in alive[server] if chance.random() < 0.7]
                together.wait()
                duplicates, coalesced, *_ = store.write(Changes(jobs, removals))
                told[server] |= duplicates
                for number in set(removals) - {each.job.number for each in coalesced}:
                    del alive[server][number]
                late[server] += len(coalesced)
                alive[server] |= {job.number: job for job in jobs if job.number not in duplicates}
            self.assertEqual({job.number: job for job in stored(store)}, alive[server])

        self.in_threads(*(lambda server=server: work(server) for server in range(servers)))
        left = [job.unique for jobs in alive for job in jobs.values()]
        self.assertEqual(len(left), len(set(left)))
        self.assertTrue(all(told))
        self.assertTrue(any(late))

    def test_saving_the_same_uniques(self) -> None:
        self.check_saving_the_same_uniques()

    def test_where_the_database_would_serialize(self) -> None:
        name = self.url.rpartition("/")[2]
        shared_postgresql().run_sql(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
        )
        self.check_saving_the_same_uniques()

    def held_back(self, statement: str, *works: Callable[[], Any]) -> list[Any]:
        """What `works` return, each of which begins when those before it wait for another transaction; what
        the first waits for is `statement`."""
        with ThreadPoolExecutor(len(works)) as pool, connected(self.url) as connection:
            connection.execute("BEGIN")
            connection.execute(statement)
            futures = []
            for count, work in enumerate(works, 1):
                futures.append(pool.submit(work))
                while self.sql("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") != [(count,)]:
                    self.assertFalse([future for future in futures if future.done()])
            connection.execute("COMMIT")
            return [future.result(60) for future in futures]

    def test_none_waits_for_one_that_waits_for_it(self) -> None:
        # A deadlock is an error then.
        self.patch(session, "MAX_TRIES", 1)
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"x"), job(2, b"m"))
        theirs, ours = self.held_back(
            "UPDATE txgearman_job SET losses = 1 WHERE number = 2",
            lambda: save(second, job(3, b"a"), job(4, b"m"), job(5, b"x")),
            lambda: first.write(Changes([job(6, b"a")], [1])),
        )
        self.assertEqual(ours.duplicates, {6: b"H:test:3"})
        # Either may be first after that.
        self.assertEqual(theirs, {4: b"H:test:2"} | ({5: b"H:test:1"} if ours.coalesced else {}))

    def test_nor_where_functions_differ_alone(self) -> None:
        self.patch(session, "MAX_TRIES", 1)
        first, second = self.opened("first"), self.opened("second")
        functions = [b"f", b"g", b"h"]
        f, g, h = (
            [job(server + number, b"u", function=function) for server in (10, 20, 30)]
            for number, function in enumerate(functions)
        )
        save(first, g[0])
        told = self.held_back(
            "UPDATE txgearman_job SET losses = 1",
            lambda: save(second, h[1], g[1], f[1]),
            lambda: save(first, f[2], h[2]),
        )
        self.assertEqual(told, [{21: b"H:test:11"}, {30: b"H:test:20", 32: b"H:test:22"}])

    def test_a_tick_waits_for_a_change_of_its_schedule_and_sees_it(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        number = 0
        for change, refused in (
            ("UPDATE txgearman_schedule SET version = version + 1", True),
            ("DELETE FROM txgearman_schedule", True),
            ("UPDATE txgearman_schedule SET since = since + 1", False),
        ):
            with self.subTest(change):
                first.schedules.delete(b"s")
                version = first.schedules.save(StoredSchedule(b"s", 1.5e9, False, "{}", b""))
                number += 1
                ticks = {number: Tick(b"s", 1.5e9, version)}
                (written,) = self.held_back(
                    change, partial(second.write, Changes([job(number)], ticks=ticks))
                )
                self.assertEqual(number in written.ticks_refused, refused)

    def test_a_change_of_a_schedule_waits_for_its_ticks(self) -> None:
        """So that none comes behind the answer to the change."""
        first = self.opened("first")
        first.schedules.save(StoredSchedule(b"s", 1.5e9, False, "{}", b""))
        ticking = "SELECT name FROM txgearman_schedule WHERE name = 's' FOR SHARE"
        for change in (
            partial(first.schedules.pause, b"s", 1.5e9, True),
            partial(first.schedules.save, StoredSchedule(b"s", 1.5e9, False, "{}", b"new")),
            partial(first.schedules.delete, b"s"),
        ):
            self.held_back(ticking, change)

    def test_ticks_of_many_schedules_at_several_servers(self) -> None:
        """Each is one job, and nobody waits in a circle."""
        self.patch(session, "MAX_TRIES", 1)
        servers = [self.opened(f"{number}") for number in range(3)]
        names = [b"s%d" % number for number in range(300)]
        servers[0].schedules.note_of_file(names, 1.5e9)

        def tick(index: int) -> int:
            chance, saved = random.Random(index), 0
            for turn in range(5):
                chance.shuffle(names_of[index])
                numbers = range(index * 10_000 + turn * 1000, index * 10_000 + turn * 1000 + len(names))
                ticks = {
                    n: Tick(name, 1.5e9 + turn) for n, name in zip(numbers, names_of[index], strict=True)
                }
                written = servers[index].write(Changes([job(n) for n in numbers], ticks=ticks))
                saved += len(numbers) - len(written.ticks_done)
            return saved

        names_of = [list(names) for _ in servers]
        with ThreadPoolExecutor(3) as pool:
            self.assertEqual(sum(pool.map(tick, range(3))), 5 * len(names))

    def test_a_transaction_that_does_not_end(self) -> None:
        self.patch(postgresql_session, "LOCK_TIMEOUT", 0.05)
        first, second = self.opened("first"), self.opened("second")
        save(first, job(1, b"u"))
        with connected(self.url) as connection:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM txgearman_job")
            with self.assertRaisesRegex(StoreUnavailable, "lock timeout"):
                save(second, job(2, b"u"))
            save(second, job(3, b"v"))
            connection.execute("COMMIT")
        self.assertEqual(save(second, job(2, b"u")), {})


@needs_postgresql
class DeadJobTests(SharedCase):
    """Several servers at the same time on the same dead jobs."""

    def test_each_is_retried_by_one_server(self) -> None:
        servers = [self.opened(f"server {number}") for number in range(3)]
        jobs = [job(number) for number in range(1, 101)]
        save(servers[0], *jobs)
        bury(servers[0], *map(death, jobs))
        start = threading.Barrier(len(servers))

        def retry_all(index: int) -> list[int]:
            start.wait()
            first = 1000 * (index + 1)
            retried = [
                servers[index].dead_jobs.retry(job.number, first + job.number, RETRIED_AT) for job in jobs
            ]
            return [job.number for job in retried if job is not None]

        with ThreadPoolExecutor(len(servers)) as pool:
            retried = list(pool.map(retry_all, range(len(servers))))
        self.assertEqual(sorted(itertools.chain(*retried)), [job.number for job in jobs])
        for server, numbers in zip(servers, retried, strict=True):
            self.assertEqual([job.number for job in stored(server)], numbers)
        self.assertEqual(dead_jobs(servers[0]), [])

    def test_two_that_evict_at_once_evict_no_more_than_one(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        jobs = [job(number) for number in range(1, 501)]
        save(first, *jobs)
        bury(first, *map(death, jobs))
        with ThreadPoolExecutor(2) as pool:
            counts = list(
                pool.map(lambda store: store.dead_jobs.evict(400, 1 << 40, 0.0, 1000), (first, second))
            )
        self.assertEqual((sum(counts), len(dead_jobs(first))), (100, 400))

    def test_a_unique_is_taken_by_a_retry_or_a_submit(self) -> None:
        first, second = self.opened("first"), self.opened("second")
        for number in range(1, 81, 2):
            unique = b"%d" % number
            save(first, job(number, unique))
            bury(first, death(job(number, unique)))
            with ThreadPoolExecutor(2) as pool:
                retry = pool.submit(first.dead_jobs.retry, number, 1000 + number, RETRIED_AT)
                duplicates = pool.submit(save, second, job(number + 1, unique)).result()
            if duplicates:
                self.assertIsNotNone(retry.result())
            else:
                self.assertIsInstance(retry.exception(), UniqueInUse)
            live, dead = first.find_unique(unique), first.dead_jobs.find(number)
            assert live is not None
            self.assertEqual((live.number == number, dead is None), (bool(duplicates), bool(duplicates)))
