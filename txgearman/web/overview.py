"""The server as a whole: its totals now, and how they went over time."""

from __future__ import annotations

import os
import platform
from typing import Any

from txgearman.version import VERSION
from txgearman.web.sources import Gearman, Vitals


def resident_memory() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def totals(gearman: Gearman) -> dict[str, Any]:
    """The numbers that are followed over time. This walks all functions."""
    submitted = completed = failed = queued = running = 0
    for function in gearman.broker.function_details():
        submitted += function.submitted
        completed += function.completed
        failed += function.failed
        queued += sum(function.queued)
        running += function.running
    return {
        "submitted": submitted,
        "completed": completed,
        "failed": failed,
        "queued": queued,
        "running": running,
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


def server_shape(gearman: Gearman, vitals: Vitals | None = None) -> dict[str, Any]:
    """The server and its totals. This walks all functions and all connections."""
    queued = [0, 0, 0]
    scheduled = running = submitted = completed = failed = retried = paused = functions = 0
    for function in gearman.broker.function_details():
        functions += 1
        for priority, number in enumerate(function.queued):
            queued[priority] += number
        scheduled += sum(function.scheduled)
        running += function.running
        submitted += function.submitted
        completed += function.completed
        failed += function.failed
        retried += function.retried
        paused += function.paused
    workers = sum(bool(connection.worker.abilities) for connection in gearman.connections.values())
    return {
        "version": VERSION,
        "host": platform.node(),
        "pid": os.getpid(),
        "memory": resident_memory(),
        "total": gearman.broker.total,
        "queued": {"high": queued[0], "normal": queued[1], "low": queued[2]},
        "scheduled": scheduled,
        "running": running,
        "submitted": submitted,
        "completed": completed,
        "failed": failed,
        "retried": retried,
        "functions": functions,
        "paused": paused,
        "connections": len(gearman.connections),
        "workers": workers,
        "store": store_shape(vitals),
        "limits": [
            {"name": limit.name, "limit": limit.limit, "used": limit.used, "refused": limit.refused}
            for limit in gearman.limits()
        ],
        "problems": [] if vitals is None else vitals.problems(),
    }
