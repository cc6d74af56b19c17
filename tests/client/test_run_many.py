"""Very many online jobs: their outcomes in order or as they come, and no more of them than the window has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txgearman.client import JobOutcome, Priority
from txgearman.errors import JobFailed, JobRaised, TimedOut
from txgearman.testing import MemoryGearman
from txgearman.worker import Job


class RunManyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.client = self.gearman.client()
        self.ends: dict[bytes, Deferred[bytes]] = {}

    def work(self, callback: Any, concurrency: int = 1000) -> None:
        worker = self.gearman.worker(concurrency=concurrency)
        worker.register("f", callback)
        self.gearman.wait(worker.start())

    def hold(self, job: Job) -> Deferred[bytes]:
        """A function whose jobs end when the test says so."""
        self.ends[job.data] = Deferred()
        return self.ends[job.data]

    def outcomes(self, payloads: Any, **options: Any) -> list[JobOutcome]:
        async def collect() -> list[JobOutcome]:
            return [outcome async for outcome in self.client.run_many("f", payloads, **options)]

        return self.gearman.wait(collect())

    def test_results_in_order(self) -> None:
        self.work(lambda job: job.data[::-1])
        payloads = [b"%d" % number for number in range(1234)]
        outcomes = self.outcomes(iter(payloads), window=100)
        self.assertEqual([outcome.index for outcome in outcomes], list(range(1234)))
        self.assertEqual([outcome.result() for outcome in outcomes], [one[::-1] for one in payloads])

    def test_none(self) -> None:
        self.assertEqual(self.outcomes([]), [])

    def test_order_of_payloads_and_of_ends(self) -> None:
        for ordered, expected in ((True, [0, 1, 2]), (False, [2, 0, 1])):
            self.ends.clear()
            gearman = self.gearman = MemoryGearman()
            self.client = gearman.client()
            self.work(self.hold)
            found: list[int] = []

            async def collect(ordered: bool = ordered, found: list[int] = found) -> None:
                outcomes = self.client.run_many("f", [b"0", b"1", b"2"], ordered=ordered)
                found.extend([outcome.index async for outcome in outcomes])

            collecting = Deferred.fromCoroutine(collect())
            gearman.turn()
            for data in (b"2", b"0", b"1"):
                self.ends[data].callback(b"")
                gearman.turn()
            self.successResultOf(collecting)
            self.assertEqual(found, expected)

    def test_the_window_bounds_what_is_read(self) -> None:
        """Payloads are read, and jobs are in the server, no further ahead than it is large."""
        self.work(self.hold)
        read: list[int] = []

        def payloads() -> Iterator[bytes]:
            for number in range(1000):
                read.append(number)
                yield b"%d" % number

        for ordered in (True, False):
            read.clear()
            self.ends.clear()
            iterator = self.client.run_many("f", payloads(), window=150, ordered=ordered)
            first = Deferred.fromCoroutine(iterator.__anext__())
            self.gearman.turn()
            self.assertEqual((len(read), len(self.ends)), (150, 150))
            # All but the first have ended, and wait to be taken.
            for data in list(self.ends)[1:]:
                self.ends[data].callback(b"")
            self.gearman.turn()
            if ordered:
                self.assertEqual(len(read), 150)
                self.ends[b"0"].callback(b"")
                self.gearman.turn()
            self.assertEqual(self.successResultOf(first).index, 0 if ordered else 1)
            self.assertEqual(len(read), 150)
            iterator.close()

    def test_a_job_that_fails_ends_only_its_own_outcome(self) -> None:
        def fail_one(job: Job) -> bytes:
            if job.data == b"1":
                raise ValueError("no")
            return job.data

        self.work(fail_one)
        outcomes = self.outcomes([b"0", b"1", b"2"])
        self.flushLoggedErrors(ValueError)
        self.assertEqual([outcome.value for outcome in outcomes], [b"0", None, b"2"])
        self.assertIsInstance(outcomes[1].error, JobRaised)
        with self.assertRaises(JobFailed):
            outcomes[1].result()

    def test_time_limit_of_each(self) -> None:
        self.work(self.hold)
        outcomes = self.outcomes([b"0", b"1"], timeout=5)
        self.assertEqual([type(outcome.error) for outcome in outcomes], [TimedOut, TimedOut])

    def test_wrong_payloads_and_iterators_that_raise(self) -> None:
        self.work(lambda job: job.data)

        def raising() -> Iterator[bytes]:
            yield b"0"
            raise LookupError("no more")

        wrong: list[tuple[Any, type[Exception]]] = [([b"0", "text"], TypeError), (raising(), LookupError)]
        for payloads, error in wrong:
            with self.assertRaises(error):
                self.outcomes(payloads)
        with self.assertRaises(ValueError):
            self.outcomes([b"0"], uniques=[])
        with self.assertRaises(TypeError):
            self.client.run_many("f", b"bytes")
        for window in (0, -1, True):
            with self.assertRaises(ValueError):
                self.client.run_many("f", [], window=window)

    def test_close_gives_up_what_runs(self) -> None:
        self.work(self.hold)
        iterator = self.client.run_many("f", [b"0", b"1"])
        first = Deferred.fromCoroutine(iterator.__anext__())
        self.gearman.turn()
        self.ends[b"0"].callback(b"")
        self.gearman.turn()
        self.assertEqual(self.successResultOf(first), JobOutcome(0, b""))
        self.gearman.wait(iterator.aclose())
        with self.assertRaises(StopAsyncIteration):
            self.gearman.wait(iterator.__anext__())

    def test_uniques_and_priorities(self) -> None:
        seen: list[bytes] = []
        self.work(lambda job: seen.append(job.unique) or b"")
        self.outcomes([b"", b""], uniques=["a", b"b"], priority="high")
        self.assertEqual(seen, [b"a", b"b"])


class PriorityTests(SynchronousTestCase):
    def test_the_enumeration_or_its_text(self) -> None:
        gearman = MemoryGearman()
        client = gearman.client()
        given: list[Priority | str] = [Priority.LOW, "low", "normal", "HIGH", Priority.HIGH]
        for priority in given:
            gearman.wait(client.submit("f", repr(priority).encode(), background=True, priority=priority))
        order: list[bytes] = []
        worker = gearman.worker()
        worker.register("f", lambda job: order.append(job.data) or b"")
        gearman.wait(worker.start())
        gearman.turn(1)
        high, low = repr(Priority.HIGH).encode(), repr(Priority.LOW).encode()
        self.assertEqual(order, [b"'HIGH'", high, b"'normal'", low, b"'low'"])

    def test_others(self) -> None:
        client = MemoryGearman().client()
        with self.assertRaisesRegex(ValueError, "one of 'high', 'normal', 'low'"):
            client.submit("f", b"", priority="urgent")
        wrong: Any = 1
        with self.assertRaises(TypeError):
            client.submit("f", b"", priority=wrong)
