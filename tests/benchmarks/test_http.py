"""The workloads over HTTP measure what they say: each job that is counted is in the server's queue."""

from __future__ import annotations

import socket
import tempfile
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import servers
from benchmarks.run import TRANSPORTS
from benchmarks.workloads import WEB, WORKLOADS, Workload
from tests.support import needs_program

JOBS = 50


def total_of(server: servers.Running) -> int:
    """How many jobs of the benchmark's function the server has, as its admin line says."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"status\n")
        text = b""
        while not text.endswith(b".\n"):
            text += connection.recv(65536)
    (row,) = [line for line in text.decode().splitlines() if line.startswith("bench\t")]
    return int(row.split("\t")[1])


@needs_program("cc")
class HTTPWorkloads(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-bench-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.program = servers.compile_c("connections.c", self.folder, "-pthread")

    def run_on(self, kind: servers.Kind, workload: Workload) -> None:
        transport = TRANSPORTS[WEB](kind, self.folder)
        # The last request of a bulk has fewer lines.
        options = {**workload.options, "jobs": JOBS} | ({"lines": 20} if "lines" in workload.options else {})
        with servers.running(kind, self.folder, workload.server_options, transport) as server:
            found = servers.load(self.program, workload.shape, server, options)
            self.assertEqual((found["jobs"], total_of(server)), (JOBS, JOBS), workload.name)
            self.assertGreater(found["rate"], 0)

    def workloads(self, *, alone: bool) -> list[Workload]:
        found = [each for each in WORKLOADS if each.transport == WEB and (alone or not each.alone)]
        self.assertTrue(found)
        return found

    def test_ours(self) -> None:
        for workload in self.workloads(alone=True):
            self.run_on(servers.txgearman(), workload)

    def test_gearmand(self) -> None:
        kind = servers.gearmand()
        if kind is None:
            raise unittest.SkipTest("not installed: gearmand")
        for workload in self.workloads(alone=False):
            self.run_on(kind, workload)

    def test_a_refused_job_is_noticed(self) -> None:
        kind = servers.txgearman()
        transport = TRANSPORTS[WEB](kind, self.folder)
        for lines in (0, 10):
            options = {"jobs": JOBS, "lines": lines}
            with servers.running(kind, self.folder, ("--max-jobs", "45"), transport) as server:
                self.assertRaises(
                    servers.BenchmarkFailed, servers.load, self.program, "http", server, options
                )
