"""Schedules and their ticks in a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from txgearman.store.contract.schedules import StoredSchedule, Tick
from txgearman.store.session import Session
from txgearman.store.tables import META, SCHEDULE, TICK

_Result = TypeVar("_Result")
NOTED_AT_ONCE: Final = 500
"""Schedules of a file that one statement has at most."""

TickRow = tuple[bytes, float, int | None]
"""A schedule's name, a tick of it, and the number of the job that is to be the tick's; None for no job."""

_SAVED: Final = ("since", "paused", "definition", "data")


class ScheduleRows(ABC):
    """The `ScheduleTable` of a database.

    A subclass knows one kind of database.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @abstractmethod
    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        """Insert ticks that are not there, of two equal ones the first; returns how many were inserted."""

    def read(self) -> list[StoredSchedule]:
        last = sa.select(TICK.c.schedule, sa.func.max(TICK.c.tick).label("tick")).group_by(TICK.c.schedule)
        ticks = last.subquery()
        columns = [SCHEDULE.c.name, *(SCHEDULE.c[name] for name in _SAVED), ticks.c.tick]
        source = SCHEDULE.outerjoin(ticks, ticks.c.schedule == SCHEDULE.c.name)
        query = sa.select(*columns).select_from(source).order_by(SCHEDULE.c.name)

        def read_all() -> list[StoredSchedule]:
            with self._session.connected() as connection:
                return [StoredSchedule._make(row) for row in connection.execute(query)]

        return self._session.with_retries(read_all)

    def save(self, schedule: StoredSchedule) -> None:
        values = {name: getattr(schedule, name) for name in _SAVED}

        def insert(connection: sa.Connection) -> None:
            insertion = _insert(connection, SCHEDULE).values(name=schedule.name, **values)
            connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=values))

        self._change(insert)

    def note_of_file(self, names: Sequence[bytes], since: float) -> None:
        of_file = {"definition": None, "data": None}

        def note(connection: sa.Connection) -> None:
            rows = [{"name": name, "since": since, "paused": False, **of_file} for name in sorted(names)]
            for start in range(0, len(rows), NOTED_AT_ONCE):
                insertion = _insert(connection, SCHEDULE).values(rows[start : start + NOTED_AT_ONCE])
                connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=of_file))

        self._change(note)

    def pause(self, name: bytes, since: float, paused: bool) -> bool:
        def update(connection: sa.Connection) -> bool:
            change = SCHEDULE.update().where(SCHEDULE.c.name == name)
            return connection.execute(change.values(since=since, paused=paused)).rowcount > 0

        return self._change(update)

    def delete(self, name: bytes) -> None:
        def remove(connection: sa.Connection) -> None:
            # The ticks too: a schedule of this name that is added later is another one.
            connection.execute(TICK.delete().where(TICK.c.schedule == name))
            connection.execute(SCHEDULE.delete().where(SCHEDULE.c.name == name))

        self._change(remove)

    def changes(self) -> int:
        return self._do(lambda connection: int(connection.scalar(sa.select(META.c.schedule_changes)) or 0))

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        # In the order of their index, as `_claim_ticks` has them.
        rows = [(*tick, None) for tick in sorted(ticks)]
        self._do(lambda connection: self._insert_ticks(connection, rows))

    def forget_ticks(self, before: float) -> int:
        def forget(connection: sa.Connection) -> int:
            return connection.execute(TICK.delete().where(TICK.c.tick < before)).rowcount

        return self._do(forget)

    def claim(self, connection: sa.Connection, ticks: Mapping[int, Tick]) -> frozenset[int]:
        """Let jobs be those of their ticks; returns the numbers of those whose ticks were done with."""
        # In the order of their index: servers that do the same ticks do not deadlock.
        claims: list[tuple[bytes, float, int]] = sorted([(*its, number) for number, its in ticks.items()])
        if self._insert_ticks(connection, claims) == len(claims):
            return frozenset()
        keys = sa.tuple_(TICK.c.schedule, TICK.c.tick).in_([(name, tick) for name, tick, _ in claims])
        rows = connection.execute(sa.select(TICK.c.schedule, TICK.c.tick, TICK.c.job).where(keys))
        jobs = {(name, tick): job for name, tick, job in rows}
        # A tick that has its own job was claimed by an earlier attempt, whose answer was lost.
        return frozenset(number for name, tick, number in claims if jobs.get((name, tick)) != number)

    def _change(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        """Do work that changes schedules, and count it in the same transaction."""

        def change(connection: sa.Connection) -> _Result:
            connection.exec_driver_sql("BEGIN")
            result = work(connection)
            connection.execute(META.update().values(schedule_changes=META.c.schedule_changes + 1))
            connection.exec_driver_sql("COMMIT")
            return result

        return self._do(change)

    def _do(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        def do() -> _Result:
            with self._session.connected() as connection:
                return work(connection)

        return self._session.with_retries(do)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that may say what becomes of a conflict, which each kind of database spells itself."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
