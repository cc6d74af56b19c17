"""The jobs of one key that wait in the store alone: what is known of each is its position."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from typing import Final

from txgearman.broker.job_states import PRIORITIES

_SLACK: Final = 64
"""Positions of what has gone that are never worth a clean-up."""


class Stubs:
    """The positions by priority, 8 bytes each. `fetching` says that the first job comes into memory."""

    __slots__ = ("_first", "_positions", "fetching")

    def __init__(self) -> None:
        self._positions: tuple[array[int], ...] = tuple(array("q") for _ in range(PRIORITIES))
        # Where the first is that has not gone, in each: taking it out moves nothing.
        self._first = [0] * PRIORITIES
        self.fetching = False

    def __len__(self) -> int:
        return sum(map(len, self._positions)) - sum(self._first)

    def count(self, priority: int) -> int:
        """How many there are of a priority."""
        return len(self._positions[priority]) - self._first[priority]

    def add(self, priority: int, position: int) -> None:
        """Add a job. Most have a greater position than those that are there."""
        insort(self._positions[priority], position, self._first[priority])

    def first(self) -> tuple[int, int]:
        """The priority and position of the job that is next. There must be one."""
        for priority, positions in enumerate(self._positions):
            at = self._first[priority]
            if at < len(positions):
                return priority, positions[at]
        raise IndexError("there is no job")

    def least(self, priority: int) -> int | None:
        """The first position of a priority, None if there is none."""
        at = self._first[priority]
        return self._positions[priority][at] if self.count(priority) else None

    def contains(self, priority: int, position: int) -> bool:
        """Whether a job is here."""
        return self._find(priority, position) is not None

    def remove(self, priority: int, position: int) -> bool:
        """Take a job out. Returns false if it is not here."""
        at = self._find(priority, position)
        if at is None:
            return False
        positions, first = self._positions[priority], self._first[priority]
        if at > first:
            del positions[at]
            return True
        first += 1
        if first > _SLACK and first * 2 > len(positions):
            del positions[:first]
            first = 0
        self._first[priority] = first
        return True

    def _find(self, priority: int, position: int) -> int | None:
        positions = self._positions[priority]
        at = bisect_left(positions, position, self._first[priority])
        return at if at < len(positions) and positions[at] == position else None
