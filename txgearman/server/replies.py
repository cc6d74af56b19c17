"""The bytes for one peer: the order of its replies, lists in pieces, and what the peer has not taken.

`Replies` keeps the order. `Unsent` hands bytes to the transport and counts those that wait. `JobReplies`
makes packets of what the broker says about jobs. `protocol` decides when something is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txgearman.errors import Refused
from txgearman.net import fast_write
from txgearman.server.budgets.unsent import UNCOUNTED, SendQueue
from txgearman.server.commands import error_packet
from txgearman.server.interfaces import Held, ListPieces
from txgearman.wire.codec import frame, pack_header
from txgearman.wire.limits import MAX_HANDLE
from txgearman.wire.options import CANCEL
from txgearman.wire.packets import (
    JOB_CANCEL,
    JOB_CREATED,
    NOOP,
    RESPONSE,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer
    from txgearman.server.monitoring.traffic import Traffic

_log = Logger()

MAX_PENDING: Final = 4096
"""Replies that may be pending, with those behind them, before a connection is read no more. Reading resumes
at half of that. Enough for one connection to fill a transaction."""

MAX_PENDING_BYTES: Final = 1024 * 1024
"""Bytes that may wait behind pending replies, with the same consequence."""

LINES_AT_ONCE: Final = 500
"""Lines of a list that are made in one turn of the reactor: about a millisecond's work."""

LIST_BYTES_AT_ONCE: Final = 32 * 1024
"""Bytes of a list behind which a turn makes no more of it: names that are all control characters take far
longer than others, and have up to four times their length."""

LIST_WRITE: Final = 256 * 1024
"""Bytes of a list that are sent in one write: some ten thousand functions. gearmand sends a whole list in one
write. Some readers rely on it: they read once, or until a read ends with LF (mod_gearman's tools)."""

WRITE_PIECE: Final = 128 * 1024
"""Bytes that a transport is given to hold of what its socket has not taken. More than the 64 KiB from which
Twisted pauses its producer, so that it asks for the rest; as many as it sends in one go."""

HELD_BY_TRANSPORT: Final = UNCOUNTED + WRITE_PIECE
"""Bytes that a paused transport is taken to hold where it does not tell, as with TLS: the most it may."""

_NOOP: Final = frame(RESPONSE, NOOP, b"")

_CREATED: Final = tuple(pack_header(RESPONSE, JOB_CREATED, size) for size in range(MAX_HANDLE + 1))
"""The headers of JOB_CREATED, by the length of the handle behind it."""


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
        """What is made, but for line ends behind it: to some readers they would be the end of the list."""
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


class Unsent:
    """The bytes of replies that one peer has not taken, counted in the budget of all peers.

    `paused` says that the transport has enough, `dropped` that the peer is to get nothing more.

    Args:
        peer: The connection. It is referred to until `end`.
    """

    __slots__ = ("_peer", "_queue", "dropped", "paused")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._queue: SendQueue | None = None
        self.paused = False
        self.dropped = False

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def is_counted(self) -> bool:
        """Whether bytes of this peer are in the budget."""
        return self._queue is not None and bool(self._queue.held)

    def write(self, pieces: list[bytes], behind: int) -> bool:
        """Let the transport have what its socket takes at once, and what it is to hold of the rest.

        Args:
            pieces: The bytes. What is left of them waits here, without being copied.
            behind: How many bytes wait behind these, for the limit of the peer.

        Returns:
            Whether the budget is to be enforced, as bytes wait here.
        """
        transport = self._peer.transport
        taken = 0 if self.paused else fast_write.offer(transport, pieces)
        if taken == sum(map(len, pieces)):
            return False
        queue = self._send_queue()
        for piece in pieces:
            # The first may have any size, so that a large packet can always be sent.
            if not self.may_wait(behind):
                return False
            if taken >= len(piece):
                taken -= len(piece)
                continue
            queue.append(piece)
            if taken:
                queue.skip(taken)
                taken = 0
        self._hand_over(queue, was_offered=True)
        return True

    def resume(self) -> bool:
        """The transport wants more: hand over what waits until it has enough, which `paused` says then.

        Returns:
            Whether bytes of this peer were ever counted, so that they are to be counted again.
        """
        self.paused = False
        if self._queue is None:
            return False
        self._hand_over(self._queue)
        return True

    def _hand_over(self, queue: SendQueue, was_offered: bool = False) -> None:
        """Give the transport what waits until it has enough; `was_offered` what the socket has just left."""
        transport = self._peer.transport
        while queue and not self.paused:
            if not was_offered:
                queue.skip(fast_write.offer(transport, queue.first(fast_write.MAX_PIECES)))
            was_offered = False
            if queue:
                transport.write(queue.take(WRITE_PIECE))

    def _send_queue(self) -> SendQueue:
        """What waits for the peer, made with the first need for it."""
        if self._queue is None:
            self._queue = self._peer.server.budget.queue(self._peer)
        return self._queue

    def may_wait(self, behind: int) -> bool:
        """Whether more may wait for this peer, beside the bytes `behind` these; if not, it is dropped."""
        if self.dropped:
            return False
        size = behind if self._queue is None else self._queue.size + behind
        server = self._peer.server
        if size > server.settings.max_unsent:
            server.budget.drop(self._send_queue(), "max-unsent")
            return False
        return True

    def count(self, beside: int, held: bytes) -> None:
        """Count what is elsewhere for the peer: `beside` bytes, those in a paused transport, and `held`."""
        if self.paused:
            kept = fast_write.kept(self._peer.transport)
            beside += HELD_BY_TRANSPORT if kept is None else kept
        queue = self._send_queue()
        queue.hold_beside(held)
        queue.note_beside(beside)

    def drop(self) -> None:
        """Forget what waits, and take nothing more."""
        self.dropped = True
        self._forget()

    def end(self) -> None:
        """The connection has ended."""
        self._forget()
        # It refers to this, and would not be freed at once.
        del self._peer

    def _forget(self) -> None:
        if self._queue is not None:
            self._queue.clear()
            # It refers to the connection.
            self._queue = None


