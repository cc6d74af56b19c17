"""Submits that one server answers with a job of another: something runs for each of them, once as a rule."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import req, res
from tests.server.sites import LEASE, Site
from tests.server.test_writer import handle, submit
from tests.store.model import ModelDatabase
from txgearman.server.persistence.writer import MAX_TRUSTED_AGE, REMOVAL_DELAY

FIRST = handle(1)
"""The job that the first server has."""


class LateDuplicateTestCase(SynchronousTestCase):
    """A job with a unique is submitted to the first of two servers, which has a worker."""

    def setUp(self) -> None:
        self.now = 0.0
        self.database = ModelDatabase(lambda: 5e8 + self.now)
        self.first, self.second = self.sites = [self.site(name) for name in ("first", "second")]
        self.client, self.other = self.first.connect(), self.second.connect()
        self.admin = self.first.connect()
        self.worker = self.first.worker()
        self.client.receive(submit(unique=b"u"))
        self.first.commit()
        self.assertEqual(self.first.heard(self.client), res(8, FIRST))

    def site(self, name: str, **settings: Any) -> Site:
        return Site(name, self.database, lambda: 1e9 + self.now, **settings)

    def turn(self, seconds: float) -> None:
        """Let time pass everywhere."""
        self.now += seconds
        for site in self.sites:
            site.turn(seconds)

    def grab(self) -> None:
        """The first server's worker gets the job."""
        self.worker.receive(req(9))
        self.assertIn(FIRST, self.first.heard(self.worker))

    def complete(self) -> None:
        """It is done."""
        self.worker.receive(req(13, FIRST, b""))
        self.first.heard(self.worker)

    def coalesce(self) -> None:
        """Somebody submits the same to the second server, and is told that it is accepted."""
        self.other.receive(submit(unique=b"u"))
        self.second.commit()
        self.assertEqual(self.second.heard(self.other), res(8, FIRST))

    def settle(self) -> None:
        """Let the first server write what it has to."""
        for _ in range(10):
            self.turn(REMOVAL_DELAY)
            self.first.commit()

    def check_run(self) -> None:
        """It runs once more, and then is gone."""
        self.settle()
        self.assertIn(FIRST, [job.handle for job in self.database.jobs.values()])
        self.grab()
        self.complete()
        self.check_gone()
        self.assertEqual(self.first.store_writer.late_duplicates, 1)

    def check_gone(self) -> None:
        """It does not run any more."""
        self.settle()
        self.worker.receive(req(9))
        self.assertEqual(self.first.heard(self.worker), res(10))
        self.assertEqual(self.database.jobs, {})
        self.assertEqual(self.first.factory.broker.total, 0)


class DeathTests(LateDuplicateTestCase):
    """A job that its server ended as dead, with which another coalesced a submit."""

    def die(self) -> None:
        self.grab()
        self.worker.receive(req(14, FIRST))
        self.first.heard(self.worker)

    def test_behind_its_death_it_runs_again_and_is_not_dead(self) -> None:
        self.die()
        self.turn(0.01)
        self.coalesce()
        self.settle()
        self.assertEqual(self.database.dead, {})
        self.check_run()
        self.assertEqual(self.database.dead, {})

    def test_ahead_of_its_death_it_is_dead(self) -> None:
        self.coalesce()
        self.turn(0.01)
        self.die()
        self.check_gone()
        self.assertEqual([dead.handle for dead in self.database.dead.values()], [FIRST])


class CancelTests(LateDuplicateTestCase):
    """A job that is cancelled while a worker has it that is not told, and an equal submit elsewhere."""

    def cancel(self) -> None:
        self.admin.receive(b"cancel job " + FIRST + b"\n")
        self.assertEqual(self.first.heard(self.admin), b"OK\r\n")

    def test_a_submit_behind_the_cancel_has_its_own_run_while_the_cancelled_one_goes_on(self) -> None:
        self.grab()
        self.cancel()
        self.turn(0.01)
        self.coalesce()
        self.settle()
        another = self.first.worker()
        another.receive(req(9))
        self.assertIn(FIRST, self.first.heard(another))
        # The report on the cancelled run is dropped, and ends nothing.
        self.complete()
        self.settle()
        self.assertEqual([job.handle for job in self.database.jobs.values()], [FIRST])
        another.receive(req(13, FIRST, b""))
        self.check_gone()
        self.assertEqual(self.first.store_writer.late_duplicates, 1)

    def test_a_submit_ahead_of_the_cancel_is_cancelled_with_it(self) -> None:
        self.grab()
        self.coalesce()
        self.turn(0.01)
        self.cancel()
        self.check_gone()
        self.assertEqual(self.first.store_writer.late_duplicates, 0)


