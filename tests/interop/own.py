"""This package's client and worker behind the faces that foreign.py gives to those of others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.interop.foreign import Job, Told
from tests.interop.programs import Server
from txgearman import Client, Priority, Worker
from txgearman.client import Job as SubmittedJob
from txgearman.errors import FailJob, JobFailed, JobRaised
from txgearman.worker import Callback
from txgearman.worker import Job as AssignedJob

LIMIT: Final = 10.0
"""Seconds for any one answer."""


class OwnClient:
    """`txgearman.Client`; it asks for exceptions on every connection."""

    async def run(self, server: Server, jobs: Sequence[Job]) -> Told:
        """Submit all `jobs` at once and follow each to its end."""
        from twisted.internet import reactor

        told = Told()
        async with Client(reactor, server.endpoint) as client:
            await gatherResults(
                [
                    Deferred.fromCoroutine(self._run(client, told, index, job))
                    for index, job in enumerate(jobs)
                ],
                consumeErrors=True,
            )
        return told

    async def _run(self, client: Client, told: Told, index: int, job: Job) -> None:
        submitted = await client.submit(
            job.function,
            job.data * job.repeat,
            unique=job.unique,
            priority=Priority(job.priority),
            background=job.background,
            timeout=LIMIT,
        )
        told.handles[index] = submitted.handle.decode()
        if not job.background:
            await self._follow(told, index, submitted)

    async def _follow(self, told: Told, index: int, submitted: SubmittedJob) -> None:
        events = told.events.setdefault(index, [])
        submitted.on_data(lambda data: events.append(("data", data)))
        submitted.on_warning(lambda data: events.append(("warning", data)))
        submitted.on_status(lambda numerator, denominator: events.append(("status", numerator, denominator)))
        try:
            events.append(("complete", await submitted.result(timeout=LIMIT)))
        except JobRaised as error:
            events.append(("exception", error.data))
        except JobFailed:
            events.append(("fail",))
        told.order.append(index)


class OwnWorker:
    """`txgearman.Worker` with the repertoire; what it raises is a `ValueError`, which it also logs."""

    @contextlib.asynccontextmanager
    async def serving(self, server: Server, prefix: str) -> AsyncIterator[Worker]:
        """The worker, offering its repertoire under `prefix`; the server knows it when the body begins."""
        from twisted.internet import reactor

        worker = Worker(reactor, server.endpoint, client_id=f"own-{prefix}")
        for name, function in _REPERTOIRE.items():
            worker.register(prefix + name, function)
        _, _, before = await server.status(f"{prefix}echo")
        await worker.start().addTimeout(LIMIT, reactor)
        try:
            await server.has(f"{prefix}echo", workers=before + 1)
            yield worker
        finally:
            await worker.stop()


def _echo(job: AssignedJob) -> bytes:
    return job.data


def _size(job: AssignedJob) -> bytes:
    return b"%d" % len(job.data)


def _unique(job: AssignedJob) -> bytes:
    return job.unique


def _empty(job: AssignedJob) -> None:
    return None


def _chatty(job: AssignedJob) -> bytes:
    job.send_data(b"one\0" + job.data)
    job.send_warning(b"careful\0" + job.data)
    job.send_status(1, 2)
    job.send_data(b"two")
    return b"done"


def _fail(job: AssignedJob) -> None:
    raise FailJob


def _raise(job: AssignedJob) -> None:
    raise ValueError("reason\0" + job.data.decode())


async def _hold(job: AssignedJob) -> bytes:
    from twisted.internet import reactor

    job.send_status(3, 7)
    while not Path(job.data.decode()).exists():
        await deferLater(reactor, 0.005)
    return b"released"


_REPERTOIRE: Final[dict[str, Callback]] = {
    "echo": _echo,
    "size": _size,
    "unique": _unique,
    "empty": _empty,
    "chatty": _chatty,
    "fail": _fail,
    "raise": _raise,
    "hold": _hold,
}
OWN_CLIENT: Final = OwnClient()
OWN_WORKER: Final = OwnWorker()
