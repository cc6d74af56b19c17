"""Foreign workers whose jobs fail, on a server that retries: each job runs again and is dead at the end.

The kinds of worker are PHP's, Perl's, gear, pygearman, Node's two packages, and libgearman's ``gearman -w``
with a command that fails. None of them knows of retries.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnTxgearman
from tests.interop.foreign import (
    GEAR_CLIENT,
    GEAR_WORKER,
    GEARMAN_JS_CLIENT,
    GEARMAN_JS_WORKER,
    GEARMANODE_CLIENT,
    GEARMANODE_WORKER,
    PERL_TASKS,
    PERL_WORKER,
    PHP_TASKS,
    PHP_WORKER,
    PYGEARMAN_CLIENT,
    PYGEARMAN_WORKER,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.interop.programs import Server, alongside, run_program, running, until
from tests.interop.test_gearman_tool import gearman, shell
from tests.support import needs_program, on_reactor

POLICY: Final = ("--attempts=2", "--backoff=0.2", "--jitter=0")
"""Two runs, close together and never at random."""

RAISED: Final = b"reason\0work"
"""What the repertoire's ``raise`` sends of a job whose data is ``work``."""


class RetriesTest(OnTxgearman, Expectations, TestCase):
    """On our server; no other has retries."""

    async def dead(self, server: Server, count: int) -> dict[str, list[str]]:
        """The rows of ``show dead`` by function, once there are `count`."""
        rows: list[list[str]] = []

        async def all_dead() -> bool:
            nonlocal rows
            rows = await server.rows("show dead")
            return len(rows) >= count

        await until(all_dead, f"{count} dead jobs")
        self.assertEqual(len(rows), count, rows)
        return {row[1]: row for row in rows}

    async def check(
        self,
        client: ForeignClient,
        worker: ForeignWorker,
        raising: str = "raise",
        outcome: str = "raised",
        error: bytes = RAISED,
    ) -> None:
        """Background jobs of a worker that fails and raises, and clients that wait for the same jobs.

        `raising` is the function that raises. Its jobs end with the `outcome`, and `error` is kept of them.
        """
        names = ["fail", raising]
        waiting = [Job(name, b"work", unique=f"unique-{name}") for name in names]
        background = [Job(job.function, job.data, job.unique, background=True) for job in waiting]
        alone = [Job(name, b"work") for name in names]
        # No worker has its function. While the client waits for it, it would hear of the others once more.
        last = Job("nobody", b"work")
        async with (
            self.serve_alone(*POLICY) as server,
            alongside(client.run(server, [*waiting, last])) as joined,
        ):
            for name in (*names, last.function):
                await server.has(name, jobs=1)
            # Each is a background job from now on, for which a client waits.
            submitted = await client.run(server, background)
            async with worker.serving(server, "") as program:
                dead = await self.dead(server, len(names))
                ((last_handle, *_),) = await server.rows("show jobs")
                self.assertEqual(await server.ask(f"cancel job {last_handle}"), b"OK\r\n")
                told = await joined
                handles = [dead[name][0] for name in names]
                jobs = [dict(await server.rows(f"show job {handle}")) for handle in handles]
                # Nobody keeps these: they fail once, and leave nothing behind.
                told_alone = await client.run(server, alone)
                # An administrator's retry has the attempts anew.
                self.assertEqual(await server.ask(f"retry dead {raising}"), b"OK 1\r\n")
                dead_again = await self.dead(server, len(names))
                echoed = await client.run(server, [Job("echo", b"still here")])
                self.assertIsNone(program.exit_code, program)
            for name in names:
                await server.has(name, jobs=0, workers=0)
        # Some packages put the address of the server ahead of the handle.
        for index, handle in enumerate(handles):
            self.assertTrue(submitted.handles[index].endswith(handle), (submitted.handles, handle))
        self.assertEqual([len(told.events[index]) for index in range(3)], [1, 1, 1], told)
        self.assertEqual(told.events.pop(2), [("fail",)])
        self.assertEqual(told.events[0], [("fail",)])
        if outcome == "raised" and client.exceptions:
            self.assertEqual(told.events[1][0][0], "exception")
            self.assertIn(error, told.events[1][0][1])
        else:
            self.assertEqual(told.events[1], [("fail",)])
        self.assertEqual(told_alone.events, told.events)
        self.assertEqual(echoed.events, {0: [("complete", b"still here")]})
        for row in (dead["fail"], dead[raising], dead_again[raising]):
            ending = outcome if row[1] == raising else "failed"
            self.assertEqual([row[2], *row[4:6]], [f"unique-{row[1]}", "2", ending])
        self.assertEqual(dead_again["fail"], dead["fail"])
        for job, ending in zip(jobs, ("failed", outcome), strict=True):
            shown = (job["state"], job["attempts"], job["losses"], job["outcome"])
            self.assertEqual(shown, ("dead", "2", "0", ending))
            self.assertEqual(base64.b64decode(job["data"]), b"work")
        self.assertNotIn("error", jobs[0])
        self.assertIn(error, base64.b64decode(jobs[1].get("error", "")))

    @on_reactor
    async def test_a_php_worker(self) -> None:
        await self.check(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_a_perl_worker(self) -> None:
        await self.check(PERL_TASKS, PERL_WORKER)

    @on_reactor
    async def test_a_perl_function_that_dies(self) -> None:
        """The worker sends WORK_EXCEPTION and then WORK_FAIL, which count as one failure."""
        await self.check(PERL_TASKS, PERL_WORKER, raising="dies", error=b"reason: work\n")

    @on_reactor
    async def test_a_gear_worker(self) -> None:
        await self.check(GEAR_CLIENT, GEAR_WORKER)

    @on_reactor
    async def test_a_pygearman_worker(self) -> None:
        """It sends a failure after the exception, too."""
        await self.check(PYGEARMAN_CLIENT, PYGEARMAN_WORKER)

    @on_reactor
    async def test_a_gearmanode_worker(self) -> None:
        await self.check(GEARMANODE_CLIENT, GEARMANODE_WORKER)

    @on_reactor
    async def test_a_gearman_js_worker(self) -> None:
        await self.check(GEARMAN_JS_CLIENT, GEARMAN_JS_WORKER)

    @needs_program("gearman")
    @on_reactor
    async def test_a_command_that_fails(self) -> None:
        """libgearman's program reports a command's exit code of 3 as a failure without a text."""
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder) / "runs"
            command = f"cat >>{runs}; exit 3"
            async with self.serve_alone(*POLICY) as server:
                submit = gearman(server, "-f", "bad", "-u", "the-unique")
                async with running(*submit) as client:
                    client.write(b"run ")
                    client.transport.closeChildFD(0)
                    await server.has("bad", jobs=1)
                    self.assertEqual(await run_program([*submit, "-b"], b"run "), (0, b"", b""))
                    async with running(*shell(server, command, "-f", "bad")) as worker:
                        self.assertEqual(await client.ended(), 1)
                        dead = await self.dead(server, 1)
                        self.assertEqual(runs.read_bytes(), b"run run ")
                        self.assertIsNone(worker.exit_code, worker)
                        self.assertEqual(await server.ask("retry dead bad"), b"OK 1\r\n")
                        await self.dead(server, 1)
                        self.assertEqual(runs.read_bytes(), b"run run run run ")
                        self.assertIsNone(worker.exit_code, worker)
                    await server.has("bad", jobs=0, workers=0)
                self.assertEqual(await server.ask("forget dead bad"), b"OK 1\r\n")
                self.assertEqual(await server.rows("show dead"), [])
        self.assertEqual(bytes(client.errors), b"Job failed\n")
        self.assertEqual([*dead["bad"][1:3], *dead["bad"][4:6]], ["bad", "the-unique", "2", "failed"])
