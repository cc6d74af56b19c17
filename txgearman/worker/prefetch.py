"""Which connection of a worker grabs the next job, how many it grabs ahead, and when all sleep. No I/O.

A worker has one `Prefetcher` for all its connections. They grab in turn, and only while a slot for a job is
free. A connection begins with one grab at a time. It prefetches more while its server has jobs for it, as a
grab that waits for the answer to the one before costs a round trip.

A connection whose server has no job is passed over for `REGRAB_SECONDS`. When none is left that may have
jobs, all that have none are put to sleep until their servers wake them. A sleeping connection promises to
come at once, so a worker that other servers keep busy does not sleep.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

REGRAB_SECONDS: Final = 0.05
"""Seconds until a server that had no job is asked again while others have some. A grab costs a round trip, so
it does not precede every job. A job waits at most this long, and for its turn behind those that run."""

MAX_PREFETCH: Final = 16
"""Grabs that a connection may have without an answer. Four times as many small jobs get done with 16 as with
one. More than that bring little, and leave less to other workers."""


class ConcurrencyLimit:
    """How many jobs may run at once; `free_slots` is how many more."""

    __slots__ = ("free_slots",)

    def __init__(self, slots: int) -> None:
        self.free_slots = slots


class State(Enum):
    """What a connection is doing, apart from the jobs that run."""

    READY = auto()
    """Its server may have jobs, and it may grab one more."""
    GRABBING = auto()
    """It has as many grabs without an answer as it may have; each holds a slot."""
    EMPTY = auto()
    """Its server had no job, and was not told that the connection sleeps."""
    ASLEEP = auto()
    """Its server will wake it."""
    BACKING_OFF = auto()
    """Too many wakeups were spurious; it will be ready after a backoff. Also a connection that left."""


READY: Final = State.READY
"""Looking up a member of an enumeration takes long in Python 3.11, and each job needs several."""

GRABBING: Final = State.GRABBING
"""As `READY`."""


class GrabbingConnection(Protocol):
    """A connection that grabs jobs.

    Attributes:
        state: What it is doing.
        limits: All limits that its jobs count for.
        emptied_at: When its server last had no job, in seconds of the worker's clock.
        pending_grabs: Grabs without an answer yet.
        prefetch: Jobs that it was given in a row, up to `MAX_PREFETCH`. It may have as many grabs pending,
        and
            always one.
    """

    state: State
    limits: tuple[ConcurrencyLimit, ...]
    emptied_at: float
    pending_grabs: int
    prefetch: int

    def grab(self) -> None:
        """Ask the server for a job. The attributes above count the grab already."""
        ...

    def sleep(self) -> None:
        """Tell the server to wake this connection."""
        ...


class Prefetcher:
    """The connections of a worker, and whose turn it is to grab. While it is `closed` nobody grabs."""

    def __init__(self, clock: IReactorTime) -> None:
        self.closed = False
        self._clock = clock
        # The connection that grabbed last is the last.
        self._connections: list[GrabbingConnection] = []

    def join(self, connection: GrabbingConnection) -> None:
        """Add a new connection, which is ready. The caller gives it its first turn."""
        self._connections.append(connection)

    def leave(self, connection: GrabbingConnection) -> None:
        """Remove a connection that has ended. Its pending grabs give back their slots."""
        self._connections.remove(connection)
        for _ in range(connection.pending_grabs):
            release_slot(connection)
        connection.pending_grabs = 0
        connection.state = State.BACKING_OFF

    def grab(self, writer: GrabbingConnection | None = None) -> int:
        """Let connections grab jobs in turn, as many as there are free slots.

        Args:
            writer: A connection that is about to write anyway, and sends its grabs in the same write.

        Returns:
            How many grabs `writer` has to send.
        """
        if self.closed:
            return 0
        connections = self._connections
        # Nearly all workers have one connection, and this is called for each of their jobs.
        if len(connections) == 1 and connections[0] is writer:
            grabs = 0
            while writer.state is READY and has_free_slot(writer):
                count_grab(writer)
                grabs += 1
            if writer.state is State.EMPTY:
                writer.sleep()
            return grabs
        return self._grab_round_robin(writer)

    def job_ended(self, connection: GrabbingConnection) -> int:
        """A job of `connection` has ended, and it is about to write; see `grab`."""
        release_slot(connection)
        return self.grab(connection)

    def _grab_round_robin(self, writer: GrabbingConnection | None) -> int:
        connections = self._connections
        grabs = 0
        # An empty server is asked again only beside a ready one. Otherwise two empty servers that answer more
        # slowly than `REGRAB_SECONDS` would be asked for ever.
        regrab = any(one.state is READY and has_free_slot(one) for one in connections)
        while candidates := [
            one for one in connections if self._may_have_jobs(one, regrab) and has_free_slot(one)
        ]:
            for connection in candidates:
                if not has_free_slot(connection):
                    continue
                count_grab(connection)
                connections.remove(connection)
                connections.append(connection)
                if connection is writer:
                    grabs += 1
                else:
                    connection.grab()
        if not any(one.pending_grabs for one in connections):
            self._sleep()
        return grabs

    def _may_have_jobs(self, connection: GrabbingConnection, regrab: bool) -> bool:
        """Whether to grab; an empty server is asked again only with `regrab`, and after a while."""
        if connection.state is State.EMPTY:
            return regrab and self._clock.seconds() - connection.emptied_at >= REGRAB_SECONDS
        return connection.state is READY

    def _sleep(self) -> None:
        """No server has a job that could run. A connection without a free slot is busy and does not sleep."""
        for connection in self._connections:
            if connection.state is State.EMPTY and has_free_slot(connection):
                connection.sleep()


def has_free_slot(connection: GrabbingConnection) -> bool:
    """Whether one more job of this connection may run."""
    for limit in connection.limits:  # noqa: SIM110 (this is called for each job, and all() is slower)
        if limit.free_slots <= 0:
            return False
    return True


def count_grab(connection: GrabbingConnection) -> None:
    """The connection grabs: hold a slot for the job."""
    connection.pending_grabs += 1
    connection.state = GRABBING if connection.pending_grabs >= connection.prefetch else READY
    hold_slot(connection)


def assigned(connection: GrabbingConnection) -> None:
    """The connection was given a job. Its grab holds a slot already, if there was a grab."""
    if not connection.pending_grabs:
        hold_slot(connection)
        return
    connection.pending_grabs -= 1
    connection.state = READY
    if connection.prefetch < MAX_PREFETCH:
        connection.prefetch += 1


def found_empty(connection: GrabbingConnection, now: float) -> None:
    """A grab of the connection was answered at `now`: its server has no job."""
    connection.pending_grabs -= 1
    connection.prefetch = 0
    # A later grab may still be answered with a job.
    connection.state = GRABBING if connection.pending_grabs else State.EMPTY
    connection.emptied_at = now
    release_slot(connection)


def hold_slot(connection: GrabbingConnection) -> None:
    """One more job of the connection runs, or is grabbed."""
    for limit in connection.limits:
        limit.free_slots -= 1


def release_slot(connection: GrabbingConnection) -> None:
    """A job of the connection has ended, or did not come."""
    for limit in connection.limits:
        limit.free_slots += 1
