"""Looking at all functions without holding up anybody: a part at a time, between the reactor's turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

PIECE: Final = 200
"""Functions that are looked at in one turn, of those who look together: 1.6 milliseconds' work for a list of
the dashboard. Most servers have fewer, and are looked at in one go."""

T = TypeVar("T")


async def walk(
    things: Iterable[T], see: Callable[[list[T]], object], reactor: IReactorTime, size: int = PIECE
) -> None:
    """Give all `things` to `see`, so many in a turn. They must not mind what happens between two turns."""
    left: Iterator[T] = iter(things)
    while True:
        piece = list(islice(left, size))
        see(piece)
        if len(piece) < size:
            return
        await deferLater(reactor, 0)
