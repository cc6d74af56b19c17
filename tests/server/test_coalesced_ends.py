"""Background submits that are coalesced with a running foreground job which ends before it can be saved."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import ServerTestCase, SocketlikeTransport, req, res
from tests.server.sites import LEASE, DurableServer, Site
from tests.server.stores import UNAVAILABLE, ListStore
from tests.server.test_writer import NOT_SAVED, SavingTestCase, handle, submit
from tests.store.jobs import dead_jobs, stored
from tests.store.model import ModelDatabase
from txgearman.broker.broker import Broker
from txgearman.broker.dead_job import DeadJob
from txgearman.broker.kept_result import KeptResult
from txgearman.broker.store_answers import StoreAnswers
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.persistence import pending_changes
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.server.persistence.pending_changes import MAX_BATCH_BYTES
from txgearman.server.persistence.writer import REMOVAL_DELAY
from txgearman.store.contract import Store
from txgearman.store.urls import open_store

NUMBER = NUMBERS_PER_START + 1
FUNCTIONS = {"f": FunctionSettings(keep_results=3600.0)}
OPTIONS = b"priority=high\nexpires=1000"


class CoalescedEnds(DurableServer):
    """What every store does. A foreground job runs, and a background submit is coalesced with it."""

    store: Any
    now = 1e9

    def make_store(self) -> Any:
        raise AssertionError("a subclass knows which store")

    def fresh(self, **settings: Any) -> None:
        """Begin on an empty store."""
        self.store = self.make_store()
        self.start(**settings)

    def start(self, **settings: Any) -> None:
        self.launch(self.store, "test", lambda: self.now, LEASE, **{"functions": FUNCTIONS, **settings})

    def run_job(self, data: bytes = b"data", attributes: bytes | None = None) -> None:
        self.online, self.client = self.connect(), self.connect()
        self.runner = self.worker()
        self.online.receive(req(26, b"submit-extended"))
        if attributes is None:
            self.online.receive(submit(data, b"u", kind=7))
        else:
            self.online.receive(req(1007, b"f", b"u", attributes, data))
        self.runner.receive(req(9))
        self.assertIn(handle(1), self.heard(self.runner))
        self.client.receive(submit(b"", b"u"))

    def complete(self) -> None:
        self.runner.receive(req(13, handle(1), b"result"))

    def fail_run(self) -> None:
        self.runner.receive(req(25, handle(1), b"why"))

    def assert_acknowledged(self, client: SocketlikeTransport | None = None, of: int = 1) -> None:
        """Behind the commit, and not before."""
        client = client or self.client
        self.assertEqual(self.heard(client), b"")
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(of)))

    def assert_nothing_to_write(self) -> None:
        self.turn(1.0)
        self.assertEqual(self.thread.calls, [])

    def kill(self) -> None:
        """The process ends, and begins anew."""
        self.store.close()
        self.start()

    def kept(self) -> KeptResult | None:
        found: KeptResult | None = self.store.results.find(NUMBER, self.now)
        return found

    def leftovers(self) -> list[int]:
        ended_jobs = self.factory.broker.ended_jobs
        return [len(ended_jobs.results.unsaved), len(ended_jobs.unsaved_deaths), self.factory.broker.total]

    def test_the_result_is_kept(self) -> None:
        self.run_job()
        self.complete()
        self.assert_acknowledged()
        self.assertEqual(self.store_writer.results.counts().results, 1)
        self.assertEqual(self.leftovers(), [0, 0, 0])
        self.assert_nothing_to_write()
        self.kill()
        kept = KeptResult(NUMBER, handle(1), b"f", 1e9, 1e9 + 3600, b"result", b"u", 1, 1e9, 0, 0)
        self.assertEqual((self.kept(), stored(self.store), dead_jobs(self.store)), (kept, [], []))

    def test_the_job_is_dead(self) -> None:
        self.run_job(attributes=OPTIONS)
        self.fail_run()
        self.assert_acknowledged()
        self.assertEqual(self.store_writer.dead_jobs.counts(), {b"f": 1})
        self.assertEqual(self.leftovers(), [0, 0, 0])
        self.assert_nothing_to_write()
        self.kill()
        (dead,) = dead_jobs(self.store)
        assert dead.attributes is not None
        self.assertEqual(
            (dead.handle, dead.function, dead.unique, dead.data), (handle(1), b"f", b"u", b"data")
        )
        self.assertEqual((dead.priority, dead.attempts, dead.error, dead.ended), (0, 1, b"why", 1e9))
        self.assertEqual((self.kept(), stored(self.store)), (None, []))

    def test_a_dead_job_can_be_run_again(self) -> None:
        self.run_job(attributes=OPTIONS)
        self.fail_run()
        self.assert_acknowledged()
        admin = self.connect()
        admin.receive(b"retry job %b\n" % handle(1))
        self.commit()
        self.assertTrue(self.heard(admin).startswith(b"OK"))
        (job,) = stored(self.store)
        self.assertEqual((job.number, job.data, job.attempts, job.priority), (NUMBER, b"data", 0, 0))
        self.assertIsNotNone(job.attributes)
        self.runner.receive(req(9))
        self.assertIn(res(11, handle(1), b"f", b"data"), self.heard(self.runner))
        self.complete()
        self.turn(REMOVAL_DELAY)
        self.commit()
        self.assertEqual((stored(self.store), dead_jobs(self.store)), ([], []))
        self.assertIsNotNone(self.kept())

    def test_a_later_job_in_the_same_transaction_has_the_unique(self) -> None:
        for end in (self.complete, self.fail_run):
            self.fresh()
            self.run_job()
            end()
            later = self.connect()
            later.receive(submit(b"later", b"u"))
            self.assert_acknowledged()
            self.assertEqual(self.heard(later), res(8, handle(2)))
            self.assertEqual([job.data for job in stored(self.store)], [b"later"])
            self.assertEqual(self.kept() is not None, not dead_jobs(self.store))

    def test_one_of_which_nothing_is_kept_leaves_nothing(self) -> None:
        for end in (self.complete, self.fail_run):
            self.fresh(functions={}, dead_jobs=0)
            self.run_job()
            end()
            self.assert_acknowledged()
            self.assert_nothing_to_write()
            self.assertEqual((self.kept(), dead_jobs(self.store), self.leftovers()), (None, [], [0, 0, 0]))

    def test_a_job_that_was_cancelled_leaves_nothing(self) -> None:
        self.run_job()
        admin = self.connect()
        admin.receive(b"cancel job %b\n" % handle(1))
        self.assertTrue(self.heard(admin).startswith(b"OK"))
        self.assert_acknowledged()
        self.turn(1.0)
        self.commit()
        self.assertEqual((self.kept(), dead_jobs(self.store), stored(self.store)), (None, [], []))
        self.assertEqual(self.leftovers(), [0, 0, 0])

    def test_the_unique_of_a_completed_job_is_kept(self) -> None:
        self.run_job(attributes=b"unique_for=60")
        self.complete()
        self.assert_acknowledged()
        self.kill()
        client = self.connect()
        client.receive(submit(b"", b"u"))
        self.assertEqual(self.heard(client), res(8, handle(1)))
        self.assertEqual((self.kept() is not None, stored(self.store)), (True, []))

    def test_it_is_kept_ahead_of_the_answer(self) -> None:
        self.patch(pending_changes, "MAX_REMOVALS", 1)
        other = self.connect()
        other.receive(req(26, b"submit-extended"), req(1007, b"f", b"v", b"unique_for=60", b""))
        worker = self.worker()
        worker.receive(req(9), req(13, handle(1), b""))
        self.online, self.client, self.runner = self.connect(), self.connect(), self.worker()
        self.online.receive(req(26, b"submit-extended"), req(1007, b"f", b"u", b"unique_for=60", b""))
        self.runner.receive(req(9))
        self.client.receive(submit(b"", b"u"))
        self.runner.receive(req(13, handle(2), b"result"))
        self.turn()
        self.thread.run()
        self.assertEqual(self.heard(self.client), b"", "the unique is in the next transaction")
        self.assert_acknowledged(of=2)
        self.assertEqual(len(self.store.kept_uniques(self.now)), 2)

    def test_a_retry(self) -> None:
        self.fresh(functions={"f": FunctionSettings(attempts=2, backoff=100.0, jitter=0.0)})
        self.run_job()
        self.fail_run()
        self.assert_acknowledged()
        self.turn(REMOVAL_DELAY)
        self.commit()
        (job,) = stored(self.store)
        self.assertEqual((job.attempts, job.retry_at, job.error), (1, 1e9 + 100, b"why"))

    def test_the_attempts_of_a_job_that_is_saved_behind_its_retry(self) -> None:
        rules = FunctionSettings(attempts=2, backoff=0.0, jitter=0.0, retry_online=True)
        self.fresh(functions={"f": rules})
        online, worker = self.connect(), self.worker()
        online.receive(submit(b"data", b"u", kind=7))
        worker.receive(req(9), req(25, handle(1), b"why"))
        self.turn()
        client = self.connect()
        client.receive(submit(b"", b"u"))
        self.assert_acknowledged(client)
        self.turn(REMOVAL_DELAY)
        self.commit()
        self.kill()
        self.turn()
        worker = self.worker()
        worker.receive(req(9), req(25, handle(1), b"again"))
        self.turn(REMOVAL_DELAY)
        self.commit()
        self.assertEqual([(dead.attempts, dead.error) for dead in dead_jobs(self.store)], [(2, b"again")])

    def test_a_job_that_is_saved_again_and_for_which_nobody_waits(self) -> None:
        """As one is that was taken over while its removal was under way."""
        for end in (self.complete, self.fail_run):
            self.fresh()
            self.run_job()
            self.client.lose()
            self.commit()
            job = self.factory.broker.life.handles.get(handle(1))
            assert job is not None
            job.stored = False
            StoreAnswers(self.factory.broker).save_again(handle(1))
            self.assertEqual(self.store_writer.pending.waiting, 1)
            self.store_writer.remove(NUMBER)
            end()
            self.commit()
            self.assertEqual((self.kept() is not None) + len(dead_jobs(self.store)), 1)
            self.assertEqual((stored(self.store), self.leftovers()), ([], [0, 0, 0]))

    def test_it_is_written_by_the_end_of_the_server(self) -> None:
        self.run_job()
        self.complete()
        self.stop()
        self.assertEqual(self.client.taken(), res(8, handle(1)))
        self.store.open("test", LEASE)
        self.assertIsNotNone(self.kept())


class InMemoryTests(CoalescedEnds, SavingTestCase):
    def make_store(self) -> ListStore:
        return ListStore()

    def setUp(self) -> None:
        self.fresh()

    def start(self, **settings: Any) -> None:
        CoalescedEnds.start(self, **settings)

    def test_without_the_store_it_is_refused(self) -> None:
        for end in (self.complete, self.fail_run):
            self.fresh()
            self.run_job()
            end()
            self.store.failing = UNAVAILABLE
            self.assertEqual(self.heard(self.client), b"")
            self.commit()
            self.assertEqual(self.heard(self.client), NOT_SAVED)
            self.store.failing = None
            self.turn(1.0)
            self.commit()
            self.assertEqual((self.kept(), dead_jobs(self.store), self.leftovers()), (None, [], [0, 0, 0]))
            self.assertEqual(stored(self.store), [])
        self.flushLoggedErrors()

    def test_a_transaction_that_saves_nothing_else_counts_nothing_as_stored(self) -> None:
        self.run_job()
        self.complete()
        self.commit()
        self.assertEqual((self.store_writer.stored, self.store_writer.commits), (0, 1))
        (changes,) = self.store.writes
        self.assertEqual((changes.saves, changes.removals, [*changes.unsaved_ends]), ([], [], [NUMBER]))

    def test_a_transaction_has_so_many_bytes_of_them(self) -> None:
        self.store.largest_data = MAX_BATCH_BYTES
        clients = []
        for number in range(1, 4):
            online, client, worker = self.connect(), self.connect(), self.worker()
            online.receive(submit(bytes(MAX_BATCH_BYTES // 2 - 600), b"%d" % number, kind=7))
            worker.receive(req(9))
            self.assertIn(handle(number), worker.taken())
            client.receive(submit(b"", b"%d" % number))
            worker.receive(req(14, handle(number)))
            clients.append(client)
        self.turn()
        self.thread.run()
        self.assertEqual([bool(self.heard(client)) for client in clients], [True, True, False])
        self.assert_acknowledged(clients[2], 3)


class SqliteTests(CoalescedEnds, SynchronousTestCase):
    def make_store(self) -> Store:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-store-")
        self.addCleanup(folder.cleanup)
        store = open_store(f"sqlite:///{folder.name}/queue.db")
        self.addCleanup(store.close)
        return store

    def setUp(self) -> None:
        self.fresh()


class SeveralServersTests(SynchronousTestCase):
    """Two servers have a job with the same unique: one in its memory, which runs, and the other a stored one.

    Each is what its server answered a submit with, so that both are done, and of both the outcome is kept."""

    def setUp(self) -> None:
        self.database = ModelDatabase(lambda: 5e8)
        self.first, self.second = (
            Site(name, self.database, lambda: 1e9, functions=FUNCTIONS) for name in ("first", "second")
        )
        self.online, self.client = self.first.connect(), self.first.connect()
        self.other = self.second.connect()
        self.worker = self.first.worker()
        self.online.receive(submit(b"data", b"u", kind=7))
        self.worker.receive(req(9))
        self.other.receive(submit(b"data", b"u"))
        self.second.commit()
        self.assertEqual(self.second.heard(self.other), res(8, handle(1, 2)))
        self.first.heard(self.worker)
        self.client.receive(submit(b"", b"u"))

    def settle(self) -> None:
        self.assertEqual(self.first.heard(self.client), b"")
        self.first.commit()
        self.assertEqual(self.first.heard(self.client), res(8, handle(1)))
        worker = self.second.worker()
        worker.receive(req(9), req(13, handle(1, 2), b"other"))
        self.second.turn(REMOVAL_DELAY)
        self.second.commit()
        self.assertEqual(self.database.jobs, {})

    def test_results(self) -> None:
        self.worker.receive(req(13, handle(1), b"result"))
        self.settle()
        self.assertEqual([kept.data for kept in self.database.results.values()], [b"result", b"other"])

    def test_a_death(self) -> None:
        self.worker.receive(req(14, handle(1)))
        self.settle()
        self.assertEqual([dead.handle for dead in self.database.dead.values()], [handle(1)])
        self.assertEqual([kept.data for kept in self.database.results.values()], [b"other"])

    def test_a_server_that_has_lost_its_lease_refuses_it(self) -> None:
        self.worker.receive(req(14, handle(1)))
        self.database.leases[self.first.store.start].dead = True
        self.first.commit()
        self.assertIn(NOT_SAVED, self.first.heard(self.client))
        self.assertEqual(self.database.dead, {})


class WithoutAStoreTests(ServerTestCase):
    def test_memory_keeps_the_same(self) -> None:
        gearman = self.serve(functions=FUNCTIONS)
        broker: Broker = gearman.server.broker
        for number, end in enumerate((req(13, b"H:test:1", b"result"), req(14, b"H:test:2")), 1):
            name = b"H:test:%d" % number
            online, client, worker = self.peer(gearman), self.peer(gearman), self.peer(gearman)
            self.assertEqual(online.ask(submit(b"data", b"u", kind=7)), res(8, name))
            self.assertIn(name, worker.ask(req(1, b"f"), req(9)))
            self.assertEqual(client.ask(submit(b"", b"u")), res(8, name))
            worker.ask(end)
            worker.hang_up()
        found: list[KeptResult | DeadJob | Any] = []
        broker.ended_jobs.result_store.find(1, found.append)
        broker.ended_jobs.dead_job_store.find(2, found.append)
        self.assertEqual([each.data for each in found], [b"result", b"data"])
