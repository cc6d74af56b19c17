"""Pieces of the dashboard's plots in a database."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from txgearman.store.contract.plots import PlotPiece
from txgearman.store.session import Session
from txgearman.store.tables import PLOT


class PlotRows:
    """The `PlotTable` of a database."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def read(self, server: str, since: float) -> list[PlotPiece]:
        query = (
            sa.select(PLOT.c.name, PLOT.c.began, PLOT.c.points)
            .where(PLOT.c.server == server, PLOT.c.began >= since)
            .order_by(PLOT.c.began)
        )

        def read_all() -> list[PlotPiece]:
            with self._session.connected() as connection:
                return [PlotPiece._make(row) for row in connection.execute(query)]

        return self._session.with_retries(read_all)

    def save(self, server: str, pieces: Sequence[PlotPiece], before: float) -> None:
        times = sorted({piece.began for piece in pieces})
        names = sorted({piece.name for piece in pieces})
        again = sa.and_(PLOT.c.began.in_(times), PLOT.c.name.in_(names))
        replaced = sa.and_(PLOT.c.server == server, sa.or_(PLOT.c.began < before, again))
        rows = [{"server": server, **piece._asdict()} for piece in pieces]

        def replace() -> None:
            with self._session.writing(2, together=True) as connection:
                connection.execute(PLOT.delete().where(replaced))
                if rows:
                    connection.execute(PLOT.insert(), rows)

        self._session.with_retries(replace)
