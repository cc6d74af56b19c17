"""Schedules in memory: what `Store` says of them, for the stores of tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from txgearman.store.contract import StoredSchedule, Tick


class ScheduleTable:
    """Schedules and ticks, which several servers may share."""

    def __init__(self) -> None:
        self.schedules: dict[bytes, StoredSchedule] = {}
        self.ticks: dict[tuple[bytes, float], int | None] = {}
        self.changes = 0

    def claim(self, ticks: Mapping[int, Tick]) -> tuple[set[int], set[int]]:
        """Let jobs be those of their ticks; returns the numbers of those whose ticks were done with, and of
        those whose schedules have changed."""
        done, refused = set(), set()
        for number, tick in sorted(ticks.items(), key=lambda item: (item[1][:2], item[0])):
            if tick[:2] not in self.ticks and not self._follows(tick):
                refused.add(number)
            elif self.ticks.setdefault(tick[:2], number) != number:
                done.add(number)
        return done, refused

    def _follows(self, tick: Tick) -> bool:
        """Whether a tick is one of its schedule as that is now."""
        known = self.schedules.get(tick.schedule)
        if tick.version is None:
            return known is None or not known.paused
        return known is not None and known.version == tick.version

    def change(self, schedule: StoredSchedule) -> int:
        """Store a schedule, with its new version, which is returned."""
        self.changes += 1
        self.schedules[schedule.name] = schedule._replace(last_tick=None, version=self.changes)
        return self.changes

    def read(self) -> list[StoredSchedule]:
        last: dict[bytes, float] = {}
        for name, tick in self.ticks:
            last[name] = max(tick, last.get(name, tick))
        return [each._replace(last_tick=last.get(name)) for name, each in sorted(self.schedules.items())]

    def delete(self, name: bytes) -> None:
        self.schedules.pop(name, None)
        for key in [key for key in self.ticks if key[0] == name]:
            del self.ticks[key]

    def forget(self, before: float) -> int:
        old = [key for key in self.ticks if key[1] < before]
        for key in old:
            del self.ticks[key]
        return len(old)


class MemorySchedules:
    """The `schedules` of a store in memory, on `table`. `check` raises what each call of the store raises."""

    def __init__(self, table: ScheduleTable, check: Callable[[], None]) -> None:
        self._table = table
        self._check = check

    def read(self) -> list[StoredSchedule]:
        self._check()
        return self._table.read()

    def save(self, schedule: StoredSchedule, known: int | None = None) -> int | None:
        self._check()
        stored = self._table.schedules.get(schedule.name)
        if known is not None and known != (0 if stored is None else stored.version):
            return None
        return self._table.change(schedule)

    def note_of_file(self, names: Sequence[bytes], since: float) -> None:
        self._check()
        for name in names:
            known = self._table.schedules.get(name, StoredSchedule(name, since, False))
            self._table.change(known._replace(definition=None, data=None))

    def pause(self, name: bytes, since: float, paused: bool) -> int | None:
        self._check()
        stored = self._table.schedules.get(name)
        return None if stored is None else self._table.change(stored._replace(since=since, paused=paused))

    def delete(self, name: bytes) -> None:
        self._check()
        self._table.changes += 1
        self._table.delete(name)

    def changes(self) -> int:
        self._check()
        return self._table.changes

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        self._check()
        for tick in ticks:
            self._table.ticks.setdefault(tick[:2], None)

    def forget_ticks(self, before: float) -> int:
        self._check()
        return self._table.forget(before)
