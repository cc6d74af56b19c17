"""The history of functions: how many jobs they had, how long these waited and ran. Minutes and a day of it.

A sample is taken every few seconds, by the meters that ``/metrics`` shows too: so it is there for the
functions that these tell apart, and not for any number of them.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from txgearman.broker.histograms import BOUNDS, Durations
from txgearman.broker.meters import FunctionMeasures, failures_of

COLUMNS: Final = (
    *("submitted", "completed", "failed"),
    *("waited_50", "waited_95", "waited_99"),
    *("ran_50", "ran_95", "ran_99"),
)
"""What is known of a step: jobs a second, and percentiles of seconds; NaN where no job was timed."""

QUANTILES: Final = (0.5, 0.95, 0.99)

FINE_STEP: Final = 5.0
"""Seconds that a sample is of."""

FINE_STEPS: Final = 120
"""Steps that are remembered so: ten minutes."""

COARSE_STEP: Final = 120.0
"""Seconds that a sample of the day is of."""

COARSE_STEPS: Final = 720
"""Steps that are remembered so: a day."""

MAX_FUNCTIONS: Final = 500
"""Functions that have a history, of 37 KiB each. A server may measure more of them."""

MAX_GONE: Final = 200
"""Functions that are remembered and not there any more."""

PIECE_STEPS: Final = 30
"""Steps of the day that are kept together in the store: an hour."""

_POINT: Final = struct.Struct(f"<q{len(COLUMNS)}f")
"""The number of a step, and its columns."""

Point = tuple[float, ...]


def quantiles(before: tuple[int, ...], now: tuple[int, ...]) -> Point:
    """Estimate how long durations took that were counted between two looks at a histogram.

    Args:
        before: The counts at the first look, as `Durations.cumulated` has them.
        now: The counts at the second.

    Returns:
        For each of `QUANTILES` what so many were at most, in seconds; NaN if there was none.
    """
    counted = [new - old for new, old in zip(now, before, strict=True)]
    total = counted[-1]
    if total <= 0:
        return (math.nan,) * len(QUANTILES)
    return tuple(_quantile(counted, part * total) for part in QUANTILES)


def _quantile(cumulated: list[int], rank: float) -> float:
    """Between the edges of its bucket as far as its rank is between their counts. Of what is longer than the
    last edge no more is known."""
    low, below = 0.0, 0
    for edge, count in zip(BOUNDS, cumulated, strict=False):
        if count >= rank:
            return low + (edge - low) * (rank - below) / (count - below)
        low, below = edge, count
    return BOUNDS[-1]


@dataclass(slots=True)
class _Look:
    """What was counted of a function until a look at it."""

    submitted: int
    completed: int
    failed: int
    waited: Durations
    ran: Durations

    @classmethod
    def at(cls, measures: FunctionMeasures) -> _Look:
        counts = measures.counts
        failed = failures_of(counts.uncompleted)
        return cls(counts.submitted, counts.completed, failed, measures.waited, measures.ran)

    def since(self, before: _Look, seconds: float) -> Point | None:
        """The point of the time since a look; None if nothing happened."""
        if (self.submitted, self.completed, self.failed) == (
            before.submitted,
            before.completed,
            before.failed,
        ) and self.waited == before.waited:
            return None
        return (
            (self.submitted - before.submitted) / seconds,
            (self.completed - before.completed) / seconds,
            (self.failed - before.failed) / seconds,
            *quantiles(before.waited.cumulated, self.waited.cumulated),
            *quantiles(before.ran.cumulated, self.ran.cumulated),
        )


class Track:
    """The history of one function at one step: a ring of points, each with the number of its step.

    Args:
        step: Seconds of a step.
        steps: How many of them are remembered.
    """

    __slots__ = ("_look", "_looked_at", "_numbers", "_points", "step", "steps")

    def __init__(self, step: float, steps: int) -> None:
        self.step = step
        self.steps = steps
        self._numbers = array("q", [-1]) * steps
        self._points = array("f", [math.nan]) * (steps * len(COLUMNS))
        self._look: _Look | None = None
        self._looked_at = 0.0

    def take(self, now: float, look: _Look) -> None:
        """Take a look at the function. Once in each step there is a new point, if something happened."""
        took = now - self._looked_at
        if self._look is not None and 0 <= took < self.step:
            return
        if self._look is not None and took > 0:
            point = look.since(self._look, took)
            if point is not None:
                last = int(now / self.step)
                # A sample that came late is that of all steps that it covers.
                for number in range(
                    max(int(self._looked_at / self.step) + 1, last - self.steps + 1), last + 1
                ):
                    self.put(number, point)
        self._look, self._looked_at = look, now

    def rest(self) -> None:
        """The function is not known any more. What it counts when it comes back begins anew."""
        self._look = None

    def put(self, number: int, point: Point) -> None:
        """Remember the point of a step, in place of one that is a whole ring older."""
        slot = number % self.steps
        self._numbers[slot] = number
        self._points[slot * len(COLUMNS) : (slot + 1) * len(COLUMNS)] = array("f", point)

    def get(self, number: int) -> Point | None:
        """The point of a step; None if nothing happened in it."""
        slot = number % self.steps
        if self._numbers[slot] != number:
            return None
        return tuple(self._points[slot * len(COLUMNS) : (slot + 1) * len(COLUMNS)])

    def samples(self, now: float, since: float) -> list[list[float | None]]:
        """The points, with zeros for steps in which nothing happened.

        Args:
            now: Seconds since the epoch.
            since: From when on it is known what happened.

        Returns:
            The time of each step and its columns; None for a percentile of no jobs.
        """
        last = int(now / self.step)
        first = max(last - self.steps + 1, int(since / self.step))
        rows = []
        for number in range(first, last + 1):
            point = self.get(number)
            # The step that is not over has no point yet.
            if point is not None or number < last:
                rows.append([number * self.step, *map(_shown, point or _IDLE)])
        return rows


_IDLE: Final[Point] = (0.0, 0.0, 0.0, *(math.nan,) * 6)
"""The point of a step in which nothing happened."""


def _shown(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


class FunctionHistory:
    """The histories of all functions that are told apart.

    Args:
        wall_clock: Gives seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._fine: dict[bytes, Track] = {}
        self._coarse: dict[bytes, Track] = {}
        self._begun = wall_clock()
        self._coarse_since = self._begun
        self._seen: set[bytes] = set()
        # Until when points are saved.
        self._saved = self._begun

    def take(self, rows: Iterable[FunctionMeasures]) -> None:
        """Take a part of a sample. `end_sample` is to be called after the last part.

        Args:
            rows: What is known of some functions now. One without a name is left out, and so are functions
                beyond `MAX_FUNCTIONS`.
        """
        now = self._wall_clock()
        for measures in rows:
            if measures.name is None or len(self._seen) >= MAX_FUNCTIONS:
                continue
            self._seen.add(measures.name)
            look = _Look.at(measures)
            for tracks, step, steps in (
                (self._fine, FINE_STEP, FINE_STEPS),
                (self._coarse, COARSE_STEP, COARSE_STEPS),
            ):
                track = tracks.get(measures.name)
                if track is None:
                    track = tracks[measures.name] = Track(step, steps)
                track.take(now, look)

    def end_sample(self) -> None:
        """All functions that are there were in the sample."""
        seen, self._seen = self._seen, set()
        for tracks in (self._fine, self._coarse):
            gone = [name for name in tracks if name not in seen]
            for name in gone:
                tracks[name].rest()
            for name in gone[: max(0, len(gone) - MAX_GONE)]:
                del tracks[name]

    def samples(self, function: bytes, coarse: bool) -> list[list[float | None]]:
        """The history of a function.

        Args:
            function: Its name.
            coarse: That of the day, not that of the last minutes.

        Returns:
            The time of each step and `COLUMNS`.
        """
        tracks, since = (self._coarse, self._coarse_since) if coarse else (self._fine, self._begun)
        track = tracks.get(function)
        return [] if track is None else track.samples(self._wall_clock(), since)

    # -- keeping --------------------------------------------------------------------------------

    def restore(self, name: bytes, points: bytes) -> None:
        """Take a piece that was kept, of a server that ended. To be called in the order of time.

        Args:
            name: The function.
            points: What `pieces` gave.
        """
        track = self._coarse.get(name)
        if track is None:
            if len(self._coarse) >= MAX_FUNCTIONS:
                return
            track = self._coarse[name] = Track(COARSE_STEP, COARSE_STEPS)
        for number, *columns in _POINT.iter_unpack(points[: len(points) // _POINT.size * _POINT.size]):
            track.put(number, tuple(columns))
            self._coarse_since = min(self._coarse_since, number * COARSE_STEP)

    def pieces(self) -> Iterator[tuple[bytes, float, bytes]]:
        """Walk what is to be kept: the pieces that may have got a point since the last time.

        Yields:
            The function, the beginning in seconds since the epoch, and the points of each.
        """
        now = self._wall_clock()
        first = int(self._saved / COARSE_STEP) // PIECE_STEPS
        last = int(now / COARSE_STEP) // PIECE_STEPS
        self._saved = now
        for name, track in list(self._coarse.items()):
            for piece in range(max(first, last - COARSE_STEPS // PIECE_STEPS), last + 1):
                numbers = range(piece * PIECE_STEPS, (piece + 1) * PIECE_STEPS)
                points = [(number, point) for number in numbers if (point := track.get(number)) is not None]
                if points:
                    packed = b"".join([_POINT.pack(number, *point) for number, point in points])
                    yield name, piece * PIECE_STEPS * COARSE_STEP, packed


def as_json(samples: list[list[float | None]], coarse: bool) -> dict[str, Any]:
    """The history of a function as values for JSON."""
    return {"columns": ["time", *COLUMNS], "samples": samples, "step": COARSE_STEP if coarse else FINE_STEP}
