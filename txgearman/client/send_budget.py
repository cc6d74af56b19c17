"""The send budget of a client: bytes of requests without an answer, and waiting for fewer of them. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, succeed

_T = TypeVar("_T")

SEND_BUDGET_BYTES: Final = 16 * 1024 * 1024
"""Default of ``max_backlog``: bytes that may be outstanding before `SendBudget.available` waits. They are
some ten thousand small jobs, far more than keep a server busy over any distance."""

REQUEST_OVERHEAD: Final = 1024
"""Bytes that a request is charged with beside its packet: about what its objects take here."""


class SendBudget:
    """Counts the bytes that are outstanding: requests that have no answer yet, or wait for a connection.

    The budget is available below `limit` bytes. Once it is spent it becomes available at half of that, so
    that waiting callers go on by the hundred and not one at a time. Whoever makes a request must `charge` it,
    and
    `release` it when it is answered.
    """

    __slots__ = ("_all_answered_waiters", "_limit", "_waiters", "outstanding")

    def __init__(self, limit: int) -> None:
        self.outstanding = 0
        self._limit = limit
        self._waiters: deque[Deferred[None]] = deque()
        self._all_answered_waiters: list[Deferred[None]] = []

    def charge(self, size: int) -> None:
        """Count a request of `size` bytes, beside its overhead."""
        self.outstanding += size + REQUEST_OVERHEAD

    def release(self, size: int) -> None:
        """A request of `size` bytes was answered or lost."""
        self.outstanding -= size + REQUEST_OVERHEAD
        if self._waiters and self.outstanding <= self._limit // 2:
            # A woken caller may charge its next request at once.
            while self._waiters and self.outstanding < self._limit:
                self._waiters.popleft().callback(None)
        if self._all_answered_waiters and not self.outstanding:
            waiters, self._all_answered_waiters = self._all_answered_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    @property
    def remaining(self) -> int:
        """Bytes until the limit; less than 0 beyond it."""
        return self._limit - self.outstanding

    def charged_until(self, size: int, deferred: Deferred[_T]) -> Deferred[_T]:
        """Charge a request of `size` bytes while it waits for `deferred`, before it is made."""
        self.charge(size)

        def release(result: _T) -> _T:
            self.release(size)
            return result

        return deferred.addBoth(release)

    def available(self) -> Deferred[None]:
        """Wait until there is budget left. Callers are served in their order.

        Returns:
            A Deferred that never fails. Cancelling it ends this wait alone.
        """
        if self.outstanding < self._limit and not self._waiters:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def all_answered(self) -> Deferred[None]:
        """Wait until no request is outstanding.

        Returns:
            A Deferred that never fails. Cancelling it ends this wait alone.
        """
        if not self.outstanding:
            return succeed(None)
        # A cancelled Deferred ignores the one call that still comes.
        waiter: Deferred[None] = Deferred()
        self._all_answered_waiters.append(waiter)
        return waiter
