"""Schedules to hold the real ones to: no heap, and no next tick that is remembered. What is due is found anew
each time, by looking at all seconds since the last look.

It submits to the `Model` of the broker. Of the real schedules it knows constants and data alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from tests.broker.model import Full, Model, ModelJob
from txgearman.broker.kept_uniques import NOT_KEPT
from txgearman.broker.schedule import Missed, Schedule
from txgearman.broker.schedules import MAX_SPANS, PUNCTUAL

SUBMITTER = "schedules"
"""What the model calls the client that the schedules are. Nobody looks at what it is told."""


@dataclass(eq=False)
class ModelSchedule:
    """A schedule that ticks each `period` seconds.

    `edge` is up to when its ticks are done with, or missed for good; `begin` since when that is so without a
    gap, as the clock was not set. `done` are the spans of time before that, whose ticks do not come again.
    `planned` tells apart which of two that are due at once was planned first.
    """

    schedule: Schedule
    period: int
    begin: float
    edge: float
    paused: bool = False
    planned: int = 0
    done: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_SPANS))
    last_tick: float | None = None
    last_job: bytes = b""
    lateness: float = 0.0
    ticks: int = 0
    skipped: int = 0
    missed: int = 0
    refused: int = 0

    @property
    def is_ticking(self) -> bool:
        return self.schedule.enabled and not self.paused

    def between(self, begin: float, end: float) -> list[int]:
        """The ticks after a time, until another, that are not done with."""
        seconds = range(int(begin) + 1, int(end) + 1)
        return [each for each in seconds if each % self.period == 0 and not self.is_done(each)]

    def is_done(self, tick: int) -> bool:
        return any(begin < tick <= end for begin, end in self.done)

    @property
    def next_tick(self) -> int | None:
        """The first tick that is to come."""
        if not self.is_ticking:
            return None
        tick = int(self.edge) + 1
        while tick % self.period or self.is_done(tick):
            tick += 1
        return tick

    @property
    def due(self) -> float | None:
        """When the job of that is due."""
        tick = self.next_tick
        return None if tick is None else self.schedule.due(tick)

    def pass_over(self, until: float) -> None:
        """What is not done with until a time is not missed, and does not come."""
        self.edge = max(self.edge, until)

    def begin_anew(self, when: float) -> None:
        """The clock was set."""
        if self.begin < self.edge:
            self.done.append((self.begin, self.edge))
        self.begin = self.edge = when


class ScheduleModel:
    """Schedules that submit to a model of the broker. `happened` counts what came about."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.schedules: dict[bytes, ModelSchedule] = {}
        self.happened = model.happened
        self._plans = count()
        self._latest = float("-inf")
        self._looked_at = model.now

    def plan(self, each: ModelSchedule) -> None:
        each.planned = next(self._plans)

    def add(self, schedule: Schedule, period: int) -> None:
        now = self.model.wall
        each = self.schedules.get(schedule.name)
        if each is None:
            each = self.schedules[schedule.name] = ModelSchedule(schedule, period, now, now)
        else:
            # At the same times as before, it goes on as if nothing had happened.
            same = each.is_ticking and each.schedule.recurrence.text == schedule.recurrence.text
            if not same:
                each.pass_over(now)
            each.schedule, each.period = schedule, period
        self.plan(each)

    def pause(self, name: bytes, paused: bool) -> None:
        each = self.schedules[name]
        if each.paused != paused:
            each.paused = paused
            each.pass_over(self.model.wall)
            self.plan(each)

    def run(self, name: bytes) -> bytes | None:
        """Submit a job now. Returns its handle; None if it is refused."""
        return self._submit(self.schedules[name].schedule, self.model.wall)

    def tick(self) -> None:
        now, clock = self.model.wall, self.model.now
        if now < self._latest:
            self.happened["clock set back"] += 1
            back = now - (clock - self._looked_at)
            for each in self.schedules.values():
                if back < each.begin:
                    each.begin_anew(back)
                    self.plan(each)
        self._latest, self._looked_at = now, clock
        while (each := self._first_due(now)) is not None:
            self._do(each, now)
            self.plan(each)

    def _first_due(self, now: float) -> ModelSchedule | None:
        due = [(each.due, each.planned, each) for each in self.schedules.values() if each.due is not None]
        due = [item for item in due if item[0] <= now]
        return min(due, key=lambda item: item[:2])[2] if due else None

    def _do(self, each: ModelSchedule, now: float) -> None:
        schedule = each.schedule
        too_old = now - schedule.missed_window
        if too_old > each.edge:
            missed = each.between(each.edge, too_old)
            if missed:
                self.happened["missed for good"] += 1
                each.begin_anew(too_old)
            each.missed += len(missed)
            each.edge = too_old
        ticks: list[int] = []
        for tick in each.between(each.edge, now):
            if schedule.due(tick) > now:
                break
            ticks.append(tick)
        if not ticks:
            return
        each.edge = ticks[-1]
        punctual = now - schedule.due(ticks[-1]) <= PUNCTUAL
        late = ticks[:-1] if punctual else ticks
        if schedule.missed is Missed.ALL:
            kept = late
        else:
            kept = late[-1:] if schedule.missed is Missed.ONE and not punctual else []
        each.missed += len(late) - len(kept)
        if late:
            self.happened[f"missed: {schedule.missed.value}"] += 1
        for tick in kept + ticks[len(late) :]:
            self._submit_tick(each, tick, now)

    def _submit_tick(self, each: ModelSchedule, tick: int, now: float) -> None:
        schedule = each.schedule
        if self._alive(schedule, schedule.unique_of(tick)):
            self.happened["skipped"] += 1
            each.skipped += 1
            return
        handle = self._submit(schedule, tick)
        if handle is None:
            self.happened["tick refused"] += 1
            each.refused += 1
            return
        each.ticks += 1
        each.last_tick, each.last_job = tick, handle
        each.lateness = max(0.0, now - schedule.due(tick))

    def _alive(self, schedule: Schedule, unique: bytes) -> ModelJob | bool:
        """Whether the job of a tick is there already, or was completed and is kept."""
        key = self.model.duplicate_key(unique, schedule.data)
        kept = None if key is None else self.model.kept.get((schedule.function, key))
        if kept is not None and kept[1] > self.model.wall:
            return True
        return self.model.duplicate(schedule.function, key) or False

    def _submit(self, schedule: Schedule, tick: float) -> bytes | None:
        """The handle of the job of a tick; None if it is refused."""
        try:
            self.model.submit(
                SUBMITTER,
                schedule.function,
                schedule.unique_of(tick),
                schedule.data,
                schedule.priority,
                True,
                None,
                NOT_KEPT,
            )
        except Full:
            return None
        handle: bytes = self.model.told[SUBMITTER][-1][1]
        return handle
