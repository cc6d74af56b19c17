"""The worker as its users see it: which functions it has, and staying connected.

What is said on a connection is in `protocol`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from txgearman.connection.arguments import function_bytes, name_bytes
from txgearman.connection.endpoint import endpoint_from
from txgearman.connection.protocol import PacketFactory
from txgearman.errors import NotConnected
from txgearman.wire.limits import MAX_CLIENT_ID, MAX_PACKET
from txgearman.worker.functions import Callback, Function, milliseconds
from txgearman.worker.protocol import Offer, WorkerProtocol

_C = TypeVar("_C", bound=Callback)


class Worker(Service):
    """Runs jobs for one server. Start it with `start`, or give it to an application as a service.

    A lost connection is made again, with a growing pause between attempts, and the functions are
    offered again on it. Jobs that run when a connection is lost are cancelled and their outcome is
    discarded, as the server gives them to another worker; so a job may be run more than once.

    `reactor` is the reactor, or in tests a clock. `endpoint` is the server's address, as the string of a
    Twisted client endpoint such as ``tcp:127.0.0.1:4730`` or as an `IStreamClientEndpoint`.
    `client_id` is a name of at most 127 bytes that the server shows for this worker, str or bytes.
    `concurrency` is how many jobs may run at once; more than one is of use where functions return
    Deferreds or coroutines. `retry_policy` takes the number of failed attempts to connect and returns
    the pause in seconds before the next, Twisted's `backoffPolicy` by default. `max_packet` is the
    largest body of a packet in bytes that is sent or accepted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str | IStreamClientEndpoint,
        *,
        client_id: str | bytes | None = None,
        concurrency: int = 1,
        retry_policy: Callable[[int], float] | None = None,
        max_packet: int = MAX_PACKET,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"a worker runs at least one job at a time, not {concurrency}")
        name = None if client_id is None else name_bytes(client_id, "the client id", MAX_CLIENT_ID)
        self._clock = reactor
        self._max_packet = max_packet
        self._functions: dict[bytes, Function] = {}
        self._offer = Offer(self._functions, name, concurrency)
        self._protocol: WorkerProtocol | None = None
        self._connector = ClientService(
            endpoint_from(reactor, endpoint), PacketFactory(self._build), retry_policy, reactor
        )

    # -- functions ------------------------------------------------------------------------------

    def register(self, function: str | bytes, callback: Callback, timeout: float | None = None) -> None:
        """Run the jobs of `function` by calling `callback` with a `Job`.

        `callback` returns the result as bytes, None for an empty one, or a Deferred or coroutine of
        these. If it raises `FailJob`, the job fails. If it raises anything else that is logged, and
        the submitter is told the type and the message. Anything but bytes and None is a `TypeError`.

        `timeout` is told to the server: so many seconds after it gave out a job it gives it to another
        worker too. It does not stop the callback; what that returns later is refused. gearmand counts
        less than one second as one, and guards only the newest job of a connection.

        `function` is a name, str (as UTF-8) or bytes. Can be called at any time. Raises `ValueError`
        for a function that is registered already and for bad names and time limits.
        """
        name = function_bytes(function)
        if not callable(callback):
            raise TypeError(f"the callback of {function!r} cannot be called: {callback!r}")
        if name in self._functions:
            raise ValueError(f"the function {function!r} is registered already")
        self._functions[name] = Function(name, callback, milliseconds(timeout))
        if self._protocol is not None:
            self._protocol.announce(self._functions[name])

    def function(self, name: str | bytes, timeout: float | None = None) -> Callable[[_C], _C]:
        """`register` as a decorator; the decorated function itself is left as it is."""

        def decorate(callback: _C) -> _C:
            self.register(name, callback, timeout)
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
        del self._functions[name]
        if self._protocol is not None:
            self._protocol.withdraw(name)

    # -- connecting -----------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Connect, and keep connected until `stop`.

        Fires once the first connection is made, however many attempts that takes; each failed one is
        logged. Fails with `NotConnected` if the worker is stopped before. To cancel it ends only the
        waiting.
        """
        if not self.running:
            self.startService()
        return self._connector.whenConnected().addCallbacks(lambda _: None, self._not_connected)

    def stop(self) -> Deferred[None]:
        """Disconnect, as `stopService` does. Fires when the connection is gone."""
        return self.stopService()

    def startService(self) -> None:
        """Connect, and keep connected; the same as `start` without waiting for the connection."""
        super().startService()
        self._connector.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect. Jobs that run are cancelled; the server gives them to another worker.

        Fires when the connection is gone. The worker can be started again.
        """
        super().stopService()
        if self._protocol is not None:
            self._protocol.close("the worker was stopped")
        return self._connector.stopService()

    def _not_connected(self, failure: Failure) -> Failure:
        if self.running:
            return failure
        raise NotConnected("the worker was stopped before it was connected")

    def _build(self) -> WorkerProtocol:
        return WorkerProtocol(self._clock, self._max_packet, self._offer, self._opened, self._ended)

    def _opened(self, protocol: WorkerProtocol) -> None:
        self._protocol = protocol

    def _ended(self, protocol: WorkerProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
