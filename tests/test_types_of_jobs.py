"""The two types of jobs, online and offline, and what each supports: the table of their definition.

===============================  ============  =============
Feature                          Online        Offline
===============================  ============  =============
Supports a return value          yes           no
Supports mid-job data updates    yes           no
Supports mid-job status updates  yes           yes
submit blocks                    optional      no
===============================  ============  =============

One test for each cell, on a real server on a real port. The worker's function does nothing by itself:
each test says when it goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, RUN_LIMIT
from tests.server.lines import Line, close, connect
from tests.server.peers import req, res
from tests.support import free_port, on_reactor
from txgearman import worker as worker_package
from txgearman.client import Client, JobStatus
from txgearman.errors import NoResult
from txgearman.server import Settings, make_service
from txgearman.worker import Worker

FUNCTION = "delayed_reverse"
DATA = b"Hello World!"
RESULT = b"!dlroW olleH"


@dataclass(frozen=True)
class Run:
    """A job that the worker runs, as its function sees it, and the outcome it waits for."""

    job: worker_package.Job
    outcome: Deferred[bytes]


@dataclass(frozen=True)
class Setting:
    """A server on `port`, a client, and a worker whose runs come out of `runs` as they begin."""

    port: int
    client: Client
    worker: Worker
    runs: DeferredQueue[Run]

    async def next_run(self) -> Run:
        """The next job that the worker has begun to run."""
        from twisted.internet import reactor

        run: Run = await self.runs.get().addTimeout(RUN_LIMIT, reactor)
        return run

    async def until_status(self, handle: bytes, numerator: int, denominator: int) -> JobStatus:
        """Ask for the status until it is this one, as it is on its way by another connection."""
        from twisted.internet import reactor

        end = reactor.seconds() + RUN_LIMIT
        while True:
            status = await self.client.status(handle)
            if (status.numerator, status.denominator) == (numerator, denominator):
                return status
            assert reactor.seconds() < end, status

    async def until_gone(self, handle: bytes, asker: Client | None = None) -> JobStatus:
        """Let `asker`, if not the client, ask for the status until the job is not known any more."""
        from twisted.internet import reactor

        end = reactor.seconds() + RUN_LIMIT
        while True:
            status = await (asker or self.client).status(handle)
            if not status.known:
                return status
            assert reactor.seconds() < end, status


@contextlib.asynccontextmanager
async def setting(*, working: bool = True) -> AsyncIterator[Setting]:
    """A server, a client and a worker, which is `working` or not yet started."""
    from twisted.internet import reactor

    port = free_port()
    endpoint = f"tcp:{HOST}:{port}"
    service = make_service(Settings(listen=(f"tcp:{port}:interface={HOST}",)))
    runs: DeferredQueue[Run] = DeferredQueue()

    def begin(job: worker_package.Job) -> Deferred[bytes]:
        run = Run(job, Deferred())
        runs.put(run)
        return run.outcome

    worker = Worker(reactor, endpoint)
    worker.register(FUNCTION, begin)
    client = Client(reactor, endpoint)
    service.startService()
    try:
        if working:
            await worker.start()
        yield Setting(port, client, worker, runs)
    finally:
        await client.close()
        if worker.running:
            await worker.stop()
        await defer.maybeDeferred(service.stopService)


def told(listen: object) -> Deferred[tuple[object, ...]]:
    """A Deferred of what the callback is called with first that `listen` is given."""
    heard: Deferred[tuple[object, ...]] = Deferred()
    listen(lambda *arguments: None if heard.called else heard.callback(arguments))  # type: ignore[operator]
    return heard


@contextlib.asynccontextmanager
async def offline_submitter(port: int) -> AsyncIterator[tuple[Line, bytes]]:
    """A raw connection that has submitted an offline job, and the job's handle: it misses nothing."""
    line = await connect(port)
    try:
        created = await line.say(req(18, FUNCTION.encode(), b"", DATA))
        handle = created[12:]
        assert created == res(8, handle), created
        yield line, handle
    finally:
        await close(line)


class ReturnValueTest(TestCase):
    """Supports a return value: yes, no."""

    @on_reactor
    async def test_online_yes(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA)
            run = await its.next_run()
            self.assertEqual(run.job.data, DATA)
            run.outcome.callback(run.job.data[::-1])
            self.assertEqual(await job.result(), RESULT)

    @on_reactor
    async def test_offline_no(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA, background=True)
            run = await its.next_run()
            with self.assertRaises(NoResult):
                await job.result()
            run.outcome.callback(RESULT)
            await its.until_gone(job.handle)
            with self.assertRaises(NoResult):
                await job.result()

    @on_reactor
    async def test_offline_it_is_sent_to_nobody(self) -> None:
        async with setting() as its, offline_submitter(its.port) as (line, handle):
            run = await its.next_run()
            run.outcome.callback(RESULT)
            await its.until_gone(handle)
            self.assertEqual(await line.say(), b"")


