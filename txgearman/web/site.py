"""The web side as one Twisted factory: what every request passes, and the tree of resources."""

from __future__ import annotations

import time
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from txgearman.version import VERSION
from txgearman.web.answers import Branch, HTTPProblem, ProblemResource
from txgearman.web.api import Api, GearmandStyle
from txgearman.web.channel import LimitedChannel, refusal
from txgearman.web.dashboard import add_dashboard
from txgearman.web.guard import SECURITY_HEADERS, Guard
from txgearman.web.health import Health
from txgearman.web.history import History
from txgearman.web.live import Live
from txgearman.web.overview import measured
from txgearman.web.request import LimitedRequest
from txgearman.web.settings import WebSettings
from txgearman.web.sources import Gearman, Vitals
from txgearman.web.time_slice import TimeSlice

IDLE_LIMIT: Final = 60.0
"""Seconds without a byte after which a connection ends that has no request under way."""

PATIENCE: Final = 5.0
"""Seconds that a connection may be without a request that is being answered while others want in."""

_SERVER: Final = f"txgearman/{VERSION}".encode()
_log = Logger()


class WebSite(Site):
    """Serves `root` to whom `guard` lets pass."""

    noisy = False
    protocol: Any = LimitedChannel
    requestFactory = LimitedRequest

    def __init__(
        self,
        root: IResource,
        settings: WebSettings,
        guard: Guard,
        history: History,
        gearman: Gearman,
        reactor: IReactorTime,
    ) -> None:
        super().__init__(root, timeout=IDLE_LIMIT, reactor=reactor)
        self.max_body = settings.max_data
        self.admission = gearman.web_admission
        self.unfinished = gearman.unfinished
        self.budget = gearman.budget
        self.time_slice = TimeSlice(reactor)
        self._guard = guard
        self._history = history

    def startFactory(self) -> None:
        super().startFactory()
        self._history.start()

    def stopFactory(self) -> None:
        self._history.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone: the limits here are those of its channel."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Request) -> IResource:
        request.setHeader(b"Server", _SERVER)
        for name, value in SECURITY_HEADERS:
            request.setHeader(name, value)
        try:
            self._guard.check_origin(request)
        except HTTPProblem as problem:
            return ProblemResource(problem)
        return super().getResourceFor(request)  # type: ignore[no-any-return]

    def log(self, request: object) -> None:
        """Requests are not logged: a dashboard that is looked at would fill the log."""


class Root(Branch):
    """The root of all resources. A POST or PUT to a path that is not in the tree is a job."""

    def __init__(self, gearman: Gearman, settings: WebSettings, guard: Guard, reactor: IReactorTime) -> None:
        super().__init__()
        self._has = gearman, settings, guard, reactor

    def getChild(self, path: bytes, request: Request) -> Resource:
        function = b"/".join([path, *(request.postpath or [])]).lstrip(b"/")
        if request.method in (b"POST", b"PUT") and function:
            return GearmandStyle(function, *self._has)
        return super().getChild(path, request)


def make_site(
    gearman: Gearman, settings: WebSettings, reactor: IReactorTime, vitals: Vitals | None = None
) -> WebSite:
    """The web side of `gearman`. Without `vitals` it has no metrics and tells nothing of its health."""
    guard = Guard(settings, lambda: gearman.access)
    root = Root(gearman, settings, guard, reactor)
    history = History(lambda: measured(gearman, reactor), reactor, time.time)
    live = Live(gearman, vitals, history, reactor)
    root.putChild(b"api", Api(gearman, vitals, settings, guard, live, reactor))
    add_dashboard(root)
    if vitals is not None:
        root.putChild(b"healthz", Health(list))
        root.putChild(b"readyz", Health(vitals.problems))
        root.putChild(b"metrics", _metrics(gearman, vitals, guard, reactor))
    return WebSite(root, settings, guard, history, gearman, reactor)


def _metrics(gearman: Gearman, vitals: Vitals, guard: Guard, reactor: IReactorTime) -> Resource:
    try:
        from txgearman.web.metrics import MetricsResource
    except ImportError:
        text = "Metrics need prometheus_client, which pip install 'txgearman[web]' installs."
        _log.warn("/metrics is not served. {text}", text=text)
        return ProblemResource(HTTPProblem(501, "not-installed", text))
    return MetricsResource(gearman, vitals, guard, reactor)


class LimitedSite(WrappingFactory[ProtocolWrapper]):
    """A site with limits of connections, to be given to a listening endpoint."""

    noisy = False
    wrappedFactory: WebSite

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # type: ignore[override]
        admission = self.wrappedFactory.admission
        why = admission.refuse(addr)
        if not why and admission.count >= admission.limit and not self._make_room():
            why = admission.refuse_for_all(addr)
        return refusal(why) if why else super().buildProtocol(addr)

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)
        self.wrappedFactory.admission.entered(p.getPeer())

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self.wrappedFactory.admission.left(p.getPeer())

    def _make_room(self) -> bool:
        """Drop the connection that has been without a request under way for longest, if any was for long.
        This walks all connections."""
        now = self.wrappedFactory.reactor.seconds()
        waiting = [
            (channel.waits_since, place, channel)
            for place, channel in enumerate(protocol.wrappedProtocol for protocol in self.protocols)
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
