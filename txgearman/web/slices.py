"""Iteration over very many things, in slices between which the reactor serves others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

SLICE: Final = 200
"""Functions that are looked at in one turn of the reactor: 1.6 ms of work for a list of the dashboard. Most
servers have fewer, and look at them in one go."""

T = TypeVar("T")


async def iterate_in_slices(
    things: Iterable[T], take: Callable[[list[T]], object], reactor: IReactorTime, size: int = SLICE
) -> None:
    """Give all `things` to `take`, one slice in each turn of the reactor.

    Args:
        things: What to iterate over. The iteration must bear changes between two turns.
        take: Called with each slice; the last may be empty.
        reactor: For the turns.
        size: How many things a slice has.
    """
    left: Iterator[T] = iter(things)
    while True:
        piece = list(islice(left, size))
        take(piece)
        if len(piece) < size:
            return
        await deferLater(reactor, 0)
