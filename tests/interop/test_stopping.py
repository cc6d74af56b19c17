"""Foreign workers whose jobs are cancelled while they run: they cannot be told, and must not notice.

The kinds of worker are PHP's, Perl's, gear, pygearman, Node's two packages, and libgearman's ``gearman -w``.
Beside them is our command, whose program is ended.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.cli.running import process
from tests.interop.expectations import Expectations, OnTxgearman
from tests.interop.foreign import (
    GEAR_WORKER,
    GEARMAN_JS_WORKER,
    GEARMANODE_WORKER,
    PERL_WORKER,
    PHP_WORKER,
    PYGEARMAN_WORKER,
    ForeignWorker,
)
from tests.interop.programs import Program, Server, running, until
from tests.interop.test_gearman_tool import shell
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.support import needs_program, on_reactor

WAITS: Final = 'gate=$(cat); while [ ! -e "$gate" ]; do sleep 0.01; done; echo released'
"""What a worker of shell commands does in place of ``hold``."""


class StoppingTest(OnTxgearman, Expectations, TestCase):
    """On our server; no other tells workers anything."""

    async def submit(self, server: Server, function: str, data: str) -> str:
        """Submit a background job; returns its handle."""
        line = await connect(server.port)
        created = await line.say(req(18, function.encode(), b"", data.encode()))
        await close(line)
        return created[12:].decode()

    async def check(
        self,
        serving: Callable[[Server], AbstractAsyncContextManager[Program]],
        hold: str,
        following: str,
    ) -> None:
        """A job of `hold` is cancelled, and one abandoned. The worker does one of `following` after each."""
        with tempfile.TemporaryDirectory() as folder:
            cancelled, abandoned = Path(folder) / "cancelled", Path(folder) / "abandoned"
            async with self.serve_alone() as server, serving(server) as program:
                handle = await self.submit(server, hold, str(cancelled))
                await server.has(hold, active=1)
                self.assertEqual(await server.ask(f"cancel job {handle}"), b"OK\r\n")
                await server.has(hold, jobs=0)
                await self.go_on(server, cancelled, following)
                client = await connect(server.port)
                client.transport.write(req(7, hold.encode(), b"", str(abandoned).encode()))
                await server.has(hold, active=1)
                await close(client)
                # It runs on for nobody, as with gearmand.
                await server.has(hold, jobs=1, active=1)
                await self.go_on(server, abandoned, following)
                await server.has(hold, jobs=0)
                self.assertIsNone(program.exit_code, program)
            self.assertNotIn("Traceback", server.log())

    async def go_on(self, server: Server, gate: Path, following: str) -> None:
        """Let the job that waits for `gate` end; then its worker does another."""
        gate.touch()
        await self.submit(server, following, str(gate))
        await server.has(following, jobs=0)

    async def check_foreign(self, worker: ForeignWorker) -> None:
        await self.check(lambda server: worker.serving(server, ""), "hold", "echo")

    @on_reactor
    async def test_a_php_worker(self) -> None:
        await self.check_foreign(PHP_WORKER)

    @on_reactor
    async def test_a_perl_worker(self) -> None:
        await self.check_foreign(PERL_WORKER)

    @on_reactor
    async def test_a_gear_worker(self) -> None:
        await self.check_foreign(GEAR_WORKER)

    @on_reactor
    async def test_a_pygearman_worker(self) -> None:
        await self.check_foreign(PYGEARMAN_WORKER)

    @on_reactor
    async def test_a_gearmanode_worker(self) -> None:
        await self.check_foreign(GEARMANODE_WORKER)

    @on_reactor
    async def test_a_gearman_js_worker(self) -> None:
        await self.check_foreign(GEARMAN_JS_WORKER)

    @needs_program("gearman")
    @on_reactor
    async def test_the_gearman_tool(self) -> None:
        await self.check(lambda server: running(*shell(server, WAITS, "-f", "wait")), "wait", "wait")

    @on_reactor
    async def test_our_command(self) -> None:
        """The program is told to end where the job is cancelled, and where its client leaves."""
        with tempfile.TemporaryDirectory() as folder:
            begun, ended = Path(folder) / "begun", Path(folder) / "ended"
            script = f"trap 'echo >>{ended}; exit' TERM; echo >>{begun}; {WAITS}"

            async def run(times: int) -> None:
                async def so() -> bool:
                    return begun.exists() and begun.read_text() == "\n" * times

                await until(so, f"the program has begun {times} times")

            async with (
                self.serve_alone() as server,
                process(server, "worker", "-f", "wait", script) as worker,
            ):
                handle = await self.submit(server, "wait", "/nowhere")
                await run(1)
                self.assertEqual(await server.ask(f"cancel job {handle}"), b"OK\r\n")
                client = await connect(server.port)
                client.transport.write(req(7, b"wait", b"", b"/nowhere"))
                await run(2)
                self.assertEqual(ended.read_text(), "\n", "the first has made room for it")
                await close(client)
                await server.has("wait", jobs=0)
                await self.submit(server, "wait", str(begun))
                await server.has("wait", jobs=0)
                self.assertEqual(ended.read_text(), "\n\n")
                self.assertIsNone(worker.exit_code, worker)
        said = worker.errors.decode()
        self.assertNotIn("Traceback", said)
        self.assertNotIn("failed", said)
        self.assertRegex(said, "job H:[^ ]+ of wait stopped: cancelled\n")
        self.assertRegex(said, "job H:[^ ]+ of wait stopped: abandoned\n")
