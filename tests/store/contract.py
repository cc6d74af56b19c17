"""What every store must do, as tests; a store's test case inherits them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.store.crowd import a_job
from tests.store.finishing import FINISHED_AT_ONCE
from tests.store.jobs import RETRIED_AT, bury, dead_jobs, death, job, keep, result, save, stored
from tests.store.model import ModelDatabase, ModelStore
from tests.store.schedule_contract import ScheduleContract
from txgearman.broker.dead_job import MAX_ERROR, DeadCursor, DeadFilter, DeadJob
from txgearman.broker.kept_result import MAX_RESULT_BYTES
from txgearman.broker.kept_unique import unique_key
from txgearman.errors import UniqueInUse
from txgearman.store.contract import (
    MAX_EXAMINED,
    MAX_EXAMINED_BYTES,
    Changes,
    DeadCount,
    Evicted,
    KeptResult,
    KeptUnique,
    QueueLength,
    ResultCounts,
    Retry,
    Setting,
    SettingChanges,
    SlotChanges,
    Store,
    StoredJob,
    Tick,
    Written,
)
from txgearman.store.urls import open_store

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    _TestCase = object

LEASE: Final = 3600.0
HERE: Final = Path(__file__).parents[2]
"""Where `python -m tests.…` works."""
LARGEST_NUMBER: Final = 2**63 - 1
ALL_BYTES: Final = bytes(range(256))


class StoreContract(ScheduleContract):
    """`store` is open on an empty database of its own; `start` is what its `open` returned."""

    store: Store
    start: int

    def make_store(self) -> Store:
        """Another store, not open, on this test's database."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store = self.make_store()
        self.addCleanup(self.close)
        self.start = self.store.open("here", LEASE)

    def close(self) -> None:
        """Close the newest store."""
        self.store.close()

    def restart(self) -> None:
        """What a server does that ends and starts again: `store` and `start` are new, its jobs are there."""
        self.store.close()
        self.store = self.make_store()
        self.start = self.store.open("here", LEASE)
        while self.store.take_over(1000, 1):
            pass

    def numbers(self) -> list[int]:
        """The numbers of the jobs there are, by position."""
        return [job.number for job in stored(self.store)]

    # -- saving -------------------------------------------------------------------------------------

    def test_what_is_saved_is_there_as_it_was(self) -> None:
        jobs = [
            job(1, b"a unique", b"\0some\0data", priority=0, losses=3, submitted=1234567890.125),
            job(2, priority=2, position=7, handle=b"H:other.host:2", reducer=b"a reducer"),
            job(3, run_at=1.5e9, function=b"another"),
            job(4, b"-", b"the data"),
            job(5, reducer=b"", data=b""),
            job(6, attributes=b'{"attempts":3}', reducer=b"r"),
        ]
        self.assertEqual(save(self.store, *jobs), {})
        self.assertEqual(sorted(stored(self.store)), jobs)

    def test_nothing_to_write(self) -> None:
        self.assertEqual(self.store.write(Changes()), Written({}, []))
        self.assertEqual(stored(self.store), [])

    def test_all_bytes_and_none(self) -> None:
        jobs = [
            job(1, ALL_BYTES[1:65], ALL_BYTES, function=ALL_BYTES, handle=ALL_BYTES[:63], reducer=ALL_BYTES),
            job(2, b"", b"", function=b""),
            job(3, b"\xff\xfe", b"\0", function=b"'\"\\%s:x;--"),
            job(4, b"%(x)s", b"\\x00", function=b"?", handle=b""),
        ]
        save(self.store, *jobs)
        self.assertEqual(stored(self.store), jobs)
        self.assertEqual(self.store.find_duplicate(ALL_BYTES, ALL_BYTES[1:65], b"other data"), jobs[0])

    def test_long_names(self) -> None:
        long = job(1, b"u" * 64, function=random.Random(1).randbytes(512), handle=b"h" * 63)
        save(self.store, long)
        self.assertEqual(stored(self.store), [long])

    def test_large_data(self) -> None:
        data = random.Random(1).randbytes(1 << 24)
        self.assertGreater(self.store.largest_data, len(data))
        save(self.store, job(1, b"-", data))
        self.assertEqual(save(self.store, job(2, b"-", data)), {2: b"H:test:1"})
        self.assertEqual([found.data == data for found in stored(self.store)], [True])

    def test_the_largest_numbers(self) -> None:
        largest = job(LARGEST_NUMBER, b"u", position=LARGEST_NUMBER, priority=2, losses=2**31 - 1)
        save(self.store, largest, job(1, b"x"))
        self.assertEqual(self.store.fetch(b"reverse", 2, LARGEST_NUMBER - 1, 1), [largest])
        self.store.write(Changes(losses={LARGEST_NUMBER: 7}))
        self.assertEqual(self.store.fetch(b"reverse", 2, 1, 9), [largest._replace(losses=7)])
        self.assertIsNotNone(self.store.find(LARGEST_NUMBER))
        self.store.write(Changes(removals=[LARGEST_NUMBER]))
        self.assertEqual(self.numbers(), [1])

    def test_more_jobs_than_one_statement_takes(self) -> None:
        for count in (1, 2, 3, 5, 2047, 2048, 2049, 4100):
            with self.subTest(count=count):
                jobs = [job(number, b"" if number % 20 else b"%d" % number) for number in range(1, count + 1)]
                self.assertEqual(save(self.store, *jobs), {})
                self.assertEqual(stored(self.store), jobs)
                self.store.write(Changes(removals=[job.number for job in jobs]))
                self.assertEqual(stored(self.store), [])

    def test_saving_again_what_is_there(self) -> None:
        # What a server does whose connection broke before it was told of the commit.
        jobs = [job(1), job(2, b"u"), job(3, b"-")]
        save(self.store, *jobs)
        self.assertEqual(save(self.store, *jobs, job(4, b"u")), {4: b"H:test:2"})
        self.assertEqual(stored(self.store), jobs)

    # -- uniques ------------------------------------------------------------------------------------

    def test_a_unique_is_kept_once_for_a_function(self) -> None:
        save(self.store, job(1, b"u"))
        duplicates = save(self.store, job(2, b"u"), job(3, b"u", function=b"other"), job(4, b"v"))
        self.assertEqual(duplicates, {2: b"H:test:1"})
        self.assertEqual(self.numbers(), [1, 3, 4])

    def test_of_two_in_one_transaction_the_first_is_kept(self) -> None:
        duplicates = save(self.store, job(2, b"u"), job(1, b"u"), job(3, b"v"), job(4, b"u"), job(5, b"v"))
        self.assertEqual(duplicates, {1: b"H:test:2", 4: b"H:test:2", 5: b"H:test:3"})
        self.assertEqual(self.numbers(), [2, 3])

    def test_many_in_one_transaction(self) -> None:
        jobs = [job(number, b"%d" % (number % 700)) for number in range(1, 2101)]
        duplicates = save(self.store, *jobs)
        self.assertEqual(
            duplicates, {number: b"H:test:%d" % ((number - 1) % 700 + 1) for number in range(701, 2101)}
        )
        self.assertEqual(self.numbers(), list(range(1, 701)))

    def test_a_dash_stands_for_the_data(self) -> None:
        duplicates = save(
            self.store,
            job(1, b"-", b"x"),
            job(2, b"-", b"x"),
            job(3, b"-", b"y"),
            job(4, b"x", b"x"),
            job(5, b"-", b"x", function=b"other"),
        )
        self.assertEqual(duplicates, {2: b"H:test:1"})
        self.assertEqual(self.numbers(), [1, 3, 4, 5])

    def test_without_unique_or_data_jobs_are_never_the_same(self) -> None:
        jobs = [job(1), job(2), job(3, b"-", b""), job(4, b"-", b"")]
        self.assertEqual(save(self.store, *jobs), {})
        self.assertEqual(stored(self.store), jobs)

    def test_a_unique_is_free_after_a_removal(self) -> None:
        save(self.store, job(1, b"u"), job(2, b"-"))
        self.assertEqual(self.store.write(Changes([job(3, b"u"), job(4, b"-")], [1, 2])).duplicates, {})
        self.assertEqual(self.numbers(), [3, 4])

    def test_duplicates_of_scheduled_jobs(self) -> None:
        save(self.store, job(1, b"u", run_at=5.0))
        self.assertEqual(save(self.store, job(2, b"u")), {2: b"H:test:1"})

    # -- removing and changing ----------------------------------------------------------------------

    def test_removals(self) -> None:
        save(self.store, *(job(number) for number in range(1, 6)), job(6, run_at=5.0))
        self.store.write(Changes(removals=[2, 4, 6, 2, 99]))
        self.assertEqual(self.numbers(), [1, 3, 5])

    def test_attempts(self) -> None:
        save(self.store, job(1), job(2), job(3, run_at=5.0))
        self.store.write(Changes(losses={1: 5, 3: 1, 99: 7}))
        self.assertEqual([job.losses for job in stored(self.store)], [5, 0, 1])

    def test_all_kinds_of_changes_at_once(self) -> None:
        save(self.store, job(1), job(2))
        self.store.write(Changes([job(3), job(4)], [1, 4], {1: 9, 2: 9}))
        self.assertEqual([(job.number, job.losses) for job in stored(self.store)], [(2, 9), (3, 0)])

    # -- kept uniques -------------------------------------------------------------------------------

    def test_kept_uniques(self) -> None:
        save(self.store, job(1, b"u"), job(2))
        largest = KeptUnique(b"f" * 512, b"k" * 64, b"h" * 63, 4e9)
        kept = [
            KeptUnique(b"f", b"u", b"H:1", 100.0),
            KeptUnique(b"g", b"u", b"H:2", 300.5),
            KeptUnique(b"f", ALL_BYTES[:33], b"H:3", 200.0),
            largest,
        ]
        self.store.write(Changes(removals=[1], kept_uniques=kept, now=1.0))
        self.assertEqual(self.numbers(), [2])
        self.assertEqual(self.store.kept_uniques(50.0), [kept[0], kept[2], kept[1], largest])
        self.assertEqual(self.store.kept_uniques(200.0), [kept[1], largest])
        self.restart()
        self.assertEqual(self.store.kept_uniques(300.5), [largest])

    def test_a_unique_that_is_kept_anew(self) -> None:
        first, second = (KeptUnique(b"f", b"u", b"H:%d" % number, 100.0 * number) for number in (1, 2))
        self.store.write(Changes(kept_uniques=[second, first], now=1.0))
        self.assertEqual(self.store.kept_uniques(0.0), [first])
        self.store.write(Changes(kept_uniques=[second], now=1.0))
        self.assertEqual(self.store.kept_uniques(0.0), [second])

    def test_uniques_past_their_time_are_deleted(self) -> None:
        kept = [KeptUnique(b"f", b"%d" % number, b"H:1", float(number)) for number in range(1, 6)]
        self.store.write(Changes(kept_uniques=kept[:4], now=0.0))
        self.store.write(Changes(removals=[7], now=3.0))
        self.assertEqual(self.store.kept_uniques(0.0), kept[:4])
        self.store.write(Changes(kept_uniques=kept[4:], now=3.0))
        self.assertEqual(self.store.kept_uniques(0.0), kept[3:])

    def test_a_job_whose_unique_is_kept_is_not_saved_where_that_is_said(self) -> None:
        by_data = job(0, b"-", b"the data")
        key = unique_key(by_data.unique, by_data.data)
        assert key is not None
        kept = [
            KeptUnique(b"reverse", b"u", b"H:1", 100.0),
            KeptUnique(b"reverse", key, b"H:2", 100.0),
            KeptUnique(b"other", b"v", b"H:3", 100.0),
            KeptUnique(b"reverse", b"w", b"H:4", 50.0),
        ]
        self.store.write(Changes(kept_uniques=kept, now=1.0))
        jobs = [
            job(1, b"u"),
            job(2, b"-", b"the data"),
            job(3, b"v"),
            job(4, b"w"),
            job(5, b"-", b"other data"),
            job(6),
        ]
        asked = frozenset(each.number for each in jobs)
        written = self.store.write(Changes(jobs, [99], now=50.0, unless_kept=asked))
        self.assertEqual(written.duplicates, {1: b"H:1", 2: b"H:2"})
        self.assertEqual(self.numbers(), [3, 4, 5, 6])
        # A stored job is a duplicate as ever, and nobody else is asked.
        self.assertEqual(save(self.store, job(7, b"u"), job(8, b"v")), {8: b"H:test:3"})
        only = self.store.write(Changes([job(9, b"u")], now=60.0, unless_kept=frozenset([9])))
        self.assertEqual(only.duplicates, {9: b"H:1"})

    def test_many_uniques_at_once(self) -> None:
        kept = [KeptUnique(b"f", b"%d" % number, b"H:%d" % number, float(number)) for number in range(2000)]
        self.store.write(Changes(kept_uniques=kept, now=0.0))
        self.assertEqual(self.store.kept_uniques(-1.0), kept)

    # -- failed runs --------------------------------------------------------------------------------

    def test_retries(self) -> None:
        """A job that waits for its retry is read with those that wait for a time, in no queue."""
        save(self.store, job(1), job(2), job(3, run_at=5.0), job(4))
        first, again = (
            Retry(1, 1.5e9, 0, b"", 3),
            Retry(2**31 - 1, 1.5e9 + 0.25, 8, ALL_BYTES * 32, 2**31 - 1),
        )
        self.store.write(Changes(retries={1: first, 3: first, 99: first}))
        self.store.write(Changes(retries={1: again}))
        retried = [job(1)._replace(**again._asdict()), job(3, run_at=5.0)._replace(**first._asdict())]
        self.assertEqual(self.store.scheduled(0, 9), retried)
        self.assertEqual(self.store.queue_lengths(), [QueueLength(b"reverse", 1, 2)])
        self.assertEqual(self.store.fetch(b"reverse", 1, 0, 9), [job(2), job(4)])
        found = self.store.find(1)
        assert found is not None
        self.assertEqual(found._replace(data=b""), retried[0]._replace(data=b""))
        self.restart()
        self.assertEqual([job._replace(position=job.number) for job in self.store.scheduled(0, 9)], retried)

    def test_a_retry_that_is_removed(self) -> None:
        save(self.store, job(1, b"u"), job(2, b"v"))
        retry = Retry(1, 1.5e9, 1, b"why")
        self.store.write(Changes([job(3, b"u")], [1], retries={1: retry, 2: retry}))
        self.assertEqual(self.numbers(), [2, 3])
        self.store.write(Changes(removals=[2]))
        self.assertEqual(self.numbers(), [3])

    def test_many_retries_and_deaths_at_once(self) -> None:
        count = 1100
        jobs = [job(number) for number in range(1, count + 1)]
        save(self.store, *jobs)
        self.store.write(Changes(retries={job.number: Retry(job.number, 7.0, 0, b"") for job in jobs}))
        self.assertEqual([job.attempts for job in stored(self.store)], list(range(1, count + 1)))
        bury(self.store, *map(death, jobs))
        self.assertEqual(stored(self.store), [])
        self.assertEqual([dead.number for dead in dead_jobs(self.store)], list(range(count, 0, -1)))

    # -- dead jobs ----------------------------------------------------------------------------------

    def buried(self, *jobs: StoredJob) -> list[DeadJob]:
        """These jobs, saved and dead, those that ended last first."""
        save(self.store, *jobs)
        deaths = [death(job) for job in jobs]
        bury(self.store, *deaths)
        return deaths[::-1]

    def test_what_has_died_is_kept_as_it_was(self) -> None:
        jobs = [
            job(1, b"a unique", ALL_BYTES, priority=0, reducer=b"a reducer", losses=2, run_at=5.0),
            job(2, b"-", b"", function=ALL_BYTES, handle=ALL_BYTES[:63]),
            job(LARGEST_NUMBER),
            job(3),
        ]
        deaths = [
            death(jobs[0], 1.5e9 + 0.25, attempts=2**31 - 1, losses=2**31 - 1, error=ALL_BYTES * 32),
            death(jobs[1], 1.5e9, error=b"", worker=b"", outcome=8, attempts=0),
            death(jobs[2], 1.4e9, worker=ALL_BYTES),
        ]
        self.assertEqual(len(deaths[0].error), MAX_ERROR)
        save(self.store, *jobs)
        bury(self.store, *deaths)
        self.assertEqual(stored(self.store), [jobs[3]])
        self.assertEqual(dead_jobs(self.store), deaths)
        for dead in deaths:
            self.assertEqual(self.store.dead_jobs.find(dead.number), dead)
            self.assertIsNone(self.store.find(dead.number))
        for unknown in (3, 99, -1, 2**63, 10**60):
            self.assertIsNone(self.store.dead_jobs.find(unknown), unknown)
        self.restart()
        self.assertEqual(dead_jobs(self.store), deaths)

    def test_only_what_is_removed_is_dead(self) -> None:
        save(self.store, job(1))
        deaths = [death(job(1)), death(job(2))]
        bury(self.store, *deaths)
        # Once more, as by a server that does not know whether the first attempt was committed.
        bury(self.store, *deaths)
        self.assertEqual(dead_jobs(self.store), [death(job(1))])

    def test_the_unique_of_a_dead_job_is_free(self) -> None:
        save(self.store, job(1, b"u"), job(2, b"-"))
        changes = Changes([job(3, b"u"), job(4, b"-")], [], deaths={1: death(job(1)), 2: death(job(2))})
        self.assertEqual(self.store.write(changes), Written({}, []))
        self.assertEqual(self.numbers(), [3, 4])
        bury(self.store, death(job(3, b"u")))
        self.assertEqual([dead.number for dead in dead_jobs(self.store)], [3, 2, 1])
        self.assertIsNone(self.store.find_unique(b"u"))

    def test_pages_of_dead_jobs(self) -> None:
        deaths = self.buried(*(job(number, function=b"fg"[number % 2 :][:1]) for number in range(1, 8)))
        ties = [dead._replace(number=10 + dead.number, ended=deaths[3].ended) for dead in deaths]
        save(self.store, *(job(dead.number, function=dead.function) for dead in ties))
        ties = [dead._replace(handle=b"H:test:%d" % dead.number) for dead in ties]
        bury(self.store, *ties)
        expected = sorted([*deaths, *ties], key=lambda dead: (dead.ended, dead.number), reverse=True)
        for function in (None, b"f", b"g", b"unknown"):
            wanted = [dead for dead in expected if function in (None, dead.function)]
            for limit in (1, 2, 3, 7, 14, 100):
                for with_data in (True, False):
                    self.assertEqual(
                        self.all_pages(DeadFilter(function), limit, with_data),
                        wanted if with_data else [dead._replace(data=None) for dead in wanted],
                        (function, limit),
                    )

    def all_pages(self, wanted: DeadFilter, limit: int, with_data: bool = False) -> list[DeadJob]:
        """What all pages have, of which all but the last are full unless something is searched for."""
        jobs: list[DeadJob] = []
        cursor: DeadCursor | None = None
        while True:
            page = self.store.dead_jobs.page(wanted, cursor, limit, with_data)
            self.assertLessEqual(len(page.jobs), limit)
            jobs += page.jobs
            if page.next is None:
                return jobs
            if not wanted.search:
                self.assertEqual(len(page.jobs), limit)
            if cursor is not None:
                self.assertLess(page.next, cursor)
            cursor = page.next

    def test_searching_dead_jobs(self) -> None:
        self.buried(
            job(1, b"a needle", b""),
            job(2, data=b"hay\0needle\xff"),
            job(3, function=b"needles"),
            job(4, handle=b"H:needle:4"),
            job(5, b"hay", b"NEEDLE", handle=b"%"),
        )
        save(self.store, job(6))
        bury(self.store, death(job(6), error=b"line\nneedle"))
        for limit in (1, 2, 100):
            found = [dead.number for dead in self.all_pages(DeadFilter(None, b"needle"), limit)]
            self.assertEqual(found, [6, 4, 3, 2, 1])
            for search in (b"\xff", b"\0needle"):
                found = [dead.number for dead in self.all_pages(DeadFilter(b"reverse", search), limit)]
                self.assertEqual(found, [2])
            self.assertEqual(self.all_pages(DeadFilter(None, b"%needle"), limit), [])

    def test_a_search_looks_at_so_many_at_once(self) -> None:
        """Both limits of a page, in jobs and in bytes: at the limit and one past it."""
        self.buried(*(job(number, data=b"") for number in range(1, MAX_EXAMINED + 2)))
        page = self.store.dead_jobs.page(DeadFilter(None, b"H:test:1\0"), None, 5, False)
        self.assertEqual(page, ([], DeadCursor(death(job(2)).ended, 2)))
        page = self.store.dead_jobs.page(DeadFilter(None, b"H:test:"), page.next, 5, False)
        self.assertEqual([[dead.number for dead in page.jobs], page.next], [[1], None])
        self.assertEqual(self.store.dead_jobs.evict(0, 0, 0.0, 10_000), MAX_EXAMINED + 1)

    def test_a_page_with_data_has_so_many_bytes(self) -> None:
        half = b"x" * (MAX_EXAMINED_BYTES // 2)
        fits = half[death(job(1)).weight - len(b"data") :]
        self.buried(job(1, data=half + half), job(2, data=half), job(3, data=fits), job(4, data=fits))
        sizes = []
        cursor = None
        for _ in range(3):
            page = self.store.dead_jobs.page(DeadFilter(), cursor, 100, True)
            sizes.append(len(page.jobs))
            cursor = page.next
        self.assertEqual([sizes, cursor], [[2, 1, 1], None])
        self.assertEqual(len(self.store.dead_jobs.page(DeadFilter(), None, 100, False).jobs), 4)

    def test_retrying_dead_jobs(self) -> None:
        first = job(1, b"u", ALL_BYTES, priority=0, reducer=b"r", submitted=7.5, losses=3, run_at=5.0)
        first = first._replace(attributes=b"\0{}\xff")
        self.buried(first, job(2, b"v"))
        revived = first._replace(position=50, losses=0, run_at=None, submitted=RETRIED_AT)
        self.assertEqual(self.store.dead_jobs.retry(1, 50, RETRIED_AT), revived)
        self.assertEqual(stored(self.store), [revived])
        self.assertEqual([dead.number for dead in dead_jobs(self.store)], [2])
        # The same call once more is one whose answer was lost.
        self.assertEqual(self.store.dead_jobs.retry(1, 50, RETRIED_AT + 1), revived)
        for unknown in (1, 99, 2**63, 10**60):
            self.assertIsNone(self.store.dead_jobs.retry(unknown, 51, RETRIED_AT), unknown)
        self.assertEqual(save(self.store, job(3, b"u")), {3: b"H:test:1"})
        bury(self.store, death(revived))
        self.assertEqual(self.store.dead_jobs.find(1), death(revived))

    def test_retrying_a_dead_job_whose_unique_is_in_use(self) -> None:
        self.buried(job(1, b"u"), job(2, b"-"), job(3))
        save(self.store, job(4, b"u"), job(5, b"-"), job(6, b"u", function=b"other"))
        for number in (1, 2):
            with self.assertRaises(UniqueInUse):
                self.store.dead_jobs.retry(number, 50, RETRIED_AT)
        self.assertEqual(len(dead_jobs(self.store)), 3)
        self.assertIsNotNone(self.store.dead_jobs.retry(3, 51, RETRIED_AT))
        self.store.write(Changes(removals=[4, 5]))
        self.assertIsNotNone(self.store.dead_jobs.retry(1, 52, RETRIED_AT))
        self.assertIsNotNone(self.store.dead_jobs.retry(2, 53, RETRIED_AT))
        self.assertEqual(self.numbers(), [6, 3, 1, 2])

    def test_forgetting_dead_jobs(self) -> None:
        self.buried(*(job(number) for number in range(1, 2101)))
        self.assertEqual(self.store.dead_jobs.forget([]), 0)
        self.assertEqual(self.store.dead_jobs.forget([1, 3, 9999, 2**63, 10**60]), 2)
        self.assertEqual(self.store.dead_jobs.forget([1, 3, *range(5, 2101)]), 2096)
        self.assertEqual([dead.number for dead in dead_jobs(self.store)], [4, 2])

    def test_counting_dead_jobs(self) -> None:
        self.assertEqual(self.store.dead_jobs.counts(), [])
        deaths = self.buried(job(1, b"u", ALL_BYTES), job(2), job(3, function=b"f", data=b""))
        counts = sorted(self.store.dead_jobs.counts())
        weight = deaths[1].weight + deaths[2].weight
        self.assertEqual(counts, [DeadCount(b"f", 1, deaths[0].weight), DeadCount(b"reverse", 2, weight)])

    def test_evicting_dead_jobs(self) -> None:
        everything = 1 << 62
        weights = [dead.weight for dead in self.buried(*(job(number) for number in range(1, 21)))]
        for evicted, max_jobs, max_bytes, ended_before, limit in (
            (0, 20, everything, 0.0, 100),
            (0, 20, sum(weights), death(job(1)).ended, 100),
            (1, 19, everything, 0.0, 100),
            (2, 0, everything, 0.0, 2),
            (3, 100, everything, death(job(7)).ended, 100),
            (4, 100, sum(weights[:10]), 0.0, 100),
            (1, 100, sum(weights[:10]) - 1, 0.0, 100),
            (3, 6, sum(weights[:8]), death(job(13)).ended, 100),
        ):
            there = len(dead_jobs(self.store))
            self.assertEqual(self.store.dead_jobs.evict(max_jobs, max_bytes, ended_before, limit), evicted)
            left = [dead.number for dead in dead_jobs(self.store)]
            self.assertEqual(left, list(range(20, 20 - there + evicted, -1)))
        self.assertEqual(self.store.dead_jobs.evict(0, 0, 0.0, 100), 6)
        self.assertEqual(self.store.dead_jobs.evict(0, 0, 0.0, 100), 0)

    # -- results ------------------------------------------------------------------------------------

    def test_a_result_is_kept_as_it_was(self) -> None:
        jobs = [job(1, b"u", ALL_BYTES), job(2, function=ALL_BYTES, handle=ALL_BYTES[:63], run_at=5.0)]
        jobs += [job(LARGEST_NUMBER), job(3)]
        save(self.store, *jobs)
        results = [
            result(jobs[0], 1.5e9 + 0.25, ALL_BYTES),
            result(jobs[1], data=b""),
            result(jobs[2], data=None),
        ]
        self.assertEqual(keep(self.store, *results), Written({}, []))
        for _ in range(2):
            self.assertEqual(self.numbers(), [3])
            for kept in results:
                self.assertEqual(self.store.results.find(kept.number, 1.5e9), kept)
                self.assertIsNone(self.store.find(kept.number))
            for unknown in (3, 99, -1, 2**63, 10**60):
                self.assertIsNone(self.store.results.find(unknown, 0.0), unknown)
            self.assertEqual(
                self.store.results.counts(), ResultCounts(3, sum(kept.weight for kept in results))
            )
            self.restart()

    def test_a_large_result(self) -> None:
        data = random.Random(2).randbytes(MAX_RESULT_BYTES)
        save(self.store, job(1))
        keep(self.store, result(job(1), data=data))
        found = self.store.results.find(1, 0.0)
        assert found is not None
        self.assertTrue(found.data == data)

    def test_a_result_expires(self) -> None:
        save(self.store, job(1))
        kept = result(job(1))
        keep(self.store, kept)
        self.assertIsNone(self.store.results.find(1, kept.expires_at))
        self.assertEqual(self.store.results.find(1, kept.expires_at - 0.25), kept)

    def test_only_of_what_is_removed_the_result_is_kept(self) -> None:
        save(self.store, job(1))
        keep(self.store, result(job(1)), result(job(2)))
        # Once more, as by a server that does not know whether the first attempt was committed.
        keep(self.store, result(job(1), data=b"another"), result(job(2)))
        self.assertEqual(self.store.results.find(1, 0.0), result(job(1)))
        self.assertIsNone(self.store.results.find(2, 0.0))

    def test_results_with_all_other_changes(self) -> None:
        save(self.store, *(job(number) for number in range(1, 6)), job(6, b"u"))
        deaths = {2: death(job(2))._replace(data=None)}
        changes = {"removals": [1], "losses": {5: 3}, "deaths": deaths, "saves": [job(7, b"u")]}
        changes["retries"] = {4: Retry(1, 1.5e9, 0, b"")}
        keep(self.store, result(job(3)), result(job(6, b"u")), **changes)
        self.assertEqual([(job.number, job.losses) for job in stored(self.store)], [(4, 0), (5, 3), (7, 0)])
        self.assertEqual(dead_jobs(self.store), [death(job(2))])
        for number in (3, 6):
            self.assertIsNotNone(self.store.results.find(number, 0.0))

    def test_many_results_at_once(self) -> None:
        jobs = [job(number) for number in range(1, 1101)]
        save(self.store, *jobs)
        keep(self.store, *(result(each, data=b"%d" % each.number) for each in jobs))
        self.assertEqual(stored(self.store), [])
        for number in (1, 256, 257, 1100):
            found = self.store.results.find(number, 0.0)
            assert found is not None
            self.assertEqual(found.data, b"%d" % number)

    def test_evicting_results(self) -> None:
        """Those that have expired, then the oldest; at each limit and one past it."""
        everything = 1 << 62
        jobs = [job(number) for number in range(1, 21)]
        save(self.store, *jobs)
        results = [result(each) for each in jobs]
        # The oldest but one is kept for longest.
        results[1] = results[1]._replace(expires_at=results[1].expires_at + 7 * 86400)
        keep(self.store, *results)
        weight = results[0].weight
        end = results[2].expires_at
        left = 20
        for expired, evicted, max_bytes, now, limit in (
            (0, 0, everything, 0.0, 100),
            (0, 0, 20 * weight, 0.0, 100),
            (1, 0, everything, end, 1),
            (1, 0, everything, end, 100),
            (0, 1, 18 * weight - 1, end, 100),
            (0, 2, 0, end, 2),
            (1, 4, 10 * weight, results[5].expires_at, 100),
        ):
            counts = Evicted(expired, evicted)
            self.assertEqual(self.store.results.evict(max_bytes, now, limit), counts)
            left -= expired + evicted
            self.assertEqual(self.store.results.counts(), ResultCounts(left, left * weight))
        found = [number for number in range(1, 21) if self.store.results.find(number, 0.0)]
        self.assertEqual(found, list(range(11, 21)))
        self.assertEqual(self.store.results.evict(0, 0.0, 100), Evicted(0, 10))
        self.assertEqual(self.store.results.counts(), ResultCounts(0, 0))

    # -- ends of jobs that were never saved ------------------------------------------------------------

    def end_unsaved(self, *ends: DeadJob | KeptResult, **others: Any) -> Written:
        """Let jobs end that were not saved, in one transaction with other changes."""
        return self.store.write(Changes(unsaved_ends={end.number: end for end in ends}, **others))

    def test_what_ends_unsaved_is_kept_as_it_was(self) -> None:
        jobs = [
            job(1, b"a unique", ALL_BYTES, priority=0, reducer=b"a reducer", losses=2, run_at=5.0),
            job(LARGEST_NUMBER, function=ALL_BYTES, handle=ALL_BYTES[:63], attributes=b"expires=5"),
            job(3, b"-", b""),
        ]
        deaths = [death(jobs[0], 1.5e9 + 0.25, error=ALL_BYTES), death(jobs[1], 1.4e9, worker=b"", outcome=8)]
        results = [result(jobs[2]), result(job(4), data=None), result(job(5, b"u"), data=ALL_BYTES)]
        # Twice, as by a server that does not know whether the first attempt was committed.
        for _ in range(2):
            self.assertEqual(self.end_unsaved(*deaths, *results), Written({}, []))
            self.assertEqual((stored(self.store), dead_jobs(self.store)), ([], deaths))
            self.assertEqual([self.store.results.find(each.number, 0.0) for each in results], results)
            weight = sum(kept.weight for kept in results)
            self.assertEqual(self.store.results.counts(), ResultCounts(3, weight))
            self.restart()
        weights = sorted(count.weight for count in self.store.dead_jobs.counts())
        self.assertEqual(weights, sorted(dead.weight for dead in deaths))

    def test_a_job_that_ended_unsaved_and_is_dead_can_be_retried(self) -> None:
        self.end_unsaved(death(job(1, b"u", attributes=b"expires=5")))
        save(self.store, job(2, b"u"))
        with self.assertRaises(UniqueInUse):
            self.store.dead_jobs.retry(1, 60, RETRIED_AT)
        self.store.write(Changes(removals=[2]))
        retried = job(1, b"u", position=60, submitted=RETRIED_AT, attributes=b"expires=5")
        self.assertEqual(self.store.dead_jobs.retry(1, 60, RETRIED_AT), retried)
        # The unique is that of the job again.
        self.assertEqual(save(self.store, job(3, b"u")), {3: job(1).handle})

    def test_nothing_is_kept_of_what_is_stored_unless_it_is_removed(self) -> None:
        save(self.store, job(1), job(2), job(3), job(4))
        self.end_unsaved(death(job(1)), result(job(2)), death(job(3)), result(job(4)), removals=[3, 4])
        self.assertEqual((self.numbers(), dead_jobs(self.store)), ([1, 2], [death(job(3))]))
        self.assertIsNone(self.store.results.find(2, 0.0))
        self.assertEqual(self.store.results.find(4, 0.0), result(job(4)))

    def test_what_ends_unsaved_takes_no_unique(self) -> None:
        written = self.end_unsaved(
            death(job(1, b"u")), result(job(2, b"v")), saves=[job(3, b"u"), job(4, b"v")]
        )
        self.assertEqual((written, self.numbers()), (Written({}, []), [3, 4]))
        self.assertEqual(dead_jobs(self.store), [death(job(1, b"u"))])

    def test_of_a_tick_that_is_done_with_nothing_is_kept(self) -> None:
        tick = Tick(b"s", 1.8e9)
        self.assertEqual(self.end_unsaved(death(job(1)), ticks={1: tick}).ticks_done, frozenset())
        done = self.end_unsaved(death(job(2)), result(job(3)), result(job(4)), ticks={2: tick, 3: tick})
        self.assertEqual(done.ticks_done, {2, 3})
        self.assertEqual(dead_jobs(self.store), [death(job(1))])
        found = [self.store.results.find(number, 0.0) for number in (3, 4)]
        self.assertEqual(found, [None, result(job(4))])

    def test_many_that_end_unsaved(self) -> None:
        jobs = [job(number) for number in range(1, 1101)]
        self.end_unsaved(*map(death, jobs[:550]), *map(result, jobs[550:]))
        self.assertEqual(len(dead_jobs(self.store)), 550)
        self.assertEqual(self.store.results.counts().results, 550)

    # -- reading ------------------------------------------------------------------------------------

    def test_backlogs(self) -> None:
        save(
            self.store,
            *(job(number, priority=number % 3) for number in range(1, 10)),
            job(10, function=b"other"),
            job(11, run_at=5.0),
            job(12, function=b"scheduled alone", run_at=5.0),
        )
        self.assertEqual(
            sorted(self.store.queue_lengths()),
            [
                QueueLength(b"other", 1, 1),
                QueueLength(b"reverse", 0, 3),
                QueueLength(b"reverse", 1, 3),
                QueueLength(b"reverse", 2, 3),
            ],
        )

    def test_fetching_goes_by_position(self) -> None:
        positions = [5, 3, 9, 1, 7]
        save(self.store, *(job(number, position=position) for number, position in enumerate(positions, 1)))
        save(
            self.store,
            job(6, position=4, priority=0),
            job(7, position=4, function=b"x"),
            job(8, position=4, run_at=1.0),
        )
        fetched = self.store.fetch(b"reverse", 1, 0, 3)
        self.assertEqual([job.position for job in fetched], [1, 3, 5])
        fetched = self.store.fetch(b"reverse", 1, 5, 3)
        self.assertEqual([job.position for job in fetched], [7, 9])
        self.assertEqual(self.store.fetch(b"reverse", 1, 9, 3), [])
        self.assertEqual(self.store.fetch(b"unknown", 1, 0, 3), [])

    def test_scheduled_goes_by_position(self) -> None:
        save(
            self.store,
            job(1, position=5, run_at=1.0),
            job(2, position=3, run_at=9.5, function=b"x"),
            job(3, position=4),
        )
        save(self.store, job(4, position=9, run_at=2.0, priority=0))
        self.assertEqual([job.number for job in self.store.scheduled(0, 2)], [2, 1])
        self.assertEqual([job.number for job in self.store.scheduled(5, 2)], [4])

    def test_finding(self) -> None:
        first, second = (
            job(1, b"u", b"x" * 5000, submitted=2.0),
            job(2, b"u", function=b"other", submitted=1.0),
        )
        save(self.store, first, second, job(3), job(4, b"-", b"data"), job(5, b"late", run_at=5.0))
        found = self.store.find(1)
        assert found is not None
        self.assertEqual(found._replace(data=b""), first._replace(data=b""))
        for unknown in (99, -1, 2**63, 10**60):
            self.assertIsNone(self.store.find(unknown), unknown)
        newest = self.store.find_unique(b"u")
        assert newest is not None
        self.assertEqual(newest.number, 1)
        late = self.store.find_unique(b"late")
        assert late is not None
        self.assertEqual(late.run_at, 5.0)
        for unknown in (b"", b"-", b"data", b"unknown"):
            self.assertIsNone(self.store.find_unique(unknown), unknown)

    def test_finding_duplicates(self) -> None:
        first, second = job(1, b"u", b"x" * 5000), job(2, b"-", b"\0" * 5000)
        save(self.store, first, second, job(3), job(4, b"-", b""))
        self.assertEqual(self.store.find_duplicate(b"reverse", b"u", b""), first)
        self.assertEqual(self.store.find_duplicate(b"reverse", b"-", b"\0" * 5000), second)
        for unique, data in ((b"", b"data"), (b"-", b""), (b"-", b"other"), (b"unknown", b"")):
            self.assertIsNone(self.store.find_duplicate(b"reverse", unique, data), unique)
        self.assertIsNone(self.store.find_duplicate(b"other", b"u", b""))

    # -- settings -----------------------------------------------------------------------------------

    def settings(self) -> dict[tuple[bytes, str], str]:
        """What the store says of settings, by function and kind."""
        settings = self.store.settings.read().settings
        found = {(function, kind): value for function, kind, value in settings}
        self.assertEqual(len(found), len(settings))
        return found

    def change(self, *dropped: bytes, values: dict[tuple[bytes, str], str | None] | None = None) -> None:
        self.store.settings.change(SettingChanges(set(dropped), values or {}))

    def test_settings(self) -> None:
        self.assertEqual(self.store.settings.read(), (0, []))
        long = random.Random(1).randbytes(512)
        values: dict[tuple[bytes, str], str | None] = {
            (ALL_BYTES, "paused"): "true",
            (long, "k" * 32): '{"é": [1, null]} %s \'?:x',
            (b"", "paused"): "",
            (b"f", "a"): "1",
            (b"f", "b"): "2",
        }
        self.change(values=values)
        self.assertEqual(self.settings(), values)
        self.assertIn(Setting(b"f", "a", "1"), self.store.settings.read().settings)
        self.restart()
        self.assertEqual(self.settings(), values)
        self.change(values={(b"f", "a"): "3", (b"f", "b"): None, (b"f", "unknown"): None})
        values[b"f", "a"] = "3"
        del values[b"f", "b"]
        self.assertEqual(self.settings(), values)
        # Once more, as by a server that was not told of the commit.
        self.change(values={(b"f", "a"): "3", (b"f", "b"): None})
        self.assertEqual(self.settings(), values)

    def test_a_function_that_is_dropped_has_no_settings(self) -> None:
        self.change(values={(b"f", "a"): "1", (b"f", "b"): "2", (b"g", "a"): "3"})
        self.change(b"f", b"unknown", values={(b"f", "b"): "4", (b"f", "c"): "5", (b"g", "b"): "6"})
        expected = {(b"f", "b"): "4", (b"f", "c"): "5", (b"g", "a"): "3", (b"g", "b"): "6"}
        self.assertEqual(self.settings(), expected)
        self.change(b"f", b"g")
        self.assertEqual(self.settings(), {})

    def test_settings_have_a_version(self) -> None:
        versions = [self.store.settings.read().version]
        for values in ({(b"f", "a"): "1"}, {(b"f", "a"): "2"}, {(b"f", "a"): None}):
            self.change(values=values)
            versions.append(self.store.settings.read().version)
        self.change(b"f")
        self.restart()
        versions.append(self.store.settings.read().version)
        self.assertEqual(versions, sorted(set(versions)))

    def test_many_settings(self) -> None:
        values: dict[tuple[bytes, str], str | None] = {(b"%d" % n, "a"): str(n) for n in range(2100)}
        self.change(values=values)
        self.assertEqual(self.settings(), values)
        self.change(*(name for name, _ in values))
        self.assertEqual(self.settings(), {})

    # -- starting again -----------------------------------------------------------------------------

    def test_every_start_has_a_greater_number(self) -> None:
        self.assertEqual(self.start, 1)
        starts = [self.start]
        for _ in range(3):
            self.restart()
            starts.append(self.start)
        self.assertEqual(starts, sorted(set(starts)))

    def test_jobs_outlive_a_restart(self) -> None:
        jobs = [job(1, b"u"), job(2, b"-", ALL_BYTES), job(3, run_at=5.0), job(4)]
        save(self.store, *jobs)
        self.store.write(Changes(removals=[4], losses={1: 2}))
        self.restart()
        jobs[0] = jobs[0]._replace(losses=2)
        # On a store that is shared they get new positions.
        self.assertEqual(sorted(job._replace(position=job.number) for job in stored(self.store)), jobs[:3])
        self.assertEqual(
            save(self.store, job(5, b"u"), job(6, b"-", ALL_BYTES)), {5: b"H:test:1", 6: b"H:test:2"}
        )
        self.store.write(Changes(removals=[1, 3], losses={2: 1}))
        self.assertEqual([(job.number, job.losses) for job in stored(self.store)], [(2, 1)])

    def test_one_server_alone_needs_no_slots(self) -> None:
        if not self.store.shared:
            self.assertEqual(self.store.exchange_slots(SlotChanges(wanted={(b"f", b""): 1})), [])

    def test_it_knows_itself(self) -> None:
        self.assertEqual(self.store.servers(), ["here"])

    def test_nothing_to_take_over(self) -> None:
        save(self.store, job(1))
        self.assertIs(self.store.renew().has_orphans, False)
        self.assertEqual(self.store.take_over(10, 1), [])

    def test_closing_twice(self) -> None:
        self.store.close()
        self.store.close()

    # -- all together -------------------------------------------------------------------------------

    def test_it_does_what_a_model_does(self) -> None:
        chance = random.Random(7)
        model = ModelStore(ModelDatabase())
        next_number = 1
        for _ in range(60):
            saves = []
            for _ in range(chance.choice([0, 1, 1, 2, 30])):
                saves.append(_random_job(chance, next_number))
                next_number += 1
            removals = [chance.randrange(1, next_number + 3) for _ in range(chance.choice([0, 0, 1, 20]))]
            losses = {
                chance.randrange(1, next_number + 3): chance.randrange(5)
                for _ in range(chance.choice([0, 2]))
            }
            there = [job for job in stored(model) if job.number not in removals]
            retries = {
                job.number: Retry(job.attempts + 1, 1e9, chance.randrange(9), b"why")
                for job in chance.sample(there, min(len(there), chance.choice([0, 0, 5])))
            }
            deaths = {
                job.number: death(job, chance.randrange(20))._replace(data=None)
                for job in chance.sample(there, min(len(there), chance.choice([0, 0, 5])))
            }
            alive = [job for job in there if job.number not in deaths]
            results = {
                job.number: result(job, float(chance.randrange(20)), bytes(chance.randrange(200)))
                for job in chance.sample(alive, min(len(alive), chance.choice([0, 0, 5])))
            }
            unsaved: dict[int, DeadJob | KeptResult] = {}
            for _ in range(chance.choice([0, 0, 3])):
                ended = _random_job(
                    chance, chance.choice([next_number, chance.randrange(1, next_number + 1)])
                )
                next_number += 1
                ends = death(ended, chance.randrange(20)), result(ended, float(chance.randrange(20)))
                unsaved[ended.number] = chance.choice(ends)
            changes = Changes(
                saves, removals, losses, {}, retries, deaths, results=results, unsaved_ends=unsaved
            )
            self.assertEqual(self.store.write(changes), model.write(changes))
            self.assertEqual(stored(self.store), stored(model))
            self.assertEqual(dead_jobs(self.store), dead_jobs(model))
            for dead in chance.sample(dead_jobs(model), min(len(dead_jobs(model)), chance.choice([0, 2]))):
                outcomes = [
                    _retried(store, dead.number, 10_000 + next_number) for store in (self.store, model)
                ]
                self.assertEqual(outcomes[0], outcomes[1])
                next_number += 1
            limits = chance.choice([0, 5, 100]), chance.choice([1000, 1 << 40]), chance.randrange(10), 3
            if chance.random() < 0.2:
                self.assertEqual(self.store.dead_jobs.evict(*limits), model.dead_jobs.evict(*limits))
                self.assertEqual(dead_jobs(self.store), dead_jobs(model))
            kept = chance.choice([2000, 1 << 40]), 3600.0 + chance.choice([0, 5]), 3
            if chance.random() < 0.2:
                self.assertEqual(self.store.results.evict(*kept), model.results.evict(*kept))
            self.assertEqual(self.store.results.counts(), model.results.counts())
            some = chance.randrange(next_number)
            self.assertEqual(self.store.results.find(some, 3605.0), model.results.find(some, 3605.0))
            self.assertEqual(sorted(self.store.dead_jobs.counts()), sorted(model.dead_jobs.counts()))
            self.assertEqual(sorted(self.store.queue_lengths()), sorted(model.queue_lengths()))
            unique = chance.choice(_UNIQUES)
            mine, its = self.store.find_unique(unique), model.find_unique(unique)
            self.assertEqual(mine and mine.number, its and its.number)


class CrashContract(_TestCase):
    """For a store that is kept outside of the process: what was committed survives its end."""

    url: str

    def test_what_was_committed_survives_a_kill(self) -> None:
        jobs = 50
        command = [sys.executable, "-m", "tests.store.crowd", self.url, str(jobs)]
        for crash in range(1, 4):
            with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as crowd:
                assert crowd.stdout is not None
                self.assertEqual(int(crowd.stdout.readline()), 2 * crash - 1)
                said = [crowd.stdout.readline() for _ in range(5 * crash)]
                crowd.kill()
                said += crowd.stdout.readlines()
            # The last line may have been cut off in the middle.
            last = max(int(line) for line in said if line.endswith("\n"))
            store = open_store(self.url)
            store.open("after the crash", LEASE)
            while store.take_over(1000, 1):
                pass
            found = sorted(stored(store))
            self.assertIn(len(found), (last, last + jobs))
            expected = [a_job(number) for number in range(1, len(found) + 1)]
            self.assertEqual([job._replace(position=job.number) for job in found], expected)
            store.write(Changes(removals=[job.number for job in found]))
            store.close()

    def test_of_a_job_that_is_done_the_result_survives_a_kill(self) -> None:
        """Each job is there, or its result is, and not both."""
        for crash in range(1, 4):
            self.finish_until_killed(5 * crash)
            self.assert_jobs_or_results()

    def finish_until_killed(self, transactions: int | None, **environment: str) -> None:
        """Let a process finish jobs, see `tests.store.finishing`, and kill it after so many transactions;
        with None it kills itself."""
        command = [sys.executable, "-m", "tests.store.finishing", self.url, str(self.finished + 1)]
        with subprocess.Popen(
            command, cwd=HERE, env=os.environ | environment, stdout=subprocess.PIPE, text=True
        ) as finishing:
            assert finishing.stdout is not None
            said = []
            if transactions is not None:
                said += [finishing.stdout.readline() for _ in range(transactions)]
                finishing.kill()
            said += finishing.stdout.readlines()
        # The last line may have been cut off in the middle.
        self.finished = max(int(line) for line in said if line.endswith("\n"))

    finished = 0
    """The number of the last job that is known to be done."""

    def assert_jobs_or_results(self) -> None:
        store = open_store(self.url)
        store.open("after the crash", LEASE)
        while store.take_over(1000, 1):
            pass
        left = {job.number for job in stored(store)}
        kept = {
            number
            for number in range(1, self.finished + 2 * FINISHED_AT_ONCE + 1)
            if store.results.find(number, 0.0) is not None
        }
        self.assertEqual(left & kept, set())
        self.assertEqual(sorted(set(range(1, self.finished + 1)) - kept), [])
        self.assertIn(len(left), (0, FINISHED_AT_ONCE))
        for number in (min(kept), max(kept)):
            self.assertEqual(store.results.find(number, 0.0), result(a_job(number)))
        keep(store, *(result(a_job(number)) for number in left))
        self.finished = max(kept | left)
        store.close()


_UNIQUES: Final = [b"", b"-", b"a", b"b", b"c", b"d", b"\xff"]


def _retried(store: Store, number: int, position: int) -> StoredJob | str | None:
    """What comes of running a dead job again."""
    try:
        return store.dead_jobs.retry(number, position, RETRIED_AT + position)
    except UniqueInUse:
        return "its unique is in use"


def _random_job(chance: random.Random, number: int) -> StoredJob:
    return job(
        number,
        chance.choice(_UNIQUES),
        chance.choice([b"", b"x", b"y", b"\0"]),
        function=chance.choice([b"f", b"g"]),
        priority=chance.randrange(3),
        run_at=chance.choice([None, None, 1e9]),
        reducer=chance.choice([None, b"r"]),
        attributes=chance.choice([None, b"{}"]),
    )
