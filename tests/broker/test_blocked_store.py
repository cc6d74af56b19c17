"""Jobs of full keys that are in the store alone: they hide no other key's, and come when it is their turn.

The ways in which such a job leaves the store are that it is fetched, found as a duplicate, cancelled, lost
with the lease, and removed by somebody else; and the limit by key may end, or have another separator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import POLICY, Bench, KeeperNotes, leftovers
from txgearman.broker.handles import number_of
from txgearman.broker.interfaces import StoredPage
from txgearman.broker.policy import FunctionRules, RunRules
from txgearman.broker.slices import SLICE
from txgearman.broker.stored_job import StoredJob
from txgearman.broker.stubs import Stubs
from txgearman.errors import NotSaved, Refused

if TYPE_CHECKING:
    from txgearman.broker.entities import Job, Worker

BATCH = 500
"""Jobs that the store brings in one go."""


class StoreFake(KeeperNotes):
    """A store that has its jobs in a list, and answers when `settle` is called.

    `outage` is what it answers while it cannot. `fetched` counts the jobs that it has brought.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench: Bench
        self.jobs: dict[int, StoredJob] = {}
        self.outage: Refused | None = None
        self.fetched = 0

    def has(self, function: bytes, unique: bytes, priority: int = 1) -> StoredJob:
        """Let the store have one more job."""
        number = len(self.jobs) + 1
        handle = b"H:t:%d" % number
        job = StoredJob(number, number, handle, function, unique, b"", priority, None, 0, 0.0, None)
        self.jobs[number] = job
        return job

    def remove(self, number: int, just_now: bool = True) -> None:
        super().remove(number, just_now)
        del self.jobs[number]

    def _page(self, function: bytes, priority: int, cursor: int, limit: int) -> list[StoredJob]:
        found = []
        # In the order of their positions, as they are in the dictionary.
        for job in self.jobs.values():
            if job.position > cursor and (job.function, job.priority) == (function, priority):
                found.append(job)
                if len(found) == limit:
                    break
        self.fetched += len(found)
        return found

    def settle(self) -> None:
        """Answer all that was asked, and what is asked because of that, and save what is to be saved."""
        while self.fetches or self.searches or self.saves:
            saves, self.saves = self.saves, []
            for saved in saves:
                self.jobs[number_of(saved.handle)] = self._stored(saved)
                self.bench.answers.saved(saved)
            fetches, self.fetches = self.fetches, []
            for function, priority, cursor in fetches:
                jobs = self._page(function, priority, cursor, BATCH)
                self.bench.answers.fetched(function, priority, jobs, len(jobs) < BATCH)
            searches, self.searches = self.searches, []
            for what, *arguments, tell in searches:
                self._answer(what, arguments, tell)

    def _answer(self, what: str, arguments: list[Any], tell: Any) -> None:
        if self.outage is not None:
            tell(self.outage)
        elif what == "page":
            jobs = self._page(*arguments)
            more = len(jobs) == arguments[-1]
            tell(StoredPage(jobs, jobs[-1].position if more else None))
        elif what == "number":
            tell(self.jobs.get(arguments[0]))
        elif what == "duplicate":
            function, unique = arguments[:2]
            found = [job for job in self.jobs.values() if (job.function, job.unique) == (function, unique)]
            tell(found[0] if found else None)
        else:
            raise AssertionError(what)

    def _stored(self, job: Job) -> StoredJob:
        number = number_of(job.handle)
        return StoredJob(
            *(number, number, job.handle, job.function.name, job.unique, job.data, job.priority),
            *(None, 0, job.submitted, None),
        )


