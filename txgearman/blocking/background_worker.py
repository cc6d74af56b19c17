"""The Twisted worker of a blocking one. It runs in the background thread and hands its jobs to another.

Only the attributes of `RunningJob` may be used outside the background thread. What a job does is decided in
`worker`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txgearman.blocking.background_thread import BackgroundThread
from txgearman.blocking.connection import CONNECT_TIMEOUT, GearmanConnection
from txgearman.errors import FailJob, NotConnected, Reject, Retry
from txgearman.worker import Job, Worker
from txgearman.worker.functions import ExceptionReport


class RunningJob:
    """A job that a server has assigned to this process.

    Args:
        worker: The background worker that got it.
        job: The job of the Twisted worker.

    Attributes:
        worker: As given.
        job: As given.
        connection: The server that it came from.
        lost: Whether its connection was lost, or the job was cancelled.
        reported: Whether its outcome was reported.
        late_report_logged: Whether a report after its outcome was logged.
        outcome: Fires with its outcome.
    """

    def __init__(self, worker: BackgroundWorker, job: Job) -> None:
        self.worker = worker
        self.job = job
        self.connection = worker.connection_of(job)
        self.reported = False
        self.late_report_logged = False
        self.lost = False
        self.outcome: Deferred[bytes] = Deferred(self._lose)
        self._slot_release: Deferred[None] | None = None

    def hold_slot(self) -> None:
        """Hold the job's slot until `release_slot`: no other job is grabbed in its place before."""
        if self._slot_release is None:
            self._slot_release = self.job._slot_held_until = Deferred()

    def release_slot(self) -> None:
        """Let the next job be grabbed once this one has ended."""
        if self._slot_release is not None and not self._slot_release.called:
            self._slot_release.callback(None)

    def send_data(self, data: bytes) -> Deferred[None]:
        """Send a part of the result. Fires when the connection takes more."""
        self.job.send_data(data)
        return self.job.room()

    def send_warning(self, data: bytes) -> Deferred[None]:
        """Send a warning. Fires when the connection takes more."""
        self.job.send_warning(data)
        return self.job.room()

    def complete(self, result: bytes) -> None:
        """The job has a result."""
        if not self.outcome.called:
            self.outcome.callback(result)

    def fail(self, exception: bytes | None = None) -> None:
        """The job has failed.

        Args:
            exception: What the submitter gets to know of an exception, if anything.
        """
        self.decide(FailJob() if exception is None else ExceptionReport(data=exception))

    def decide(self, decision: FailJob | Retry | Reject) -> None:
        """The task has said what is to become of the job.

        Args:
            decision: What it raised.
        """
        if not self.outcome.called:
            self.outcome.errback(Failure(decision))

    def report_without_next(self, report: Callable[[RunningJob], object]) -> None:
        """Call `report` with this job, to report its outcome, and have no other grabbed."""
        self.hold_slot()
        report(self)

    def _lose(self, _outcome: Deferred[bytes]) -> None:
        self.lost = True


class BackgroundWorker:
    """One Twisted worker.

    Args:
        thread: The background thread.
        connections: The servers.
        names: The functions that it offers first.
        client_id: The name that servers show.
        on_job: Called with each job.
        heartbeat: Whether servers are told of jobs that still run.

    Attributes:
        holds_slots: Whether each job holds its slot until the caller releases it.
        thread: The background thread.
        connections: The servers.
        finalizer: Stops this worker when its owner is garbage.
    """

    def __init__(
        self,
        thread: BackgroundThread,
        connections: Sequence[GearmanConnection],
        names: Sequence[bytes],
        client_id: bytes | None,
        on_job: Callable[[RunningJob], object],
        heartbeat: bool = False,
    ) -> None:
        self.holds_slots = True
        self.thread = thread
        self.connections = list(connections)
        self.finalizer: weakref.finalize[Any, Any]
        self._reactor = thread.reactor
        self._names = list(names)
        self._client_id = client_id
        self._on_job = on_job
        self._heartbeat = heartbeat
        self._origins: weakref.WeakKeyDictionary[Any, GearmanConnection] = weakref.WeakKeyDictionary()
        self._worker: Worker | None = None
        self._untried_servers = len(self.connections)
        self._first_connection: Deferred[None] | None = None

    @property
    def connect_timeout(self) -> float:
        """Seconds that `connect` may take."""
        return CONNECT_TIMEOUT

    def start(self) -> None:
        """Connect, and reconnect whenever a connection is lost. Does not wait for a connection."""
        endpoints = [
            _ObservedEndpoint(connection.endpoint(self._reactor), self, connection)
            for connection in self.connections
        ]
        self._worker = Worker(self._reactor, endpoints, client_id=self._client_id, heartbeat=self._heartbeat)
        for name in self._names:
            self._worker.register(name, self._run)
        self._worker.startService()

    def connect(self) -> Deferred[None]:
        """Start, and wait for a connection.

        Returns:
            A Deferred that fires when the first server is connected. It fails with `NotConnected` when none
            can be reached.
        """
        first_connection = self._first_connection = Deferred[None]()
        self.start()
        return first_connection.addTimeout(self.connect_timeout, self._reactor, _no_server)

    def stop(self) -> Deferred[None]:
        """Disconnect for good. Servers give jobs that still run to other workers."""
        return succeed(None) if self._worker is None else self._worker.stop(0)

    def register(self, name: bytes) -> None:
        """Offer another function."""
        assert self._worker is not None
        self._worker.register(name, self._run)

    def unregister(self, name: bytes) -> None:
        """No longer offer a function."""
        assert self._worker is not None
        self._worker.unregister(name)

    def connection_of(self, job: Job) -> GearmanConnection | None:
        """The server that a job came from, None for an unknown one."""
        writer: Any = job._writer
        return self._origins.get(writer.transport)

    def connected(self, connection: GearmanConnection, protocol: Protocol) -> None:
        """A connection to a server was made."""
        self._origins[protocol.transport] = connection
        self.attempt_ended(None)

    def attempt_ended(self, error: Failure | None) -> None:
        """An attempt to connect to a server has succeeded, or failed with `error`."""
        first_connection = self._first_connection
        if first_connection is None:
            return
        if error is None:
            self._first_connection = None
            first_connection.callback(None)
            return
        self._untried_servers -= 1
        if not self._untried_servers:
            self._first_connection = None
            first_connection.errback(NotConnected(error.getErrorMessage()))

    def _run(self, job: Job) -> Deferred[bytes]:
        running_job = RunningJob(self, job)
        if self.holds_slots:
            running_job.hold_slot()
        self._on_job(running_job)
        return running_job.outcome


def _no_server(_result: object, seconds: float) -> Any:
    raise NotConnected(f"no server was reached within {seconds} seconds")


@implementer(IStreamClientEndpoint)
class _ObservedEndpoint:
    """The endpoint of a server. It reports each attempt to a background worker and a connection."""

    def __init__(self, endpoint: Any, worker: BackgroundWorker, connection: GearmanConnection) -> None:
        self._endpoint = endpoint
        self._background_worker = worker
        self._connection = connection

    def __repr__(self) -> str:
        return repr(self._connection)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        attempt: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Protocol) -> Protocol:
        self._connection.connected = True
        self._background_worker.connected(self._connection, protocol)
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        self._connection.connected = False
        self._background_worker.attempt_ended(failure)
        return failure
