"""The harness sees what there is to see, on real servers. ``make attack`` runs the attacks themselves."""

from __future__ import annotations

from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.attack import broken, trial
from tests.attack.attack import Attack, Target
from tests.processes.packets import Type, request


class Telling(Attack):
    """Says words that harm a server that is broken, and no other."""

    name = "telling"
    about = "Tells a server to do harm."
    words: ClassVar = (broken.STALL, broken.KEEP, broken.FAIL, broken.LOSE)

    def run(self, target: Target) -> None:
        for word in self.words:
            target.connect().send(request(Type.ECHO_REQ, word))
        target.fault("what the attacker saw")


class TrialsTest(SynchronousTestCase):
    """How long an echo takes on a busy machine is not asserted."""

    def test_a_server_that_does_harm(self) -> None:
        # Memory that stays is waited for.
        self.patch(trial, "AFTERMATH", 2.0)
        result = trial.run(Telling(), 10.0, 1, f"{broken.__name__}.{broken.harms_when_told.__name__}")
        found = result.broken()
        for wanted in ("an echo took", "MiB stayed", "tracebacks", "honest jobs were lost", "attacker saw"):
            self.assertTrue([text for text in found if wanted in text], (wanted, found))
        self.assertGreaterEqual(result.stall, broken.STALL_SECONDS * 0.9)

    def test_a_server_that_does_none(self) -> None:
        result = trial.run(Telling(), 10.0, 1)
        self.assertEqual(result.faults, ["what the attacker saw"])
        self.assertEqual((result.tracebacks, result.lost, result.refused), (0, 0, 0))
        self.assertGreater(min(result.echoes, result.jobs), 10)
        self.assertLess(result.after - result.before, result.bounds.left)
