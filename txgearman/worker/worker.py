"""The worker as its users see it: which functions it has, where they run, and staying connected.

What is said on a connection is in `protocol`, when it asks for a job in `turns`.
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
from txgearman.connection.endpoint import Endpoint, named_endpoints
from txgearman.connection.heartbeat import CHECK_INTERVAL, CHECK_TIMEOUT, check_from
from txgearman.connection.pauses import RetryPolicy, steady
from txgearman.connection.waiting import also
from txgearman.errors import NotConnected
from txgearman.wire.limits import MAX_CLIENT_ID, MAX_PACKET
from txgearman.worker.functions import (
    Callback,
    Function,
    Place,
    check_time_limit,
    is_async,
    milliseconds,
    result_encoder,
)
from txgearman.worker.hooks import Hooks
from txgearman.worker.link import Link
from txgearman.worker.processes import Processes
from txgearman.worker.protocol import Offer
from txgearman.worker.threads import Threads
from txgearman.worker.turns import Limit, Turns

_C = TypeVar("_C", bound=Callback)

DRAIN_SECONDS: Final = 8.0
"""Seconds that running jobs have when the worker is stopped. Below the ten seconds that Docker gives a
process between SIGTERM and SIGKILL, so that what is left is cancelled in good order."""


@dataclass(slots=True)
class _Lane:
    """Functions that share their limits: they are offered on connections of their own, `links`."""

    functions: dict[bytes, Function]
    offer: Offer
    links: list[Link] = field(default_factory=list)


class Worker(Service):
    """Runs jobs for one or more servers. Start it with `start`, or give it to an application as a service.

    A lost connection is made again, with a growing pause between attempts, and the functions are
    offered again on it. Jobs that run when a connection is lost are cancelled and their outcome is
    discarded, as the server gives them to another worker; so a job may be run more than once.

    `reactor` is the reactor, or in tests a clock. `endpoints` are the servers' addresses, one, or a
    list or tuple of them: strings of Twisted client endpoints such as ``tcp:127.0.0.1:4730``, or
    `IStreamClientEndpoint`. `client_id` is a name of at most 127 bytes that the servers show for this
    worker, str or bytes.

    `concurrency` is how many jobs may run at once, of all servers together. If it is None, that is
    ``threads + processes``, at least 1. `threads` and `processes` are how many of each blocking functions
    may run in, see `register`; processes need ``txgearman[processes]``, otherwise `ImportError` is raised.

    `codec` makes the jobs' data of payloads, and payloads of what is sent and returned: ``"bytes"``,
    ``"text"``, ``"json"`` or an object with ``encode`` and ``decode``. `hooks` are called around each job.
    With `tracebacks` the submitter of a job whose function raised is told the traceback, behind the text of
    the exception.

    `drain` is how many seconds jobs that run may take to end when the service is stopped. After
    `check_interval` seconds without a byte from a server it is asked for an echo, and the connection is
    given up when none comes within `check_timeout` seconds more; 0 or None turns that off. `retry_policy`
    takes the number of failed attempts to connect and returns the pause in seconds before the next,
    `txgearman.connection.pauses.pause` by default and where it fails. `max_packet` is the largest body of a
    packet in bytes that is sent or accepted.
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
    ) -> None:
        self._concurrency = _concurrency(concurrency, threads, processes)
        _check_drain(drain)
        check_count(max_packet, "max_packet", 1, LARGEST_BODY)
        name = None if client_id is None else name_bytes(client_id, "the client id", MAX_CLIENT_ID)
        self._clock = reactor
        self._endpoints = [endpoint for _, endpoint in named_endpoints(reactor, endpoints)]
        self._retry_policy = steady(retry_policy)
        self._max_packet = max_packet
        self._drain = drain
        self._codec = codec_from(codec)
        self._threads = Threads(reactor, threads) if threads else None
        self._processes = Processes(reactor, processes, self._codec, max_packet) if processes else None
        self._turns = Turns(reactor)
        self._functions: dict[bytes, _Lane] = {}
        self._offer = Offer(
            {},
            (Limit(self._concurrency),),
            self._turns,
            client_id=name,
            codec=self._codec,
            hooks=hooks or Hooks(),
            tracebacks=tracebacks,
            check=check_from(check_interval, check_timeout),
        )
        # Of all lanes, and of those that were given up but still have a job.
        self._links: list[Link] = []
        self._lanes: dict[Place | bytes, _Lane] = {}
        # Stops under way, and who waits for a start behind them.
        self._stops = 0
        self._starts: list[Deferred[None]] = []
        self._lane(Place.REACTOR, self._offer.limits)

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
        """Run the jobs of `function` by calling `callback` with a `Job`.

        `callback` returns the result as bytes, or what the worker's codec takes, or a Deferred or
        coroutine of it. None is an empty result. If it raises `FailJob`, the job fails, and the submitter is
        told the `data` of that, if there are. If it raises anything else that is logged, and the submitter
        is told the type and the message. A result that cannot be encoded is such an exception.

        `threads` and `processes` say whether it runs in a thread or a process. It has to return the result
        itself then. A process imports it, so it stands at the top level of a module. If both are None, a
        function that is not ``async`` runs in a thread or process if the worker has such; everything
        else runs in the reactor's thread.

        `concurrency` is how many jobs of this function may run at once. If that is fewer than the worker
        could run, the function is offered on connections of its own.

        `time_limit` is how many seconds the callback may take. Then the job fails with
        `TimeLimitExceeded`; its Deferred or coroutine is cancelled, its process is ended. A thread cannot be
        ended: it keeps its place until it returns. What blocks the reactor's thread has no limit.

        `timeout` is told to the server: so many seconds after it gave out a job it gives it to another
        worker too. It does not stop the callback; what that returns later is refused. gearmand counts
        less than one second as one, and guards only the newest job of a connection.

        `function` is a name, str (as UTF-8) or bytes. Can be called at any time. Raises `ValueError`
        for a function that is registered already, for bad names, limits and places, and for a function
        that a process could not import.
        """
        name = function_bytes(function)
        if not callable(callback):
            raise TypeError(f"the callback of {function!r} cannot be called: {callback!r}")
        if name in self._functions:
            raise ValueError(f"the function {function!r} is registered already")
        check_time_limit(time_limit)
        if concurrency is not None:
            check_count(concurrency, "concurrency", 1)
        place = self._place(callback, threads, processes)
        made = self._function(name, callback, place, milliseconds(timeout), time_limit)
        lane = self._lane_of(name, place, concurrency)
        lane.functions[name] = made
        self._functions[name] = lane
        for link in lane.links:
            link.announce(made)
            if self.running and not self._stops:
                link.start()

    def function(
        self,
        name: str | bytes,
        timeout: float | None = None,
        *,
        threads: bool | None = None,
        concurrency: int | None = None,
        time_limit: float | None = None,
    ) -> Callable[[_C], _C]:
        """`register` as a decorator; the decorated function itself is left as it is.

        Not for a function that runs in a process: while it is decorated, nobody can import it yet.
        """

        def decorate(callback: _C) -> _C:
            self.register(
                name, callback, timeout, threads=threads, concurrency=concurrency, time_limit=time_limit
            )
            return callback

        return decorate

    def unregister(self, function: str | bytes) -> None:
        """Take no more jobs of `function`. Raises `ValueError` if it is not registered.

        The server gives jobs of it that run here now to another worker. They run on, but what they
        return is refused by the server.
        """
        name = function_bytes(function)
        if name not in self._functions:
            raise ValueError(f"the function {function!r} is not registered")
        lane = self._functions.pop(name)
        del lane.functions[name]
        for link in lane.links:
            link.withdraw(name)
        if self._lanes.get(name) is lane:
            del self._lanes[name]
            for link in lane.links:
                link.release().addCallback(self._forget, link)

    def _forget(self, _: object, link: Link) -> None:
        self._links.remove(link)

    def _place(self, callback: Callback, threads: bool | None, processes: bool | None) -> Place:
        """Where a function runs. Raises `ValueError` if it cannot run there."""
        waits = is_async(callback)
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
            return Place.PROCESS
        return Place.THREAD if threads else Place.REACTOR

    def _function(
        self, name: bytes, callback: Callback, place: Place, timeout: int | None, time_limit: float | None
    ) -> Function:
        if place is Place.PROCESS:
            assert self._processes is not None
            # Payloads are made there, and the time counts from when it begins there.
            remote = self._processes.runner(callback, time_limit)
            return Function(name, remote, result_encoder(BYTES, name), None, timeout, None)
        run = callback
        if place is Place.THREAD:
            assert self._threads is not None
            run = self._threads.runner(callback)
        decode = None if self._codec is BYTES else self._codec.decode
        return Function(name, run, result_encoder(self._codec, name), decode, timeout, time_limit)

    # -- lanes ----------------------------------------------------------------------------------

    def _lane_of(self, name: bytes, place: Place, concurrency: int | None) -> _Lane:
        """The lane of a function: the one that all share, unless it has a limit below the worker's.

        A job is asked for before its function is known. So that no job comes that may not run, a function
        with a limit of its own is asked for on connections of its own.
        """
        key: Place | bytes = Place.REACTOR
        limits = self._offer.limits
        pool = {Place.REACTOR: None, Place.THREAD: self._threads, Place.PROCESS: self._processes}[place]
        most = self._concurrency
        if pool is not None and pool.size < most:
            key, most = place, pool.size
            limits = (*limits, pool.limit)
        if concurrency is not None and concurrency < most:
            key = name
            limits = (*limits, Limit(concurrency))
        return self._lanes.get(key) or self._lane(key, limits)

    def _lane(self, key: Place | bytes, limits: tuple[Limit, ...]) -> _Lane:
        """A new lane, not connected yet."""
        functions: dict[bytes, Function] = {}
        lane = _Lane(functions, replace(self._offer, functions=functions, limits=limits))
        for endpoint in self._endpoints:
            link = Link(self._clock, endpoint, lane.offer, self._retry_policy, self._max_packet)
            lane.links.append(link)
        self._links += lane.links
        self._lanes[key] = lane
        return lane

    # -- connecting -----------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Connect, and keep connected until `stop`; behind the end of a stop that is under way.

        Fires once the first connection is made, to whichever server, however many attempts that takes;
        each failed one is logged. Fails with `NotConnected` if the worker is stopped before. To cancel it
        ends only the waiting.
        """
        self.startService()
        started: Deferred[None] = Deferred()
        if self._stops:
            self._starts.append(started)
        else:
            self._tell_when_connected(started)
        return started

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """Take no more jobs, let those that run end, and disconnect.

        Jobs that the servers were asked for already may still come, and are run, as to turn them away would
        cost them an attempt. What still runs after `timeout` seconds is cancelled, as its server gives it to
        another worker when it loses the connection; None stands for the worker's `drain`, 0 waits for none.
        Fires when the connections are gone and the processes have ended. A thread that still runs is
        left alone. The worker can be started again. Can be called again, with a shorter time. To cancel it
        ends only the waiting.
        """
        limit = self._drain if timeout is None else timeout
        _check_drain(limit)
        super().stopService()
        self._turns.closed = True
        self._stops += 1
        gone = gatherResults([link.release() for link in self._links])
        if limit == 0:
            self._cut()
        elif not gone.called:
            cut = self._clock.callLater(limit, self._cut)
            gone.addCallback(lambda _: cut.cancel() if cut.active() else None)
        starts, self._starts = self._starts, []
        for started in starts:
            _not_connected(started)
        return also(gone.addCallback(lambda _: self._stop_pools()).addCallback(self._stopped))

    def startService(self) -> None:
        """Connect, and keep connected; the same as `start` without waiting for the connection."""
        if not self.running:
            super().startService()
            if not self._stops:
                self._begin()

    def stopService(self) -> Deferred[None]:
        """`stop`, with the worker's `drain` as the limit."""
        return self.stop()

    def _begin(self) -> None:
        self._turns.closed = False
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.start()
        for lane in self._lanes.values():
            for link in lane.links:
                link.start()

    def _stopped(self, _: None) -> None:
        """A stop has ended. If the worker was started meanwhile, that is done now."""
        self._stops -= 1
        if self.running and not self._stops:
            self._begin()
            starts, self._starts = self._starts, []
            for started in starts:
                self._tell_when_connected(started)

    def _tell_when_connected(self, started: Deferred[None]) -> None:
        def connected(_: object) -> None:
            if not started.called:
                started.callback(None)

        for link in self._lanes[Place.REACTOR].links:
            link.connected().addCallbacks(connected, lambda _: _not_connected(started))

    def _cut(self) -> None:
        for link in self._links:
            link.cut()

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
