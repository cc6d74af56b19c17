"""The tables of the benchmarks say what was measured."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.report import Table, of_servers
from benchmarks.results import COMPILED, THEIRS, Comparison, Results, Sample
from benchmarks.workloads import OURS, WORKLOADS

DRAIN = next(workload for workload in WORKLOADS if workload.name == "drain")
HERD = next(workload for workload in WORKLOADS if workload.name == "herd")

GEARMAND = Sample(
    jobs=1000,
    rate=20_000.0,
    seconds=0.05,
    p50=None,
    p99=None,
    noops=0,
    generator_cpu=0.01,
    server_cpu=0.04,
    server_kernel=0.03,
    machine_cpu=0.05,
    peak=1,
)
PLAIN = dataclasses.replace(GEARMAND, server_cpu=0.03, server_kernel=0.01)
BUILT = dataclasses.replace(GEARMAND, server_cpu=0.01, server_kernel=0.005)


def tables(*comparisons: Comparison) -> list[Table]:
    results = Results(comparisons=list(comparisons), environment={"cores": 2})
    return of_servers(results)


class ProcessorTimeTest(SynchronousTestCase):
    def test_it_comes_first_with_the_part_of_the_kernel(self) -> None:
        samples = {OURS: [PLAIN], COMPILED: [BUILT], THEIRS: [GEARMAND]}
        first = tables(Comparison(samples=samples, workload=DRAIN))[0]
        self.assertEqual(first.title, "The server's processor time for a job")
        self.assertEqual(
            first.rows,
            [
                ("drain", "plain", "30.0 / 40.0", "0.75", "0.75..0.75", "n/a", "10.0 / 30.0"),
                ("drain", "compiled", "10.0 / 40.0", "0.25", "0.25..0.25", "0.3 met", "5.0 / 30.0"),
            ],
        )

    def test_the_ratio_is_that_of_each_round(self) -> None:
        slow = dataclasses.replace(BUILT, server_cpu=0.03), dataclasses.replace(GEARMAND, server_cpu=0.06)
        samples = {OURS: [PLAIN, PLAIN], COMPILED: [BUILT, slow[0]], THEIRS: [GEARMAND, slow[1]]}
        row = tables(Comparison(samples=samples, workload=DRAIN))[0].rows[1]
        # 10 of 40 µs, and 30 of 60.
        self.assertEqual(row[3:6], ("0.38", "0.25..0.50", "0.3 missed"))

    def test_without_gearmand_there_is_no_ratio(self) -> None:
        rows = tables(Comparison(samples={OURS: [PLAIN]}, workload=DRAIN))[0].rows
        self.assertEqual(rows, [("drain", "plain", "30.0 / n/a", "n/a", "n/a", "n/a", "10.0 / n/a")])

    def test_what_is_less_than_the_kernel_counts_has_no_ratio(self) -> None:
        nothing = dataclasses.replace(GEARMAND, server_cpu=0.0, server_kernel=0.0)
        comparison = Comparison(samples={OURS: [PLAIN], THEIRS: [nothing]}, workload=HERD)
        self.assertIsNone(comparison.cost(THEIRS))
