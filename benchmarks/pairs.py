"""Measures what a change costs: the server of this checkout and that of another revision, in turn.

Run as ``python -m benchmarks.pairs REVISION``, with the interpreter of the venv.

Lives here: the revision's copy, the order of the runs, and the table. Never here: processes (servers.py),
loads (load.c, connections.c), and which workloads there are (workloads.py).

What is compared is the server's processor time for a job. A rate would also show what the load generator and
other processes did. Each pair runs one workload on both servers, each freshly started. The two of a pair take
turns in going first. The result is the median of the pairs' ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks import servers
from benchmarks.run import TRANSPORTS
from benchmarks.workloads import WORKLOADS, Workload

PAIRS: Final = 10
"""Pairs for each workload, unless the command line says otherwise."""

IN_MEMORY: Final = tuple(workload for workload in WORKLOADS if workload.store is None)
"""Workloads that need no database."""

_CHECKOUT: Final = servers.HERE.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pairs as the command line says; the exit status."""
    chosen = _parser().parse_args(arguments)
    servers.end_by_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="txgearman-pairs-") as folder:
            _run(chosen, Path(folder))
    except servers.BenchmarkFailed as failure:
        print(f"benchmarks: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; every server was stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    names = [workload.name for workload in IN_MEMORY]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__.split("\n")[0])
    parser.add_argument("revision", help="what to compare with, as git names it")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"default {PAIRS}")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"only this workload, repeatable: {', '.join(names)}",
    )
    parser.add_argument("--compiled", action="store_true", help="compile both")
    return parser


def _run(chosen: argparse.Namespace, folder: Path) -> None:
    before, after = _unpack(chosen.revision, folder / "before"), _CHECKOUT
    kinds = [servers.txgearman(name, package) for name, package in (("before", before), ("after", after))]
    if chosen.compiled:
        kinds = [
            servers.compiled(kind.name, folder / f"{kind.name}-build", package)
            for kind, package in zip(kinds, (before, after), strict=True)
        ]
    generators = servers.generators(folder)
    servers.allow_open_files()
    print(f"{'workload':<20}{'before':>12}{'after':>12}{'ratio':>9}{'quartiles':>17}")
    for workload in IN_MEMORY:
        if chosen.only and workload.name not in chosen.only:
            continue
        spent: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        for pair in range(chosen.pairs):
            for kind in kinds if pair % 2 else reversed(kinds):
                spent[kind.name].append(_cost(generators[workload.generator], kind, workload, folder))
        print(_row(workload.name, spent["before"], spent["after"]), flush=True)


def _unpack(revision: str, folder: Path) -> Path:
    """The files of a revision, in a folder. Raises `BenchmarkFailed`."""
    archive = subprocess.run(["git", "archive", revision], cwd=_CHECKOUT, capture_output=True, check=False)
    if archive.returncode:
        raise servers.BenchmarkFailed(archive.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def _cost(program: Path, kind: servers.Kind, workload: Workload, folder: Path) -> float:
    """Microseconds of the server's processor time for a job."""
    size = {"jobs": workload.jobs * workload.ours_times}
    transport = None if workload.transport is None else TRANSPORTS[workload.transport](kind, folder)
    with servers.running(kind, folder, workload.server_options, transport) as server:
        found = servers.load(program, workload.shape, server, {**workload.options, **size})
    return float(found["server_cpu"]) / int(found["jobs"]) * 1e6


def _row(name: str, before: list[float], after: list[float]) -> str:
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return (
        f"{name:<20}{median(before):>9.2f} µs{median(after):>9.2f} µs{median(ratios):>9.3f}{low:>9.3f}"
        f"..{high:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
