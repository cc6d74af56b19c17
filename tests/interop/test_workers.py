"""What a server does for and with each foreign worker beyond one job's answers: loss, death, odd packets."""

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
    PERL_TASKS,
    PERL_WORKER,
    PHP_TASKS,
    PHP_WORKER,
    ForeignClient,
    ForeignWorker,
    Job,
)
from tests.interop.programs import alongside
from tests.support import on_reactor


class Workers(Expectations):
    """What holds on both servers."""

    async def check_lost(self, client: ForeignClient, lost: ForeignWorker, other: ForeignWorker) -> None:
        """A worker is killed in mid-job; another takes the job over, and its result reaches the client."""
        function = f"{self.prefix}hold"
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            job = Job(function, str(gate).encode())
            async with (
                self.serve() as server,
                lost.serving(server, self.prefix) as first,
                alongside(client.run(server, [job])) as told,
            ):
                await server.has(function, active=1)
                async with other.serving(server, self.prefix) as second:
                    await first.kill()
                    await server.has(function, jobs=1, active=1, workers=1)
                    gate.touch()
                    events = (await told).events[0]
                    self.assertIsNone(second.exit_code, second)
        self.assertEqual(events[-1], ("complete", b"released"))
        # The first may have died before it sent its status.
        self.assertIn(events[:-1], ([("status", 3, 7)], [("status", 3, 7)] * 2))

    @on_reactor
    async def test_a_killed_php_worker(self) -> None:
        await self.check_lost(PERL_TASKS, PHP_WORKER, PERL_WORKER)

    @on_reactor
    async def test_a_killed_perl_worker(self) -> None:
        await self.check_lost(PHP_TASKS, PERL_WORKER, PHP_WORKER)

    @on_reactor
    async def test_a_killed_gearmanode_worker(self) -> None:
        await self.check_lost(GEARMANODE_CLIENT, GEARMANODE_WORKER, PHP_WORKER)

    @on_reactor
    async def test_a_killed_gearman_js_worker(self) -> None:
        await self.check_lost(GEARMAN_JS_CLIENT, GEARMAN_JS_WORKER, PHP_WORKER)

    @on_reactor
    async def test_a_killed_gear_worker(self) -> None:
        await self.check_lost(GEAR_CLIENT, GEAR_WORKER, PHP_WORKER)

    @on_reactor
    async def test_a_job_waits_for_the_next_worker(self) -> None:
        function = f"{self.prefix}hold"
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            async with self.serve() as server:
                job = Job(function, str(gate).encode())
                async with alongside(PHP_TASKS.run(server, [job])) as told:
                    async with PHP_WORKER.serving(server, self.prefix) as first:
                        await server.has(function, active=1)
                        await first.kill()
                        await server.has(function, jobs=1, active=0, workers=0)
                    gate.touch()
                    async with PERL_WORKER.serving(server, self.prefix):
                        self.assertEqual((await told).events[0][-1], ("complete", b"released"))

    async def check_order(self, worker: ForeignWorker, names: str, order: list[int]) -> None:
        """Which of its functions a worker is served first, as gearmand 1.1 does it."""
        options = ("--order=registration",) if self.kind == "txgearman" else ()
        jobs = [Job(name, b"x") for name in names.split()]
        async with self.serve_alone(*options) as server, alongside(PERL_TASKS.run(server, jobs)) as told:
            for name in set(names.split()):
                await server.has(name, jobs=names.split().count(name))
            async with worker.serving(server, ""):
                self.assertEqual((await told).order, order)

    @on_reactor
    async def test_the_order_of_functions_of_a_php_worker(self) -> None:
        """It offers its functions from the last to the first, and gets the last offered served first."""
        await self.check_order(PHP_WORKER, "size empty echo size", [2, 0, 3, 1])

    @on_reactor
    async def test_the_order_of_functions_of_a_perl_worker(self) -> None:
        """Ours offers its functions by name."""
        await self.check_order(PERL_WORKER, "chatty size echo chatty", [1, 2, 0, 3])

    @on_reactor
    async def test_many_jobs_for_workers_of_all_kinds(self) -> None:
        jobs = [Job(f"{self.prefix}echo", b"job %d" % number) for number in range(60)]
        async with (
            self.serve() as server,
            PHP_WORKER.serving(server, self.prefix),
            PERL_WORKER.serving(server, self.prefix),
            alongside(PHP_TASKS.run(server, jobs)) as php,
            alongside(PERL_TASKS.run(server, jobs)) as perl,
        ):
            expected = {number: [("complete", b"job %d" % number)] for number in range(60)}
            self.assertEqual((await php).events, expected)
            self.assertEqual((await perl).events, expected)


class WorkersTest(OnTxgearman, Workers, TestCase):
    """On our server, with what ends Perl's worker on gearmand."""

    @on_reactor
    async def test_a_perl_function_that_dies(self) -> None:
        """The worker reports an exception and then a failure; it must not be told of an unknown job."""
        jobs = [Job(f"{self.prefix}dies", b"x"), Job(f"{self.prefix}echo", b"x")]
        async with self.serve() as server, PERL_WORKER.serving(server, self.prefix) as worker:
            asked = await PERL_TASKS.run(server, jobs)
            unasked = await PERL_TASKS.run(server, jobs, exceptions=False)
            self.assertIsNone(worker.exit_code, worker)
        (raised,) = asked.events[0]
        self.assertEqual(raised[0], "exception")
        self.assertIn(b"reason: x\n", raised[1])
        self.assertEqual(unasked.events[0], [("fail",)])
        self.assertEqual((asked.events[1], unasked.events[1]), ([("complete", b"x")],) * 2)

    @on_reactor
    async def test_empty_results_of_a_perl_worker(self) -> None:
        """Gearman::Worker sends a result of "" or 0 as a bare handle, without a NUL and data behind it."""
        jobs = [
            Job(f"{self.prefix}empty", b"x"),
            Job(f"{self.prefix}zero", b"x"),
            Job(f"{self.prefix}echo", b"x"),
        ]
        async with self.serve() as server, PERL_WORKER.serving(server, self.prefix) as worker:
            told = await PERL_TASKS.run(server, jobs)
            self.assertIsNone(worker.exit_code, worker)
        self.assertEqual(
            told.events, {0: [("complete", b"")], 1: [("complete", b"")], 2: [("complete", b"x")]}
        )

    @on_reactor
    async def test_status_of_a_perl_worker(self) -> None:
        """Gearman::Worker's own send_work_status forgets the denominator. Its job must go on."""
        jobs = [Job(f"{self.prefix}half-status", b"x"), Job(f"{self.prefix}echo", b"x")]
        async with self.serve() as server, PERL_WORKER.serving(server, self.prefix) as worker:
            told = await PERL_TASKS.run(server, jobs)
            self.assertIsNone(worker.exit_code, worker)
        self.assertEqual(told.events[0][-1], ("complete", b"done"))
        self.assertEqual(told.events[1], [("complete", b"x")])


class WorkersOnGearmandTest(OnGearmand, Workers, TestCase):
    """On gearmand."""
