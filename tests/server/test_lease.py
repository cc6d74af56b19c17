"""A server that shares its store with others: its lease, and what happens to jobs when one is lost."""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.server.peers import req, res
from tests.server.sites import LEASE
from tests.server.stores import UNAVAILABLE, SharedStore
from tests.server.test_writer import SavingTestCase, handle, submit
from txgearman.errors import LeaseLost
from txgearman.server.persistence.lease import MAX_TAKEN_OVER, NUMBERS_PER_START, RENEWALS
from txgearman.server.persistence.outage import MIN_BACKOFF
from txgearman.store.contract import StoredJob


def orphan(number: int) -> StoredJob:
    """A job of a server that is gone."""
    name = b"H:other:%d" % number
    return StoredJob(number, number, name, b"f", b"", b"%d" % number, 1, None, 0, 0.0, None)


class SharingTestCase(SavingTestCase):
    def setUp(self) -> None:
        self.store: SharedStore = SharedStore()
        self.start()
        self.commit()

    def pass_time(self, seconds: float) -> None:
        """Let time pass while the store does what it is asked to."""
        for _ in range(round(seconds * 10)):
            self.turn(0.1)
            self.thread.run_all()
        self.commit()


class LeaseTests(SharingTestCase):
    def test_it_is_renewed_in_time(self) -> None:
        self.pass_time(30 * LEASE)
        self.assertAlmostEqual(self.store.renewals, 30 * RENEWALS, delta=2)

    def test_without_a_renewal_no_job_is_given_out(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(), submit())
        self.commit()
        self.turn(LEASE - 0.1)
        worker.receive(req(9))
        self.assertNotEqual(self.heard(worker), res(10))
        self.turn(0.2)
        worker.receive(req(9), req(4))
        self.assertEqual(self.heard(worker), res(10), "and it sleeps, and is not told to come at once")
        self.thread.run_all()
        self.assertEqual(self.heard(worker), res(6), "the renewal that was late has come")
        worker.receive(req(9))
        self.assertIn(handle(2), self.heard(worker))

    def test_a_job_is_not_sent_if_the_process_was_stopped_when_it_had_just_been_given(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit(b"1"), submit(b"2"))
        self.commit()
        worker.receive(req(9))
        self.turn(LEASE - 0.1)
        self.assertEqual(self.heard(worker), res(11, handle(1), b"f", b"1"), "while the lease lasts")
        worker.receive(req(9))
        with capturedLogs() as events:
            self.turn(LEASE)
        self.assertEqual((self.heard(worker), worker.aborted), (b"", True))
        self.assertIn("may be another server's", [event["log_format"] for event in events][-1])
        worker.lose()
        self.pass_time(LEASE)
        again = self.worker()
        again.receive(req(9), req(9))
        self.assertIn(res(11, handle(2), b"f", b"2"), self.heard(again), "nobody has taken it over")

    def test_what_else_was_to_be_sent_then_is(self) -> None:
        client, worker, online = self.connect(), self.worker(), self.connect()
        client.receive(submit(b"1"))
        self.commit()
        worker.receive(req(9))
        self.heard(worker)
        online.receive(submit(b"2", kind=7))
        other = self.worker()
        other.receive(req(9))
        worker.receive(req(16, b"echo"))
        self.turn(2 * LEASE)
        self.assertEqual(self.heard(worker), res(17, b"echo"))
        self.assertIn(b"2", self.heard(other))
        self.assertFalse(worker.aborted or other.aborted)

    def test_functions_that_are_new_meanwhile_wait_too(self) -> None:
        self.turn(LEASE + 1)
        self.worker().receive(req(9))
        client, worker = self.connect(), self.connect()
        client.receive(req(7, b"new", b"", b""))
        worker.receive(req(1, b"new"), req(9))
        self.assertEqual(self.heard(worker), res(10))
        self.thread.run_all()
        worker.receive(req(9))
        self.assertNotEqual(self.heard(worker), res(10))

    def test_a_lease_counts_from_when_it_was_asked_for(self) -> None:
        self.turn(LEASE / RENEWALS)
        self.assertEqual(len(self.thread.calls), 1)
        self.turn(LEASE / 2)
        self.thread.run()
        worker, client = self.worker(), self.connect()
        client.receive(submit(kind=7))
        self.turn(LEASE / 2 + 0.1)
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(10))

    def test_it_is_given_up_at_the_end(self) -> None:
        self.stop()
        self.assertFalse(self.store.is_open)


