"""The server as a Twisted service: the one place that knows everyone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.application.strports import service as listening_service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txgearman.server.factory import GearmanServerFactory
from txgearman.server.settings import Settings

_log = Logger()

GRACE_CHECK: Final = 0.25
"""Seconds between two looks at whether the last job is done, once a graceful shutdown was asked for."""


def check_endpoint(reactor: Any, description: str) -> None:
    """Raises `ValueError` if `description` is not that of a server endpoint."""
    try:
        serverFromString(reactor, description)
    # Each kind of endpoint has its own parser, and they raise what they like.
    except Exception as error:
        raise ValueError(f"{description!r} is no server endpoint: {error}") from error


class GearmanService(MultiService):
    """A Gearman job server. Several in one process know nothing of each other.

    `factory` is the `GearmanServerFactory`, with the broker and the connections. `on_shutdown` is
    called, without arguments, when an administrator's ``shutdown`` is to end the server; by default
    that stops this service and nothing else of its application.
    """

    def __init__(
        self, reactor: Any, settings: Settings, on_shutdown: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.factory = GearmanServerFactory(reactor, settings, on_shutdown=self.shut_down)
        self._on_shutdown = self.stopService if on_shutdown is None else on_shutdown
        self._reactor = reactor
        self._grace: LoopingCall | None = None
        for description in settings.listen:
            check_endpoint(reactor, description)
            listener = listening_service(description, self.factory, reactor=reactor)
            listener.setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        _log.info("Gearman job server listens at {endpoints}", endpoints=", ".join(self.settings.listen))

    async def _stop(self) -> None:
        if self._grace is not None and self._grace.running:
            self._grace.stop()
        await maybeDeferred(super().stopService)
        self.factory.stop()
        for connection in list(self.factory.connections.values()):
            connection.close()

    def stopService(self) -> Deferred[Any]:
        """Stop listening and close all connections. What is in memory is lost."""
        return Deferred.fromCoroutine(self._stop())

    def shut_down(self, graceful: bool) -> None:
        """End the server: at once, or `graceful`, which means that nobody new is let in and the end
        comes when there is no job left, waiting ones and ones scheduled for a later time included."""
        if not graceful:
            # Not before the answer to the administrator is under way.
            self._reactor.callLater(0, self._on_shutdown)
            return
        if self._grace is not None:
            return
        _log.info("Graceful shutdown: {total} jobs to be done", total=self.factory.broker.total)
        gatherResults([maybeDeferred(listener.stopService) for listener in self])
        self._grace = LoopingCall(self._end_when_done)
        self._grace.clock = self._reactor
        self._grace.start(GRACE_CHECK, now=False)

    def _end_when_done(self) -> None:
        if not self.factory.broker.total:
            assert self._grace is not None
            self._grace.stop()
            self._on_shutdown()


def make_service(
    settings: Settings | None = None,
    *,
    reactor: Any = None,
    on_shutdown: Callable[[], object] | None = None,
) -> GearmanService:
    """A job server to put into an application or a `MultiService`.

    `settings` default to `Settings`, `reactor` to the installed one. `on_shutdown` is called when an
    administrator says ``shutdown``; by default that stops this service alone. Raises `ValueError` for
    an endpoint description that cannot be understood.
    """
    if reactor is None:
        from twisted.internet import reactor
    return GearmanService(reactor, Settings() if settings is None else settings, on_shutdown)
