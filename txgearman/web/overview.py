"""The server as a whole: its totals now, and how they went over time."""

from __future__ import annotations

import operator
import os
import platform
from typing import Any

from twisted.internet.interfaces import IReactorTime

from txgearman.broker.meters import Counts
from txgearman.broker.states import PRIORITIES
from txgearman.broker.views import FunctionDetail
from txgearman.version import VERSION
from txgearman.web.shapes import by_priority
from txgearman.web.sources import Gearman, Vitals
from txgearman.web.walking import walk


def resident_memory() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class Totals:
    """The numbers of all functions together. Give it all of them by `add`; to begin with it has what `gone`
    counts."""

    def __init__(self, gone: Counts) -> None:
        self.functions = 0
        self.queued = [0] * PRIORITIES
        self.scheduled = 0
        self.running = 0
        self.paused = 0
        self.submitted = gone.submitted
        self.completed = gone.completed
        self.failed = sum(gone.uncompleted)
        self.retried = gone.retried

    def add(self, functions: list[FunctionDetail]) -> None:
        """Count these too."""
        self.functions += len(functions)
        for function in functions:
            self.submitted += function.submitted
            self.completed += function.completed
            self.failed += function.failed
            self.retried += function.retried
            self.paused += function.paused
            if function.total:
                self.queued = list(map(operator.add, self.queued, function.queued))
                self.scheduled += sum(function.scheduled)
                self.running += function.running


async def totals_of(gearman: Gearman, reactor: IReactorTime) -> Totals:
    """The numbers of all functions of a server."""
    totals = Totals(gearman.inspection.counts_of_gone)
    await walk(gearman.inspection.function_details(), totals.add, reactor)
    return totals


async def measured(gearman: Gearman, reactor: IReactorTime) -> dict[str, Any]:
    """The numbers that are followed over time."""
    totals = await totals_of(gearman, reactor)
    return {
        "submitted": totals.submitted,
        "completed": totals.completed,
        "failed": totals.failed,
        "queued": sum(totals.queued),
        "running": totals.running,
        "connections": len(gearman.connections),
        "memory": resident_memory(),
    }


def store_shape(vitals: Vitals | None) -> dict[str, Any] | None:
    """How the saving of jobs is; None without a store."""
    saved = None if vitals is None else vitals.saved()
    if saved is None:
        return None
    return {
        "available": saved.available,
        "saved": saved.saved,
        "unsaved": saved.unsaved,
        "lag": round(saved.lag, 3),
        "commits": saved.commits,
        "failures": saved.failures,
    }


def server_shape(gearman: Gearman, totals: Totals, vitals: Vitals | None = None) -> dict[str, Any]:
    """The server and its totals. This walks all connections."""
    workers = sum(bool(connection.worker.abilities) for connection in gearman.connections.values())
    return {
        "version": VERSION,
        "host": platform.node(),
        "pid": os.getpid(),
        "memory": resident_memory(),
        "total": gearman.inspection.total,
        "queued": by_priority(tuple(totals.queued)),
        "scheduled": totals.scheduled,
        "running": totals.running,
        "submitted": totals.submitted,
        "completed": totals.completed,
        "failed": totals.failed,
        "retried": totals.retried,
        "functions": totals.functions,
        "paused": totals.paused,
        "connections": len(gearman.connections),
        "workers": workers,
        "store": store_shape(vitals),
        "limits": [
            {"name": limit.name, "limit": limit.limit, "used": limit.used, "refused": limit.refused}
            for limit in gearman.limits()
        ],
        "problems": [] if vitals is None else vitals.problems(),
    }