class TakeOverTests(SharingTestCase):
    def test_jobs_of_one_that_is_gone_run_here(self) -> None:
        worker = self.worker()
        worker.receive(req(9), req(4))
        self.heard(worker)
        self.store.orphans = [orphan(1), orphan(2)]
        self.pass_time(LEASE / 2)
        worker.receive(req(9), req(13, b"H:other:1", b""), req(9), req(13, b"H:other:2", b""))
        self.assertEqual(
            self.heard(worker),
            res(6) + res(11, b"H:other:1", b"f", b"1") + res(11, b"H:other:2", b"f", b"2"),
        )
        self.pass_time(1)
        self.assertEqual(self.store.jobs, {})
        self.assertEqual(self.store_writer.lease.taken_over, 2)

    def test_what_is_known_of_it_afterwards(self) -> None:
        """One event for all jobs of a server, and one each for the loss of the lease and for the new one."""
        self.store.orphans = [orphan(number) for number in range(1, 2 * MAX_TAKEN_OVER + 500)]
        self.pass_time(LEASE / 2)
        self.store.failing = UNAVAILABLE
        self.pass_time(2 * LEASE)
        self.store.failing = None
        self.pass_time(LEASE)
        events = list(self.factory.activity.newest_first())[::-1]
        self.assertEqual((events[0].action, events[0].jobs), ("take over jobs", 2 * MAX_TAKEN_OVER + 499))
        self.assertEqual({event.action for event in events if event.actor is not None}, set())
        actions = [event.action for event in events[1:]]
        self.assertEqual(actions[0], "store unavailable")
        self.assertIn("store available again", actions)

    def test_a_great_many_come_bit_by_bit_and_not_all_into_memory(self) -> None:
        self.start(store_ahead=10)
        self.commit()
        self.store.orphans = [orphan(number) for number in range(1, 2 * MAX_TAKEN_OVER + 500)]
        self.pass_time(LEASE / 2)
        self.assertEqual(self.factory.broker.total, 2 * MAX_TAKEN_OVER + 499)
        self.assertLessEqual(sum(1 for _ in self.factory.inspection.jobs()), 10)

    def test_status_is_asked_of_the_store(self) -> None:
        self.store.jobs[7] = orphan(7)
        client = self.connect()
        client.receive(req(15, b"H:other:7"), req(15, b"H:other:8"))
        self.commit()
        self.assertEqual(
            self.heard(client),
            res(20, b"H:other:7", b"1", b"0", b"0", b"0") + res(20, b"H:other:8", b"0", b"0", b"0", b"0"),
        )


class OthersTests(SharingTestCase):
    """Jobs of another server, which share the store with a deep queue of this one."""

    def setUp(self) -> None:
        self.store = SharedStore()
        self.start(store_ahead=2)
        self.commit()
        self.client = self.connect()
        self.client.receive(*[submit(b"%d" % number) for number in range(5)])
        self.commit()
        self.heard(self.client)
        number = 7 * NUMBERS_PER_START + 1
        self.others = orphan(number)._replace(unique=b"u", position=number)
        self.store.jobs[number] = self.others

    def check_own(self) -> None:
        """All jobs of this server run, and no other."""
        del self.store.jobs[self.others.number]
        worker = self.worker()
        for number in range(5):
            worker.receive(req(9), req(13, handle(number + 1), b""))
            self.assertEqual(self.heard(worker), res(11, handle(number + 1), b"f", b"%d" % number))
            self.commit()
        worker.receive(req(9))
        self.assertIn(self.heard(worker), (res(10), res(11, handle(6), b"f", b"online")))

    def test_a_foreground_submit_does_not_join_them(self) -> None:
        self.client.receive(submit(b"online", b"u", kind=7))
        self.commit()
        self.assertEqual(self.heard(self.client), res(8, handle(6)))
        worker = self.worker()
        worker.receive(*[req(9)] * 3)
        self.assertIn(b"online", self.heard(worker))
        worker.lose()
        self.assertEqual(self.factory.broker.total, 6)

    def test_they_cannot_be_cancelled_here(self) -> None:
        self.client.receive(b"cancel job " + self.others.handle + b"\n")
        self.commit()
        self.assertEqual(self.heard(self.client), b"ERR UNKNOWN_JOB\r\n")
        self.assertIn(self.others.number, self.store.jobs)
        self.check_own()


