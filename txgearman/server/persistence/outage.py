"""Whether the store fails, and when it is tried again. No timers here: the caller has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.errors import StoreError, StoreUnavailable

MIN_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 5.0
"""Seconds between two attempts on a store that is unavailable: the first, and what doubling leads to."""

Happened = Callable[..., None]
"""Is told what the server has done by itself, see `Activity.happened`."""

_log = Logger()


class Outage:
    """The outage of the store, if there is one. `error` says why, and is None while the store works.

    Args:
        happened: Is told when one begins and ends.
    """

    def __init__(self, happened: Happened) -> None:
        self.error: StoreUnavailable | None = None
        self._happened = happened
        self._backoff = MIN_BACKOFF

    def begin(self, failure: Failure) -> None:
        """The store has failed. Logged once for each outage."""
        error = failure.value
        if not isinstance(error, StoreError):
            _log.failure("The store failed", failure)
        if self.error is None:
            _log.error(
                "The store is unavailable, background jobs are refused: {error}. Check the database, its "
                "disk and the network to it. The server tries again by itself, at least "
                "every {seconds:g} seconds",
                error=str(error),
                seconds=MAX_BACKOFF,
            )
            self._happened("store unavailable", str(error))
        self.error = error if isinstance(error, StoreUnavailable) else StoreUnavailable(str(error))

    def end(self) -> bool:
        """The store works; returns whether it had failed."""
        if self.error is None:
            return False
        self.error = None
        self._backoff = MIN_BACKOFF
        self._happened("store available again")
        return True

    def next_backoff(self) -> float:
        """Seconds until the next attempt, twice as many each time."""
        backoff = self._backoff
        self._backoff = min(backoff * 2, MAX_BACKOFF)
        return backoff
