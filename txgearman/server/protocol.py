"""One connection to the server: bytes in, verbs of the broker; news from the broker, bytes out.

No decisions about jobs, and no knowledge of what a request means: that is in `commands` and `admin`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman import direct
from txgearman.access import AccessPolicy, Rights
from txgearman.broker.entities import Client, Worker
from txgearman.errors import BrokenStream, ProtocolError, Refused
from txgearman.identity import identity_of
from txgearman.patterns import quoted
from txgearman.quickack import QuickAck, quick_ack
from txgearman.server.admin import ForeignPeer, shows_gearman
from txgearman.server.budget import UNCOUNTED, SendQueue
from txgearman.server.commands import COMMANDS, error_packet
from txgearman.server.guard import GUARDED_COMMANDS
from txgearman.server.unfinished import COUNTED_FROM, TOO_MUCH
from txgearman.wire.codec import TOO_LARGE, UNFINISHED, Decoder, frame, pack_header
from txgearman.wire.limits import MAX_HANDLE
from txgearman.wire.packets import (
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NOOP,
    RESPONSE,
    TEXT,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from txgearman.server.factory import GearmanServerFactory

LARGE_ANSWER: Final = 8 * 1024
"""Bytes from which an answer is handed to the transport at once, which then says when it has enough.
One read of 64 KiB can hold five thousand requests; with smaller answers that is at most 44 MiB."""

CLOSE_LIMIT: Final = 5.0
"""Seconds that a peer has to take what is left for it when its connection is closed."""

MAX_LATER: Final = 4096
"""Answers that may wait for the store, with those behind them, before a connection is read no more; it is
again at half of that. Enough for one connection to fill a transaction."""

MAX_LATER_BYTES: Final = 1024 * 1024
"""Bytes that may wait behind such answers, with the same consequence."""

HANDLE_SECONDS: Final = 0.005
"""Seconds for which the packets of one read are handled in one turn of the reactor, from the second look at
the clock on. The rest goes on in the next turn, when others were served. 64 KiB of submits take less than
that; so only what is dear is cut up."""

UNTIMED_PACKETS: Final = 32
"""Packets that are handled between two looks at the clock, so that these cost nearly nothing for each."""

SHORT_READ: Final = 256
"""Bytes; a read of fewer holds no more than `UNTIMED_PACKETS`, or about as many admin lines, and is handled
without a look at the clock. So what most reads bring, a packet or two, costs nothing more."""

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
Twisted pauses who writes, so that it asks for the rest; as many as it sends in one go."""

HELD_UNHANDLED: Final = 128 * 1024
"""Bytes that a read which is not handled to its end is taken to hold: it brings 120 KiB at most. To remember
how many it brought would cost something with each read."""

HELD_BY_TRANSPORT: Final = UNCOUNTED + WRITE_PIECE
"""Bytes that a paused transport is taken to hold where it does not tell, as with TLS: the most it may."""

_NOOP: Final = frame(RESPONSE, NOOP, b"")
_ASSIGNED: Final = tuple(
    pack_header(RESPONSE, number, 0)[:8] for number in (JOB_ASSIGN, JOB_ASSIGN_UNIQ, JOB_ASSIGN_ALL)
)
"""What packets begin with that give a job to a worker."""

_CREATED: Final = tuple(pack_header(RESPONSE, JOB_CREATED, size) for size in range(MAX_HANDLE + 1))
"""The headers of JOB_CREATED, by the length of the handle behind it."""

_log = Logger()

T = TypeVar("T")


class ServerTransport(ITransport, IConsumer, IPushProducer):
    """What a connection needs of its transport, for the type checker: every stream transport of
    Twisted is all of this."""

    def abortConnection() -> None:
        """End the connection without sending what waits."""


