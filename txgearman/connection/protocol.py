"""One connection to a server: whole packets in, whole packets out, and one end.

What the packets mean is the subclasses' business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman import direct
from txgearman.connection.heartbeat import Heartbeat, LivenessCheck
from txgearman.errors import BrokenStream
from txgearman.keepalive import Keepalive
from txgearman.wire.codec import REFUSED, Decoder, frame
from txgearman.wire.packets import ECHO_REQ, REQUEST, RESPONSE

KEEPALIVE: Final = Keepalive(idle=60, interval=15, count=4)
"""A server that says nothing for a minute is probed, and given up two minutes after its last sign of life.
The echo check is faster; this is for where that is switched off. Linux's own default is two hours, and NAT
devices forget a connection long before."""

CLOSE_SECONDS: Final = 10.0
"""Seconds that `PacketProtocol.close` gives the server to take what was written; then the connection is
cut. Without a limit a server that hangs would hold up the end of its clients."""

JOIN_BYTES: Final = 64 * 1024
"""Bytes of packets that are collected for one write, at most: what one call of the system takes easily."""


class PacketProtocol(Protocol):
    """The end of a connection that sends requests and receives responses.

    Subclasses say what happens by `opened`, `received` and `ended`. `clock` gives the time for
    `CLOSE_SECONDS` and `check`; `max_packet` is the largest body of a packet in bytes, either way.
    `check` says when a silent server is taken for dead; None for never. The server's answers to the
    check reach `received` as ECHO_RES.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, max_packet: int, check: LivenessCheck | None = None) -> None:
        self.clock = clock
        self.max_packet = max_packet
        self.open = False
        """Whether requests can be sent: from the connection's begin to `close` or its loss."""
        self.hung = False
        """Whether the connection was ended because the server did not answer."""
        self._decoder = Decoder(RESPONSE, max_packet, text=False)
        self.reading = False
        """Whether what one read brought is being handled."""
        self.read_at = 0.0
        """When the last read came, in seconds of `clock`."""
        self._out: list[bytes] = []
        self._out_size = 0
        self._soon: IDelayedCall | None = None
        self._gone = False
        self._closing: list[Deferred[None]] = []
        self._cut: IDelayedCall | None = None
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
        """A packet came. To raise `BrokenStream` drops the connection."""

    def ended(self, why: str) -> None:
        """No packet will be received any more, and none can be sent. Called once, after `opened`."""

    def send_probe(self) -> None:
        """Ask for an echo, whose answer shows that the server is there.

        A subclass that matches answers with requests puts its own in the place of this.
        """
        self.write_soon(frame(REQUEST, ECHO_REQ, b""))

    def reply_pending(self) -> bool:
        """Whether the server must answer something, so that it is hung if it does not; see `expect`."""
        return False

    def expect_reply(self) -> None:
        """The server must answer something from now on, and `owed` is true until it has."""
        if self._heartbeat is not None:
            self._heartbeat.expect_reply()

    def write(self, data: bytes) -> None:
        """Send whole packets, at once if nothing is ahead of them."""
        assert self.transport is not None
        self._flush()
        self._written += len(data)
        direct.write(self.transport, data)

    def write_soon(self, data: bytes) -> None:
        """Send whole packets together with the others of this read, or of this turn of the reactor."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size > JOIN_BYTES:
            self._flush()
        elif self._soon is None and not self.reading:
            self._soon = self.clock.callLater(0, self._flush_soon)

    # -- for owners -----------------------------------------------------------------------------

    def close(self, why: str) -> Deferred[None]:
        """End the connection after what was written has been sent; `why` is told to those who wait.

        Returns a Deferred that fires when the connection is gone, at the latest after
        `CLOSE_SECONDS`. No packet is received after this call.
        """
        if self._gone or self.transport is None:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._closing.append(gone)
        self._flush()
        self._end(why)
        if self._cut is None:
            self._cut = self.clock.callLater(CLOSE_SECONDS, self._abort)
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
            self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        self._end(reason.getErrorMessage())
        closing, self._closing = self._closing, []
        for gone in closing:
            gone.callback(None)

    def _handle(self, data: bytes) -> None:
        for number, fields in self._decoder.feed(data):
            if not self.open:
                return
            if number == REFUSED:
                # It may have been the answer to a request, so the order of answers is lost too.
                raise BrokenStream(b"", str(fields[0]))
            self.received(number, fields)

    def _flush_soon(self) -> None:
        self._soon = None
        self._flush()

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            if self.open and self.transport is not None:
                self._written += len(data)
                direct.write(self.transport, data)

    def _end(self, why: str) -> None:
        if self.open:
            self.open = False
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            if self._heartbeat is not None:
                self._heartbeat.stop()
            self.ended(why)

    def _delivered(self) -> int:
        assert self.transport is not None
        return self._written - direct.unsent(self.transport)

    def _presume_dead(self, why: str) -> None:
        self.hung = True
        self._log.warn("Dropping the connection to {server}: {why}", server=self._server(), why=why)
        self._end(why)
        self._abort()

    def _abort(self) -> None:
        # Every transport of Twisted's endpoints has it, though only the TCP interface names it.
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
