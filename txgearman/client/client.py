"""The client as its users see it: its methods, the checks of their arguments, and time limits.

What is said on a connection is in `protocol`, how a connection is made in `connector`, and which server a
request goes to in `failover`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, Unpack

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txgearman.client.batch import Batch
from txgearman.client.connector import Connector
from txgearman.client.failover import Ask, Dispatch, Server
from txgearman.client.hashing import routing_key
from txgearman.client.job import Job
from txgearman.client.job_window import WINDOW_JOBS, OutcomeIterator, window_of, with_uniques
from txgearman.client.protocol import ClientProtocol
from txgearman.client.result import ResultRequest
from txgearman.client.retrying import RETRY_SECONDS, Retrying
from txgearman.client.schedules import schedule_submission, unschedule
from txgearman.client.send_budget import SEND_BUDGET_BYTES, SendBudget
from txgearman.client.status import JobStatus, first_known
from txgearman.client.submission import JobOptions, JobTemplate, Priority, submission
from txgearman.codecs import BYTES, CodecChoice, codec_from, decoded, encoded
from txgearman.connection.arguments import (
    LARGEST_BODY,
    body_of,
    check_count,
    check_timeout,
    data_bytes,
    name_bytes,
)
from txgearman.connection.backoff import RetryPolicy, retry_policy_from
from txgearman.connection.endpoint import Endpoint, named_endpoints
from txgearman.connection.heartbeat import CHECK_INTERVAL, CHECK_TIMEOUT, liveness_check_from
from txgearman.errors import ClientError, TimedOut
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET, MAX_UNIQUE

_T = TypeVar("_T")


class Client:
    """Submits jobs to one server, or to several.

    It connects when it is first used, and keeps a connection to each server from then on. A lost connection
    is made again with exponential backoff, and at once when a call needs it. Use the client with ``async
    with``, or call `close` at the end.

    Every Deferred that it returns fires exactly once. It fails with one of the errors below
    `txgearman.errors.ClientError`, or with Twisted's `CancelledError` when it is cancelled. Wrong arguments
    raise `TypeError` or `ValueError` at the call.

    Of several servers each submission goes to one. A unique always goes to the same server, which is chosen
    by the strings of the endpoints and not by their order. Submissions without a unique go to each server in
    turn. Servers that are down are passed over while another is up.

    Args:
        reactor: The reactor, or a clock in tests.
        endpoints: The server's address: the string of a Twisted client endpoint such as
            ``tcp:127.0.0.1:4730``, or an `IStreamClientEndpoint`. Or a sequence of such addresses.
        codec: Makes payloads of the data of jobs, and values of results and updates: ``"bytes"``, ``"text"``,
            ``"json"``, or an object with encode and decode (`txgearman.codecs.Codec`).
        check_interval: Seconds without a byte from a server before it is asked for an echo. None or 0 turns
            the liveness check off.
        check_timeout: Seconds without a byte, while a server owes an answer, after which the connection
            counts as lost. None or 0 turns the liveness check off.
        retry_policy: Takes the number of failed attempts to connect, and returns the seconds to wait before
            the next. The default, which also stands in where a policy fails, is
            `txgearman.connection.backoff.exponential_backoff`.
        max_packet: The largest body of a packet in bytes that is sent or accepted.
        max_backlog: Bytes of requests without an answer from which on `room` waits.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option has a value that cannot be, or an endpoint is not understood or given twice.
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
        max_backlog: int = SEND_BUDGET_BYTES,
    ) -> None:
        check_count(max_backlog, "max_backlog", 1)
        check_count(max_packet, "max_packet", 1, LARGEST_BODY)
        self._budget = SendBudget(max_backlog)
        self._clock = reactor
        self._codec = codec_from(codec)
        self._check = liveness_check_from(check_interval, check_timeout)
        self._max_packet = max_packet
        policy = retry_policy_from(retry_policy)
        named = named_endpoints(reactor, endpoints)
        self._endpoints = [endpoint for _, endpoint in named]
        self._dispatch = Dispatch(
            reactor, [self._connector(name, endpoint, policy) for name, endpoint in named], self._budget
        )

    @property
    def servers(self) -> dict[str, bool]:
        """The servers by name, in the order given, and whether there is a connection to each now."""
        return {server.name: server.protocol is not None for server in self._dispatch.servers}

    def connect(self, timeout: float | None = None) -> Deferred[None]:
        """Connect now if there is no connection. Only needed to learn early whether it works.

        Args:
            timeout: Seconds; None for no limit.

        Returns:
            A Deferred that fires with the first connection, of several servers to any. It fails with
            `NotConnected` or `TimedOut`.
        """
        check_timeout(timeout)
        return self._limited(self._dispatch.connect().addCallback(lambda _: None), timeout)

    def close(self) -> Deferred[None]:
        """Close the connections for good. Later calls fail with `NotConnected`.

        Everything that still waits fails with `ConnectionLost`.

        Returns:
            A Deferred that fires when the connections are gone. Cancelling it ends this wait alone.
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
        priority: Priority | str = Priority.NORMAL,
        background: bool = False,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        retry: int = 0,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Deferred[Job]:
        """Submit a job.

        When a connection is lost before the server has accepted the job, the other servers are tried, each
        once. The job may then exist twice.

        After a time-out, and after the Deferred was cancelled, the server may still run the job: the protocol
        has no way to take it back. News of the job are ignored then.

        Args:
            function: The name of what shall run; a str is encoded as UTF-8.
            data: The job's input: bytes, or what the codec takes.
            unique: A key of at most 64 bytes; a str is encoded as UTF-8. While the server has a job of this
                function with this key, a submission with the same key joins that job instead of making
                another. The key ``-`` stands for the data itself. Without a key each submission is a job of
                its own.
            priority: Which jobs a worker gets first. The protocol has normal priority alone for a job with a
                `reducer`; with `run_at` another one is an extension.
            background: Whether the job is an offline job, which has no result and survives its submitter.
            run_at: The earliest time at which the job may run: an aware datetime, or seconds since 1970.
                Fractions are rounded up to whole seconds, unless an extension is used. It makes the job an
                offline job.
            reducer: The name of a function that the worker is told of; a str is encoded as UTF-8.
            retry: How often the job is submitted again if it is lost beyond that: before it was accepted or,
                if it is an online job, while it waits or runs. It goes to another server, or to the same when
                it is back. Retry only idempotent jobs. With a `retry` the submission also waits for a server
                where none is up, or all are about to shut down, and so does each submission again.
            timeout: Seconds until the job must be accepted, including the time to connect. None leaves that
                to the time limits of the endpoints and twice the `check_timeout`, for each server; with a
                `retry` it stands for `txgearman.client.retrying.RETRY_SECONDS`. `Job.result` has a limit of
                its own.
            **options: What else is said of the job: `expires`, `attempts`, `backoff`, `keep_result`,
                `unique_for` and `traceparent`, see `txgearman.client.JobOptions`.

        Returns:
            A Deferred of the `Job`, which fires once a server has accepted it. It fails with `NotConnected`,
            `ConnectionLost`, `TimedOut`, or `ServerError` if the server refuses; with `NotSupported`, which
            is one, if the server lacks an extension. Then nothing was submitted.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has a value that cannot be, or the packet would be too large.
        """
        if self._codec is not BYTES:
            data = encoded(self._codec, data)
        new = submission(
            function, data, unique, priority, background, run_at, reducer, self._max_packet, options
        )
        if type(retry) is not int or retry:
            check_count(retry, "retry", 0)
        if not retry:
            protocol = self._dispatch.servers[0].protocol
            if protocol is not None and timeout is None and self._dispatch.single:
                # What the lines below come to, with less around it.
                return protocol.submit(new)
            return self._request(
                lambda protocol: protocol.submit(new), timeout, routing_key(new), len(new.body)
            )
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
        priority: Priority | str = Priority.NORMAL,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        keep_handles: bool = True,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Deferred[list[bytes]]:
        """Submit very many offline jobs of one function, several times faster than `submit` for each.

        Jobs without a unique are spread over the servers. When a connection is lost before the server has
        accepted a job, the other servers are tried for it, as by `submit`. There is no retry beyond that: the
        error tells what failed, to be submitted again.

        After a time-out, and after the Deferred was cancelled, the server may still run what was sent.

        Args:
            function: As for `submit`.
            payloads: The jobs' inputs. An iterator may yield more than fits into memory: it is read no faster
                than there is `room`, a few hundred at a time, between which the reactor does its other work.
                A list or tuple is checked whole at the call. A wrong payload of another iterable, and an
                exception of its iterator, ends the batch at this payload.
            uniques: One for each payload, as for `submit`; None for a job without.
            priority: As for `submit`, the same for all.
            run_at: As for `submit`, the same for all.
            reducer: As for `submit`, the same for all.
            keep_handles: Whether to return the handles. False saves their memory.
            timeout: Seconds for the whole batch, after which no further payload is taken. None for no limit.
            **options: As for `submit`, the same for all.

        Returns:
            A Deferred of the handles in the order of the payloads, empty without `keep_handles`. It fires
            once servers have accepted all jobs. It fails with `NotAllAccepted` if a job was refused, lost, or
            not taken, once the fate of all jobs that were taken is known. Where no server can be reached no
            further payload is taken.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has a value that cannot be, or a packet would be too large.
        """
        if isinstance(payloads, str | bytes):
            raise TypeError(f"the payloads must be several, not a single {type(payloads).__name__}")
        check_timeout(timeout)
        template = JobTemplate(function, priority, run_at, reducer, self._max_packet, options)
        whole = isinstance(payloads, list | tuple)
        if self._codec is not BYTES:
            payloads = map(partial(encoded, self._codec), payloads)
        if whole:
            payloads = list(payloads)
            uniques = template.check_all(payloads, uniques)
        batch = Batch(self._clock, self._dispatch, self._budget, template, payloads, uniques, keep_handles)
        submitting = Deferred.fromCoroutine(batch.submit())
        if timeout is not None:
            submitting.addTimeout(timeout, self._clock, batch.timed_out)
        return submitting

    def run_many(
        self,
        function: str | bytes,
        payloads: Iterable[Any],
        *,
        uniques: Iterable[str | bytes | None] | None = None,
        priority: Priority | str = Priority.NORMAL,
        ordered: bool = True,
        window: int = WINDOW_JOBS,
        retry: int = 0,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> OutcomeIterator:
        """Submit very many online jobs of one function, and iterate over their outcomes with ``async for``.

        Jobs are submitted while the iterator is asked for outcomes, and not before. Leaving the iteration
        early gives up nothing by itself: call `close` of the iterator then. The server may still run what was
        submitted.

        Args:
            function: As for `submit`.
            payloads: The jobs' inputs. An iterator may yield more than fits into memory: it is read no
                further ahead than the `window`.
            uniques: One for each payload, as for `submit`; None for a job without.
            priority: As for `submit`, the same for all.
            ordered: Whether outcomes come in the order of the payloads. Otherwise they come as jobs end.
            window: How many jobs are submitted, or have ended and were not asked for, at a time.
            retry: As for `submit`, for each.
            timeout: Seconds that each job may take once it is accepted; None for no limit.
            **options: As for `submit`, the same for all.

        Returns:
            An iterator of `JobOutcome`. A job that fails ends only its own outcome. A wrong payload raises
            `TypeError` or `ValueError` in the iteration and ends it, as does an exception of `payloads`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has a value that cannot be.
        """
        if isinstance(payloads, str | bytes):
            raise TypeError(f"the payloads must be several, not a single {type(payloads).__name__}")
        jobs = window_of(
            self.submit, function, ordered, window, timeout, priority=priority, retry=retry, **options
        )
        return OutcomeIterator(self._clock, jobs, with_uniques(payloads, uniques))

    def schedule(
        self,
        function: str | bytes,
        data: Any,
        *,
        minute: str = "*",
        hour: str = "*",
        day: str = "*",
        month: str = "*",
        weekday: str = "*",
        unique: str | bytes | None = None,
        timeout: float | None = None,
    ) -> Deferred[bytes]:
        """Let a server submit an offline job again and again (SUBMIT_JOB_SCHED).

        The fields are those of cron, in UTC. A `day` and a `weekday` that are both given mean either. It
        replaces the schedule of this function with the same `unique`. Servers that share a database have the
        same schedules; of others one has it. gearmand refuses it.

        Args:
            function: The name of what shall run; a str is encoded as UTF-8.
            data: The input of each job: bytes, or what the codec takes.
            minute: When; ``*/5`` is each fifth minute.
            hour: When.
            day: On which days of the month.
            month: In which months, by number or name.
            weekday: On which days of the week. Give names, such as ``mon-fri``: what numbers mean is up to
                the server.
            unique: The key of the jobs, of at most 64 bytes. Without one the schedule is told from others by
                all that it is.
            timeout: As for `submit`.

        Returns:
            A Deferred of the schedule's handle, for `unschedule` and `status`. It fires once the server has
            saved the schedule. It fails as that of `submit` does.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has a value that cannot be, or the packet would be too large.
        """
        if self._codec is not BYTES:
            data = encoded(self._codec, data)
        times = (minute, hour, day, month, weekday)
        new = schedule_submission(function, data, unique, times, self._max_packet)
        asked = self._request(lambda protocol: protocol.submit(new), timeout, routing_key(new), len(new.body))
        return asked.addCallback(lambda job: job.handle)

    def unschedule(self, handle: str | bytes, timeout: float | None = None) -> Deferred[None]:
        """Remove a schedule. Jobs of it that are there go on.

        The servers are asked one after the other, each on a connection of its own, until one has removed it.

        Args:
            handle: What `schedule` returned. The handle of a job cancels that.
            timeout: Seconds for each server; None for no limit.

        Returns:
            A Deferred that fires when that is durable. It fails with an `AdminError` that begins with
            ``UNKNOWN_JOB`` if no server knows the handle, or as that of `submit` does.

        Raises:
            TypeError: The handle is neither str nor bytes.
            ValueError: The handle is too long or contains NUL, or the timeout is no time.
        """
        name = name_bytes(handle, "the handle", MAX_HANDLE)
        check_timeout(timeout)
        return Deferred.fromCoroutine(unschedule(self._clock, self._endpoints, name, timeout))

    def room(self) -> Deferred[None]:
        """Wait until the send budget allows more submissions: ``await`` it before each of very many.

        It does while the requests without an answer, and those that wait for a connection, have less than
        `max_backlog` bytes, each counted with `txgearman.client.send_budget.REQUEST_OVERHEAD`. Once the
        budget is spent it must fall to half of that first. Nothing is refused over the budget: without `room`
        there is no backpressure, and memory fills with what is submitted.

        Returns:
            A Deferred that never fails. Cancelling it ends this wait alone.
        """
        return self._budget.available()

    def answered(self) -> Deferred[None]:
        """Wait until every request has its answer or is lost: submissions, not results.

        Use it after a bulk submission instead of waiting for each Deferred.

        Returns:
            A Deferred that never fails. Cancelling it ends this wait alone.
        """
        return self._budget.all_answered()

    def status(self, job: Job | bytes | str, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask for the state of a job. A job that has ended is not known any more.

        Args:
            job: The `Job`, which is asked for at its server, or its handle. For a handle all servers that are
                up are asked, and a server that knows the job is believed.
            timeout: Seconds; None for no limit.

        Returns:
            A Deferred of the state. It fails as that of `submit` does.

        Raises:
            TypeError: The handle is neither str nor bytes.
            ValueError: The handle is too long or contains NUL, or the timeout is no time.
        """
        handle = name_bytes(job.handle if isinstance(job, Job) else job, "the handle", MAX_HANDLE)
        check_timeout(timeout)

        def ask(protocol: ClientProtocol) -> Deferred[JobStatus]:
            return protocol.status(handle)

        asked = self._dispatch.ask_one(job.server, ask) if isinstance(job, Job) else None
        return self._limited(asked or self._known(ask), timeout)

    def status_by_unique(self, unique: str | bytes, timeout: float | None = None) -> Deferred[JobStatus]:
        """Ask for the state of the job with this unique, and how many clients wait for it.

        All servers that are up are asked, as for a handle.

        Args:
            unique: The job's unique; a str is encoded as UTF-8. gearmand answers for up to 63 bytes, not for
                64.
            timeout: Seconds; None for no limit.

        Returns:
            A Deferred of the state. It fails as that of `submit` does.

        Raises:
            TypeError: The unique is neither str nor bytes.
            ValueError: The unique is too long or contains NUL, or the timeout is no time.
        """
        key = name_bytes(unique, "the unique", MAX_UNIQUE)
        check_timeout(timeout)
        return self._limited(self._known(lambda protocol: protocol.status_by_unique(key)), timeout)

    def result(
        self, job: Job | bytes | str, wait: bool = True, timeout: float | None = None
    ) -> Deferred[Any]:
        """Ask for the result of an offline job, if the server keeps results of its function.

        While one waits and the connection is lost, this goes on when the server is back.

        Args:
            job: The `Job`, which is asked for at its server, or its handle. For a handle all servers that are
                up are asked, and a server that knows of the job is believed.
            wait: Whether to wait until the job has ended.
            timeout: Seconds; None for no limit.

        Returns:
            A Deferred of the result: what the client's codec makes of it, bytes without one. It fails with
            `JobRaised` or `JobFailed`; with `ResultGone` where there is no result, or none any more; with
            `UnknownJob`; with `ResultPending` for a job that has not ended if there is no `wait`; with
            `NotSupported` for a server that has no results, such as gearmand; with `BadPayload` for a result
            that the codec cannot decode; or as that of `submit` does.

        Raises:
            TypeError: The handle is neither str nor bytes.
            ValueError: The handle is too long or contains NUL, or the timeout is no time.
        """
        handle = name_bytes(job.handle if isinstance(job, Job) else job, "the handle", MAX_HANDLE)
        check_timeout(timeout)
        request = ResultRequest(self._dispatch, job.server if isinstance(job, Job) else "", handle)

        async def fetch() -> Any:
            answer = await (request.wait() if wait else request.ask())
            value = answer.value(handle)
            return value if self._codec is BYTES else decoded(self._codec, value, handle)

        return self._limited(Deferred.fromCoroutine(fetch()), timeout)

    def echo(self, data: bytes, timeout: float | None = None) -> Deferred[bytes]:
        """Let a server send `data` back, which shows that it is alive.

        Args:
            data: What to send.
            timeout: Seconds; None for no limit.

        Returns:
            A Deferred of the data. It fails as that of `submit` does.

        Raises:
            TypeError: The data is not bytes.
            ValueError: The packet would be too large, or the timeout is no time.
        """
        body = body_of((data_bytes(data, "the data"),), self._max_packet)
        return self._request(lambda protocol: protocol.echo(body), timeout, None, len(body))

    def echo_each(
        self, data: bytes, timeout: float | None = None
    ) -> Deferred[dict[str, bytes | ClientError]]:
        """Let every server send `data` back.

        Args:
            data: What to send.
            timeout: Seconds for each server; None for no limit.

        Returns:
            A Deferred of what each server sent, or its error, by the server's name.

        Raises:
            TypeError: The data is not bytes.
            ValueError: The packet would be too large, or the timeout is no time.
        """
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

    def _connector(self, name: str, endpoint: IStreamClientEndpoint, policy: RetryPolicy) -> Server:
        def build(ended: Callable[[ClientProtocol], object]) -> ClientProtocol:
            return ClientProtocol(
                self._clock,
                self._max_packet,
                ended,
                self._budget,
                check=self._check,
                server=name,
                codec=self._codec,
            )

        return Connector(
            self._clock,
            endpoint,
            build,
            name=name,
            retry_policy=policy,
            probe=lambda protocol: protocol.echo(b""),
        )

    def _request(self, ask: Ask[_T], timeout: float | None, key: bytes | None, size: int) -> Deferred[_T]:
        """What `ask` returns for a connection, which is made if there is none."""
        check_timeout(timeout)
        return self._limited(self._dispatch.send(ask, key, size), timeout)

    def _known(self, ask: Ask[JobStatus]) -> Deferred[JobStatus]:
        return first_known(list(self._dispatch.ask_each(ask).values()))

    def _limited(self, request: Deferred[_T], timeout: float | None) -> Deferred[_T]:
        if timeout is not None:
            request.addTimeout(timeout, self._clock, _timed_out)
        return request


def _timed_out(_result: object, seconds: float) -> NoReturn:
    raise TimedOut(f"no answer from the server within {seconds} seconds")