class BlockedStore(SynchronousTestCase):
    """A broker that has at most `in_memory` jobs ahead, and one job of a key at a time."""

    in_memory = 20

    def setUp(self) -> None:
        self.serve(max_running_per_key=1)

    def serve(self, **rules: Any) -> None:
        self.store = StoreFake()
        policy = replace(POLICY, functions=((b"f", FunctionRules(**rules)),), in_memory=self.in_memory)
        self.bench = self.store.bench = Bench(policy, job_store=self.store)
        self.broker = self.bench.broker
        self.worker = self.bench.worker("w", b"f")

    def load(self) -> None:
        """Start with what the store has."""
        lengths: dict[tuple[bytes, int], int] = {}
        for job in self.store.jobs.values():
            lengths[job.function, job.priority] = lengths.get((job.function, job.priority), 0) + 1
        self.broker.life.handles.skip_to(max(self.store.jobs, default=0))
        for (function, priority), jobs in lengths.items():
            self.bench.answers.restore_stored_queue(function, priority, jobs)
        self.store.settle()

    def grab(self, worker: Worker | None = None) -> bytes | None:
        """Grab, and let the store bring what it is asked for; returns the job's unique."""
        job = self.broker.grab(worker or self.worker)
        self.store.settle()
        return None if job is None else job.unique

    def complete(self, unique: bytes) -> None:
        (handle,) = [handle for handle, job in self.worker.jobs.items() if job.unique == unique]
        self.broker.complete(self.worker, handle, b"")
        self.store.settle()

    def drain(self) -> list[bytes]:
        """Run all jobs, one after the other."""
        given = []
        while (unique := self.grab()) is not None:
            given.append(unique)
            self.complete(unique)
        return given

    def in_queue(self) -> int:
        return sum(self.broker.functions.by_name[b"f"].waiting)

    def view(self) -> tuple[int, int, int]:
        """All jobs, those that are queued, and those in the store alone."""
        detail = self.bench.inspection.function_detail(b"f")
        return detail.total, sum(detail.queued), detail.stored

    def assert_empty(self) -> None:
        self.assertEqual(self.store.jobs, {})
        self.bench.leave(self.bench.client(), self.worker)
        held = leftovers(self.broker)
        self.assertEqual(held, {})


class Hidden(BlockedStore):
    """The defaults."""

    in_memory = 20_000

    def test_one_key_with_50_000_jobs_hides_no_other(self) -> None:
        for number in range(50_000):
            self.store.has(b"f", b"big:%d" % number)
        self.store.has(b"f", b"small:1")
        self.load()
        self.assertEqual(self.grab(), b"big:0")
        self.assertEqual(self.grab(), b"small:1")
        self.assertIsNone(self.grab())
        self.assertLessEqual(self.in_queue(), self.in_memory)
        self.assertEqual(self.view(), (50_001, 49_999, 50_001 - 2 - self.in_queue()))
        self.assertLess(self.store.fetched, 51_000, "each was read once")


