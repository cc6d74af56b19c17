"""``txgearman result`` on real servers, with and without a store, and on gearmand; and servers that are
killed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.blocking.servers import LIMIT
from tests.cli.running import at_work, command, process
from tests.interop.expectations import Expectations, OnGearmand
from tests.interop.programs import Server, txgearmand
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.server.test_twistd import Started, twistd
from tests.support import on_reactor
from txgearman import aio
from txgearman import blocking as gearman
from txgearman.cli.exit_codes import ExitCode
from txgearman.client import Client
from txgearman.errors import JobFailed, JobRaised, ResultPending

CONFIGURATION = """
[functions."*"]
keep-results = "1h"
"""


class ResultCase(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-results-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.database = self.folder / "queue.db"
        file = self.folder / "gearmand.toml"
        file.write_text(CONFIGURATION)
        self.config = f"--config={file}"
        self.store = f"--store=sqlite:///{self.database}"


class CommandTests(ResultCase):
    async def submit(self, server: Server, function: str, data: str) -> str:
        ended = await command(server, "submit", "--background", function, data)
        return ended.output.decode().strip()

    async def try_all(self, server: Server) -> None:
        """A result, in each of the three client libraries too, and what there is instead of one."""
        waiting = await self.submit(server, "upper", "grün")
        ended = await command(server, "result", waiting)
        self.assertEqual((ended.code, ended.output), (ExitCode.PENDING, b""))
        self.assertIn("it is queued", ended.errors)
        ended = await command(server, "result", "--wait", "--timeout", "200ms", waiting)
        self.assertEqual((ended.code, ended.output), (ExitCode.TIMED_OUT, b""))
        async with process(server, "result", "--wait", waiting) as program, at_work(server, ""):
            self.assertEqual(await program.ended(), 0, program)
            self.assertEqual(bytes(program.output), "GRüN".encode())
            chatty = await self.submit(server, "chatty", "x")
            ended = await command(server, "result", "-w", chatty)
            self.assertEqual((ended.code, ended.output), (0, b"one\n\xffend"))
            for function, data, said in (("upper", "bad", "failed"), ("boom", "x", "raised: ValueError")):
                failed = await self.submit(server, function, data)
                ended = await command(server, "result", "--wait", failed)
                self.assertEqual((ended.code, ended.output), (ExitCode.JOB_FAILED, b""))
                self.assertIn(said, ended.errors)
            await deferToThread(self.try_blocking, server, waiting)
            await deferToThread(lambda: asyncio.run(self.try_asyncio(server, waiting)))
        ended = await command(server, "result", "H:nobody:1")
        self.assertEqual((ended.code, ended.output), (ExitCode.REFUSED, b""))
        ended = await command(server, "result", "x" * 64)
        self.assertEqual(ended.code, ExitCode.USAGE)
        # The worker logs what its function raises.
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def try_blocking(self, server: Server, handle: str) -> None:
        client = gearman.GearmanClient([f"{server.host}:{server.port}"])
        try:
            self.assertEqual(client.result(handle, poll_timeout=LIMIT), "GRüN")
            request = client.submit_job("upper", "later", background=True, poll_timeout=LIMIT)
            self.assertEqual(client.result(request, poll_timeout=LIMIT), "LATER")
            self.assertEqual(client.result(request.job, wait=False), "LATER")
            request = client.submit_job("upper", "bad", background=True, poll_timeout=LIMIT)
            with self.assertRaises(JobFailed):
                client.result(request, poll_timeout=LIMIT)
            request = client.submit_job("nobody", "", background=True, poll_timeout=LIMIT)
            with self.assertRaises(ResultPending):
                client.result(request, wait=False)
        finally:
            client.shutdown()

    async def try_asyncio(self, server: Server, handle: str) -> None:
        async with aio.Client(server.endpoint) as client:
            self.assertEqual(await client.result(handle, timeout=LIMIT), "GRüN".encode())
            job = await client.submit("upper", b"later", background=True)
            self.assertEqual(await client.result(job, timeout=LIMIT), b"LATER")
            with self.assertRaises(JobRaised):
                await client.result(await client.submit("boom", b"", background=True), timeout=LIMIT)

    @on_reactor
    async def test_in_memory(self) -> None:
        async with txgearmand(self.config) as server:
            await self.try_all(server)

    @on_reactor
    async def test_in_a_store(self) -> None:
        async with txgearmand(self.config, self.store) as server:
            await self.try_all(server)


class ForeignServerTests(OnGearmand, Expectations, TestCase):
    """gearmand keeps no results, and says that it does not know the option."""

    @on_reactor
    async def test_it_says_so(self) -> None:
        async with self.serve() as server:
            for options in ((), ("--wait",)):
                ended = await command(server, "result", *options, "H:x:1")
                self.assertEqual((ended.code, ended.output), (ExitCode.REFUSED, b""))
                self.assertIn("lacks the extension results", ended.errors)
                # The connection goes on to be used.
                ended = await command(server, "ping")
                self.assertEqual(ended.code, 0)


class RestartTests(ResultCase):
    @contextlib.asynccontextmanager
    async def killed(self) -> AsyncIterator[Started]:
        """A server that is killed behind the block."""
        async with twistd(self.config, self.store) as server:
            yield server
            server.signal(signal.SIGKILL)
            await server.program.ended()

    async def submit(self, server: Started) -> bytes:
        line = await connect(server.port)
        (handle,) = re.findall(rb"H:[^\0]+:\d+", await line.say(req(18, b"f", b"", b"x")))
        await close(line)
        return handle

    async def run_job(self, server: Started, result: bytes) -> None:
        line = await connect(server.port)
        await line.say(req(1, b"f"))
        (handle,) = re.findall(rb"H:[^\0]+:\d+", await line.say(req(9)))
        await line.say(req(28, handle, b"part ") + req(13, handle, result))
        await close(line)

    async def status(self, server: Started) -> bytes:
        line = await connect(server.port)
        status: bytes = await line.ask(b"status\n", b".\n")
        await close(line)
        return status

    async def result(self, server: Started, handle: bytes, **options: Any) -> bytes:
        from twisted.internet import reactor

        async with Client(reactor, f"tcp:127.0.0.1:{server.port}") as client:  # type: ignore[arg-type]
            result: bytes = await client.result(handle, timeout=LIMIT, **options)
            return result

    @on_reactor
    async def test_an_answered_result_survives_a_kill(self) -> None:
        async with self.killed() as server:
            handle = await self.submit(server)
            await self.run_job(server, b"first")
            self.assertEqual(await self.result(server, handle), b"part first")
        async with self.killed() as server:
            self.assertIn("0 jobs loaded", server.log)
            self.assertEqual(await self.result(server, handle, wait=False), b"part first")

    @on_reactor
    async def test_a_kill_between_the_end_of_a_job_and_the_commit(self) -> None:
        """The job and its result are one transaction: neither was written, so the job runs again."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as other:
            async with self.killed() as server:
                handle = await self.submit(server)
                # Nothing can be committed from here on.
                other.execute("BEGIN IMMEDIATE")
                await self.run_job(server, b"first")
                # To its clients the job is gone.
                self.assertEqual(await self.status(server), b"f\t0\t0\t0\n.\n")
            other.execute("ROLLBACK")
        async with self.killed() as server:
            self.assertIn("1 jobs loaded", server.log)
            await self.run_job(server, b"second")
            self.assertEqual(await self.result(server, handle), b"part second")
