"""The server as a whole over HTTP, and the dashboard's events. The paths are in `routes`."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txgearman.web.api.live import LiveDocuments
from txgearman.web.api.serializers import SERVER
from txgearman.web.api.totals import ServerView, totals_of
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.responses import Response, to_json
from txgearman.web.http.routing import Call
from txgearman.web.http.stream import send_stream_head
from txgearman.web.interfaces import Gearman, ServerHealth
from txgearman.web.settings import WebSettings


class ServerEndpoints:
    """Answers what is asked of the server."""

    def __init__(
        self,
        gearman: Gearman,
        health: ServerHealth | None,
        settings: WebSettings,
        guard: Guard,
        live: LiveDocuments,
        reactor: IReactorTime,
    ) -> None:
        self._gearman = gearman
        self._vitals = health
        self._settings = settings
        self._guard = guard
        self._live = live
        self._reactor = reactor

    async def server(self, _call: Call) -> Response:
        """The server and its totals."""
        totals = await totals_of(self._gearman, self._reactor)
        return Response(to_json(SERVER.serialize(ServerView(self._gearman, totals, self._vitals))))

    def watch_all(self, call: Call) -> None:
        """A live document for a dashboard."""
        if call.is_head:
            send_stream_head(call.request)
            return
        settings = self._settings
        rights = {
            "manage": self._guard.allows(call.request, WebRight.MANAGE),
            "schedule": self._guard.allows(call.request, WebRight.SCHEDULE),
            "read_only": settings.read_only,
            "token": self._guard.knows_tokens,
            "wrong_token": self._guard.shows_wrong_token(call.request),
        }
        self._live.subscribe(call.request, call.arguments, rights)
