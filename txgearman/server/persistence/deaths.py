"""Deaths that wait to be written: what is to be kept of jobs that are dead, until it is in the store.

In an outage of the store they gather. Their data is in the store already, so that only the texts of errors
take much memory; these are bounded together. No I/O and no timers here: the writer has them.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Final, NamedTuple

from twisted.logger import Logger

from txgearman.broker.dead_job import MAX_ERROR, DeadJob
from txgearman.server.persistence.pending import Pending

MAX_FAILURES: Final = 2000
"""Retries, and deaths, that are written in one transaction: each may have 8 KiB of what its worker said."""

MAX_ERRORS: Final = MAX_FAILURES * MAX_ERROR
"""Bytes of all error texts that wait to be written, 16 MiB: as many as one transaction may have. Only in an
outage do more gather; the texts of those that died first are forgotten then."""

FORGOTTEN_ERROR: Final = b"The error was forgotten: the store was unavailable for long"
"""What stands in place of a text that was forgotten. All jobs share it, so it counts for nothing."""

_log = Logger()


class PendingDeath(NamedTuple):
    """The death of a job.

    Attributes:
        job: What is to be kept of it, but for its data.
        ended: When it ended, by the monotonic clock; -inf where nobody knows.
    """

    job: DeadJob
    ended: float


class PendingDeaths(Pending[PendingDeath]):
    """The deaths that wait, and those of the transaction in flight."""

    def __init__(self) -> None:
        super().__init__()
        # The lengths of the texts of those that wait, without those that were forgotten.
        self._texts: OrderedDict[int, int] = OrderedDict()
        self._size = 0
        self._is_forgetting = False

    def add(self, death: PendingDeath) -> None:
        """Let a death wait.

        Args:
            death: The death.
        """
        number = death.job.number
        self._forget_length(number)
        self._waiting[number] = death
        self._note_length(number, death)
        self._enforce()

    def take(self, limit: int) -> dict[int, PendingDeath]:
        """Put those that came first into the transaction that begins.

        Args:
            limit: How many at most.

        Returns:
            These deaths, by job number.
        """
        if not self._waiting:
            return {}
        self._in_flight = dict(itertools.islice(self._waiting.items(), limit))
        if len(self._in_flight) == len(self._waiting):
            self.clear()
        else:
            for number in self._in_flight:
                del self._waiting[number]
                self._forget_length(number)
        return self._in_flight

    def not_written(self) -> None:
        """The transaction failed: its deaths wait again, ahead of the others."""
        deaths = {**self._in_flight, **self._waiting}
        self._in_flight = {}
        self._texts.clear()
        self._size = 0
        self._waiting = deaths
        for number, death in deaths.items():
            self._note_length(number, death)
        self._enforce()

    def clear(self) -> None:
        """Let none wait any more."""
        self._waiting = {}
        self._texts.clear()
        self._size = 0
        self._is_forgetting = False

    def _note_length(self, number: int, death: PendingDeath) -> None:
        error = death.job.error
        if error and error is not FORGOTTEN_ERROR:
            self._texts[number] = len(error)
            self._size += len(error)

    def _forget_length(self, number: int) -> None:
        self._size -= self._texts.pop(number, 0)

    def _enforce(self) -> None:
        """Forget the texts of those that died first, until the others are within `MAX_ERRORS`."""
        if self._size <= MAX_ERRORS:
            return
        if not self._is_forgetting:
            self._is_forgetting = True
            _log.warn(
                "More than {size} bytes of errors of dead jobs wait for the store: those of the oldest "
                "are forgotten",
                size=MAX_ERRORS,
            )
        while self._size > MAX_ERRORS:
            number, size = self._texts.popitem(last=False)
            self._size -= size
            death = self._waiting[number]
            self._waiting[number] = death._replace(job=death.job._replace(error=FORGOTTEN_ERROR))
