"""PostgreSQL: the contract, and what happens when it or the way to it fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.databases import CuttableProxy, PostgreSQL, connected, needs_postgresql, shared_postgresql
from tests.store.contract import LEASE, CrashContract, StoreContract
from tests.store.jobs import RETRIED_AT, bury, dead_jobs, death, job, save, stored
from tests.store.plot_contract import PlotContract
from tests.store.schedule_contract import TickTransactionContract
from tests.store.sharing import ENDED
from tests.store.test_several_servers import SharedCase
from txgearman.errors import LeaseLost, StoreUnavailable
from txgearman.store.contract import NO_POSITION, Changes, Retry, SlotChanges, Store, Written
from txgearman.store.postgresql import session, slots
from txgearman.store.urls import open_store


@needs_postgresql
class PostgresqlContractTests(SharedCase, StoreContract, TickTransactionContract, PlotContract):
    def setUp(self) -> None:
        SharedCase.setUp(self)
        StoreContract.setUp(self)

    def make_store(self) -> Store:
        return open_store(self.url)


@needs_postgresql
class PostgresqlCrashTests(SharedCase, CrashContract):
    pass


@needs_postgresql
class CutTests(SharedCase):
    """`store` is behind `cable`, `direct` is not."""

    def setUp(self) -> None:
        super().setUp()
        self.direct = self.opened("direct")
        self.cable = CuttableProxy(shared_postgresql().port)
        self.addCleanup(self.cable.remove)
        self.url = self.cable.url(self.url)
        self.store = self.opened("behind the cable")

    def test_a_connection_that_broke_meanwhile_is_made_anew(self) -> None:
        save(self.store, job(1))
        for number in (2, 3):
            self.cable.cut()
            save(self.store, job(number))
        self.cable.cut()
        self.assertEqual([job.number for job in stored(self.store)], [1, 2, 3])
        self.cable.cut()
        self.store.renew()

    def test_the_database_ends_the_connection(self) -> None:
        save(self.store, job(1))
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        self.store.write(Changes([job(2)], [1], {2: 3}))
        self.assertEqual([job.number for job in stored(self.store)], [2])

    def test_the_answer_to_a_commit_is_lost(self) -> None:
        save(self.store, job(1, b"u"))
        for words, changes in {
            b"INSERT INTO": Changes([job(2), job(3)]),
            b"ON CONFLICT": Changes([job(4, b"v"), job(5, b"-")]),
            b"DELETE FROM": Changes(removals=[2]),
            b"SET losses": Changes([job(6, b"w"), job(7, b"u"), job(8)], [3], {1: 5}),
        }.items():
            self.cable.cut_behind(words)
            duplicates = self.store.write(changes).duplicates
            self.assertEqual(duplicates, {7: b"H:test:1"} if changes.losses else {})
        found = [(job.number, job.losses) for job in stored(self.store)]
        self.assertEqual(found, [(1, 5), (4, 0), (5, 0), (6, 0), (8, 0)])

    def test_the_answer_to_a_failure_is_lost(self) -> None:
        save(self.store, job(1), job(2, b"u"))
        retry = Retry(1, 5.0, 1, b"why")
        for words, changes in {
            b"SET attempts": Changes(retries={1: retry}),
            b"INTO txgearman_dead": Changes(deaths={2: death(job(2, b"u"))}),
        }.items():
            self.cable.cut_behind(words)
            self.assertEqual(self.store.write(changes), Written({}, []))
        self.assertEqual(stored(self.store), [job(1)._replace(**retry._asdict())])
        self.assertEqual(dead_jobs(self.store), [death(job(2, b"u"))])

    def test_the_answer_to_a_retry_of_a_dead_job_is_lost(self) -> None:
        save(self.store, job(1), job(2))
        bury(self.store, death(job(1)), death(job(2)))
        self.cable.cut_behind(b"DELETE FROM txgearman_dead")
        self.assertEqual(
            self.store.dead_jobs.retry(1, 50, RETRIED_AT), job(1, position=50, submitted=RETRIED_AT)
        )
        self.assertEqual(stored(self.store), [job(1, position=50, submitted=RETRIED_AT)])
        # Nor was it told of in the next attempt.
        self.cable.cut_behind(b"DELETE FROM txgearman_dead", for_good=True)
        with self.assertRaises(StoreUnavailable):
            self.store.dead_jobs.retry(2, 51, RETRIED_AT)
        self.cable.mend()
        retried = job(2, position=51, submitted=RETRIED_AT)
        self.assertEqual(self.store.dead_jobs.retry(2, 51, RETRIED_AT + 1), retried)

    def test_the_answer_to_a_take_over_is_lost(self) -> None:
        dead = self.opened("dead", ENDED)
        save(dead, *(job(number) for number in range(1, 6)))
        self.cable.cut_behind(b"SET owner")
        jobs = self.store.take_over(3, 100) + self.store.take_over(3, 200)
        self.assertEqual(
            [(job.number, job.position) for job in jobs], [(1, 100), (2, 101), (3, 102), (4, 200), (5, 201)]
        )
        self.assertEqual(stored(self.store), jobs)

    def test_a_take_over_that_comes_late(self) -> None:
        dead = self.opened("dead", ENDED)
        save(dead, *(job(number) for number in range(1, 4)))
        self.cable.delay(b"SET owner")
        with self.assertRaises(StoreUnavailable):
            self.store.take_over(3, 100)
        self.cable.mend()
        self.assertEqual(self.store.take_over(0, 200), [])
        self.cable.deliver()
        # What it would have taken nobody would have been told of.
        self.assertEqual([job.position for job in self.store.take_over(3, 300)], [300, 301, 302])

    def test_a_take_over_behind_a_renewal_that_came_late(self) -> None:
        dead = self.opened("dead", ENDED)
        save(dead, job(1))
        self.cable.delay(b"SET lease_end")
        with self.assertRaises(StoreUnavailable):
            self.store.renew()
        self.cable.mend()
        prolonged = self.store._prolong  # type: ignore[attr-defined]

        def prolong(connection: Any) -> float:
            end: float = prolonged(connection)
            if not self.cable.withheld.is_set():
                self.cable.deliver()
            return end

        self.patch(self.store, "_prolong", prolong)
        self.assertEqual([job.position for job in self.store.take_over(3, 300)], [300])

    def test_nor_does_the_next_connection_tell_of_it(self) -> None:
        dead = self.opened("dead", ENDED)
        save(dead, *(job(number, b"%d" % number) for number in range(1, 6)), job(6, b"6", run_at=5.0))
        save(self.store, job(7, position=150))
        self.cable.cut_behind(b"SET owner", for_good=True)
        with self.assertRaises(StoreUnavailable):
            self.store.take_over(6, 100)
        self.cable.mend()
        self.assertEqual(stored(self.store), [job(7, position=150)])
        for found in (
            self.store.find(1),
            self.store.find_unique(b"6"),
            self.store.find_duplicate(b"reverse", b"3", b""),
        ):
            assert found is not None
            self.assertEqual(found.position, NO_POSITION)
        # The dead one may be forgotten by then.
        self.sql("DELETE FROM txgearman_server WHERE name = 'dead'")
        self.assertIs(self.store.renew().has_orphans, True)
        jobs = self.store.take_over(6, 200)
        self.assertEqual([job.position for job in jobs], [100, 101, 102, 103, 104, 105])
        self.assertIs(self.store.renew().has_orphans, False)
        self.assertEqual(stored(self.store), [*jobs, job(7, position=150)])

    def test_the_answer_to_a_join_is_lost(self) -> None:
        other = self.opened("other")
        save(other, job(1, b"u"))
        self.cable.cut_behind(b"UPDATE txgearman_job")
        self.assertEqual(save(self.store, job(2, b"u")), {2: b"H:test:1"})
        self.assertEqual(len(other.write(Changes(removals=[1])).coalesced), 1)

    def test_the_answer_to_a_removal_of_a_job_that_was_joined_is_lost(self) -> None:
        other = self.opened("other")
        for number, words in ((1, b"DELETE FROM"), (2, b"SELECT txgearman_job.joined")):
            save(self.store, job(number, b"u"))
            save(other, job(10, b"u"))
            self.cable.cut_behind(words)
            (each,) = self.store.write(Changes(removals=[number])).coalesced
            self.assertEqual(each.job, job(number, b"u"))
            self.cable.cut_behind(words)
            self.assertEqual(self.store.write(Changes([], [number], {}, {number: each.at})).coalesced, [])
            self.assertEqual(stored(self.store), [])

    def test_the_answer_to_an_exchange_of_slots_is_lost(self) -> None:
        key = b"f", b""
        self.cable.cut_behind(b"txgearman_slot")
        (slot,) = self.store.exchange_slots(SlotChanges(wanted={key: 1}))
        self.direct.exchange_slots(SlotChanges(wanted={key: 1}))
        self.cable.cut_behind(b"confirmed = TRUE")
        self.assertEqual(self.store.exchange_slots(SlotChanges(confirmed=[slot])), [])
        # It was understood to want one more, which it may give back.
        for new in ([slot], []):
            self.cable.cut_behind(b"txgearman_slot")
            self.assertEqual(self.store.exchange_slots(SlotChanges(released=[slot])), new)
            self.assertEqual(self.store.exchange_slots(SlotChanges(confirmed=new)), [])
        self.assertEqual(self.direct.exchange_slots(SlotChanges()), [slot])

    def test_an_exchange_of_slots_of_which_the_end_does_not_come(self) -> None:
        """Its way is cut between what it begins with and the commit: others wait a moment, and go on when the
        database has ended it."""
        self.store.exchange_slots(SlotChanges())
        with connected(self.url) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (slots.EXCHANGE_LOCK,))
            self.patch(slots, "_SET_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
            with self.assertRaisesRegex(StoreUnavailable, "lock timeout"):
                self.direct.exchange_slots(SlotChanges(wanted={(b"f", b""): 1}))
            save(self.direct, job(1))
            connection.execute("COMMIT")
        self.assertEqual(len(self.direct.exchange_slots(SlotChanges(wanted={(b"f", b""): 1}))), 1)

    def test_the_way_is_cut_while_the_database_commits_a_take_over(self) -> None:
        dead = self.opened("dead", ENDED)
        save(dead, *(job(number) for number in range(1, 6)))
        self.sql(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'"
        )
        self.sql(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER UPDATE ON txgearman_job"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()"
        )
        self.cable.cut_at(b"SET owner")
        jobs = self.store.take_over(3, 100)
        self.assertEqual([(job.number, job.position) for job in jobs], [(1, 100), (2, 101), (3, 102)])
        self.assertEqual(stored(self.store), jobs)

    def test_nothing_to_write_where_nothing_can_be_written(self) -> None:
        save(self.store, job(1))
        database = self.url.rpartition("/")[2]
        self.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        self.cable.cut()
        with self.assertRaisesRegex(StoreUnavailable, "read-only"):
            self.store.write(Changes())

    def test_without_a_way_to_the_database(self) -> None:
        save(self.store, job(1))
        self.cable.remove()
        for call in (lambda: save(self.store, job(2)), self.store.renew, self.store.queue_lengths):
            with self.assertRaisesRegex(StoreUnavailable, "Connection refused"):
                call()
        self.store.close()

    def test_errors_do_not_show_the_password(self) -> None:
        self.cable.remove()
        for url in (self.url.replace("gearman@", "gearman:secret@"), self.url + "?password=secret"):
            store = open_store(url)
            with self.assertRaises(StoreUnavailable) as caught:
                store.open("server", LEASE)
            self.assertNotIn("secret", f"{caught.exception} {store!r}")
            self.assertNotIn("\n", str(caught.exception))


@needs_postgresql
class StandstillTests(SharedCase):
    """A server that stands still in the middle of its work, behind `cable`, holds up no other."""

    def setUp(self) -> None:
        # A wait for what does not end within this test fails.
        self.patch(session, "LOCK_TIMEOUT", 2)

    def begin(self) -> tuple[Store, Store]:
        """One that will stand still and another, on a database of their own."""
        self.url = shared_postgresql().new_database()
        cable = self.cable = CuttableProxy(shared_postgresql().port)
        self.addCleanup(cable.remove)
        other = self.opened("other")
        self.url = cable.url(self.url)
        return self.opened("still"), other

    def standing_still(self, words: bytes, work: Callable[[], Any]) -> Future[Any]:
        """Stop in the middle of `work`, as a process does that is paused, when the database has done what has
        these `words`."""
        self.cable.withhold_behind(words)
        pool = ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        self.addCleanup(self.cable.cut)
        future = pool.submit(work)
        self.assertTrue(self.cable.withheld.wait(20), words)
        return future

    def test_while_it_writes(self) -> None:
        for words in (b"SET losses", b"INSERT INTO", b"DELETE FROM", b"SET joined"):
            still, other = self.begin()
            save(still, job(1, b"removed"), job(2, b"attempted"), job(3, b"joined"))
            save(other, job(4, b"joined"), job(5, b"theirs"), *(job(number) for number in range(100, 200)))
            (each,) = still.write(Changes(removals=[3])).coalesced
            changes = Changes([job(10, b"saved"), job(11, b"theirs")], [1, 3], {2: 7}, {3: each.at})
            writing = self.standing_still(words, lambda still=still, all_=changes: still.write(all_))
            left = other.write(Changes(removals=[5, *range(100, 200)])).coalesced
            self.assertEqual(len(left), words == b"SET joined", words)
            self.assertEqual([job.number for job in stored(other)], [5] * len(left), words)
            uniques = (b"saved", b"removed", b"attempted", b"joined", b"another")
            duplicates = save(other, *(job(number, unique) for number, unique in enumerate(uniques, 20)))
            self.assertEqual(duplicates[22], b"H:test:2", words)
            self.assertNotIn(24, duplicates, words)
            self.assertIs(other.renew().has_orphans, False, words)
            self.cable.cut()
            written = writing.result(20)
            self.assertEqual(11 in written.duplicates, bool(left), words)
            # Each unique is kept once, by whoever was first.
            found = [job.unique for store in (still, other) for job in stored(store)]
            self.assertEqual(sorted(found), sorted({*uniques, b"theirs"}), words)

    def test_while_it_exchanges_slots(self) -> None:
        for words in (b"pg_advisory_xact_lock", b"INTO txgearman_slot_want", b"COMMIT"):
            still, other = self.begin()
            changes = SlotChanges(wanted={(b"f", b""): 1})
            exchanging = self.standing_still(
                words, lambda still=still, all_=changes: still.exchange_slots(all_)
            )
            self.assertEqual(other.exchange_slots(changes), [], words)
            self.cable.cut()
            self.assertEqual(len(exchanging.result(20)), 1, words)

    def test_while_it_takes_over(self) -> None:
        for words in (b"SET lease_end", b"SET dead", b"SET owner"):
            still, other = self.begin()
            dead = self.opened("dead", ENDED)
            save(dead, job(1, b"u"), job(2))
            taking = self.standing_still(words, lambda still=still: still.take_over(10, 100))
            self.assertEqual(save(other, job(3, b"u"), job(4, b"v")), {3: b"H:test:1"}, words)
            self.assertIs(other.renew().has_orphans, True, words)
            taken = [job.number for job in other.take_over(10, 100)]
            self.assertEqual(taken, [] if words == b"SET owner" else [1, 2], words)
            with self.assertRaises(LeaseLost):
                dead.renew()
            self.cable.cut()
            self.assertEqual([job.number for job in taking.result(20)], [] if taken else [1, 2], words)


@needs_postgresql
class ArrayTests(SharedCase):
    def test_postgresql_reads_them_as_they_were(self) -> None:
        from txgearman.store.postgresql.arrays import ARRAYS, register_arrays

        limits = {"BIGINT": 2**63, "INTEGER": 2**31, "SMALLINT": 2**15}
        cases: dict[str, list[Any]] = {kind: [0, None, limit - 1, -limit] for kind, limit in limits.items()}
        cases["DOUBLE PRECISION"] = [0.0, None, 1.7e9 + 1e-6, -5e-324, float("inf")]
        cases["BYTEA"] = [b"", None, bytes(range(256)), b"x" * 100_000]
        with connected(self.url) as connection:
            register_arrays(connection)
            for kind, values in cases.items():
                for some in (values, values[:1], [None], values * 500):
                    cursor = connection.execute(f"SELECT %b::{kind}[]", (ARRAYS[kind](some),), binary=True)
                    self.assertEqual(cursor.fetchone(), (some,), kind)
        self.assertEqual(set(ARRAYS), set(cases))


@needs_postgresql
class OutageTests(SharedCase):
    """PostgreSQL itself stops, in a cluster of its own."""

    def test_restarts_and_a_crash_of_the_database(self) -> None:
        # Though the database was told to answer early, commits are waited for.
        with PostgreSQL(synchronous_commit="off") as cluster:
            self.url = cluster.new_database()
            store = self.opened("server")
            number = 1
            for end in (cluster.stop, lambda: cluster.stop("immediate"), cluster.kill):
                save(store, job(number), job(number + 1, b"%d" % number))
                end()
                with self.assertRaises(StoreUnavailable):
                    save(store, job(number + 2))
                with self.assertRaises(StoreUnavailable):
                    store.renew()
                cluster.start()
                store.renew()
                self.assertEqual(
                    save(store, job(number + 3, b"%d" % number)), {number + 3: b"H:test:%d" % (number + 1)}
                )
                store.write(Changes(removals=[number]))
                number += 10
            self.assertEqual([job.number for job in stored(store)], [2, 12, 22])

    def test_a_full_disk(self) -> None:
        with PostgreSQL(largest_file=17_000_000) as cluster:
            self.url = cluster.new_database()
            store = self.opened("server")
            data, number = b"x" * 1000, 0
            with self.assertRaisesRegex(StoreUnavailable, "could not extend file|could not write"):
                while number < 40_000:
                    save(store, *(job(number + each, data=data) for each in range(1000)))
                    number += 1000
            self.assertGreater(number, 5000)
            # Nothing of what failed was kept, and what was kept can still be seen and removed.
            self.assertEqual([stored_queue.jobs for stored_queue in store.queue_lengths()], [number])
            store.renew()
            with self.assertRaises(StoreUnavailable):
                save(store, *(job(number + each, data=data) for each in range(1000)))
            store.write(Changes(removals=list(range(number))))
            with connected(self.url) as connection:
                connection.execute("VACUUM txgearman_job")
            save(store, *(job(number + each, data=data) for each in range(1000)))
            self.assertEqual([stored_queue.jobs for stored_queue in store.queue_lengths()], [1000])
