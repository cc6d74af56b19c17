"""The client as its users see it: which connection a request takes, and time limits.

What is said on a connection is in `protocol`, how a connection comes about in `link`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.job import Job
from txgearman.client.link import Link
from txgearman.client.protocol import ClientProtocol
from txgearman.client.status import JobStatus
from txgearman.client.submission import Priority, submission
from txgearman.connection.arguments import body_of, check_timeout, data_bytes, name_bytes
from txgearman.connection.endpoint import endpoint_from
from txgearman.errors import TimedOut
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET, MAX_UNIQUE

_T = TypeVar("_T")


class Client:
    """Submits jobs to one server.

    It connects when it is first needed, and at the next call after the connection was lost. Use it
    with ``async with``, or call `close` at the end. Every Deferred it returns fires exactly once; it
    fails with one of the errors below `txgearman.errors.ClientError`, or with Twisted's
    `CancelledError` when it is cancelled. Wrong arguments raise `TypeError` or `ValueError` at the call.

    `reactor` is the reactor, or in tests a clock. `endpoint` is the server's address, as the string of a
    Twisted client endpoint such as ``tcp:127.0.0.1:4730`` or as an `IStreamClientEndpoint`.
    `max_packet` is the largest body of a packet in bytes that is sent or accepted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str | IStreamClientEndpoint,
        *,
        max_packet: int = MAX_PACKET,
    ) -> None:
        self._clock = reactor
        self._max_packet = max_packet
        self._link = Link(reactor, endpoint_from(reactor, endpoint), max_packet)

    def connect(self, timeout: float | None = None) -> Deferred[None]:
        """Connect now if there is no connection; only needed to learn early whether it works.

        `timeout` is in seconds. Fails with `NotConnected` or `TimedOut`.
        """
        check_timeout(timeout)
        return self._limited(self._link.connect().addCallback(lambda _: None), timeout)

    def close(self) -> Deferred[None]:
        """Close the connection, for good: later calls fail with `NotConnected`.

        Everything that still waits fails with `ConnectionLost`. Fires when the connection is gone.
        """
        return self._link.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def submit(
        self,
        function: str | bytes,
        data: bytes,
        *,
        unique: str | bytes | None = None,
        priority: Priority = Priority.NORMAL,
        background: bool = False,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Deferred[Job]:
        """Submit a job. Returns a Deferred of a `Job` that fires once the server has accepted it.

        `function` is the name of what shall be run, `data` its input. Names are str, encoded as UTF-8,
        or bytes.

        `unique` is a key of at most 64 bytes: while the server has a job of this function with this
        key, a submission with the same key joins that job instead of making another. The key ``-``
        stands for the data itself. Without a key each submission is a job of its own.

        An offline job, `background`, has no result and survives its submitter. With `run_at`, an aware
        datetime or seconds since 1970, it is an offline job that does not run before that time;
        fractions are rounded up to whole seconds. `reducer` is the name of a function that the worker
        is told of. The protocol has only normal `priority` for these last two.

        `timeout` limits in seconds how long the server may take to accept the job, including a
        connection that has to be made; to wait for the result is limited by `Job.result`.

        Fails with `NotConnected`, `ConnectionLost`, `TimedOut`, or `ServerError` if the server refuses.
        After a time-out, and after the Deferred was cancelled, the server may still run the job, as the
        protocol has no way to take it back; its news are ignored here.
        """
        new = submission(function, data, unique, priority, background, run_at, reducer, self._max_packet)
        return self._request(lambda protocol: protocol.submit(new), timeout)

    def status(self, job: Job | bytes | str, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask the server for the state of a job, given as the `Job` or its handle.

        A job that has ended is not known any more. Fails as `submit` does.
        """
        handle = name_bytes(job.handle if isinstance(job, Job) else job, "the handle", MAX_HANDLE)
        return self._request(lambda protocol: protocol.status(handle), timeout)

    def status_by_unique(self, unique: str | bytes, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask the server for the state of the job with this unique, and how many clients wait for it.

        Fails as `submit` does. Give gearmand no more than 63 bytes, it does not answer to 64.
        """
        key = name_bytes(unique, "the unique", MAX_UNIQUE)
        return self._request(lambda protocol: protocol.status_by_unique(key), timeout)

    def echo(self, data: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Let the server send `data` back, which shows that it is there. Fails as `submit` does."""
        body = body_of((data_bytes(data, "the data"),), self._max_packet)
        return self._request(lambda protocol: protocol.echo(body), timeout)

    def _request(self, ask: Callable[[ClientProtocol], Deferred[_T]], timeout: float | None) -> Deferred[_T]:
        """What `ask` returns for the connection, which is made if there is none."""
        check_timeout(timeout)
        protocol = self._link.protocol
        if protocol is not None:
            return self._limited(ask(protocol), timeout)
        return self._limited(self._link.connect().addCallback(ask), timeout)

    def _limited(self, request: Deferred[_T], timeout: float | None) -> Deferred[_T]:
        if timeout is not None:
            request.addTimeout(timeout, self._clock, _timed_out)
        return request


def _timed_out(_result: object, seconds: float) -> NoReturn:
    raise TimedOut(f"no answer from the server within {seconds} seconds")
