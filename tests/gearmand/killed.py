"""Kills the way there and the way back ahead of each statement of a database, one after the other.

``python -m tests.gearmand.killed there|back GEARMAND_URL STORE_URL`` prints a list in JSON. For each death
it has the statement, None for the last one, which died of nothing; who ran jobs in between; which jobs; which
ran when the same was done again; and which were left. Whoever dies is a child of this process, by SIGKILL.
A statement that writes is a transaction, or part of one that is lost with the process. So to die ahead of
each is to die at each moment that leaves something else behind.

gearmand's queue holds the jobs when this starts. What gearmand runs is taken for what is in its table; that
this is true is another test's to show.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from txgearman.server.persistence import migration
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.server.persistence.migration import GiveBack, take_over
from txgearman.store.contract import Changes
from txgearman.store.gearmand import GearmandQueue
from txgearman.store.urls import open_store, parse_url

LEASE: Final = 0.05
"""Seconds that a lease lasts of who was killed, so that not each death is waited for."""

NOW: Final = 1e9

BETWEEN: Final = {"there": ("gearmand", "server"), "back": ("gearmand", "txgearmand")}
"""Who runs the jobs that it finds between a death and the second try: a server on the store alone, or one
that looks into gearmand's queue first, as ``txgearmand`` does."""

HARMLESS: Final = (
    "ALTER",
    "BEGIN",
    "CREATE",
    "DELETE FROM txgearman_server",
    "INSERT INTO txgearman_meta",
    "INSERT INTO txgearman_server",
    "LOCK",
    "PRAGMA",
    "SELECT",
    "SET",
    "SHOW",
    "UPDATE txgearman_meta",
    "UPDATE txgearman_server",
)
"""How statements begin that leave nothing of the jobs behind which the one before has not left: those that
read, that are never a transaction by themselves, and those about leases and counters."""

Jobs = list[tuple[str, str]]
"""Jobs as function and data, in order of these."""


def go(there: bool, queue_url: str, store_url: str) -> None:
    """Go one of the two ways to its end."""
    queue = GearmandQueue(queue_url)
    if there:
        take_over(queue, open_store(store_url), NOW)
    else:
        with GiveBack(queue, open_store(store_url)) as way_back:
            way_back.holdings()
            way_back.give()


class Databases:
    """The databases at a certain state, which can be brought back."""

    def __init__(self, queue_url: str, store_url: str) -> None:
        self.queue_url, self.store_url = queue_url, store_url
        url = parse_url(queue_url)
        self._file = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")

    def keep(self) -> None:
        """Remember the state of now."""
        if self._file is not None:
            shutil.copytree(self._file.parent, self._copy, dirs_exist_ok=False)
            return
        with self._engine.connect() as connection:
            connection.exec_driver_sql("CREATE SCHEMA kept")
            for table in sa.inspect(connection).get_table_names():
                connection.exec_driver_sql(f"CREATE TABLE kept.{table} AS TABLE public.{table}")

    @property
    def _copy(self) -> Path:
        assert self._file is not None
        return self._file.parent.with_name("kept")

    def bring_back(self) -> None:
        """Return to the state that was remembered."""
        if self._file is not None:
            shutil.rmtree(self._file.parent)
            shutil.copytree(self._copy, self._file.parent)
            return
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            inspector = sa.inspect(connection)
            kept = set(inspector.get_table_names("kept"))
            for table in inspector.get_table_names():
                if table in kept:
                    connection.exec_driver_sql(f"DELETE FROM {table}")
                    connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM kept.{table}")
                else:
                    connection.exec_driver_sql(f"DROP TABLE {table}")
            connection.exec_driver_sql("COMMIT")

    def run_by_gearmand(self) -> Jobs:
        """What gearmand runs that is started now."""
        found: Jobs = []
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(GearmandQueue(self.queue_url).table):
                return []
            table = GearmandQueue(self.queue_url).table
            for function, data in connection.exec_driver_sql(f"SELECT function_name, data FROM {table}"):
                found.append((function, bytes(data or b"").decode()))
            connection.exec_driver_sql(f"DELETE FROM {table}")
        return sorted(found)

    def run_by_server(self) -> Jobs:
        """What a server runs that is started on the store now."""
        store = open_store(self.store_url)
        position = store.open("server", LEASE) * NUMBERS_PER_START
        while len(store.servers()) > 1 or store.renew().has_orphans:
            # Until the lease of who was killed has expired.
            position += len(store.take_over(1000, position))
        found: Jobs = []
        queues = [
            store.fetch(function, priority, -1, 1000) for function, priority, _ in store.queue_lengths()
        ]
        for jobs in (*queues, store.scheduled(-1, 1000)):
            found += [(job.function.decode(), job.data.decode()) for job in jobs]
            store.write(Changes(removals=[job.number for job in jobs]))
        store.close()
        return sorted(found)


def die_at(statement: int, work: Callable[[], None]) -> str | None:
    """Let a child do the work and die ahead of a statement that writes.

    Args:
        statement: Which statement, counted from 1.
        work: The work.

    Returns:
        The statement, or None if there are not so many.

    Raises:
        RuntimeError: The work failed. Its traceback is on stderr.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        seen = 0

        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def count(_connection: Any, _cursor: Any, text: str, *_more: Any) -> None:
            nonlocal seen
            seen += not text.strip().startswith(HARMLESS)
            if seen == statement:
                os.write(writing, text.encode()[:200])
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    if os.WIFSIGNALED(status):
        return text
    if status:
        raise RuntimeError(f"a child that was to die at statement {statement} failed by itself")
    return None


def main(way: str, queue_url: str, store_url: str) -> None:
    """Die at each statement, once for each who may run jobs in between, and print what came of it."""
    migration.LEASE = LEASE  # type: ignore[misc]
    migration.LOOK_AGAIN = LEASE / 4  # type: ignore[misc]
    there = way == "there"
    databases = Databases(queue_url, store_url)
    if not there:
        go(True, queue_url, store_url)
    databases.keep()
    deaths = []
    at: str | None = ""
    for statement in count(1):
        for between in BETWEEN[way]:
            databases.bring_back()
            at = die_at(statement, lambda: go(there, queue_url, store_url))
            if between == "txgearmand":
                go(True, queue_url, store_url)
            ran = databases.run_by_gearmand() if between == "gearmand" else databases.run_by_server()
            go(there, queue_url, store_url)
            end = databases.run_by_server() if there else databases.run_by_gearmand()
            left = databases.run_by_gearmand() + databases.run_by_server()
            deaths.append([at, between, ran, end, left])
        if at is None:
            break
    json.dump(deaths, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
