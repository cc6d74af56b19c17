"""What the web side needs of the server, as small interfaces. The server's factory is all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from txgearman.access import AccessPolicy
from txgearman.broker.broker import Broker
from txgearman.broker.peers import Client, Worker


class Connection(Protocol):
    """A live connection: `number` tells it from others, `host` is its address (``unix`` for a UNIX
    socket), `client_id` what the peer calls itself. `client` and `worker` are its two faces in the
    broker."""

    number: int
    client_id: bytes
    client: Client
    worker: Worker

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""


class Gearman(Protocol):
    """A job server: `broker` has its jobs and may be replaced by an empty one, `connections` are those
    that live, by number."""

    @property
    def broker(self) -> Broker:
        """The jobs."""

    @property
    def access(self) -> AccessPolicy | None:
        """Who may do what, if the operator has said so."""

    @property
    def connections(self) -> Mapping[int, Connection]:
        """The live connections by number."""


def connection_of(worker: Worker) -> Connection:
    """The connection that a worker is a face of: what a server gives the broker as its end."""
    return cast(Connection, worker.end)
