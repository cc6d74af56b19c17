"""What is counted and timed of the jobs, by function: cheap to take, and of a bounded size.

Clients choose the names of functions, so only so many functions are told apart; the others share one
`Meter`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from txgearman.broker.histograms import Durations, Meter
from txgearman.broker.job_states import FAILURES, PRIORITIES, Outcome

if TYPE_CHECKING:
    from txgearman.broker.entities import Function


def failures_of(uncompleted: list[int]) -> int:
    """How many of the jobs that were not completed have failed. The others were not wanted any more, or are
    not this server's.

    Args:
        uncompleted: Counts by `Outcome`.

    Returns:
        The sum over `FAILURES`.
    """
    return sum(uncompleted[ending] for ending in FAILURES)


def blocked_of(function: Function) -> int:
    """How many queued jobs the limits of runs hold back.

    Args:
        function: Whose jobs these are.

    Returns:
        The jobs in memory and in the store alone, as far as it is known of the latter.
    """
    limits = function.run_limits
    if limits is None:
        return 0
    waiting = sum(function.waiting)
    runnable = waiting if limits.queue is None else limits.queue.runnable
    startable = 0 if function.throttled else min(runnable, limits.free)
    return waiting - startable + (0 if function.stored_queue is None else sum(function.stored_queue.blocked))


@dataclass(slots=True)
class Counts:
    """What was counted of some functions: since the start as far as `coalesced`, of now after it.

    The names are those of `Function`. `uncompleted` is by `Outcome`; `waiting` is by priority, jobs that the
    store alone has included. `scheduled` has the jobs that wait for a retry, which `retrying` counts alone.
    `blocked` are those of the waiting jobs that limits of runs hold back. `paused` counts the functions that
    are paused, and `paused_itself` those of them that were so by their failures; `throttled` those whose
    limits let no job begin, and `max_running` adds up how many jobs may run at a time.
    """

    submitted: int = 0
    ended: int = 0
    uncompleted: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    requeued: int = 0
    refused: int = 0
    restored: int = 0
    coalesced: int = 0
    waiting: list[int] = field(default_factory=lambda: [0] * PRIORITIES)
    scheduled: int = 0
    retrying: int = 0
    running: int = 0
    workers: int = 0
    blocked: int = 0
    paused: int = 0
    paused_itself: int = 0
    throttled: int = 0
    max_running: int = 0

    @property
    def completed(self) -> int:
        """How many jobs were completed."""
        return self.ended - sum(self.uncompleted)

    @property
    def saving(self) -> int:
        """How many jobs wait to be durable, and for no worker yet."""
        return self.submitted - self.ended - self.running - self.scheduled - sum(self.waiting)

    @property
    def any(self) -> bool:
        """Whether anything was counted."""
        return bool(self.submitted or self.refused or self.coalesced or self.workers)

    def add(self, function: Function) -> None:
        """Count one more function."""
        self.submitted += function.submitted
        if function.ended:
            self.ended += function.ended
            self.uncompleted = list(map(operator.add, self.uncompleted, function.uncompleted))
        self.requeued += function.requeued
        self.refused += function.refused
        self.restored += function.restored
        self.coalesced += function.coalesced
        if function.submitted > function.ended:
            self.waiting = list(map(operator.add, self.waiting, function.waiting))
            self.scheduled += sum(function.scheduled)
            self.retrying += function.retrying
        if function.stored_queue is not None:
            self.waiting = list(map(operator.add, self.waiting, function.stored_queue.alone))
        self.running += function.running
        self.workers += function.workers
        self.paused += function.paused
        limits = function.run_limits
        if limits is not None:
            self.blocked += blocked_of(function)
            self.paused_itself += limits.paused_itself
            self.throttled += function.throttled
            self.max_running += limits.rules.max_running


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
                row = measures_of(function.name, counts, function.meter)
            yield row
        yield measures_of(None, others, self._others)


def measures_of(name: bytes | None, counts: Counts, meter: Meter) -> FunctionMeasures:
    """What is known of a function, or of several, that share a meter."""
    return FunctionMeasures(name, counts, meter.waited.so_far(), meter.ran.so_far())
