"""Servers that go and come back in the middle of a load: each job has its end, and the worker works on."""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack
from signal import SIGCONT
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import RUN_LIMIT, Server, start_again
from tests.support import on_reactor, pause
from txgearman.client import Client
from txgearman.errors import ClientError
from txgearman.testing import MemoryGearman
from txgearman.worker import Job, Worker

CONCURRENCY: Final = 3


class InMemoryTests(SynchronousTestCase):
    """Two servers, of which now one and now the other is stopped and started, by dice."""

    def setUp(self) -> None:
        first = MemoryGearman()
        self.servers = [first, MemoryGearman(clock=first.clock)]
        self.clock = first.clock
        self.running = 0
        self.most = 0
        self.ran = 0
        self.ends: list[Any] = []
        self.submitted = 0

    async def work(self, job: Job) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await deferLater(self.clock, self.dice.random())  # type: ignore[arg-type]
        finally:
            self.running -= 1
        self.ran += 1
        return bytes(job.data)

    async def follow(self, client: Client, data: bytes) -> None:
        """Submit a job and note its end: its result or its error."""
        self.submitted += 1
        try:
            job = await client.submit("f", data, timeout=5)
            self.ends.append(await job.result(timeout=60))
        except ClientError as error:
            self.ends.append(error)

    def load(self, seed: int) -> None:
        self.dice = random.Random(seed)
        worker = self.servers[0].worker(
            self.servers[1], concurrency=CONCURRENCY, client_id="w", retry_policy=lambda attempt: 1.0
        )
        worker.register("f", self.work)
        worker.register("g", self.work, concurrency=1)
        worker.start()
        clients = [server.client() for server in self.servers]
        for step in range(60):
            server = self.dice.choice(self.servers)
            if self.dice.random() < 0.3:
                (server.stop if server.running else server.start)()
            elif self.dice.random() < 0.2:
                server.cut()
            for client in clients:
                Deferred.fromCoroutine(self.follow(client, b"%d" % step))
            self.clock.advance(self.dice.random())
            self.servers[0].turn()
        self.calm(worker, clients)

    def calm(self, worker: Worker, clients: list[Client]) -> None:
        """Both servers come back; the load ends, and then each server's jobs are run."""
        for server in self.servers:
            if not server.running:
                server.start()
        self.servers[0].turn(120)
        self.assertEqual(len(self.ends), self.submitted, "each has its end")
        for client in clients:
            for function in ("f", "g"):
                job = self.servers[0].wait(client.submit(function, b"last"))
                self.assertEqual(self.servers[0].wait(job.result()), b"last")
        stopped = worker.stop()
        for client in clients:
            client.close()
        self.servers[0].wait(stopped)

    def test_each_job_has_its_end_and_both_servers_are_served_again(self) -> None:
        for seed in range(8):
            self.setUp()
            with capturedLogs():
                self.load(seed)
            self.assertGreater(self.ran, 20)
            results = [end for end in self.ends if isinstance(end, bytes)]
            self.assertTrue(0 < len(results) < len(self.ends), "some were lost with a server, some not")
            self.assertEqual((self.most, self.running), (CONCURRENCY, 0))
        self.flushLoggedErrors()


class RestartExpectations(Expectations):
    """A worker through the death of a real server in the middle of a load."""

    async def echoes(self, server: Server, name: str) -> None:
        """Jobs of this server are run."""
        from twisted.internet import reactor

        async with Client(reactor, server.endpoint) as client:  # type: ignore[arg-type]
            for number in range(3):
                job = await client.submit(name, b"%d" % number)
                self.assertEqual(await job.result(RUN_LIMIT), b"%d" % number)

    async def die_under_load(self, server: Server, name: str, started: Deferred[None]) -> None:
        """Kill the server while a job of it runs and others wait; each has its end."""
        from twisted.internet import reactor

        async with Client(reactor, server.endpoint) as client:  # type: ignore[arg-type]
            jobs = [await client.submit(name, b"hold")]
            jobs += [await client.submit(name, b"%d" % number) for number in range(50)]
            ends = DeferredList([job.result(RUN_LIMIT) for job in jobs], consumeErrors=True)
            await started
            await server.program.kill()
            succeeded = [success for success, _ in await ends]
            self.assertFalse(succeeded[0], "the job that ran has its error")

    @on_reactor
    async def test_it_comes_back_and_works_on(self) -> None:
        from twisted.internet import reactor

        name = f"{self.prefix}f"
        started: Deferred[None] = Deferred()
        cancelled: list[bytes] = []

        async def function(job: Job) -> bytes:
            if job.data == b"hold":
                started.callback(None)
                try:
                    await Deferred()
                finally:
                    cancelled.append(job.handle)
            return bytes(job.data)

        async with self.serve_alone() as stays, self.serve_alone() as goes, AsyncExitStack() as stack:
            worker = Worker(
                reactor,  # type: ignore[arg-type]
                [stays.endpoint, goes.endpoint],
                client_id="survivor",
                concurrency=2,
                retry_policy=lambda attempt: 0.02,
            )
            stack.push_async_callback(worker.stop, 0)
            worker.register(name, function)
            await worker.start()
            await self.die_under_load(goes, name, started)
            await self.echoes(stays, name)
            self.assertEqual(len(cancelled), 1, "and it was cancelled here")
            back = await start_again(goes)
            stack.push_async_callback(back.program.kill)
            await back.has(name, workers=1)
            self.assertIn(b"survivor", await back.ask("workers"))
            await self.echoes(back, name)
            await self.echoes(stays, name)

    @on_reactor
    async def test_a_server_that_stops_without_a_word_is_given_up_and_found_again(self) -> None:
        """As after a power loss: its connections stay, and nothing comes on them."""
        from twisted.internet import reactor

        name = f"{self.prefix}f"
        async with self.serve_alone() as server:
            worker = Worker(
                reactor,  # type: ignore[arg-type]
                server.endpoint,
                check_interval=0.1,
                check_timeout=0.2,
                retry_policy=lambda attempt: 0.02,
            )
            worker.register(name, lambda job: job.data)
            try:
                await worker.start()
                await self.echoes(server, name)
                lost = worker_log("not answer within 0.2 seconds")
                pause(server.pid)
                try:
                    await lost
                finally:
                    os.kill(server.pid, SIGCONT)
                await self.echoes(server, name)
            finally:
                await worker.stop(0)


class RestartsOnGearmandTests(OnGearmand, RestartExpectations, TestCase):
    pass


class RestartsOnTxgearmanTests(OnTxgearman, RestartExpectations, TestCase):
    pass


def worker_log(text: str) -> Deferred[None]:
    """Fires when `text` is logged."""
    logged: Deferred[None] = Deferred()

    def observe(event: Any) -> None:
        if text in (formatEvent(event) or "") and not logged.called:
            globalLogPublisher.removeObserver(observe)
            logged.callback(None)

    globalLogPublisher.addObserver(observe)
    return logged
