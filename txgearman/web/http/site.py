"""The factory of HTTP connections: how many there may be, and what every request passes. `root` has the
resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site

from txgearman.web.http.channel import LimitedChannel, refusal
from txgearman.web.http.guard import Guard
from txgearman.web.http.request import LimitedRequest
from txgearman.web.http.responses import HTTPProblem, ProblemResource
from txgearman.web.http.time_slice import TimeSlice
from txgearman.web.interfaces import HTTPLimits
from txgearman.web.settings import WebSettings

IDLE_LIMIT: Final = 60.0
"""Seconds without a byte after which a connection is closed that has no request under way."""

PATIENCE: Final = 5.0
"""Seconds that a connection may be without a request that is being answered while others want in."""


class WebSite(Site):
    """Serves `root` to whom `guard` lets pass.

    Args:
        root: The root of all resources.
        settings: What the web side may do.
        guard: Who may send a request.
        limits: The limits of connections and requests.
        reactor: The clock of all time limits.
        on_start: Called when the site begins to listen.
        on_stop: Called when it listens no more.
    """

    noisy = False
    protocol: Any = LimitedChannel
    requestFactory = LimitedRequest

    def __init__(
        self,
        root: IResource,
        settings: WebSettings,
        guard: Guard,
        limits: HTTPLimits,
        reactor: IReactorTime,
        on_start: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__(root, timeout=IDLE_LIMIT, reactor=reactor)
        self.max_body = settings.max_data
        self.admission = limits.web_admission
        self.unfinished = limits.unfinished
        self.budget = limits.budget
        self.time_slice = TimeSlice(reactor)
        self._guard = guard
        self._on_start = on_start
        self._on_stop = on_stop

    def startFactory(self) -> None:
        super().startFactory()
        self._on_start()

    def stopFactory(self) -> None:
        self._on_stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone: the limits here are those of its channel."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Request) -> IResource:
        try:
            self._guard.check_origin(request)
        except HTTPProblem as problem:
            return ProblemResource(problem)
        return getChildForRequest(self.resource, request)  # type: ignore[no-any-return]

    def log(self, request: object) -> None:
        """Log no requests: an open dashboard would fill the log."""


class LimitedSite(ServerFactory):
    """A site with limits of connections, to be given to a listening endpoint.

    Args:
        site: The site.

    Attributes:
        site: The site.
        protocols: The connections that there are, in the order in which they came.
    """

    noisy = False

    def __init__(self, site: WebSite) -> None:
        self.site = site
        self.protocols: dict[LimitedChannel, None] = {}

    def doStart(self) -> None:
        self.site.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.site.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        admission = self.site.admission
        why = admission.refuse(addr)
        if not why and admission.count >= admission.limit and not self._make_room():
            why = admission.refuse_for_all(addr)
        if why:
            return refusal(why)
        channel: Any = self.site.buildProtocol(addr)
        channel.registry = self
        return channel  # type: ignore[no-any-return]

    def entered(self, channel: LimitedChannel) -> None:
        """Count a connection.

        Args:
            channel: The connection.
        """
        self.protocols[channel] = None
        self.site.admission.entered(channel.getPeer())

    def left(self, channel: LimitedChannel) -> None:
        """Count a connection no more.

        Args:
            channel: The connection.
        """
        del self.protocols[channel]
        self.site.admission.left(channel.getPeer())

    def _make_room(self) -> bool:
        """Drop the connection that has been without a request under way for longest, if any was for long.
        This walks all connections."""
        now = self.site.reactor.seconds()
        waiting = [
            (channel.waits_since, place, channel)
            for place, channel in enumerate(self.protocols)
            if channel.waits_since is not None and now - channel.waits_since >= PATIENCE
        ]
        if not waiting:
            return False
        *_, channel = min(waiting)
        # It may take a turn of the reactor to go, in which it is not to be chosen again.
        channel.waits_since = None
        channel.forceAbortClient()
        return True

    def close(self) -> None:
        """End all connections, whatever is under way on them."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()
