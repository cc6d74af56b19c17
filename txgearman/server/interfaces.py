"""What the parts of the server see of each other, so that none imports the part that uses it.

A connection has a `Server`, which the factory is. The commands, the guard and the admin lines have a `Peer`,
which the connection is. For the type checker alone: but for `Held` and `Reloaded` nothing here is ever
instantiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime, ITransport

if TYPE_CHECKING:
    from txgearman.access.actor import Actor
    from txgearman.access.policy import AccessPolicy, Rights
    from txgearman.broker.broker import Broker
    from txgearman.broker.entities import Client, Worker
    from txgearman.broker.inspection import Inspection
    from txgearman.errors import ProtocolError
    from txgearman.net.keepalive import Keepalive
    from txgearman.server.admission import Admission
    from txgearman.server.budgets.unfinished import Unfinished
    from txgearman.server.budgets.unsent import SendBudget
    from txgearman.server.config.options import Settings
    from txgearman.server.config.process_options import Level
    from txgearman.server.extensions.result_waits import ResultWaits
    from txgearman.server.monitoring.activity import Activity
    from txgearman.server.monitoring.traffic import Traffic
    from txgearman.server.persistence.writer import StoreWriter
    from txgearman.server.schedules.scheduling import Scheduling

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """What a list is made of and holds to its end, beside what is made of it.

    Args:
        data: The bytes. Where others hold the same object it counts once.
    """

    data: bytes


ListPieces = Iterator[bytes | Deferred[Any] | Held]
"""A list as it is made: its text, piece by piece, and in between what must fire before more is made of it, or
how much is held."""


class ServerTransport(ITransport, IConsumer, IPushProducer):
    """What a connection needs of its transport, for the type checker: every stream transport of
    Twisted is all of this."""

    def abortConnection() -> None:
        """End the connection without sending what waits."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of a reload of the configuration.

    Args:
        changed: The settings that are others now.
        waiting: Those that need a new start.
        error: Why nothing was changed; None where the reload was done.
    """

    changed: list[str]
    waiting: list[str]
    error: str | None = None

    @property
    def summary(self) -> str:
        """What has changed, in words."""
        needs_start = f"; needs a new start: {', '.join(self.waiting)}" if self.waiting else ""
        return f"changed: {', '.join(self.changed) or 'nothing'}{needs_start}"


class ProcessControl(Protocol):
    """What an administrator may do with the process that the server runs in, as signals do."""

    def drain(self) -> None:
        """Take no new job, let those that run end, and end the process."""

    def reload(self) -> Reloaded:
        """Read the configuration again, and obey it.

        Returns:
            What became of that.
        """


class LogThreshold(Protocol):
    """From which level on the log is written.

    Attributes:
        level: What the operator chose.
    """

    @property
    def current(self) -> Level:
        """The level that holds now."""

    level: Level

    def override(self, level: Level | None) -> None:
        """Use another level in place of the configured one.

        Args:
            level: The level; None ends that.
        """

    def toggle_debug(self) -> None:
        """Debugging on, or off again."""


class Flushable(Protocol):
    """What has something to send at the end of a turn.

    Attributes:
        number: The server's number for the connection.
    """

    transport: ServerTransport
    number: int

    def flush(self) -> None:
        """Hand everything that waits to the transport."""


class Server(Protocol):
    """What a connection and its commands need of the server that they belong to."""

    settings: Settings
    broker: Broker
    store_writer: StoreWriter | None
    reactor: IReactorTime
    clock: Callable[[], float]
    traffic: Traffic
    admission: Admission
    web_admission: Admission
    budget: SendBudget
    unfinished: Unfinished
    results: ResultWaits
    keepalive: Keepalive
    activity: Activity
    connections: dict[int, Peer]
    """The live connections by number."""

    @property
    def access(self) -> AccessPolicy | None:
        """The access policy; None where everybody may do everything."""

    @property
    def inspection(self) -> Inspection:
        """What can be read of the broker."""

    @property
    def scheduling(self) -> Scheduling:
        """The schedules."""

    @property
    def threshold(self) -> LogThreshold | None:
        """From which level on the log is written; None where that is not up to this server."""

    @property
    def process(self) -> ProcessControl | None:
        """The process that the server runs in; None where that is another program's."""

    @property
    def flush_is_due(self) -> bool:
        """Whether anything will be flushed at the end of this turn."""

    def flush_soon(self, connection: Flushable) -> None:
        """Flush a connection at the end of this turn of the reactor.

        Args:
            connection: The connection, once a turn.
        """

    def fanned_out(self, reporter: Peer, size: int) -> None:
        """A report was told several times. Where that makes much in one turn, its worker has to give way.

        Args:
            reporter: The worker's connection.
            size: Bytes of all packets that the report became.
        """

    def shut_down(self, graceful: bool) -> None:
        """End the server.

        Args:
            graceful: Whether the running jobs are to be finished first.
        """

    def connected(self, connection: Peer) -> None:
        """A connection is there.

        Args:
            connection: The connection, which counts from now on.
        """

    def spoke(self, connection: Peer) -> None:
        """The first packet or admin command of a connection has come.

        Args:
            connection: The connection. It is not ended any more to make room for another.
        """

    def disconnected(self, connection: Peer) -> None:
        """A connection is gone.

        Args:
            connection: The connection, which counts no more.
        """

    def note_handshake_timeout(self, connection: Peer) -> None:
        """A connection is dropped because its TLS handshake took too long.

        Args:
            connection: The connection, for the log and the counts.
        """