class LossTests(SharingTestCase):
    """The others have given this server up, as it was not heard of."""

    def lose(self) -> None:
        """The lease is lost, which this server notices at the next renewal."""
        self.store.failing = LeaseLost("the lease has expired")
        self.pass_time(LEASE / 2)

    def come_back(self) -> None:
        self.store.failing = None
        self.pass_time(60)

    def test_its_jobs_are_no_longer_given_out(self) -> None:
        client, worker, online = self.connect(), self.worker(), self.connect()
        client.receive(submit(unique=b"u"), submit())
        self.commit()
        online.receive(submit(unique=b"u", kind=7))
        self.heard(online)
        with capturedLogs():
            self.lose()
            worker.receive(req(9))
            self.assertEqual(self.heard(worker), res(10))
            self.store.failing = None
            self.store.orphans.clear()
            self.store.jobs.clear()
            self.come_back()
        worker.receive(req(9))
        self.assertEqual(self.heard(worker), res(10))
        self.assertEqual(self.heard(online), res(14, handle(1)), "nobody here can tell of it any more")
        self.assertEqual(self.factory.broker.total, 0)

    def test_it_goes_on_as_a_new_one(self) -> None:
        self.lose()
        client = self.connect()
        client.receive(submit())
        self.assertIn(b"Job could not be saved", self.heard(client))
        self.come_back()
        client.receive(submit())
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(1, start=2)))
        self.assertIsNone(self.store_writer.outage)

    def test_it_may_get_its_own_jobs_again(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit())
        self.commit()
        self.lose()
        self.come_back()
        worker.receive(req(9), req(13, handle(1), b""))
        self.assertIn(handle(1), self.heard(worker))
        self.pass_time(1)
        self.assertEqual(self.store.jobs, {})

    def test_it_may_get_a_job_again_that_a_worker_here_still_has(self) -> None:
        for is_lost in (False, True):
            with self.subTest(is_lost=is_lost):
                self.store = SharedStore()
                self.start()
                self.commit()
                client, worker = self.connect(), self.worker()
                client.receive(submit())
                self.commit()
                worker.receive(req(9))
                self.lose()
                self.come_back()
                if is_lost:
                    worker.lose()
                    worker = self.worker()
                    worker.receive(req(9))
                    self.assertIn(handle(1), self.heard(worker))
                worker.receive(req(13, handle(1), b""))
                self.pass_time(1)
                self.assertEqual(self.store.jobs, {})
                self.assertEqual(self.factory.broker.total, 0)

    def test_those_that_wait_when_a_renewal_tells_of_it_are_refused(self) -> None:
        client = self.connect()
        self.store.failing = LeaseLost("the lease has expired")
        self.turn(LEASE / RENEWALS)
        client.receive(submit())
        self.thread.run()
        self.assertIn(b"Job could not be saved", self.heard(client))

    def test_a_worker_that_goes_on_is_heard_and_counted(self) -> None:
        client, worker, online = self.connect(), self.worker(), self.connect()
        client.receive(submit(unique=b"u"))
        self.commit()
        online.receive(submit(unique=b"u", kind=7))
        worker.receive(req(9))
        self.heard(online)
        self.store.failing = LeaseLost("the lease has expired")
        worker.receive(req(13, handle(1), b"late"))
        self.assertEqual(self.heard(online), res(13, handle(1), b"late"))
        self.pass_time(1)
        self.come_back()
        self.assertEqual(self.store_writer.rerun_elsewhere, 1)
        self.assertIn(handle(1), [job.handle for job in self.store.jobs.values()], "it runs again")

    def test_a_worker_that_is_lost_after_that_loses_nothing(self) -> None:
        client, worker = self.connect(), self.worker()
        client.receive(submit())
        self.commit()
        worker.receive(req(9))
        self.lose()
        self.store.jobs.clear()
        self.come_back()
        worker.lose()
        self.assertEqual(self.factory.broker.total, 0)

    def test_jobs_that_wait_to_be_saved_meanwhile_are_refused(self) -> None:
        client = self.connect()
        client.receive(submit())
        self.turn()
        self.store.failing = LeaseLost("the lease has expired")
        client.receive(submit())
        self.turn()
        self.thread.run_all()
        self.assertEqual(self.heard(client).count(b"Job could not be saved"), 2)
        self.come_back()
        client.receive(submit())
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(1, start=2)))

    def test_the_store_may_be_away_when_it_wants_to_come_back(self) -> None:
        self.lose()
        self.store.failing = UNAVAILABLE
        self.pass_time(60)
        self.come_back()
        client = self.connect()
        client.receive(submit())
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(1, start=2)))

    def test_the_end_of_the_server_before_it_is_back(self) -> None:
        self.lose()
        self.stop()


class OutageTests(SharingTestCase):
    def test_the_lease_is_renewed_as_soon_as_it_ends(self) -> None:
        client = self.connect()
        self.store.failing = UNAVAILABLE
        client.receive(submit())
        self.turn()
        self.thread.run_all()
        self.assertIsNotNone(self.store_writer.outage)
        self.store.failing = None
        renewals = self.store.renewals
        self.turn(MIN_BACKOFF)
        self.thread.run_all()
        self.assertEqual(self.store.renewals, renewals + 1)

    def test_it_ends_with_the_first_thing_that_works(self) -> None:
        client = self.connect()
        self.store.failing = UNAVAILABLE
        self.pass_time(60)
        self.assertEqual(self.store_writer.outage, "the disk is full")
        self.store.failing = None
        self.pass_time(LEASE / RENEWALS + 0.2)
        self.assertIsNone(self.store_writer.outage)
        client.receive(submit())
        self.commit()
        self.assertEqual(self.heard(client), res(8, handle(1)))
