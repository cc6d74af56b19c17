"""This package's client and worker with gearmand, with our server, and with the programs of others."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.interop.answers import EVERY_BYTE, MEBIBYTE, answers, jobs_of, joined_answers
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.foreign import (
    GEAR_CLIENT,
    GEAR_WORKER,
    GEARMAN_JS_CLIENT,
    GEARMAN_JS_WORKER,
    GEARMANODE_CLIENT,
    GEARMANODE_WORKER,
    PERL_DO,
    PERL_TASKS,
    PERL_WORKER,
    PHP_DO,
    PHP_TASKS,
    PHP_WORKER,
    PYGEARMAN_CLIENT,
    PYGEARMAN_WORKER,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.interop.own import LIMIT, OWN_CLIENT, OWN_WORKER
from tests.interop.programs import alongside, until
from tests.support import on_reactor
from txgearman import Client, Worker

OWN_EXCEPTION = b"ValueError: reason\0a\0b"


class Package(Expectations):
    """What holds on both servers."""

    # -- the package with itself ----------------------------------------------------------------

    @on_reactor
    async def test_every_answer(self) -> None:
        async with self.serve() as server, OWN_WORKER.serving(server, self.prefix):
            told = await OWN_CLIENT.run(server, jobs_of(self.prefix, EVERY_BYTE))
        self.assertEqual([told.events[index] for index in range(5)], answers(EVERY_BYTE, OWN_EXCEPTION))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    @on_reactor
    async def test_large_data_both_ways(self) -> None:
        async with self.serve() as server, OWN_WORKER.serving(server, self.prefix):
            told = await OWN_CLIENT.run(server, [Job(f"{self.prefix}echo", EVERY_BYTE, repeat=MEBIBYTE)])
        self.assertEqual(told.events, {0: [("complete", EVERY_BYTE * MEBIBYTE)]})

    @on_reactor
    async def test_nothing_in_and_nothing_out(self) -> None:
        jobs = [Job(f"{self.prefix}size"), Job(f"{self.prefix}empty")]
        async with self.serve() as server, OWN_WORKER.serving(server, self.prefix):
            told = await OWN_CLIENT.run(server, jobs)
        self.assertEqual(told.events, {0: [("complete", b"0")], 1: [("complete", b"")]})

    @on_reactor
    async def test_one_unique_twice(self) -> None:
        """gearmand gives both one handle and sends each packet twice, our server gives each its own."""
        function, unique = f"{self.prefix}chatty", f"{self.prefix}unique"
        jobs = [Job(function, b"a\0b", unique=unique)] * 2
        async with self.serve() as server, alongside(OWN_CLIENT.run(server, jobs)) as told:
            await server.has(function, jobs=1)
            async with OWN_WORKER.serving(server, self.prefix):
                chatty = answers(b"")[2]
                self.assertEqual((await told).events, {0: chatty, 1: chatty})

    @on_reactor
    async def test_priorities(self) -> None:
        function = f"{self.prefix}echo"
        jobs = [Job(function, name.encode(), priority=name) for name in ("low", "normal", "high")]
        jobs += [Job(function, b"low again", priority="low")]
        async with self.serve() as server, alongside(OWN_CLIENT.run(server, jobs)) as told:
            await server.has(function, jobs=4)
            async with OWN_WORKER.serving(server, self.prefix):
                self.assertEqual((await told).order, [2, 1, 0, 3])

    @on_reactor
    async def test_status_of_a_background_job(self) -> None:
        function, unique = f"{self.prefix}hold", f"{self.prefix}unique"
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            async with self.serve() as server, Client(reactor, server.endpoint) as client:
                job = await client.submit(
                    function, str(gate).encode(), unique=unique, background=True, timeout=LIMIT
                )
                queued = await client.status(job, timeout=LIMIT)
                self.assertEqual((queued.known, queued.running), (True, False))
                async with OWN_WORKER.serving(server, self.prefix):

                    async def progressed() -> bool:
                        status = await client.status(job.handle, timeout=LIMIT)
                        return status.running and (status.numerator, status.denominator) == (3, 7)

                    await until(progressed, "the job is running, 3 of 7")
                    by_unique = await client.status_by_unique(unique, timeout=LIMIT)
                    self.assertEqual((by_unique.numerator, by_unique.waiting_clients), (3, 0))
                    gate.touch()
                    await server.has(function, jobs=0)
                ended = await client.status(job, timeout=LIMIT)
        self.assertEqual((ended.known, ended.running, ended.numerator), (False, False, 0))

    @on_reactor
    async def test_background_jobs_for_now_and_for_a_time_that_has_passed(self) -> None:
        function = f"{self.prefix}echo"
        async with self.serve() as server, Client(reactor, server.endpoint) as client:
            await client.submit(function, b"x", background=True, timeout=LIMIT)
            await client.submit(function, b"x", run_at=time.time() - 5, timeout=LIMIT)
            self.assertEqual(await server.status(function), (2, 0, 0))
            async with OWN_WORKER.serving(server, self.prefix):
                await server.has(function, jobs=0)

    @on_reactor
    async def test_a_reducer(self) -> None:
        function = f"{self.prefix}reduced"
        async with self.serve() as server, Client(reactor, server.endpoint) as client:
            worker = Worker(reactor, server.endpoint)
            worker.register(function, lambda job: job.reducer)
            try:
                await worker.start().addTimeout(LIMIT, reactor)
                job = await client.submit(function, b"x", reducer="join", timeout=LIMIT)
                self.assertEqual(await job.result(timeout=LIMIT), b"join")
            finally:
                await worker.stop()

    @on_reactor
    async def test_echo(self) -> None:
        async with self.serve() as server, Client(reactor, server.endpoint) as client:
            self.assertEqual(await client.echo(EVERY_BYTE, timeout=LIMIT), EVERY_BYTE)

    @on_reactor
    async def test_a_worker_that_stops_gives_its_job_back(self) -> None:
        function = f"{self.prefix}hold"
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            job = Job(function, str(gate).encode())
            async with (
                self.serve() as server,
                alongside(OWN_CLIENT.run(server, [job])) as told,
                OWN_WORKER.serving(server, self.prefix) as first,
            ):
                await server.has(function, active=1)
                await first.stop(0)
                await server.has(function, jobs=1, active=0, workers=0)
                gate.touch()
                async with OWN_WORKER.serving(server, self.prefix):
                    events = (await told).events[0]
        self.assertEqual(events, [("status", 3, 7), ("status", 3, 7), ("complete", b"released")])

    # -- our client with the workers of others --------------------------------------------------

    async def check_client(self, worker: ForeignWorker) -> None:
        data = EVERY_BYTE if worker.binary else b"some text"
        async with self.serve() as server, worker.serving(server, self.prefix):
            told = await OWN_CLIENT.run(server, jobs_of(self.prefix, data))
        self.assertEqual([told.events[index] for index in range(5)], answers(data))

    @on_reactor
    async def test_our_client_with_php_worker(self) -> None:
        await self.check_client(PHP_WORKER)

    @on_reactor
    async def test_our_client_with_perl_worker(self) -> None:
        await self.check_client(PERL_WORKER)

    @on_reactor
    async def test_our_client_with_gear_worker(self) -> None:
        await self.check_client(GEAR_WORKER)

    @on_reactor
    async def test_our_client_with_gearmanode_worker(self) -> None:
        await self.check_client(GEARMANODE_WORKER)

    @on_reactor
    async def test_our_client_with_gearman_js_worker(self) -> None:
        await self.check_client(GEARMAN_JS_WORKER)

    # -- our worker with the clients of others --------------------------------------------------

    async def check_worker(self, client: ForeignClient) -> None:
        async with self.serve() as server, OWN_WORKER.serving(server, self.prefix):
            told = await client.run(server, jobs_of(self.prefix, EVERY_BYTE))
        expected = answers(EVERY_BYTE, OWN_EXCEPTION) if client.streams else joined_answers(EVERY_BYTE)
        if not client.exceptions:
            expected[-1] = [("fail",)]
        self.assertEqual([told.events[index] for index in range(5)], expected)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    @on_reactor
    async def test_our_worker_with_php_tasks(self) -> None:
        await self.check_worker(PHP_TASKS)

    @on_reactor
    async def test_our_worker_with_php_do(self) -> None:
        await self.check_worker(PHP_DO)

    @on_reactor
    async def test_our_worker_with_perl_tasks(self) -> None:
        await self.check_worker(PERL_TASKS)

    @on_reactor
    async def test_our_worker_with_perl_do(self) -> None:
        await self.check_worker(PERL_DO)

    @on_reactor
    async def test_our_worker_with_gear_client(self) -> None:
        await self.check_worker(GEAR_CLIENT)

    @on_reactor
    async def test_our_worker_with_gearmanode_client(self) -> None:
        await self.check_worker(GEARMANODE_CLIENT)

    @on_reactor
    async def test_our_worker_with_gearman_js_client(self) -> None:
        await self.check_worker(GEARMAN_JS_CLIENT)


class PackageTest(OnTxgearman, Package, TestCase):
    """On our server, with the package that gearmand's answers to exceptions put out of action."""

    @on_reactor
    async def test_our_client_with_pygearman_worker(self) -> None:
        await self.check_client(PYGEARMAN_WORKER)

    @on_reactor
    async def test_our_worker_with_pygearman_client(self) -> None:
        await self.check_worker(PYGEARMAN_CLIENT)


class PackageOnGearmandTest(OnGearmand, Package, TestCase):
    """On gearmand."""
