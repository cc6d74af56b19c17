"""The order of the replies to one peer: those that are not known yet, those behind them, and long lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

from txgearman.server.interfaces import Held, ListPieces

MAX_PENDING: Final = 4096
"""Replies that may be pending, with those behind them, before a connection is read no more. Reading resumes
at half of that. Enough for one connection to fill a transaction."""

MAX_PENDING_BYTES: Final = 1024 * 1024
"""Bytes that may wait behind pending replies, with the same consequence."""

LINES_AT_ONCE: Final = 500
"""Lines of a list that are made in one turn of the reactor: about a millisecond's work."""

LIST_BYTES_AT_ONCE: Final = 32 * 1024
"""Bytes of a list after which a turn makes no more of it: names that are all control characters take far
longer than others, and have up to four times their length."""


class PendingReply:
    """The place, among the replies to a peer, of one that is not known yet; `reply` is None until it is."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: bytes | None = None


class PendingList(PendingReply):
    """The place of a list that is made and sent piece by piece; its `reply` is its end, once that is made.

    `size` is how many bytes of it are made and not sent, and `held` is what is held to make the rest. `due`
    says that the reactor will make more of it.
    """

    __slots__ = ("_awaited", "_made", "_pieces", "due", "held", "size")

    def __init__(self, pieces: ListPieces) -> None:
        super().__init__()
        self._pieces = pieces
        self.due = False
        self._awaited: Deferred[Any] | None = None
        self.size = 0
        self.held = b""
        self._made: list[bytes] = []

    def make_more(self) -> None:
        """Make as much as one turn of the reactor may, or up to what is not known yet."""
        enough = self.size + LIST_BYTES_AT_ONCE
        for made, piece in enumerate(self._pieces, 1):
            if isinstance(piece, bytes):
                self._made.append(piece)
                self.size += len(piece)
            elif isinstance(piece, Held):
                self.held = piece.data
            elif not piece.called:
                self._awaited = piece
                return
            if made == LINES_AT_ONCE or self.size >= enough:
                return
        self.reply = b"".join(self._made)

    def when_known(self, make: Callable[[], object]) -> None:
        """Call `make` when the next piece can be made, which may be now."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            make()
            return

        def go_on(result: Any) -> Any:
            make()
            return result

        awaited.addCallback(go_on)

    def take(self) -> bytes:
        """What is made, but for line ends after it: to some readers they would be the end of the list."""
        text = b"".join(self._made)
        # Of uniques that are all empty there is nothing else.
        taken = text.rstrip(b"\n") or text
        rest = text[len(taken) :]
        self._made = [rest]
        self.size = len(rest)
        return taken


class Replies:
    """The replies to one peer that cannot be sent yet: pending ones, and known ones behind these.

    Clients match replies to their requests by order, so no reply may overtake another. `queue` has them in
    their order, `size` is how many bytes of known ones there are, `list` the list that is under way. `alone`
    is a pending reply that may have any size: the peer is asked for nothing more until that was sent.
    """

    __slots__ = ("alone", "list", "queue", "size")

    def __init__(self) -> None:
        self.queue: deque[PendingReply | bytes] = deque()
        self.size = 0
        self.list: PendingList | None = None
        self.alone: PendingReply | None = None

    def append(self, reply: bytes) -> None:
        """Put a known reply behind those that are pending."""
        self.queue.append(reply)
        self.size += len(reply)

    def reserve(self) -> PendingReply:
        """The place of a reply that will be known later."""
        pending = PendingReply()
        self.queue.append(pending)
        return pending

    def begin_list(self, pending: PendingList) -> None:
        """Put a list behind the rest."""
        self.list = pending
        self.queue.append(pending)

    @property
    def next_list(self) -> PendingList | None:
        """The list that is under way, if all that is ahead of it was sent."""
        return self.list if self.queue and self.queue[0] is self.list else None

    def take_known(self) -> list[bytes]:
        """Take out the replies that may be sent: all up to the first that is pending."""
        queue, known = self.queue, []
        while queue:
            first = queue[0]
            if isinstance(first, bytes):
                self.size -= len(first)
                known.append(first)
            elif first.reply is not None:
                known.append(first.reply)
                if first is self.alone:
                    self.alone = None
            else:
                break
            queue.popleft()
        return known

    @property
    def held(self) -> int:
        """Bytes that wait here, those of the list included."""
        return self.size if self.list is None else self.size + self.list.size

    @property
    def held_by_list(self) -> bytes:
        """What the list that is under way is made of, as far as that is held."""
        return b"" if self.list is None else self.list.held

    @property
    def is_full(self) -> bool:
        """Whether so much waits that the peer is to be read no more."""
        return len(self.queue) > MAX_PENDING or self.size > MAX_PENDING_BYTES

    @property
    def has_room(self) -> bool:
        """Whether so little waits that the peer may be read again."""
        return (
            self.list is None
            and self.alone is None
            and len(self.queue) <= MAX_PENDING // 2
            and self.size <= MAX_PENDING_BYTES // 2
        )

    def clear(self) -> None:
        """Forget all: the peer is gone."""
        self.queue.clear()
        self.size = 0
        self.list = None
        self.alone = None


NOTHING_PENDING: Final = Replies()
"""Of all peers to which no reply was ever pending. Nothing is put into it."""
