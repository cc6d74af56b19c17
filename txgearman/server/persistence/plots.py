"""The dashboard's plots in the store: read at the start, and written now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.errors import StoreError
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract.plots import PlotPiece, PlotTable

_log = Logger()


class StoredPlots:
    """Keeps the plots of one server in a store that several may share.

    Args:
        table: The plots of the store, used through `in_thread`.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        server: The name of the server, which is the same after each start.
    """

    def __init__(self, table: PlotTable, in_thread: InThread, server: str) -> None:
        self._table = table
        self._in_thread = in_thread
        self._server = server
        self._loading: Deferred[Any] | None = None
        self._saving: Deferred[None] | None = None

    def load(self, since: float, tell: Callable[[list[tuple[str, float, bytes]]], None]) -> None:
        """Read what is kept, unless it is being read.

        Args:
            since: Pieces that begin earlier are left out; seconds since the epoch.
            tell: Called with the name, the beginning and the points of each piece, in the order of time. Not
                called where the store fails.
        """
        if self._loading is not None:
            return

        def read(_result: object) -> None:
            self._loading = None

        self._loading = self._in_thread(self._table.read, self._server, since)
        self._loading.addCallbacks(tell, self._failed).addErrback(log_defect)
        self._loading.addBoth(read)

    def save(self, pieces: Sequence[tuple[str, float, bytes]], before: float) -> None:
        """Write pieces, unless others are being written: they are written with the next ones then.

        Args:
            pieces: The name, the beginning and the points of each; those of the same name and beginning are
                replaced.
            before: Pieces that begin earlier are deleted; seconds since the epoch.
        """
        if self._saving is not None:
            return

        def saved(_result: object) -> None:
            self._saving = None

        rows = [PlotPiece(*piece) for piece in pieces]
        self._saving = self._in_thread(self._table.save, self._server, rows, before)
        self._saving.addErrback(self._failed).addErrback(log_defect)
        self._saving.addBoth(saved)

    @staticmethod
    def _failed(failure: Failure) -> None:
        # The writer says of an outage what there is to say.
        if not isinstance(failure.value, StoreError):
            failure.raiseException()
        _log.debug("The dashboard's plots were not kept: {error}", error=failure.value)
