"""The tree of resources, and the one place that puts the web side together."""

from __future__ import annotations

import time

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from txgearman.web.api.function_history import FunctionHistory
from txgearman.web.api.history import History
from txgearman.web.api.live import LiveDocuments
from txgearman.web.api.plots import PlotSampler
from txgearman.web.api.routes import Api
from txgearman.web.api.submission import GearmandStyle, submit_parameters
from txgearman.web.api.totals import measured
from txgearman.web.dashboard.files import add_dashboard
from txgearman.web.health import HealthResource
from txgearman.web.http.guard import Guard
from txgearman.web.http.responses import Branch, HTTPProblem, ProblemResource
from txgearman.web.http.routing import Parameters
from txgearman.web.http.site import WebSite
from txgearman.web.interfaces import Gearman, ServerHealth
from txgearman.web.settings import WebSettings

_log = Logger()


class Root(Branch):
    """The root of all resources. A POST or PUT to a path that is not in the tree is a job."""

    def __init__(self, gearman: Gearman, settings: WebSettings, guard: Guard, reactor: IReactorTime) -> None:
        super().__init__()
        self._has = gearman, Parameters(submit_parameters(settings)), settings, guard, reactor

    def getChild(self, path: bytes, request: Request) -> Resource:
        function = b"/".join([path, *(request.postpath or [])]).lstrip(b"/")
        if request.method in (b"POST", b"PUT") and function:
            return GearmandStyle(function, *self._has)
        return super().getChild(path, request)


def make_site(
    gearman: Gearman, settings: WebSettings, reactor: IReactorTime, health: ServerHealth | None = None
) -> WebSite:
    """Put the web side of a server together.

    Args:
        gearman: The server.
        settings: What the web side may do.
        reactor: The reactor, or the clock of a test.
        health: How the server is. Without it there are no metrics, and no ``/healthz`` and ``/readyz``.

    Returns:
        The site, to be wrapped by `LimitedSite` for listening.
    """
    guard = Guard(settings, lambda: gearman.access)
    root = Root(gearman, settings, guard, reactor)
    history = History(lambda: measured(gearman, reactor), reactor, time.time)
    functions = FunctionHistory(time.time)
    sampler = PlotSampler(gearman, history, functions, reactor, time.time)
    live = LiveDocuments(gearman, health, history, reactor)
    root.putChild(b"api", Api(gearman, health, settings, guard, live, functions, reactor))
    add_dashboard(root)
    if health is not None:
        root.putChild(b"healthz", HealthResource(list))
        root.putChild(b"readyz", HealthResource(health.problems))
        root.putChild(b"metrics", _metrics(gearman, health, guard, reactor))
    return WebSite(root, settings, guard, gearman, reactor, sampler.start, sampler.stop)


def _metrics(gearman: Gearman, health: ServerHealth, guard: Guard, reactor: IReactorTime) -> Resource:
    try:
        from txgearman.web.metrics import MetricsResource
    except ImportError:
        text = "Metrics need prometheus_client, which pip install 'txgearman[web]' installs."
        _log.warn("/metrics is not served. {text}", text=text)
        return ProblemResource(HTTPProblem(501, "not-installed", text))
    return MetricsResource(gearman, health, guard, reactor)
