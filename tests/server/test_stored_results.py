"""Results in a store: written with the ends of their jobs, asked for meanwhile, evicted, and of others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.server.peers import req, res
from tests.server.stores import UNAVAILABLE
from tests.server.test_late_duplicates import FIRST, LateDuplicateTestCase
from tests.server.test_writer import SavingTestCase, handle
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.broker.kept_result import RESULT_OVERHEAD, KeptResult, ResultCounts
from txgearman.errors import LookupFailed
from txgearman.server.config.options import FunctionSettings
from txgearman.server.extensions.result_waits import POLL_INTERVAL
from txgearman.server.persistence import pending_results
from txgearman.server.persistence import results as results_module
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.server.persistence.results import EVICTION_INTERVAL, MIN_BYTES
from txgearman.server.persistence.writer import REMOVAL_DELAY
from txgearman.wire.options import RESULTS, SUBMIT_EXTENDED

KEEPING = {"f": FunctionSettings(keep_results=3600.0)}


class StoredResultTestCase(SavingTestCase):
    def start(self, **settings: Any) -> None:
        super().start(functions=KEEPING, **settings)
        self.results = self.store_writer.results

    def complete(self, *results: bytes) -> None:
        """Submit jobs, and let them be done with these results."""
        client, worker = self.connect(), self.worker()
        client.receive(*[req(18, b"f", b"", b"data")] * len(results))
        self.commit()
        for result in results:
            worker.receive(req(9))
            (name,) = re.findall(rb"H:[^\0]+?:\d+", self.heard(worker))
            worker.receive(req(13, name, result))
        worker.lose()

    def write(self) -> None:
        self.turn(REMOVAL_DELAY)
        self.commit()

    def number(self, of: int = 1) -> int:
        return NUMBERS_PER_START + of

    def find(self, of: int = 1) -> Any:
        """What the store's results tell of a job."""
        told: list[Any] = []
        self.results.find(self.number(of), told.append)
        self.commit()
        (found,) = told
        return found

    def kept(self) -> list[int]:
        return [number - NUMBERS_PER_START for number in self.store.kept_results]


