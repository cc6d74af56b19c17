"""What the parts of the server see of each other, so that none imports the part that uses it.

A connection has a `Server`, which the factory is. The commands, the guard and the admin lines have a `Peer`,
which the connection is. For the type checker alone: nothing here is ever instantiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime, ITransport

if TYPE_CHECKING:
    from txgearman.access.policy import AccessPolicy, Rights
    from txgearman.broker.broker import Broker
    from txgearman.broker.entities import Client, Worker
    from txgearman.broker.inspection import Inspection
    from txgearman.errors import ProtocolError
    from txgearman.server.admission import Admission
    from txgearman.server.budgets.unfinished import Unfinished
    from txgearman.server.budgets.unsent import SendBudget
    from txgearman.server.config.options import Level, Settings
    from txgearman.server.monitoring.traffic import Traffic
    from txgearman.server.persistence.writer import StoreWriter

T = TypeVar("T")


class ServerTransport(ITransport, IConsumer, IPushProducer):
    """What a connection needs of its transport, for the type checker: every stream transport of
    Twisted is all of this."""

    def abortConnection() -> None:
        """End the connection without sending what waits."""


class LogThreshold(Protocol):
    """From which level on the log is written. `level` is what the operator chose."""

    @property
    def current(self) -> Level:
        """The level that holds now."""

    level: Level

    def override(self, level: Level | None) -> None:
        """Use this level in place of the configured one; None ends that."""

    def toggle_debug(self) -> None:
        """Debugging on, or off again."""


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
    connections: dict[int, Peer]
    """The live connections by number."""

    @property
    def access(self) -> AccessPolicy | None:
        """The access policy; None where everybody may do everything."""

    @property
    def inspection(self) -> Inspection:
        """What can be read of the broker."""

    @property
    def threshold(self) -> LogThreshold | None:
        """From which level on the log is written; None where that is not up to this server."""

    @property
    def flush_is_due(self) -> bool:
        """Whether anything will be flushed at the end of this turn."""

    def flush_soon(self, connection: Peer) -> None:
        """Flush `connection` at the end of this turn of the reactor."""

    def fanned_out(self, reporter: Peer, size: int) -> None:
        """A report was told several times, which made `size` bytes."""

    def shut_down(self, graceful: bool) -> None:
        """End the server, `graceful` when its jobs are done."""

    def connected(self, connection: Peer) -> None:
        """A connection is there."""

    def spoke(self, connection: Peer) -> None:
        """The first packet or admin command of a connection has come."""

    def disconnected(self, connection: Peer) -> None:
        """A connection is gone."""

    def note_handshake_timeout(self, connection: Peer) -> None:
        """A connection is dropped because its TLS handshake took too long."""


class Peer(Protocol):
    """One connection, as the server and the commands see it.

    `client` and `worker` are what the broker knows of it. `client_id` is what the peer calls itself,
    `exceptions` whether it wants WORK_EXCEPTION and not WORK_FAIL. `known_rights` are its `rights`, None as
    long as nobody has asked for these. `assigns_stored_job` is set ahead of each packet that gives a job from
    the store to the worker.
    """

    transport: ServerTransport
    broker: Broker
    client: Client
    worker: Worker
    number: int
    client_id: bytes
    label: bytes
    exceptions: bool
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
        """Log what the peer was denied, the first time."""

    def access_changed(self) -> None:
        """There is another access policy."""

    def note_unfinished(self, size: int) -> None:
        """`size` bytes of an unfinished packet are there, 0 when it is whole."""

    def log_protocol_error(self, error: ProtocolError) -> None:
        """Log what the peer did wrong, the first time."""

    def give_way(self) -> None:
        """Handle nothing more of this peer in this turn of the reactor."""

    def send(self, data: bytes) -> None:
        """Send whole packets or lines, at the end of this turn of the reactor."""

    def send_packet(self, number: int, *fields: bytes) -> None:
        """Send a response packet; no field but the last may hold a NUL."""

    def send_error(self, code: bytes, text: str) -> None:
        """Send an ERROR packet."""

    def send_list(self, pieces: Iterator[bytes]) -> None:
        """Send a list, whose text is `pieces`, as the peer takes it."""

    def reply_later(self, ask: Callable[[Callable[[T], None]], None], reply: Callable[[T], bytes]) -> None:
        """Reply with what `reply` makes of the answer that `ask` gets, and send nothing else until then."""

    def set_client_id(self, client_id: bytes) -> None:
        """Take the name that the peer calls itself by."""

    def flush(self) -> None:
        """Hand everything that waits to the transport."""

    def close(self) -> None:
        """Hear nothing more, and end the connection once everything was sent."""

    def drop(self) -> None:
        """End the connection at once, and send nothing more."""