class _Later:
    """The place, among the answers to a connection, of one that is not known yet."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: bytes | None = None


class _Listing(_Later):
    """The place of a list that is made and sent piece by piece; its answer is its end, once that is made.

    `pieces` are its text; `size` is how many bytes of it are made and not sent.
    """

    __slots__ = ("_made", "due", "pieces", "size")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self.pieces = pieces
        self.due = False
        self.size = 0
        self._made: list[bytes] = []

    def make_more(self) -> None:
        """Make as much as one turn of the reactor may."""
        enough = self.size + LIST_BYTES_AT_ONCE
        for made, piece in enumerate(self.pieces, 1):
            self._made.append(piece)
            self.size += len(piece)
            if made == LINES_AT_ONCE or self.size >= enough:
                return
        self.answer = b"".join(self._made)

    def take(self) -> bytes:
        """What is made, but for line ends behind it: to some readers they would be the end of the list."""
        text = b"".join(self._made)
        # Of uniques that are all empty there is nothing else.
        taken = text.rstrip(b"\n") or text
        rest = text[len(taken) :]
        self._made = [rest]
        self.size = len(rest)
        return taken


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _why(error: BaseException | None) -> str:
    """Why a connection was lost. OpenSSL says it by a list of tuples, of which the last is for people."""
    reasons = error.args[0] if error is not None and error.args else None
    if isinstance(reasons, list):
        return "TLS: " + (", ".join(str(reason[-1]) for reason in reasons) or "no reason given")
    return str(error)


@implementer(IPushProducer, IHandshakeListener)
class GearmanServerProtocol(Protocol):
    """A client, a worker and an administrator in one, as every Gearman connection may be.

    `number` tells the connections of a server apart; `client_id` is what the peer calls itself;
    `exceptions` whether it wants WORK_EXCEPTION and not WORK_FAIL; `known_rights` are its `rights`, or None
    as long as nobody has asked for these.
    """

    factory: GearmanServerFactory
    transport: ServerTransport

    # More attributes than Python keeps quickly in an instance's dictionary: each look-up would search it.
    __slots__ = (
        "_closing",
        "_commands",
        "_complained",
        "_cut",
        "_decoder",
        "_dropped",
        "_flush_due",
        "_gives_way",
        "_halted",
        "_handling",
        "_later",
        "_later_size",
        "_listing",
        "_lost",
        "_out",
        "_out_large",
        "_paused",
        "_queue",
        "_quick_ack",
        "_silent",
        "_since",
        "_traffic",
        "_undecoded",
        "_unhandled",
        "_waited",
        "_waiting",
        "_was_denied",
        "broker",
        "client",
        "client_id",
        "exceptions",
        "known_rights",
        "number",
        "worker",
    )

    def __init__(self, factory: GearmanServerFactory, number: int) -> None:
        self.factory = factory
        self.broker = factory.broker
        self._traffic = factory.traffic
        self._counts_bytes = factory.settings.measured_functions > 0
        self.number = number
        self._since = factory.reactor.seconds()
        self.client_id = b"-"
        self.exceptions = factory.settings.exceptions
        self.client = Client(self)
        self.worker = Worker(self)
        self._decoder = Decoder(max_packet=factory.settings.max_packet, tell_from=COUNTED_FROM)
        self._out: list[bytes] = []
        self._out_large = False
        self._handling = False
        self._flush_due = False
        # Answers that are not known yet, and all that is to reach the peer behind them.
        self._later: deque[_Later | bytes] = deque()
        self._later_size = 0
        # Any of these means that nothing more is to be handled; `_halted` says so in one look.
        self._paused = False
        self._waiting = False
        self._gives_way = False
        self._closing = False
        self._lost = False
        self._halted = False
        self._cut: IDelayedCall | None = None
        self._complained = False
        self._commands = COMMANDS if self.access is None else GUARDED_COMMANDS
        self.known_rights: Rights | None = None
        self._was_denied = False
        # No packet and no admin command has come yet.
        self._silent = True
        self._dropped = False
        self._listing: _Listing | None = None
        # What the transport has not been given, because the peer does not take what it has; made when needed.
        self._queue: SendQueue | None = None
        # Whether the peer may be waiting for an acknowledgement of its last read, and is timed for that.
        self._quick_ack: QuickAck | None = None
        self._waited = False
        # What was read and is not handled yet: the peer does not take its answers, or gives way to others.
        self._unhandled: Iterator[tuple[int, list[Any]]] | None = None
        self._undecoded: deque[bytes] = deque()

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""
        return getattr(self.transport.getPeer(), "host", "unix")

    @property
    def age(self) -> float:
        """Seconds since the connection was made."""
        return self.factory.reactor.seconds() - self._since

    @property
    def is_local(self) -> bool:
        """Whether the peer is certainly on this machine."""
        peer = self.transport.getPeer()
        if isinstance(peer, UNIXAddress):
            return True
        return isinstance(peer, IPv4Address | IPv6Address) and _is_loopback(peer.host)

    @property
    def access(self) -> AccessPolicy | None:
        """What the operator says of who may do what; None where everybody may do everything."""
        return self.factory.access

    @property
    def rights(self) -> Rights:
        """What the peer may do. Known from its first packet on: a TLS connection is made before its peer
        has shown a certificate."""
        if self.known_rights is None:
            assert self.access is not None
            self.known_rights = self.access.rights_of(identity_of(self.transport))
        return self.known_rights

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
                    self.broker.cant_do(self.worker, function.name)

    # -- the transport's calls ------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.factory.connected(self)
        if ISSLTransport.providedBy(self.transport):
            self._cut = self.factory.reactor.callLater(
                self.factory.settings.handshake_timeout, self._drop_unfinished
            )
        if ITCPTransport.providedBy(self.transport):
            self.factory.settings.keepalive.apply(self.transport)
        self._quick_ack = quick_ack(self.transport, self.factory.clock)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            # A transport may still deliver what it had read, TLS does.
            return
        if self._halted:
            self._undecoded.append(data)
            if self._paused:
                self._count()
            return
        if not self.broker.in_turn:
            # That of the reactor. The flush at its end ends it here too.
            self.broker.begin_turn()
        if self._counts_bytes:
            self._traffic.received += len(data)
        packets: Iterator[tuple[int, list[Any]]] = self._decoder.feed(data)
        if self._silent:
            packets = self._first(packets)
        if len(data) >= SHORT_READ:
            packets = chain.from_iterable(self._timed(packets))
        self._handle(packets)

    def handshakeCompleted(self) -> None:
        """TLS is ready."""
        if not self._closing:
            self._keep()

    def _keep(self) -> None:
        """Do not cut the connection off when its time is over."""
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        self._cut = None

    def _drop_unfinished(self) -> None:
        self.factory.note_unfinished(self)
        self.drop()

    def _first(self, packets: Iterator[tuple[int, list[Any]]]) -> Iterator[tuple[int, list[Any]]]:
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
            self.factory.silent.pop(self.number, None)
            # Not to be kept here while the peer does not read its answer: it may be large.
            held = [packet]
            del packet, fields
            yield held.pop()
            break
        yield from packets

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not isinstance(reason.value, ConnectionClosed):
            self.complain(BrokenStream(b"", f"the connection is lost: {_why(reason.value)}"))
        self._lost = self._halted = True
        self._out.clear()
        self._later.clear()
        self._later_size = 0
        self._listing = None
        # As with gearmand, what was read and is not handled counts as not arrived. It may refer to this
        # connection, as lists do too.
        self._unhandled = None
        self._undecoded.clear()
        self._forget_unsent()
        # TLS would keep it, and it TLS.
        self.transport.unregisterProducer()
        self.note_unfinished(0)
        self._keep()
        self.broker.leave_worker(self.worker)
        self.broker.leave_client(self.client)
        self.factory.disconnected(self)
        # They refer to this connection, and it to them: without these it is freed at once, and the
        # garbage collector need not look for it among millions of jobs.
        del self.worker, self.client

    def pauseProducing(self) -> None:
        """The peer does not take its answers: ask it nothing, hear nothing more of it."""
        self._paused = self._halted = True
        self.transport.pauseProducing()
        self._count()
        if self.factory.budget.is_exceeded:
            # Not from here: the transport is in the middle of a write.
            self.factory.reactor.callLater(0, self.factory.budget.enforce)

    def resumeProducing(self) -> None:
        """The peer has taken all that the transport had."""
        self._paused = False
        queue = self._queue
        if queue is not None and self._has_enough(queue):
            return
        if self._listing is not None:
            self._list_soon(self._listing)
        if self._closing:
            self._close_soon()
        self._go_on()

    def _go_on(self) -> None:
        """Handle what has come meanwhile, and read on, if nothing is in the way any more."""
        if self._paused or self._waiting or self._gives_way or self._closing or self._lost:
            return
        self._halted = False
        if self._unhandled is not None:
            packets, self._unhandled = self._unhandled, None
            if not self.broker.in_turn:
                self.broker.begin_turn()
            self._handle(packets)
        while self._undecoded and not self._halted:
            self.dataReceived(self._undecoded.popleft())
        if not self._halted:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is being lost."""

    def give_way(self) -> None:
        """Handle nothing more of this peer in this turn of the reactor."""
        if not (self._gives_way or self._closing or self._lost):
            self._gives_way = self._halted = True
            self.transport.pauseProducing()
            self.factory.reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._gives_way = False
        self._go_on()

    # -- handling what was read -----------------------------------------------------------------

    def _handle(self, packets: Iterator[tuple[int, list[Any]]]) -> None:
        """Let each packet be answered, as long as the peer is to be heard."""
        self._handling = True
        commands = self._commands
        try:
            for number, fields in packets:
                try:
                    commands[number](self, *fields)
                except Refused as error:
                    self.send_error(error.code, error.text)
                if self._halted:
                    self._set_aside(packets)
                    break
        except BrokenStream as error:
            self._traffic.dropped["max-packet" if error.code == TOO_LARGE else "broken-stream"] += 1
            self.complain(error)
            if error.code:
                self.send_error(error.code, error.text)
            self.close()
        finally:
            self._handling = False
            if self._out:
                if self._waited and self._quick_ack is not None:
                    self._waited = False
                    self._quick_ack.resumed()
                if not self._flush_due:
                    self._flush_due = True
                    self.factory.flush_soon(self)
            else:
                if not self.factory.flush_is_due:
                    self.broker.end_turn()
                if self._quick_ack is not None and not (self._flush_due or self._later):
                    self._waited = self._quick_ack.unanswered()

    def _set_aside(self, packets: Iterator[tuple[int, list[Any]]]) -> None:
        """Keep what was read and may not be handled now."""
        if self._lost:
            return
        self._unhandled = packets
        if self._paused:
            self._count()

    def _timed(self, packets: Iterator[tuple[int, list[Any]]]) -> Iterator[Iterable[tuple[int, list[Any]]]]:
        """`packets` in parts. Where they take long, others are let ahead between two of these."""
        ends_at: float | None = None
        while True:
            yield islice(packets, UNTIMED_PACKETS)
            # Not to give way ahead of nothing.
            following = next(packets, None)
            if following is None:
                return
            now = self.factory.clock()
            if ends_at is None:
                ends_at = now + HANDLE_SECONDS
            elif now >= ends_at:
                ends_at = None
                self.give_way()
            yield (following,)

    def note_unfinished(self, size: int) -> None:
        """Of the packet that comes so many bytes are there, 0 when it is whole."""
        self.factory.unfinished.note(self, size)

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

    def complain(self, error: ProtocolError) -> None:
        """Log what the peer did wrong, the first time it does: a bad client must not fill the disk."""
        if not self._complained:
            self._complained = True
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
        if self._later:
            if self._may_wait():
                self._later.append(data)
                self._later_size += len(data)
                if self._later_size > UNCOUNTED:
                    self._count()
                    self.factory.budget.enforce()
                self._limit_later()
            return
        if not self._handling and not self._flush_due:
            self._flush_due = True
            # This carries the acknowledgement, so the peer does not wait for it any more.
            self._waited = False
            self.factory.flush_soon(self)
        self._out.append(data)
        if len(data) >= LARGE_ANSWER:
            self._out_large = True
            if self._handling:
                self.flush()

    def send_packet(self, number: int, *fields: bytes) -> None:
        """Send a response packet; no field but the last may hold a NUL."""
        if len(fields[-1]) >= LARGE_ANSWER:
            # Apart from the rest, and so never copied.
            head = b"\0".join([*fields[:-1], b""])
            self.send(pack_header(RESPONSE, number, len(head) + len(fields[-1])) + head)
            self.send(fields[-1])
        else:
            body = b"\0".join(fields)
            packet = pack_header(RESPONSE, number, len(body)) + body
            if self._handling and not self._later:
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
        if self.broker.lease_expires_at is not None and self._gives_too_late():
            _log.warn(
                "Connection {number} from {host} is ended: it was to be sent a job that may be another "
                "server's by now",
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
            if not self._paused and len(data) <= WRITE_PIECE:
                direct.write(self.transport, data)
                return
            out = [data]
        self._write(out)

    def _write(self, pieces: list[bytes]) -> None:
        """Let the transport have what its socket takes at once, and what it is to hold of the rest. What is
        left waits here, without being copied."""
        taken = 0 if self._paused else direct.offer(self.transport, pieces)
        if taken == sum(map(len, pieces)):
            return
        queue = self._send_queue()
        for piece in pieces:
            # The first may have any size, so that a large packet can always be sent.
            if not self._may_wait():
                return
            if taken >= len(piece):
                taken -= len(piece)
                continue
            queue.append(piece)
            if taken:
                queue.skip(taken)
                taken = 0
        self._hand_over(queue)
        self._count()
        self.factory.budget.enforce()

    def _hand_over(self, queue: SendQueue) -> None:
        """Let the transport have what waits, until it has enough."""
        while queue and not self._paused:
            queue.skip(direct.offer(self.transport, queue.first(direct.MAX_PIECES)))
            if queue:
                self.transport.write(queue.take(WRITE_PIECE))

    def _has_enough(self, queue: SendQueue) -> bool:
        """Hand over, count what is left, and say whether the transport has enough again."""
        self._hand_over(queue)
        self._count()
        return self._paused

    def _send_queue(self) -> SendQueue:
        """What waits for the peer, made with the first need for it."""
        if self._queue is None:
            self._queue = self.factory.budget.queue(self)
        return self._queue

    def _may_wait(self) -> bool:
        """Whether more may wait for this peer; if not, it is dropped."""
        if self._dropped:
            return False
        size = self._later_size if self._queue is None else self._queue.size + self._later_size
        if size > self.factory.settings.max_unsent:
            self.factory.budget.drop(self._send_queue(), "max-unsent")
            return False
        return True

    def _count(self) -> None:
        """Count what is held for this peer beside the queue."""
        if self._dropped or self._lost:
            return
        beside = self._later_size
        if self._listing is not None:
            beside += self._listing.size
        if self._paused:
            kept = direct.kept(self.transport)
            beside += HELD_BY_TRANSPORT if kept is None else kept
            beside += sum(map(len, self._undecoded))
            if self._unhandled is not None:
                beside += HELD_UNHANDLED
        self._send_queue().note_beside(beside)

    def _forget_unsent(self) -> None:
        """Nothing waits for this peer any more."""
        if self._queue is not None:
            self._queue.clear()
            # It refers to this connection.
            self._queue = None

    def _gives_too_late(self) -> bool:
        """Whether the peer is about to be sent a job from the store, and the time for that is over.

        It was not when the worker got the job; but the process may have been stopped since, or the packet
        had to wait behind an answer of the store.
        """
        return (
            self.broker.lease_expired
            and any(job.stored for job in self.worker.jobs.values())
            and any(packet.startswith(_ASSIGNED) for packet in self._out)
        )

    def send_later(self, ask: Callable[[Callable[[T], None]], None], answer: Callable[[T], bytes]) -> None:
        """Send what `answer` makes of what `ask` tells the function that it is given, and until then nothing
        else."""
        later = self.saving()

        def tell(found: T) -> None:
            later.answer = answer(found)
            self._answer_later()

        ask(tell)

    def _answer_later(self) -> None:
        """Send the answers that were waited for, as far as they are known now, and what is behind them."""
        later = self._later
        while later:
            first = later[0]
            if first is self._listing:
                self._list_soon(self._listing)
            answer = first if isinstance(first, bytes) else first.answer
            if answer is None:
                break
            later.popleft()
            if answer is first:
                self._later_size -= len(answer)
            self._out.append(answer)
            if len(answer) >= LARGE_ANSWER:
                self._out_large = True
        if self._queue is not None and self._queue.held:
            self._count()
        if self._out and not self._handling and not self._flush_due:
            self._flush_due = True
            self.factory.flush_soon(self)
        if self._closing:
            self._close_soon()
        elif (
            self._waiting
            and self._listing is None
            and len(later) <= MAX_LATER // 2
            and self._later_size <= MAX_LATER_BYTES // 2
        ):
            self._waiting = False
            # Not from here: the broker is in the middle of something.
            self.factory.reactor.callLater(0, self._go_on)

    def send_list(self, pieces: Iterator[bytes]) -> None:
        """Send a list, whose text is `pieces`.

        A long list is made piece by piece, as the peer takes it, while others are served. Whatever is for
        this peer meanwhile waits, and so do its next requests. `pieces` must not mind what happens to the
        server between two of them.
        """
        listing = _Listing(pieces)
        listing.make_more()
        if listing.answer is not None:
            self.send(listing.answer)
        elif not self._lost:
            self._listing = listing
            self._later.append(listing)
            self._waiting = self._halted = True
            self.transport.pauseProducing()
            self._list_soon(listing)

    def _list_soon(self, listing: _Listing) -> None:
        """Make the next piece of a list, if all that is ahead of it was sent."""
        if self._later[0] is listing and not listing.due and not self._paused:
            listing.due = True
            self.factory.reactor.callLater(0, self._list, listing)

    def _list(self, listing: _Listing) -> None:
        listing.due = False
        if self._lost or self._dropped or self._paused:
            return
        listing.make_more()
        if listing.answer is None:
            if listing.size >= LIST_WRITE:
                self.flush()
                piece = listing.take()
                if self._counts_bytes:
                    self._traffic.sent += len(piece)
                self._write([piece])
            elif listing.size > UNCOUNTED:
                self._count()
                self.factory.budget.enforce()
            self._list_soon(listing)
            return
        self._listing = None
        self._answer_later()
        # The answer to what the peer asked behind the list leaves in one write with its end.
        if not self._waiting:
            self._go_on()

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
        self._dropped = True
        self._forget_unsent()
        self.transport.abortConnection()

    def close(self) -> None:
        """Hear nothing more, and end the connection once everything was sent.

        A peer that does not take it has `CLOSE_LIMIT` to do so.
        """
        if self._closing or self._lost:
            return
        self._closing = self._halted = True
        self._keep()
        self._cut = self.factory.reactor.callLater(CLOSE_LIMIT, self.transport.abortConnection)
        self._close_soon()

    def _close_soon(self) -> None:
        """End the connection if it has nothing more to say."""
        if self._later or self._lost or self._dropped:
            return
        self.flush()
        if self._queue:
            return
        # A transport with a paused producer would wait for it before it closes.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # -- the broker's news for a client (ClientConnection) ---------------------------------------------

    def created(self, handle: bytes) -> None:
        # As send(), written out: a submit is always being handled, and its answer is small. This is
        # once per submit; the call saved bought a twentieth of the submits per second.
        answer = _CREATED[len(handle)] + handle
        if self._later:
            self.send(answer)
        else:
            self._out.append(answer)

    def saving(self) -> _Later:
        later = _Later()
        self._later.append(later)
        self._limit_later()
        return later

    def _limit_later(self) -> None:
        """Read the connection no more if much waits for answers that are not known yet."""
        too_much = len(self._later) > MAX_LATER or self._later_size > MAX_LATER_BYTES
        if too_much and not (self._waiting or self._closing):
            self._waiting = self._halted = True
            self.transport.pauseProducing()

    def saved(self, place: _Later, handle: bytes) -> None:
        place.answer = _CREATED[len(handle)] + handle
        self._answer_later()

    def refused(self, place: _Later, refusal: Refused) -> None:
        self._traffic.refused[refusal.code] += 1
        place.answer = error_packet(refusal.code, refusal.text)
        self._answer_later()

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

    def exception(self, handle: bytes, data: bytes) -> None:
        # gearmand sends the WORK_FAIL in place of an exception with a NUL behind the handle, which
        # some clients take for part of it.
        if self.exceptions:
            self.send_packet(WORK_EXCEPTION, handle, data)
        else:
            self.send_packet(WORK_FAIL, handle)

    # -- the broker's news for a worker (WorkerConnection) ---------------------------------------------

    def wake(self) -> None:
        self.send(_NOOP)
