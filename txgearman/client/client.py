"""The client as its users see it: its methods, the checks of their arguments, and time limits.

What is said on a connection is in `protocol`, how a connection comes about in `link`, and which server a
request goes to in `dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.backlog import BACKLOG_BYTES, Backlog
from txgearman.client.batch import Batch
from txgearman.client.dispatch import Ask, Dispatch, Server
from txgearman.client.hashing import key_of
from txgearman.client.job import Job
from txgearman.client.link import Link
from txgearman.client.protocol import ClientProtocol
from txgearman.client.retrying import RETRY_SECONDS, Retrying
from txgearman.client.status import JobStatus, known
from txgearman.client.submission import Pattern, Priority, submission
from txgearman.codecs import BYTES, CodecChoice, codec_from, encoded
from txgearman.connection.arguments import (
    LARGEST_BODY,
    body_of,
    check_count,
    check_timeout,
    data_bytes,
    name_bytes,
)
from txgearman.connection.endpoint import Endpoint, named_endpoints
from txgearman.connection.heartbeat import CHECK_INTERVAL, CHECK_TIMEOUT, check_from
from txgearman.connection.pauses import RetryPolicy, steady
from txgearman.errors import ClientError, TimedOut
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET, MAX_UNIQUE

_T = TypeVar("_T")


class Client:
    """Submits jobs to one server, or to several.

    It connects when it is first used, and keeps a connection to each server from then on: a lost one is
    made again with a growing pause between attempts, and at once when a call needs it. Use the client
    with ``async with``, or call `close` at the end. Every Deferred it returns fires exactly once; it fails
    with one of the errors below `txgearman.errors.ClientError`, or with Twisted's `CancelledError` when it
    is cancelled. Wrong arguments raise `TypeError` or `ValueError` at the call.

    `reactor` is the reactor, or in tests a clock. `endpoints` is the server's address, as the string of a
    Twisted client endpoint such as ``tcp:127.0.0.1:4730`` or as an `IStreamClientEndpoint`; or a sequence
    of such addresses. Of several servers each submission goes to one: with a unique always to the same, by
    the strings of the endpoints and not by their order, and without one to each in turn. Servers that are
    down are passed over while another is up.

    `codec` makes payloads of the data of jobs, and values of results and updates: ``"bytes"``, ``"text"``,
    ``"json"``, or an object with encode and decode (`txgearman.codecs.Codec`).

    When a server owes an answer and not a byte comes for `check_timeout` seconds, the connection is taken
    for lost. After `check_interval` seconds without a byte it is asked for an echo, to owe that. None or 0
    for either turns both off.
    `retry_policy` takes the number of failed attempts to connect and returns the pause in seconds before
    the next, `txgearman.connection.pauses.pause` by default and where it fails. `max_packet` is the largest
    body of a packet in bytes that is sent or accepted. `max_backlog` is the number of bytes of requests
    without an answer from which on `room` waits.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: Endpoint | Sequence[Endpoint],
        *,
        codec: CodecChoice = "bytes",
        check_interval: float | None = CHECK_INTERVAL,
        check_timeout: float | None = CHECK_TIMEOUT,
        retry_policy: RetryPolicy | None = None,
        max_packet: int = MAX_PACKET,
        max_backlog: int = BACKLOG_BYTES,
    ) -> None:
        check_count(max_backlog, "max_backlog", 1)
        check_count(max_packet, "max_packet", 1, LARGEST_BODY)
        self._backlog = Backlog(max_backlog)
        self._clock = reactor
        self._codec = codec_from(codec)
        self._check = check_from(check_interval, check_timeout)
        self._max_packet = max_packet
        policy = steady(retry_policy)
        self._dispatch = Dispatch(
            reactor,
            [self._link(name, endpoint, policy) for name, endpoint in named_endpoints(reactor, endpoints)],
            self._backlog,
        )

    @property
    def servers(self) -> dict[str, bool]:
        """The servers by name, in the order given, and whether there is a connection to each now."""
        return {server.name: server.protocol is not None for server in self._dispatch.servers}

    def connect(self, timeout: float | None = None) -> Deferred[None]:
        """Connect now if there is no connection; only needed to learn early whether it works.

        Of several servers the first that is connected will do. `timeout` is in seconds. Fails with
        `NotConnected` or `TimedOut`.
        """
        check_timeout(timeout)
        return self._limited(self._dispatch.connect().addCallback(lambda _: None), timeout)

    def close(self) -> Deferred[None]:
        """Close the connections, for good: later calls fail with `NotConnected`.

        Everything that still waits fails with `ConnectionLost`. Fires when the connections are gone,
        and to cancel it ends only the waiting for that.
        """
        return self._dispatch.close()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            # No `__aexit__` will come to end the attempts that go on.
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def submit(
        self,
        function: str | bytes,
        data: Any,
        *,
        unique: str | bytes | None = None,
        priority: Priority = Priority.NORMAL,
        background: bool = False,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        retry: int = 0,
        timeout: float | None = None,
    ) -> Deferred[Job]:
        """Submit a job. Returns a Deferred of a `Job` that fires once a server has accepted it.

        `function` is the name of what shall be run, `data` its input, bytes or what the codec takes. Names
        are str, encoded as UTF-8, or bytes.

        `unique` is a key of at most 64 bytes: while the server has a job of this function with this
        key, a submission with the same key joins that job instead of making another. The key ``-``
        stands for the data itself. Without a key each submission is a job of its own.

        An offline job, `background`, has no result and survives its submitter. With `run_at`, an aware
        datetime or seconds since 1970, it is an offline job that does not run before that time;
        fractions are rounded up to whole seconds. `reducer` is the name of a function that the worker
        is told of. The protocol has only normal `priority` for these last two.

        When a connection is lost before the server has accepted the job, the other servers are tried,
        each once; the job may then exist twice. `retry` is how often the job is submitted again beyond
        that, be it lost before it was accepted or, if it is an online job, while it waits or runs: to
        another server, or to the same when it is back. What can be done twice only is safe to retry. With
        a `retry` the submission also waits for a server where none is up, or all are about to end, for
        `timeout` seconds or `txgearman.client.retrying.RETRY_SECONDS`, and so does each submission again.

        `timeout` limits in seconds how long it may take until the job is accepted, including a connection
        that has to be made; to wait for the result is limited by `Job.result`. Without it that is limited
        by the time limits of the endpoints, and twice the `check_timeout`, for each server.

        Fails with `NotConnected`, `ConnectionLost`, `TimedOut`, or `ServerError` if the server refuses.
        After a time-out, and after the Deferred was cancelled, the server may still run the job, as the
        protocol has no way to take it back; its news are ignored here.
        """
        if self._codec is not BYTES:
            data = encoded(self._codec, data)
        new = submission(function, data, unique, priority, background, run_at, reducer, self._max_packet)
        if type(retry) is not int or retry:
            check_count(retry, "retry", 0)
        if not retry:
            return self._request(lambda protocol: protocol.submit(new), timeout, key_of(new), len(new.body))
        check_timeout(timeout)
        limit = RETRY_SECONDS if timeout is None else timeout
        retrying = Retrying(self._clock, self._dispatch, new, retry, limit)
        return self._limited(Deferred.fromCoroutine(retrying.submit()), limit)

    def submit_many(
        self,
        function: str | bytes,
        payloads: Iterable[Any],
        *,
        uniques: Iterable[str | bytes | None] | None = None,
        priority: Priority = Priority.NORMAL,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        keep_handles: bool = True,
        timeout: float | None = None,
    ) -> Deferred[list[bytes]]:
        """Submit very many offline jobs of one function: several times faster than `submit` for each.

        Returns a Deferred that fires once servers have accepted all of them, with their handles in the order
        of the `payloads`; without `keep_handles` with an empty list, to save their memory. `uniques` has one
        for each payload, or None for a job without. `priority`, `run_at` and `reducer` are as for `submit`,
        the same for all. There is no way to retry: what failed is told, to be submitted again.

        `payloads` may be an iterator over more than fits into memory: it is read no faster than there is
        `room`, a few hundred at a time, between which the reactor does its other work. A list or tuple is
        checked whole at the call. A payload of another iterable that is wrong, and what iterating raises,
        ends the batch at this place.

        Jobs without a unique are spread over the servers. When a connection is lost before the server has
        accepted a job, the other servers are tried for it, as by `submit`. Where no server can be
        reached no further payload is taken, and none behind `timeout` seconds for the whole batch.

        Fails with `NotAllAccepted` if a job was refused, lost, or not taken, once the fate of all that were
        taken is known. After a time-out, and after the Deferred was cancelled, the server may still run what
        was sent.
        """
        if isinstance(payloads, str | bytes):
            raise TypeError(f"the payloads must be several, not a single {type(payloads).__name__}")
        check_timeout(timeout)
        pattern = Pattern(function, priority, run_at, reducer, self._max_packet)
        whole = isinstance(payloads, list | tuple)
        if self._codec is not BYTES:
            payloads = map(partial(encoded, self._codec), payloads)
        if whole:
            payloads = list(payloads)
            uniques = pattern.check_all(payloads, uniques)
        batch = Batch(self._clock, self._dispatch, self._backlog, pattern, payloads, uniques, keep_handles)
        submitting = Deferred.fromCoroutine(batch.submit())
        if timeout is not None:
            submitting.addTimeout(timeout, self._clock, batch.timed_out)
        return submitting

    def room(self) -> Deferred[None]:
        """Wait until there is room for more submissions; ``await`` it ahead of each of very many.

        There is while the requests that were not answered yet, and those that wait for a connection, have
        less than `max_backlog` bytes, each counted with
        `txgearman.client.backlog.REQUEST_OVERHEAD`. Where there was none it fires when half of that is
        answered, or lost. Nothing is refused because there is no room: who does not ask for it fills the
        memory with what he submits. Never fails; to cancel it ends only the waiting.
        """
        return self._backlog.room()

    def answered(self) -> Deferred[None]:
        """Wait until everything that was asked for has its answer, or is lost: submissions, not results.

        Behind very many submissions, for whose Deferreds nobody waits one by one. Never fails; to cancel it
        ends only the waiting.
        """
        return self._backlog.empty()

    def status(self, job: Job | bytes | str, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask for the state of a job, given as the `Job` or its handle.

        A `Job` is asked for at its server. For a handle all servers are asked that are up, and a server
        that knows it is believed. A job that has ended is not known any more. Fails as `submit` does.
        """
        handle = name_bytes(job.handle if isinstance(job, Job) else job, "the handle", MAX_HANDLE)
        check_timeout(timeout)

        def ask(protocol: ClientProtocol) -> Deferred[JobStatus]:
            return protocol.status(handle)

        asked = self._dispatch.ask_one(job.server, ask) if isinstance(job, Job) else None
        return self._limited(asked or self._known(ask), timeout)

    def status_by_unique(self, unique: str | bytes, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask for the state of the job with this unique, and how many clients wait for it.

        All servers are asked that are up, as for a handle. Fails as `submit` does. Give gearmand no more
        than 63 bytes, it does not answer to 64.
        """
        key = name_bytes(unique, "the unique", MAX_UNIQUE)
        check_timeout(timeout)
        return self._limited(self._known(lambda protocol: protocol.status_by_unique(key)), timeout)

    def echo(self, data: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Let a server send `data` back, which shows that it is there. Fails as `submit` does."""
        body = body_of((data_bytes(data, "the data"),), self._max_packet)
        return self._request(lambda protocol: protocol.echo(body), timeout, None, len(body))

    def echo_each(
        self, data: bytes, timeout: float | None = None
    ) -> Deferred[dict[str, bytes | ClientError]]:
        """Let every server send `data` back. Fires with what each sent, or the error, by its name."""
        body = body_of((data_bytes(data, "the data"),), self._max_packet)
        check_timeout(timeout)
        echoes = {
            server.name: self._limited(server.connect().addCallback(lambda there: there.echo(body)), timeout)
            for server in self._dispatch.servers
        }

        def by_name(outcomes: list[tuple[bool, Any]]) -> dict[str, bytes | ClientError]:
            found = zip(echoes, outcomes, strict=True)
            return {name: what if succeeded else what.value for name, (succeeded, what) in found}

        return DeferredList(echoes.values(), consumeErrors=True).addCallback(by_name)

    def _link(self, name: str, endpoint: IStreamClientEndpoint, policy: RetryPolicy) -> Server:
        def build(ended: Callable[[ClientProtocol], object]) -> ClientProtocol:
            return ClientProtocol(
                self._clock,
                self._max_packet,
                ended,
                self._backlog,
                check=self._check,
                server=name,
                codec=self._codec,
            )

        return Link(
            self._clock,
            endpoint,
            build,
            name=name,
            retry_policy=policy,
            trial=lambda protocol: protocol.echo(b""),
        )

    def _request(self, ask: Ask[_T], timeout: float | None, key: bytes | None, size: int) -> Deferred[_T]:
        """What `ask` returns for a connection, which is made if there is none."""
        check_timeout(timeout)
        return self._limited(self._dispatch.send(ask, key, size), timeout)

    def _known(self, ask: Ask[JobStatus]) -> Deferred[JobStatus]:
        return known(list(self._dispatch.ask_each(ask).values()))

    def _limited(self, request: Deferred[_T], timeout: float | None) -> Deferred[_T]:
        if timeout is not None:
            request.addTimeout(timeout, self._clock, _timed_out)
        return request


def _timed_out(_result: object, seconds: float) -> NoReturn:
    raise TimedOut(f"no answer from the server within {seconds} seconds")
