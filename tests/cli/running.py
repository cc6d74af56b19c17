"""Running the command in tests: inside the test's process, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.interop.programs import Program, Server, running
from txgearman import Worker
from txgearman.cli.app import app
from txgearman.cli.run import CommandContext, Main, run_command
from txgearman.errors import FailJob
from txgearman.worker import Job

COMMAND = (sys.executable, "-m", "txgearman.cli")


@dataclass(frozen=True)
class Ended:
    """How a run of the command ended."""

    code: int
    output: bytes
    errors: str


async def command(server: Server | None, *arguments: str, stdin: bytes = b"") -> Ended:
    """Run the command in this process, on the test's reactor, and return how it ended.

    All is as in a process of its own but the signals, and the log, which is the test's. The first argument is
    the name of the command, which may have two words.
    """
    from twisted.internet import reactor

    mains: list[Main] = []

    def keep(main: Main, **_options: bool) -> int:
        mains.append(main)
        return 0

    first, *others = arguments
    address = [] if server is None else ["--server", server.endpoint]
    output = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    source = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(io.StringIO()) as errors,
        mock.patch.object(sys, "stdin", source),
        mock.patch("txgearman.cli.run.run", keep),
    ):
        app.main([*first.split(), *address, *others], prog_name="txgearman", standalone_mode=False)
        code = await run_command(mains[0], CommandContext(reactor))
    buffer = output.buffer
    assert isinstance(buffer, io.BytesIO)
    return Ended(code, buffer.getvalue(), errors.getvalue())


def process(server: Server, *arguments: str) -> AbstractAsyncContextManager[Program]:
    """The command as a process of its own."""
    return running(*COMMAND, *arguments, environment={"TXGEARMAN_SERVER": f"{server.host}:{server.port}"})


@contextlib.asynccontextmanager
async def at_work(server: Server, prefix: str) -> AsyncIterator[Worker]:
    """A worker whose functions, the ones below, have names that begin with `prefix`."""
    from twisted.internet import reactor

    worker = Worker(reactor, server.endpoint, concurrency=8)
    for name, function in FUNCTIONS.items():
        worker.register(prefix + name, function)
    await worker.start()
    await server.has(prefix + "upper", workers=1)
    try:
        yield worker
    finally:
        await worker.stop(0)


def upper(job: Job) -> bytes:
    if job.data == b"bad":
        raise FailJob  # without a text, so that all servers say the same
    data: bytes = job.data.upper()
    return data


def chatty(job: Job) -> bytes:
    job.send_data(b"one\n")
    job.send_status(1, 2)
    job.send_warning(b"care\x1b[2J!\n")
    job.send_data(b"\xff")
    return b"end"


def boom(_job: Job) -> Any:
    raise ValueError("no such thing")


FUNCTIONS = {"upper": upper, "chatty": chatty, "boom": boom}
