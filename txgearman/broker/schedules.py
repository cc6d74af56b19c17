"""Recurring jobs: which tick is due, what becomes of one that was missed, and the job of each.

All servers of a store see the same ticks. What makes each of them one job is the store: it saves the job of a
tick together with the tick, and refuses the same tick a second time (`ScheduleStore`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from txgearman.broker.entities import Client
from txgearman.broker.interfaces import Alarm, ScheduleStore
from txgearman.broker.kept_uniques import NOT_KEPT
from txgearman.broker.schedule import Missed, Schedule, ScheduleDetail
from txgearman.broker.slices import SLICE
from txgearman.broker.timer import Timer
from txgearman.errors import NotSaved, Refused, ScheduleNotFound, TickOutdated

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker

PUNCTUAL: Final = 30.0
"""Seconds by which the job of a tick may be late without being missed. A busy server is a second late."""

MAX_CATCH_UP: Final = 1000
"""Ticks of one schedule that `Missed.ALL` makes up for at most; those before them are missed for good. With a
tick each second that is a quarter of an hour. Of more than that not all are counted."""

MAX_SPANS: Final = 8
"""Spans of time of a schedule that are remembered where the clock is set: so often may it be set back and
forth before a tick comes twice. With a store none ever does."""

RETRY_SECONDS: Final = 5.0
"""Seconds until a tick is tried again whose job could not be stored."""

OUTDATED_SECONDS: Final = 1.0
"""Seconds until a tick is tried again whose schedule another server has changed. Meanwhile this one hears
what has changed, and plans anew."""

TellRun = Callable[[bytes | Refused], None]
"""Is told the handle of a job, or why there is none."""

_HEAP_SLACK: Final = 64


class _Entry:
    """A schedule and where it is in time. The ticks after `covered_from` until `covered_to` are done with,
    and those of the spans of time in `covered_before`, which the clock left when it was set."""

    __slots__ = (
        "covered_before",
        "covered_from",
        "covered_to",
        "due",
        "last_job",
        "last_tick",
        "lateness",
        "missed",
        "paused",
        "refused",
        "schedule",
        "skipped",
        "tick",
        "ticks",
    )

    def __init__(self, schedule: Schedule, covered_to: float) -> None:
        self.schedule = schedule
        self.paused = False
        self.covered_from = self.covered_to = covered_to
        self.covered_before: deque[tuple[float, float]] = deque(maxlen=MAX_SPANS)
        # The next tick, and when its job is due; None while it does not tick.
        self.tick: float | None = None
        self.due: float | None = None
        self.last_tick: float | None = None
        self.last_job = b""
        self.lateness = 0.0
        self.ticks = self.skipped = self.missed = self.refused = 0

    @property
    def is_ticking(self) -> bool:
        return self.schedule.enabled and not self.paused

    def next_after(self, when: float) -> float | None:
        """The first tick after a time that is not done with."""
        tick = self.schedule.recurrence.next_after(when)
        for begin, end in sorted(self.covered_before):
            if tick is not None and begin < tick <= end:
                tick = self.schedule.recurrence.next_after(end)
        return tick

    def cover_anew(self, when: float) -> None:
        """The clock was set: begin another span."""
        if self.covered_from < self.covered_to:
            self.covered_before.append((self.covered_from, self.covered_to))
        self.covered_from = self.covered_to = when


def _ticks_alike(one: Schedule, other: Schedule) -> bool:
    return (one.recurrence.text, one.timezone) == (other.recurrence.text, other.timezone)


class _Submission:
    """A job of a schedule, which the store may have to take first. `handle` is the handle that it has here,
    empty if another job stands for it, and `answer` the handle that the broker answered at once. `tick` is
    its tick: None for a job that somebody wants now, who is told by `tell`."""

    __slots__ = ("answer", "entry", "handle", "tell", "tick", "wall")

    def __init__(self, entry: _Entry, tick: float | None, wall: float, tell: TellRun | None = None) -> None:
        self.entry = entry
        self.tick = tick
        self.wall = wall
        self.tell = tell
        self.handle = b""
        self.answer: bytes | None = None


class _Submitter:
    """The `ClientConnection` of the schedules."""

    __slots__ = ("current", "refused", "taken")

    def __init__(
        self, taken: Callable[[_Submission, bytes], None], refused: Callable[[_Submission, Refused], None]
    ) -> None:
        self.taken = taken
        self.refused = refused
        # What is being submitted.
        self.current: _Submission | None = None

    def created(self, handle: bytes) -> None:
        assert self.current is not None
        self.current.answer = handle

    def created_later(self) -> object:
        return self.current

    def resolve_created(self, reply: Any, handle: bytes) -> None:
        self.taken(reply, handle)

    def resolve_refused(self, reply: Any, refusal: Refused) -> None:
        self.refused(reply, refusal)

    # Nobody waits for the job of a tick.

    def data(self, handle: bytes, data: bytes) -> None:
        pass

    def warning(self, handle: bytes, data: bytes) -> None:
        pass

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        pass

    def completed(self, handle: bytes, data: bytes) -> None:
        pass

    def failed(self, handle: bytes) -> None:
        pass

    def exception(self, handle: bytes, data: bytes) -> None:
        pass

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        pass


class Schedules:
    """The schedules of one server.

    Args:
        broker: Takes the jobs.
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        alarm: Is asked to call `tick`.
        store: Keeps the ticks that are done with. Without one they are in memory, and what is missed while
            the server is away is not known.
    """

    __slots__ = (
        "_broker",
        "_client",
        "_entries",
        "_heap",
        "_latest",
        "_looked_at",
        "_numbers",
        "_store",
        "_submitter",
        "_timer",
    )

    def __init__(
        self,
        broker: Broker,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        alarm: Alarm,
        store: ScheduleStore | None = None,
    ) -> None:
        self._broker = broker
        self._timer = Timer(clock, wall_clock, alarm)
        self._store = store
        self._entries: dict[bytes, _Entry] = {}
        # The entries by when they are due. An entry that is due at another time by now is there twice.
        self._heap: list[tuple[float, int, _Entry]] = []
        self._numbers = count()
        self._submitter = _Submitter(self._taken, self._refused)
        self._client = Client(self._submitter)
        # The latest time of the wall clock that was seen: an earlier one means that the clock was set back.
        self._latest = -math.inf
        self._looked_at = clock()

    # -- what administrators and the configuration say ------------------------------------------------

    def add(self, schedule: Schedule, known_since: float | None = None, paused: bool = False) -> None:
        """Let a schedule tick, in place of one of its name.

        One that is replaced keeps its counts, and its place in time: no tick comes twice. If it ticks at
        other times than before, those of them that are past were not missed.

        Args:
            schedule: The schedule.
            known_since: When it was first added, in seconds since the epoch, where a store remembers that:
                ticks since then may have been missed. None for now.
            paused: Whether it is paused, if it is new.
        """
        now = self._timer.wall_clock()
        entry = self._entries.get(schedule.name)
        if entry is None:
            since = now if known_since is None else min(known_since, now)
            entry = _Entry(schedule, max(since, now - schedule.missed_window))
            entry.paused = paused
            self._entries[schedule.name] = entry
        else:
            keeps_place = entry.is_ticking and _ticks_alike(entry.schedule, schedule)
            entry.schedule = schedule
            if not keeps_place:
                entry.covered_to = max(entry.covered_to, now)
        self._plan(entry)

    def remove(self, name: bytes) -> None:
        """Let a schedule tick no more. Jobs of it that are there go on.

        Args:
            name: The schedule.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        entry = self._find(name)
        del self._entries[name]
        entry.due = entry.tick = None

    def pause(self, name: bytes, paused: bool = True) -> None:
        """Let a schedule rest, or go on with its next tick. What it misses meanwhile is not made up for.

        Args:
            name: The schedule.
            paused: Whether it is to rest.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        entry = self._find(name)
        if entry.paused != paused:
            entry.paused = paused
            now = self._timer.wall_clock()
            entry.covered_to = max(entry.covered_to, now)
            self._plan(entry)

    def run(self, name: bytes, tell: TellRun) -> None:
        """Submit a job of a schedule now, whatever its ticks, `enabled` and `pause` say.

        Args:
            name: The schedule.
            tell: Called with the job's handle, which is that of the live job with its unique if there is one,
                or with the refusal.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        entry = self._find(name)
        now = self._timer.wall_clock()
        submission = _Submission(entry, None, now, tell)
        try:
            self._submit(submission, entry.schedule.unique_of(now))
        except Refused as refusal:
            tell(refusal)

    def __contains__(self, name: bytes) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> list[bytes]:
        """The names of all schedules, in order."""
        return sorted(self._entries)

    def __iter__(self) -> Iterator[ScheduleDetail]:
        """All schedules, by name. They may change meanwhile."""
        for name in self.names():
            if name in self._entries:
                yield self.detail(name)

    def detail(self, name: bytes) -> ScheduleDetail:
        """All there is to know of a schedule.

        Args:
            name: The schedule.

        Returns:
            A copy.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        entry = self._find(name)
        return ScheduleDetail(
            entry.schedule,
            entry.paused,
            entry.due,
            entry.last_tick,
            entry.last_job,
            entry.lateness,
            entry.ticks,
            entry.skipped,
            entry.missed,
            entry.refused,
        )

    def preview(self, schedule: Schedule, limit: int) -> Sequence[float]:
        """The next ticks of a schedule, which need not be added.

        Args:
            schedule: The schedule.
            limit: How many ticks at most.

        Returns:
            When their jobs would be due, in seconds since the epoch.
        """
        found: list[float] = []
        tick = schedule.recurrence.next_after(self._timer.wall_clock())
        while tick is not None and len(found) < limit:
            found.append(schedule.due(tick))
            tick = schedule.recurrence.next_after(tick)
        return found

    def _find(self, name: bytes) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise ScheduleNotFound
        return entry

    # -- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due, and set the alarm for what is next. Much is done in slices."""
        self._timer.rings_at = None
        now, clock = self._timer.wall_clock(), self._timer.clock()
        if now < self._latest:
            # It may have been set right after the last look.
            self._turn_back(now - (clock - self._looked_at))
        self._latest, self._looked_at = now, clock
        if self._broker.functions.draining:
            # It does not come out of that.
            return
        jobs = 0
        while jobs < SLICE and (entry := self._pop_due(now)) is not None:
            jobs += max(1, self._do(entry, now))
        self._set_alarm()

    def _turn_back(self, now: float) -> None:
        """The clock was set back. Ticks that are done with do not come again; those ahead of them come."""
        for entry in self._entries.values():
            if now < entry.covered_from:
                entry.cover_anew(now)
                self._plan(entry)

    def _pop_due(self, now: float) -> _Entry | None:
        heap = self._heap
        while heap:
            due, _, entry = heap[0]
            if entry.due == due:
                if due > now:
                    return None
                heappop(heap)
                return entry
            heappop(heap)
        return None

    def _plan(self, entry: _Entry, not_before: float = 0.0) -> None:
        """Find when the next job of a schedule is due, and set the alarm for it."""
        entry.tick = entry.next_after(entry.covered_to) if entry.is_ticking else None
        self._plan_tick(entry, not_before)
        if entry.due is not None:
            self._timer.ring_at_wall_time(entry.due)

    def _plan_tick(self, entry: _Entry, not_before: float = 0.0) -> None:
        """The next tick of a schedule is known: its job is due with it, and not before a time."""
        entry.due = None
        if len(self._heap) > _HEAP_SLACK + 2 * len(self._entries):
            self._heap = [item for item in self._heap if item[2].due == item[0]]
            heapify(self._heap)
        if entry.tick is not None:
            entry.due = max(entry.schedule.due(entry.tick), not_before)
            heappush(self._heap, (entry.due, next(self._numbers), entry))

    def _set_alarm(self) -> None:
        while self._heap and self._heap[0][2].due != self._heap[0][0]:
            heappop(self._heap)
        if self._heap:
            self._timer.ring_at_wall_time(self._heap[0][0])

    def _do(self, entry: _Entry, now: float) -> int:
        """At least one tick of a schedule is due. Returns how many jobs that made."""
        schedule = entry.schedule
        if now - schedule.missed_window > entry.covered_to:
            self._miss_until(entry, now - schedule.missed_window)
        ticks = self._due_ticks(entry, now)
        if ticks:
            entry.covered_to = ticks[-1]
            is_punctual = now - schedule.due(ticks[-1]) <= PUNCTUAL
            late = ticks[:-1] if is_punctual else ticks
            if schedule.missed is not Missed.ALL and late:
                kept = late[-1:] if schedule.missed is Missed.ONE and not is_punctual else []
                entry.missed += len(late) - len(kept)
                ticks = kept + ticks[len(late) :]
            for tick in ticks:
                self._submit_tick(entry, tick, now)
        if entry.due is not None and entry.due <= now:
            # `tick` sets the alarm.
            self._plan_tick(entry)
        return len(ticks)

    def _due_ticks(self, entry: _Entry, now: float) -> list[float]:
        """The last ticks that are due, `MAX_CATCH_UP` at most. Leaves the next one in `entry`."""
        schedule = entry.schedule
        ticks: deque[float] = deque(maxlen=MAX_CATCH_UP)
        tick = entry.tick
        looked_at = 0
        while tick is not None and schedule.due(tick) <= now:
            if len(ticks) == MAX_CATCH_UP:
                entry.missed += 1
            ticks.append(tick)
            looked_at += 1
            if looked_at % MAX_CATCH_UP == 0:
                # So many more take about as long again: what lies before them need not be looked at.
                tick = max(tick, now - 2 * (ticks[-1] - ticks[0]))
            tick = entry.next_after(tick)
        entry.tick = tick
        return list(ticks)

    def _miss_until(self, entry: _Entry, when: float) -> None:
        """What was due before a time is missed for good."""
        tick = entry.tick
        if tick is not None and tick <= when:
            # The clock may have been set forward, and be set back: what is covered begins anew.
            entry.cover_anew(when)
            for _ in range(MAX_CATCH_UP):
                if tick is None or tick > when:
                    break
                entry.missed += 1
                tick = entry.next_after(tick)
            entry.tick = entry.next_after(when)
        entry.covered_to = when

    # -- jobs -------------------------------------------------------------------------------------

    def _submit_tick(self, entry: _Entry, tick: float, now: float) -> None:
        schedule = entry.schedule
        unique = schedule.unique_of(tick)
        if unique and self._is_duplicate(schedule, unique):
            entry.skipped += 1
            if self._store is not None:
                self._store.tick_without_job(schedule.name, tick)
            return
        submission = _Submission(entry, tick, now)
        try:
            self._submit(submission, unique)
        except Refused as refusal:
            self._refused(submission, refusal)

    def _is_duplicate(self, schedule: Schedule, unique: bytes) -> bool:
        """Whether a submit would be answered with a job that was there before."""
        duplicates = self._broker.life.duplicates
        function = self._broker.functions.by_name.get(schedule.function)
        if function is not None and duplicates.find(function, unique, schedule.data) is not None:
            return True
        kept = self._broker.ended_jobs.kept_uniques.find(schedule.function, unique, schedule.data)
        return kept is not None

    def _submit(self, submission: _Submission, unique: bytes) -> None:
        schedule = submission.entry.schedule
        handles = self._broker.life.handles
        before = handles.last()
        self._submitter.current = submission
        try:
            self._broker.submit(
                self._client,
                schedule.function,
                unique,
                schedule.data,
                schedule.priority,
                background=True,
                # Whatever its function says: the next ticks have the same unique, would be answered with
                # this job, and would not run.
                options=NOT_KEPT,
            )
        finally:
            self._submitter.current = None
        if handles.last() > before:
            tick, submission.handle = submission.tick, handles.handle_of(handles.last())
            if tick is not None and self._store is not None:
                self._store.tick_with_job(handles.last(), schedule.name, tick)
        if submission.answer is not None:
            self._taken(submission, submission.answer)

    def _taken(self, submission: _Submission, handle: bytes) -> None:
        """The job of a tick is there: this one, or another whose handle was given."""
        entry, tick = submission.entry, submission.tick
        if submission.tell is not None:
            submission.tell(handle)
        if tick is None:
            return
        if handle == submission.handle:
            entry.ticks += 1
            entry.last_tick = tick
            entry.last_job = handle
            entry.lateness = max(0.0, submission.wall - entry.schedule.due(tick))
        elif handle:
            entry.skipped += 1
        # Without a handle another server has done the tick.

    def _refused(self, submission: _Submission, refusal: Refused) -> None:
        entry, tick = submission.entry, submission.tick
        if submission.tell is not None:
            submission.tell(refusal)
        if tick is None:
            return
        if not isinstance(refusal, NotSaved):
            entry.refused += 1
            return
        if self._entries.get(entry.schedule.name) is not entry:
            # It was removed meanwhile.
            return
        # The store is away, or knows of a change: the tick is tried again, and is missed if that lasts.
        pause = OUTDATED_SECONDS if isinstance(refusal, TickOutdated) else RETRY_SECONDS
        entry.covered_to = min(entry.covered_to, tick - 1)
        entry.covered_from = min(entry.covered_from, entry.covered_to)
        self._plan(entry, self._timer.wall_clock() + pause)