class TimeTests(LateDuplicateTestCase):
    """What came first, the end or the submit."""

    def test_behind_the_end(self) -> None:
        self.grab()
        self.complete()
        self.turn(0.01)
        self.coalesce()
        self.check_run()

    def test_behind_the_end_while_the_removal_is_under_way(self) -> None:
        self.grab()
        self.complete()
        self.turn(REMOVAL_DELAY)
        self.assertEqual(len(self.first.thread.calls), 1)
        self.coalesce()
        self.check_run()

    def test_behind_the_end_while_an_answer_to_the_same_is_under_way(self) -> None:
        self.grab()
        late = self.second.connect()
        self.second.commit()
        self.other.receive(submit(unique=b"u"))
        self.second.turn()
        done, write, arguments = self.second.thread.calls.pop(0)
        written = write(*arguments)
        self.turn(0.01)
        self.complete()
        self.turn(0.01)
        late.receive(submit(unique=b"u"))
        done.callback(written)
        self.assertEqual(self.second.heard(self.other), res(8, FIRST))
        self.assertEqual(self.second.heard(late), b"")
        self.second.commit()
        self.assertEqual(self.second.heard(late), res(8, FIRST))
        self.check_run()

    def test_ahead_of_the_end(self) -> None:
        for is_running in (True, False):
            with self.subTest(is_running=is_running):
                self.setUp()
                if is_running:
                    self.grab()
                self.coalesce()
                self.turn(0.01)
                if not is_running:
                    self.grab()
                self.complete()
                self.check_gone()
                self.assertEqual(self.first.store_writer.late_duplicates, 0)

    def test_ahead_of_the_end_and_behind_it(self) -> None:
        self.grab()
        self.coalesce()
        self.turn(0.01)
        self.complete()
        self.turn(REMOVAL_DELAY)
        # The first is told of the first of them, and finds the second when it removes the job for good.
        self.first.thread.run()
        self.coalesce()
        self.check_run()

    def test_in_the_same_moment(self) -> None:
        self.grab()
        self.complete()
        self.coalesce()
        self.check_run()

    def test_behind_a_removal_something_new_is_made(self) -> None:
        self.grab()
        self.complete()
        self.settle()
        self.other.receive(submit(unique=b"u"))
        self.second.commit()
        self.assertEqual(self.second.heard(self.other), res(8, handle(1, start=2)))

    def test_a_clock_that_is_set_back(self) -> None:
        self.grab()
        self.complete()
        self.turn(0.01)
        self.coalesce()
        self.database.clock = lambda: 4e8 + self.now
        self.check_run()

    def test_a_clock_that_is_set_forward_in_an_outage(self) -> None:
        self.grab()
        self.complete()
        self.first.store.cut = True
        self.coalesce()
        self.turn(MAX_TRUSTED_AGE + 1)
        self.first.commit()
        self.database.clock = lambda: 5e8 + self.now + LEASE / 3
        self.first.store.cut = False
        self.check_run()


class LeaseTests(LateDuplicateTestCase):
    def pass_lease(self) -> None:
        """So much time passes that the second server takes over the first one's job, and gives it out."""
        for _ in range(20):
            self.now += LEASE / 10
            self.second.turn(LEASE / 10)
            self.second.commit()
        self.others_worker = self.second.worker()
        self.others_worker.receive(req(9))
        self.assertIn(FIRST, self.second.heard(self.others_worker))

    def test_a_server_whose_lease_may_have_ended_takes_no_submit_for_its_jobs(self) -> None:
        self.pass_lease()
        self.others_worker.receive(req(13, FIRST, b""))
        # The first one's process was paused, and knows nothing of it.
        self.first.clock.rightNow += 2 * LEASE
        self.client.receive(submit(unique=b"u"))
        self.assertIn(b"Job could not be saved", self.first.heard(self.client))

    def test_one_that_has_its_lease_does_though_the_store_is_away(self) -> None:
        self.first.store.cut = True
        self.turn(LEASE / 2)
        self.first.commit()
        self.client.receive(submit(unique=b"u"))
        self.assertEqual(self.first.heard(self.client), res(8, FIRST))

    def test_a_job_that_another_server_has_now_is_not_saved_again(self) -> None:
        self.grab()
        self.pass_lease()
        # The first learns that its lease has ended, and its worker goes on.
        self.first.turn(2 * LEASE)
        self.first.commit()
        self.others_worker.receive(req(13, FIRST, b""))
        self.client.receive(submit(unique=b"u"))
        self.first.commit()
        self.assertEqual(self.first.heard(self.client), res(8, FIRST))
        self.worker.lose()
        self.assertEqual(self.first.factory.broker.total, 0)
        self.second.turn(REMOVAL_DELAY)
        self.second.commit()
        self.second.heard(self.others_worker)
        self.others_worker.receive(req(9))
        self.assertIn(FIRST, self.second.heard(self.others_worker))


