"""Results of jobs in a database."""

from __future__ import annotations

import sqlalchemy as sa

from txgearman.broker.kept_result import KeptResult, ResultCounts
from txgearman.store.contract.results import Evicted
from txgearman.store.session import Session
from txgearman.store.tables import LARGEST_NUMBER, RESULT, RESULT_COLUMNS


class ResultRows:
    """The `ResultTable` of a database."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, number: int, now: float) -> KeptResult | None:
        if number > LARGEST_NUMBER:
            return None
        rows = self._session.rows(
            sa.select(*RESULT_COLUMNS).where(RESULT.c.number == number, RESULT.c.expires_at > now)
        )
        return KeptResult._make(rows[0]) if rows else None

    def counts(self) -> ResultCounts:
        ((results, weight),) = self._session.rows(sa.select(*[sa.func.count(), sa.func.sum(RESULT.c.weight)]))
        return ResultCounts(results, int(weight or 0))

    def evict(self, max_bytes: int, now: float, limit: int) -> Evicted:
        past = sa.select(RESULT.c.number).where(RESULT.c.expires_at <= now)
        expired = self._session.delete_unowned(
            RESULT, RESULT.c.number.in_(past.order_by(RESULT.c.expires_at).limit(limit))
        )
        # One statement, which sees one state: another server that does the same deletes the same ones.
        oldest = sa.select(RESULT.c.number, RESULT.c.ended, RESULT.c.weight)
        oldest_first = oldest.order_by(RESULT.c.ended, RESULT.c.number).limit(limit).subquery()
        ranked = sa.select(
            oldest_first.c.number,
            sa.func.sum(oldest_first.c.weight)
            .over(order_by=[oldest_first.c.ended, oldest_first.c.number])
            .label("passed"),
            oldest_first.c.weight,
        ).subquery()
        total = sa.select(sa.func.coalesce(sa.func.sum(RESULT.c.weight), 0).label("bytes")).subquery()
        evicted = self._session.delete_unowned(
            RESULT,
            RESULT.c.number.in_(
                sa.select(ranked.c.number)
                .select_from(ranked.join(total, sa.true()))
                .where(total.c.bytes - ranked.c.passed + ranked.c.weight > max_bytes)
            ),
        )
        return Evicted(expired, evicted)
