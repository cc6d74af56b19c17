"""Long trials by destruction: ``python -m tests.chaos``. Exits 1 if anything happened that may not.

A seed repeats which blows are dealt in which order; in the middle of what they fall is up to the machine.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos import trial
from tests.chaos.crowd import Load
from tests.chaos.faults import FAULTS
from tests.chaos.trial import Plan, Report
from tests.chaos.verdict import SHOWN
from tests.databases import postgresql_programs
from tests.processes.servers import Failed

DEFAULT_SECONDS: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out what the command line says; the exit status."""
    chosen = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    seed = random.SystemRandom().randrange(1_000_000) if chosen.seed is None else chosen.seed
    broken = 0
    for store, servers in _arrangements(chosen):
        plan = Plan(
            store=store,
            faults=tuple(chosen.fault or trial.faults_for(store, servers)),
            seed=seed,
            servers=servers,
            blows=chosen.blows,
            seconds=chosen.seconds if chosen.seconds or chosen.blows else DEFAULT_SECONDS,
            lease=chosen.lease,
            logs=chosen.logs,
            load=Load(
                clients=chosen.clients,
                workers=chosen.workers,
                backlog=chosen.backlog,
                common_share=chosen.common,
                featured_share=chosen.featured,
            ),
        )
        print(f"{servers} server(s) on {store}, seed {seed}, faults: {', '.join(plan.faults)}", flush=True)
        try:
            report = trial.run(plan, _say if chosen.verbose else lambda _: None)
        except KeyboardInterrupt:
            print("interrupted; all that was started has ended")
            return 130
        except Failed as failure:
            print(f"BROKEN: {failure}")
            broken += 1
        else:
            print("\n".join([*told(report), ""]))
            broken += not report.verdict.ok
    return 1 if broken else 0


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    """SIGTERM ends a trial as Ctrl-C does: asyncio lets every clean-up run."""
    signal.raise_signal(signal.SIGINT)


def _arrangements(chosen: argparse.Namespace) -> list[tuple[str, int]]:
    """Stores with their numbers of servers: what was asked for, or all that this machine can have."""
    if chosen.store is not None:
        return [(chosen.store, chosen.servers or 1)]
    if postgresql_programs() is None:
        print("PostgreSQL is not installed: SQLite alone")
        return [("sqlite", 1)]
    return [("sqlite", 1), ("postgresql", 1), ("postgresql", 3)]


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--store",
        choices=("memory", "sqlite", "postgresql"),
        help="default: one server on sqlite, one on postgresql and three on postgresql, one after the other",
    )
    parser.add_argument("--servers", type=int, metavar="N", help="with --store postgresql, default 1")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this, repeatable")
    parser.add_argument("--blows", type=int, metavar="N", help="end after so many")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"end after so long; without --blows {DEFAULT_SECONDS:.0f}"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the blows of an earlier run")
    parser.add_argument(
        "--lease", type=float, default=10.0, metavar="S", help="of several servers, default 10"
    )
    parser.add_argument("--clients", type=int, default=Load().clients, metavar="N")
    parser.add_argument("--workers", type=int, default=Load().workers, metavar="N")
    parser.add_argument(
        "--backlog", type=int, default=Load().backlog, metavar="N", help="jobs that wait at most"
    )
    parser.add_argument(
        "--common",
        type=float,
        default=Load().common_share,
        metavar="SHARE",
        help=f"how many submits have one of a few uniques that all use, of 1, default {Load().common_share}",
    )
    parser.add_argument(
        "--featured",
        type=float,
        default=Load().featured_share,
        metavar="SHARE",
        help="how many submits are of functions with limits, kept results or kept uniques, of 1, "
        f"default {Load().featured_share}",
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where to keep the servers' logs")
    parser.add_argument("--verbose", action="store_true", help="tell of each blow")
    return parser


def told(report: Report) -> list[str]:
    """A report in lines."""
    verdict = report.verdict
    rows = [
        *sorted(verdict.counts.items()),
        *((f"again: {reason}", count) for reason, count in verdict.again.most_common()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {count:9,}" for name, count in rows]
    lines.append(f"{'starts of servers'.ljust(width)}  {report.starts:9,}")
    lines.append(f"{'seconds'.ljust(width)}  {report.seconds:9.1f}")
    lines.append(f"longest time from a job's end to a death that undid it: {verdict.longest_unremoved:.3f} s")
    if not verdict.ok:
        begin = report.history.begin
        lines += [
            f"{blow.begin - begin:8.3f} to {blow.over - begin:8.3f} s  {blow.kind}"
            f"{'' if blow.server is None else f', server {blow.server}'}"
            for blow in report.history.blows
        ]
    for kind, texts in verdict.faults.items():
        lines.append(f"FAULT: {kind}: {len(texts)}")
        lines += [f"    {text}" for text in texts[:SHOWN]]
    lines.append(f"seed {report.plan.seed}: {'kept' if verdict.ok else 'BROKEN'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
