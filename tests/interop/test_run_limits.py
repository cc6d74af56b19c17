"""Foreign workers on a server that limits what runs: the limits hold, every job runs, and nobody hangs.

None of these workers knows of limits: libgearman's ``gearman -w``, PHP's and Perl's.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnTxgearman
from tests.interop.foreign import (
    PERL_TASKS,
    PERL_WORKER,
    PHP_TASKS,
    PHP_WORKER,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.interop.programs import Server, run_program, running, until
from tests.interop.test_gearman_tool import gearman, shell
from tests.support import needs_program, on_reactor

KEYS = ("a", "b", "c")
JOBS_OF_A_KEY = 4
WORKERS = 4

SCRIPT = 'key=$(cat); echo "+ $key" >>{log}; sleep 0.02; echo "- $key" >>{log}'
"""Writes down when a job begins and ends."""


class RunLimitsTest(OnTxgearman, Expectations, TestCase):
    """On our server; no other has such limits."""

    async def run_in_shells(self, *options: str) -> list[str]:
        """Let shells do the jobs of all keys; returns what they wrote down."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            async with self.serve_alone(*options) as server, AsyncExitStack() as workers:
                for key in KEYS:
                    for number in range(JOBS_OF_A_KEY):
                        submit = gearman(server, "-f", "work", "-b", "-u", f"{key}:{number}")
                        self.assertEqual(await run_program(submit, key.encode()), (0, b"", b""))
                script = SCRIPT.format(log=log)
                for _ in range(WORKERS):
                    await workers.enter_async_context(running(*shell(server, script, "-f", "work")))
                await server.has("work", jobs=0)
                # Whoever sleeps is there for what comes later.
                submit = gearman(server, "-f", "work", "-u", "late")
                self.assertEqual(await run_program(submit, b"late"), (0, b"", b""))
            return log.read_text(encoding="ascii").splitlines()

    def most_at_once(self, log: list[str], key: str = "") -> int:
        """How many jobs, or jobs of a key, have run at the same time."""
        now = most = 0
        for line in log:
            if line.endswith(key):
                now += 1 if line.startswith("+") else -1
                most = max(most, now)
        self.assertEqual(now, 0)
        return most

    @needs_program("gearman")
    @on_reactor
    async def test_shells_with_a_limit_at_a_time(self) -> None:
        log = await self.run_in_shells("--max-running=2")
        self.assertEqual(len(log), 2 * (len(KEYS) * JOBS_OF_A_KEY + 1))
        self.assertLessEqual(self.most_at_once(log), 2)

    @needs_program("gearman")
    @on_reactor
    async def test_shells_with_a_limit_by_key(self) -> None:
        log = await self.run_in_shells("--max-running-per-key=1")
        self.assertEqual(len(log), 2 * (len(KEYS) * JOBS_OF_A_KEY + 1))
        for key in KEYS:
            self.assertEqual(self.most_at_once(log, key), 1)

    @needs_program("gearman")
    @on_reactor
    async def test_shells_with_a_rate(self) -> None:
        log = await self.run_in_shells("--start-rate=50", "--start-burst=1")
        self.assertEqual(len(log), 2 * (len(KEYS) * JOBS_OF_A_KEY + 1))

    async def check(self, client: ForeignClient, worker: ForeignWorker) -> None:
        """Two workers of a kind, and three jobs that run until they are let go, one at a time."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"job{number}" for number in range(3)]
            jobs = [Job("hold", bytes(file), f"key:{file.name}", background=True) for file in files]
            async with self.serve_alone("--max-running-per-key=1") as server:
                for job in jobs:
                    # libgearman submits the tasks of one run from last to first.
                    await client.run(server, [job])
                async with worker.serving(server, "") as one, worker.serving(server, "") as other:
                    for left, file in zip((3, 2, 1), files, strict=True):
                        await until(partial(self.has_one_running, server, left), f"{left} jobs, one running")
                        # The other worker does what it may meanwhile.
                        echoed = await client.run(server, [Job("echo", b"here", "key:echo")])
                        self.assertEqual(echoed.events, {0: [("complete", b"here")]})
                        file.touch()

                    async def all_done() -> bool:
                        return await server.status("hold") == (0, 0, 2)

                    await until(all_done, "the end of all jobs")
                    self.assertIsNone(one.exit_code, one)
                    self.assertIsNone(other.exit_code, other)

    async def has_one_running(self, server: Server, jobs: int) -> bool:
        return await server.status("hold") == (jobs, 1, 2)

    @on_reactor
    async def test_php_workers(self) -> None:
        await self.check(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_perl_workers(self) -> None:
        await self.check(PERL_TASKS, PERL_WORKER)
