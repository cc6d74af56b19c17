"""What is counted and timed of the jobs, by function: cheap to take, and of a bounded size.

Clients choose the names of functions, so only so many functions are told apart; the others share one
`Meter`.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from txgearman.broker.job import PRIORITIES, Ending

if TYPE_CHECKING:
    from txgearman.broker.function import Function

BOUNDS: Final[tuple[float, ...]] = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
"""The buckets of durations: seconds up to which each counts, that number included; one more has the rest."""

_EDGES: Final = tuple(pairwise((-math.ulp(0.0), *BOUNDS, math.inf)))
"""What a duration in each bucket is more than, and at most."""


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram as it was: for each of `BOUNDS` and for all, how many were at most so long; their sum in
    seconds."""

    cumulated: tuple[int, ...]
    sum: float


class Histogram:
    """Durations in seconds, counted by `BOUNDS`.

    Those that come behind each other are mostly of one bucket, so whoever counts looks there first, and
    spares itself a call: what is more than `low` and at most `high` is added to `hits` and `sum`, and all
    else goes to `add`.
    """

    __slots__ = ("_bucket", "_counts", "high", "hits", "low", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._bucket = 0
        self.hits = 0
        self.sum = 0.0
        self.low, self.high = _EDGES[0]

    def add(self, duration: float) -> None:
        """Count a duration of any length; less than 0, as the clock was set back, is 0."""
        self._counts[self._bucket] += self.hits
        self.hits = 1
        self.sum += max(0.0, duration)
        self._bucket = bucket = bisect_left(BOUNDS, duration)
        self.low, self.high = _EDGES[bucket]

    def take_over(self, other: Histogram) -> None:
        """Count what `other` has counted, which is not used any more."""
        counts = other.so_far().cumulated
        for index, (below, count) in enumerate(pairwise((0, *counts))):
            self._counts[index] += count - below
        self.sum += other.sum

    def so_far(self) -> Durations:
        """What was counted."""
        self._counts[self._bucket] += self.hits
        self.hits = 0
        return Durations(tuple(accumulate(self._counts)), self.sum)


@dataclass(slots=True)
class Counts:
    """What was counted of some functions: since the start as far as `joined`, of now behind it.

    The names are those of `Function`. `uncompleted` is by `Ending`; `waiting` is by priority, jobs that the
    store alone has included.
    """

    submitted: int = 0
    ended: int = 0
    uncompleted: list[int] = field(default_factory=lambda: [0] * len(Ending))
    retried: int = 0
    refused: int = 0
    restored: int = 0
    joined: int = 0
    waiting: list[int] = field(default_factory=lambda: [0] * PRIORITIES)
    held: int = 0
    running: int = 0
    workers: int = 0

    @property
    def completed(self) -> int:
        """How many jobs were completed."""
        return self.ended - sum(self.uncompleted)

    @property
    def saving(self) -> int:
        """How many jobs wait to be durable, and for no worker yet."""
        return self.submitted - self.ended - self.running - self.held - sum(self.waiting)

    @property
    def any(self) -> bool:
        """Whether anything was counted."""
        return bool(self.submitted or self.refused or self.joined or self.workers)

    def add(self, function: Function) -> None:
        """Count one more function."""
        self.submitted += function.submitted
        if function.ended:
            self.ended += function.ended
            self.uncompleted = list(map(operator.add, self.uncompleted, function.uncompleted))
        self.retried += function.retried
        self.refused += function.refused
        self.restored += function.restored
        self.joined += function.joined
        if function.submitted > function.ended:
            self.waiting = list(map(operator.add, self.waiting, function.waiting))
            self.held += sum(function.held)
        if function.stored_queue is not None:
            self.waiting = list(map(operator.add, self.waiting, function.stored_queue.jobs))
        self.running += function.running
        self.workers += function.workers


@dataclass(frozen=True, slots=True)
class FunctionMeasures:
    """What is known of a function; of all those that are not told apart where `name` is None.

    `waited` are the times from a job's queueing until a worker had it, `ran` those from then until the
    worker's report that ended it.
    """

    name: bytes | None
    counts: Counts
    waited: Durations
    ran: Durations


class Meter:
    """The times of one function's jobs, or of those of several functions: until a worker had them, and from
    then until its report that ended them."""

    __slots__ = ("ran", "waited")

    def __init__(self) -> None:
        self.waited = Histogram()
        self.ran = Histogram()

    def measures(self, name: bytes | None, counts: Counts) -> FunctionMeasures:
        """The times, together with `counts`."""
        return FunctionMeasures(name, counts, self.waited.so_far(), self.ran.so_far())


class Meters:
    """Which meter a function has: one of its own for `limit` functions at a time, one for all others.

    With a limit of 0 no times are measured. `gone` is what those functions had counted that were forgotten,
    or dropped and not told apart: it must not be taken back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._own = 0
        self._others = Meter()
        self.gone = Counts()

    def new(self) -> Meter | None:
        """The meter of a new function, which keeps it to its end."""
        if self._own < self._limit:
            self._own += 1
            return Meter()
        return self._others if self._limit else None

    def forget(self, function: Function) -> None:
        """A function was dropped."""
        if function.meter is None or function.meter is self._others:
            self.gone.add(function)
        else:
            self._own -= 1

    def move_to_others(self, function: Function) -> None:
        """A function was forgotten that may have been told apart: from now on it counts with the others."""
        self.gone.add(function)
        if function.meter is not None and function.meter is not self._others:
            self._own -= 1
            self._others.waited.take_over(function.meter.waited)
            self._others.ran.take_over(function.meter.ran)

    def look_at(self, functions: Iterable[Function]) -> Iterator[FunctionMeasures | None]:
        """What is known of `functions`, which are all there are, one at a time; None for one that is of the
        last row, which is that of all others."""
        # What is forgotten while this is under way is in `functions`.
        others = replace(self.gone)
        for function in functions:
            row = None
            if function.meter is None or function.meter is self._others:
                others.add(function)
            else:
                counts = Counts()
                counts.add(function)
                row = function.meter.measures(function.name, counts)
            yield row
        yield self._others.measures(None, others)