class WritingTests(StoredResultTestCase):
    def test_a_result_is_written_as_soon_as_an_end(self) -> None:
        self.complete(b"end")
        self.turn(REMOVAL_DELAY * 0.9)
        self.assertEqual(len(self.store.writes), 1)
        self.write()
        kept = KeptResult(self.number(), handle(1), b"f", 1e9, 1e9 + 3600, b"end", b"", 1, 1e9, 0, 0)
        self.assertEqual((self.store.kept_results, self.store.jobs), ({self.number(): kept}, {}))
        self.assertEqual(self.store.writes[-1].removals, [])
        for _ in range(2):
            self.assertEqual(self.find(), kept)
            self.assertEqual(self.results.counts(), ResultCounts(1, kept.weight))
            self.stop()
            self.start()
            self.assertEqual(self.loaded, 0)
        self.now += 3600.0
        self.assertIsNone(self.find())

    def test_what_one_job_says_outlives_the_server(self) -> None:
        """Its function keeps results for longer."""
        client = self.connect()
        client.receive(
            req(26, SUBMIT_EXTENDED), req(1007, b"f", b"", b"background=1\nkeep_result=7", b"data")
        )
        self.commit()
        self.stop()
        self.start()
        worker = self.worker()
        self.commit()
        worker.receive(req(9), req(28, handle(1), b"part "), req(13, handle(1), b"end"))
        self.write()
        kept = KeptResult(self.number(), handle(1), b"f", 1e9, 1e9 + 7, b"part end", b"", 1, 1e9, 0, 0)
        self.assertEqual((self.store.kept_results, self.store.jobs), ({self.number(): kept}, {}))

    def test_the_end_of_the_server_writes_it(self) -> None:
        self.complete(b"end")
        self.stop()
        self.assertEqual((len(self.store.kept_results), self.store.jobs), (1, {}))

    def test_a_server_that_dies_before_runs_the_job_again(self) -> None:
        self.complete(b"first")
        # It is gone, with its thread.
        self.start()
        self.assertEqual((self.loaded, self.store.kept_results), (1, {}))
        worker = self.worker()
        self.commit()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(11, handle(1), b"f", b"data"))
        worker.receive(req(13, handle(1), b"second"))
        self.write()
        self.assertEqual([kept.data for kept in self.store.kept_results.values()], [b"second"])

    def test_it_is_tried_again(self) -> None:
        """Also where the first attempt was committed and nobody was told."""
        self.complete(b"end")
        self.fail_to_write_twice()
        self.assertEqual((self.store_writer.pending.unremoved, self.kept()), (0, [1]))
        self.flushLoggedErrors()

    def test_the_job_is_not_found_alive_meanwhile(self) -> None:
        self.complete(b"end")
        client = self.connect()
        client.receive(req(15, handle(1)))
        self.commit()
        self.assertEqual(self.heard(client), res(20, handle(1), b"0", b"0", b"0", b"0"))

    def test_a_new_job_may_have_its_unique_at_once(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(req(18, b"f", b"u", b"data"))
        self.commit()
        worker.receive(req(9), req(13, handle(1), b"end"))
        client.receive(req(18, b"f", b"u", b"data"))
        self.commit()
        self.assertIn(handle(2), self.heard(client))
        self.write()
        self.assertEqual(self.kept(), [1])

    def test_so_many_are_written_at_once(self) -> None:
        for limit, value in (("MAX_RESULTS", 3), ("MAX_RESULT_BATCH_BYTES", 3 * (RESULT_OVERHEAD + 3))):
            with self.subTest(limit):
                self.setUp()
                self.patch(pending_results, limit, value)
                self.complete(*[b"end"] * 7)
                while self.store_writer.pending.unremoved:
                    self.write()
                counts = [len(changes.results) for changes in self.store.writes if changes.results]
                self.assertEqual(counts, [3, 3, 1])
                self.patch(pending_results, limit, 1 << 30)

    def test_a_flood_that_cannot_be_written_does_not_fill_memory(self) -> None:
        weight = RESULT_OVERHEAD + 3
        self.results.limit(2 * weight)
        self.commit()
        self.complete(*[b"end"] * 2)
        self.assertEqual(self.store_writer.pending.unremoved, 2)
        client, worker = self.connect(), self.worker()
        client.receive(*[req(18, b"f", b"", b"data")] * 3)
        self.commit()
        worker.receive(*[req(9)] * 3)
        self.store.failing = UNAVAILABLE
        worker.receive(*(req(13, handle(number), b"end") for number in (3, 4, 5)))
        self.turn(REMOVAL_DELAY)
        self.commit()
        self.assertEqual((self.results.evicted, self.store_writer.pending.unremoved), (1, 3))
        self.store.failing = None
        self.turn(10.0)
        self.commit()
        self.assertEqual((self.store.jobs, self.store_writer.pending.unremoved), ({}, 0))
        self.assertNotIn(3, self.kept())
        self.assertLessEqual({4, 5}, set(self.kept()))
        self.flushLoggedErrors()


class AskingTests(StoredResultTestCase):
    def test_who_asks_sees_what_is_under_way(self) -> None:
        for in_flight in (False, True):
            self.complete(b"end")
            if in_flight:
                self.turn(REMOVAL_DELAY)
            found = self.find(1 + in_flight)
            self.assertEqual(found.data, b"end")

    def test_one_is_under_way_for_a_connection(self) -> None:
        """Whatever it asks for in one read. Each result may be large, and the store has one thread."""
        self.complete(*[b"x" * 100] * 5)
        self.write()
        client, other = self.connect(), self.connect()
        client.receive(req(26, RESULTS))
        self.turn()
        client.take()
        client.receive(*[req(1005, handle(of), b"0") for of in range(1, 6)], req(16, b"echo"))
        for of in range(1, 6):
            self.turn()
            self.assertEqual(len(self.thread.calls), 1)
            self.assertFalse(client.reading)
            self.thread.run()
            answer = res(1006, handle(of), b"completed", b"", b"x" * 100)
            self.assertEqual(self.heard(client), answer + res(17, b"echo") * (of == 5))
        self.assertTrue(client.reading)
        self.assertTrue(other.reading)

    def test_one_behind_another_answer_is_under_way_until_it_is_sent(self) -> None:
        self.complete(b"end")
        self.write()
        client = self.connect()
        client.receive(req(26, RESULTS))
        self.heard(client)
        client.receive(req(18, b"f", b"", b"data"), *[req(1005, handle(1), b"0")] * 2)
        self.thread.run()
        self.assertFalse(client.reading, "the submit is not answered yet, so neither is this")
        self.assertEqual(len(self.factory.connections[max(self.factory.connections)]._pending), 2)
        self.commit()
        answer = res(1006, handle(1), b"completed", b"", b"end")
        self.assertEqual(self.heard(client), res(8, handle(2)) + answer * 2)
        self.assertTrue(client.reading)

    def test_more_than_one_transaction_has_is_waited_for(self) -> None:
        self.patch(pending_results, "MAX_RESULTS", 1)
        self.complete(b"1", b"2", b"3")
        told: list[Any] = []
        self.results.find(self.number(3), told.append)
        for _ in range(4):
            self.write()
        self.assertEqual([kept.data for kept in told], [b"3"])

    def test_during_an_outage(self) -> None:
        """Whether the store can be read then or not: a result that waits is not said to be none."""
        self.complete(b"end")
        self.turn(REMOVAL_DELAY)
        self.store.failing = UNAVAILABLE
        self.commit()
        self.assertIsInstance(self.find(), LookupFailed)
        self.store.failing = None
        self.assertIsInstance(self.find(), LookupFailed)
        self.assertIsNone(self.find(of=7))
        self.turn(10.0)
        self.commit()
        self.assertEqual(self.find().data, b"end")
        self.flushLoggedErrors()


class EvictionTests(StoredResultTestCase):
    def test_expired_ones_are_deleted(self) -> None:
        self.complete(b"1", b"2")
        self.write()
        self.now += 3600.0
        self.turn(EVICTION_INTERVAL)
        self.commit()
        self.assertEqual((self.kept(), self.results.expired, self.results.evicted), ([], 2, 0))
        self.assertEqual(self.results.counts(), ResultCounts(0, 0))

    def test_the_oldest_are_evicted(self) -> None:
        self.complete(*[b"end"] * 5)
        self.write()
        weight = RESULT_OVERHEAD + 3
        self.results.limit(3 * weight)
        self.commit()
        self.assertEqual((self.kept(), self.results.evicted), ([3, 4, 5], 2))
        self.assertEqual(self.results.counts(), ResultCounts(3, 3 * weight))

    def test_they_are_evicted_behind_many_bytes_too(self) -> None:
        self.results.limit(MIN_BYTES)
        self.commit()
        half = bytes(MIN_BYTES // 2 - RESULT_OVERHEAD)
        self.complete(half, half)
        self.write()
        self.assertEqual((self.kept(), self.results.evicted), ([1, 2], 0))
        self.complete(b"")
        self.write()
        self.assertEqual((self.kept(), self.results.evicted), ([2, 3], 1))

    def test_an_eviction_of_very_many_gives_way(self) -> None:
        self.patch(results_module, "EVICTED_AT_ONCE", 2)
        self.complete(*[b"end"] * 7)
        self.write()
        self.results.limit(0)
        steps = 0
        while self.store.kept_results:
            self.thread.run()
            steps += 1
        self.assertEqual(steps, 4)
        self.commit()
        self.assertEqual(self.results.evicted, 7)

    def test_a_reload_changes_the_limit(self) -> None:
        self.complete(b"end")
        self.write()
        settings = self.factory.settings
        self.factory.reconfigure(type(settings)(handle_prefix=settings.handle_prefix, results_bytes=0))
        self.commit()
        self.assertEqual(self.kept(), [])


class SharedTests(LateDuplicateTestCase):
    """Two servers on one database."""

    def site(self, name: str, **settings: Any) -> Any:
        return super().site(name, functions=KEEPING, **settings)

    def finish(self) -> None:
        self.grab()
        self.worker.receive(req(28, FIRST, b"part "), req(13, FIRST, b"end"))
        self.settle()

    def test_each_server_answers_for_all(self) -> None:
        self.finish()
        for site in self.sites:
            asker = site.connect()
            asker.receive(req(26, RESULTS), req(1005, FIRST, b"0"))
            site.commit()
            answer = res(1006, FIRST, b"completed", b"", b"part end")
            self.assertEqual(site.heard(asker), res(27, RESULTS) + answer)

    def test_who_waits_at_the_other_server_is_answered(self) -> None:
        asker = self.second.connect()
        asker.receive(req(26, RESULTS), req(1005, FIRST, b"1"))
        self.second.commit()
        pending = res(1006, FIRST, b"pending", b"stored", b"")
        self.assertEqual(self.second.heard(asker), res(27, RESULTS) + pending)
        self.finish()
        self.assertEqual(self.second.heard(asker), b"")
        self.turn(POLL_INTERVAL)
        self.second.commit()
        self.assertEqual(self.second.heard(asker), res(1006, FIRST, b"completed", b"", b"part end"))

    def test_who_may_not_see_it_any_more_when_the_store_answers(self) -> None:
        """As with waits, results are unknown to it from the reload on, and it waits for none."""
        self.finish()
        for job in (FIRST, b"H:first:99"):
            asker = self.second.connect()
            asker.receive(req(26, RESULTS), req(1005, job, b"1"))
            self.second.turn()
            factory = self.second.factory
            before = factory.settings
            factory.reconfigure(replace(before, access=AccessPolicy((Rule("everybody", submit=(b"*",)),))))
            self.second.commit()
            self.assertEqual(
                self.second.heard(asker), res(27, RESULTS) + res(1006, job, b"unknown", b"", b"")
            )
            self.assertEqual(len(factory.results), 0)
            factory.reconfigure(before)

    def test_who_is_gone_before_the_store_answers_waits_for_nothing(self) -> None:
        """Otherwise a peer that comes and goes could take all waits there are, and for years."""
        asker = self.second.connect()
        asker.receive(req(26, RESULTS), *[req(1005, FIRST, b"1")] * 3)
        self.second.turn()
        asker.lose()
        self.second.commit()
        self.assertEqual(len(self.second.factory.results), 0)
        self.turn(POLL_INTERVAL)
        self.assertEqual(self.second.thread.calls, [])

    def test_behind_its_end_it_runs_again_and_has_the_result_of_that(self) -> None:
        self.grab()
        self.worker.receive(req(13, FIRST, b"first"))
        self.first.heard(self.worker)
        self.turn(0.01)
        self.coalesce()
        self.settle()
        self.assertEqual(self.database.results, {})
        self.grab()
        self.worker.receive(req(13, FIRST, b"second"))
        self.check_gone()
        self.assertEqual([kept.data for kept in self.database.results.values()], [b"second"])

    def test_ahead_of_its_end_its_result_is_kept(self) -> None:
        self.coalesce()
        self.turn(0.01)
        self.finish()
        self.check_gone()
        self.assertEqual([kept.data for kept in self.database.results.values()], [b"part end"])
        self.assertEqual(self.first.store_writer.late_duplicates, 0)
