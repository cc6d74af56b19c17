"""One connection to the server: when its bytes are read, and when the packets in them are handled.

No decisions about jobs, and no knowledge of what a request means: that is in `commands` and `admin`. What is
sent, and when, is in `replies`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IHandshakeListener,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
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
from txgearman.net.addresses import is_loopback, plain_host
from txgearman.net.quickack import QuickAck, quick_ack
from txgearman.server.admin.commands import ForeignPeer, shows_gearman
from txgearman.server.budgets.unfinished import COUNTED_FROM, TOO_MUCH
from txgearman.server.commands import COMMANDS
from txgearman.server.guard import GUARDED_COMMANDS
from txgearman.server.interfaces import Server
from txgearman.server.replies.job_replies import NO_CLIENT_ID, JobReplies
from txgearman.wire.codec import TOO_LARGE, UNFINISHED, Decoder
from txgearman.wire.packets import TEXT

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


@implementer(IHandshakeListener)
class GearmanServerProtocol(JobReplies):
    """A client, a worker and an administrator in one, as every Gearman connection may be.

    `number` tells the connections of a server apart; `client_id` is what the peer calls itself; `label` that
    and its address, as jobs remember it; `exceptions` whether it wants WORK_EXCEPTION and not WORK_FAIL;
    `extensions` are those of the protocol that it has asked for; `known_rights` are its `rights`,
    or None as long as nobody has asked for these.
    """

    __slots__ = (
        "_can_quick_ack",
        "_commands",
        "_decoder",
        "_gives_way",
        "_logged_protocol_error",
        "_quick_ack",
        "_silent",
        "_since",
        "_undecoded",
        "_unhandled",
        "_was_denied",
        "client",
        "known_rights",
        "label",
    )

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server, number)
        self._since = server.reactor.seconds()
        self.label = b""
        self.client = Client(self)
        self.worker = Worker(self)
        self._decoder = Decoder(max_packet=server.settings.max_packet, tell_from=COUNTED_FROM)
        self._gives_way = False
        self._logged_protocol_error = False
        self._commands = COMMANDS if self.access is None else GUARDED_COMMANDS
        self.known_rights: Rights | None = None
        self._was_denied = False
        # No packet and no admin command has come yet.
        self._silent = True
        # Made with the first read that has no answer: who connects for one job never needs it.
        self._quick_ack: QuickAck | None = None
        self._can_quick_ack = True
        # What was read and is not handled yet: the peer does not take its answers, or gives way to others.
        self._unhandled: Iterator[Packet] | None = None
        # Few: the transport is paused then. TLS brings what it had read.
        self._undecoded: list[bytes] = []

    def set_client_id(self, client_id: bytes) -> None:
        """Take the name that the peer calls itself by."""
        self.client_id = client_id
        self.label = b"%b %b" % (client_id, self.host.encode())

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""
        return plain_host(getattr(self.transport.getPeer(), "host", "unix"))

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
                "Connection {number} from {host} (client id {client_id}), {known}: denied to {what}. "
                "Rules that fit: {rules}",
                number=self.number,
                host=self.host,
                client_id=quoted(self.client_id),
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
            self.server.keepalive.apply(self.transport)
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

    def _handshake_timed_out(self) -> None:
        self.server.note_handshake_timeout(self)
        self.drop()

    def _until_gearman(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Note that the peer speaks Gearman, which its first packet or admin command shows.

        Raises `BrokenStream` for one that speaks something else, such as a browser that a web page sends
        here: nothing after its first line is handled.
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
        self._end_sending()
        # As with gearmand, what was read and is not handled counts as not arrived. It may refer to this
        # connection.
        self._unhandled = None
        self._undecoded.clear()
        # TLS would keep it, and it TLS.
        self.transport.unregisterProducer()
        if self.server.unfinished.total:
            self.note_unfinished(0)
        self.broker.leave_worker(self.worker)
        self.broker.leave_client(self.client)
        self.server.disconnected(self)
        # They refer to this connection, and it to them: without these it is freed at once, and the
        # garbage collector need not look for it among millions of jobs.
        del self.worker, self.client

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
            self.dataReceived(self._undecoded.pop(0))
        if not self._reading_suspended:
            self.transport.resumeProducing()

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
                if self._can_quick_ack and not (self._flush_due or self._pending):
                    self._acknowledge()

    def _acknowledge(self) -> None:
        """Nothing is to be sent that would carry the acknowledgement of a read."""
        if self._quick_ack is None:
            self._quick_ack = None if self._lost else quick_ack(self.transport, self.server.clock)
            if self._quick_ack is None:
                self._can_quick_ack = False
                return
        self._awaits_acknowledgement = self._quick_ack.unanswered()

    def _set_aside(self, packets: Iterator[Packet]) -> None:
        """Keep what was read and may not be handled now."""
        if self._lost:
            return
        self._unhandled = packets
        if self._unsent.paused:
            self._count()

    @property
    def _unhandled_bytes(self) -> int:
        unhandled = 0 if self._unhandled is None else HELD_UNHANDLED
        return unhandled + sum(map(len, self._undecoded))

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
                "Connection {number} from {host} (client id {client_id}): {error}",
                number=self.number,
                host=self.host,
                client_id=quoted(self.client_id),
                error=error.text,
            )
