"""What each foreign client can rely on beyond one job's answers: order, uniques, status, background jobs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

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
    Event,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.interop.programs import Server, alongside, until
from tests.support import on_reactor

EVERY_BYTE = bytes(range(256))
CHATTY_EVENTS: list[Event] = [
    ("data", b"one\0x"),
    ("warning", b"careful\0x"),
    ("status", 1, 2),
    ("data", b"two"),
    ("complete", b"done"),
]


class Clients(Expectations):
    """What holds on both servers."""

    async def check_priorities(self, client: ForeignClient, worker: ForeignWorker) -> None:
        function = f"{self.prefix}echo"
        jobs = [Job(function, name.encode(), priority=name) for name in ("low", "normal", "high")]
        async with self.serve() as server, alongside(client.run(server, jobs)) as told:
            await server.has(function, jobs=3)
            async with worker.serving(server, self.prefix):
                self.assertEqual((await told).order, [2, 1, 0])

    @on_reactor
    async def test_priorities_php(self) -> None:
        await self.check_priorities(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_priorities_perl(self) -> None:
        await self.check_priorities(PERL_TASKS, PERL_WORKER)

    @on_reactor
    async def test_priorities_gear(self) -> None:
        await self.check_priorities(GEAR_CLIENT, GEAR_WORKER)

    @on_reactor
    async def test_priorities_gearmanode(self) -> None:
        await self.check_priorities(GEARMANODE_CLIENT, GEARMANODE_WORKER)

    @on_reactor
    async def test_priorities_gearman_js(self) -> None:
        await self.check_priorities(GEARMAN_JS_CLIENT, GEARMAN_JS_WORKER)

    @on_reactor
    async def test_each_priority_of_php_do(self) -> None:
        jobs = [Job(f"{self.prefix}echo", name.encode(), priority=name) for name in ("high", "normal", "low")]
        async with self.serve() as server, PHP_WORKER.serving(server, self.prefix):
            told = await PHP_DO.run(server, jobs)
        self.assertEqual(
            told.events, {0: [("complete", b"high")], 1: [("complete", b"normal")], 2: [("complete", b"low")]}
        )

    async def check_background_priorities(self, client: ForeignClient) -> None:
        function = f"{self.prefix}echo"
        jobs = [
            Job(function, name.encode(), priority=name, background=True) for name in ("low", "normal", "high")
        ]
        async with self.serve() as server:
            told = await client.run(server, jobs)
            self.assertEqual(await server.status(function), (3, 0, 0))
            self.assertIn([function, "1", "1", "1", "0"], await server.rows("prioritystatus"))
            async with PHP_WORKER.serving(server, self.prefix):
                await server.has(function, jobs=0)
        self.assertEqual((len(set(told.handles.values())), told.events), (3, {}))

    @on_reactor
    async def test_background_priorities_php_tasks(self) -> None:
        await self.check_background_priorities(PHP_TASKS)

    @on_reactor
    async def test_background_priorities_php_do(self) -> None:
        await self.check_background_priorities(PHP_DO)

    @on_reactor
    async def test_background_priorities_perl(self) -> None:
        await self.check_background_priorities(PERL_TASKS)

    @on_reactor
    async def test_background_priorities_gear(self) -> None:
        await self.check_background_priorities(GEAR_CLIENT)

    async def check_status(self, client: ForeignClient, worker: ForeignWorker) -> None:
        """Follow a background job from the queue to its end."""
        function = f"{self.prefix}hold"
        async with self.serve() as server:
            with tempfile.TemporaryDirectory() as folder:
                gate = Path(folder) / "gate"
                told = await client.run(server, [Job(function, str(gate).encode(), background=True)])
                handle = told.handles[0]
                self.assertEqual(await self.status_of(client, server, handle), ("status", True, False, 0, 0))
                async with worker.serving(server, self.prefix):

                    async def progressed() -> bool:
                        return await self.status_of(client, server, handle) == ("status", True, True, 3, 7)

                    await until(progressed, "the status is known, running, 3 of 7")
                    gate.touch()
                    await server.has(function, jobs=0)
            self.assertEqual(await self.status_of(client, server, handle), ("status", False, False, 0, 0))

    async def status_of(self, client: ForeignClient, server: Server, handle: str) -> Event:
        told = await client.ask(server, {"handles": [handle]}, ["status"])
        return told.events[0][0]

    @on_reactor
    async def test_status_php(self) -> None:
        await self.check_status(PHP_TASKS, PHP_WORKER)

    @on_reactor
    async def test_status_perl(self) -> None:
        await self.check_status(PERL_TASKS, PERL_WORKER)

    @on_reactor
    async def test_status_perl_with_gear_worker(self) -> None:
        await self.check_status(PERL_TASKS, GEAR_WORKER)

    @on_reactor
    async def test_status_by_unique_php(self) -> None:
        unique = f"{self.prefix}unique"
        request = {"uniques": [unique, f"{self.prefix}other"]}
        async with self.serve() as server:
            await PHP_TASKS.run(server, [Job(f"{self.prefix}echo", b"x", unique=unique, background=True)])
            told = await PHP_TASKS.ask(server, request, ["status-by-unique"])
            async with PHP_WORKER.serving(server, self.prefix):
                await server.has(f"{self.prefix}echo", jobs=0)
        self.assertEqual(
            told.events, {0: [("status", True, False, 0, 0)], 1: [("status", False, False, 0, 0)]}
        )

    @on_reactor
    async def test_ping_php(self) -> None:
        request = {"data": "AAECAwA="}
        async with self.serve() as server:
            told = await PHP_TASKS.ask(server, request, ["ping"])
        self.assertEqual(told.events, {0: [("pong",)]})

    @on_reactor
    async def test_server_status_perl(self) -> None:
        """The client sends its text command with a bare line feed and reads to the dot."""
        async with self.serve_alone() as server, PHP_WORKER.serving(server, ""):
            await PERL_TASKS.run(server, [Job("later", b"x", background=True)])
            told = await PERL_TASKS.ask(server, {}, ["server-status"])
        self.assertIn(("function", "later", 1, 0, 0), told.events[0])
        self.assertIn(("function", "echo", 0, 0, 1), told.events[0])

    @on_reactor
    async def test_the_worker_is_told_the_unique(self) -> None:
        longest = "u" * 63
        jobs = [Job(f"{self.prefix}unique", b"x", unique=longest)]
        async with self.serve() as server:
            async with PHP_WORKER.serving(server, self.prefix):
                of_php = await PERL_TASKS.run(server, jobs)
            await server.has(f"{self.prefix}unique", workers=0)
            async with GEAR_WORKER.serving(server, self.prefix):
                of_gear = await PHP_TASKS.run(server, jobs)
        self.assertEqual(of_php.events, {0: [("complete", longest.encode())]})
        self.assertEqual(of_gear.events, {0: [("complete", longest.encode())]})

    @on_reactor
    async def test_nothing_in_and_nothing_out(self) -> None:
        """libgearman refuses to send an empty workload; the others do."""
        jobs = [Job(f"{self.prefix}size"), Job(f"{self.prefix}empty", b"x")]
        events = {0: [("complete", b"0")], 1: [("complete", b"")]}
        async with self.serve() as server, PHP_WORKER.serving(server, self.prefix):
            self.assertEqual((await PERL_TASKS.run(server, jobs)).events, events)
            self.assertEqual((await GEAR_CLIENT.run(server, jobs)).events, events)
            self.assertEqual((await PHP_TASKS.run(server, jobs[1:])).events, {0: events[1]})
            self.assertEqual((await PHP_DO.run(server, jobs[1:])).events, {0: events[1]})

    @on_reactor
    async def test_the_server_can_send_exceptions_unasked(self) -> None:
        jobs = [Job("raise", b"x")]
        events = {0: [("exception", b"reason\0x")]}
        async with self.serve_alone("--exceptions") as server, PHP_WORKER.serving(server, ""):
            self.assertEqual((await PERL_TASKS.run(server, jobs, exceptions=False)).events, events)
            self.assertEqual((await GEAR_CLIENT.run(server, jobs, exceptions=False)).events, events)


class ClientsTest(OnTxgearman, Clients, TestCase):
    """On our server, with what gearmand gets wrong."""

    async def check_uniques(self, client: ForeignClient) -> None:
        """Two jobs with one unique on one connection run once, and each is told everything once."""
        function = f"{self.prefix}chatty"
        jobs = [Job(function, b"x", unique=f"{self.prefix}unique")] * 2
        async with self.serve() as server, alongside(client.run(server, jobs)) as told:
            await server.has(function, jobs=1)
            async with PHP_WORKER.serving(server, self.prefix):
                events = (await told).events
                self.assertEqual(events, {0: CHATTY_EVENTS, 1: CHATTY_EVENTS})
                self.assertEqual(len(set((await told).handles.values())), 2)

    @on_reactor
    async def test_one_unique_twice_php(self) -> None:
        await self.check_uniques(PHP_TASKS)

    @on_reactor
    async def test_one_unique_twice_perl(self) -> None:
        await self.check_uniques(PERL_TASKS)

    @on_reactor
    async def test_one_unique_twice_gear(self) -> None:
        await self.check_uniques(GEAR_CLIENT)

    @on_reactor
    async def test_one_unique_twice_pygearman(self) -> None:
        await self.check_uniques(PYGEARMAN_CLIENT)

    @on_reactor
    async def test_one_unique_twice_gearmanode(self) -> None:
        await self.check_uniques(GEARMANODE_CLIENT)

    @on_reactor
    async def test_one_unique_twice_gearman_js(self) -> None:
        await self.check_uniques(GEARMAN_JS_CLIENT)

    async def check_exception_unasked(self, client: ForeignClient) -> None:
        """An exception nobody asked for is a failure. libgearman and Perl reject gearmand's trailing NUL."""
        async with self.serve() as server, PHP_WORKER.serving(server, self.prefix):
            told = await client.run(server, [Job(f"{self.prefix}raise", b"x")], exceptions=False)
        self.assertEqual(told.events, {0: [("fail",)]})

    @on_reactor
    async def test_an_exception_unasked_php(self) -> None:
        await self.check_exception_unasked(PHP_DO)

    @on_reactor
    async def test_an_exception_unasked_perl_tasks(self) -> None:
        await self.check_exception_unasked(PERL_TASKS)

    @on_reactor
    async def test_an_exception_unasked_perl_do(self) -> None:
        await self.check_exception_unasked(PERL_DO)

    @on_reactor
    async def test_an_exception_unasked_gear(self) -> None:
        await self.check_exception_unasked(GEAR_CLIENT)

    @on_reactor
    async def test_an_exception_unasked_gearmanode(self) -> None:
        await self.check_exception_unasked(GEARMANODE_CLIENT)

    @on_reactor
    async def test_an_exception_unasked_gearman_js(self) -> None:
        await self.check_exception_unasked(GEARMAN_JS_CLIENT)


class ClientsOnGearmandTest(OnGearmand, Clients, TestCase):
    """On gearmand, with what it does to two jobs of one unique on one connection."""

    async def check_uniques(self, client: ForeignClient) -> None:
        function = f"{self.prefix}chatty"
        jobs = [Job(function, b"x", unique=f"{self.prefix}unique")] * 2
        async with self.serve() as server, alongside(client.run(server, jobs)) as told:
            await server.has(function, jobs=1)
            async with PHP_WORKER.serving(server, self.prefix):
                events = (await told).events
                self.assertEqual(len(set((await told).handles.values())), 1)
        self.assertEqual({events[0][-1], events[1][-1]}, {("complete", b"done")})
        self.assertEqual(max(told_of.count(("data", b"two")) for told_of in events.values()), 2)

    @on_reactor
    async def test_one_unique_twice_php(self) -> None:
        await self.check_uniques(PHP_TASKS)

    @on_reactor
    async def test_one_unique_twice_perl(self) -> None:
        await self.check_uniques(PERL_TASKS)