class JobReplies:
    """What the broker says about jobs, as packets: the `ClientConnection` and `WorkerConnection` of a peer.

    A base of the connection, which says how bytes are sent.
    """

    __slots__ = ()

    client_id: bytes
    exceptions: bool
    extensions: frozenset[bytes]
    _lost: bool
    _replies: Replies
    _unsent: Unsent
    _pending: deque[PendingReply | bytes]
    _out: list[bytes]
    _traffic: Traffic

    @property
    def described(self) -> str:
        """Who this is, for the log."""
        raise NotImplementedError

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send whole packets, at the end of this turn of the reactor."""
        raise NotImplementedError

    def send_packet(self, number: int, *fields: bytes) -> None:
        """Send a response packet."""
        raise NotImplementedError

    def _send_known(self) -> None:
        """Send the replies that are known now."""
        raise NotImplementedError

    def _limit_pending(self) -> None:
        """Read the connection no more if much waits for pending replies."""
        raise NotImplementedError

    # -- for a client (ClientConnection) ---------------------------------------------------------

    def created(self, handle: bytes) -> None:
        # As send(), written out: a submit is always being handled, and its reply is small. This is
        # once per submit; the call saved bought a twentieth of the submits per second.
        reply = _CREATED[len(handle)] + handle
        if self._pending:
            self.send(reply)
        else:
            self._out.append(reply)

    def created_later(self) -> PendingReply:
        pending = self._replies.reserve()
        self._limit_pending()
        return pending

    def resolve_created(self, reply: PendingReply, handle: bytes) -> None:
        reply.reply = _CREATED[len(handle)] + handle
        self._send_known()

    def resolve_refused(self, reply: PendingReply, refusal: Refused) -> None:
        self._traffic.refused[refusal.code] += 1
        reply.reply = error_packet(refusal.code, refusal.text)
        self._send_known()

    def data(self, handle: bytes, data: bytes) -> None:
        self.send_packet(WORK_DATA, handle, data)

    def warning(self, handle: bytes, data: bytes) -> None:
        self.send_packet(WORK_WARNING, handle, data)

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self.send_packet(WORK_STATUS, handle, numerator, denominator)

    def completed(self, handle: bytes, data: bytes) -> None:
        self.send_packet(WORK_COMPLETE, handle, data)

    def failed(self, handle: bytes) -> None:
        self.send_packet(WORK_FAIL, handle)

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        """The protocol has no packet for it, so the client goes on waiting."""

    def exception(self, handle: bytes, data: bytes) -> None:
        # gearmand sends the WORK_FAIL in place of an exception with a NUL behind the handle, which
        # some clients take for part of it.
        if self.exceptions:
            self.send_packet(WORK_EXCEPTION, handle, data)
        else:
            self.send_packet(WORK_FAIL, handle)

    # -- for a worker (WorkerConnection) -----------------------------------------------------------

    def wake(self) -> None:
        self.send(_NOOP)

    @property
    def hears_cancel(self) -> bool:
        return CANCEL in self.extensions

    def cancel(self, handle: bytes, reason: bytes) -> None:
        self.send_packet(JOB_CANCEL, handle, reason)

    def disconnect(self) -> None:
        if self._lost or self._unsent.dropped:
            return
        _log.info(
            "{connection} ({client_id}) closed: a job that it ran was cancelled by force",
            connection=self.described,
            client_id=ascii(self.client_id),
        )
        # The transport tells of the end in the reactor's next turn, so the broker is not called back here.
        self.drop()
