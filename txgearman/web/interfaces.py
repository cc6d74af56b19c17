"""What the web side needs of the server: the factory provides `Gearman`, the service `ServerHealth`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from txgearman.access.actor import Actor
from txgearman.access.policy import AccessPolicy
from txgearman.broker.administration import Administration
from txgearman.broker.dead_job_administration import DeadJobAdministration
from txgearman.broker.entities import Client, Worker
from txgearman.broker.histograms import Durations
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.job_options import JobOptions
from txgearman.broker.kept_result import ResultCounts
from txgearman.broker.result_lookup import FoundResult
from txgearman.broker.schedule import Schedule
from txgearman.broker.schedules import Schedules
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.errors import Refused


class Connection(Protocol):
    """A live connection.

    Attributes:
        number: Tells it from others.
        client_id: What the peer calls itself.
        client: The client that it is in the broker.
        worker: The worker that it is in the broker.
    """

    number: int
    client_id: bytes
    client: Client
    worker: Worker

    @property
    def host(self) -> str:
        """The peer's address, ``unix`` for a UNIX socket."""


class Traffic(Protocol):
    """What connections carried since the server's start.

    Attributes:
        received: Bytes.
        sent: Bytes.
        connections: How many were made.
        refused: ERROR packets, by their code.
        dropped: Connections that the server ended by itself, by the reason.
    """

    received: int
    sent: int
    connections: int
    refused: Counter[bytes]
    dropped: Counter[str]


class Admission(Protocol):
    """Who may connect.

    Attributes:
        limit: How many connections there may be.
        count: How many there are.
        refused: How many found no room.
        refused_per_address: How many came from an address that had too many.
    """

    limit: int
    count: int
    refused: int
    refused_per_address: int

    def refuse(self, address: IAddress | None) -> str:
        """Ask whether an address may have one more connection.

        Args:
            address: The peer's address.

        Returns:
            Why not, as a sentence without its full stop; empty if it may.
        """

    def refuse_for_all(self, address: IAddress | None) -> str:
        """Count and log a connection for which there is no room.

        Args:
            address: The peer's address.

        Returns:
            What to tell the peer, as a sentence without its full stop.
        """

    def entered(self, address: IAddress | None) -> None:
        """Count a new connection.

        Args:
            address: The peer's address.
        """

    def left(self, address: IAddress | None) -> None:
        """Count a connection that has ended.

        Args:
            address: The peer's address.
        """

    def note_late(self, address: IAddress | None) -> None:
        """Count a connection that was ended because its request did not arrive in time.

        Args:
            address: The peer's address.
        """


class Unfinished(Protocol):
    """Counts the bytes of partial reads. Over its limit, the oldest partial read is dropped."""

    def note(self, holder: Any, size: int) -> None:
        """Set how much of a partial read has come.

        Args:
            holder: Whose read it is. Its `give_up_unfinished` is called with the reason if it is dropped.
            size: How many bytes have come; 0 when the read is complete, or its connection has gone.
        """


class SendQueue(Protocol):
    """The bytes that wait for one peer, in order. It is true while there are any.

    Attributes:
        size: How many bytes wait.
    """

    size: int

    def __bool__(self) -> bool: ...

    def append(self, piece: bytes) -> None:
        """Add bytes at the end.

        Args:
            piece: The bytes.
        """

    def skip(self, count: int) -> None:
        """Remove the first bytes.

        Args:
            count: How many.
        """

    def take(self, most: int) -> bytes:
        """Remove the first bytes to send them.

        Args:
            most: How many at most.

        Returns:
            The bytes.
        """

    def clear(self) -> None:
        """Remove all bytes."""


class SendBudget(Protocol):
    """Counts the bytes that are held for peers which do not read."""

    def queue(self, holder: Any) -> SendQueue:
        """Make an empty queue for a peer.

        Args:
            holder: Whose peer it is. Its `described` names the peer in the log, its `drop` ends the
                connection.

        Returns:
            The queue, whose bytes count.
        """

    def enforce(self) -> None:
        """Over the limit, drop the peers for whom most bytes wait."""


class Limit(Protocol):
    """A limit of the server."""

    @property
    def name(self) -> str:
        """The name of its option."""

    @property
    def limit(self) -> float:
        """Its value, 0 for no limit."""

    @property
    def used(self) -> int:
        """How much of it is used."""

    @property
    def refused(self) -> int:
        """How often something was refused for it."""


