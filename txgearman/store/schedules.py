"""Schedules and their ticks in a database: the part of `DatabaseStore` that is about them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from txgearman.store.contract import StoredSchedule, Tick
from txgearman.store.tables import META, SCHEDULE, TICK

_Result = TypeVar("_Result")
_SAVED: Final = ("since", "paused", "definition", "data")


class ScheduleRows:
    """What `Store` says of schedules. A base of the store, which says how the database is spoken to."""

    def _with_retries(self, work: Callable[[], _Result]) -> _Result:
        """Do idempotent work."""
        raise NotImplementedError

    def _connected(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, where each statement is a transaction of its own."""
        raise NotImplementedError

    def schedules(self) -> list[StoredSchedule]:
        last = sa.select(TICK.c.schedule, sa.func.max(TICK.c.tick).label("tick")).group_by(TICK.c.schedule)
        ticks = last.subquery()
        columns = [SCHEDULE.c.name, *(SCHEDULE.c[name] for name in _SAVED), ticks.c.tick]
        source = SCHEDULE.outerjoin(ticks, ticks.c.schedule == SCHEDULE.c.name)
        query = sa.select(*columns).select_from(source).order_by(SCHEDULE.c.name)

        def read() -> list[StoredSchedule]:
            with self._connected() as connection:
                return [StoredSchedule._make(row) for row in connection.execute(query)]

        return self._with_retries(read)

    def save_schedule(self, schedule: StoredSchedule) -> None:
        values = {name: getattr(schedule, name) for name in _SAVED}

        def save(connection: sa.Connection) -> None:
            insertion = _insert(connection, SCHEDULE).values(name=schedule.name, **values)
            connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=values))

        self._change(save)

    def note_file_schedule(self, name: bytes, since: float) -> None:
        of_file = {"definition": None, "data": None}

        def note(connection: sa.Connection) -> None:
            insertion = _insert(connection, SCHEDULE).values(name=name, since=since, paused=False, **of_file)
            connection.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=of_file))

        self._change(note)

    def pause_schedule(self, name: bytes, since: float, paused: bool) -> bool:
        def pause(connection: sa.Connection) -> bool:
            update = SCHEDULE.update().where(SCHEDULE.c.name == name)
            return connection.execute(update.values(since=since, paused=paused)).rowcount > 0

        return self._change(pause)

    def delete_schedule(self, name: bytes) -> None:
        def delete(connection: sa.Connection) -> None:
            # The ticks too: a schedule of this name that is added later is another one.
            connection.execute(TICK.delete().where(TICK.c.schedule == name))
            connection.execute(SCHEDULE.delete().where(SCHEDULE.c.name == name))

        self._change(delete)

    def schedule_changes(self) -> int:
        return self._do(lambda connection: int(connection.scalar(sa.select(META.c.schedule_changes)) or 0))

    def skip_tick(self, name: bytes, tick: float) -> None:
        def skip(connection: sa.Connection) -> None:
            connection.execute(
                _insert(connection, TICK).values(schedule=name, tick=tick).on_conflict_do_nothing()
            )

        self._do(skip)

    def forget_ticks(self, before: float) -> int:
        def forget(connection: sa.Connection) -> int:
            return connection.execute(TICK.delete().where(TICK.c.tick < before)).rowcount

        return self._do(forget)

    def _claim_ticks(self, connection: sa.Connection, ticks: Mapping[int, Tick]) -> frozenset[int]:
        """Let jobs be those of their ticks; returns the numbers of those whose ticks were done with."""
        wanted = sorted((*its, number) for number, its in ticks.items())
        rows = [{"schedule": name, "tick": tick, "job": number} for name, tick, number in wanted]
        connection.execute(_insert(connection, TICK).on_conflict_do_nothing(), rows)
        keys = sa.tuple_(TICK.c.schedule, TICK.c.tick).in_([(name, tick) for name, tick, _ in wanted])
        query = sa.select(TICK.c.schedule, TICK.c.tick, TICK.c.job).where(keys)
        jobs = _by_tick(connection.execute(query))
        return frozenset(number for name, tick, number in wanted if jobs.get((name, tick)) != number)

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
            with self._connected() as connection:
                return work(connection)

        return self._with_retries(do)


def _by_tick(rows: Iterable[Any]) -> dict[tuple[bytes, float], int | None]:
    return {(name, tick): job for name, tick, job in rows}


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that may say what becomes of a conflict, which each kind of database spells itself."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
