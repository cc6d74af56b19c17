"""Schedules in memory: what `Store` says of them, for the stores of tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


class HasSchedules:
    """The part of a store that is about schedules, on `schedule_table`."""

    schedule_table: ScheduleTable

    def _check(self) -> None:
        """Raise what every call of the store raises now."""
        raise NotImplementedError

    def schedules(self) -> list[StoredSchedule]:
        self._check()
        return self.schedule_table.read()

    def save_schedule(self, schedule: StoredSchedule) -> None:
        self._check()
        self.schedule_table.schedules[schedule.name] = schedule._replace(last_tick=None)
        self.schedule_table.changes += 1

    def note_file_schedule(self, name: bytes, since: float) -> None:
        self._check()
        self.schedule_table.changes += 1
        table = self.schedule_table.schedules
        table[name] = table.get(name, StoredSchedule(name, since, False))._replace(definition=None, data=None)

    def pause_schedule(self, name: bytes, since: float, paused: bool) -> bool:
        self._check()
        self.schedule_table.changes += 1
        stored = self.schedule_table.schedules.get(name)
        if stored is not None:
            self.schedule_table.schedules[name] = stored._replace(since=since, paused=paused)
        return stored is not None

    def delete_schedule(self, name: bytes) -> None:
        self._check()
        self.schedule_table.changes += 1
        self.schedule_table.delete(name)

    def schedule_changes(self) -> int:
        self._check()
        return self.schedule_table.changes

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        self._check()
        for tick in ticks:
            self.schedule_table.ticks.setdefault((*tick,), None)

    def forget_ticks(self, before: float) -> int:
        self._check()
        return self.schedule_table.forget(before)
