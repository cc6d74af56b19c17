"""A worker on real servers, gearmand and our own: what the server knows of it and gives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import RUN_LIMIT, Server
from tests.support import on_reactor
from txgearman.client import Admin, Client
from txgearman.worker import Job, Worker


class WorkerExpectations(Expectations):
    """What a worker meets on either server."""

    @asynccontextmanager
    async def joined(self, server: Server, **options: Any) -> AsyncIterator[tuple[Client, Worker]]:
        """A connected client and a started worker without functions."""
        from twisted.internet import reactor

        worker = Worker(reactor, server.endpoint, **options)  # type: ignore[arg-type]
        async with Client(reactor, server.endpoint) as client:  # type: ignore[arg-type]
            try:
                await worker.start()
                yield client, worker
            finally:
                await worker.stop()

    @on_reactor
    async def test_the_server_shows_its_name_and_functions(self) -> None:
        async with self.serve_alone() as server, self.joined(server, client_id="a-worker") as (_, worker):
            worker.register("one", lambda job: None)
            worker.register("two", lambda job: None, timeout=100)
            await server.has("two", workers=1)
            rows = [row for row in (await server.ask("workers")).decode().split("\n") if "a-worker" in row]
            self.assertEqual(len(rows), 1)
            self.assertEqual(set(rows[0].split(":", 1)[1].split()), {"one", "two"})
            worker.unregister("one")
            await server.has("one", workers=0)
            await server.has("two", workers=1)

    @on_reactor
    async def test_jobs_run_side_by_side(self) -> None:
        all_run: Deferred[None] = Deferred()
        running: list[Job] = []
        name = f"{self.prefix}f"

        async def function(job: Job) -> bytes:
            running.append(job)
            if len(running) == 3:
                all_run.callback(None)
            await finish
            return job.data

        finish: Deferred[None] = Deferred()
        async with self.serve() as server, self.joined(server, concurrency=3) as (client, worker):
            worker.register(name, function)
            jobs = await gatherResults([client.submit(name, b"%d" % number) for number in range(5)])
            await all_run
            self.assertEqual(await server.status(name), (5, 3, 1))
            finish.callback(None)
            results = await gatherResults([job.result(RUN_LIMIT) for job in jobs])
            self.assertEqual(results, [b"0", b"1", b"2", b"3", b"4"])

    @on_reactor
    async def test_a_function_with_a_limit_of_its_own(self) -> None:
        finish: Deferred[None] = Deferred()
        full: Deferred[None] = Deferred()
        running: list[bytes] = []
        limited, free = f"{self.prefix}limited", f"{self.prefix}free"

        async def function(job: Job) -> bytes:
            running.append(job.function)
            if len(running) == 3:
                full.callback(None)
            await finish
            return bytes(job.data)

        async with self.serve() as server, self.joined(server, concurrency=3) as (client, worker):
            worker.register(limited, function, concurrency=1)
            worker.register(free, function)
            jobs = [await client.submit(limited, b"%d" % number) for number in range(3)]
            jobs += [await client.submit(free, b"%d" % number) for number in range(2)]
            await full
            self.assertEqual(await server.status(limited), (3, 1, 1))
            self.assertEqual(await server.status(free), (2, 2, 1))
            finish.callback(None)
            results = await gatherResults([job.result(RUN_LIMIT) for job in jobs])
            self.assertEqual(results, [b"0", b"1", b"2", b"0", b"1"])

    @on_reactor
    async def test_a_stop_lets_the_running_job_end_and_leaves_the_next_to_others(self) -> None:
        finish: Deferred[bytes] = Deferred()
        begun: Deferred[Job] = Deferred()
        name = f"{self.prefix}f"

        def hold(job: Job) -> Deferred[bytes]:
            begun.callback(job)
            return finish

        async with self.serve() as server, self.joined(server) as (client, worker):
            worker.register(name, hold)
            first, second = [await client.submit(name, b"") for _ in range(2)]
            await begun
            stopped = worker.stop()
            finish.callback(b"r")
            self.assertEqual(await first.result(RUN_LIMIT), b"r")
            await stopped
            await server.has(name, jobs=1, active=0, workers=0)
            worker.unregister(name)
            worker.register(name, lambda job: b"again")
            await worker.start()
            self.assertEqual(await second.result(RUN_LIMIT), b"again")

    @on_reactor
    async def test_a_stop_in_the_middle_of_many_jobs_costs_none_an_attempt(self) -> None:
        from twisted.internet import reactor

        name = f"{self.prefix}f"
        done = 0

        def function(_job: Job) -> bytes:
            nonlocal done
            done += 1
            if done == 100:
                worker.stop().chainDeferred(stopped)
            return b""

        stopped: Deferred[None] = Deferred()
        async with self.serve_alone() as server, self.joined(server, concurrency=16) as (client, worker):
            await client.submit_many(name, [b""] * 1000)
            worker.register(name, function)
            await stopped
            async with Admin(reactor, server.endpoint) as admin:  # type: ignore[arg-type]
                jobs = await admin.jobs()
        self.assertEqual(len(jobs), 1000 - done)
        self.assertEqual({job.losses for job in jobs}, {0})

    @on_reactor
    async def test_a_function_registered_late_gets_the_jobs_that_wait(self) -> None:
        async with self.serve() as server, self.joined(server) as (client, worker):
            name = f"{self.prefix}f"
            for number in (b"1", b"2"):
                job = await client.submit(name, number)
                worker.register(name, lambda job: job.data)
                self.assertEqual(await job.result(RUN_LIMIT), number)
                worker.unregister(name)
                await server.has(name, workers=0)

    @on_reactor
    async def test_a_sleeping_worker_is_woken(self) -> None:
        async with self.serve() as server, self.joined(server) as (client, worker):
            name = f"{self.prefix}f"
            worker.register(name, lambda job: job.data)
            for number in range(20):
                job = await client.submit(name, b"%d" % number)
                self.assertEqual(await job.result(RUN_LIMIT), b"%d" % number)


class WorkerOnGearmandTests(OnGearmand, WorkerExpectations, TestCase):
    pass


class WorkerOnTxgearmanTests(OnTxgearman, WorkerExpectations, TestCase):
    pass