class TakeOverTests(LateDuplicateTestCase):
    """The second server dies, and the answer to the first one's take-over of its jobs gets lost."""

    def setUp(self) -> None:
        super().setUp()
        self.sites[0] = self.first = self.site("first", store_ahead=2)
        self.client, self.admin, self.worker = self.first.connect(), self.first.connect(), self.first.worker()
        self.other.receive(submit(unique=b"v"), submit(unique=b"w"))
        self.second.commit()
        self.first.store.deaf = True
        while not self.first.store.unconfirmed:
            self.pass_time(LEASE / 10)
        self.first.store.deaf = False
        # A first write works; the renewal after that will find what it does not know of.
        self.now += 0.2
        self.first.turn(0.2)
        self.first.thread.run()
        self.client.receive(*[submit()] * 5)
        self.first.turn()
        self.assertEqual(len(self.first.store.unconfirmed), 3)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.first.turn(seconds)
        self.first.commit()

    def drain(self) -> list[bytes]:
        got = []
        for _ in range(30):
            self.worker.receive(req(9))
            heard = self.first.heard(self.worker)
            if heard != res(10):
                name = heard[12:].split(b"\0")[0]
                got.append(name)
                self.worker.receive(req(13, name, b""))
            self.pass_time(LEASE / 10)
        return got

    def test_its_jobs_run_once_and_are_counted_once(self) -> None:
        got = self.drain()
        self.assertEqual(len(got), len(set(got)))
        self.assertEqual(len(got), 8)
        self.assertEqual(self.database.jobs, {})
        self.assertEqual(
            (self.first.factory.broker.total, self.first.factory.inspection.may_have_stored_jobs), (0, True)
        )

    def test_they_cannot_be_cancelled_before_that_is_known(self) -> None:
        self.admin.receive(b"cancel job " + handle(1, start=2) + b"\n")
        self.first.thread.run_all()
        self.assertEqual(self.first.heard(self.admin), b"ERR UNKNOWN_JOB\r\n")
        self.assertEqual(len(self.drain()), 8)
        self.assertEqual(self.first.factory.broker.total, 0)


class OtherEndTests(LateDuplicateTestCase):
    def test_a_job_that_failed_or_was_cancelled(self) -> None:
        for end in (req(14, FIRST), req(25, FIRST, b""), None):
            with self.subTest(end=end):
                self.setUp()
                self.grab()
                if end is not None:
                    self.worker.receive(end)
                else:
                    self.admin.receive(b"cancel job " + FIRST + b"\n")
                    self.first.commit()
                self.first.heard(self.worker)
                self.turn(0.01)
                self.coalesce()
                self.check_run()

    def test_a_job_that_was_refused(self) -> None:
        self.grab()
        self.complete()
        self.settle()
        self.first.store.deaf = True
        self.client.receive(submit(unique=b"u"))
        self.first.commit()
        self.assertIn(b"Job could not be saved", self.first.heard(self.client))
        self.other.receive(submit(unique=b"u"))
        self.second.commit()
        self.assertEqual(self.second.heard(self.other), res(8, handle(2)))
        self.first.store.deaf = False
        self.settle()
        self.worker.receive(req(9), req(13, handle(2), b""))
        self.assertIn(handle(2), self.first.heard(self.worker))
        self.check_gone()

    def test_a_job_that_ended_while_it_was_being_saved(self) -> None:
        self.grab()
        self.complete()
        self.settle()
        self.client.receive(submit(unique=b"u", kind=7))
        self.assertEqual(self.first.heard(self.client), res(8, handle(2)))
        self.worker.receive(req(9))
        self.client.receive(submit(unique=b"u"))
        self.turn(0)
        # It is committed, and the first server does not know it yet.
        _, write, arguments = self.first.thread.calls[-1]
        written = write(*arguments)
        self.worker.receive(req(13, handle(2), b""))
        self.turn(0.01)
        self.other.receive(submit(unique=b"u"))
        self.second.commit()
        self.assertEqual(self.second.heard(self.other), res(8, handle(2)))
        self.turn(0.01)
        done, _, _ = self.first.thread.calls.pop()
        done.callback(written)
        self.settle()
        self.first.heard(self.worker)
        self.worker.receive(req(9), req(13, handle(2), b""))
        self.assertIn(handle(2), self.first.heard(self.worker))
        self.check_gone()

    def test_the_first_server_stops(self) -> None:
        self.grab()
        self.complete()
        self.turn(0.01)
        self.coalesce()
        self.first.stop()
        self.turn(LEASE)
        self.second.commit()
        worker = self.second.worker()
        worker.receive(req(9))
        self.assertIn(FIRST, self.second.heard(worker))

    def test_the_first_server_stops_and_the_submit_came_in_time(self) -> None:
        self.grab()
        self.coalesce()
        self.turn(0.01)
        self.complete()
        self.first.stop()
        self.assertEqual(self.database.jobs, {})

    def test_a_submit_to_the_first_server_joins_what_runs_again(self) -> None:
        self.grab()
        self.complete()
        self.turn(0.01)
        self.coalesce()
        self.client.receive(submit(unique=b"u"))
        self.first.commit()
        self.assertEqual(self.first.heard(self.client), res(8, FIRST))
        self.check_run()

    def test_one_to_the_first_server_makes_a_new_job_where_nothing_runs_again(self) -> None:
        self.grab()
        self.coalesce()
        self.turn(0.01)
        self.complete()
        self.client.receive(submit(unique=b"u"))
        self.first.commit()
        self.assertEqual(self.first.heard(self.client), res(8, handle(2)))
        self.settle()
        self.worker.receive(req(9), req(13, handle(2), b""))
        self.assertIn(handle(2), self.first.heard(self.worker))
        self.check_gone()
