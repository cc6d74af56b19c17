"""Attacks one by one, and a table of what they came to. Exits 1 if a bound is broken.

Each attack has a fresh server, to which honest peers are connected all the while. A stall is the longest time
that one of these waited for an echo, without the time in which other programs had the processor.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import types
from collections.abc import Sequence
from typing import Final

from tests.attack import trial
from tests.attack.catalogue import ATTACKS
from tests.attack.trial import Result

DEFAULT_SECONDS: Final = 30.0
"""For each attack at most. Most need a tenth of it; the fuzzers use all."""

COLUMNS: Final = ("attack", "stall", "before", "most", "after", "log", "errors", "lost", "time", "verdict")
UNITS: Final = ("", "ms", "MiB", "MiB", "MiB", "lines", "", "jobs", "s", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out what the command line says; the exit status."""
    chosen = _parser().parse_args(arguments)
    if chosen.list:
        width = max(map(len, ATTACKS))
        print("\n".join(f"{name.ljust(width)}  {attack.about}" for name, attack in ATTACKS.items()))
        return 0
    # A shell starts programs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    seed = random.SystemRandom().randrange(1_000_000) if chosen.seed is None else chosen.seed
    names = chosen.only or list(ATTACKS)
    results: list[Result] = []
    print(f"{len(names)} attacks, seed {seed}", flush=True)
    try:
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results.append(trial.run(ATTACKS[name](), chosen.seconds, seed))
    except KeyboardInterrupt:
        print("interrupted; all that was started has ended")
        print("\n".join(told(results)))
        return 130
    print("\n".join(told(results)))
    return 1 if any(result.broken() for result in results) else 0


def told(results: Sequence[Result]) -> list[str]:
    """Results as lines: a table, and below it what is behind each verdict that is bad.

    An attack is unfinished whose time was over, or which the server cut short, before all of it was done.
    """
    rows = [COLUMNS, UNITS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, len(COLUMNS) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for result in results:
        if broken := result.broken():
            lines += ["", f"{result.name}:", *(f"    {text}" for text in dict.fromkeys(broken))]
    return lines


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        f"{1000 * result.stall:.0f}",
        f"{result.before:.0f}",
        f"{result.most:.0f}",
        f"{result.after:.0f}",
        str(result.log_lines),
        str(result.tracebacks),
        str(result.lost),
        f"{result.seconds:.1f}",
        ("BROKEN" if result.broken() else "held") + ("" if result.finished else ", unfinished"),
    )


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say which attacks there are, and do nothing")
    parser.add_argument(
        "--only", action="append", choices=list(ATTACKS), metavar="NAME", help="only this, repeatable"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="S",
        help=f"that an attack may take at most, default {DEFAULT_SECONDS:.0f}",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeat what chance did in an earlier run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
