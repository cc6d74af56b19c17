"""Things to do at a time, soonest first."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

_SLACK: Final = 64
"""Cancelled entries that are never worth a rebuild."""


J = TypeVar("J")
"""A job. Nothing here looks into it."""


class Heartbeat:
    """How a running job is kept by its worker: `interval` seconds after `heard`, when the worker was last
    heard of, the job is taken back; and at `limit`, the end of its time limit, in any case. Both by the
    monotonic clock, `limit` infinite without one."""

    __slots__ = ("heard", "interval", "limit")

    def __init__(self, heard: float, interval: float, limit: float) -> None:
        self.heard = heard
        self.interval = interval
        self.limit = limit

    @property
    def due(self) -> float:
        """When the job is taken from the worker if that is not heard of any more."""
        return min(self.limit, self.heard + self.interval)


class Deadline(Generic[J]):
    """When something is due for a job; without a job it was cancelled. With a heartbeat it is looked at then
    when it is due indeed: so a report that renews it, one of very many perhaps, costs no work on the heap."""

    __slots__ = ("heartbeat", "job", "number", "when")

    def __init__(self, when: float, number: int, job: J) -> None:
        self.when = when
        self.number = number
        self.job: J | None = job
        self.heartbeat: Heartbeat | None = None

    def __lt__(self, other: Deadline[J]) -> bool:
        if self.when != other.when:
            return self.when < other.when
        return self.number < other.number


class Deadlines(Generic[J]):
    """A heap of deadlines. Adding is O(log n), cancelling O(1) over time.

    A cancelled entry stays in the heap until it comes up, or until such entries are the majority and
    the heap is rebuilt: workers that finish long before a limit of hours must not fill memory.
    """

    __slots__ = ("_cancelled", "_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[Deadline[J]] = []
        self._numbers = count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, when: float, job: J) -> Deadline[J]:
        """Set a deadline at `when`; equal ones come up in the order they were set."""
        deadline = Deadline(when, next(self._numbers), job)
        heappush(self._heap, deadline)
        return deadline

    def cancel(self, deadline: Deadline[J]) -> None:
        """Forget a deadline that has not come up."""
        deadline.job = None
        self._cancelled += 1
        if self._cancelled > _SLACK and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.job is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the soonest deadline is due."""
        heap = self._heap
        while heap and heap[0].job is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else None

    def pop_due(self, now: float) -> J | None:
        """Take out the soonest deadline's job if it is due at `now`."""
        when = self.next()
        if when is None or when > now:
            return None
        return heappop(self._heap).job

    def put_off(self, deadline: Deadline[J], when: float) -> None:
        """Set a deadline that `pop_due` has taken out to a later time."""
        deadline.when = when
        heappush(self._heap, deadline)
