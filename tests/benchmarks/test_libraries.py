"""Each program that `make bench` compares clients and workers by, with a few jobs on a real gearmand."""

from __future__ import annotations

import atexit
import functools
import tempfile
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import libraries, servers
from benchmarks.libraries import Program
from benchmarks.workloads import (
    BARE,
    BLOCKING,
    CALL,
    EACH,
    GEAR,
    LIBGEARMAN,
    LIBRARY_WORKLOADS,
    MANY,
    ONE_AT_ONCE,
    ONE_BY_ONE,
    OURS,
    PYGEARMAN,
    WORK,
)
from tests.support import needs_program


@functools.cache
def _built() -> tuple[Path, Path, dict[str, dict[str, Program]]]:
    """A folder with the programs, built once for all tests; trial does not know setUpClass."""
    folder = tempfile.TemporaryDirectory(prefix="txgearman-bench-")
    atexit.register(folder.cleanup)
    place = Path(folder.name)
    load = servers.compile_c("load.c", place)
    return place, load, libraries.programs(load, place)


@needs_program("gearmand", "cc")
class Libraries(SynchronousTestCase):
    """`libraries.run` itself checks that each job was done once."""

    def setUp(self) -> None:
        self.folder, self.load, self.found = _built()

    def check(self, library: str, role: str, jobs: int) -> None:
        if role not in self.found.get(library, {}):
            raise unittest.SkipTest(f"not installed: {library}, for {role}")
        kind = servers.gearmand()
        assert kind is not None
        with servers.running(kind, self.folder) as server:
            sample = libraries.run(self.found[library][role], role, jobs, server, self.load)
        self.assertEqual(sample.jobs, jobs)
        self.assertGreater(sample.rate, 0)
        self.assertGreaterEqual(sample.cpu, 0)

    def test_twisted(self) -> None:
        self.check(OURS, EACH, 20)
        self.check(OURS, CALL, 20)
        self.check(OURS, MANY, 1000)
        self.check(OURS, WORK, 20)
        self.check(ONE_AT_ONCE, WORK, 20)
        self.check(ONE_BY_ONE, MANY, 1000)

    def test_blocking(self) -> None:
        self.check(BLOCKING, EACH, 20)
        self.check(BLOCKING, CALL, 20)
        self.check(BLOCKING, MANY, 1000)
        self.check(BLOCKING, WORK, 20)

    def test_pygearman(self) -> None:
        self.check(PYGEARMAN, EACH, 20)
        self.check(PYGEARMAN, CALL, 20)
        self.check(PYGEARMAN, MANY, 1000)
        self.check(PYGEARMAN, WORK, 20)

    def test_gear(self) -> None:
        self.check(GEAR, EACH, 20)
        self.check(GEAR, WORK, 2)

    def test_the_c_tool(self) -> None:
        self.check(LIBGEARMAN, EACH, 20)
        self.check(LIBGEARMAN, WORK, 20)

    def test_the_c_library(self) -> None:
        self.check(LIBGEARMAN, MANY, 1000)

    def test_without_a_library(self) -> None:
        self.check(BARE, EACH, 20)
        self.check(BARE, MANY, 1000)
        self.check(BARE, WORK, 20)

    def test_a_lost_job_is_noticed(self) -> None:
        program = Program(lambda jobs, server: libraries.Outcome(1.0, 1.0), ahead=0)
        self.patch(libraries, "SETTLE_TIMEOUT", 0.05)
        kind = servers.gearmand()
        assert kind is not None
        with servers.running(kind, self.folder) as server:
            failure = self.assertRaises(
                servers.BenchmarkFailed, libraries.run, program, EACH, 5, server, self.load
            )
        self.assertIn("(0, 0)", str(failure))


class Workloads(SynchronousTestCase):
    def test_batches_are_whole(self) -> None:
        for workload in LIBRARY_WORKLOADS:
            if workload.role == MANY:
                self.assertEqual(workload.jobs % libraries.BATCH, 0)
