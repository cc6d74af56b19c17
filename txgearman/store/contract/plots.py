"""Pieces of the dashboard's plots, which outlive the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class PlotPiece(NamedTuple):
    """A piece of a plot.

    Attributes:
        name: The plot.
        began: When the piece begins, in seconds since the epoch.
        points: The points in it, as whoever saves them writes them.
    """

    name: str
    began: float
    points: bytes


class PlotTable(Protocol):
    """The plots of servers."""

    def read(self, server: str, since: float) -> list[PlotPiece]:
        """Read the pieces of a server.

        Args:
            server: The server's name, the same after each start.
            since: Pieces that begin earlier are left out; seconds since the epoch.

        Returns:
            The pieces, in the order of time.
        """

    def save(self, server: str, pieces: Sequence[PlotPiece], before: float) -> None:
        """Save pieces, in place of those of the same plot that begin at the same time.

        Args:
            server: The server's name.
            pieces: The pieces.
            before: Pieces of this server that begin earlier are deleted; seconds since the epoch.
        """
