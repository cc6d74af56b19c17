"""A client and a worker on txgearman, in Twisted."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from benchmarks.programs.clock import BATCH, DATA, FUNCTION, Clock, arguments
from txgearman import Client, Worker
from txgearman.worker import Job

CONCURRENCY: Final = {"work": 16, "work-one": 1}
"""Jobs that the worker may run at once, by role."""


async def each(client: Client, clock: Clock) -> None:
    for _ in range(clock.jobs):
        await client.submit(FUNCTION, DATA, background=True)


async def call(client: Client, clock: Clock) -> None:
    for _ in range(clock.jobs):
        job = await client.submit(FUNCTION, DATA)
        await job.result()


async def many(client: Client, clock: Clock) -> None:
    batch = [DATA] * BATCH
    for _ in range(0, clock.jobs, BATCH):
        await client.submit_many(FUNCTION, batch)


async def many_calls(client: Client, clock: Clock) -> None:
    failures: list[Failure] = []
    for _ in range(clock.jobs):
        await client.room()
        client.submit(FUNCTION, DATA, background=True).addErrback(failures.append)
    await client.answered()
    if failures:
        failures[0].raiseException()


SUBMITTING: Final = {"each": each, "call": call, "many": many, "many-calls": many_calls}
"""What the client does, by role."""


async def submit(reactor: Any, port: int, role: str, clock: Clock) -> None:
    async with Client(reactor, f"tcp:127.0.0.1:{port}") as client:
        await client.submit(FUNCTION, DATA, background=True)
        clock.start()
        await SUBMITTING[role](client, clock)
        clock.stop()


async def work(reactor: Any, port: int, concurrency: int, clock: Clock) -> None:
    worker = Worker(reactor, f"tcp:127.0.0.1:{port}", concurrency=concurrency)
    done: Deferred[None] = Deferred()

    def function(_job: Job) -> bytes:
        clock.count()
        if clock.over:
            reactor.callLater(0, done.callback, None)
        return DATA

    worker.register(FUNCTION, function)
    await worker.start()
    await done
    await worker.stop()


async def answer(reactor: Any, port: int) -> None:
    """Work until the process is ended."""
    worker = Worker(reactor, f"tcp:127.0.0.1:{port}")
    worker.register(FUNCTION, lambda job: job.data)
    await worker.start()
    await Deferred()


async def main(reactor: Any) -> None:
    role, port, clock = arguments()
    if role == "answer":
        await answer(reactor, port)
    if role in CONCURRENCY:
        await work(reactor, port, CONCURRENCY[role], clock)
    else:
        await submit(reactor, port, role, clock)
    clock.report()


react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