class HTTPLimits(Protocol):
    """What limits the connections and requests of the web side."""

    @property
    def web_admission(self) -> Admission:
        """Who may connect over HTTP."""

    @property
    def unfinished(self) -> Unfinished:
        """Counts the bytes of requests that have not come whole, with what the Gearman port counts."""

    @property
    def budget(self) -> SendBudget:
        """Counts the bytes that are held for peers, those over HTTP included."""


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
        options: JobOptions | None = ...,
    ) -> None:
        """Accept a job, or let `client` wait for the one that it is a duplicate of.

        `txgearman.broker.broker.Broker.submit` is the verb behind it, and says more.

        Args:
            client: Who submits. It waits for the job unless that is `background`.
            function_name: The function that is to run.
            unique: The key that makes two jobs of a function the same one; empty for none.
            data: The payload.
            priority: One of the broker's `Priority`, as a plain int.
            background: Whether the job goes on without a client.
            reducer: The name of the reducing function.
            run_at: Seconds since the epoch before which no worker gets the job; None for at once.
            options: What is said of this job alone; None for nothing.

        Raises:
            Refused: The job is not accepted.
        """

    def watch(self, client: Client, handle: bytes) -> None:
        """Let `client` wait for a job that it did not submit.

        Args:
            client: Who waits.
            handle: The job.

        Raises:
            JobNotFound: There is no such job in memory.
        """

    def leave_client(self, client: Client) -> None:
        """The client waits no more.

        Args:
            client: Who leaves. Waiting jobs that nobody else wants go with it.
        """

    def cancel(self, handle: bytes, force: bool = False) -> None:
        """End a job.

        Args:
            handle: The job.
            force: Whether the connection of a worker is ended that cannot be told to stop.

        Raises:
            JobNotFound: There is no such job in memory.
        """


class ResultWait(Protocol):
    """A wait for a result."""

    def cancel(self) -> None:
        """Wait no more. Nothing happens if the wait has ended."""


class Results(Protocol):
    """The results of background jobs."""

    def find(self, handle: bytes, tell: Callable[[FoundResult | Refused], None]) -> None:
        """Find the result of a job, as it is now.

        Args:
            handle: The job's handle.
            tell: Called with what is known of it, or with what prevents the look-up.
        """

    def wait(self, handle: bytes, tell: Callable[[FoundResult], None]) -> ResultWait:
        """Wait for the result of a job that is pending.

        Args:
            handle: The job's handle.
            tell: Called when it is not pending any more, never from inside this call.

        Returns:
            The wait.

        Raises:
            TooManyWaits: There are as many waits as there may be.
        """

    def counts(self) -> ResultCounts:
        """Count the results that are kept. With several servers on a database this may be a minute old.

        Returns:
            How many there are, and how many bytes they count for.
        """

    @property
    def expired(self) -> int:
        """How many were forgotten as their time was over."""

    @property
    def evicted(self) -> int:
        """How many were forgotten before that, as all together were too large."""

    @property
    def too_large(self) -> int:
        """How many could not be kept as a whole."""


class Scheduling(Protocol):
    """The schedules, and what administrators do with them.

    A Deferred of these fires when what it stands for is durable, and fails with `Refused`.

    Attributes:
        schedules: The schedules.
    """

    schedules: Schedules

    def is_of_file(self, name: bytes) -> bool:
        """Whether the configuration file says what a schedule is.

        Args:
            name: The schedule.

        Returns:
            Whether it cannot be changed or removed therefore.
        """

    def read(self, name: bytes, members: Mapping[str, Any]) -> Schedule:
        """Make a schedule of what somebody wrote.

        Args:
            name: What it is called.
            members: Its definition and data, as values of JSON.

        Returns:
            The schedule, which is not added.

        Raises:
            ValueError: It cannot be one.
        """

    def put(self, schedule: Schedule) -> Deferred[None]:
        """Add a schedule, in place of one of its name.

        Args:
            schedule: The schedule.

        Returns:
            Fires when it is durable.
        """

    def change(self, name: bytes, changed: Callable[[Schedule], Schedule]) -> Deferred[None]:
        """Change a schedule. Nothing that others change of it at the same time is lost.

        Args:
            name: The schedule.
            changed: Makes the new one of the one that there is. It may be called several times, and raise.

        Returns:
            Fires when it is durable. Fails with what `changed` raises, too.
        """

    def remove(self, name: bytes) -> Deferred[None]:
        """Remove a schedule.

        Args:
            name: The schedule.

        Returns:
            Fires when that is durable.
        """

    def pause(self, name: bytes, paused: bool = True) -> Deferred[None]:
        """Let a schedule rest, or go on.

        Args:
            name: The schedule.
            paused: Whether it is to rest.

        Returns:
            Fires when that is durable.
        """

    def run(self, name: bytes) -> Deferred[bytes]:
        """Submit a job of a schedule now.

        Args:
            name: The schedule.

        Returns:
            Fires with the job's handle.
        """


PlotPiece = tuple[str, float, bytes]
"""A piece of a plot that is kept: the plot's name, when it begins in seconds since the epoch, its points."""


class Plots(Protocol):
    """Where plots outlive the server."""

    def load(self, since: float, tell: Callable[[list[PlotPiece]], None]) -> None:
        """Read what is kept.

        Args:
            since: Pieces that begin earlier are left out; seconds since the epoch.
            tell: Called with the pieces, in the order of time. Not called where they cannot be read, or are
                being read for another call.
        """

    def save(self, pieces: Sequence[PlotPiece], before: float) -> None:
        """Keep pieces.

        Args:
            pieces: The pieces. Those of the same name and beginning are replaced.
            before: Pieces that begin earlier are deleted; seconds since the epoch.
        """


