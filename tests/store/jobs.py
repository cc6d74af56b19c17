"""Saved jobs with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any, Final

from txgearman.broker.dead_job import DeadFilter, DeadJob
from txgearman.store.contract import Changes, KeptResult, Store, StoredJob, Written

SUBMITTED: Final = 1_700_000_000.25
"""When jobs were submitted, in seconds since the epoch."""

RETRIED_AT: Final = 1_700_009_000.75
"""When dead jobs are retried: their age counts from then."""


def job(number: int, unique: bytes = b"", data: bytes = b"data", **others: Any) -> StoredJob:
    """A job of the function ``reverse``, normal priority."""
    fields: dict[str, Any] = {
        "position": number,
        "handle": b"H:test:%d" % number,
        "function": b"reverse",
        "priority": 1,
        "run_at": None,
        "losses": 0,
        "submitted": SUBMITTED,
        "reducer": None,
    }
    return StoredJob(number=number, unique=unique, data=data, **(fields | others))


def death(job: StoredJob, ended: float | None = None, **others: Any) -> DeadJob:
    """What is kept of a job that has died, as the store will have it."""
    fields: dict[str, Any] = {
        "attempts": 3,
        "losses": job.losses,
        "outcome": 1,
        "error": b"it broke",
        "worker": b"worker 1",
    }
    return DeadJob(
        number=job.number,
        handle=job.handle,
        function=job.function,
        unique=job.unique,
        data=job.data,
        priority=job.priority,
        reducer=job.reducer,
        submitted=job.submitted,
        run_at=job.run_at,
        ended=1_700_000_100.5 + job.number if ended is None else ended,
        size=len(job.data),
        attributes=job.attributes,
        **(fields | others),
    )


def bury(store: Store, *deaths: DeadJob) -> None:
    """Let stored jobs die, of which the server knows all but their data."""
    store.write(Changes(deaths={dead.number: dead._replace(data=None) for dead in deaths}))


def dead_jobs(store: Store) -> list[DeadJob]:
    """All dead jobs with their data, those that ended last first."""
    return store.dead_jobs.page(DeadFilter(), None, 1_000_000, True).jobs


def result(job: StoredJob, ended: float | None = None, data: bytes | None = b"result") -> KeptResult:
    """What is kept of a job that is done, for an hour."""
    when = 1_700_000_100.5 + job.number if ended is None else ended
    kept = job.unique, job.priority, job.submitted, job.attempts, job.losses
    return KeptResult(job.number, job.handle, job.function, when, when + 3600, data, *kept)


def keep(store: Store, *results: KeptResult, **others: Any) -> Written:
    """Let stored jobs be done, in one transaction with other changes."""
    return store.write(Changes(results={each.number: each for each in results}, **others))


def save(store: Store, *jobs: StoredJob) -> dict[int, bytes]:
    """Save `jobs` in one transaction; returns the handles of their duplicates."""
    return store.write(Changes(saves=list(jobs))).duplicates


def stored(store: Store) -> list[StoredJob]:
    """All jobs the store's server owns, by position."""
    found = [
        job
        for function, priority, count in store.queue_lengths()
        for job in store.fetch(function, priority, 0, count + 1)
    ]
    return sorted(found + store.scheduled(0, 1_000_000), key=lambda job: job.position)
