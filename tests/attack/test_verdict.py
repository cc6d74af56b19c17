"""Each bound breaks one past it and not at it, and the table says so."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.attack.__main__ import told
from tests.attack.attack import Bounds
from tests.attack.catalogue import ATTACKS
from tests.attack.trial import Result
from tests.support import table

BOUNDS = Bounds(stall=0.25, peak=100, left=50, log_lines=20, log_line=1_000)

AT: dict[str, Any] = {
    "echoes": 1,
    "jobs": 1,
    "stall": 0.25,
    "before": 60.0,
    "most": 160.0,
    "after": 110.0,
    "log_lines": 20,
    "log_line": 1_000,
}
"""What is just within them."""


class VerdictTest(SynchronousTestCase):
    def result(self, **changes: Any) -> Result:
        return Result("tried", BOUNDS, **(AT | changes))

    def test_at_the_bounds(self) -> None:
        self.assertEqual(self.result().broken(), [])

    def test_one_past_each(self) -> None:
        for changes, text in (
            ({"stall": 0.26}, "an echo took 0.26 s, at most 0.25"),
            ({"most": 161.0}, "memory grew by 101 MiB, at most 100"),
            ({"after": 111.0}, "51 MiB stayed, at most 50"),
            ({"log_lines": 21}, "21 log lines, at most 20"),
            ({"log_line": 1_001}, "a log line of 1001 bytes, at most 1000"),
            ({"tracebacks": 1}, "1 tracebacks"),
            ({"lost": 1}, "1 honest jobs were lost"),
            ({"refused": 1}, "1 honest jobs were refused"),
            ({"echoes": 0}, "the honest peers were never served"),
            ({"jobs": 0}, "the honest peers were never served"),
            ({"faults": ["seen"]}, "seen"),
        ):
            self.assertEqual(self.result(**changes).broken(), [text])

    def test_refusals_where_a_limit_is_used_up(self) -> None:
        result = Result("tried", Bounds(refusals=True), echoes=1, jobs=1, refused=5)
        self.assertEqual(result.broken(), [])

    def test_table(self) -> None:
        lines = told([self.result(finished=True), self.result(stall=1.5, lost=2)])
        self.assertEqual(lines[2].split()[1:4], ["250", "60", "160"])
        self.assertEqual([line.split("  ")[-1] for line in lines[2:4]], ["held", "BROKEN, unfinished"])
        self.assertEqual(
            lines[4:],
            ["", "tried:", "    an echo took 1.50 s, at most 0.25", "    2 honest jobs were lost"],
        )


class CatalogueTest(SynchronousTestCase):
    def test_docs_say_what_was_tried(self) -> None:
        rows = [row[:2] for row in table("security.rst", "Attack")]
        attacks = [[f"``{name}``", attack.about] for name, attack in ATTACKS.items()]
        self.assertEqual(rows, attacks)
