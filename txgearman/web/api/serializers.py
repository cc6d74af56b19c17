"""What the broker shows, as values for JSON."""

from __future__ import annotations

from typing import Any, Final

from txgearman.broker.job import Priority
from txgearman.broker.views import FunctionDetail, JobDetail
from txgearman.web.http.encoding import identifier, text
from txgearman.web.interfaces import Connection, connection_of

PREVIEW: Final = 120
"""Bytes of a payload that a list shows."""

MOST_FUNCTIONS: Final = 50
"""Functions of a connection that are named; a worker may have thousands."""

STORED: Final = "stored"
"""The state of a job that is not in memory."""

MOST_JOBS: Final = 20
"""Running jobs of a connection that are named."""

PRIORITY_NAMES: Final = tuple(priority.name.lower() for priority in Priority)


def by_priority(values: tuple[Any, ...]) -> dict[str, Any]:
    """Numbers by priority, with the priorities' names."""
    return dict(zip(PRIORITY_NAMES, values, strict=True))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def function_shape(function: FunctionDetail) -> dict[str, Any]:
    """A function."""
    return {
        "id": identifier(function.name),
        "name": text(function.name),
        "total": function.total,
        "queued": by_priority(function.queued),
        "away": function.away,
        "behind": by_priority(function.behind),
        "scheduled": sum(function.scheduled),
        "running": function.running,
        "workers": function.workers,
        "paused": function.paused,
        "limits": by_priority(function.limits),
        "oldest": _rounded(function.oldest),
        "submitted": function.submitted,
        "completed": function.completed,
        "failed": function.failed,
        "retried": function.retried,
        "refused": function.refused,
    }


def job_shape(job: JobDetail) -> dict[str, Any]:
    """A job, with the beginning of its data."""
    connection = None if job.worker is None else connection_of(job.worker)
    return {
        "handle": text(job.handle),
        "function": text(job.function),
        "function_id": identifier(job.function),
        "unique": text(job.unique),
        "state": STORED if job.state is None else job.state.value,
        "priority": PRIORITY_NAMES[job.priority],
        "background": job.background,
        "reducer": None if job.reducer is None else text(job.reducer),
        "attempts": job.attempts,
        "submitted": _rounded(job.submitted),
        "seconds": _rounded(job.seconds),
        "run_in": _rounded(job.run_in),
        "left": _rounded(job.left),
        "numerator": job.progress[0],
        "denominator": job.progress[1],
        "clients": job.clients,
        "worker": None if connection is None else connection.number,
        "size": None if job.data is None else len(job.data),
        "preview": "" if job.data is None else text(job.data[:PREVIEW]),
        "place": job.place,
    }


def connection_shape(connection: Connection, jobs: list[JobDetail]) -> dict[str, Any]:
    """A connection; `jobs` are those it works on, or the first of them."""
    worker, client = connection.worker, connection.client
    names = [
        text(function.name) for _, function in zip(range(MOST_FUNCTIONS), worker.abilities, strict=False)
    ]
    return {
        "number": connection.number,
        "host": connection.host,
        "id": text(connection.client_id),
        "functions": names,
        "functions_total": len(worker.abilities),
        "quiet": worker.quiet,
        "state": worker.state.value,
        "jobs": [
            {
                "handle": text(job.handle),
                "function": text(job.function),
                "seconds": _rounded(job.seconds),
                "numerator": job.progress[0],
                "denominator": job.progress[1],
            }
            for job in jobs
        ],
        "jobs_total": len(worker.jobs),
        "waits_for": len(client.jobs),
    }
