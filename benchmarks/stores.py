"""The databases under the durable workloads, and how each server is told to keep its jobs there.

Lives here: a fresh database for each run. Never here: what is run on it (workloads.py).

Both servers have what they come with, and both ask for the same: that a job acknowledged is on the disk.
On SQLite each has ``synchronous=FULL``; gearmand leaves the journal in SQLite's own mode, where a commit is
four fsyncs, txgearman turns on the write-ahead log, where it is one. On PostgreSQL both have the server's
settings, ``fsync=on`` and ``synchronous_commit=on``.
"""

from __future__ import annotations

import itertools
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.servers import Kind
from benchmarks.workloads import OURS
from tests.databases import PostgreSQL, postgresql_programs

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"

_PLUGINS: Final = {SQLITE: "--libsqlite3-db", POSTGRESQL: "--libpq-conninfo"}
"""The option of gearmand that only a build with that kind of queue has."""


class Stores:
    """Databases in `folder`; PostgreSQL starts when it is first asked for, and ends with `stack`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._postgresql: PostgreSQL | None = None
        self._numbers = itertools.count(1)

    def available(self, kind: Kind, store: str) -> bool:
        """Whether this server can keep jobs there on this machine."""
        if store == POSTGRESQL and postgresql_programs() is None:
            return False
        if kind.name == OURS:
            return True
        program = kind.command(0, self._folder, ())[0]
        shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=10)
        return _PLUGINS[store] in shown.stdout

    def options(self, kind: Kind, store: str) -> tuple[str, ...]:
        """The options that make a server keep its jobs in a new database."""
        if store == SQLITE:
            path = self._folder / f"queue-{next(self._numbers)}.db"
            if kind.name == OURS:
                return "--store", f"sqlite:///{path}"
            return "--queue-type", "libsqlite3", f"--libsqlite3-db={path}"
        if self._postgresql is None:
            self._postgresql = self._stack.enter_context(PostgreSQL())
        url = self._postgresql.new_database()
        if kind.name == OURS:
            return "--store", url
        parts = urlsplit(url)
        where = f"host={parts.hostname} port={parts.port} user={parts.username} dbname={parts.path[1:]}"
        return "--queue-type", "Postgres", f"--libpq-conninfo={where}"
