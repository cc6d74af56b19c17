"""The functions that `top` shows: the newest counts of each, and their history. No I/O, no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

RATE_SECONDS: Final = 10.0
"""Seconds over which a rate is measured. In a shorter time it jumps; a longer one shows changes late."""
HISTORY_LENGTH: Final = 20
"""The number of samples that are drawn."""


@dataclass(frozen=True, slots=True)
class FunctionCounts:
    """A function's counts at a server: queued jobs, running jobs, workers."""

    function: str
    queued: int
    running: int
    workers: int


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function as `top` shows it.

    Attributes:
        function: Its name.
        queued: Its queued jobs.
        running: Its running jobs.
        workers: Its workers.
        rate: How many jobs a second, queued and running, are added; below 0 if they become fewer. None until
            that is known.
        history: Its queued jobs in the last samples, the newest last.
    """

    function: str
    queued: int
    running: int
    workers: int
    rate: float | None
    history: tuple[int, ...]


@dataclass(slots=True)
class _FunctionHistory:
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    queued: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY_LENGTH))
    newest: FunctionCounts | None = None


class Trend:
    """Collects samples of the servers' functions. A function missing in the newest sample is forgotten."""

    def __init__(self) -> None:
        self._functions: dict[str, _FunctionHistory] = {}

    def add(self, now: float, counts: Iterable[FunctionCounts]) -> None:
        """Add a sample. The counts of one function at several servers are summed.

        Args:
            now: The time in seconds.
            counts: The counts.
        """
        sums: dict[str, FunctionCounts] = {}
        for count in counts:
            before = sums.get(count.function, FunctionCounts(count.function, 0, 0, 0))
            sums[count.function] = FunctionCounts(
                count.function,
                before.queued + count.queued,
                before.running + count.running,
                before.workers + count.workers,
            )
        self._functions = {name: self._functions.get(name, _FunctionHistory()) for name in sums}
        for name, summed in sums.items():
            history = self._functions[name]
            history.newest = summed
            history.queued.append(summed.queued)
            history.samples.append((now, summed.queued + summed.running))
            # One older sample stays, so that the rate spans the whole time.
            while len(history.samples) > 2 and history.samples[1][0] <= now - RATE_SECONDS:
                history.samples.popleft()

    def rows(self, order: Callable[[FunctionRow], object]) -> list[FunctionRow]:
        """Return the functions, sorted by the key `order`, then by name."""
        rows = []
        for name in sorted(self._functions):
            history = self._functions[name]
            newest = history.newest
            assert newest is not None
            rows.append(
                FunctionRow(
                    name,
                    newest.queued,
                    newest.running,
                    newest.workers,
                    _rate(history.samples),
                    tuple(history.queued),
                )
            )
        return sorted(rows, key=order)  # type: ignore[arg-type]


def _rate(samples: deque[tuple[float, int]]) -> float | None:
    (begin, before), (end, after) = samples[0], samples[-1]
    return (after - before) / (end - begin) if end > begin else None
