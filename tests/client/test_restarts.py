"""Servers that stop, start and lose connections in the middle of a load: each job ends, and once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from signal import SIGCONT
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import Server, start_again
from tests.support import on_reactor, pause
from txgearman.client import Client, Job
from txgearman.errors import ConnectionLost
from txgearman.testing import MemoryGearman
from txgearman.worker import Worker

SEEDS = range(12)
LONGEST = 3600.0


class Load:
    """Jobs under way, and what became of each: its outcomes, of which there must be one."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.outcomes: list[list[Any]] = []
        self.pending: list[Deferred[Any]] = []

    def submit(self, **options: Any) -> None:
        """Submit a job whose right result is its data backwards."""
        data = b"job %d" % len(self.outcomes)
        outcomes: list[Any] = []
        self.outcomes.append(outcomes)

        async def run() -> bytes:
            job: Job = await self.client.submit("f", data, **options)
            if job.background:
                return b"accepted"
            result: bytes = await job.result()
            assert result == data[::-1], (data, result)
            return b"result"

        def keep(outcome: Any) -> None:
            outcomes.append(outcome.value if isinstance(outcome, Failure) else outcome)

        self.pending.append(Deferred.fromCoroutine(run()).addBoth(keep))

    def counts(self) -> Counter[str]:
        """How many jobs came to which end. Raises `AssertionError` unless each came to just one."""
        found: Counter[str] = Counter()
        for number, outcomes in enumerate(self.outcomes):
            assert len(outcomes) == 1, f"job {number}: {outcomes}"
            (outcome,) = outcomes
            found[outcome.decode() if isinstance(outcome, bytes) else type(outcome).__name__] += 1
        return found


class InMemoryTests(SynchronousTestCase):
    def play(self, seed: int, retry: int) -> Counter[str]:
        """A load on three servers of which some always stop, start or lose their connections."""
        random = Random(seed)
        first = MemoryGearman()
        servers = [first, MemoryGearman(clock=first.clock), MemoryGearman(clock=first.clock)]
        for server in servers:
            worker = server.worker(concurrency=4, retry_policy=lambda failures: 1.0)
            worker.register("f", lambda job: deferLater(first.clock, random.random(), lambda: job.data[::-1]))
            worker.start()
        load = Load(first.client(*servers[1:], retry_policy=lambda failures: 1.0))
        for number in range(60):
            for _ in range(random.randrange(4)):
                load.submit(
                    retry=retry,
                    unique=random.choice([None, b"%d" % len(load.outcomes)]),
                    background=random.random() < 0.2,
                )
            self.disturb(random, servers)
            first.turn(random.choice([0, 0.01, 0.3]))
            self.assertLessEqual(max(map(len, load.outcomes), default=0), 1, number)
        for server in servers:
            if not server.running:
                server.start()
        first.wait(DeferredList(load.pending), LONGEST)
        return load.counts()

    def disturb(self, random: Random, servers: list[MemoryGearman]) -> None:
        server = random.choice(servers)
        action = random.randrange(6)
        if action == 0:
            server.cut()
        elif action == 1 and server.running:
            server.stop()
        elif action < 4 and not server.running:
            server.start()

    def test_each_job_gives_its_result_or_its_error(self) -> None:
        found: Counter[str] = Counter()
        for seed in SEEDS:
            found += self.play(seed, retry=0)
        self.assertLessEqual(set(found), {"result", "accepted", "ConnectionLost", "NotConnected"})
        self.assertGreater(found["ConnectionLost"], 100, "the servers were not disturbed enough")
        self.assertGreater(found["result"], 100, "the servers were disturbed too much")

    def test_with_retry_each_gives_its_result(self) -> None:
        found: Counter[str] = Counter()
        for seed in SEEDS:
            found += self.play(seed, retry=100)
        self.assertEqual(set(found), {"result", "accepted"})


