"""A job as a store keeps it."""

from __future__ import annotations

from typing import NamedTuple


class StoredJob(NamedTuple):
    """A background job as a store keeps it.

    `number` is the one that its handle ends with; no two jobs of a store ever have the same, whatever
    server made them. `place` orders the jobs of one function and priority on the server that owns them;
    at first it is the number. `run_at` and `submitted` are seconds since the epoch. `attempts` counts the
    workers that lost the job.
    """

    number: int
    place: int
    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    priority: int
    run_at: float | None
    attempts: int
    submitted: float
    reducer: bytes | None
