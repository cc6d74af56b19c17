"""The command on a real terminal: what is drawn, keys, and the terminal as it was before at the end."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import AsyncIterator
from typing import Any

from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.trial import util
from twisted.trial.unittest import TestCase

from tests.cli.running import COMMAND, command
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import Program, Server
from tests.support import on_reactor
from txgearman import Worker
from txgearman.cli.exit_codes import ExitCode
from txgearman.cli.top import Top
from txgearman.worker import Job

FULL_SCREEN, NORMAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"
# Twisted starts a process on a terminal by a fork, of which Python 3.12 warns where there are threads.
_FORKS = [util.suppress(category=DeprecationWarning, message="This process .* is multi-threaded")]
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")


@contextlib.asynccontextmanager
async def on_terminal(server: Server, *arguments: str) -> AsyncIterator[Program]:
    """The command as a process on a terminal of 100 columns, whose output is all it writes."""
    from twisted.internet import reactor

    words = [*COMMAND, *arguments]
    program = Program(words)
    environment = {
        **os.environ,
        "TXGEARMAN_SERVER": server.endpoint,
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "24",
        "PYTHONIOENCODING": "utf-8",
    }
    spawning: Any = reactor
    spawning.spawnProcess(program, words[0], words, env=environment, usePTY=True)
    try:
        yield program
    finally:
        await program.kill()


def type_in(program: Program, keys: bytes) -> None:
    transport: Any = program.transport
    transport.write(keys)


def plain(program: Program) -> str:
    """What a program wrote, without what moves the cursor and colours."""
    return _CONTROL.sub(b"", bytes(program.output)).decode("utf-8", "replace")


class Watching(Expectations):
    """``top``"""

    suppress = _FORKS

    @on_reactor
    async def test_functions_are_shown_and_q_ends_it(self) -> None:
        function = "watched"  # short enough for its column
        async with self.serve() as server:
            await command(server, "submit", function, "x", "y", "-b")
            async with on_terminal(server, "top", "--interval", "100ms") as program:
                await program.wrote(function.encode())
                # The arrow keys are not ours, and hold no key that is.
                type_in(program, b"\x1b[A")
                type_in(program, b"s")
                await program.wrote(b"by running")
                type_in(program, b"q")
                self.assertEqual(await program.ended(), 0)
        self.assertRegex(plain(program), rf"{re.escape(function)} +2 +0 +0 ")
        self.assertEqual((program.output.count(FULL_SCREEN), program.output.count(NORMAL_SCREEN)), (1, 1))
        self.assertGreater(program.output.rfind(SHOW_CURSOR), program.output.find(FULL_SCREEN))

    @on_reactor
    async def test_a_server_that_goes_is_said_to_be_gone(self) -> None:
        from twisted.internet import reactor

        console = Console(file=io.StringIO(), width=100, force_terminal=True, _environ={})

        def drawn() -> str:
            with console.capture() as capture:
                console.print(top.render())
            return capture.get()

        async with self.serve_alone() as server:
            top = Top(reactor, [server.endpoint], 5, console)
            try:
                self.assertIn("connecting", drawn())
                await command(server, "submit", "waiting", "x", "-b")
                await top.refresh()
                self.assertIn("waiting", drawn())
                self.assertIn("1 functions   1 queued", drawn())
                await server.program.stop()
                await top.refresh()
                await top.refresh()
                self.assertIn("refused", drawn())
                self.assertIn("0 functions", drawn())
            finally:
                await top.close()


class WatchingTest(OnTxgearman, Watching, TestCase):
    """Our server."""


class WatchingGearmandTest(OnGearmand, Watching, TestCase):
    """gearmand."""


class TerminalTest(OnTxgearman, Expectations, TestCase):
    suppress = _FORKS

    @on_reactor
    async def test_ctrl_c_gives_the_terminal_back(self) -> None:
        async with self.serve() as server, on_terminal(server, "top") as program:
            await program.wrote(b"quit")
            type_in(program, b"\x03")
            self.assertEqual(await program.ended(), ExitCode.INTERRUPTED)
        self.assertIn(NORMAL_SCREEN, program.output)

    @on_reactor
    async def test_a_progress_bar(self) -> None:
        from twisted.internet import reactor

        gate: Deferred[bytes] = Deferred()

        def half(job: Job) -> Deferred[bytes]:
            job.send_data(b"some data\n")
            job.send_status(1, 2)
            return gate

        function = f"{self.prefix}half"
        async with self.serve() as server:
            worker = Worker(reactor, server.endpoint)
            worker.register(function, half)
            await worker.start()
            try:
                async with on_terminal(server, "submit", function, "x") as program:
                    await program.wrote(b" 50%")
                    gate.callback(b"the result\n")
                    self.assertEqual(await program.ended(), 0)
            finally:
                await worker.stop(0)
        shown = plain(program)
        self.assertIn("some data\n", shown)
        self.assertTrue(shown.endswith("the result\n"), shown)
        self.assertIn(SHOW_CURSOR, program.output)
