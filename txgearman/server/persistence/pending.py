"""Ends of jobs that wait to be written, until they are in the store: what deaths and results have in common.

No I/O and no timers here: the writer has them.
"""

from __future__ import annotations

from typing import Generic, TypeVar

_End = TypeVar("_End")


class Pending(Generic[_End]):
    """The ends that wait, in the order in which they came, and those of the transaction in flight.

    A job is in it if it is one of either; its length counts those that wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _End] = {}
        self._in_flight: dict[int, _End] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: object) -> bool:
        return number in self._waiting or number in self._in_flight

    @property
    def in_flight(self) -> bool:
        """Whether some are in the transaction in flight."""
        return bool(self._in_flight)

    def written(self) -> dict[int, _End]:
        """The transaction took place.

        Returns:
            The ends that were in it, by job number.
        """
        written, self._in_flight = self._in_flight, {}
        return written
