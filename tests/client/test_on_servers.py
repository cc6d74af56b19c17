"""Client and worker through real servers, gearmand and our own: what the client gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import RUN_LIMIT, Server
from tests.support import on_reactor
from txgearman.client import (
    Client,
    DataUpdate,
    Job,
    JobStatus,
    Priority,
    StatusUpdate,
    WarningUpdate,
)
from txgearman.errors import ConnectionLost, FailJob, JobFailed, JobRaised, NotConnected, ServerError
from txgearman.worker import Callback, Worker
from txgearman.worker import Job as WorkersJob

EVERY_BYTE = bytes(range(256))
MEBIBYTE = EVERY_BYTE * 4096


async def collect(job: Job) -> list[Any]:
    return [update async for update in job.updates()]


class ClientExpectations(Expectations):
    """What a client meets on either server."""

    @asynccontextmanager
    async def client_of(self, server: Server) -> AsyncIterator[Client]:
        from twisted.internet import reactor

        async with Client(reactor, server.endpoint) as client:  # type: ignore[arg-type]
            yield client

    @asynccontextmanager
    async def worker_of(
        self, server: Server, callback: Callback, name: str = "f", **options: Any
    ) -> AsyncIterator[Worker]:
        from twisted.internet import reactor

        worker = Worker(reactor, server.endpoint, **options)  # type: ignore[arg-type]
        worker.register(self.prefix + name, callback)
        try:
            await worker.start()
            yield worker
        finally:
            await worker.stop()

    @asynccontextmanager
    async def both(self, callback: Callback, **options: Any) -> AsyncIterator[Client]:
        """A client whose jobs of the function ``f`` a worker runs by `callback`."""
        async with (
            self.serve() as server,
            self.client_of(server) as client,
            self.worker_of(server, callback, **options),
        ):
            yield client

    @property
    def f(self) -> str:
        """The name of the function ``f`` of this test."""
        return self.prefix + "f"

    async def result(self, client: Client, data: bytes = b"", **options: Any) -> bytes:
        job = await client.submit(self.f, data, timeout=RUN_LIMIT, **options)
        return await job.result(timeout=RUN_LIMIT)

    @on_reactor
    async def test_results_come_back_as_they_are(self) -> None:
        async with self.both(lambda job: job.data) as client:
            for data in (b"", b"\0", EVERY_BYTE, MEBIBYTE):
                self.assertEqual(await self.result(client, data), data)

    @on_reactor
    async def test_very_many_offline_jobs_by_one_call(self) -> None:
        count = 3000
        got: list[bytes] = []
        all_came: Deferred[None] = Deferred()

        def function(job: WorkersJob) -> bytes:
            got.append(job.data)
            if len(got) == 2 * count:
                all_came.callback(None)
            return b""

        payloads = [b"%d\0" % number + EVERY_BYTE for number in range(count)]
        uniques = [f"many{number}" for number in range(count)]
        async with self.serve() as server, self.client_of(server) as client:
            plain = await client.submit_many(self.f, iter(payloads), timeout=RUN_LIMIT)
            keyed = await client.submit_many(self.f, payloads, uniques=uniques, timeout=RUN_LIMIT)
            self.assertEqual(len({*plain, *keyed}), 2 * count)
            self.assertTrue((await client.status(plain[-1])).known)
            again = await client.submit_many(self.f, payloads, uniques=uniques, timeout=RUN_LIMIT)
            self.assertEqual(again, keyed)
            async with self.worker_of(server, function):
                await all_came.addTimeout(RUN_LIMIT, client._clock)
        self.assertEqual(sorted(got), sorted(payloads * 2))

    @on_reactor
    async def test_what_the_worker_is_told(self) -> None:
        def told(job: WorkersJob) -> bytes:
            return repr((job.function, job.unique, job.reducer, job.data)).encode()

        async with self.both(told) as client:
            function = self.f.encode()
            for options, reducer in (
                ({"unique": "größe"}, None),
                ({"unique": "k", "reducer": "sum"}, b"sum"),
            ):
                expected = repr((function, options["unique"].encode(), reducer, b"\0"))
                self.assertEqual(await self.result(client, b"\0", **options), expected.encode())

    @on_reactor
    async def test_a_job_that_fails_and_one_that_raises(self) -> None:
        def function(job: WorkersJob) -> bytes:
            raise {b"fail": FailJob("on purpose"), b"raise": LookupError("größe \0 " + "x" * 1000)}[job.data]

        async with self.both(function) as client:
            with self.assertRaises(JobFailed):
                await self.result(client, b"fail")
            with self.assertRaises(JobRaised) as caught:
                await self.result(client, b"raise")
            self.assertEqual(caught.exception.data, ("LookupError: größe \0 " + "x" * 1000).encode())
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    @on_reactor
    async def test_updates_come_in_order_ahead_of_the_result(self) -> None:
        async def chatty(job: WorkersJob) -> bytes:
            job.send_status(1, 2)
            job.send_data(b"one\0")
            await succeed(None)
            job.send_warning(EVERY_BYTE)
            job.send_data(MEBIBYTE)
            job.send_status(2, 2)
            return b"done"

        async with self.both(chatty) as client:
            job = await client.submit(self.f, b"")
            self.assertEqual(
                await collect(job),
                [
                    StatusUpdate(1, 2),
                    DataUpdate(b"one\0"),
                    WarningUpdate(EVERY_BYTE),
                    DataUpdate(MEBIBYTE),
                    StatusUpdate(2, 2),
                ],
            )
            self.assertEqual(await job.result(), b"done")
            self.assertEqual(job.last_status, (2, 2))

    @on_reactor
    async def test_two_submissions_of_one_unique(self) -> None:
        """gearmand tells the connection everything twice under one handle, ours once under each of two."""
        begin: Deferred[None] = Deferred()
        runs: list[WorkersJob] = []

        async def function(job: WorkersJob) -> bytes:
            runs.append(job)
            await begin
            for number in range(3):
                job.send_data(b"%d" % number)
            return b"done"

        async with self.both(function) as client:
            jobs = [await client.submit(self.f, b"", unique="k") for _ in range(2)]
            await client.echo(b"both are in")
            begin.callback(None)
            for job in jobs:
                self.assertEqual(await collect(job), [DataUpdate(b"0"), DataUpdate(b"1"), DataUpdate(b"2")])
                self.assertEqual(await job.result(), b"done")
        self.assertEqual(len(runs), 1)

    @on_reactor
    async def test_many_at_once(self) -> None:
        async with self.both(lambda job: job.data, concurrency=4) as client:
            data = [b"%d" % number for number in range(300)]
            jobs = await gatherResults([client.submit(self.f, each) for each in data])
            self.assertEqual(await gatherResults([job.result(RUN_LIMIT) for job in jobs]), data)

    @on_reactor
    async def test_the_state_of_jobs(self) -> None:
        running: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def function(job: WorkersJob) -> bytes:
            job.send_status(1, 3)
            running.callback(None)
            await go_on
            return b""

        async with self.serve() as server, self.client_of(server) as client:
            job = await client.submit(self.f, b"", unique=self.prefix[-60:])
            self.assertEqual(await client.status(job), JobStatus(True, False, 0, 0))
            async with self.worker_of(server, function):
                await running
                followed = anext(job.updates())
                self.assertEqual(await followed, StatusUpdate(1, 3))
                self.assertEqual(await client.status(job.handle), JobStatus(True, True, 1, 3))
                self.assertEqual(await client.status_by_unique(job.unique), JobStatus(True, True, 1, 3, 1))
                go_on.callback(None)
                await job.result()
                self.assertEqual(await client.status(job), JobStatus(False, False, 0, 0))
                gone = await client.status_by_unique(job.unique)
                self.assertEqual(gone, JobStatus(False, False, 0, 0, 0))

    @on_reactor
    async def test_offline_jobs(self) -> None:
        done: Deferred[list[bytes]] = Deferred()
        ran: list[bytes] = []

        def function(job: WorkersJob) -> None:
            ran.append(job.data)
            if len(ran) == 3:
                done.callback(ran)

        async with self.serve() as server:
            async with self.client_of(server) as client:
                await client.submit(self.f, b"low", background=True, priority=Priority.LOW)
                await client.submit(self.f, b"high", background=True, priority=Priority.HIGH)
                await client.submit(self.f, b"past", run_at=1)
            async with self.worker_of(server, function):
                self.assertEqual(await done, [b"high", b"past", b"low"])

    @on_reactor
    async def test_a_job_for_later(self) -> None:
        async with (
            self.serve_alone() as server,
            self.client_of(server) as client,
            self.worker_of(server, lambda job: job.data),
        ):
            later = await client.submit(self.f, b"", run_at=2**31)
            self.assertEqual(await client.status(later), JobStatus(True, False, 0, 0))
            self.assertEqual(await self.result(client, b"now"), b"now")
            self.assertEqual(await client.status(later), JobStatus(True, False, 0, 0))

    @on_reactor
    async def test_echo(self) -> None:
        async with self.serve() as server, self.client_of(server) as client:
            for data in (b"", EVERY_BYTE, MEBIBYTE):
                self.assertEqual(await client.echo(data, timeout=RUN_LIMIT), data)

    @on_reactor
    async def test_a_refused_submission(self) -> None:
        async with self.serve() as server, self.client_of(server) as client:
            first = await client.submit(self.f, b"", background=True)
            await server.ask(f"maxqueue {self.f} 1")
            refused, echo = client.submit(self.f, b"", background=True), client.echo(b"goes on")
            with self.assertRaises(ServerError) as caught:
                await refused
            self.assertEqual(caught.exception.code, "QUEUE_ERROR")
            self.assertEqual(await echo, b"goes on")
            await server.ask(f"cancel job {first.handle.decode()}")

    @on_reactor
    async def test_a_cancelled_submission(self) -> None:
        async with self.both(lambda job: job.data) as client:
            first, second = client.submit(self.f, b"1"), client.submit(self.f, b"2")
            first.cancel()
            with self.assertRaises(CancelledError):
                await first
            self.assertEqual(await (await second).result(), b"2")

    @on_reactor
    async def test_a_server_that_dies(self) -> None:
        async with self.serve_alone() as server, self.client_of(server) as client:
            job = await client.submit(self.f, b"")
            result = job.result()
            await server.program.kill()
            with self.assertRaises(ConnectionLost):
                await result
            with self.assertRaises(ConnectionLost):
                await collect(job)
            with self.assertRaises(NotConnected):
                await client.submit(self.f, b"")


class ClientOnGearmandTests(OnGearmand, ClientExpectations, TestCase):
    pass


class ClientOnTxgearmanTests(OnTxgearman, ClientExpectations, TestCase):
    pass
