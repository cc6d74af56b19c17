"""What `top` knows: the newest state of each function, and how it came about. No I/O, no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

RATE_SECONDS: Final = 10.0
"""Seconds over which a rate is taken: shorter and it jumps, longer and it comes late."""
HISTORY: Final = 20
"""Looks back that are drawn."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A function's state at a server: jobs that wait, jobs that run, workers."""

    function: str
    queued: int
    running: int
    workers: int


@dataclass(frozen=True, slots=True)
class Line:
    """A function as `top` shows it.

    `rate` is by how many jobs a second, queued and running, it grows or, below 0, shrinks; None until that
    is known. `history` are its queued jobs at the last looks, the newest last.
    """

    function: str
    queued: int
    running: int
    workers: int
    rate: float | None
    history: tuple[int, ...]


@dataclass(slots=True)
class _Seen:
    looks: deque[tuple[float, int]] = field(default_factory=deque)
    queued: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY))
    newest: Counts | None = None


class Trend:
    """Collects looks at the servers. A function that is gone is forgotten."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def add(self, now: float, counts: Iterable[Counts]) -> None:
        """A look at time `now`, in seconds. Counts of one function, at several servers, are added up."""
        sums: dict[str, Counts] = {}
        for count in counts:
            before = sums.get(count.function, Counts(count.function, 0, 0, 0))
            sums[count.function] = Counts(
                count.function,
                before.queued + count.queued,
                before.running + count.running,
                before.workers + count.workers,
            )
        self._seen = {name: self._seen.get(name, _Seen()) for name in sums}
        for name, summed in sums.items():
            seen = self._seen[name]
            seen.newest = summed
            seen.queued.append(summed.queued)
            seen.looks.append((now, summed.queued + summed.running))
            # One look that is older stays, so that the rate always spans the whole time.
            while len(seen.looks) > 2 and seen.looks[1][0] <= now - RATE_SECONDS:
                seen.looks.popleft()

    def lines(self, order: Callable[[Line], object]) -> list[Line]:
        """The functions, sorted by what `order` gives for each, then by name."""
        lines = []
        for name in sorted(self._seen):
            seen = self._seen[name]
            newest = seen.newest
            assert newest is not None
            lines.append(
                Line(
                    name, newest.queued, newest.running, newest.workers, _rate(seen.looks), tuple(seen.queued)
                )
            )
        return sorted(lines, key=order)  # type: ignore[arg-type]


def _rate(looks: deque[tuple[float, int]]) -> float | None:
    (begin, before), (end, after) = looks[0], looks[-1]
    return (after - before) / (end - begin) if end > begin else None
