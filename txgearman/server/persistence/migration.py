"""Taking the jobs of gearmand's queue over into a store, and giving back what is left of them.

Neither server runs meanwhile. Each step is a transaction that can be made again, so that whoever was
interrupted starts anew:

* there: `GearmandQueue.take`, `Store.write`, `GearmandQueue.forget_taken`. The store notes which jobs it was
  given, as it notes the ticks of schedules, in the transaction that saves them. So a job that it is given
  twice is saved once, also if it was run in between.
* back: `GearmandQueue.give`, `Store.write` of the removals, `GearmandQueue.forget_given`. Whoever is next
  removes the jobs from the store that gearmand has been given, ahead of all else.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple

from txgearman.broker.kept_unique import UNIQUE_IS_DATA
from txgearman.errors import StoreError
from txgearman.server.config.options import Settings
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.store.contract import Changes, Store, StoredJob, Tick
from txgearman.store.gearmand import READ_BATCH, GearmandQueue, QueuedJob, TakenJob
from txgearman.store.urls import open_store

LEASE: Final = 30.0
"""Seconds that the servers on a shared store wait for a migration that died, to take over what it saved. Each
batch of jobs renews it."""

MAX_ADOPTED: Final = 1000
"""Jobs of servers that are gone which are made our own in one transaction."""

LOOK_AGAIN: Final = 0.5
"""Seconds between two looks at whether the lease of a migration that died has expired."""

_NAME: Final = "migration"

_NEVER_FORGOTTEN: Final = 2.0**50
"""Added to a number that passes for the tick of a schedule: no tick is forgotten that is so far ahead."""


class Outcome(NamedTuple):
    """What was taken over.

    Attributes:
        read: Jobs in gearmand's table, and jobs that an interrupted migration had taken out of it.
        known: Those of them that the store had before.
    """

    read: int
    known: int


def take_over(queue: GearmandQueue, store: Store, now: float, prefix: str | None = None) -> Outcome:
    """Save all jobs of `queue`, as submitted at `now`, and finish what was interrupted.

    Args:
        queue: gearmand's queue. Without such a database, or a table in it, it has no jobs.
        store: The store, not open.
        now: Seconds since the epoch.
        prefix: What the handles begin with; None for what they begin with by default.

    Returns:
        What was done.

    Raises:
        StoreError: gearmand runs, or one of the databases cannot be used. The same may be called again.
    """
    with queue:
        if not queue.count() and not queue.is_interrupted():
            # Most starts: the store need not be opened for this.
            return Outcome(0, 0)
        _refuse_beside_gearmand(queue)
        start = store.open(_NAME, LEASE)
        try:
            _finish_giving(queue, store, start)
            queue.take(start * NUMBERS_PER_START)
            return _save_taken(queue, store, start, now, prefix)
        finally:
            store.close()


def _refuse_beside_gearmand(queue: GearmandQueue) -> None:
    """Raises `StoreError` where a gearmand runs on the queue: it has all jobs of the table in memory."""
    pids = queue.gearmands()
    if pids:
        queue.close()
        raise StoreError(
            f"gearmand seems to run on {queue.place}: process {', '.join(map(str, pids))}. Stop it first"
        )


def _save_taken(queue: GearmandQueue, store: Store, start: int, now: float, prefix: str | None) -> Outcome:
    handle = (Settings().handle_prefix if prefix is None else prefix).encode() + b":%d"
    # Of this start: where a job has its tick by the same number, the store takes that for its own second try.
    numbers = count(start * NUMBERS_PER_START + 1)
    read = known = 0
    for jobs in queue.taken():
        saves = [_stored(next(numbers), job, handle, now) for _, job in jobs]
        ticks = {save.number: _tick(number) for save, (number, _) in zip(saves, jobs, strict=True)}
        written = store.write(Changes(saves, ticks=ticks))
        read += len(jobs)
        known += len(written.duplicates.keys() | written.ticks_done)
        queue.forget_taken([number for number, _ in jobs])
        # Nobody asks again for what is forgotten there.
        for schedule in sorted({tick.schedule for tick in ticks.values()}):
            store.schedules.delete(schedule)
        store.renew()
    return Outcome(read, known)


def _tick(number: int) -> Tick:
    """What a taken job has in the place of a tick, by the number that it was taken with."""
    start, number = divmod(number, NUMBERS_PER_START)
    return Tick(b"\0gearmand's jobs, start %d" % start, _NEVER_FORGOTTEN + number)


def _stored(number: int, job: QueuedJob, handle: bytes, now: float) -> StoredJob:
    return StoredJob(
        number=number,
        position=number,
        handle=handle % number,
        function=job.function,
        unique=job.unique,
        data=job.data,
        priority=job.priority,
        run_at=job.run_at,
        losses=0,
        submitted=now,
        reducer=None,
    )


# -- back -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Holdings:
    """What a store holds, as seen from gearmand's table.

    Attributes:
        jobs: Jobs that can go back.
        without_unique: Those of them that get their handle as a unique, as gearmand's table has one job for
            each function and unique.
        retried: Those that have failed before: their count of failures is forgotten.
        reducers: Those with a reducer, which is forgotten.
        with_options: Those with options of their own, which are forgotten.
        too_large: Jobs that stay, as the table cannot hold their function or time.
        dead: Dead jobs, which stay.
        results: Results, which stay.
        schedules: Schedules, which stay.
        kept_uniques: Uniques of jobs that are done, which stay.
        there: Jobs that gearmand's table has already.
    """

    jobs: int = 0
    without_unique: int = 0
    retried: int = 0
    reducers: int = 0
    with_options: int = 0
    too_large: int = 0
    dead: int = 0
    results: int = 0
    schedules: int = 0
    kept_uniques: int = 0
    there: int = 0

    def add(self, job: StoredJob, queue: GearmandQueue) -> None:
        """Count a job."""
        if not queue.can_hold(_queued(job, queue)):
            self.too_large += 1
            return
        self.jobs += 1
        self.without_unique += not _keeps_unique(job, queue)
        self.retried += bool(job.attempts or job.losses)
        self.reducers += job.reducer is not None
        self.with_options += job.attributes is not None


def _keeps_unique(job: StoredJob, queue: GearmandQueue) -> bool:
    return job.unique not in {b"", UNIQUE_IS_DATA} and queue.can_hold_unique(job.unique)


def _queued(job: StoredJob, queue: GearmandQueue) -> QueuedJob:
    """A job as gearmand's table has it. One that waits for a retry waits for its time there too."""
    if _keeps_unique(job, queue):
        unique = job.unique
    else:
        unique = job.handle if queue.can_hold_unique(job.handle) else b"txgearman:%d" % job.number
    run_at = job.run_at if job.retry_at is None else job.retry_at
    return QueuedJob(
        job.function, unique, job.data, job.priority, None if run_at is None else float(math.ceil(run_at))
    )


