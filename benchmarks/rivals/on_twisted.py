"""txgearman, in Twisted: a worker with ``concurrency`` asks for several jobs ahead (docs/worker.rst)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.rivals.contract import AwaitedCalls, AwaitedClient
from benchmarks.rivals.gearman import calls_of
from benchmarks.rivals.jobs import HOST, port, ran
from txgearman import Client, Worker
from txgearman.worker import Job


def noop(job: Job) -> str:
    ran(job.data)
    return ""


def echo(job: Job) -> str:
    data: str = job.data
    return data


def _run(function: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function of the reactor until it is done. It takes the process along if it fails."""
    try:
        react(lambda reactor: Deferred.fromCoroutine(function(reactor)))
    except SystemExit as ended:
        if ended.code:
            raise


@asynccontextmanager
async def _connected(reactor: Any) -> AsyncIterator[AwaitedCalls]:
    async with Client(reactor, f"tcp:{HOST}:{port()}", codec="text") as client:
        yield calls_of(client)


CLIENT: Final = AwaitedClient(_connected, _run)


def work(concurrency: int) -> None:
    """Work until the process is ended."""

    async def run(reactor: Any) -> None:
        worker = Worker(reactor, f"tcp:{HOST}:{port()}", concurrency=concurrency, codec="text")
        worker.register("noop", noop)
        worker.register("echo", echo)
        await worker.start()
        await Deferred()

    _run(run)
