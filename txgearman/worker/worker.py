"""The worker as its users see it: its functions, where they run, and staying connected.

What is said on a connection is in `protocol`, when it grabs a job in `prefetch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime

from txgearman.codecs import BYTES, CodecChoice, codec_from
from txgearman.connection.arguments import (
    LARGEST_BODY,
    check_count,
    check_timeout,
    function_bytes,
    name_bytes,
)
from txgearman.connection.backoff import RetryPolicy, retry_policy_from
from txgearman.connection.endpoint import Endpoint, named_endpoints
from txgearman.connection.heartbeat import CHECK_INTERVAL, CHECK_TIMEOUT, liveness_check_from
from txgearman.connection.shield import shield
from txgearman.errors import NotConnected, ServerError
from txgearman.wire.limits import MAX_CLIENT_ID, MAX_PACKET
from txgearman.worker.functions import (
    Callback,
    Executor,
    Function,
    check_time_limit,
    is_coroutine_function,
    milliseconds,
    result_encoder,
)
from txgearman.worker.hooks import Hooks
from txgearman.worker.prefetch import ConcurrencyLimit, Prefetcher
from txgearman.worker.processes import Processes
from txgearman.worker.protocol import ConnectionConfig
from txgearman.worker.server_connection import ServerConnection
from txgearman.worker.threads import Threads

_C = TypeVar("_C", bound=Callback)

DRAIN_SECONDS: Final = 8.0
"""Default of ``drain``: seconds that running jobs have when the worker stops. Docker gives a process ten
seconds between SIGTERM and SIGKILL, so what is left is cancelled in good order before that."""


@dataclass(slots=True)
class _ConcurrencyGroup:
    """Functions with the same limits, and the connections of their own on which they are offered."""

    functions: dict[bytes, Function]
    config: ConnectionConfig
    connections: list[ServerConnection] = field(default_factory=list)


class Worker(Service):
    """Runs jobs for one or more servers. Start it with `start`, or give it to an application as a service.

    A lost connection is made again with exponential backoff, and the functions are offered again on it. Jobs
    that run when their connection is lost are cancelled and their outcome is dropped, as the server gives
    them to another worker. So a job may run more than once.

    Args:
        reactor: The reactor, or a clock in tests.
        endpoints: The server's address: the string of a Twisted client endpoint such as
            ``tcp:127.0.0.1:4730``, or an `IStreamClientEndpoint`. Or a list or tuple of such addresses.
        client_id: A name of at most 127 bytes that the servers show for this worker; a str is encoded as
            UTF-8. None for none.
        concurrency: How many jobs may run at once, of all servers together. None stands for ``threads +
            processes``, at least 1.
        threads: How many threads run functions that block; see `register`.
        processes: How many processes run functions that block; see `register`.
        codec: Makes the data of jobs of payloads, and payloads of what is sent and returned: ``"bytes"``,
            ``"text"``, ``"json"`` or an object with ``encode`` and ``decode`` (`txgearman.codecs.Codec`).
        hooks: Called around each job.
        tracebacks: Whether the submitter of a job whose function raised is told the traceback, after the text
            of the exception.
        drain: Seconds that running jobs may take to end when the service is stopped.
        check_interval: Seconds without a byte from a server before it is asked for an echo. None or 0 turns
            the liveness check off.
        check_timeout: Seconds without a byte after that, when the connection counts as lost. None or 0 turns
            the liveness check off.
        retry_policy: Takes the number of failed attempts to connect, and returns the seconds to wait before
            the next. The default, which also stands in where a policy fails, is
            `txgearman.connection.backoff.exponential_backoff`.
        max_packet: The largest body of a packet in bytes that is sent or accepted.
        heartbeat: Whether the worker tells the server of each job that it still runs, by itself, where the
            server takes jobs from workers that are silent for so long. It says that this process lives and
            its reactor turns, not that the function gets on. Without it the function has to send a status,
            data or a warning often enough.

    Raises:
        ImportError: There are `processes`, and ``txgearman[processes]`` is not installed.
        TypeError: An option has the wrong type, or threads or processes are wanted of a reactor without them.
        ValueError: An option has a value that cannot be, or an endpoint is not understood or given twice.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: Endpoint | Sequence[Endpoint],
        *,
        client_id: str | bytes | None = None,
        concurrency: int | None = None,
        threads: int = 0,
        processes: int = 0,
        codec: CodecChoice = "bytes",
        hooks: Hooks | None = None,
        tracebacks: bool = False,
        drain: float = DRAIN_SECONDS,
        check_interval: float | None = CHECK_INTERVAL,
        check_timeout: float | None = CHECK_TIMEOUT,
        retry_policy: RetryPolicy | None = None,
        max_packet: int = MAX_PACKET,
        heartbeat: bool = False,
    ) -> None:
        self._concurrency = _concurrency(concurrency, threads, processes)
        _check_drain(drain)
        check_count(max_packet, "max_packet", 1, LARGEST_BODY)
        name = None if client_id is None else name_bytes(client_id, "the client id", MAX_CLIENT_ID)
        self._clock = reactor
        self._endpoints = [endpoint for _, endpoint in named_endpoints(reactor, endpoints)]
        self._retry_policy = retry_policy_from(retry_policy)
        self._max_packet = max_packet
        self._drain = drain
        self._codec = codec_from(codec)
        self._threads = Threads(reactor, threads) if threads else None
        self._processes = Processes(reactor, processes, self._codec, max_packet) if processes else None
        self._prefetcher = Prefetcher(reactor)
        self._functions: dict[bytes, _ConcurrencyGroup] = {}
        self._config = ConnectionConfig(
            {},
            (ConcurrencyLimit(self._concurrency),),
            self._prefetcher,
            client_id=name,
            codec=self._codec,
            hooks=hooks or Hooks(),
            tracebacks=tracebacks,
            check=liveness_check_from(check_interval, check_timeout),
            heartbeat=bool(heartbeat),
        )
        # Those of all groups, and of groups that were given up but still have a job.
        self._connections: list[ServerConnection] = []
        self._groups: dict[Executor | bytes, _ConcurrencyGroup] = {}
        # Stops under way, and starts that wait for their end.
        self._stops_under_way = 0
        self._pending_starts: list[Deferred[None]] = []
        self._new_group(Executor.REACTOR, self._config.limits)

    # -- functions ------------------------------------------------------------------------------

    def register(
        self,
        function: str | bytes,
        callback: Callback,
        timeout: float | None = None,
        *,
        threads: bool | None = None,
        processes: bool | None = None,
        concurrency: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        """Run the jobs of a function by calling `callback` with a `Job`. Can be called at any time.

        If the callback raises `FailJob` the job fails, and the submitter is told the error's text or `data`.
        With `Retry` it is run again later, with `Reject` it fails whatever attempts are left. Any other
        exception is logged, and the submitter is told its type and message. A result that cannot be encoded
        is such an exception.

        Args:
            function: The name; a str is encoded as UTF-8.
            callback: Returns the result as bytes, or what the worker's codec takes, or a Deferred or
                coroutine of it. None is an empty result. In a thread or process it must return the result
                itself. A process imports it, so there it must be at the top level of a module.
            timeout: Seconds after which the server gives a job that it gave out to another worker too. The
                server is told this, and tells the worker then to stop the job. gearmand does not: there the
                callback goes on, and its late result is refused. gearmand counts less than one second as one,
                and guards only the newest job of a connection.
            threads: Whether the callback runs in a thread. If `threads` and `processes` are both None, a
                function that is not ``async`` runs in a thread or process if the worker has them; everything
                else runs in the reactor's thread.
            processes: Whether the callback runs in a process.
            concurrency: How many jobs of this function may run at once. If the worker could run more, the
                function is offered on connections of its own.
            time_limit: Seconds that the callback may take. Then the job fails with `TimeLimitExceeded`. Its
                Deferred or coroutine is cancelled, its process is ended. A thread cannot be ended and holds
                its slot until it returns. What blocks the reactor's thread has no limit.

        Raises:
            TypeError: The callback cannot be called, or the name is neither str nor bytes.
            ValueError: The function is registered already; the name, a limit or an executor cannot be; or a
                process could not import the callback.
        """
        name = function_bytes(function)
        if not callable(callback):
            raise TypeError(f"the callback of {function!r} cannot be called: {callback!r}")
        if name in self._functions:
            raise ValueError(f"the function {function!r} is registered already")
        check_time_limit(time_limit)
        if concurrency is not None:
            check_count(concurrency, "concurrency", 1)
        executor = self._executor_for(callback, threads, processes)
        made = self._function(name, callback, executor, milliseconds(timeout), time_limit)
        group = self._group_for(name, executor, concurrency)
        group.functions[name] = made
        self._functions[name] = group
        for connection in group.connections:
            connection.announce(made)
            if self.running and not self._stops_under_way:
                connection.start()

    def function(
        self,
        name: str | bytes,
        timeout: float | None = None,
        *,
        threads: bool | None = None,
        concurrency: int | None = None,
        time_limit: float | None = None,
    ) -> Callable[[_C], _C]:
        """`register` as a decorator. The decorated function itself stays as it is.

        A function that runs in a process cannot be decorated: nobody can import it yet at that time.

        Args:
            name: As `function` of `register`.
            timeout: As for `register`.
            threads: As for `register`.
            concurrency: As for `register`.
            time_limit: As for `register`.

        Returns:
            The decorator, which raises what `register` raises.
        """

        def decorate(callback: _C) -> _C:
            self.register(
                name, callback, timeout, threads=threads, concurrency=concurrency, time_limit=time_limit
            )
            return callback

        return decorate

    def unregister(self, function: str | bytes) -> None:
        """Take no more jobs of a function.

        The server gives jobs of it that run here now to another worker. They run on, but the server refuses
        their results.

        Args:
            function: The name; a str is encoded as UTF-8.

        Raises:
            TypeError: The name is neither str nor bytes.
            ValueError: The function is not registered.
        """
        name = function_bytes(function)
        if name not in self._functions:
            raise ValueError(f"the function {function!r} is not registered")
        group = self._functions.pop(name)
        del group.functions[name]
        for connection in group.connections:
            connection.withdraw(name)
        if self._groups.get(name) is group:
            del self._groups[name]
            for connection in group.connections:
                connection.drain().addCallback(self._forget, connection)

    def _forget(self, _: object, connection: ServerConnection) -> None:
        self._connections.remove(connection)

    def _executor_for(self, callback: Callback, threads: bool | None, processes: bool | None) -> Executor:
        """Where a function runs. Raises `ValueError` if it cannot run there."""
        waits = is_coroutine_function(callback)
        if threads is None and processes is None and not waits:
            if self._threads and self._processes:
                raise ValueError(f"the worker has threads and processes, say where {callback!r} runs")
            threads, processes = self._threads is not None, self._processes is not None
        if threads and processes:
            raise ValueError(f"{callback!r} cannot run in a thread and in a process")
        if waits and (threads or processes):
            raise ValueError(f"{callback!r} is a coroutine function, it runs in the reactor's thread only")
        if (threads and self._threads is None) or (processes and self._processes is None):
            kind = "threads" if threads else "processes"
            raise ValueError(f"the worker has no {kind}, give it the option {kind}")
        if processes:
            return Executor.PROCESS
        return Executor.THREAD if threads else Executor.REACTOR

    def _function(
        self,
        name: bytes,
        callback: Callback,
        executor: Executor,
        timeout: int | None,
        time_limit: float | None,
    ) -> Function:
        if executor is Executor.PROCESS:
            assert self._processes is not None
            # The process makes the payloads, and the time limit counts from the start of the call there.
            remote = self._processes.runner(callback, time_limit)
            return Function(name, remote, result_encoder(BYTES, name), None, timeout, None)
        run = callback
        if executor is Executor.THREAD:
            assert self._threads is not None
            run = self._threads.runner(callback)
        decode = None if self._codec is BYTES else self._codec.decode
        return Function(name, run, result_encoder(self._codec, name), decode, timeout, time_limit)

    # -- concurrency groups ---------------------------------------------------------------------

    def _group_for(self, name: bytes, executor: Executor, concurrency: int | None) -> _ConcurrencyGroup:
        """The group of a function: the shared one, unless the function has a limit below the worker's.

        A job is grabbed before its function is known. A function with a limit of its own is grabbed on
        connections of its own, so that no job comes that must not run.
        """
        key: Executor | bytes = Executor.REACTOR
        limits = self._config.limits
        pool = {Executor.REACTOR: None, Executor.THREAD: self._threads, Executor.PROCESS: self._processes}[
            executor
        ]
        most = self._concurrency
        if pool is not None and pool.size < most:
            key, most = executor, pool.size
            limits = (*limits, pool.limit)
        if concurrency is not None and concurrency < most:
            key = name
            limits = (*limits, ConcurrencyLimit(concurrency))
        return self._groups.get(key) or self._new_group(key, limits)

    def _new_group(self, key: Executor | bytes, limits: tuple[ConcurrencyLimit, ...]) -> _ConcurrencyGroup:
        """A new group, not connected yet."""
        functions: dict[bytes, Function] = {}
        group = _ConcurrencyGroup(functions, replace(self._config, functions=functions, limits=limits))
        for endpoint in self._endpoints:
            connection = ServerConnection(
                self._clock, endpoint, group.config, self._retry_policy, self._max_packet
            )
            group.connections.append(connection)
        self._connections += group.connections
        self._groups[key] = group
        return group

    # -- connecting -----------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Connect, and keep connected until `stop`. A stop that is under way ends first.

        Returns:
            A Deferred that fires once a server has taken the worker, whichever is first, however many
            attempts that takes; each failed one is logged. It fails with `ServerError` where that server
            refuses a function or the connection, and the worker has no hook ``on_refusal`` that decides what
            to do; the worker is stopped then. It fails with `NotConnected` if the worker is stopped before.
            Cancelling it ends this wait alone.
        """
        self.startService()
        started: Deferred[None] = Deferred()
        if self._stops_under_way:
            self._pending_starts.append(started)
        else:
            self._fire_when_connected(started)
        return started

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """Take no more jobs, let running ones end, and disconnect. The worker can be started again.

        Jobs that were grabbed already may still come. They are run, as refusing them would cost them an
        attempt. Jobs that still run after the timeout are cancelled; their server gives them to another
        worker when it loses the connection. A thread that still runs is left alone.

        Args:
            timeout: Seconds that running jobs have. None stands for the worker's `drain`, 0 for no time at
                all. It can be shortened by another call.

        Returns:
            A Deferred that fires when the connections are gone and the processes have ended. Cancelling it
            ends this wait alone.

        Raises:
            ValueError: The timeout is negative or not finite.
        """
        limit = self._drain if timeout is None else timeout
        _check_drain(limit)
        super().stopService()
        self._prefetcher.closed = True
        self._stops_under_way += 1
        gone = gatherResults([connection.drain() for connection in self._connections])
        if limit == 0:
            self._disconnect()
        elif not gone.called:
            deadline = self._clock.callLater(limit, self._disconnect)
            gone.addCallback(lambda _: deadline.cancel() if deadline.active() else None)
        starts, self._pending_starts = self._pending_starts, []
        for started in starts:
            _not_connected(started)
        return shield(gone.addCallback(lambda _: self._stop_pools()).addCallback(self._stopped))

    def startService(self) -> None:
        """Connect, and keep connected: `start` without waiting for the connection."""
        if not self.running:
            super().startService()
            if not self._stops_under_way:
                self._connect_all()

    def stopService(self) -> Deferred[None]:
        """Stop with the worker's `drain` as the timeout; see `stop`.

        Returns:
            What `stop` returns.
        """
        return self.stop()

    def _connect_all(self) -> None:
        self._prefetcher.closed = False
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.start()
        for group in self._groups.values():
            for connection in group.connections:
                connection.start()

    def _stopped(self, _: None) -> None:
        """A stop has ended. If the worker was started meanwhile, start it now."""
        self._stops_under_way -= 1
        if self.running and not self._stops_under_way:
            self._connect_all()
            starts, self._pending_starts = self._pending_starts, []
            for started in starts:
                self._fire_when_connected(started)

    def _fire_when_connected(self, started: Deferred[None]) -> None:
        def introduced(refusal: ServerError | None) -> None:
            if started.called:
                return
            if refusal is None or self._config.hooks.on_refusal is not None:
                started.callback(None)
            else:
                stopping = self.stop(0)
                stopping.addBoth(lambda _: None if started.called else started.errback(refusal))

        for group in self._groups.values():
            for connection in group.connections:
                connection.when_introduced().addCallbacks(introduced, lambda _: _not_connected(started))

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.disconnect()

    def _stop_pools(self) -> Deferred[None]:
        stopping = [pool.stop() for pool in (self._threads, self._processes) if pool is not None]
        return gatherResults(stopping).addCallback(lambda _: None) if stopping else succeed(None)


def _concurrency(concurrency: int | None, threads: int, processes: int) -> int:
    """How many jobs may run at once. Raises `ValueError` for numbers that are too small."""
    check_count(threads, "threads", 0)
    check_count(processes, "processes", 0)
    if concurrency is None:
        return max(1, threads + processes)
    check_count(concurrency, "concurrency", 1)
    return concurrency


def _not_connected(started: Deferred[None]) -> None:
    if not started.called:
        started.errback(NotConnected("the worker was stopped before it was connected"))


def _check_drain(seconds: float) -> None:
    check_timeout(seconds)
    if seconds is None:
        raise ValueError("there must be a limit for the jobs that run when the worker stops")
