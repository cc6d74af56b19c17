"""What the broker shows, as values for JSON. Names and payloads are bytes: here is how they are written."""

from __future__ import annotations

import base64
import json
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from txgearman.broker.states import Priority
from txgearman.broker.views import FunctionDetail, JobDetail
from txgearman.web.sources import Connection, connection_of

PREVIEW: Final = 120
"""Bytes of a payload that a list shows."""

MOST_FUNCTIONS: Final = 50
"""Functions of a connection that are named; a worker may have thousands."""

JSON_PIECE: Final = 24 * 1024
"""Bytes of a large payload that become JSON at a time, at most 144 KiB. A multiple of three, so that base64
goes on as if it were one piece."""

LOOK_PIECE: Final = 256 * 1024
"""Bytes of a large payload that are looked at in one go for whether they are UTF-8."""

utf_8_decoder: Final = getincrementaldecoder("utf-8")

STORED: Final = "stored"
"""The state of a job that is not in memory."""

MOST_JOBS: Final = 20
"""Running jobs of a connection that are named."""

PRIORITY_NAMES: Final = tuple(priority.name.lower() for priority in Priority)


def text(data: bytes) -> str:
    """Bytes for people: UTF-8, and what is not is written as ``\\xNN``."""
    return data.decode("utf-8", "backslashreplace")


def identifier(name: bytes) -> str:
    """Bytes for a path: percent-encoded, so that none is lost."""
    return quote(name, safe="")


def payload(data: bytes) -> dict[str, str]:
    """Bytes for programs: UTF-8 as it is, anything else in base64."""
    try:
        return {"encoding": "utf-8", "data": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": base64.b64encode(data).decode("ascii")}


def payload_pieces(data: bytes) -> Iterator[bytes]:
    """What `payload` shows of large `data`, as JSON in pieces: to make it in one takes long, and up to twelve
    times the memory. An empty piece is a stretch of work with nothing to show yet."""
    is_text = True
    decoder = utf_8_decoder()
    view = memoryview(data)
    for start in range(0, len(data), LOOK_PIECE):
        try:
            decoder.decode(view[start : start + LOOK_PIECE], final=start + LOOK_PIECE >= len(data))
        except UnicodeDecodeError:
            is_text = False
            break
        yield b""
    yield b'{"encoding":"%b","data":"' % (b"utf-8" if is_text else b"base64")
    decoder = utf_8_decoder()
    for start in range(0, len(data), JSON_PIECE):
        part = view[start : start + JSON_PIECE]
        yield json.dumps(decoder.decode(part))[1:-1].encode("ascii") if is_text else base64.b64encode(part)
    yield b'"}'


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
