"""What a dashboard shows, kept up to date: a document, and then what has changed in it, once a second.

The changes are JSON merge patches (RFC 7396). A member that is null and one that is missing are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.server import Request

from txgearman.errors import FunctionNotFound, JobNotFound
from txgearman.web.history import COLUMNS, History, Sample
from txgearman.web.looking import finder, jobs_of
from txgearman.web.overview import server_shape
from txgearman.web.shapes import MOST_JOBS, connection_shape, function_shape, job_shape
from txgearman.web.sources import Gearman, Vitals
from txgearman.web.stream import EventStream

INTERVAL: Final = 1.0
"""Seconds between two looks at what has changed."""

SHARE: Final = 20
"""Looking may take one part in so many of the time; where it takes more, looks become rarer."""

TOP: Final = 8
"""Functions that the overview shows."""

MOST_ROWS: Final = 200
"""Rows of a list that are kept up to date at a time."""

SORTS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "name": lambda row: row["name"].lower(),
    "queued": lambda row: -sum(row["queued"].values()),
    "running": lambda row: -row["running"],
    "workers": lambda row: -row["workers"],
    "oldest": lambda row: row.get("since") or float("inf"),
}
"""How functions can be ordered."""

Document = dict[str, Any]


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
        self._call: IDelayedCall | None = None
        # Times are sent as points in time, which stay the same, and not as ages. The wall clock is asked
        # once, so that they do not wobble.
        self._ahead = time.time() - reactor.seconds()
        self._functions: list[Document] | None = None

    def view(self, request: Request, given: dict[str, Any], rights: Document) -> None:
        """Begin to show what `given` says to a reader that has these rights."""
        viewer = Viewer(self, request, self._reactor, given)
        self._viewers[viewer] = None
        if given["view"] == "overview":
            coarse = given["span"] == "day"
            samples = self._history.samples(coarse)
            viewer.stream.send("history", {"columns": COLUMNS, "samples": samples, "coarse": coarse})
        viewer.stream.send("rights", rights)
        viewer.look()
        if self._call is None:
            self._history.listeners.append(self._sampled)
            self._call = self._reactor.callLater(INTERVAL, self._look)

    def leave(self, viewer: Viewer) -> None:
        """A reader has gone."""
        self._viewers.pop(viewer, None)
        if not self._viewers and self._call is not None:
            self._call.cancel()
            self._call = None
            self._history.listeners.remove(self._sampled)

    def _look(self) -> None:
        begun = self._reactor.seconds()
        self._functions = None
        for viewer in list(self._viewers):
            viewer.look()
        self._functions = None
        took = self._reactor.seconds() - begun
        self._call = self._reactor.callLater(max(INTERVAL, took * SHARE), self._look)

    def _sampled(self, sample: Sample) -> None:
        for viewer in list(self._viewers):
            viewer.sampled(sample)

    # -- documents ------------------------------------------------------------------------------

    def document(self, given: dict[str, Any]) -> Document:
        """What is to be seen now."""
        views = {
            "overview": self._overview,
            "functions": self._function_list,
            "function": self._function,
            "jobs": self._jobs,
            "connections": self._connections,
        }
        return views[given["view"]](given)

    def _overview(self, _given: dict[str, Any]) -> Document:
        rows = sorted(self._all_functions(), key=SORTS["queued"])[:TOP]
        return {"server": server_shape(self._gearman, self._vitals), **_listed(rows, "id")}

    def _function_list(self, given: dict[str, Any]) -> Document:
        has = finder(given["search"].decode("utf-8", "backslashreplace").lower())
        rows = [row for row in self._all_functions() if has(row["name"].lower())]
        # Of those that are equal by what is asked for, the name decides.
        rows.sort(key=SORTS["name"])
        rows.sort(key=SORTS[given["sort"]])
        return {"total": len(rows), **_listed(rows[:MOST_ROWS], "id")}

    def _function(self, given: dict[str, Any]) -> Document:
        shown = self._jobs(given)
        try:
            detail = self._gearman.broker.function_detail(given["function"])
        except FunctionNotFound:
            return shown
        return {"function": self._moving(function_shape(detail), "oldest"), **shown}

    def _jobs(self, given: dict[str, Any]) -> Document:
        rows = {}
        for handle in given["handles"].split(b",")[:MOST_ROWS]:
            try:
                detail = self._gearman.broker.job_detail(handle)
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
            shape = connection_shape(connection, jobs_of(self._gearman.broker, connection, MOST_JOBS))
            for job in shape["jobs"]:
                self._moving(job)
            rows.append(shape)
        return {"more": more, **_listed(rows, "number")}

    def _all_functions(self) -> list[Document]:
        """All functions; they are asked for once for all dashboards that look at the same time."""
        if self._functions is None:
            self._functions = [
                self._moving(function_shape(detail), "oldest")
                for detail in self._gearman.broker.function_details()
            ]
        return self._functions

    def _moving(self, shape: Document, age: str = "seconds") -> Document:
        """A point in time, `since`, in place of an age that would change all the time."""
        seconds = shape.pop(age)
        shape["since"] = (
            None if seconds is None else round(self._reactor.seconds() + self._ahead - seconds, 1)
        )
        return shape


class Viewer:
    """One dashboard that looks."""

    def __init__(self, live: Live, request: Request, reactor: IReactorTime, given: dict[str, Any]) -> None:
        self._live = live
        self._given = given
        self._shown: Document = {}
        self.stream = EventStream(request, reactor, lambda: live.leave(self))

    def look(self) -> None:
        """Tell what has changed. One that does not keep up is told later, and then all at once."""
        if self.stream.paused:
            return
        now = self._live.document(self._given)
        patch = merge_patch(self._shown, now)
        if patch or not self._shown:
            self._shown = now
            self.stream.send("patch", {"time": round(time.time(), 2), "patch": patch})

    def sampled(self, sample: Sample) -> None:
        """Tell of a sample, if this is an overview."""
        if self._given["view"] == "overview" and not self.stream.paused:
            self.stream.send("sample", sample)


def _listed(rows: list[Document], key: str) -> Document:
    """Rows by their key, and the order of the keys."""
    return {"rows": {str(row[key]): row for row in rows}, "order": [str(row[key]) for row in rows]}
