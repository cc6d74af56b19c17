"""What was done with the server, over HTTP. The path is in `routes`."""

from __future__ import annotations

from typing import Final

from txgearman.web.api.job_search import compile_search
from txgearman.web.api.serializers import EVENT, event_text
from txgearman.web.http.encoding import text
from txgearman.web.http.responses import Response, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Gearman

BY: Final = ("people", "server")
"""Whose events are shown: those of peers, or those of the server itself."""


class ActivityEndpoints:
    """Answers what has been done."""

    def __init__(self, gearman: Gearman) -> None:
        self._gearman = gearman

    def events(self, call: Call) -> Response:
        """A page of events, the newest first. There are so few of them that all are looked at."""
        by, before, limit = call.arguments["by"], call.arguments["before"], call.arguments["limit"]
        matches = compile_search(text(call.arguments["search"]).lower())
        found = [
            event
            for event in self._gearman.activity.newest_first()
            if (by is None or (by == "people") == (event.actor is not None))
            and matches(event_text(event).lower())
        ]
        total = len(found)
        if before is not None:
            found = [event for event in found if event.number < before]
        shown = found[:limit]
        next_cursor = shown[-1].number if len(found) > limit else None
        events = [EVENT.serialize(event) for event in shown]
        return Response(to_json({"events": events, "total": total, "next": next_cursor}))
