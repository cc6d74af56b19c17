"""A job as a store keeps it."""

from __future__ import annotations

from typing import NamedTuple


class StoredJob(NamedTuple):
    """A background job as a store keeps it.

    `number` is the one that its handle ends with; no two jobs of a store ever have the same, whatever
    server made them. `position` orders the jobs of one function and priority on the server that owns them;
    at first it is the number. `run_at` and `submitted` are seconds since the epoch. `losses` counts the
    workers that lost the job, `attempts` its runs that failed, `snoozes` those that did not count. One that
    waits for a retry, or has been retried, has the time of that as `retry_at`, in seconds since the epoch,
    with the `outcome` and `error` of its last failed run. `attributes` are its encoded `JobOptions`, None for
    none.
    """

    number: int
    position: int
    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    priority: int
    run_at: float | None
    losses: int
    submitted: float
    reducer: bytes | None
    attributes: bytes | None = None
    attempts: int = 0
    retry_at: float | None = None
    outcome: int | None = None
    error: bytes | None = None
    snoozes: int = 0
