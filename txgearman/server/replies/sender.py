"""What one connection sends, and when: at the end of a turn, in the order asked, as the peer takes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from zope.interface import implementer

from txgearman.net import fast_write
from txgearman.server.budgets.unsent import UNCOUNTED, SendQueue
from txgearman.server.commands import error_packet
from txgearman.server.interfaces import ListPieces, Server, ServerTransport
from txgearman.server.replies.pending import NOTHING_PENDING, PendingList, Replies
from txgearman.wire.codec import pack_header
from txgearman.wire.packets import RESPONSE

if TYPE_CHECKING:
    from txgearman.broker.entities import Worker

T = TypeVar("T")

LARGE_REPLY: Final = 8 * 1024
"""Bytes from which an answer is handed to the transport at once, which then says when it has enough.
One read of 64 KiB can hold five thousand requests; with smaller answers that is at most 44 MiB."""

CLOSE_LIMIT: Final = 5.0
"""Seconds that a peer has to take what is left for it when its connection is closed."""

LIST_WRITE: Final = 256 * 1024
"""Bytes of a list that are sent in one write: some ten thousand functions. gearmand sends a whole list in one
write. Some readers rely on it: they read once, or until a read ends with LF (mod_gearman's tools)."""

WRITE_PIECE: Final = 128 * 1024
"""Bytes that a transport is given to hold of what its socket has not taken. More than the 64 KiB from which
Twisted pauses its producer, so that it asks for the rest; as many as it sends in one go."""

HELD_BY_TRANSPORT: Final = UNCOUNTED + WRITE_PIECE
"""Bytes that a paused transport is taken to hold where it does not tell, as with TLS: the most it may."""

_log = Logger()


class Unsent:
    """The bytes of replies that one peer has not taken, counted in the budget of all peers.

    `paused` says that the transport has enough, `dropped` that the peer is to get nothing more.

    Args:
        peer: The connection. It is referred to until `end`.
    """

    __slots__ = ("_peer", "_queue", "dropped", "paused")

    def __init__(self, peer: Sender) -> None:
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


@implementer(IPushProducer)
class Sender(Protocol, ABC):
    """The sending side of a connection. What is read, and when, is up to the subclass.

    A peer that does not take what it is sent is read no more: that is the backpressure. So is one whose
    replies are not known yet, once many are pending.

    Args:
        server: What the connection belongs to.
        number: Tells the connections of a server apart.

    Attributes:
        assigns_stored_job: Set ahead of each packet that gives a job from the store to the worker.
    """

    # More attributes than Python keeps quickly in an instance's dictionary: each look-up would search it.
    __slots__ = (
        "_awaits_acknowledgement",
        "_awaits_replies",
        "_closing",
        "_counts_bytes",
        "_deadline",
        "_flush_due",
        "_handling",
        "_lost",
        "_out",
        "_out_large",
        "_pending",
        "_reading_suspended",
        "_replies",
        "_traffic",
        "_unsent",
        "assigns_stored_job",
        "broker",
        "number",
        "server",
        "worker",
    )

    transport: ServerTransport
    worker: Worker

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.broker = server.broker
        self.number = number
        self.assigns_stored_job = False
        self._traffic = server.traffic
        self._counts_bytes = server.settings.measured_functions > 0
        self._out: list[bytes] = []
        self._out_large = False
        # What was read is being handled: it ends with a flush, if there is anything to send.
        self._handling = False
        self._flush_due = False
        # Their own where a reply was pending once: to make them is a twentieth of a connection for one job.
        self._replies = NOTHING_PENDING
        # The queue of these: it is looked at with each packet that is sent.
        self._pending = self._replies.queue
        self._unsent = Unsent(self)
        # Backpressure: each of these, and a paused transport, suspends reading and handling.
        self._awaits_replies = False
        self._closing = False
        self._lost = False
        self._reading_suspended = False
        # Whether the peer may be waiting for an acknowledgement of its last read, and is timed for that.
        self._awaits_acknowledgement = False
        # Cuts the connection off.
        self._deadline: IDelayedCall | None = None

    @property
    @abstractmethod
    def described(self) -> str:
        """Who this is, for the log."""

    @property
    @abstractmethod
    def _unhandled_bytes(self) -> int:
        """Bytes that were read and are not handled yet."""

    @abstractmethod
    def _resume_reading(self) -> None:
        """Handle what has come meanwhile, and read on, if nothing is in the way any more."""

    def _end_sending(self) -> None:
        """The connection has ended: forget what was to be sent."""
        self._lost = self._reading_suspended = True
        self._out.clear()
        # It may refer to this connection, as lists do too.
        if self._replies is not NOTHING_PENDING:
            self._replies.clear()
        self._unsent.end()
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        """Do not cut the connection off when its time is over."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    # -- backpressure (IPushProducer) ----------------------------------------------------------

    def pauseProducing(self) -> None:
        """The peer does not take its answers: ask it nothing, hear nothing more of it."""
        self._unsent.paused = self._reading_suspended = True
        self.transport.pauseProducing()
        self._count()
        if self.server.budget.is_exceeded:
            # Not from here: the transport is in the middle of a write.
            self.server.reactor.callLater(0, self.server.budget.enforce)

    def resumeProducing(self) -> None:
        """The peer has taken all that the transport had."""
        if self._lost:
            return
        unsent = self._unsent
        if unsent.resume():
            self._count()
            if unsent.paused:
                return
        self._make_list_soon()
        if self._closing:
            self._close_soon()
        self._resume_reading()

    def stopProducing(self) -> None:
        """The connection is being lost."""

    # -- sending --------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send whole packets or lines, at the end of this turn of the reactor."""
        if self._lost:
            return
        if self._pending:
            replies = self._replies
            if self._unsent.may_wait(replies.size):
                replies.append(data)
                if replies.size > UNCOUNTED:
                    self._count()
                    self.server.budget.enforce()
                self._limit_pending()
            return
        if not self._handling and not self._flush_due:
            self._flush_due = True
            # This carries the acknowledgement, so the peer does not wait for it any more.
            self._awaits_acknowledgement = False
            self.server.flush_soon(self)
        self._out.append(data)
        if len(data) >= LARGE_REPLY:
            self._out_large = True
            if self._handling:
                self.flush()

    def send_packet(self, number: int, *fields: bytes) -> None:
        """Send a response packet; no field but the last may hold a NUL."""
        if len(fields[-1]) >= LARGE_REPLY:
            # Apart from the rest, and so never copied.
            head = b"\0".join([*fields[:-1], b""])
            self.send(pack_header(RESPONSE, number, len(head) + len(fields[-1])) + head)
            self.send(fields[-1])
        else:
            body = b"\0".join(fields)
            packet = pack_header(RESPONSE, number, len(body)) + body
            if self._pending or self._lost:
                self.send(packet)
                return
            # As send(), without the call: so it is with nearly every packet about a job.
            if not self._handling and not self._flush_due:
                self._flush_due = True
                self._awaits_acknowledgement = False
                self.server.flush_soon(self)
            self._out.append(packet)

    def send_error(self, code: bytes, text: str) -> None:
        """Send an ERROR packet."""
        self._traffic.refused[code] += 1
        self.send(error_packet(code, text))

    def flush(self) -> None:
        """Hand everything that waits to the transport."""
        self._flush_due = False
        out = self._out
        if not out or self._lost:
            return
        if self.assigns_stored_job and not self._may_still_assign():
            _log.warn(
                "{connection} closed: the lease expired before JOB_ASSIGN could be sent. "
                "The job may be another server's by now",
                connection=self.described,
            )
            self.drop()
            return
        self._out = []
        if self._out_large:
            self._out_large = False
            if self._counts_bytes:
                self._traffic.sent += sum(map(len, out))
        else:
            data = b"".join(out) if len(out) > 1 else out[0]
            if self._counts_bytes:
                self._traffic.sent += len(data)
            if not self._unsent.paused and len(data) <= WRITE_PIECE:
                fast_write.write(self.transport, data)
                return
            out = [data]
        self._write(out)

    def _write(self, pieces: list[bytes]) -> None:
        """Send `pieces`, behind nothing but what the transport and `_unsent` hold."""
        if self._unsent.write(pieces, self._replies.size):
            self._count()
            self.server.budget.enforce()

    def _count(self) -> None:
        """Count what is held for this peer beside what is unsent."""
        unsent = self._unsent
        if unsent.dropped or self._lost:
            return
        held = self._replies.held
        if unsent.paused:
            held += self._unhandled_bytes
        unsent.count(held, self._replies.held_by_list)

    def _may_still_assign(self) -> bool:
        """Whether the jobs that are about to be sent are still this server's.

        They were when the worker got them; but the process may have been stopped since, or the packet had to
        wait behind a pending reply.
        """
        if not self._pending:
            # What was assigned is all in this write.
            self.assigns_stored_job = False
        return not self.broker.may_have_lost(self.worker)

    def _own_replies(self) -> Replies:
        """The replies to this peer, for one that is not known yet."""
        if self._replies is NOTHING_PENDING:
            self._replies = Replies()
            self._pending = self._replies.queue
        return self._replies

    # -- replies that are not known yet, and lists ------------------------------------------------

    def reply_later(
        self,
        ask: Callable[[Callable[[T], None]], None],
        reply: Callable[[T], bytes],
        alone: bool = False,
    ) -> None:
        """Reply with what `reply` makes of the answer that `ask` gets, and send nothing else until then.

        With `alone` the peer is asked for nothing more until that is sent.
        """
        pending = self._own_replies().reserve()
        if alone:
            self._replies.alone = pending
        self._limit_pending()

        def tell(found: T) -> None:
            if not self._lost:
                pending.reply = reply(found)
                self._send_known()

        ask(tell)
        if self._replies.alone is not None:
            self._await_replies()

    def _send_known(self) -> None:
        """Send the pending replies that are known now, and what is behind them."""
        known = self._replies.take_known()
        self._out += known
        if not self._out_large:
            self._out_large = any(len(reply) >= LARGE_REPLY for reply in known)
        self._make_list_soon()
        if self._unsent.is_counted:
            self._count()
        if self._out_large and self._handling:
            # As send(): the peer is asked for more when it takes them.
            self.flush()
        if self._out and not self._handling and not self._flush_due:
            self._flush_due = True
            self.server.flush_soon(self)
        if self._closing:
            self._close_soon()
        elif self._awaits_replies and self._replies.has_room:
            self._awaits_replies = False
            # Not from here: the broker is in the middle of something.
            self.server.reactor.callLater(0, self._resume_reading)

    def send_list(self, pieces: ListPieces) -> None:
        """Send a list, which `pieces` are.

        A long list is made piece by piece, as the peer takes it, while others are served. Whatever is for
        this peer meanwhile waits, and so do its next requests. `pieces` must not mind what happens to the
        server between two of them.
        """
        pending = PendingList(pieces)
        pending.make_more()
        if pending.reply is not None:
            self.send(pending.reply)
        elif not self._lost:
            self._own_replies().begin_list(pending)
            self._await_replies()
            self._make_list_soon()

    def _make_list_soon(self) -> None:
        """Make the next piece of a list that is under way, if all that is ahead of it was sent."""
        pending = self._replies.next_list
        if pending is not None and not pending.due and not self._unsent.paused:
            pending.due = True
            pending.when_known(lambda: self.server.reactor.callLater(0, self._make_list, pending))

    def _make_list(self, pending: PendingList) -> None:
        pending.due = False
        if self._lost or self._unsent.dropped or self._unsent.paused:
            return
        pending.make_more()
        if pending.reply is None:
            if pending.size >= LIST_WRITE:
                self.flush()
                piece = pending.take()
                if self._counts_bytes:
                    self._traffic.sent += len(piece)
                self._write([piece])
            elif pending.size + len(pending.held) > UNCOUNTED:
                self._count()
                self.server.budget.enforce()
            self._make_list_soon()
            return
        self._replies.list = None
        self._send_known()
        # The answer to what the peer asked behind the list leaves in one write with its end.
        if not self._awaits_replies:
            self._resume_reading()

    # -- the end --------------------------------------------------------------------------------

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
        if not self._lost:
            self._unsent.drop()
        self.transport.abortConnection()

    def close(self) -> None:
        """Hear nothing more, and end the connection once everything was sent.

        A peer that does not take it has `CLOSE_LIMIT` to do so.
        """
        if self._closing or self._lost:
            return
        self._closing = self._reading_suspended = True
        self._cancel_deadline()
        self._deadline = self.server.reactor.callLater(CLOSE_LIMIT, self.transport.abortConnection)
        self._close_soon()

    def _close_soon(self) -> None:
        """End the connection if it has nothing more to say."""
        if self._pending or self._lost or self._unsent.dropped:
            return
        self.flush()
        if self._unsent:
            return
        # A transport with a paused producer would wait for it before it closes.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _limit_pending(self) -> None:
        if self._replies.is_full and not (self._awaits_replies or self._closing):
            self._await_replies()

    def _await_replies(self) -> None:
        """Read the connection no more until `Replies.has_room`."""
        self._awaits_replies = self._reading_suspended = True
        self.transport.pauseProducing()
