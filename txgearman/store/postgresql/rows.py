"""What is in PostgreSQL beside the jobs: dead ones, settings, ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from txgearman.store import tables
from txgearman.store.contract.settings import SettingChanges
from txgearman.store.dead_jobs import DeadJobRows
from txgearman.store.postgresql.arrays import ARRAYS, NUMBERS, TIMES
from txgearman.store.postgresql.session import ALIVE, PostgresqlSession
from txgearman.store.schedules import ScheduleRows, TickRow
from txgearman.store.settings import SettingRows
from txgearman.store.tables import KEPT

_REVIVE: Final = (
    f"{ALIVE.format('')}, gone AS (DELETE FROM txgearman_dead USING alive"
    " WHERE txgearman_dead.number = %b::bigint AND NOT EXISTS (SELECT 1 FROM txgearman_job"
    " WHERE txgearman_job.unique_key = txgearman_dead.unique_key"
    " AND txgearman_job.function = txgearman_dead.function) RETURNING txgearman_dead.*),"
    f" revived AS (INSERT INTO txgearman_job (number, place, submitted, losses, owner, {KEPT})"
    f" SELECT gone.number, %b::bigint, %b::double precision, 0, alive.number, {KEPT} FROM gone, alive"
    " RETURNING 1)"
    " SELECT (SELECT count(*) FROM alive), count(*) FROM revived"
)
# The row that counts the changes is locked first, so that two servers which change the same do not deadlock.
# A row that is both deleted and inserted would be an error.
_CHANGE_SETTINGS: Final = (
    f"{ALIVE.format('')}, counted AS ("
    "UPDATE txgearman_meta SET settings = settings + 1 FROM alive RETURNING 1),"
    " new AS (SELECT * FROM unnest(%b::bytea[], %b::text[], %b::text[]) AS new(name, kind, value)),"
    " gone AS (DELETE FROM txgearman_setting AS old USING counted"
    " WHERE (old.name = ANY(%b::bytea[]) OR (old.name, old.kind) IN (SELECT name, kind FROM new))"
    " AND NOT EXISTS (SELECT 1 FROM new"
    " WHERE new.name = old.name AND new.kind = old.kind AND new.value IS NOT NULL)),"
    " saved AS (INSERT INTO txgearman_setting (name, kind, value)"
    " SELECT new.* FROM new, counted WHERE value IS NOT NULL ORDER BY name, kind"
    " ON CONFLICT (name, kind) DO UPDATE SET value = excluded.value)"
    " SELECT count(*) FROM alive"
)
# Whoever changes a schedule waits for those who insert ticks of it, and they see its change.
_INSERT_TICKS: Final = (
    "WITH new AS (SELECT * FROM unnest(%b::bytea[], %b::double precision[], %b::bigint[], %b::bigint[])"
    " AS new(schedule, tick, job, version)),"
    " its AS (SELECT name, version, paused FROM txgearman_schedule WHERE name = ANY(%b::bytea[])"
    " ORDER BY name FOR SHARE)"
    " INSERT INTO txgearman_tick (schedule, tick, job) SELECT schedule, tick, job"
    " FROM new LEFT JOIN its ON its.name = new.schedule"
    " WHERE CASE WHEN new.version IS NULL THEN its.paused IS NOT TRUE ELSE its.version = new.version END"
    " ORDER BY schedule, tick ON CONFLICT DO NOTHING"
)


class PostgresqlDeadJobRows(DeadJobRows):
    """The dead jobs."""

    def __init__(self, session: PostgresqlSession) -> None:
        super().__init__(session)
        self._session: PostgresqlSession = session

    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> None:
        # If another job gets its unique at this moment that is a conflict, and the next attempt sees it.
        self._session.may_conflict = False
        values = (self._session.owner, number, position, submitted)
        alive, _ = connection.exec_driver_sql(_REVIVE, values).one()
        self._session.check(alive)

    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        return sa.func.pg_catalog.position(column, sa.literal(text, tables.Bytes)) > 0


class PostgresqlSettingRows(SettingRows):
    """The settings."""

    def __init__(self, session: PostgresqlSession) -> None:
        super().__init__(session)
        self._session: PostgresqlSession = session

    def _change(self, changes: SettingChanges) -> None:
        with self._session.connected() as connection:
            names = [name for name, _ in changes.values]
            kinds = [kind for _, kind in changes.values]
            values = (self._session.owner, names, kinds, list(changes.values.values()), list(changes.dropped))
            self._session.check(connection.exec_driver_sql(_CHANGE_SETTINGS, values).scalar())


class PostgresqlScheduleRows(ScheduleRows):
    """The schedules."""

    def _insert_ticks(self, connection: sa.Connection, rows: Sequence[TickRow]) -> int:
        schedules, ticks, jobs, versions = zip(*rows, strict=True)
        as_bytes = ARRAYS["BYTEA"]
        values = as_bytes(schedules), TIMES(ticks), NUMBERS(jobs), NUMBERS(versions)
        names = as_bytes(sorted(set(schedules)))
        return connection.exec_driver_sql(_INSERT_TICKS, (*values, names)).rowcount
