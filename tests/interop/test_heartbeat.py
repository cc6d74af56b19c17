"""Foreign workers on a server with a heartbeat, of which none of them knows.

The kinds of worker are PHP's, Perl's, gear, pygearman and Node's two packages. A job whose function says
nothing is taken back, and what the worker says of it later is dropped. A status keeps it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnTxgearman
from tests.interop.foreign import (
    GEAR_WORKER,
    GEARMAN_JS_WORKER,
    GEARMANODE_WORKER,
    PERL_WORKER,
    PHP_WORKER,
    PYGEARMAN_WORKER,
    ForeignWorker,
    Job,
)
from tests.interop.own import OWN_CLIENT
from tests.interop.programs import RUN_LIMIT, alongside, until
from tests.support import on_reactor
from txgearman.client import Client

HEARTBEAT: Final = "--heartbeat=1"
"""Seconds: the shortest that there is."""


class HeartbeatTest(OnTxgearman, Expectations, TestCase):
    """On our server; no other has heartbeats."""

    async def check(self, worker: ForeignWorker) -> None:
        """A job that its worker says nothing of is lost once, and given to that worker again in the end."""
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            hold = Job("hold", bytes(gate))
            async with (
                self.serve_alone(HEARTBEAT) as server,
                worker.serving(server, "") as program,
                alongside(OWN_CLIENT.run(server, [hold])) as waiting,
            ):

                async def is_lost() -> bool:
                    return [row[1] for row in await server.rows("show jobs")] == ["1"]

                await until(is_lost, "the job is taken back")
                gate.touch()
                told = await waiting
                echoed = await OWN_CLIENT.run(server, [Job("echo", b"still here")])
                self.assertIsNone(program.exit_code, program)
                await server.has("hold", jobs=0, workers=1)
        events = told.events[0]
        self.assertEqual([event for event in events if event[0] != "status"], [("complete", b"released")])
        self.assertEqual(echoed.events, {0: [("complete", b"still here")]})

    @on_reactor
    async def test_a_php_worker(self) -> None:
        await self.check(PHP_WORKER)

    @on_reactor
    async def test_a_perl_worker(self) -> None:
        await self.check(PERL_WORKER)

    @on_reactor
    async def test_a_gear_worker(self) -> None:
        await self.check(GEAR_WORKER)

    @on_reactor
    async def test_a_pygearman_worker(self) -> None:
        await self.check(PYGEARMAN_WORKER)

    @on_reactor
    async def test_a_gearmanode_worker(self) -> None:
        await self.check(GEARMANODE_WORKER)

    @on_reactor
    async def test_a_gearman_js_worker(self) -> None:
        await self.check(GEARMAN_JS_WORKER)

    @on_reactor
    async def test_a_php_worker_that_sends_a_status(self) -> None:
        """For more than twice the time of the heartbeat."""
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            async with (
                self.serve_alone(HEARTBEAT) as server,
                PHP_WORKER.serving(server, ""),
                Client(reactor, server.endpoint) as client,  # type: ignore[arg-type]
            ):
                job = await client.submit("busy", bytes(gate))

                async def long_enough() -> bool:
                    return job.last_status[0] >= 25

                await until(long_enough, "it has run for 2.5 seconds")
                ((_, losses, *_),) = await server.rows("show jobs")
                gate.touch()
                result = await job.result(RUN_LIMIT)
        self.assertEqual((losses, result), ("0", b"released"))