class Peer(Flushable, Protocol):
    """One connection, as the server and the commands see it.

    Attributes:
        client: What the broker knows of it as a client.
        worker: What the broker knows of it as a worker.
        client_id: What the peer calls itself.
        exceptions: Whether it wants WORK_EXCEPTION and not WORK_FAIL.
        extensions: The extensions of the protocol that it has asked for, of `txgearman.wire.options`.
        known_rights: Its `rights`; None as long as nobody has asked for these.
        assigns_stored_job: Set ahead of each packet that gives a job from the store to the worker.
    """

    broker: Broker
    client: Client
    worker: Worker
    client_id: bytes
    label: bytes
    exceptions: bool
    extensions: frozenset[bytes]
    known_rights: Rights | None
    assigns_stored_job: bool

    @property
    def server(self) -> Server:
        """The server that the connection belongs to."""

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""

    @property
    def described(self) -> str:
        """Who this is, for the log."""

    @property
    def actor(self) -> Actor:
        """Who this is, for what it changes."""

    @property
    def age(self) -> float:
        """Seconds since the connection was made."""

    @property
    def is_local(self) -> bool:
        """Whether the peer is certainly on this machine."""

    @property
    def access(self) -> AccessPolicy | None:
        """The access policy; None where everybody may do everything."""

    @property
    def rights(self) -> Rights:
        """What the peer may do by the access policy."""

    def note_denied(self, what: str) -> None:
        """Log what the peer was denied, the first time.

        Args:
            what: What it wanted to do, such as "use the admin command 'shutdown'".
        """

    def access_changed(self) -> None:
        """There is another access policy."""

    def note_unfinished(self, size: int) -> None:
        """Count the bytes that have come of an unfinished packet.

        Args:
            size: How many there are now; 0 when the packet is whole.
        """

    def log_protocol_error(self, error: ProtocolError) -> None:
        """Log what the peer did wrong, the first time.

        Args:
            error: What the peer is told, or would be.
        """

    def give_way(self) -> None:
        """Handle nothing more of this peer in this turn of the reactor."""

    def send(self, data: bytes) -> None:
        """Send bytes at the end of this turn of the reactor.

        Args:
            data: Whole packets or lines.
        """

    def send_packet(self, number: int, *fields: bytes) -> None:
        """Send a response packet.

        Args:
            number: The packet's type.
            *fields: Its fields. No field but the last may hold a NUL.
        """

    def send_error(self, code: bytes, text: str) -> None:
        """Send an ERROR packet.

        Args:
            code: Its code, such as ``QUEUE_ERROR``.
            text: Its text for people.
        """

    def send_list(self, pieces: ListPieces) -> None:
        """Send a list piece by piece, as the peer takes it, while others are served.

        Args:
            pieces: The list. It must not mind what happens to the server between two pieces.
        """

    def reply_later(
        self,
        ask: Callable[[Callable[[T], None]], None],
        reply: Callable[[T], bytes],
        alone: bool = False,
    ) -> None:
        """Send a reply whose answer is not known yet, and nothing else until then.

        Args:
            ask: Is called with the function that takes the answer.
            reply: Makes the bytes of the reply from the answer. Not called once the connection is gone.
            alone: Whether no more requests are handled until the reply is sent. For replies that may have any
                size: else a read full of small requests fills memory.
        """

    def set_client_id(self, client_id: bytes) -> None:
        """Take the name that the peer calls itself by.

        Args:
            client_id: The name.
        """

    def close(self) -> None:
        """Hear nothing more, and end the connection once everything was sent."""

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
