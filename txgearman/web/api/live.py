"""Live documents for dashboards: a document, and then once a second what has changed in it.

The changes are JSON merge patches (RFC 7396). A member that is null and one that is missing are the same.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Coroutine
from functools import partial
from heapq import nlargest, nsmallest
from itertools import chain
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from txgearman.broker.views import FunctionDetail
from txgearman.errors import FunctionNotFound, JobNotFound
from txgearman.web.api.history import COLUMNS, History, Sample
from txgearman.web.api.job_search import compile_search, first_jobs_of
from txgearman.web.api.serializers import (
    CONNECTION,
    FUNCTION,
    LISTED_JOB,
    LISTED_SCHEDULE,
    MAX_JOBS,
    SERVER,
    ConnectionView,
    ScheduleView,
)
from txgearman.web.api.totals import ServerView, Totals
from txgearman.web.http.encoding import identifier, text
from txgearman.web.http.stream import EventStream
from txgearman.web.interfaces import Gearman, ServerHealth
from txgearman.web.slices import SLICE, iterate_in_slices

INTERVAL: Final = 1.0
"""Seconds between two updates of a live document."""

SHARE: Final = 20
"""Updates may take one part in so many of the time; where they would take more, they become rarer."""

TOP: Final = 8
"""Functions that the overview shows."""

MAX_ROWS: Final = 200
"""Rows of a list that are kept up to date at a time."""

SORTS: Final[dict[str, Callable[[FunctionDetail], Any]]] = {
    "name": lambda function: text(function.name).lower(),
    "queued": lambda function: -sum(function.queued),
    "running": lambda function: -function.running,
    "workers": lambda function: -function.workers,
    "retrying": lambda function: -function.retrying,
    "scheduled": lambda function: function.retrying - sum(function.scheduled),
    "dead": lambda function: -function.dead,
    "oldest": lambda function: float("inf") if function.oldest is None else -function.oldest,
}
"""How functions can be ordered."""

Document = dict[str, Any]

_log = Logger()


def merge_patch(old: Document, new: Document) -> Document:
    """Compare two documents, and change neither.

    Args:
        old: The document that a reader has.
        new: The document that it should have.

    Returns:
        The merge patch that makes `new` of `old`, empty if they are equal.
    """
    patch: Document = {name: None for name in old if name not in new and old[name] is not None}
    for name, value in new.items():
        before = old.get(name)
        if value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            inner = merge_patch(before, value)
            if inner:
                patch[name] = inner
        else:
            patch[name] = value
    return patch


class LiveDocuments:
    """Keeps all dashboards up to date, and costs nothing while there is none."""

    def __init__(
        self, gearman: Gearman, health: ServerHealth | None, history: History, reactor: IReactorTime
    ) -> None:
        self._gearman = gearman
        self._vitals = health
        self._history = history
        self._reactor = reactor
        self._viewers: dict[Viewer, None] = {}
        self._running = False
        self._call: IDelayedCall | None = None
        # Times are sent as points in time, which stay the same, and not as ages. The wall clock is read once,
        # so that its steps do not change them.
        self._ahead = time.time() - reactor.seconds()

    def subscribe(self, request: Request, arguments: dict[str, Any], rights: Document) -> None:
        """Send a live document to a reader, from now on until it leaves.

        Args:
            request: The reader's request.
            arguments: Its arguments: which view, and of what.
            rights: What the reader may do, for the dashboard's buttons.
        """
        viewer = Viewer(self, request, self._reactor, arguments)
        self._viewers[viewer] = None
        if arguments["view"] == "overview":
            coarse = arguments["span"] == "day"
            samples = self._history.samples(coarse)
            viewer.stream.send("history", {"columns": COLUMNS, "samples": samples, "coarse": coarse})
        viewer.stream.send("rights", rights)
        if not self._running:
            self._running = True
            self._history.listeners.append(self._sampled)
            self._call = self._reactor.callLater(INTERVAL, self._refresh)
        self._start(self._show([viewer]))

    def leave(self, viewer: Viewer) -> None:
        """A reader has gone."""
        self._viewers.pop(viewer, None)
        if not self._viewers and self._running:
            self._running = False
            self._history.listeners.remove(self._sampled)
            if self._call is not None:
                self._call.cancel()
                self._call = None

    def _refresh(self) -> None:
        self._call = None
        self._start(self._refresh_all())

    async def _refresh_all(self) -> None:
        begun = self._reactor.seconds()
        try:
            await self._show(list(self._viewers))
        finally:
            # The last may have gone meanwhile, and another come.
            if self._running and self._call is None:
                took = self._reactor.seconds() - begun
                self._call = self._reactor.callLater(max(INTERVAL, took * SHARE), self._refresh)

    @staticmethod
    def _start(work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(partial(_log.failure, "A dashboard could not be updated"))

    async def _show(self, viewers: list[Viewer]) -> None:
        """Send viewers what has changed. Viewers of functions share one iteration over all functions."""
        # A viewer that does not keep up is skipped, and gets all changes at once later.
        selections = {
            viewer: FunctionSelection.of(viewer.arguments) for viewer in viewers if not viewer.stream.paused
        }
        asked = [selection for selection in selections.values() if selection is not None]
        totals = Totals(self._gearman.inspection.counts_of_gone)

        def take(functions: list[FunctionDetail]) -> None:
            totals.add(functions)
            for selection in asked:
                selection.add(functions)

        if asked:
            details = self._gearman.inspection.function_details()
            await iterate_in_slices(details, take, self._reactor, max(1, SLICE // len(asked)))
        for viewer, selection in selections.items():
            if viewer in self._viewers:
                viewer.show(self._document(viewer.arguments, selection, totals))

    def _sampled(self, sample: Sample) -> None:
        for viewer in list(self._viewers):
            viewer.sampled(sample)

    # -- documents ------------------------------------------------------------------------------

    def _document(
        self, arguments: dict[str, Any], selection: FunctionSelection | None, totals: Totals
    ) -> Document:
        """The document that the arguments ask for, as it is now."""
        if selection is None:
            views = {
                "function": self._function,
                "jobs": self._jobs,
                "dead": self._dead,
                "schedules": self._schedules,
                "connections": self._connections,
                "activity": self._activity,
            }
            return views[arguments["view"]](arguments)
        rows = [self._moving(FUNCTION.serialize(function), "oldest") for function in selection.functions]
        if arguments["view"] == "overview":
            server = SERVER.serialize(ServerView(self._gearman, totals, self._vitals))
            return {"server": server, **_listed(rows, "id")}
        return {"total": selection.total, **_listed(rows, "id")}

    def _function(self, arguments: dict[str, Any]) -> Document:
        shown = self._jobs(arguments)
        try:
            detail = self._gearman.inspection.function_detail(arguments["function"])
        except FunctionNotFound:
            return shown
        return {"function": self._moving(FUNCTION.serialize(detail), "oldest"), **shown}

    def _jobs(self, arguments: dict[str, Any]) -> Document:
        rows = {}
        for handle in arguments["handles"].split(b",")[:MAX_ROWS]:
            try:
                detail = self._gearman.inspection.job_detail(handle)
            except JobNotFound:
                continue
            rows[detail.handle.decode("utf-8", "backslashreplace")] = self._moving(
                LISTED_JOB.serialize(detail)
            )
        return {"rows": rows, "retrying": self._gearman.inspection.retrying}

    def _dead(self, arguments: dict[str, Any]) -> Document:
        """How many dead jobs there are, by function, and what is live of the jobs that are shown."""
        counts = self._gearman.dead_jobs.counts
        first = nlargest(MAX_ROWS, counts.items(), key=operator.itemgetter(1))
        functions = [{"id": identifier(name), "name": text(name), "dead": count} for name, count in first]
        total = sum(counts.values())
        return {"total": total, "functions": _listed(functions, "id"), **self._jobs(arguments)}

    def _schedules(self, arguments: dict[str, Any]) -> Document:
        """The first schedules by name that are looked for."""
        scheduling = self._gearman.scheduling
        matches = compile_search(arguments["search"].lower())
        names = [name for name in scheduling.schedules.names() if matches(name.lower())]
        rows = [
            LISTED_SCHEDULE.serialize(
                ScheduleView(scheduling.schedules.detail(name), scheduling.is_of_file(name))
            )
            for name in names[:MAX_ROWS]
        ]
        return {"total": len(names), **_listed(rows, "id")}

    def _activity(self, _arguments: dict[str, Any]) -> Document:
        """How far the events are; the page asks for those that are new."""
        return {"last": self._gearman.activity.last_number}

    def _connections(self, arguments: dict[str, Any]) -> Document:
        rows: list[Document] = []
        more = False
        role, matches = arguments["role"], compile_search(arguments["search"])
        for number, connection in self._gearman.connections.items():
            if number <= arguments["after"]:
                continue
            if role is not None and (role == "worker") != bool(connection.worker.abilities):
                continue
            if not matches(connection.client_id) and not matches(connection.host.encode()):
                continue
            if len(rows) == MAX_ROWS:
                more = True
                break
            jobs = first_jobs_of(self._gearman.inspection, connection, MAX_JOBS)
            row = CONNECTION.serialize(ConnectionView(connection, jobs))
            for job in row["jobs"]:
                self._moving(job)
            rows.append(row)
        return {"more": more, "total": self._count(arguments), **_listed(rows, "number")}

    def _count(self, arguments: dict[str, Any]) -> int | None:
        """How many connections all pages have together; None for a search, which looks no further than it has
        to."""
        if arguments["search"]:
            return None
        connections = self._gearman.connections
        if arguments["role"] is None:
            return len(connections)
        workers = sum(bool(connection.worker.abilities) for connection in connections.values())
        return workers if arguments["role"] == "worker" else len(connections) - workers

    def _moving(self, row: Document, age: str = "seconds") -> Document:
        """A point in time, `since`, in place of an age that would change all the time."""
        seconds = row.pop(age)
        row["since"] = None if seconds is None else round(self._reactor.seconds() + self._ahead - seconds, 1)
        return row


class FunctionSelection:
    """The first functions, in an order, whose names contain a text.

    Pass all functions to `add`. Then `functions` are the first that match, and `total` is how many match.

    Args:
        search: The text, in lower case.
        sort: Names of `SORTS`. Where the first finds two equal, the next decides.
        limit: How many functions are kept.
    """

    def __init__(self, search: str, sort: tuple[str, ...], limit: int) -> None:
        self._matches = compile_search(search)
        self._sort = [SORTS[name] for name in sort]
        self._limit = limit
        self.functions: list[FunctionDetail] = []
        self.total = 0

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> FunctionSelection | None:
        """What a view needs; None for a view that shows no list of functions."""
        if arguments["view"] == "overview":
            return cls("", ("queued",), TOP)
        if arguments["view"] != "functions":
            return None
        # Where the order asked for is equal, the name decides.
        return cls(
            arguments["search"].decode("utf-8", "backslashreplace").lower(),
            (arguments["sort"], "name"),
            MAX_ROWS,
        )

    def add(self, functions: list[FunctionDetail]) -> None:
        """Consider more functions."""
        found = [function for function in functions if self._matches(text(function.name).lower())]
        self.total += len(found)
        self.functions = nsmallest(self._limit, chain(self.functions, found), self._sort_key)

    def _sort_key(self, function: FunctionDetail) -> tuple[Any, ...]:
        return tuple(sort(function) for sort in self._sort)


class Viewer:
    """One dashboard, and what it was sent. `arguments` say what it shows."""

    def __init__(
        self, live: LiveDocuments, request: Request, reactor: IReactorTime, arguments: dict[str, Any]
    ) -> None:
        self.arguments = arguments
        self._sent: Document = {}
        self.stream = EventStream(request, reactor, lambda: live.leave(self))

    def show(self, now: Document) -> None:
        """Send what has changed since the last time, unless the reader does not keep up."""
        if self.stream.paused:
            return
        patch = merge_patch(self._sent, now)
        if patch or not self._sent:
            self._sent = now
            self.stream.send("patch", {"time": round(time.time(), 2), "patch": patch})

    def sampled(self, sample: Sample) -> None:
        """Send a sample of the history, if this is an overview."""
        if self.arguments["view"] == "overview" and not self.stream.paused:
            self.stream.send("sample", sample)


def _listed(rows: list[Document], key: str) -> Document:
    """Rows by their key, and the order of the keys."""
    return {"rows": {str(row[key]): row for row in rows}, "order": [str(row[key]) for row in rows]}
