"""What a text leads to, over HTTP: jobs by handle and unique, functions by name. The path is in `routes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txgearman.broker.views import FunctionView, JobDetail
from txgearman.errors import JobNotFound, Refused
from txgearman.web.api.clients import refusal
from txgearman.web.api.job_search import compile_search
from txgearman.web.api.serializers import LISTED_JOB
from txgearman.web.http.encoding import identifier, text
from txgearman.web.http.responses import Response, to_json
from txgearman.web.http.routing import Call
from txgearman.web.interfaces import Gearman
from txgearman.web.slices import iterate_in_slices

MAX_FUNCTIONS: Final = 20
"""Functions that a search names; the others are counted."""


class SearchEndpoints:
    """Answers what a text leads to."""

    def __init__(self, gearman: Gearman, reactor: IReactorTime) -> None:
        self._gearman = gearman
        self._reactor = reactor

    async def find(self, call: Call) -> Response:
        """The job with this handle, the newest one with this unique, and the functions with this in their
        names."""
        wanted = call.arguments["text"]
        lookup = self._gearman.lookup
        jobs = {}
        for verb in (lookup.find, lookup.find_unique):
            job = await _ask(verb, wanted)
            if job is not None:
                jobs[job.handle] = job
        matches = compile_search(wanted.lower())
        names: list[bytes] = []

        def take(functions: list[FunctionView]) -> None:
            names.extend(view.name for view in functions if matches(view.name.lower()))

        await iterate_in_slices(self._gearman.inspection.functions(), take, self._reactor)
        # What is meant is mostly the name itself, or begins with it.
        names.sort(key=lambda name: (not name.lower().startswith(wanted.lower()), name))
        functions = [{"id": identifier(name), "name": text(name)} for name in names[:MAX_FUNCTIONS]]
        listed = [LISTED_JOB.serialize(job) for job in jobs.values()]
        return Response(to_json({"jobs": listed, "functions": functions, "total": len(names)}))


async def _ask(verb: Callable[[bytes, Callable[[Any], None]], None], wanted: bytes) -> JobDetail | None:
    told: Deferred[JobDetail | Refused] = Deferred()
    verb(wanted, told.callback)
    found = await told
    if isinstance(found, JobNotFound):
        return None
    if isinstance(found, Refused):
        raise refusal(found)
    return found
