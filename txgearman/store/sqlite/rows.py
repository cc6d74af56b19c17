"""What is in a SQLite file beside the jobs: dead ones, results, settings, ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from txgearman.broker.stored_job import StoredJob
from txgearman.store import tables
from txgearman.store.contract.results import Evicted
from txgearman.store.contract.settings import SettingChanges
from txgearman.store.dead_jobs import DeadJobRows
from txgearman.store.results import ResultRows
from txgearman.store.schedules import ScheduleRows, TickRow
from txgearman.store.session import Session
from txgearman.store.settings import SettingRows
from txgearman.store.sqlite.disk import DiskSpace
from txgearman.store.sqlite.statements import STATEMENT_ROWS, execute_for, insertion
from txgearman.store.tables import KEPT

_REVIVE: Final = (
    f"INSERT INTO txgearman_job (number, place, submitted, losses, owner, {KEPT})"
    f" SELECT number, ?, ?, 0, ?, {KEPT} FROM txgearman_dead WHERE number = ? ON CONFLICT DO NOTHING"
)
_FORGET: Final = "DELETE FROM txgearman_dead WHERE number = ?"

_DROP_SETTINGS: Final = "DELETE FROM txgearman_setting WHERE name IN ({})"
_REMOVE_SETTINGS: Final = "DELETE FROM txgearman_setting WHERE (name, kind) IN ({})"
_SAVE_SETTINGS: Final = "INSERT OR REPLACE INTO txgearman_setting (name, kind, value) SELECT * FROM ({})"
_INSERT_TICKS: Final = (
    "INSERT INTO txgearman_tick (schedule, tick, job) SELECT column1, column2, column3"
    " FROM ({}) LEFT JOIN txgearman_schedule ON name = column1 WHERE column1 IS NOT NULL"
    " AND CASE WHEN column4 IS NULL THEN paused IS NOT TRUE ELSE version IS column4 END"
    " ON CONFLICT DO NOTHING"
)


class SqliteDeadJobRows(DeadJobRows):
    """The dead jobs."""

    def __init__(self, session: Session, space: DiskSpace) -> None:
        super().__init__(session)
        self._space = space

    def retry(self, number: int, position: int, submitted: float) -> StoredJob | None:
        dead = self.find(number)
        if dead is not None:
            self._space.require((), [dead])
        return super().retry(number, position, submitted)

    def forget(self, numbers: Sequence[int]) -> int:
        return self._space.with_reserve(lambda: super(SqliteDeadJobRows, self).forget(numbers))

    def evict(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        return self._space.with_reserve(
            lambda: super(SqliteDeadJobRows, self).evict(max_jobs, max_bytes, ended_before, limit)
        )

    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> None:
        values = (position, submitted, self._session.owner, number)
        revived = connection.exec_driver_sql(_REVIVE, values).rowcount == 1
        if revived:
            connection.exec_driver_sql(_FORGET, (number,))

    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        return sa.func.instr(column, sa.literal(text, tables.Bytes)) > 0


class SqliteResultRows(ResultRows):
    """The results."""

    def __init__(self, session: Session, space: DiskSpace) -> None:
        super().__init__(session)
        self._space = space

    def evict(self, max_bytes: int, now: float, limit: int) -> Evicted:
        return self._space.with_reserve(lambda: super(SqliteResultRows, self).evict(max_bytes, now, limit))


class SqliteSettingRows(SettingRows):
    """The settings."""

    def __init__(self, session: Session, space: DiskSpace) -> None:
        super().__init__(session)
        self._space = space

    def change(self, changes: SettingChanges) -> None:
        self._space.with_reserve(lambda: super(SqliteSettingRows, self).change(changes))

    def _change(self, changes: SettingChanges) -> None:
        with self._session.writing(2) as connection:
            removed = [key for key, value in changes.values.items() if value is None]
            saved = [(*key, value) for key, value in changes.values.items() if value is not None]
            execute_for(connection, _DROP_SETTINGS, [(name,) for name in changes.dropped])
            execute_for(connection, _REMOVE_SETTINGS, removed)
            execute_for(connection, _SAVE_SETTINGS, saved)
            connection.exec_driver_sql("UPDATE txgearman_meta SET settings = settings + 1")


class SqliteScheduleRows(ScheduleRows):
    """The schedules."""

    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        inserted = 0
        for start in range(0, len(rows), STATEMENT_ROWS):
            some = rows[start : start + STATEMENT_ROWS]
            sql, values = insertion(_INSERT_TICKS, some)
            inserted += connection.exec_driver_sql(sql, values).rowcount
        return inserted
