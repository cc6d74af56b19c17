"""Saved jobs with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from txgearman.store.contract import Changes, Store, StoredJob


def job(number: int, unique: bytes = b"", data: bytes = b"data", **others: Any) -> StoredJob:
    """A job of the function ``reverse``, normal priority."""
    fields: dict[str, Any] = {
        "place": number,
        "handle": b"H:test:%d" % number,
        "function": b"reverse",
        "priority": 1,
        "run_at": None,
        "losses": 0,
        "submitted": 1_700_000_000.25,
        "reducer": None,
    }
    return StoredJob(number=number, unique=unique, data=data, **(fields | others))


def save(store: Store, *jobs: StoredJob) -> dict[int, bytes]:
    """Save `jobs` in one transaction; returns the handles of their duplicates."""
    return store.write(Changes(saves=list(jobs))).duplicates


def stored(store: Store) -> list[StoredJob]:
    """All jobs the store's server owns, by place."""
    found = [
        job
        for function, priority, count in store.queue_lengths()
        for job in store.fetch(function, priority, 0, count + 1)
    ]
    return sorted(found + store.scheduled(0, 1_000_000), key=lambda job: job.place)
