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

    def claim(self, ticks: Mapping[int, Tick]) -> frozenset[int]:
        """Let jobs be those of their ticks; returns the numbers of those whose ticks were done with."""
        done = set()
        for number, key in sorted(ticks.items(), key=lambda item: (item[1], item[0])):
            if self.ticks.setdefault((*key,), number) != number:
                done.add(number)
        return frozenset(done)

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

    def save(self, schedule: StoredSchedule) -> None:
        self._check()
        self._table.schedules[schedule.name] = schedule._replace(last_tick=None)
        self._table.changes += 1

    def note_of_file(self, names: Sequence[bytes], since: float) -> None:
        self._check()
        self._table.changes += 1
        table = self._table.schedules
        for name in names:
            known = table.get(name, StoredSchedule(name, since, False))
            table[name] = known._replace(definition=None, data=None)

    def pause(self, name: bytes, since: float, paused: bool) -> bool:
        self._check()
        self._table.changes += 1
        stored = self._table.schedules.get(name)
        if stored is not None:
            self._table.schedules[name] = stored._replace(since=since, paused=paused)
        return stored is not None

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
            self._table.ticks.setdefault((*tick,), None)

    def forget_ticks(self, before: float) -> int:
        self._check()
        return self._table.forget(before)
