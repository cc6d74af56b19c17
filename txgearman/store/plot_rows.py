"""Pieces of the dashboard's plots in a database: the part of `DatabaseStore` that is about them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa

from txgearman.store.plots import PlotPiece
from txgearman.store.tables import PLOT

_Result = TypeVar("_Result")


class PlotRows(ABC):
    """What `PlotTable` says. A base of the store, which says how the database is spoken to."""

    @abstractmethod
    def _with_retries(self, work: Callable[[], _Result]) -> _Result:
        """Do idempotent work."""

    @abstractmethod
    def _writing(
        self, statements: int, together: bool = False
    ) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, for so many statements that write."""

    @abstractmethod
    def _connected(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """The connection, where each statement is a transaction of its own."""

    def plots(self, server: str, since: float) -> list[PlotPiece]:
        query = (
            sa.select(PLOT.c.name, PLOT.c.began, PLOT.c.points)
            .where(PLOT.c.server == server, PLOT.c.began >= since)
            .order_by(PLOT.c.began)
        )

        def read() -> list[PlotPiece]:
            with self._connected() as connection:
                return [PlotPiece._make(row) for row in connection.execute(query)]

        return self._with_retries(read)

    def save_plots(self, server: str, pieces: Sequence[PlotPiece], before: float) -> None:
        times = sorted({piece.began for piece in pieces})
        names = sorted({piece.name for piece in pieces})
        again = sa.and_(PLOT.c.began.in_(times), PLOT.c.name.in_(names))
        replaced = sa.and_(PLOT.c.server == server, sa.or_(PLOT.c.began < before, again))
        rows = [{"server": server, **piece._asdict()} for piece in pieces]

        def save() -> None:
            with self._writing(2, together=True) as connection:
                connection.execute(PLOT.delete().where(replaced))
                if rows:
                    connection.execute(PLOT.insert(), rows)

        self._with_retries(save)
