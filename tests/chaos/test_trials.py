"""Short trials by destruction with real processes. ``make chaos`` runs long ones.

Each has a seed, so that it deals the same blows each time; when they fall is up to the machine.
"""

from __future__ import annotations

import importlib.util
import unittest
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.__main__ import told
from tests.chaos.crowd import Load
from tests.chaos.trial import Plan, Report, run
from tests.chaos.verdict import LATE_DUPLICATE
from tests.databases import needs_postgresql
from tests.support import needs_program

WITHOUT_SQLITE = "" if importlib.util.find_spec("sqlalchemy") else "not installed: sqlalchemy"

LEASE = 1.5
"""Seconds: a lease that ends while a trial waits for it."""


SAME = Load(common_share=0.7, unique_share=0.1)
"""Clients that mostly submit what others submit elsewhere."""


TRIED = ("turns, limited", "turns, limited by key", "cancelled", "results: completed")
"""What a trial counts where it judges limits, cancels and results."""


class Trials(SynchronousTestCase):
    """What all have."""

    def assert_kept(self, report: Report, *, blows: int, jobs: int = 100) -> None:
        """Nothing was broken that was promised, and enough was tried."""
        table = "\n".join(told(report))
        self.assertTrue(report.verdict.ok, table)
        self.assertGreaterEqual(len(report.history.blows), blows, table)
        self.assertGreaterEqual(report.verdict.counts["acknowledged"], jobs, table)
        for tried in TRIED:
            self.assertTrue(report.verdict.counts[tried], table)

    def assert_found(self, plan: Plan, *kinds: str, trials: int = 3) -> None:
        """The mistake is found, under one of these names, in one of so many trials.

        One is enough where the server accepted a job ahead of the blow. On a busy machine it may not have.
        """
        for seed in range(plan.seed, plan.seed + trials):
            report = run(replace(plan, seed=seed))
            if set(kinds) & set(report.verdict.faults):
                return
        self.fail("\n".join(told(report)))


@unittest.skipIf(WITHOUT_SQLITE, WITHOUT_SQLITE)
class SqliteTest(Trials):
    """One server on a file."""

    def test_killed_again_and_again(self) -> None:
        self.assert_kept(run(Plan("sqlite", blows=12, seed=1, calm=0.5)), blows=12)

    def test_all_that_may_happen(self) -> None:
        plan = Plan("sqlite", ("kill", "stop", "pause", "full"), blows=8, seed=4, calm=0.5)
        self.assert_kept(run(plan), blows=8)

    @needs_program("cc")
    def test_power_lost(self) -> None:
        self.assert_kept(run(Plan("sqlite", ("power",), blows=8, seed=1, calm=0.5)), blows=8)


@unittest.skipIf(WITHOUT_SQLITE, WITHOUT_SQLITE)
class MistakesTest(Trials):
    """A trial that finds nothing proves something only if it finds what is there."""

    def test_no_store(self) -> None:
        self.assert_found(Plan("memory", blows=1, seed=1), "lost")

    def test_answers_ahead_of_the_commit(self) -> None:
        self.assert_found(Plan("sqlite", blows=2, seed=1, mistake="answers_early"), "lost")

    @needs_program("cc")
    def test_commits_that_are_not_synced(self) -> None:
        plan = Plan("sqlite", ("power",), blows=2, seed=1, mistake="syncs_nothing")
        self.assert_found(plan, "lost")

    def test_handles_that_repeat(self) -> None:
        self.assert_found(Plan("sqlite", blows=1, seed=1, mistake="repeats_handles"), "a handle given twice")

    def test_dead_jobs_that_are_not_kept(self) -> None:
        self.assert_found(Plan("sqlite", blows=1, seed=1, mistake="buries_nothing"), "lost")

    def test_jobs_that_are_never_removed(self) -> None:
        self.assert_found(
            Plan("sqlite", blows=1, seed=1, mistake="removes_nothing"), "ran behind a clean stop"
        )


@needs_postgresql
class PostgresqlTest(Trials):
    """One server on a database that dies too, and whose connections are broken."""

    def test_all_that_may_happen(self) -> None:
        faults = ("kill", "stop", "database", "database-and-kill", "cut", "stall", "deaf")
        plan = Plan("postgresql", faults, blows=7, seed=2, calm=0.5, lease=LEASE)
        self.assert_kept(run(plan), blows=7)


@needs_postgresql
class ClusterTest(Trials):
    """Three servers on one database."""

    def test_one_of_three_is_killed_or_paused(self) -> None:
        plan = Plan(
            "postgresql",
            ("kill", "kill-all", "stop", "pause"),
            seed=3,
            servers=3,
            blows=6,
            calm=0.5,
            lease=LEASE,
        )
        self.assert_kept(run(plan), blows=6)

    def test_one_of_two_is_paused_with_a_job_in_its_hands(self) -> None:
        plan = Plan("postgresql", ("pause-giving",), seed=2, servers=2, blows=2, calm=0.2, lease=LEASE)
        self.assert_kept(run(plan), blows=2)

    def test_the_same_submits_to_all(self) -> None:
        # Nearly each trial has submits that join a job late; one of these few must.
        for seed in range(5, 9):
            plan = Plan("postgresql", ("kill", "deaf"), seed=seed, servers=3, blows=3, lease=LEASE, load=SAME)
            report = run(plan)
            self.assert_kept(report, blows=3)
            if LATE_DUPLICATE in report.verdict.again:
                return
        self.fail("nobody joined late")

    def test_those_that_come_late_and_are_taken_for_early(self) -> None:
        plan = Plan("postgresql", seed=1, servers=2, blows=6, lease=LEASE, load=SAME)
        # Two servers must be at the same job within milliseconds: most trials have that, not each.
        self.assert_found(replace(plan, mistake="takes_late_duplicates_for_early"), "lost", trials=6)

    def test_all_that_may_happen(self) -> None:
        faults = ("kill", "pause", "database", "cut", "stall", "deaf")
        plan = Plan("postgresql", faults, seed=6, servers=3, blows=5, calm=0.5, lease=LEASE)
        self.assert_kept(run(plan), blows=5)