class Blocked(BlockedStore):
    def test_all_run_in_their_order(self) -> None:
        for number in range(300):
            self.store.has(b"f", b"a:%d" % number)
            if number % 10 == 0:
                self.store.has(b"f", b"b:%d" % number)
        self.load()
        self.assertLessEqual(self.in_queue(), self.in_memory + 2)
        self.assertEqual(self.view(), (330, 330, 330 - self.in_queue()))
        given = self.drain()
        self.assertEqual(len(given), 330)
        for key in (b"a", b"b"):
            numbers = [int(unique[2:]) for unique in given if unique[:1] == key]
            self.assertEqual(numbers, sorted(numbers), key)
        self.assert_empty()

    def test_submits(self) -> None:
        """Those that are submitted to a full key, with memory full, never come there before their turn."""
        client = self.bench.client()
        for number in range(100):
            self.broker.submit(client, b"f", b"a:%d" % number, b"", background=True)
            self.store.settle()
        self.assertEqual(self.grab(), b"a:0")
        read = self.store.fetched
        for number in range(100):
            self.broker.submit(client, b"f", b"a:x%d" % number, b"", background=True)
            self.broker.submit(client, b"f", b"c:%d" % number, b"", background=True)
            self.store.settle()
        self.assertLess(self.store.fetched, read + 10, "they are left where they are")
        self.assertLessEqual(self.in_queue(), self.in_memory + 5)
        self.assertEqual(self.grab(), b"c:0")
        self.complete(b"c:0")
        self.complete(b"a:0")
        given = self.drain()
        self.assertEqual(len(given), 298)
        self.assertEqual(given[0], b"a:1")
        others = [unique for unique in given if unique[:1] == b"c"]
        self.assertEqual(others, [b"c:%d" % number for number in range(1, 100)])
        self.assert_empty()

    def test_priorities_hold_within_a_key(self) -> None:
        for number in range(60):
            self.store.has(b"f", b"a:low%d" % number, 2)
        for number in range(60):
            self.store.has(b"f", b"a:high%d" % number, 0)
        self.load()
        given = self.drain()
        high = [b"a:high%d" % number for number in range(60)]
        self.assertEqual(given, high + [b"a:low%d" % number for number in range(60)])
        self.assert_empty()

    def test_many_keys_do_not_fill_memory(self) -> None:
        for number in range(1000):
            self.store.has(b"f", b"k%d:1" % number)
        for number in range(1000):
            self.store.has(b"f", b"-" if number % 2 else b"")
        self.load()
        self.assertLessEqual(self.in_queue(), self.in_memory + BATCH)
        for number in range(500):
            self.broker.submit(self.bench.client(), b"f", b"z%d" % number, b"", background=True)
            self.store.settle()
        self.assertLessEqual(self.in_queue(), self.in_memory + BATCH)
        self.assertEqual(len(self.drain()), 2500)
        self.assert_empty()

    def test_foreground_jobs_starve_none_in_the_store(self) -> None:
        for number in range(100):
            self.store.has(b"f", b"a:%d" % number)
        self.store.has(b"f", b"last")
        self.load()
        client = self.bench.client()
        for number in range(400):
            self.broker.submit(client, b"f", b"fg%d" % number, b"")
            self.store.settle()
        self.assertIn(b"last", [self.grab() for _ in range(400)])

    def test_cancelled(self) -> None:
        for number in range(100):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        self.grab()
        answers: list[Any] = []
        for number in (99, 50, 60, 100, 30, 2):
            self.bench.search.seek_and_cancel(b"H:t:%d" % number, answers.append)
            self.store.settle()
        self.assertEqual(answers, [None] * 6)
        self.assertEqual(self.view()[:2], (94, 93))
        self.complete(b"a:0")
        self.assertEqual(len(self.drain()), 93)
        self.assert_empty()

    def test_cancelled_while_it_comes(self) -> None:
        self.serve(max_running_per_key=1)
        for number in range(60):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        answers: list[Any] = []
        while self.view()[2]:
            job = self.broker.grab(self.worker)
            assert job is not None
            pages = [search for search in self.store.searches if search[0] == "page"]
            if pages and not answers:
                stub = pages[0][3] + 1
                self.store.searches.clear()
                self.bench.search.seek_and_cancel(b"H:t:%d" % stub, answers.append)
                self.store.settle()
                self.store.searches += pages
            self.store.settle()
            self.complete(job.unique)
        self.assertEqual(answers, [None])
        self.drain()
        self.assert_empty()

    def test_found_as_a_duplicate(self) -> None:
        for number in range(100):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        self.grab()
        client = self.bench.client()
        self.broker.submit(client, b"f", b"a:90", b"")
        self.store.settle()
        self.assertIn(b"H:t:91", client.jobs)
        self.assertEqual(self.view()[:2], (100, 99))
        self.complete(b"a:0")
        self.assertEqual(len(self.drain()), 99)
        self.assert_empty()

    def test_listed_and_found(self) -> None:
        for number in range(100):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        details: list[Any] = []
        self.bench.search.seek_job(b"H:t:80", details.append)
        self.store.settle()
        self.store.settle()
        self.assertEqual((details[0].handle, details[0].position), (b"H:t:80", 80))
        pages: list[Any] = []
        self.bench.search.seek_page(b"f", 1, 0, 1000, pages.append)
        self.store.settle()
        self.assertEqual(len(pages[0].jobs), 100)

    def test_an_outage(self) -> None:
        for number in range(60):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        self.store.outage = NotSaved()
        given = self.drain()
        self.assertLess(len(given), 60)
        self.assertIsNone(self.grab())
        self.store.outage = None
        self.bench.answers.fetch_again()
        self.store.settle()
        self.assertEqual(len(given) + len(self.drain()), 60)
        self.assert_empty()

    def test_removed_by_somebody_else(self) -> None:
        for number in range(60):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        for number in range(30, 45):
            del self.store.jobs[number]
        self.assertEqual(len(self.drain()), 45)
        self.assertEqual(self.view(), (0, 0, 0))

    def test_disowned(self) -> None:
        for number in range(60):
            self.store.has(b"f", b"a:%d" % number)
        self.load()
        self.grab()
        self.bench.answers.disown(1000)
        self.assertEqual(self.view(), (1, 0, 0))
        self.store.jobs.clear()
        self.broker.complete(self.worker, b"H:t:1", b"")
        self.assert_empty()

    def test_they_expire_when_they_come(self) -> None:
        self.serve(max_running_per_key=1, expires=10)
        for number in range(60):
            self.store.has(b"f", b"a:%d" % number)
        self.bench.wall_ahead = -self.bench.now
        self.load()
        self.grab()
        self.bench.advance(11)
        self.complete(b"a:0")
        self.store.settle()
        self.assertEqual(self.drain(), [])
        self.assert_empty()

    def test_the_limit_ends(self) -> None:
        for changes in ({}, {"max_running_per_key": 1, "key_separator": b"/"}, {"max_running_per_key": 3}):
            with self.subTest(changes):
                self.serve(max_running_per_key=1)
                for number in range(200):
                    self.store.has(b"f", b"a:%d" % number)
                self.load()
                self.grab()
                self.grab()
                # A batch that was asked for before is of no use.
                self.bench.administration.limit_runs(b"f", RunRules(**changes))
                self.store.settle()
                self.assertEqual(self.view()[:2], (200, 199))
                worker, given = self.bench.worker("v", b"f"), 0
                while self.grab(worker) is not None:
                    given += 1
                    self.broker.complete(worker, next(iter(worker.jobs)), b"")
                    self.store.settle()
                self.assertEqual(given, 199)

    def test_the_first_limit_is_set_while_jobs_come(self) -> None:
        """The queue is moved in slices, while the store brings jobs and has more of them."""
        self.serve()
        for number in range(300):
            self.store.has(b"f", b"%d:%d" % (number % 7, number))
        self.load()
        self.broker.slices.size = 1
        self.grab()
        self.bench.administration.limit_runs(b"f", RunRules(max_running_per_key=1))
        given = []
        client = self.bench.client()
        for number in range(300, 340):
            self.broker.submit(client, b"f", b"%d:%d" % (number % 7, number), b"", background=True)
            unique = self.grab()
            if unique is not None:
                given.append(unique)
                self.complete(unique)
            self.broker.tick()
        while self.broker.slices:
            self.broker.tick()
        given += self.drain()
        self.complete(b"0:0")
        given += self.drain()
        self.assertEqual(len(given), 339)
        for key in range(7):
            numbers = [int(unique[2:]) for unique in given if unique.startswith(b"%d:" % key)]
            self.assertEqual(numbers, sorted(numbers))
        self.broker.slices.size = SLICE
        self.assert_empty()

    def test_the_limit_ends_while_a_batch_comes(self) -> None:
        for number in range(1200):
            self.store.has(b"f", b"a:%d" % number)
        self.broker.life.handles.skip_to(1200)
        self.bench.answers.restore_stored_queue(b"f", 1, 1200)
        (fetch,) = self.store.fetches
        self.store.fetches.clear()
        jobs = self.store._page(*fetch, BATCH)
        self.bench.answers.fetched(b"f", 1, jobs, False)
        self.assertEqual(len(self.store.fetches), 1, "the next batch is under way")
        self.bench.administration.limit_runs(b"f", RunRules())
        self.store.settle()
        self.assertEqual(len(self.drain()), 1200)
        self.assert_empty()


class StubsTest(SynchronousTestCase):
    def test_they_are_like_a_sorted_list(self) -> None:
        stubs = Stubs()
        for position in range(0, 1000, 2):
            stubs.add(1, position)
        stubs.add(1, 5)
        stubs.add(0, 7)
        self.assertEqual((len(stubs), stubs.count(1), stubs.first()), (502, 501, (0, 7)))
        self.assertTrue(stubs.remove(0, 7))
        self.assertFalse(stubs.remove(0, 7))
        left = [*range(0, 6, 2), 5, *range(6, 1000, 2)]
        for position in (500, 998):
            self.assertTrue(stubs.remove(1, position))
            left.remove(position)
        found = []
        while len(stubs):
            priority, position = stubs.first()
            self.assertEqual(stubs.least(priority), position)
            self.assertTrue(stubs.contains(1, position))
            self.assertTrue(stubs.remove(priority, position))
            self.assertFalse(stubs.contains(1, position))
            found.append(position)
        self.assertEqual(found, left)
        self.assertLess(len(stubs._positions[1]), 200)
        self.assertIsNone(stubs.least(1))
        self.assertRaises(IndexError, stubs.first)
