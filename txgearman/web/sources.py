"""What the web side needs of the server, as small interfaces. The server's factory is all of `Gearman`;
`Vitals` are of its service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IAddress

from txgearman.access import AccessPolicy
from txgearman.broker.administration import Administration
from txgearman.broker.entities import Client, Worker
from txgearman.broker.histograms import Durations
from txgearman.broker.inspection import Inspection
from txgearman.broker.stored_job_search import StoredJobSearch


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
    """Who may connect: up to `limit` connections, of which there are `count`. How many were `refused` because
    there were too many, and `refused_per_address`."""

    limit: int
    count: int
    refused: int
    refused_per_address: int

    def refuse(self, address: IAddress | None) -> str:
        """Why one of this address must stay outside although there is room; empty if it need not."""

    def refuse_for_all(self, address: IAddress | None) -> str:
        """What to say to one for which there is no room."""

    def entered(self, address: IAddress | None) -> None:
        """There is one more of this address."""

    def left(self, address: IAddress | None) -> None:
        """There is one less."""

    def note_late(self, address: IAddress | None) -> None:
        """One was ended because its request did not arrive in time."""


class Unfinished(Protocol):
    """Counts the bytes of what has not come whole, and says who has to make room."""

    def note(self, holder: Any, size: int) -> None:
        """Of something of `holder` so many bytes have come; 0 when it is whole, or gone."""


class SendQueue(Protocol):
    """The bytes that wait for one peer, in their order; true while there are any. `size` is how many."""

    size: int

    def __bool__(self) -> bool: ...

    def append(self, piece: bytes) -> None:
        """Let `piece` wait behind the rest."""

    def skip(self, count: int) -> None:
        """So many of the first bytes were taken."""

    def take(self, most: int) -> bytes:
        """Take the first bytes out, at most so many."""

    def clear(self) -> None:
        """Nothing waits any more."""


class SendBudget(Protocol):
    """Counts the bytes that are held for peers which do not take them."""

    def queue(self, holder: Any) -> SendQueue:
        """An empty queue for the peer of `holder`, which says by `described` who that is, for the log, and by
        `drop` ends the connection."""

    def enforce(self) -> None:
        """Drop those for whom most waits, if there is too much in all."""


class Limit(Protocol):
    """A limit of the server by the name of its option, 0 for none; how much of it is used, and how often
    something was refused for it."""

    @property
    def name(self) -> str: ...

    @property
    def limit(self) -> float: ...

    @property
    def used(self) -> int: ...

    @property
    def refused(self) -> int: ...


class Jobs(Protocol):
    """What a client does with jobs: the verbs of the broker that requests over HTTP call."""

    def submit(
        self,
        client: Client,
        function_name: bytes,
        unique: bytes,
        data: bytes,
        priority: int = ...,
        background: bool = ...,
        reducer: bytes | None = ...,
        run_at: float | None = ...,
    ) -> None:
        """Accept a job, or let `client` wait for the one that it is a duplicate of."""

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for a job that it did not submit."""

    def leave_client(self, client: Client) -> None:
        """The client waits no more."""

    def cancel(self, handle: bytes) -> None:
        """End a job."""


class Gearman(Protocol):
    """A job server. Its jobs may be replaced by none, so none of the first four is to be kept for longer than
    a request. `connections` are those that live, by number, `traffic` counts what all of them carried."""

    @property
    def broker(self) -> Jobs:
        """The verbs of clients."""

    @property
    def inspection(self) -> Inspection:
        """What can be read of functions and jobs."""

    @property
    def administration(self) -> Administration:
        """The verbs of administrators."""

    @property
    def search(self) -> StoredJobSearch:
        """Look-ups of jobs that only the store knows."""

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
    def web_admission(self) -> Admission:
        """Who may connect over HTTP."""

    @property
    def unfinished(self) -> Unfinished:
        """What has not come whole."""

    @property
    def budget(self) -> SendBudget:
        """What is held for peers, those over HTTP included."""

    def limits(self) -> Iterable[Limit]:
        """How the limits stand."""

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
    return cast(Connection, worker.connection)
