"""A Twisted worker in the background thread, that hands its jobs to another thread.

Everything here but attributes of `Run` is used in the background thread alone. What a job does is decided
elsewhere.
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
from txgearman.errors import FailJob, NotConnected
from txgearman.worker import Job, Worker


class Run:
    """A job that was given to this process.

    `job` is the Twisted worker's, `duty` whose it is, `connection` where it came from. `lost` says that its
    connection was lost, `reported` that its end was said, `told_late` that something was said behind that.
    """

    def __init__(self, duty: Duty, job: Job) -> None:
        self.duty = duty
        self.job = job
        self.connection = duty.connection_of(job)
        self.reported = False
        self.told_late = False
        self.lost = False
        self.outcome: Deferred[bytes] = Deferred(self._lose)
        self._next: Deferred[None] | None = None

    def hold(self) -> None:
        """Let no further job be asked for when this one has ended, before `go_on`."""
        if self._next is None:
            self._next = self.job._slot_held_until = Deferred()

    def go_on(self) -> None:
        """Let the next job be asked for."""
        if self._next is not None and not self._next.called:
            self._next.callback(None)

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
        """The job has failed; `exception` is what the submitter is told of an exception."""
        if not self.outcome.called:
            self.outcome.errback(Failure(FailJob("the job failed", data=exception)))

    def _lose(self, _outcome: Deferred[bytes]) -> None:
        self.lost = True


class Duty:
    """One Twisted worker for `connections`, offering the functions `names`; jobs go to `arrived`.

    `thread` is the background thread.

    While `hold` is true it asks for no job before it is told to go on behind the last.
    """

    def __init__(
        self,
        thread: BackgroundThread,
        connections: Sequence[GearmanConnection],
        names: Sequence[bytes],
        client_id: bytes | None,
        arrived: Callable[[Run], object],
    ) -> None:
        self.hold = True
        self.thread = thread
        self.connections = list(connections)
        self.forgotten: weakref.finalize[Any, Any]
        """What stops this when its owner is forgotten."""
        self._reactor = thread.reactor
        self._names = list(names)
        self._client_id = client_id
        self._arrived = arrived
        self._origins: weakref.WeakKeyDictionary[Any, GearmanConnection] = weakref.WeakKeyDictionary()
        self._worker: Worker | None = None
        self._untried = len(self.connections)
        self._reached: Deferred[None] | None = None

    @property
    def start_limit(self) -> float:
        """Seconds `start` may take."""
        return CONNECT_TIMEOUT

    def begin(self) -> None:
        """Connect, and stay connected."""
        endpoints = [_Watched(one.endpoint(self._reactor), self, one) for one in self.connections]
        self._worker = Worker(self._reactor, endpoints, client_id=self._client_id)
        for name in self._names:
            self._worker.register(name, self._run)
        self._worker.startService()

    def start(self) -> Deferred[None]:
        """Connect; fires when one server is reached, and fails with `NotConnected` when none is."""
        reached = self._reached = Deferred[None]()
        self.begin()
        return reached.addTimeout(self.start_limit, self._reactor, _no_server)

    def stop(self) -> Deferred[None]:
        """Disconnect, for good; what runs is left to the servers."""
        return succeed(None) if self._worker is None else self._worker.stop(0)

    def offer(self, name: bytes) -> None:
        """Offer a function more."""
        assert self._worker is not None
        self._worker.register(name, self._run)

    def withdraw(self, name: bytes) -> None:
        """Offer a function no more."""
        assert self._worker is not None
        self._worker.unregister(name)

    def connection_of(self, job: Job) -> GearmanConnection | None:
        """The server that a job came from, as the program knows it."""
        writer: Any = job._writer
        return self._origins.get(writer.transport)

    def connected(self, connection: GearmanConnection, protocol: Protocol) -> None:
        """There is a connection to one of the servers."""
        self._origins[protocol.transport] = connection
        self.tried(None)

    def tried(self, error: Failure | None) -> None:
        """An attempt to connect to one of the servers went well, or failed with `error`."""
        reached = self._reached
        if reached is None:
            return
        if error is None:
            self._reached = None
            reached.callback(None)
            return
        self._untried -= 1
        if not self._untried:
            self._reached = None
            reached.errback(NotConnected(error.getErrorMessage()))

    def _run(self, job: Job) -> Deferred[bytes]:
        run = Run(self, job)
        if self.hold:
            run.hold()
        self._arrived(run)
        return run.outcome


def _no_server(_result: object, seconds: float) -> Any:
    raise NotConnected(f"no server was reached within {seconds} seconds")


@implementer(IStreamClientEndpoint)
class _Watched:
    """The endpoint of a server, which tells a duty, and the server's connection, how attempts go."""

    def __init__(self, endpoint: Any, duty: Duty, connection: GearmanConnection) -> None:
        self._endpoint = endpoint
        self._duty = duty
        self._connection = connection

    def __repr__(self) -> str:
        return repr(self._connection)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        attempt: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Protocol) -> Protocol:
        self._connection.connected = True
        self._duty.connected(self._connection, protocol)
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        self._connection.connected = False
        self._duty.tried(failure)
        return failure
