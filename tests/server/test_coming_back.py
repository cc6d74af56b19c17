"""A job that its server lost with its lease, that goes on here, and that a take-over brings back.

Its worker goes on with it, so it may be coalesced with, saved once more under its number, and end, while its
row is still to be taken over. Three things may then be pending for the number: the take-over's answer, a
save, and a removal. Each order that the store's thread allows has a test; in each the job must not be removed
while somebody was told that it is accepted.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import req, res
from tests.server.sites import LEASE, Site
from tests.server.test_writer import handle, submit
from tests.store.model import ModelDatabase
from txgearman.server.persistence.lease import RENEWALS
from txgearman.server.persistence.writer import REMOVAL_DELAY

JOB = handle(1)


class ComingBackTests(SynchronousTestCase):
    """A worker has a job, and its server has just lost its lease and has a new one."""

    def setUp(self) -> None:
        self.now = 0.0
        self.database = ModelDatabase(lambda: 5e8 + self.now)
        self.site = Site("here", self.database, lambda: 1e9 + self.now)
        self.client, self.admin = self.site.connect(), self.site.connect()
        self.worker = self.site.worker()
        self.assertEqual(self.submit(), res(8, JOB))
        self.worker.receive(req(9))
        self.assertIn(JOB, self.site.heard(self.worker))
        self.database.leases[self.site.store.start].dead = True
        self.turn(LEASE / RENEWALS)
        self.site.thread.run()  # It hears that its lease is lost,
        self.site.thread.run()  # and opens the store anew.
        self.assertEqual(self.site.thread.calls, [])
        self.assertEqual(self.database.starts, 2)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.site.turn(seconds)

    def submit(self) -> bytes:
        """The same submit; returns the answer."""
        self.client.receive(submit(unique=b"u"))
        self.site.commit()
        return self.site.heard(self.client)

    def begin_take_over(self) -> None:
        """The thread is about to take over what this server had."""
        self.turn(LEASE / RENEWALS)
        self.site.thread.run()
        self.assertEqual(self.calls(), ["take_over"])

    def begin_save(self) -> None:
        """The same is submitted again; the thread is about to save the job once more."""
        self.client.receive(submit(unique=b"u"))
        self.site.turn()

    def calls(self) -> list[str]:
        return [function.__name__ for _, function, _ in self.site.thread.calls]

    def cancel(self) -> None:
        self.admin.receive(b"cancel job " + JOB + b"\n")
        self.assertEqual(self.site.heard(self.admin), b"OK\r\n")

    def settle(self) -> None:
        """Let the server write what it has to."""
        self.site.store.cut = self.site.store.deaf = False
        for _ in range(20):
            self.turn(LEASE / RENEWALS / 20)
            self.site.commit()
        self.site.heard(self.client)

    def check_kept(self) -> None:
        """The job is in the database, once, and runs also if the server is killed."""
        self.settle()
        self.assertEqual([job.handle for job in self.database.jobs.values()], [JOB])
        self.assertEqual(self.site.factory.broker.total, 1)
        self.site.start()
        self.database.leases[self.site.store.start - 1].dead = True
        worker = self.site.worker()
        self.settle()
        worker.receive(req(9), req(13, JOB, b""))
        self.assertIn(JOB, self.site.heard(worker))
        self.settle()
        self.assertEqual(self.database.jobs, {})

    def test_it_is_cancelled_while_it_is_saved_behind_the_take_over(self) -> None:
        self.begin_take_over()
        self.begin_save()
        self.cancel()
        self.assertEqual(self.calls(), ["take_over", "write"])
        self.site.thread.run()
        self.site.thread.run()
        # It lives again, and this is coalesced with it.
        self.assertEqual(self.submit(), res(8, JOB) * 2)
        self.check_kept()

    def test_the_save_behind_the_take_over_fails(self) -> None:
        for commits in (False, True):
            self.setUp()
            self.begin_take_over()
            self.begin_save()
            self.site.thread.run()
            self.site.store.cut, self.site.store.deaf = not commits, commits
            self.site.thread.run()
            self.assertIn(b"QUEUE_ERROR", self.site.heard(self.client))
            self.check_kept()

    def test_a_save_fails_ahead_of_the_take_over(self) -> None:
        """What was refused is to be removed, and that is the job of the first submit. The removal waits for
        the end of a backoff, or is behind the take-over in the thread."""
        for under_way in (False, True):
            self.setUp()
            self.turn(LEASE / RENEWALS)
            self.begin_save()
            self.assertEqual(self.calls(), ["renew", "write"])
            self.site.thread.run()
            self.assertEqual(self.calls(), ["write", "take_over"])
            self.site.store.cut = True
            self.site.thread.run()
            self.site.store.cut = False
            self.assertIn(b"QUEUE_ERROR", self.site.heard(self.client))
            self.turn(REMOVAL_DELAY if not under_way else 1)
            self.assertEqual(self.calls(), ["take_over", "write"][: 1 + under_way])
            self.site.thread.run()
            self.check_kept()

    def test_it_has_ended_when_the_take_over_is_confirmed(self) -> None:
        """The answer of the take-over was lost, so that its jobs come once more."""
        for under_way in (False, True):
            self.setUp()
            self.begin_take_over()
            self.begin_save()
            self.site.store.deaf = True
            self.site.thread.run()
            self.site.store.deaf = False
            self.worker.receive(req(13, JOB, b""))
            self.site.thread.run()
            self.assertEqual(self.site.heard(self.client), res(8, JOB))
            self.site.store_writer.lease.renew()
            self.site.thread.run()
            self.assertEqual(self.calls(), ["take_over"])
            self.turn(REMOVAL_DELAY if under_way else 0)
            self.assertEqual(self.calls(), ["take_over", "write"][: 1 + under_way])
            self.site.thread.run()
            self.assertEqual(self.site.factory.broker.total, 0, "it was done")
            self.settle()
            self.assertEqual(self.database.jobs, {})
