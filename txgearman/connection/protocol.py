"""One connection to a server: whole packets in, whole packets out, and one end.

What the packets mean is decided in the subclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.connection.heartbeat import Heartbeat, LivenessCheck
from txgearman.errors import BrokenStream
from txgearman.net import fast_write
from txgearman.net.keepalive import Keepalive
from txgearman.wire.codec import REFUSED, Decoder, frame
from txgearman.wire.packets import ECHO_REQ, REQUEST, RESPONSE

KEEPALIVE: Final = Keepalive(idle=60, interval=15, count=4)
"""The system probes a server after a minute of silence, and aborts the connection two minutes after its last
byte. The liveness check is faster; this is for where that is turned off. Linux's own default is two hours,
and NAT devices forget a connection long before."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that `PacketProtocol.close` gives the server to take what was written. Then it aborts the
connection. Without a limit a hung server would hold up the end of its clients."""

WRITE_BUFFER_BYTES: Final = 64 * 1024
"""Bytes of packets that one write collects at most. One system call takes as many easily."""


class PacketProtocol(Protocol):
    """The end of a connection that sends requests and receives responses.

    Subclasses override `opened`, `received` and `ended`.

    Args:
        clock: Times the close and the liveness check.
        max_packet: The largest body of a packet in bytes, in both directions.
        check: When a silent server counts as dead; None for never. Replies to its probes reach `received` as
            ECHO_RES.

    Attributes:
        open: Whether requests can be sent: from `opened` to `close` or the loss of the connection.
        hung: Whether the connection ended because the server did not answer.
        reading: Whether the bytes of one read are being handled.
        read_at: When the last read came, in seconds of the clock.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, max_packet: int, check: LivenessCheck | None = None) -> None:
        self.clock = clock
        self.max_packet = max_packet
        self.open = False
        self.hung = False
        self._decoder = Decoder(RESPONSE, max_packet, text=False)
        self.reading = False
        self.read_at = 0.0
        self._write_buffer: list[bytes] = []
        self._write_buffer_size = 0
        self._flush_call: IDelayedCall | None = None
        self._disconnected = False
        self._close_waiters: list[Deferred[None]] = []
        self._abort_call: IDelayedCall | None = None
        self._written = 0
        self._heartbeat = (
            None
            if check is None
            else Heartbeat(
                clock, check, self.send_probe, self.reply_pending, self._delivered, self._presume_dead
            )
        )

    # -- for subclasses -------------------------------------------------------------------------

    def opened(self) -> None:
        """The connection is made."""

    def received(self, number: int, fields: list[Any]) -> None:
        """A packet came.

        Args:
            number: The type of the packet.
            fields: Its fields as bytes.

        Raises:
            BrokenStream: The packet breaks the protocol. This aborts the connection.
        """

    def ended(self, why: str) -> None:
        """The connection has ended: no packet can be received or sent. Called once, after `opened`.

        Args:
            why: The reason, for error texts.
        """

    def send_probe(self) -> None:
        """Ask for an echo, whose reply shows that the server is alive.

        A subclass that matches replies with requests overrides this.
        """
        self.write_buffered(frame(REQUEST, ECHO_REQ, b""))

    def reply_pending(self) -> bool:
        """Whether the server owes a reply. Without one in time it counts as hung; see `expect_reply`."""
        return False

    def expect_reply(self) -> None:
        """The server owes a reply from now on. `reply_pending` is true until it comes."""
        if self._heartbeat is not None:
            self._heartbeat.expect_reply()

    def write(self, data: bytes) -> None:
        """Send whole packets, at once if no bytes wait to be sent."""
        assert self.transport is not None
        self.flush()
        self._written += len(data)
        fast_write.write(self.transport, data)

    def write_buffered(self, data: bytes) -> None:
        """Send whole packets in one write with the others of this read, or of this turn of the reactor."""
        self._write_buffer.append(data)
        self._write_buffer_size += len(data)
        if self._write_buffer_size > WRITE_BUFFER_BYTES:
            self.flush()
        elif self._flush_call is None and not self.reading:
            self._flush_call = self.clock.callLater(0, self._flush_at_end_of_turn)

    # -- for owners -----------------------------------------------------------------------------

    def close(self, why: str) -> Deferred[None]:
        """End the connection once everything written has been sent. No packet is received after this call.

        Args:
            why: The reason, for the errors of those who wait for replies.

        Returns:
            A Deferred that fires when the connection is gone, at the latest after `CLOSE_TIMEOUT`.
        """
        if self._disconnected or self.transport is None:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._close_waiters.append(gone)
        self.flush()
        self._end(why)
        if self._abort_call is None:
            self._abort_call = self.clock.callLater(CLOSE_TIMEOUT, self._abort)
            self.transport.loseConnection()
        return gone

    # -- the transport's calls ------------------------------------------------------------------

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            KEEPALIVE.apply(self.transport)
        self.open = True
        if self._heartbeat is not None:
            self._heartbeat.start()
        self.opened()

    def dataReceived(self, data: bytes) -> None:
        if not self.open:
            return
        self.read_at = now = self.clock.seconds()
        if self._heartbeat is not None:
            self._heartbeat.note_data(now)
        self.reading = True
        try:
            self._handle(data)
        except BrokenStream as error:
            self._log.error(
                "Dropping the connection to {server}: {error}", server=self._server(), error=error
            )
            self._end(f"the server broke the protocol: {error}")
            self._abort()
        finally:
            self.reading = False
            self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disconnected = True
        if self._abort_call is not None and self._abort_call.active():
            self._abort_call.cancel()
        self._end(reason.getErrorMessage())
        waiters, self._close_waiters = self._close_waiters, []
        for gone in waiters:
            gone.callback(None)

    def _handle(self, data: bytes) -> None:
        for number, fields in self._decoder.feed(data):
            if not self.open:
                return
            if number == REFUSED:
                # It may have been the reply to a request, so the order of replies is lost.
                raise BrokenStream(b"", str(fields[0]))
            self.received(number, fields)

    def _flush_at_end_of_turn(self) -> None:
        self._flush_call = None
        self.flush()

    def flush(self) -> None:
        """Send what `write_buffered` has collected."""
        if self._write_buffer:
            data = b"".join(self._write_buffer)
            self._write_buffer.clear()
            self._write_buffer_size = 0
            if self.open and self.transport is not None:
                self._written += len(data)
                fast_write.write(self.transport, data)

    def _end(self, why: str) -> None:
        if self.open:
            self.open = False
            if self._flush_call is not None:
                self._flush_call.cancel()
                self._flush_call = None
            if self._heartbeat is not None:
                self._heartbeat.stop()
            self.ended(why)

    def _delivered(self) -> int:
        assert self.transport is not None
        return self._written - fast_write.unsent(self.transport)

    def _presume_dead(self, why: str) -> None:
        self.hung = True
        self._log.warn("Dropping the connection to {server}: {why}", server=self._server(), why=why)
        self._end(why)
        self._abort()

    def _abort(self) -> None:
        # Every transport of Twisted's endpoints has the method, though only the TCP interface declares it.
        cast(ITCPTransport, self.transport).abortConnection()

    def _server(self) -> object:
        assert self.transport is not None
        return self.transport.getPeer()


class PacketFactory(Factory):
    """Makes protocols by calling `build`."""

    noisy = False

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        protocol: Protocol = self._build()
        return protocol
