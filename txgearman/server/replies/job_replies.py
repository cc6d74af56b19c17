"""What the broker says about jobs, as packets."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from txgearman.access.patterns import quoted
from txgearman.errors import Refused
from txgearman.server.commands import error_packet
from txgearman.server.interfaces import Server
from txgearman.server.replies.pending import PendingReply
from txgearman.server.replies.sender import Sender
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

_log = Logger()

NO_CLIENT_ID: Final = b"-"
"""What a peer is called that has not said who it is, as with gearmand."""

_NOOP: Final = frame(RESPONSE, NOOP, b"")

_CREATED: Final = tuple(pack_header(RESPONSE, JOB_CREATED, size) for size in range(MAX_HANDLE + 1))
"""The headers of JOB_CREATED, by the length of the handle behind it."""


class JobReplies(Sender):
    """What the broker says about jobs, as packets: the `ClientConnection` and `WorkerConnection` of a peer.

    Args:
        server: What the connection belongs to.
        number: Tells the connections of a server apart.

    Attributes:
        client_id: What the peer calls itself.
        exceptions: Whether it wants WORK_EXCEPTION and not WORK_FAIL.
        extensions: The extensions of the protocol that it has asked for, of `txgearman.wire.options`.
    """

    __slots__ = ("client_id", "exceptions", "extensions")

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server, number)
        self.client_id = NO_CLIENT_ID
        self.exceptions = server.settings.exceptions
        self.extensions: frozenset[bytes] = frozenset()

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
        pending = self._own_replies().reserve()
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
            "{connection} (client id {client_id}) closed: a job that it ran was cancelled by force",
            connection=self.described,
            client_id=quoted(self.client_id),
        )
        # The transport tells of the end in the reactor's next turn, so the broker is not called back here.
        self.drop()