class DataUpdatesTest(TestCase):
    """Supports mid-job data updates: yes, no."""

    @on_reactor
    async def test_online_yes(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA)
            heard = told(job.on_data)
            run = await its.next_run()
            run.job.send_data(b"half way data")
            self.assertEqual(await heard, (b"half way data",))
            self.assertTrue((await its.client.status(job)).running)
            run.outcome.callback(RESULT)
            self.assertEqual(await job.result(), RESULT)

    @on_reactor
    async def test_offline_no(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA, background=True)
            run = await its.next_run()
            with self.assertRaises(NoResult):
                job.on_data(print)
            with self.assertRaises(NoResult):
                job.updates()
            # To send it is no error: the function need not know of which type its job is.
            run.job.send_data(b"half way data")
            run.outcome.callback(RESULT)
            await its.until_gone(job.handle)

    @on_reactor
    async def test_offline_they_are_sent_to_nobody(self) -> None:
        async with setting() as its, offline_submitter(its.port) as (line, handle):
            run = await its.next_run()
            run.job.send_data(b"half way data")
            run.job.send_warning(b"half way warning")
            run.job.send_status(1, 2)
            await its.until_status(handle, 1, 2)
            self.assertEqual(await line.say(), b"")
            run.outcome.callback(RESULT)


class StatusUpdatesTest(TestCase):
    """Supports mid-job status updates: yes, yes."""

    @on_reactor
    async def test_online_yes(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA)
            heard = told(job.on_status)
            run = await its.next_run()
            run.job.send_status(1, 3)
            self.assertEqual(await heard, (1, 3))
            self.assertEqual(job.last_status, (1, 3))
            run.outcome.callback(RESULT)
            self.assertEqual(await job.result(), RESULT)

    @on_reactor
    async def test_online_also_by_asking(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA)
            await self.follow(its, job.handle)
            self.assertEqual(await job.result(), RESULT)

    @on_reactor
    async def test_offline_yes_by_asking(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA, background=True)
            await self.follow(its, job.handle)

    @on_reactor
    async def test_offline_also_when_its_submitter_has_left(self) -> None:
        async with setting() as its:
            async with offline_submitter(its.port) as (_, handle):
                pass
            await self.follow(its, handle)

    async def follow(self, its: Setting, handle: bytes) -> None:
        """A job's way from its start to its end, as the server tells whoever asks."""
        run = await its.next_run()
        status = await its.client.status(handle)
        self.assertEqual((status.known, status.running), (True, True))
        self.assertEqual((status.numerator, status.denominator), (0, 0))
        for step in (1, 2):
            run.job.send_status(step, 3)
            status = await its.until_status(handle, step, 3)
            self.assertEqual((status.known, status.running), (True, True))
        run.outcome.callback(RESULT)
        status = await its.until_gone(handle)
        self.assertEqual((status.running, status.numerator, status.denominator), (False, 0, 0))


class SubmitBlocksTest(TestCase):
    """submit blocks: optional, no."""

    @on_reactor
    async def test_online_not_unless_wanted(self) -> None:
        async with setting(working=False) as its:
            job = await its.client.submit(FUNCTION, DATA)
            # Nobody is there who could run it.
            status = await its.client.status(job)
            self.assertEqual((status.known, status.running), (True, False))

    @on_reactor
    async def test_online_as_long_as_the_job_takes(self) -> None:
        async with setting() as its:
            job = await its.client.submit(FUNCTION, DATA)
            waiting = job.result()
            run = await its.next_run()
            self.assertTrue((await its.client.status(job)).running)
            self.assertFalse(waiting.called)
            run.outcome.callback(RESULT)
            self.assertEqual(await waiting, RESULT)

    @on_reactor
    async def test_offline_no(self) -> None:
        async with setting(working=False) as its:
            job = await its.client.submit(FUNCTION, DATA, background=True)
            status = await its.client.status(job)
            self.assertEqual((status.known, status.running), (True, False))
            # There is nothing to wait for either: the answer is there at once.
            answer = job.result()
            self.assertTrue(answer.called)
            with self.assertRaises(NoResult):
                await answer

    @on_reactor
    async def test_offline_the_job_survives_its_submitter(self) -> None:
        async with setting(working=False) as its:
            async with offline_submitter(its.port) as (_, handle):
                pass
            await its.worker.start()
            run = await its.next_run()
            self.assertEqual((run.job.handle, run.job.data), (handle, DATA))
            run.outcome.callback(RESULT)
            await its.until_gone(handle)

    @on_reactor
    async def test_online_the_job_does_not(self) -> None:
        from twisted.internet import reactor

        async with (
            setting(working=False) as its,
            Client(reactor, f"tcp:{HOST}:{its.port}") as other,
        ):
            job = await its.client.submit(FUNCTION, DATA)
            self.assertTrue((await other.status(job)).known)
            await its.client.close()
            await its.until_gone(job.handle, other)
