"""The server as a whole: the totals of all functions."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IReactorTime

from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.meters import Counts, failures_of
from txgearman.broker.views import FunctionDetail
from txgearman.web.interfaces import Gearman, ServerHealth
from txgearman.web.slices import iterate_in_slices


def resident_memory() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class Totals:
    """The sums over all functions. Pass all of them to `add`.

    Args:
        gone: The counts of functions that were forgotten.
    """

    def __init__(self, gone: Counts) -> None:
        self.functions = 0
        self.queued = [0] * PRIORITIES
        self.scheduled = 0
        self.retrying = 0
        self.running = 0
        self.paused = 0
        self.submitted = gone.submitted
        self.completed = gone.completed
        self.failed = failures_of(gone.uncompleted)
        self.dropped = sum(gone.uncompleted) - self.failed
        self.requeued = gone.requeued

    def add(self, functions: list[FunctionDetail]) -> None:
        """Add the numbers of these functions."""
        self.functions += len(functions)
        for function in functions:
            self.submitted += function.submitted
            self.completed += function.completed
            self.failed += function.failed
            self.dropped += function.dropped
            self.requeued += function.requeued
            self.paused += function.paused
            if function.total:
                self.queued = list(map(operator.add, self.queued, function.queued))
                self.scheduled += sum(function.scheduled) - function.retrying
                self.retrying += function.retrying
                self.running += function.running


async def totals_of(gearman: Gearman, reactor: IReactorTime) -> Totals:
    """Sum the numbers of all functions of a server, in slices."""
    totals = Totals(gearman.inspection.counts_of_gone)
    await iterate_in_slices(gearman.inspection.function_details(), totals.add, reactor)
    return totals


async def measured(gearman: Gearman, reactor: IReactorTime) -> dict[str, Any]:
    """Measure what the history has samples of."""
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


@dataclass(frozen=True, slots=True)
class ServerView:
    """What is shown of the server as a whole; without `health` nothing of its store and its health."""

    gearman: Gearman
    totals: Totals
    health: ServerHealth | None

    def count_dead(self) -> int:
        """How many dead jobs there are, those of functions that are not known any more included."""
        return sum(self.gearman.dead_jobs.counts.values())

    def count_workers(self) -> int:
        """How many connections are workers. This walks all of them."""
        return sum(bool(connection.worker.abilities) for connection in self.gearman.connections.values())