class RestartExpectations(Expectations):
    """The same with processes that are killed."""

    @asynccontextmanager
    async def working(self, servers: list[Server]) -> AsyncIterator[None]:
        """A worker for each server."""
        from twisted.internet import reactor

        async with AsyncExitStack() as stack:
            for server in servers:
                worker = Worker(
                    reactor,  # type: ignore[arg-type]
                    server.endpoint,
                    concurrency=8,
                    retry_policy=lambda failures: 0.05,
                )
                # Each job takes a little, so that some run when their server is killed.
                worker.register("f", lambda job: deferLater(reactor, 0.01, lambda: job.data[::-1]))  # type: ignore[arg-type]
                stack.push_async_callback(worker.stop)
                await worker.start()
            yield

    @asynccontextmanager
    async def load_on(self, servers: list[Server]) -> AsyncIterator[Load]:
        """A load on a client of the servers, which ends when all is answered."""
        from twisted.internet import reactor

        endpoints = [server.endpoint for server in servers]
        async with Client(reactor, endpoints, retry_policy=lambda failures: 0.05) as client:  # type: ignore[arg-type]
            yield Load(client)

    async def kill_and_start(self, server: Server, stack: AsyncExitStack) -> Server:
        await server.program.kill()
        again = await start_again(server)
        stack.push_async_callback(again.program.kill)
        return again

    async def disturbed(self, count: int, retry: int) -> Counter[str]:
        """What becomes of jobs of which a third is submitted before, while and after each server dies."""
        from twisted.internet import reactor

        async with (
            self.serve_alone() as one,
            self.serve_alone() as two,
            AsyncExitStack() as stack,
            self.working([one, two]),
            self.load_on([one, two]) as load,
        ):
            for server in (one, two):
                for number in range(count):
                    load.submit(retry=retry, unique=[None, b"%d" % len(load.outcomes)][number % 2])
                    if number % 20 == 19:
                        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
                killed = Deferred.fromCoroutine(self.kill_and_start(server, stack))
                while not killed.called:
                    load.submit(retry=retry)
                    await deferLater(reactor, 0.01)  # type: ignore[arg-type]
                await killed
                for _ in range(count):
                    load.submit(retry=retry)
            await DeferredList(load.pending)
            return load.counts()

    @on_reactor
    async def test_each_job_gives_its_result_or_its_error(self) -> None:
        found = await self.disturbed(100, retry=0)
        self.assertLessEqual(set(found), {"result", "ConnectionLost"})
        self.assertGreater(found["ConnectionLost"], 0, "nothing ran when the servers were killed")
        self.assertGreaterEqual(found["result"], 100, "those submitted in the end")

    @on_reactor
    async def test_with_retry_each_gives_its_result(self) -> None:
        found = await self.disturbed(100, retry=10)
        self.assertEqual(set(found), {"result"})

    @on_reactor
    async def test_a_server_that_hangs_is_found(self) -> None:
        """Its connections stay, and its system acknowledges what it is sent; only echoes tell."""
        from twisted.internet import reactor

        async with (
            self.serve_alone() as one,
            self.serve_alone() as two,
            self.working([one, two]),
            Client(
                reactor,  # type: ignore[arg-type]
                [one.endpoint, two.endpoint],
                check_interval=0.2,
                # Long enough that the living one is not taken for hung on a busy machine.
                check_timeout=2.5,
            ) as client,
        ):
            load = Load(client)
            await client.echo_each(b"there?")
            pause(one.pid)
            try:
                for number in range(100):
                    load.submit(unique=[None, b"%d" % number][number % 2])
                await DeferredList(load.pending)
                self.assertEqual(client.servers, {one.endpoint: False, two.endpoint: True})
            finally:
                os.kill(one.pid, SIGCONT)
            self.assertEqual(load.counts(), {"result": 100}, "what it had not accepted went elsewhere")

    @on_reactor
    async def test_one_server_that_is_killed_and_comes_back(self) -> None:
        async with (
            self.serve_alone() as server,
            AsyncExitStack() as stack,
            self.working([server]),
            self.load_on([server]) as load,
        ):
            for number in range(100):
                load.submit(retry=5 * (number % 2))
            await load.client.echo(b"all are in")
            await self.kill_and_start(server, stack)
            await DeferredList(load.pending)
            found = [outcomes[0] for outcomes in load.outcomes]
            self.assertEqual(set(found[1::2]), {b"result"})
            lost = [outcome for outcome in found[::2] if outcome != b"result"]
            self.assertGreater(len(lost), 0)
            for outcome in lost:
                self.assertIsInstance(outcome, ConnectionLost)


class RestartsOfGearmandTests(OnGearmand, RestartExpectations, TestCase):
    pass


class RestartsOfTxgearmanTests(OnTxgearman, RestartExpectations, TestCase):
    pass
