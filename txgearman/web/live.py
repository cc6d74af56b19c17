"""What a dashboard shows, kept up to date: a document, and then what has changed in it, once a second.

The changes are JSON merge patches (RFC 7396). A member that is null and one that is missing are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from heapq import nsmallest
from itertools import chain
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from txgearman.broker.views import FunctionDetail
from txgearman.errors import FunctionNotFound, JobNotFound
from txgearman.web.history import COLUMNS, History, Sample
from txgearman.web.looking import finder, jobs_of
from txgearman.web.overview import Totals, server_shape
from txgearman.web.shapes import MOST_JOBS, connection_shape, function_shape, job_shape, text
from txgearman.web.sources import Gearman, Vitals
from txgearman.web.stream import EventStream
from txgearman.web.walking import PIECE, walk

INTERVAL: Final = 1.0
"""Seconds between two looks at what has changed."""

SHARE: Final = 20
"""Looking may take one part in so many of the time; where it takes more, looks become rarer."""

TOP: Final = 8
"""Functions that the overview shows."""

MOST_ROWS: Final = 200
"""Rows of a list that are kept up to date at a time."""

SORTS: Final[dict[str, Callable[[FunctionDetail], Any]]] = {
    "name": lambda function: text(function.name).lower(),
    "queued": lambda function: -sum(function.queued),
    "running": lambda function: -function.running,
    "workers": lambda function: -function.workers,
    "oldest": lambda function: float("inf") if function.oldest is None else -function.oldest,
}
"""How functions can be ordered."""

Document = dict[str, Any]

_log = Logger()


def merge_patch(old: Document, new: Document) -> Document:
    """The merge patch that makes `new` of `old`; empty if they are the same. Neither is changed."""
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


class Live:
    """Keeps all dashboards up to date. It looks only while there is one."""

    def __init__(
        self, gearman: Gearman, vitals: Vitals | None, history: History, reactor: IReactorTime
    ) -> None:
        self._gearman = gearman
        self._vitals = vitals
        self._history = history
        self._reactor = reactor
        self._viewers: dict[Viewer, None] = {}
        self._running = False
        self._call: IDelayedCall | None = None
        # Times are sent as points in time, which stay the same, and not as ages. The wall clock is asked
        # once, so that they do not wobble.
        self._ahead = time.time() - reactor.seconds()

    def view(self, request: Request, given: dict[str, Any], rights: Document) -> None:
        """Begin to show what `given` says to a reader that has these rights."""
        viewer = Viewer(self, request, self._reactor, given)
        self._viewers[viewer] = None
        if given["view"] == "overview":
            coarse = given["span"] == "day"
            samples = self._history.samples(coarse)
            viewer.stream.send("history", {"columns": COLUMNS, "samples": samples, "coarse": coarse})
        viewer.stream.send("rights", rights)
        if not self._running:
            self._running = True
            self._history.listeners.append(self._sampled)
            self._call = self._reactor.callLater(INTERVAL, self._look)
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

    def _look(self) -> None:
        self._call = None
        self._start(self._look_for_all())

    async def _look_for_all(self) -> None:
        begun = self._reactor.seconds()
        try:
            await self._show(list(self._viewers))
        finally:
            # The last may have gone meanwhile, and another come.
            if self._running and self._call is None:
                took = self._reactor.seconds() - begun
                self._call = self._reactor.callLater(max(INTERVAL, took * SHARE), self._look)

    @staticmethod
    def _start(look: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(look).addErrback(partial(_log.failure, "A dashboard cannot be shown"))

    async def _show(self, viewers: list[Viewer]) -> None:
        """Tell viewers what there is to be seen now. Whoever of them wants to see functions looks at all of
        them at the same time."""
        # One that does not keep up is told later, and then all at once.
        picks = {viewer: Picked.of(viewer.given) for viewer in viewers if not viewer.stream.paused}
        picking = [picked for picked in picks.values() if picked is not None]
        totals = Totals(self._gearman.inspection.counts_of_gone)

        def see(functions: list[FunctionDetail]) -> None:
            totals.add(functions)
            for picked in picking:
                picked.see(functions)

        if picking:
            details = self._gearman.inspection.function_details()
            await walk(details, see, self._reactor, max(1, PIECE // len(picking)))
        for viewer, picked in picks.items():
            if viewer in self._viewers:
                viewer.show(self._document(viewer.given, picked, totals))

    def _sampled(self, sample: Sample) -> None:
        for viewer in list(self._viewers):
            viewer.sampled(sample)

    # -- documents ------------------------------------------------------------------------------

    def _document(self, given: dict[str, Any], picked: Picked | None, totals: Totals) -> Document:
        """What is to be seen now."""
        if picked is None:
            views = {"function": self._function, "jobs": self._jobs, "connections": self._connections}
            return views[given["view"]](given)
        rows = [self._moving(function_shape(function), "oldest") for function in picked.functions]
        if given["view"] == "overview":
            return {"server": server_shape(self._gearman, totals, self._vitals), **_listed(rows, "id")}
        return {"total": picked.total, **_listed(rows, "id")}

    def _function(self, given: dict[str, Any]) -> Document:
        shown = self._jobs(given)
        try:
            detail = self._gearman.inspection.function_detail(given["function"])
        except FunctionNotFound:
            return shown
        return {"function": self._moving(function_shape(detail), "oldest"), **shown}

    def _jobs(self, given: dict[str, Any]) -> Document:
        rows = {}
        for handle in given["handles"].split(b",")[:MOST_ROWS]:
            try:
                detail = self._gearman.inspection.job_detail(handle)
            except JobNotFound:
                continue
            rows[detail.handle.decode("utf-8", "backslashreplace")] = self._moving(job_shape(detail))
        return {"rows": rows}

    def _connections(self, given: dict[str, Any]) -> Document:
        rows: list[Document] = []
        more = False
        role, has = given["role"], finder(given["search"])
        for number, connection in self._gearman.connections.items():
            if number <= given["after"]:
                continue
            if role is not None and (role == "worker") != bool(connection.worker.abilities):
                continue
            if not has(connection.client_id) and not has(connection.host.encode()):
                continue
            if len(rows) == MOST_ROWS:
                more = True
                break
            shape = connection_shape(connection, jobs_of(self._gearman.inspection, connection, MOST_JOBS))
            for job in shape["jobs"]:
                self._moving(job)
            rows.append(shape)
        return {"more": more, **_listed(rows, "number")}

    def _moving(self, shape: Document, age: str = "seconds") -> Document:
        """A point in time, `since`, in place of an age that would change all the time."""
        seconds = shape.pop(age)
        shape["since"] = (
            None if seconds is None else round(self._reactor.seconds() + self._ahead - seconds, 1)
        )
        return shape


class Picked:
    """Of all functions, which are given to `see`, those in whose names `search` is: `functions` are the first
    ones of them by `sort`, at most so many, and `total` counts the others too."""

    def __init__(self, search: str, sort: tuple[str, ...], most: int) -> None:
        self._has = finder(search)
        self._sort = [SORTS[name] for name in sort]
        self._most = most
        self.functions: list[FunctionDetail] = []
        self.total = 0

    @classmethod
    def of(cls, given: dict[str, Any]) -> Picked | None:
        """What a view wants; None for one that shows no functions or a single one."""
        if given["view"] == "overview":
            return cls("", ("queued",), TOP)
        if given["view"] != "functions":
            return None
        # Of those that are equal by what is asked for, the name decides.
        return cls(
            given["search"].decode("utf-8", "backslashreplace").lower(), (given["sort"], "name"), MOST_ROWS
        )

    def see(self, functions: list[FunctionDetail]) -> None:
        """Look at some more."""
        found = [function for function in functions if self._has(text(function.name).lower())]
        self.total += len(found)
        self.functions = nsmallest(self._most, chain(self.functions, found), self._place)

    def _place(self, function: FunctionDetail) -> tuple[Any, ...]:
        return tuple(sort(function) for sort in self._sort)


class Viewer:
    """One dashboard that looks at what `given` says."""

    def __init__(self, live: Live, request: Request, reactor: IReactorTime, given: dict[str, Any]) -> None:
        self.given = given
        self._shown: Document = {}
        self.stream = EventStream(request, reactor, lambda: live.leave(self))

    def show(self, now: Document) -> None:
        """Tell what has changed."""
        if self.stream.paused:
            return
        patch = merge_patch(self._shown, now)
        if patch or not self._shown:
            self._shown = now
            self.stream.send("patch", {"time": round(time.time(), 2), "patch": patch})

    def sampled(self, sample: Sample) -> None:
        """Tell of a sample, if this is an overview."""
        if self.given["view"] == "overview" and not self.stream.paused:
            self.stream.send("sample", sample)


def _listed(rows: list[Document], key: str) -> Document:
    """Rows by their key, and the order of the keys."""
    return {"rows": {str(row[key]): row for row in rows}, "order": [str(row[key]) for row in rows]}
