"""Measures txgearman against gearmand and against other clients and workers.

Run as ``python -m benchmarks.run``, with the interpreter of the venv.

Lives here: the command line, and which server or library meets which workload when. Never here: processes
(servers.py, libraries.py), loads (load.c, connections.c, programs/), numbers and tables (results.py,
report.py, plot.py).

Without options it takes less than eight minutes. Each workload is run in rounds, and in each round
on every server in turn, each freshly started; the ratio is the median of the rounds' ratios. Clients and
workers are compared in the same way, each as one process on a fresh gearmand.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import libraries, plot, report, servers, stores, workloads
from benchmarks.results import (
    COMPILED,
    FLOOR,
    THEIRS,
    Comparison,
    DepthRate,
    IdleMemory,
    JobMemory,
    LibraryComparison,
    Results,
    Sample,
    spread,
)
from benchmarks.workloads import LIBRARY_WORKLOADS, LOAD, OURS, WORKLOADS, LibraryWorkload, Workload

SHORT_ROUNDS: Final = 3
LONG_ROUNDS: Final = 5

LONG_ONLY: Final = ("depth", "memory", "idle")
"""Measurements that belong to ``--long``: rates of a deep queue, memory of jobs, memory of connections."""


TRANSPORTS: Final = {workloads.UNIX: servers.unix, workloads.TLS: servers.tls, workloads.WEB: servers.web}
"""What makes each transport."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs: servers, generators, a folder, databases, and how much to do."""

    kinds: dict[str, servers.Kind]
    generators: dict[str, Path]
    folder: Path
    stores: stores.Stores
    rounds: int
    long: bool

    @property
    def program(self) -> Path:
        """The compiled load.c."""
        return self.generators[LOAD]

    def compared(self) -> list[servers.Kind]:
        """txgearman and, where it is installed, gearmand."""
        return [self.kinds[name] for name in (OURS, THEIRS) if name in self.kinds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks as the command line says; the exit status."""
    chosen = _parser().parse_args(arguments)
    servers.end_by_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="txgearman-bench-") as folder, ExitStack() as stack:
            results = _measure_all(chosen, Path(folder), stack)
    except servers.BenchmarkFailed as failure:
        print(f"benchmarks: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; every server was stopped", file=sys.stderr)
        return 130
    print(report.as_text(results))
    _write_files(chosen, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    names = workloads.NAMES
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true", help="full counts, deep queues, memory")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=[*names, *LONG_ONLY],
        help=f"only this, repeatable: {', '.join((*names, *LONG_ONLY))}",
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"default {SHORT_ROUNDS}, with --long {LONG_ROUNDS}",
    )
    parser.add_argument("--compiled", action="store_true", help="measure the compiled build too")
    parser.add_argument("--gearmand", metavar="PATH", help="the C server; default: the installed one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the ratios as SVG")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="write the servers' tables as reStructuredText"
    )
    parser.add_argument("--library-table", type=Path, metavar="FILE", help="the same of clients and workers")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _measure_all(chosen: argparse.Namespace, folder: Path, stack: ExitStack) -> Results:
    rounds = chosen.rounds or (LONG_ROUNDS if chosen.long else SHORT_ROUNDS)
    bench = Bench(
        _kinds(chosen.gearmand, chosen.compiled, folder),
        servers.generators(folder),
        folder,
        stores.Stores(folder, stack),
        rounds,
        chosen.long,
    )
    servers.allow_open_files()
    names = chosen.only or [*workloads.NAMES, *(LONG_ONLY if chosen.long else ())]
    results = Results(_environment(bench))
    for workload in WORKLOADS:
        if workload.name in names and _is_possible(bench, workload):
            results.comparisons.append(_compare(bench, workload))
    measured = [workload for workload in LIBRARY_WORKLOADS if workload.name in names]
    if THEIRS in bench.kinds:
        found = libraries.programs(bench.program, folder)
        results.libraries.extend(_compare_libraries(bench, found, workload) for workload in measured)
    if "depth" in names:
        results.depths.extend(_depth(bench, name) for name in workloads.DEPTH_WORKLOADS)
    if "memory" in names:
        for kind in bench.compared():
            results.job_memory.extend(_job_memory(bench, kind, unique=unique) for unique in (False, True))
    if "idle" in names:
        results.idle_memory.extend(_idle_memory(bench, kind) for kind in bench.compared())
    return results


def _kinds(gearmand: str | None, compiled: bool, folder: Path) -> dict[str, servers.Kind]:
    kinds = {OURS: servers.txgearman(), FLOOR: servers.floor()}
    if compiled:
        _say("compiling")
        kinds[COMPILED] = servers.compiled(COMPILED, folder)
    theirs = servers.gearmand(gearmand)
    if theirs is None:
        print("benchmarks: gearmand is not installed: measuring txgearman alone", file=sys.stderr)
    else:
        kinds[THEIRS] = theirs
    return kinds


def _environment(bench: Bench) -> dict[str, Any]:
    return {
        **servers.machine(),
        "twisted": version("twisted"),
        "txgearman": version("txgearman"),
        "gearmand": servers.version_of(bench.kinds[THEIRS]) if THEIRS in bench.kinds else None,
        "rounds": bench.rounds,
        "long": bench.long,
    }


def _is_possible(bench: Bench, workload: Workload) -> bool:
    if workload.store is None or bench.stores.available(bench.kinds[OURS], workload.store):
        return True
    _say(f"{workload.name}: {workload.store} is not installed")
    return False


# -- the measurements ---------------------------------------------------------------------------


def _compare(bench: Bench, workload: Workload) -> Comparison:
    """All rounds of one workload: each round on each server in turn."""
    wanted = {OURS, THEIRS} if workload.store else {OURS, THEIRS, COMPILED}
    if workload.alone:
        wanted.remove(THEIRS)
    if workload.floor:
        wanted.add(FLOOR)
    kinds = [
        bench.kinds[name]
        for name in (OURS, THEIRS, COMPILED, FLOOR)
        if name in wanted & bench.kinds.keys()
        and (workload.store is None or bench.stores.available(bench.kinds[name], workload.store))
    ]
    comparison = Comparison({kind.name: [] for kind in kinds}, workload=workload)
    jobs = workload.long_jobs if bench.long else workload.jobs
    for turn in range(bench.rounds):
        for kind in kinds:
            times = workload.ours_times if kind.name in (OURS, COMPILED) else 1
            sample = _sample(bench, kind, workload, {"jobs": jobs * times})
            comparison.samples[kind.name].append(sample)
            _say(f"{workload.name} {turn + 1}/{bench.rounds}: {kind.name} {sample.rate:,.0f}/s")
    return comparison


def _sample(bench: Bench, kind: servers.Kind, workload: Workload, size: dict[str, int]) -> Sample:
    options = () if kind.name == FLOOR else workload.server_options
    if workload.store is not None:
        options += bench.stores.options(kind, workload.store)
    transport = None if workload.transport is None else TRANSPORTS[workload.transport](kind, bench.folder)
    with servers.running(kind, bench.folder, options, transport) as server:
        program = bench.generators[workload.generator]
        found = servers.load(program, workload.shape, server, {**workload.options, **size})
        peak = servers.memory_of(server.pid).peak
    return Sample(
        jobs=found["jobs"],
        rate=found["rate"],
        seconds=found["seconds"],
        p50=found["p50_us"],
        p99=found["p99_us"],
        noops=found["noops"],
        generator_cpu=found["generator_cpu"],
        server_cpu=found["server_cpu"],
        server_kernel=found["server_kernel"],
        machine_cpu=found["machine_cpu"],
        peak=peak,
    )


def _compare_libraries(
    bench: Bench, found: dict[str, dict[str, libraries.Program]], workload: LibraryWorkload
) -> LibraryComparison:
    """All rounds of one workload on gearmand: each round by each library in turn."""
    chosen = {
        library: roles[role]
        for library, roles in found.items()
        if (role := workload.instead.get(library, workload.role)) in roles
    }
    comparison = LibraryComparison({library: [] for library in chosen}, workload=workload)
    for turn in range(bench.rounds):
        for library, program in chosen.items():
            jobs = workload.others.get(library, workload.jobs) * (workloads.LONG_TIMES if bench.long else 1)
            with servers.running(bench.kinds[THEIRS], bench.folder) as server:
                sample = libraries.run(program, workload.role, jobs, server, bench.program)
            comparison.samples[library].append(sample)
            _say(f"{workload.name} {turn + 1}/{bench.rounds}: {library} {sample.rate:,.0f}/s")
    return comparison


def _depth(bench: Bench, name: str) -> DepthRate:
    """txgearman's own rate with few and with many jobs queued already."""
    workload = _named(name)
    rates: dict[int, list[float]] = {depth: [] for depth in workloads.DEPTHS}
    for turn in range(bench.rounds):
        for depth, found in rates.items():
            size = {"jobs": workloads.DEPTH_JOBS, "depth": depth}
            found.append(_sample(bench, bench.kinds[OURS], workload, size).rate)
            _say(f"{name} {turn + 1}/{bench.rounds}: {depth:,} deep {found[-1]:,.0f}/s")
    shallow, deep = workloads.DEPTHS
    ratios = [low / high for low, high in zip(rates[deep], rates[shallow], strict=True)]
    return DepthRate(name, shallow, deep, median(rates[shallow]), median(rates[deep]), spread(ratios))


def _job_memory(bench: Bench, kind: servers.Kind, *, unique: bool) -> JobMemory:
    """Memory of one server before, with, and after a queue of jobs."""
    jobs = {"jobs": workloads.MEMORY_JOBS}
    submit = _named("submit-unique" if unique else "submit")
    drain = _named("drain")
    with servers.running(kind, bench.folder) as server:
        fresh = servers.memory_of(server.pid).resident
        servers.load(bench.program, submit.shape, server, {**submit.options, **jobs})
        full = servers.memory_of(server.pid).resident
        servers.load(bench.program, drain.shape, server, {**drain.options, **jobs, "prefilled": 1})
        # Both servers have the same time to give memory back.
        time.sleep(workloads.SETTLE_SECONDS)
        drained = servers.memory_of(server.pid).resident
    row = JobMemory(kind.name, unique, workloads.MEMORY_JOBS, fresh, full, drained)
    _say(f"memory of jobs: {kind.name} {row.per_job:,.0f} bytes per job")
    return row


def _idle_memory(bench: Bench, kind: servers.Kind) -> IdleMemory:
    """Memory of one server before and with many idle connections."""
    count = workloads.IDLE_CONNECTIONS
    with servers.running(kind, bench.folder) as server:
        fresh = servers.memory_of(server.pid).resident
        with servers.idle_connections(bench.program, server, count):
            full = servers.memory_of(server.pid).resident
    row = IdleMemory(kind.name, count, fresh, full)
    _say(f"memory of idle connections: {kind.name} {row.per_connection:,.0f} bytes per connection")
    return row


def _named(name: str) -> Workload:
    return next(workload for workload in WORKLOADS if workload.name == name)


# -- output -------------------------------------------------------------------------------------


def _say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def _write_files(chosen: argparse.Namespace, results: Results) -> None:
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(results.as_json(), indent=2) + "\n", encoding="utf-8")
    if chosen.table is not None:
        chosen.table.write_text(report.as_rst(report.of_servers(results)), encoding="utf-8")
    if chosen.library_table is not None:
        chosen.library_table.write_text(report.as_rst(report.of_libraries(results)), encoding="utf-8")
    if chosen.plot is not None:
        bars = [
            plot.Bar(row.workload.name, ratio, row.workload.target)
            for row in results.comparisons
            if (ratio := row.ratio(THEIRS)) is not None
        ]
        if bars:
            chosen.plot.write_text(plot.bar_chart("txgearman / gearmand, jobs per second", bars), "utf-8")
        else:
            _say("nothing was compared with gearmand: no plot")


if __name__ == "__main__":
    sys.exit(main())
