"""How much a client has asked for and has no answer to, and waiting for it to be less. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, succeed

_T = TypeVar("_T")

BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""Bytes of requests without an answer from which on there is no room, if nothing else is said. Some ten
thousand small jobs: far more than keep a server busy over any distance."""

REQUEST_OVERHEAD: Final = 1024
"""Bytes that a request counts beside its packet: about what its objects take here."""


class Backlog:
    """Counts the requests of a client; there is room while they have less than `limit` bytes.

    Where there is none it comes back when they have half of that, so that those who wait go on by the
    hundred and not one at a time. Whoever made a request counts it by `add` and `remove`.
    """

    __slots__ = ("_ends", "_limit", "_waiters", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._waiters: deque[Deferred[None]] = deque()
        self._ends: list[Deferred[None]] = []

    def add(self, size: int) -> None:
        """There is a request of `size` bytes more."""
        self.size += size + REQUEST_OVERHEAD

    def remove(self, size: int) -> None:
        """A request of `size` bytes was answered, or is lost."""
        self.size -= size + REQUEST_OVERHEAD
        if self._waiters and self.size <= self._limit // 2:
            # Each may ask for something at once.
            while self._waiters and self.size < self._limit:
                self._waiters.popleft().callback(None)
        if self._ends and not self.size:
            ends, self._ends = self._ends, []
            for end in ends:
                end.callback(None)

    @property
    def left(self) -> int:
        """Bytes until the limit; less than 0 beyond it."""
        return self._limit - self.size

    def held(self, size: int, deferred: Deferred[_T]) -> Deferred[_T]:
        """`deferred`, which a request of `size` bytes waits for before it is made; it counts until then."""
        self.add(size)

        def release(result: _T) -> _T:
            self.remove(size)
            return result

        return deferred.addBoth(release)

    def room(self) -> Deferred[None]:
        """Fires when there is room, for those first who came first. To cancel ends only the own waiting."""
        if self.size < self._limit and not self._waiters:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def empty(self) -> Deferred[None]:
        """Fires when there is no request. To cancel ends only the own waiting."""
        if not self.size:
            return succeed(None)
        # What was cancelled ignores the one call that still comes.
        end: Deferred[None] = Deferred()
        self._ends.append(end)
        return end
