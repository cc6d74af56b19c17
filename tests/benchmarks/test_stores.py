"""The durable workloads measure what they say: each server really keeps the jobs where it was told to."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import unittest
from contextlib import ExitStack
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import servers
from benchmarks.stores import POSTGRESQL, SQLITE, Stores
from tests.databases import connected, needs_postgresql
from tests.support import needs_program

JOBS = 20


@needs_program("gearmand", "cc")
class StoresTest(SynchronousTestCase):
    """Jobs with a unique each, as the workloads have them."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txgearman-bench-")))
        self.load = servers.compile_c("load.c", self.folder)
        self.stores = Stores(self.folder, stack)

    def submitted(self, kind: servers.Kind | None, store: str) -> str:
        """Where a server has kept `JOBS` jobs, as its last option says."""
        assert kind is not None
        if not self.stores.available(kind, store):
            raise unittest.SkipTest(f"this {kind.name} cannot keep jobs in {store}")
        options = self.stores.options(kind, store)
        with servers.running(kind, self.folder, options) as server:
            servers.load(self.load, "submit", server, {"jobs": JOBS, "window": 5, "unique": 1})
        return options[-1]

    def check_sqlite(self, kind: servers.Kind | None, prefix: str, table: str) -> None:
        path = self.submitted(kind, SQLITE).removeprefix(prefix)
        with contextlib.closing(sqlite3.connect(path)) as database:
            self.assertEqual(database.execute(f"SELECT count(*) FROM {table}").fetchone(), (JOBS,))

    def check_postgresql(self, kind: servers.Kind | None, prefix: str, table: str) -> None:
        with connected(self.submitted(kind, POSTGRESQL).removeprefix(prefix)) as database:
            self.assertEqual(database.execute(f"SELECT count(*) FROM {table}").fetchone(), (JOBS,))

    def test_ours_on_sqlite(self) -> None:
        self.check_sqlite(servers.txgearman(), "sqlite:///", "txgearman_job")

    def test_gearmand_on_sqlite(self) -> None:
        self.check_sqlite(servers.gearmand(), "--libsqlite3-db=", "gearman_queue")

    @needs_postgresql
    def test_ours_on_postgresql(self) -> None:
        self.check_postgresql(servers.txgearman(), "", "txgearman_job")

    @needs_postgresql
    def test_gearmand_on_postgresql(self) -> None:
        self.check_postgresql(servers.gearmand(), "--libpq-conninfo=", "queue")
