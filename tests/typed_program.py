"""A program as users write it, for the type checkers: it is checked against the wheel, and never run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from txgearman import Client, Priority, Worker, aio, blocking
from txgearman.client import Job, JobOutcome
from txgearman.errors import JobFailed, JobRaised, Reject, Retry
from txgearman.testing import MemoryGearman
from txgearman.worker import Hooks
from txgearman.worker import Job as WorkerJob


def resize(job: WorkerJob) -> bytes:
    attempt: int | None = job.attempt
    if attempt is not None and attempt > 3:
        raise Reject("too often")
    job.send_status(1, 2)
    data: bytes = job.data
    return data[::-1]


async def slow(job: WorkerJob) -> bytes:
    raise Retry(5, "not yet")


async def twisted_program(reactor: IReactorTime) -> None:
    worker = Worker(reactor, "tcp:127.0.0.1:4730", concurrency=4, hooks=Hooks(before_job=print))
    worker.register("resize", resize, timeout=5)
    worker.register("slow", slow)
    started: Deferred[None] = worker.start()
    await started
    async with Client(reactor, ["tcp:127.0.0.1:4730", "tcp:127.0.0.1:4731"]) as client:
        job: Job = await client.submit("resize", b"data", priority=Priority.HIGH, attempts=3)
        handle: bytes = job.handle
        try:
            print(handle, await job.result(timeout=5))
        except JobRaised as raised:
            print(raised.data)
        except JobFailed as failed:
            print(failed.handle)
        handles: list[bytes] = await client.submit_many("resize", [b"one", b"two"], priority="low")
        print(handles)
        async for outcome in client.run_many("resize", [b"one", b"two"], ordered=False):
            index: int = outcome.index
            print(index, outcome.result())
        schedule: bytes = await client.schedule("resize", b"", minute="*/5")
        await client.unschedule(schedule)


async def asyncio_program() -> None:
    async with aio.Client("tcp:127.0.0.1:4730") as client:
        job = await client.submit("resize", b"data", unique="key")
        print(await asyncio.wait_for(job.result(), 5), job.last_status)
        outcomes: list[JobOutcome] = [one async for one in client.run_many("resize", [b"one"])]
        print(outcomes)


def task(worker: blocking.GearmanWorker, job: blocking.GearmanJob) -> str:
    worker.send_job_status(job, 1, 2)
    return str(job.data)


def blocking_program() -> Iterator[JobOutcome]:
    worker = blocking.GearmanWorker("localhost:4730")
    worker.register_task("resize", task)
    client = blocking.GearmanClient(["localhost:4730", ("localhost", 4731)])
    request = client.submit_job("resize", "data", priority=blocking.PRIORITY_HIGH, poll_timeout=5)
    if request.state == blocking.JOB_COMPLETE:
        print(request.result)
    return client.run_many("resize", ["one", "two"])


def test_program() -> None:
    gearman = MemoryGearman()
    job = gearman.wait(gearman.client().submit("resize", b"data"))
    print(job.handle)


if __name__ == "__main__":
    react(twisted_program)
