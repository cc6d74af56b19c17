"""Dead jobs in a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from txgearman.broker.dead_job import DeadCursor, DeadFilter, DeadJob, DeadPage
from txgearman.broker.stored_job import StoredJob
from txgearman.errors import UniqueInUse
from txgearman.store.contract.dead_jobs import MAX_EXAMINED, MAX_EXAMINED_BYTES, DeadCount
from txgearman.store.session import Session
from txgearman.store.tables import DEAD, DEAD_COLUMNS, JOB, LARGEST_NUMBER, STORED

FORGOTTEN_AT_ONCE: Final = 1000
"""Dead jobs whose numbers one statement has at most."""

_DEAD_WITHOUT_DATA: Final = [column for column in DEAD_COLUMNS if column is not DEAD.c.data]
_DEAD_DATA: Final = DeadJob._fields.index("data")
_LAST_DEAD_FIRST: Final = (DEAD.c.ended.desc(), DEAD.c.number.desc())
_SEARCHED: Final = (DEAD.c.function, DEAD.c.unique, DEAD.c.handle, DEAD.c.error, DEAD.c.data)
"""What `DeadFilter.search` is looked for in."""


class DeadJobRows(ABC):
    """The `DeadJobTable` of a database.

    A subclass knows one kind of database.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @abstractmethod
    def _revive(self, connection: sa.Connection, number: int, position: int, submitted: float) -> None:
        """Make a dead job an own one, unless there is none, or a job with its unique."""

    @abstractmethod
    def _contains(self, column: sa.Column[Any], text: bytes) -> sa.ColumnElement[bool]:
        """The condition that a column of bytes has these bytes in it."""

    def page(self, wanted: DeadFilter, before: DeadCursor | None, limit: int, with_data: bool) -> DeadPage:
        def read() -> DeadPage:
            with self._session.reading() as connection:
                return self._read_page(connection, wanted, before, limit, with_data)

        return self._session.with_retries(read)

    def _read_page(
        self,
        connection: sa.Connection,
        wanted: DeadFilter,
        before: DeadCursor | None,
        limit: int,
        with_data: bool,
    ) -> DeadPage:
        conditions = [] if wanted.function is None else [DEAD.c.function == wanted.function]
        examined, has_more = self._examined(
            connection,
            [*conditions, _dead_key() < sa.tuple_(*before)] if before else conditions,
            MAX_EXAMINED if wanted.search else limit,
            MAX_EXAMINED_BYTES if wanted.search or with_data else None,
        )
        if not examined:
            return DeadPage([], None)
        conditions += [_dead_key() <= sa.tuple_(*examined[0]), _dead_key() >= sa.tuple_(*examined[-1])]
        if wanted.search:
            conditions.append(sa.or_(*(self._contains(column, wanted.search) for column in _SEARCHED)))
        query = sa.select(*(DEAD_COLUMNS if with_data else _DEAD_WITHOUT_DATA)).where(*conditions)
        rows = connection.execute(query.order_by(*_LAST_DEAD_FIRST).limit(limit)).all()
        jobs = [_dead_job(row, with_data) for row in rows]
        last = examined[-1]
        if len(jobs) == limit:
            last = DeadCursor(jobs[-1].ended, jobs[-1].number)
        return DeadPage(jobs, last if has_more or last != examined[-1] else None)

    def _examined(
        self,
        connection: sa.Connection,
        conditions: Sequence[sa.ColumnElement[bool]],
        limit: int,
        most_bytes: int | None,
    ) -> tuple[list[DeadCursor], bool]:
        """The cursors of the dead jobs that are looked at for a page, and whether there are more. This reads
        an index alone."""
        query = sa.select(DEAD.c.ended, DEAD.c.number, DEAD.c.weight).where(*conditions)
        cursors: list[DeadCursor] = []
        size = 0
        for ended, number, weight in connection.execute(query.order_by(*_LAST_DEAD_FIRST).limit(limit + 1)):
            size += weight
            too_large = most_bytes is not None and size > most_bytes
            if len(cursors) == limit or (too_large and cursors):
                return cursors, True
            cursors.append(DeadCursor(ended, number))
        return cursors, False

    def find(self, number: int) -> DeadJob | None:
        if number > LARGEST_NUMBER:
            return None
        rows = self._session.rows(sa.select(*DEAD_COLUMNS).where(DEAD.c.number == number))
        return DeadJob._make(rows[0]) if rows else None

    def retry(self, number: int, position: int, submitted: float) -> StoredJob | None:
        if number > LARGEST_NUMBER:
            return None
        # No other job ever has this position. So it was this call, or an earlier one whose answer was lost.
        revived = sa.select(*STORED).where(JOB.c.number == number, JOB.c.position == position)
        is_dead = sa.select(DEAD.c.number).where(DEAD.c.number == number)

        def revive() -> StoredJob | None:
            with self._session.writing(2) as connection:
                self._revive(connection, number, position, submitted)
            with self._session.reading() as connection:
                row = connection.execute(revived).first()
                if row is None and connection.execute(is_dead).first() is not None:
                    raise UniqueInUse
            return None if row is None else StoredJob._make(row)

        return self._session.with_retries(revive)

    def forget(self, numbers: Sequence[int]) -> int:
        known = [number for number in numbers if number <= LARGEST_NUMBER]
        return sum(
            self._session.delete_unowned(DEAD, DEAD.c.number.in_(known[start : start + FORGOTTEN_AT_ONCE]))
            for start in range(0, len(known), FORGOTTEN_AT_ONCE)
        )

    def counts(self) -> list[DeadCount]:
        query = sa.select(DEAD.c.function, sa.func.count(), sa.func.sum(DEAD.c.weight))
        return [
            DeadCount(function, jobs, int(weight))
            for function, jobs, weight in self._session.rows(query.group_by(DEAD.c.function))
        ]

    def evict(self, max_jobs: int, max_bytes: int, ended_before: float, limit: int) -> int:
        # One statement, which sees one state: another server that does the same deletes the same ones.
        oldest = sa.select(DEAD.c.number, DEAD.c.ended, DEAD.c.weight)
        oldest_first = oldest.order_by(DEAD.c.ended, DEAD.c.number).limit(limit).subquery()
        order = [oldest_first.c.ended, oldest_first.c.number]
        ranked = sa.select(
            oldest_first.c.number,
            oldest_first.c.ended,
            sa.func.row_number().over(order_by=order).label("rank"),
            sa.func.sum(oldest_first.c.weight).over(order_by=order).label("passed"),
            oldest_first.c.weight,
        ).subquery()
        total = sa.select(
            sa.func.count().label("jobs"), sa.func.coalesce(sa.func.sum(DEAD.c.weight), 0).label("bytes")
        ).subquery()
        return self._session.delete_unowned(
            DEAD,
            DEAD.c.number.in_(
                sa.select(ranked.c.number)
                .select_from(ranked.join(total, sa.true()))
                .where(
                    sa.or_(
                        ranked.c.ended < ended_before,
                        total.c.jobs - ranked.c.rank >= max_jobs,
                        total.c.bytes - ranked.c.passed + ranked.c.weight > max_bytes,
                    )
                )
            ),
        )


def _dead_job(row: Sequence[Any], has_data: bool) -> DeadJob:
    return DeadJob._make(row if has_data else (*row[:_DEAD_DATA], None, *row[_DEAD_DATA:]))


def _dead_key() -> sa.Tuple:
    return sa.tuple_(DEAD.c.ended, DEAD.c.number)
