"""One connection to the server: when its bytes are read, when the packets in them are handled, and when
replies are sent.

No decisions about jobs, and no knowledge of what a request means: that is in `commands` and `admin`. The
order of replies and the bytes that wait are in `replies`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.access.actor import Actor, actor_of
from txgearman.access.identity import identity_of
from txgearman.access.patterns import quoted
from txgearman.access.policy import AccessPolicy, Rights
from txgearman.broker.entities import Client, Worker
from txgearman.broker.stopping import DENIED
from txgearman.errors import BrokenStream, ProtocolError, Refused
from txgearman.net import fast_write
from txgearman.net.addresses import is_loopback
from txgearman.net.quickack import QuickAck, quick_ack
from txgearman.server.admin.commands import ForeignPeer, shows_gearman
from txgearman.server.budgets.unfinished import COUNTED_FROM, TOO_MUCH
from txgearman.server.budgets.unsent import UNCOUNTED
from txgearman.server.commands import COMMANDS, error_packet
from txgearman.server.guard import GUARDED_COMMANDS
from txgearman.server.interfaces import ListPieces, Server, ServerTransport
from txgearman.server.replies import LIST_WRITE, WRITE_PIECE, JobReplies, PendingList, Replies, Unsent
from txgearman.wire.codec import TOO_LARGE, UNFINISHED, Decoder, pack_header
from txgearman.wire.packets import RESPONSE, TEXT

LARGE_REPLY: Final = 8 * 1024
"""Bytes from which an answer is handed to the transport at once, which then says when it has enough.
One read of 64 KiB can hold five thousand requests; with smaller answers that is at most 44 MiB."""

CLOSE_LIMIT: Final = 5.0
"""Seconds that a peer has to take what is left for it when its connection is closed."""

HANDLE_SECONDS: Final = 0.005
"""Seconds for which the packets of one read are handled in one turn of the reactor, from the second look at
the clock on. The rest goes on in the next turn, when others were served. 64 KiB of submits take less than
that; so only what is dear is cut up."""

UNTIMED_PACKETS: Final = 32
"""Packets that are handled between two looks at the clock, so that these cost nearly nothing for each."""

SHORT_READ: Final = 256
"""Bytes; a read of fewer holds no more than `UNTIMED_PACKETS`, or about as many admin lines, and is handled
without a look at the clock. So what most reads bring, a packet or two, costs nothing more."""

HELD_UNHANDLED: Final = 128 * 1024
"""Bytes that a read which is not handled to its end is taken to hold: it brings 120 KiB at most. To remember
how many it brought would cost something with each read."""

NO_CLIENT_ID: Final = b"-"
"""What a peer is called that has not said who it is, as with gearmand."""

_log = Logger()

T = TypeVar("T")

Packet = tuple[int, list[Any]]
"""The number of a packet, and its fields."""


def _in_slices(
    packets: Iterator[Packet], clock: Callable[[], float], give_way: Callable[[], None]
) -> Iterator[Iterable[Packet]]:
    """`packets` in slices. Where they take longer than `HANDLE_SECONDS`, `give_way` is called between two."""
    ends_at: float | None = None
    while True:
        yield islice(packets, UNTIMED_PACKETS)
        # Not to give way ahead of nothing.
        following = next(packets, None)
        if following is None:
            return
        now = clock()
        if ends_at is None:
            ends_at = now + HANDLE_SECONDS
        elif now >= ends_at:
            ends_at = None
            give_way()
        yield (following,)


def _why(error: BaseException | None) -> str:
    """Why a connection was lost. OpenSSL says it by a list of tuples, of which the last is for people."""
    reasons = error.args[0] if error is not None and error.args else None
    if isinstance(reasons, list):
        return "TLS: " + (", ".join(str(reason[-1]) for reason in reasons) or "no reason given")
    return str(error)


@implementer(IPushProducer, IHandshakeListener)
class GearmanServerProtocol(JobReplies, Protocol):
    """A client, a worker and an administrator in one, as every Gearman connection may be.

    `number` tells the connections of a server apart; `client_id` is what the peer calls itself; `label` that
    and its address, as jobs remember it; `exceptions` whether it wants WORK_EXCEPTION and not WORK_FAIL;
    `extensions` are those of the protocol that it has asked for; `known_rights` are its `rights`,
    or None as long as nobody has asked for these.
    """

    transport: ServerTransport

    # More attributes than Python keeps quickly in an instance's dictionary: each look-up would search it.
    __slots__ = (
        "_awaits_acknowledgement",
        "_awaits_replies",
        "_closing",
        "_commands",
        "_counts_bytes",
        "_deadline",
        "_decoder",
        "_flush_due",
        "_gives_way",
        "_handling",
        "_logged_protocol_error",
        "_lost",
        "_out",
        "_out_large",
        "_pending",
        "_quick_ack",
        "_reading_suspended",
        "_replies",
        "_silent",
        "_since",
        "_traffic",
        "_undecoded",
        "_unhandled",
        "_unsent",
        "_was_denied",
        "assigns_stored_job",
        "broker",
        "client",
        "client_id",
        "exceptions",
        "extensions",
        "known_rights",
        "label",
        "number",
        "server",
        "worker",
    )

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.broker = server.broker
        self._traffic = server.traffic
        self._counts_bytes = server.settings.measured_functions > 0
        self.number = number
        self._since = server.reactor.seconds()
        self.client_id = NO_CLIENT_ID
        self.label = b""
        self.exceptions = server.settings.exceptions
        self.extensions: frozenset[bytes] = frozenset()
        self.assigns_stored_job = False
        self.client = Client(self)
        self.worker = Worker(self)
        self._decoder = Decoder(max_packet=server.settings.max_packet, tell_from=COUNTED_FROM)
        self._out: list[bytes] = []
        self._out_large = False
        self._handling = False
        self._flush_due = False
        self._replies = Replies()
        # The queue of these: it is looked at with each packet that is sent.
        self._pending = self._replies.queue
        self._unsent = Unsent(self)
        # Backpressure: each of these, and a paused transport, suspends reading and handling.
        self._awaits_replies = False
        self._gives_way = False
        self._closing = False
        self._lost = False
        self._reading_suspended = False
        self._deadline: IDelayedCall | None = None
        self._logged_protocol_error = False
        self._commands = COMMANDS if self.access is None else GUARDED_COMMANDS
        self.known_rights: Rights | None = None
        self._was_denied = False
        # No packet and no admin command has come yet.
        self._silent = True
        # Whether the peer may be waiting for an acknowledgement of its last read, and is timed for that.
        self._quick_ack: QuickAck | None = None
        self._awaits_acknowledgement = False
        # What was read and is not handled yet: the peer does not take its answers, or gives way to others.
        self._unhandled: Iterator[Packet] | None = None
        self._undecoded: deque[bytes] = deque()

    def set_client_id(self, client_id: bytes) -> None:
        """Take the name that the peer calls itself by."""
        self.client_id = client_id
        self.label = b"%b %b" % (client_id, self.host.encode())

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""
        return getattr(self.transport.getPeer(), "host", "unix")

    @property
    def age(self) -> float:
        """Seconds since the connection was made."""
        return self.server.reactor.seconds() - self._since

    @property
    def is_local(self) -> bool:
        """Whether the peer is certainly on this machine."""
        peer = self.transport.getPeer()
        if isinstance(peer, UNIXAddress):
            return True
        return isinstance(peer, IPv4Address | IPv6Address) and is_loopback(peer.host)

    @property
    def access(self) -> AccessPolicy | None:
        """What the operator says of who may do what; None where everybody may do everything."""
        return self.server.access

    @property
    def rights(self) -> Rights:
        """What the peer may do. Known from its first packet on: a TLS connection is made before its peer
        has shown a certificate."""
        if self.known_rights is None:
            assert self.access is not None
            self.known_rights = self.access.rights_of(identity_of(self.transport))
        return self.known_rights

    @property
    def actor(self) -> Actor:
        """Who this is, for what it changes."""
        rights = None if self.access is None else self.rights
        name = b"" if self.client_id == NO_CLIENT_ID else self.client_id
        return actor_of(identity_of(self.transport), self.host, client_id=name, rights=rights)

    def note_denied(self, what: str) -> None:
        """Log what the peer was denied, the first time."""
        if not self._was_denied:
            self._was_denied = True
            _log.warn(
                "Connection {number} from {host} ({client_id}), {known}: denied to {what}. "
                "Rules that fit: {rules}",
                number=self.number,
                host=self.host,
                client_id=ascii(self.client_id),
                known=identity_of(self.transport).described,
                what=what,
                rules=", ".join(self.rights.rules) or "none",
            )

    def access_changed(self) -> None:
        """There is another access policy: functions that the peer may no longer work on go to others."""
        self._commands = COMMANDS if self.access is None else GUARDED_COMMANDS
        self.known_rights = None
        self._was_denied = False
        if self.access is not None:
            for function in list(self.worker.abilities):
                if not self.rights.may_work(function.name):
                    self.note_denied(f"work on {quoted(function.name)} any more")
                    self.broker.cant_do(self.worker, function.name, DENIED)

    # -- the transport's calls ------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.set_client_id(self.client_id)
        self.server.connected(self)
        if ISSLTransport.providedBy(self.transport):
            self._deadline = self.server.reactor.callLater(
                self.server.settings.handshake_timeout, self._handshake_timed_out
            )
        if ITCPTransport.providedBy(self.transport):
            self.server.settings.keepalive.apply(self.transport)
        self._quick_ack = quick_ack(self.transport, self.server.clock)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            # A transport may still deliver what it had read, TLS does.
            return
        if self._reading_suspended:
            self._undecoded.append(data)
            if self._unsent.paused:
                self._count()
            return
        if not self.broker.in_turn:
            # That of the reactor. The flush at its end ends it here too.
            self.broker.begin_turn()
        if self._counts_bytes:
            self._traffic.received += len(data)
        packets: Iterator[Packet] = self._decoder.feed(data)
        if self._silent:
            packets = self._until_gearman(packets)
        if len(data) >= SHORT_READ:
            packets = chain.from_iterable(_in_slices(packets, self.server.clock, self.give_way))
        self._handle(packets)

    def handshakeCompleted(self) -> None:
        """TLS is ready."""
        if not self._closing:
            self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        """Do not cut the connection off when its time is over."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _handshake_timed_out(self) -> None:
        self.server.note_handshake_timeout(self)
        self.drop()

    def _until_gearman(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Note that the peer speaks Gearman, which its first packet or admin command shows.

        Raises `BrokenStream` for one that speaks something else, such as a browser that a web page sends
        here: nothing behind its first line is handled.
        """
        for packet in packets:
            number, fields = packet
            if number == UNFINISHED:
                yield packet
                continue
            try:
                speaks = number != TEXT or shows_gearman(fields[0])
            except ForeignPeer as error:
                self.send(error.answer)
                raise
            if not speaks:
                yield packet
                continue
            self._silent = False
            self.server.spoke(self)
            # Not to be kept here while the peer does not read its answer: it may be large.
            held = [packet]
            del packet, fields
            yield held.pop()
            break
        yield from packets

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not isinstance(reason.value, ConnectionClosed):
            self.log_protocol_error(BrokenStream(b"", f"the connection is lost: {_why(reason.value)}"))
        self._lost = self._reading_suspended = True
        self._out.clear()
        self._replies.clear()
        # As with gearmand, what was read and is not handled counts as not arrived. It may refer to this
        # connection, as lists do too.
        self._unhandled = None
        self._undecoded.clear()
        self._unsent.end()
        # TLS would keep it, and it TLS.
        self.transport.unregisterProducer()
        self.note_unfinished(0)
        self._cancel_deadline()
        self.broker.leave_worker(self.worker)
        self.broker.leave_client(self.client)
        self.server.disconnected(self)
        # They refer to this connection, and it to them: without these it is freed at once, and the
        # garbage collector need not look for it among millions of jobs.
        del self.worker, self.client

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

    def _resume_reading(self) -> None:
        """Handle what has come meanwhile, and read on, if nothing is in the way any more."""
        if self._unsent.paused or self._awaits_replies or self._gives_way or self._closing or self._lost:
            return
        self._reading_suspended = False
        if self._unhandled is not None:
            packets, self._unhandled = self._unhandled, None
            if not self.broker.in_turn:
                self.broker.begin_turn()
            self._handle(packets)
        while self._undecoded and not self._reading_suspended:
            self.dataReceived(self._undecoded.popleft())
        if not self._reading_suspended:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is being lost."""

    def give_way(self) -> None:
        """Handle nothing more of this peer in this turn of the reactor."""
        if not (self._gives_way or self._closing or self._lost):
            self._gives_way = self._reading_suspended = True
            self.transport.pauseProducing()
            self.server.reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._gives_way = False
        self._resume_reading()

    # -- handling what was read -----------------------------------------------------------------

    def _handle(self, packets: Iterator[Packet]) -> None:
        """Let each packet be answered, as long as the peer is to be heard."""
        self._handling = True
        commands = self._commands
        try:
            for number, fields in packets:
                try:
                    commands[number](self, *fields)
                except Refused as error:
                    self.send_error(error.code, error.text)
                if self._reading_suspended:
                    self._set_aside(packets)
                    break
        except BrokenStream as error:
            self._traffic.dropped["max-packet" if error.code == TOO_LARGE else "broken-stream"] += 1
            self.log_protocol_error(error)
            if error.code:
                self.send_error(error.code, error.text)
            self.close()
        finally:
            self._handling = False
            if self._out:
                if self._awaits_acknowledgement and self._quick_ack is not None:
                    self._awaits_acknowledgement = False
                    self._quick_ack.resumed()
                if not self._flush_due:
                    self._flush_due = True
                    self.server.flush_soon(self)
            else:
                if not self.server.flush_is_due:
                    self.broker.end_turn()
                if self._quick_ack is not None and not (self._flush_due or self._pending):
                    self._awaits_acknowledgement = self._quick_ack.unanswered()

    def _set_aside(self, packets: Iterator[Packet]) -> None:
        """Keep what was read and may not be handled now."""
        if self._lost:
            return
        self._unhandled = packets
        if self._unsent.paused:
            self._count()

    def note_unfinished(self, size: int) -> None:
        """Of the packet that comes so many bytes are there, 0 when it is whole."""
        self.server.unfinished.note(self, size)

    @property
    def described(self) -> str:
        """Who this is, for the log."""
        return f"Connection {self.number} from {self.host}"

    def give_up_unfinished(self, why: str) -> None:
        """Keep nothing of the packet that comes, say so, and end the connection."""
        self._traffic.dropped["max-unfinished-total"] += 1
        self._decoder.forget()
        self.send_error(TOO_MUCH, why)
        self.close()

    def log_protocol_error(self, error: ProtocolError) -> None:
        """Log what the peer did wrong, the first time it does: a bad client must not fill the disk."""
        if not self._logged_protocol_error:
            self._logged_protocol_error = True
            _log.warn(
                "Connection {number} from {host} ({client_id}): {error}",
                number=self.number,
                host=self.host,
                client_id=ascii(self.client_id),
                error=error.text,
            )

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
            if self._handling and not self._pending:
                # As send(), without the call: so it is with nearly every packet to a worker.
                self._out.append(packet)
            else:
                self.send(packet)

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
                "Connection {number} from {host} closed: the lease expired before JOB_ASSIGN could be sent. "
                "The job may be another server's by now",
                number=self.number,
                host=self.host,
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
            held += sum(map(len, self._undecoded))
            if self._unhandled is not None:
                held += HELD_UNHANDLED
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

    def reply_later(
        self,
        ask: Callable[[Callable[[T], None]], None],
        reply: Callable[[T], bytes],
        alone: bool = False,
    ) -> None:
        """Reply with what `reply` makes of the answer that `ask` gets, and send nothing else until then.

        With `alone` the peer is asked for nothing more until that is sent.
        """
        pending = self._replies.reserve()
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
            self._replies.begin_list(pending)
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
