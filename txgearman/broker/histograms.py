"""Durations, counted in buckets: cheap to take, and of a bounded size."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

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

    Those that come one after the other are mostly of one bucket, so whoever counts looks there first, and
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


class Meter:
    """The times of one function's jobs, or of those of several functions: until a worker had them, and from
    then until its report that ended them."""

    __slots__ = ("ran", "waited")

    def __init__(self) -> None:
        self.waited = Histogram()
        self.ran = Histogram()