class Event(Protocol):
    """Something that was done with the server, or by it."""

    @property
    def number(self) -> int:
        """Counts the events since the server's start, from 1."""

    @property
    def time(self) -> float:
        """When it was, in seconds since the epoch."""

    @property
    def actor(self) -> Actor | None:
        """Who did it; None for the server itself."""

    @property
    def via(self) -> str:
        """Which way it came, such as ``http``; empty for the server itself."""

    @property
    def action(self) -> str:
        """What was done, such as ``cancel job``."""

    @property
    def target(self) -> bytes:
        """What it was done to: a handle, or the name of a function or schedule. May be empty."""

    @property
    def detail(self) -> str:
        """More about it. May be empty."""

    @property
    def jobs(self) -> int | None:
        """How many jobs it changed; None where it was not about jobs."""


class Activity(Protocol):
    """Logs and remembers what was done with the server, and what it did by itself."""

    @property
    def last_number(self) -> int:
        """The number of the newest event, 0 without one."""

    def newest_first(self) -> Iterable[Event]:
        """Walk the events that are remembered.

        Returns:
            The events. Nothing may be added while they are walked.
        """

    def acted(
        self,
        actor: Actor,
        via: str,
        action: str,
        target: bytes = ...,
        detail: str = ...,
        jobs: int | None = ...,
    ) -> None:
        """Somebody has changed something. It is logged and remembered.

        Args:
            actor: Who.
            via: Which way it came.
            action: What was done.
            target: What it was done to.
            detail: More about it.
            jobs: How many jobs it changed; None where it was not about jobs.
        """


class Gearman(HTTPLimits, Protocol):
    """A job server as the web side sees it.

    Its broker is replaced when the server starts or stops. So `broker`, `inspection`, `administration` and
    `search` are not to be kept for longer than a request.
    """

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
    def dead_jobs(self) -> DeadJobAdministration:
        """The verbs of administrators on failed jobs."""

    @property
    def lookup(self) -> JobLookup:
        """Finds a job whatever has become of it."""

    @property
    def results(self) -> Results:
        """The results of background jobs."""

    @property
    def scheduling(self) -> Scheduling:
        """The schedules."""

    @property
    def search(self) -> StoredJobSearch:
        """Look-ups of jobs that only the store knows."""

    @property
    def access(self) -> AccessPolicy | None:
        """Who may do what, None without a policy."""

    @property
    def access_listeners(self) -> list[Callable[[], object]]:
        """What is called when the access policy has changed."""

    @property
    def plots(self) -> Plots | None:
        """Where plots outlive the server; None where nothing does."""

    @property
    def activity(self) -> Activity:
        """What was done with the server, and what it did by itself."""

    @property
    def connections(self) -> Mapping[int, Connection]:
        """The live connections by number, in the order they came."""

    @property
    def admission(self) -> Admission:
        """Who may connect to the Gearman port."""

    def limits(self) -> Iterable[Limit]:
        """Walk the limits of the server.

        Returns:
            Each limit, with how much of it is used.
        """

    @property
    def traffic(self) -> Traffic:
        """What all connections carried."""


@dataclass(frozen=True, slots=True)
class Saved:
    """How the writing of jobs to the store goes.

    Args:
        available: Whether the store can be written to.
        commits: Transactions that were written.
        failures: Transactions that failed.
        saved: Jobs made durable.
        times: How long transactions took.
        lag: Seconds that the oldest job waits that is not durable.
        unsaved: Jobs that wait to be saved.
        unremoved: Jobs that ended and are still stored.
        slots: By function, the slots of limits that several servers share: how many this one has, and how
            many it waits for.
    """

    available: bool
    commits: int
    failures: int
    saved: int
    times: Durations
    lag: float
    unsaved: int
    unremoved: int
    slots: Mapping[bytes, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class WebhookCounts:
    """What became of the dead jobs that a web server is told of, since the server's start.

    Args:
        delivered: Dead jobs that it took.
        failures: Requests that failed.
        dropped: Dead jobs that were not told.
        waiting: Dead jobs that are to be told.
    """

    delivered: int
    failures: int
    dropped: int
    waiting: int


class ServerHealth(Protocol):
    """Whether a server is well, apart from its jobs."""

    def problems(self) -> list[str]:
        """Why the server is not ready to take jobs.

        Returns:
            One sentence for each problem; empty if it is ready.
        """

    def loop_delay(self) -> Durations:
        """How late the event loop made calls that were due, since the start.

        Returns:
            The delays in seconds, counted by size.
        """

    def saved(self) -> Saved | None:
        """How the writing to the store goes.

        Returns:
            Its counts and times; None without a store.
        """

    def webhook(self) -> WebhookCounts | None:
        """How the telling of dead jobs to a web server goes.

        Returns:
            Its counts; None if none is told.
        """


def connection_of(worker: Worker) -> Connection:
    """The connection of a worker.

    The server gives it to the broker as the worker's `WorkerConnection`.

    Args:
        worker: The worker.

    Returns:
        Its connection.
    """
    return cast(Connection, worker.connection)
