"""Schedules and their ticks in a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from txgearman.store.contract.schedules import StoredSchedule, Tick
from txgearman.store.session import Session
from txgearman.store.tables import META, SCHEDULE, TICK

_Result = TypeVar("_Result")
NOTED_AT_ONCE: Final = 500
"""Schedules of a file that one statement has at most."""

TickRow = tuple[bytes, float, int | None, int | None]
"""A schedule's name, a tick of it, the number of the job that is to be the tick's, None for no job, and
`Tick.version`."""

_NONE: Final[Set[int]] = frozenset()
_SAVED: Final = ("since", "paused", "definition", "data")


class ScheduleRows(ABC):
    """The `ScheduleTable` of a database.

    A subclass knows one kind of database.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @abstractmethod
    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        """Insert ticks that are not there, of two equal ones the first, unless their schedules have changed,
        as `Changes.ticks` says; nobody changes these until the transaction ends.

        Returns:
            How many were inserted.
        """

    def read(self) -> list[StoredSchedule]:
        last = sa.select(TICK.c.schedule, sa.func.max(TICK.c.tick).label("tick")).group_by(TICK.c.schedule)
        ticks = last.subquery()
        columns = [SCHEDULE.c.name, *(SCHEDULE.c[name] for name in _SAVED), ticks.c.tick]
        columns.append(SCHEDULE.c.version)
        source = SCHEDULE.outerjoin(ticks, ticks.c.schedule == SCHEDULE.c.name)
        query = sa.select(*columns).select_from(source).order_by(SCHEDULE.c.name)

        def read_all() -> list[StoredSchedule]:
            with self._session.connected() as connection:
                return [StoredSchedule._make(row) for row in connection.execute(query)]

        return self._session.with_retries(read_all)

    def save(self, schedule: StoredSchedule, known: int | None = None) -> int | None:
        values = {name: getattr(schedule, name) for name in _SAVED}

        def write(connection: sa.Connection) -> list[bytes]:
            insertion = _insert(connection, SCHEDULE).values(name=schedule.name, **values)
            its = SCHEDULE.c.name == schedule.name
            if known is None:
                connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=values))
                is_changed = True
            elif known:
                change = SCHEDULE.update().where(its, SCHEDULE.c.version == known).values(values)
                is_changed = connection.execute(change).rowcount > 0
            else:
                connection.execute(insertion.on_conflict_do_nothing())
                # One that was committed has a number.
                is_changed = connection.scalar(sa.select(SCHEDULE.c.version).where(its)) == 0
            return [schedule.name] if is_changed else []

        return self._change(write)

    def note_of_file(self, names: Sequence[bytes], since: float) -> None:
        of_file = {"definition": None, "data": None}

        def note(connection: sa.Connection) -> list[bytes]:
            # In order, so that two servers with the same file do not deadlock.
            rows = [{"name": name, "since": since, "paused": False, **of_file} for name in sorted(names)]
            for start in range(0, len(rows), NOTED_AT_ONCE):
                insertion = _insert(connection, SCHEDULE).values(rows[start : start + NOTED_AT_ONCE])
                connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=of_file))
            return sorted(names)

        self._change(note)

    def pause(self, name: bytes, since: float, paused: bool) -> int | None:
        def update(connection: sa.Connection) -> list[bytes]:
            change = SCHEDULE.update().where(SCHEDULE.c.name == name).values(since=since, paused=paused)
            return [name] if connection.execute(change).rowcount else []

        return self._change(update)

    def delete(self, name: bytes) -> None:
        def remove(connection: sa.Connection) -> list[bytes]:
            # First, as it waits for those who insert ticks now, and they wait for it. The ticks too: a
            # schedule of this name that is added later is another one.
            connection.execute(SCHEDULE.delete().where(SCHEDULE.c.name == name))
            connection.execute(TICK.delete().where(TICK.c.schedule == name))
            return [name]

        self._change(remove)

    def changes(self) -> int:
        return self._do(lambda connection: int(connection.scalar(sa.select(META.c.schedule_changes)) or 0))

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        # In the order of their index, as `claim` has them.
        rows = [(tick.schedule, tick.tick, None, None) for tick in sorted(set(ticks))]
        self._do(lambda connection: self._insert_ticks(connection, rows))

    def forget_ticks(self, before: float) -> int:
        def forget(connection: sa.Connection) -> int:
            return connection.execute(TICK.delete().where(TICK.c.tick < before)).rowcount

        return self._do(forget)

    def claim(self, connection: sa.Connection, ticks: Mapping[int, Tick]) -> tuple[Set[int], Set[int]]:
        """Let jobs be those of their ticks.

        Args:
            connection: The connection, in the transaction that saves the jobs.
            ticks: The ticks by the numbers of their jobs.

        Returns:
            The numbers of the jobs whose ticks were done with, and of those whose schedules have changed.
        """
        # In the order of their index: servers that do the same ticks do not deadlock.
        rows = sorted((its.schedule, its.tick, number, its.version) for number, its in ticks.items())
        if self._insert_ticks(connection, rows) == len(rows):
            return _NONE, _NONE
        keys = sa.tuple_(TICK.c.schedule, TICK.c.tick).in_([row[:2] for row in rows])
        found = connection.execute(sa.select(TICK.c.schedule, TICK.c.tick, TICK.c.job).where(keys))
        jobs = {(name, tick): job for name, tick, job in found}
        # A tick that has its own job was claimed by an earlier attempt, whose answer was lost.
        done = {row[2] for row in rows if jobs.get(row[:2], row[2]) != row[2]}
        return done, {row[2] for row in rows if row[:2] not in jobs}

    def _change(self, work: Callable[[sa.Connection], list[bytes]]) -> int | None:
        """Do work that changes schedules, the names of which it returns, and number the change in the same
        transaction; returns the number. If nothing has changed there is none."""

        def change() -> int | None:
            with self._session.writing(2, together=True) as connection:
                names = work(connection)
                if not names:
                    return None
                connection.execute(META.update().values(schedule_changes=META.c.schedule_changes + 1))
                version: int | None = connection.scalar(sa.select(META.c.schedule_changes))
                for start in range(0, len(names), NOTED_AT_ONCE):
                    its = SCHEDULE.c.name.in_(names[start : start + NOTED_AT_ONCE])
                    connection.execute(SCHEDULE.update().where(its).values(version=version))
                return version

        return self._session.with_retries(change)

    def _do(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        def do() -> _Result:
            with self._session.connected() as connection:
                return work(connection)

        return self._session.with_retries(do)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that may say what becomes of a conflict, which each kind of database spells itself."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
