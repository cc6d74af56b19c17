"""txgearman, in asyncio: a worker with ``concurrency`` asks for several jobs ahead (docs/worker.rst)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.rivals.contract import AwaitedCalls, AwaitedClient
from benchmarks.rivals.gearman import calls_of
from benchmarks.rivals.jobs import HOST, port, ran
from txgearman.aio import Client, Worker
from txgearman.worker import Job


async def noop(job: Job) -> str:
    ran(job.data)
    return ""


async def echo(job: Job) -> str:
    data: str = job.data
    return data


@asynccontextmanager
async def _connected(_reactor: object) -> AsyncIterator[AwaitedCalls]:
    async with Client(f"tcp:{HOST}:{port()}", codec="text") as client:
        yield calls_of(client)


CLIENT: Final = AwaitedClient(_connected, lambda function: asyncio.run(function(None)))


def work(concurrency: int) -> None:
    """Work until the process is ended."""

    async def run() -> None:
        worker = Worker(f"tcp:{HOST}:{port()}", concurrency=concurrency, codec="text")
        worker.register("noop", noop)
        worker.register("echo", echo)
        await worker.start()
        await asyncio.Event().wait()

    asyncio.run(run())
