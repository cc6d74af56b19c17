"""What is held for peers until they take it: queues of bytes, counted together in one budget. No I/O.

Every place where bytes of a peer, or for one, can wait, and what bounds it there:

========================================================  ==================================================
Where bytes wait                                          How they are bounded
========================================================  ==================================================
Behind what a peer has not taken (`SendQueue`)            counted; `SendBudget`
Behind a pending reply, or behind a list                  counted from `UNCOUNTED` on; `SendQueue.note_beside`
In the transport, behind a pause, those of TLS included   counted while it lasts; `SendQueue.note_beside`
Read, but not handled as the peer does not read           counted while it lasts; `SendQueue.note_beside`
In the transport, ahead of a pause                        `UNCOUNTED` for each connection
In the kernel's buffers of a socket                       the system's ``tcp_wmem`` and ``tcp_rmem``
What one turn makes for peers                             `factory.TURN_OUTPUT`, then the reporter gives way
A list that is under way, and what it is made of          counted from `UNCOUNTED` on; `replies.LIST_WRITE`
A packet, or the body of an HTTP request, not whole yet   counted apart; `unfinished.Unfinished`
Events of an HTTP reader                                  counted, as they came; JSON is made as it is taken
A result of an HTTP request, and parts ahead of it        counted; handed over as it is taken
Requests over HTTP that are not parsed                    `web.channel.MAX_UNREAD` and one read for each
========================================================  ==================================================
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

from twisted.logger import LogLevel

from txgearman.server.monitoring.rate_limited_log import RateLimitedLog

UNCOUNTED: Final = 64 * 1024
"""Bytes that may wait for a connection without being counted. It is what Twisted's transports take before
they pause who writes, and less than the socket's buffers hold in the kernel. So nothing is counted for a peer
that takes its answers."""

ENOUGH_ROOM: Final = 0.875
"""The part of the limit for all peers that is left to wait, once peers were dropped for it. Somewhat below
the limit, so that the peers are not sorted again for each packet."""

SHARED_FROM: Final = 8 * 1024
"""Bytes of one object from which it is counted once, however many peers it waits for. Smaller ones are joined
with others, and so are a copy for each peer."""

JOINED_TO: Final = 64 * 1024
"""Bytes up to which small pieces are put together: each by itself takes some forty bytes beside its own."""


class Holder(Protocol):
    """Whose peer it is that bytes wait for."""

    @property
    def described(self) -> str:
        """Who that is, for the log."""

    def drop(self) -> None:
        """End the connection at once, and send nothing more. Its queue is empty already."""


class SendBudget:
    """Counts the bytes that are held for peers which do not take them, and drops who holds most.

    `limit` is how many there may be in all, `sys.maxsize` for no limit; `used` is how many there are. An
    object of `SHARED_FROM` bytes that waits for many peers is held once, and counts once. `dropped` counts
    the peers that were dropped, by the name of the limit. `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], dropped: Counter[str]) -> None:
        self.limit = sys.maxsize
        self.used = 0
        self.dropped = dropped
        self._waiting: dict[SendQueue, None] = {}
        # For how many queues an object waits, by its identity: the queues keep it alive.
        self._shares: dict[int, int] = {}
        self._tell = RateLimitedLog(
            LogLevel.warn, "{who} does not read: dropped with {unsent} bytes unsent ({limit})", clock
        )

    def queue(self, holder: Holder) -> SendQueue:
        """An empty queue for the peer of `holder`."""
        return SendQueue(self, holder)

    @property
    def is_exceeded(self) -> bool:
        """Whether there is too much in all."""
        return self.used > self.limit

    @property
    def most(self) -> int:
        """Bytes that wait for the peer for which most waits. This walks all that do not read."""
        return max((queue.held for queue in self._waiting), default=0)

    def enforce(self) -> None:
        """Drop those for whom most waits, if there is too much in all.

        To be called when the transport was offered what was added, and not while the broker decides.
        """
        if self.used <= self.limit:
            return
        enough = self.limit * ENOUGH_ROOM
        for queue in sorted(self._waiting, key=lambda queue: queue.held, reverse=True):
            self.drop(queue, "max-unsent-total")
            if self.used <= enough:
                break

    def drop(self, queue: SendQueue, limit: str) -> None:
        """Drop the peer of `queue`, for which more waits than `limit` allows."""
        self.dropped[limit] += 1
        self._tell.happened(who=queue.holder.described, unsent=queue.held, limit=limit)
        queue.clear()
        queue.holder.drop()

    # -- the queues' calls ----------------------------------------------------------------------

    def hold(self, piece: bytes | bytearray) -> None:
        """One queue more holds this."""
        if len(piece) >= SHARED_FROM and type(piece) is bytes:
            key = id(piece)
            shares = self._shares.get(key, 0)
            self._shares[key] = shares + 1
            if shares:
                return
        self.used += len(piece)

    def let_go(self, piece: bytes | bytearray) -> None:
        """One queue less holds this."""
        if len(piece) >= SHARED_FROM and type(piece) is bytes:
            key = id(piece)
            shares = self._shares.pop(key) - 1
            if shares:
                self._shares[key] = shares
                return
        self.used -= len(piece)

    def add(self, size: int) -> None:
        """So many bytes more are held."""
        self.used += size

    def enlist(self, queue: SendQueue) -> None:
        """Something waits in this queue."""
        self._waiting[queue] = None

    def strike_off(self, queue: SendQueue) -> None:
        """Nothing does."""
        self._waiting.pop(queue, None)


class SendQueue:
    """The bytes that wait for one peer, in their order. True while there are any.

    `size` is how many. An object is held, and counted, until the last of its bytes is taken.
    """

    __slots__ = ("_beside", "_budget", "_held", "_offset", "_pieces", "holder", "size")

    def __init__(self, budget: SendBudget, holder: Holder) -> None:
        self._budget = budget
        self.holder = holder
        self.size = 0
        self._beside = 0
        self._held = b""
        self._offset = 0
        self._pieces: deque[bytes | bytearray] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def held(self) -> int:
        """Bytes that wait for the peer, those beside the queue included."""
        return self.size + self._beside + len(self._held)

    def append(self, piece: bytes) -> None:
        """Let `piece` wait behind the rest."""
        if not piece:
            return
        pieces, budget = self._pieces, self._budget
        if not pieces:
            budget.enlist(self)
        self.size += len(piece)
        if len(piece) >= SHARED_FROM:
            pieces.append(piece)
            budget.hold(piece)
            return
        last = pieces[-1] if pieces else None
        if isinstance(last, bytearray) and len(last) < JOINED_TO:
            last += piece
        else:
            pieces.append(bytearray(piece))
        budget.add(len(piece))

    def first(self, most: int) -> list[bytes | bytearray | memoryview]:
        """The first pieces, at most so many, without copying them. Not to be kept."""
        found: list[bytes | bytearray | memoryview] = list(islice(self._pieces, most))
        if self._offset:
            found[0] = memoryview(found[0])[self._offset :]
        return found

    def skip(self, count: int) -> None:
        """So many of the first bytes were taken."""
        pieces = self._pieces
        self.size -= count
        count += self._offset
        while pieces and count >= len(pieces[0]):
            piece = pieces.popleft()
            count -= len(piece)
            self._budget.let_go(piece)
        self._offset = count
        self._update_listing()

    def take(self, most: int) -> bytes:
        """Take the first bytes out, at most so many."""
        parts: list[memoryview] = []
        found = 0
        for piece in self._pieces:
            part = memoryview(piece)[0 if parts else self._offset :][: most - found]
            parts.append(part)
            found += len(part)
            if found == most:
                break
        taken = b"".join(parts)
        # A bytearray of which there is a view cannot grow.
        parts.clear()
        self.skip(found)
        return taken

    def note_beside(self, size: int) -> None:
        """So many bytes more are held for the peer, which are not in this queue."""
        self._budget.add(size - self._beside)
        self._beside = size
        self._update_listing()

    def hold_beside(self, data: bytes) -> None:
        """This object is held for the peer too, in place of the one before; an empty one for none."""
        if data is not self._held:
            before, self._held = self._held, data
            self._budget.hold(data)
            self._budget.let_go(before)
            self._update_listing()

    def _update_listing(self) -> None:
        """Be among the queues that hold something, or not."""
        if self._pieces or self._beside or self._held:
            self._budget.enlist(self)
        else:
            self._budget.strike_off(self)

    def clear(self) -> None:
        """Nothing waits any more."""
        for piece in self._pieces:
            self._budget.let_go(piece)
        self._pieces.clear()
        self.size = self._offset = 0
        self.hold_beside(b"")
        self.note_beside(0)
