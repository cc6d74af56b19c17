"""The functions that `top` shows: the newest counts of each, and their history. No I/O, no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

RATE_SECONDS: Final = 10.0
"""Seconds over which a rate is measured. In a shorter time it jumps; a longer one shows changes late."""
HISTORY_LENGTH: Final = 20
"""The number of samples that are drawn."""


@dataclass(frozen=True, slots=True)
class FunctionCounts:
    """A function's counts at a server: queued jobs, running jobs, workers, and jobs that have ended since the
    function was made, None where the server does not count them."""

    function: str
    queued: int
    running: int
    workers: int
    ended: int | None = None


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function as `top` shows it.

    Attributes:
        function: Its name.
        queued: Its queued jobs.
        running: Its running jobs.
        workers: Its workers.
        ended_rate: How many jobs end in a second; None until that is known, or where a server does not count
            them.
        growth: By how many jobs a second, queued and running, there are more; below 0 if they become fewer.
            None until that is known.
        history: Its queued jobs in the last samples, the newest last.
    """

    function: str
    queued: int
    running: int
    workers: int
    ended_rate: float | None
    growth: float | None
    history: tuple[int, ...]


class _Sample(NamedTuple):
    """When it was taken, in seconds, and how many jobs there were then, and had ended by then."""

    time: float
    jobs: int
    ended: int | None


@dataclass(slots=True)
class _FunctionHistory:
    samples: deque[_Sample] = field(default_factory=deque)
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
            before = sums.get(count.function, FunctionCounts(count.function, 0, 0, 0, 0))
            sums[count.function] = FunctionCounts(
                count.function,
                before.queued + count.queued,
                before.running + count.running,
                before.workers + count.workers,
                None if before.ended is None or count.ended is None else before.ended + count.ended,
            )
        self._functions = {name: self._functions.get(name, _FunctionHistory()) for name in sums}
        for name, summed in sums.items():
            history = self._functions[name]
            history.newest = summed
            history.queued.append(summed.queued)
            history.samples.append(_Sample(now, summed.queued + summed.running, summed.ended))
            # One older sample stays, so that the rate spans the whole time.
            while len(history.samples) > 2 and history.samples[1].time <= now - RATE_SECONDS:
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
                    *_rates(history.samples),
                    tuple(history.queued),
                )
            )
        return sorted(rows, key=order)  # type: ignore[arg-type]


def _rates(samples: deque[_Sample]) -> tuple[float | None, float | None]:
    """How many jobs end in a second, and by how many a second there are more."""
    first, last = samples[0], samples[-1]
    seconds = last.time - first.time
    if seconds <= 0:
        return None, None
    growth = (last.jobs - first.jobs) / seconds
    # A function or server that began anew counts from 0.
    if first.ended is None or last.ended is None or last.ended < first.ended:
        return None, growth
    return (last.ended - first.ended) / seconds, growth