class GiveBack:
    """Gives the jobs of a store back to gearmand's table. To be used in a ``with`` statement.

    It makes all jobs of the store its own first, those of an interrupted migration included.

    Args:
        queue: gearmand's queue; its table is made if it is not there.
        store: The store, not open. No server may use it.

    Raises:
        StoreError: gearmand or a server runs, or one of the databases cannot be used.
    """

    def __init__(self, queue: GearmandQueue, store: Store) -> None:
        self._queue = queue
        self._store = store

    def __enter__(self) -> GiveBack:
        _refuse_beside_gearmand(self._queue)
        start = self._store.open(_NAME, LEASE)
        try:
            if others := self._others():
                raise StoreError(f"a server uses the store: {', '.join(others)}. Stop it first")
            _finish_giving(self._queue, self._store, start)
            _save_taken(self._queue, self._store, start, time.time(), None)
            _adopt(self._store, start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _others(self) -> list[str]:
        """Who else uses the store. A program of this name that died is waited for until its lease has
        expired."""
        deadline = time.monotonic() + LEASE + LOOK_AGAIN
        while True:
            # Ahead of the answer, which may take its time.
            is_last = time.monotonic() > deadline
            others = self._store.servers()
            # The lease of this program may have expired too. Nothing is lost then: no server takes over.
            if _NAME in others:
                others.remove(_NAME)
            if set(others) != {_NAME} or is_last:
                return others
            time.sleep(LOOK_AGAIN)
            self._store.renew()

    def __exit__(self, *details: object) -> None:
        self._queue.close()
        self._store.close()

    def _jobs(self) -> Iterator[list[StoredJob]]:
        """All jobs, in batches; these may be removed meanwhile."""
        for function, priority, _ in self._store.queue_lengths():
            cursor = -1
            while jobs := self._store.fetch(function, priority, cursor, READ_BATCH):
                yield jobs
                cursor = jobs[-1].position
        cursor = -1
        while jobs := self._store.scheduled(cursor, READ_BATCH):
            yield jobs
            cursor = jobs[-1].position

    def holdings(self) -> Holdings:
        """Count what there is, and change nothing."""
        found = Holdings()
        for jobs in self._jobs():
            for job in jobs:
                found.add(job, self._queue)
            self._store.renew()
        found.dead = sum(count.jobs for count in self._store.dead_jobs.counts())
        found.results = self._store.results.counts().results
        found.schedules = len(self._store.schedules.read())
        found.kept_uniques = len(self._store.kept_uniques(time.time()))
        found.there = self._queue.count()
        return found

    def give(self) -> int:
        """Give all jobs back that gearmand's table can hold. Returns how many were not put there, as it has a
        job with their function and unique."""
        known = 0
        for jobs in self._jobs():
            rows = [TakenJob(job.number, _queued(job, self._queue)) for job in jobs]
            rows = [row for row in rows if self._queue.can_hold(row.job)]
            if rows:
                known += self._queue.give(rows)
                numbers = [row.number for row in rows]
                _remove(self._store, numbers)
                self._queue.forget_given(numbers)
            self._store.renew()
        return known


def _finish_giving(queue: GearmandQueue, store: Store, start: int) -> None:
    """Remove the jobs from the store that gearmand's table has been given, whosever they are there."""
    numbers = queue.given()
    if not numbers:
        return
    while True:
        _adopt(store, start)
        _remove(store, numbers)
        if all(store.find(number) is None for number in numbers):
            break
        # They belong to the program that was interrupted, until its lease has expired.
        time.sleep(LOOK_AGAIN)
    queue.forget_given(numbers)


def _adopt(store: Store, start: int) -> None:
    """Own the jobs of servers that are gone, after those of this start."""
    position = start * NUMBERS_PER_START + NUMBERS_PER_START // 2
    while store.renew().has_orphans:
        jobs = store.take_over(MAX_ADOPTED, position)
        position += len(jobs)
        if not jobs and store.renew().has_orphans:
            time.sleep(LOOK_AGAIN)


def _remove(store: Store, numbers: Sequence[int]) -> None:
    """Remove own jobs, whatever submits they were coalesced with."""
    left = store.write(Changes(removals=list(numbers))).coalesced
    while left:
        # Another server has answered a submit with these jobs: it is served as they are.
        seen = {one.job.number: one.at for one in left}
        left = store.write(Changes(removals=list(seen), coalesced=seen)).coalesced


# -- the command for the way there ----------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m txgearman.server.migrate``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m txgearman.server.migrate",
        description="Take the jobs of gearmand's queue, as its modules libsqlite3 and Postgres keep it, over "
        "into a store of txgearman. Stop gearmand first. Its table is left without jobs.",
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
        store = open_store(options.store)
        queue = GearmandQueue(options.source, options.table)
        _require_table(queue)
        outcome = take_over(queue, store, time.time())
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{outcome.read} jobs read, {outcome.read - outcome.known} saved, {outcome.known} were there before."
    )
    return 0


def _require_table(queue: GearmandQueue) -> None:
    """Raises `StoreError` where gearmand has no table: a mistake in the address looks so."""
    if not queue.is_there:
        raise StoreError(f"there is no file {queue.place.removeprefix('sqlite:///')}")
    with queue:
        if not (queue.has_table() or queue.is_interrupted()):
            raise StoreError(f"{queue.place} has no table {queue.table}.")
