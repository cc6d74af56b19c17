"""What the web side needs of the server, as small interfaces. The server's factory is all of `Gearman`;
`Vitals` are of its service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from txgearman.access import AccessPolicy
from txgearman.broker.broker import Broker
from txgearman.broker.meters import Durations
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


class Traffic(Protocol):
    """What connections carried: bytes `received` and `sent`, how many `connections` were made, the
    ERROR packets `refused` by their code, the connections `dropped` by the reason."""

    received: int
    sent: int
    connections: int
    refused: Counter[bytes]
    dropped: Counter[str]


class Admission(Protocol):
    """How many connections were `refused` because there were too many, and `refused_per_address`."""

    refused: int
    refused_per_address: int


class Gearman(Protocol):
    """A job server: `broker` has its jobs and may be replaced by an empty one, `connections` are those
    that live, by number, `traffic` counts what all of them carried."""

    @property
    def broker(self) -> Broker:
        """The jobs."""

    @property
    def access(self) -> AccessPolicy | None:
        """Who may do what, if the operator has said so."""

    @property
    def connections(self) -> Mapping[int, Connection]:
        """The live connections by number."""

    @property
    def admission(self) -> Admission:
        """Who was not let in."""

    @property
    def traffic(self) -> Traffic:
        """What the connections carried."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What the saving of jobs is like: whether the store is `available`, how many transactions were written
    (`commits`) and failed (`failures`), the jobs `saved`, the `times` of transactions, the `lag` in seconds
    of the oldest job that is not durable, how many are `unsaved`, and how many ended ones `unremoved`."""

    available: bool
    commits: int
    failures: int
    saved: int
    times: Durations
    lag: float
    unsaved: int
    unremoved: int


class Vitals(Protocol):
    """How a server is, apart from its jobs."""

    def problems(self) -> list[str]:
        """Why it is not ready to take jobs; empty if it is."""

    def loop_delay(self) -> Durations:
        """How late the event loop was."""

    def saved(self) -> Saved | None:
        """What the saving of jobs is like; None without a store."""


def connection_of(worker: Worker) -> Connection:
    """The connection that a worker is a face of: what a server gives the broker as its end."""
    return cast(Connection, worker.end)
