"""Taking the jobs of gearmand's queue over into a store: ``python -m txgearman.server.migrate``.

Stop gearmand first, and the server that uses a SQLite file as its store.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final, NamedTuple

from txgearman.broker.kept_unique import unique_key
from txgearman.errors import StoreError
from txgearman.server.config.options import Settings
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.store.contract import Changes, Store, StoredJob
from txgearman.store.gearmand import GearmandQueue, QueuedJob
from txgearman.store.urls import open_store

LEASE: Final = 60.0
"""Seconds that the servers on a shared store wait for a migration that died, to take over what it saved."""

_NAME: Final = "migration"


class Outcome(NamedTuple):
    """What was done: jobs read, those of them that were there before, and the old table's new name."""

    read: int
    known: int
    table: str


def migrate(queue: GearmandQueue, store: Store, now: float) -> Outcome:
    """Save all jobs of `queue`, as submitted at `now`, and give its table another name.

    Interrupted, it can be done again: what has a unique is known by it then, unless a server has run it
    meanwhile. What has none, of which gearmand keeps one for each function, is saved last, right before
    the table is renamed.
    """
    start = store.open(_NAME, LEASE)
    try:
        numbers = count(start * NUMBERS_PER_START + 1)
        read = known = 0
        without_key: list[QueuedJob] = []
        with queue:
            for jobs in queue.jobs():
                read += len(jobs)
                keyed = [job for job in jobs if unique_key(job.unique, job.data) is not None]
                without_key += [job for job in jobs if unique_key(job.unique, job.data) is None]
                known += len(store.write(Changes(list(_saved(keyed, numbers, now)))).duplicates)
                store.renew()
            store.write(Changes(list(_saved(without_key, numbers, now))))
            return Outcome(read, known, queue.rename_table())
    finally:
        store.close()


def _saved(jobs: Sequence[QueuedJob], numbers: Iterator[int], now: float) -> Iterator[StoredJob]:
    prefix = Settings().handle_prefix.encode()
    for job, number in zip(jobs, numbers, strict=False):
        yield StoredJob(
            number=number,
            position=number,
            handle=b"%s:%d" % (prefix, number),
            function=job.function,
            unique=job.unique,
            data=job.data,
            priority=job.priority,
            run_at=job.run_at,
            losses=0,
            submitted=now,
            reducer=None,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m txgearman.server.migrate",
        description="Take the jobs of gearmand's queue, as its modules libsqlite3 and Postgres keep it, over "
        "into a store of txgearman. Stop gearmand first. Its table stays, under another name.",
    )
    parser.add_argument(
        "source", help="gearmand's database: sqlite:////PATH or postgresql://USER@HOST/DATABASE"
    )
    parser.add_argument("store", help="what twistd gearmand is given as --store")
    parser.add_argument(
        "--table", help="gearmand's table [default: gearman_queue in SQLite, queue in PostgreSQL]"
    )
    options = parser.parse_args(arguments)
    try:
        outcome = migrate(
            GearmandQueue(options.source, options.table), open_store(options.store), time.time()
        )
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{outcome.read} jobs read, {outcome.read - outcome.known} saved, {outcome.known} were there before. "
        f"The old table is now {outcome.table}."
    )
    return 0
