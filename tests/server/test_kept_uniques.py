"""Uniques that are kept, on two servers with one database."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import req, res
from tests.server.sites import Site
from tests.server.test_writer import handle, submit
from tests.store.model import ModelDatabase
from txgearman.server.config.options import FunctionSettings
from txgearman.server.persistence.writer import REMOVAL_DELAY

FIRST = handle(1)


class TwoServersTests(SynchronousTestCase):
    """A job with a unique is completed on the first server; the second was there all the time."""

    def setUp(self) -> None:
        self.now = 0.0
        self.database = ModelDatabase(lambda: 5e8 + self.now)

    def run_on_the_first(self, **settings: FunctionSettings) -> None:
        self.first, self.second = (
            Site(name, self.database, lambda: 1e9 + self.now, functions=settings)
            for name in ("first", "second")
        )
        client, worker = self.first.connect(), self.first.worker()
        client.receive(req(26, b"submit-extended"))
        client.receive(req(1007, b"f", b"u", b"background=1\nunique_for=60", b""))
        self.first.commit()
        worker.receive(req(9), req(13, FIRST, b""))
        self.first.turn(REMOVAL_DELAY)
        self.first.commit()
        self.assertEqual(self.database.jobs, {})
        self.client = self.second.connect()

    def submitted(self, packet: bytes) -> bytes:
        self.client.receive(packet)
        self.second.commit()
        return self.second.heard(self.client)

    def test_a_submit_whose_unique_is_to_be_kept_is_answered_by_both(self) -> None:
        self.run_on_the_first(f=FunctionSettings(unique_for=60.0))
        self.assertEqual(self.submitted(submit(unique=b"u")), res(8, FIRST))
        self.assertEqual((self.database.jobs, self.second.factory.broker.total), ({}, 0))
        self.now += 60
        self.assertNotEqual(self.submitted(submit(unique=b"u")), res(8, FIRST))
        self.assertEqual(len(self.database.jobs), 1)

    def test_the_option_of_one_job_has_the_same_effect(self) -> None:
        self.run_on_the_first()
        self.client.receive(req(26, b"submit-extended"))
        self.second.heard(self.client)
        extended = req(1007, b"f", b"u", b"background=1\nunique_for=5", b"")
        self.assertEqual(self.submitted(extended), res(8, FIRST))
        self.assertEqual(self.database.jobs, {})

    def test_one_that_says_nothing_of_that_runs_on_the_other_server(self) -> None:
        """As docs/types_of_jobs.rst has it: the other server is asked for nothing that it need not know."""
        self.run_on_the_first()
        self.assertNotEqual(self.submitted(submit(unique=b"u")), res(8, FIRST))
        self.assertEqual(len(self.database.jobs), 1)

    def test_a_server_that_starts_later_knows(self) -> None:
        self.run_on_the_first()
        self.second.stop()
        self.second.start()
        self.client = self.second.connect()
        self.assertEqual(self.submitted(submit(unique=b"u")), res(8, FIRST))
        self.assertEqual(self.database.jobs, {})
