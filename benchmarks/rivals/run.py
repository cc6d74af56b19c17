"""Measures txgearman beside Celery, RQ, Dramatiq, Huey and arq on Redis.

Run as ``make bench-rivals``, which installs them, or as ``python -m benchmarks.rivals.run`` with the
interpreter of the venv.

Lives here: the command line, and what is run how often. In each round every job system is measured in turn,
each time with a fresh broker; figures are the medians of the rounds. Without options it takes less than six
minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import report, servers, stores
from benchmarks.report import NONE
from benchmarks.rivals import brokers, tables
from benchmarks.rivals.brokers import EVERY_ANSWER, EVERY_SECOND, MEMORY, Brokers, Keeping
from benchmarks.rivals.catalogue import OURS, REDIS, RIVALS, Rival, WorkerForm, missing
from benchmarks.rivals.contract import CALL, EACH
from benchmarks.rivals.measure import Measure
from benchmarks.rivals.results import Results

ROUNDS: Final = 2
LONG_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs in one measurement, the same for all job systems.

    `memory` and `durable` are enqueued and worked off, `calls` waited for, `size` queued to see what they
    take.
    """

    memory: int
    durable: int
    calls: int
    size: int


SHORT: Final = Counts(memory=2_000, durable=500, calls=300, size=20_000)
LONG: Final = Counts(memory=10_000, durable=2_000, calls=2_000, size=1_000_000)

PARTS: Final = ("memory", "durable", "calls", "size")
"""What can be measured alone: enqueueing and working in memory, the same with a disk, calls, and the memory
that queued jobs take."""


@dataclass(frozen=True, slots=True)
class Through:
    """One run of jobs through a broker: by which client's role, which worker, and what keeps them."""

    rival: Rival
    role: str
    form: WorkerForm
    keeping: Keeping


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison as the command line says; the exit status."""
    chosen = _parser().parse_args(arguments)
    servers.end_by_sigterm()
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="txgearman-rivals-") as folder, ExitStack() as stack:
            results = _measure_all(chosen, Path(folder), stack)
    except servers.BenchmarkFailed as failure:
        print(f"rivals: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rivals: interrupted; every process was ended", file=sys.stderr)
        return 130
    made = tables.of(results)
    print(report.as_plain(made))
    if chosen.table is not None:
        chosen.table.write_text(report.as_rst(made), encoding="utf-8")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(results.as_json(), indent=2) + "\n", encoding="utf-8")
    _say(f"it took {time.monotonic() - began:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    names = [rival.name for rival in RIVALS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rivals.run", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--long", action="store_true", help="more jobs, and a million for their size")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"default {ROUNDS}, with --long {LONG_ROUNDS}"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=names,
        help=f"only this, repeatable: {', '.join(names)}",
    )
    parser.add_argument(
        "--part",
        action="append",
        metavar="PART",
        choices=PARTS,
        help=f"only this, repeatable: {', '.join(PARTS)}",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the tables as reStructuredText")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    return parser


def _measure_all(chosen: argparse.Namespace, folder: Path, stack: ExitStack) -> Results:
    wanted = [rival for rival in RIVALS if chosen.only is None or rival.name in chosen.only]
    rounds = chosen.rounds or (LONG_ROUNDS if chosen.long else ROUNDS)
    counts = LONG if chosen.long else SHORT
    results = Results({**servers.machine(), "rounds": rounds, **asdict(counts)})
    rivals = []
    for rival in wanted:
        reason = missing(rival)
        if reason is None:
            rivals.append(rival)
            results.versions[rival.name] = dict(rival.versions())
        else:
            results.skipped[rival.name] = reason
            _say(f"{rival.name} is skipped: {reason}")
    if any(rival.broker == REDIS for rival in rivals):
        results.versions["Redis"] = {"redis-server": brokers.redis_version()}
    measure = Measure(Brokers(folder, stack), folder)
    parts = chosen.part or PARTS
    runs = []
    if "memory" in parts:
        runs += [(run, counts.memory) for run in _runs(measure, rivals, (MEMORY,))]
    if "durable" in parts:
        runs += [(run, counts.durable) for run in _runs(measure, rivals, (EVERY_SECOND, EVERY_ANSWER))]
    for turn in range(rounds):
        _say(f"round {turn + 1} of {rounds}")
        for run, jobs in runs:
            _through(measure, results, run, jobs)
        if "calls" in parts:
            for rival in rivals:
                _call(measure, results, rival, counts.calls)
    if "size" in parts:
        for rival in rivals:
            _remember(measure, results, rival, counts.size)
    return results


def _runs(measure: Measure, rivals: Sequence[Rival], levels: Sequence[str]) -> list[Through]:
    """What is enqueued and worked off in a round: in memory by each form of worker, durably by the first."""
    found = []
    for level, rival in itertools.product(levels, rivals):
        roles = [role for role in rival.roles if role != CALL]
        forms = rival.workers if level == MEMORY else rival.workers[:1]
        if level == EVERY_SECOND:
            roles = [EACH]
        for keeping in measure.brokers.keepings(rival.broker, level):
            if keeping.store == stores.POSTGRESQL and rival.name != OURS:
                # The client makes no difference to the store.
                continue
            count = max(len(roles), len(forms))
            found += [
                Through(rival, role, form, keeping)
                for _, role, form in zip(range(count), itertools.cycle(roles), itertools.cycle(forms))
            ]
    return found


def _through(measure: Measure, results: Results, run: Through, jobs: int) -> None:
    enqueued, worked = measure.through(run.rival, run.role, run.form, run.keeping, jobs)
    name, keeping = run.rival.name, run.keeping.name
    results.enqueued.setdefault((name, run.role, keeping), []).append(enqueued)
    results.worked.setdefault((name, run.form.name, keeping), []).append(worked)
    _say(
        f"{name}, {keeping}: {run.role} {enqueued.rate:,.0f}/s, {run.form.name} {worked.rate:,.0f}/s, "
        f"{NONE if worked.worker_cpu is None else f'{worked.worker_cpu * 1e6:,.0f}'} µs"
    )


def _call(measure: Measure, results: Results, rival: Rival, calls: int) -> None:
    form = rival.workers[0]
    keeping = measure.brokers.keepings(rival.broker, MEMORY)[0]
    called = measure.call(rival, form, keeping, calls)
    results.called.setdefault((rival.name, form.name), []).append(called)
    _say(f"{rival.name}: {called.p50 * 1e6:,.0f} µs from submit to result")


def _remember(measure: Measure, results: Results, rival: Rival, jobs: int) -> None:
    if rival.broker == OURS and rival.name != OURS:
        # What the server needs for a job does not depend on the client.
        return
    keeping = measure.brokers.keepings(rival.broker, MEMORY)[0]
    remembered = measure.memory(rival, keeping, jobs)
    results.remembered[rival.name] = remembered
    _say(f"{rival.name}: {remembered.per_job:,.0f} bytes per job")


def _say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
