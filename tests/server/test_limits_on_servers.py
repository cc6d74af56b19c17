"""A limit of runs on three real servers that share a PostgreSQL database, one of which is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.databases import connected, needs_postgresql, shared_postgresql
from tests.processes.nursery import shared_nursery
from tests.processes.packets import Type, answer, request
from tests.processes.servers import HOST, Server

LEASE: Final = 1.5
JOBS: Final = 150
"""Jobs of each server."""
JOB_SECONDS: Final = 0.01
GIVE_UP: Final = 90.0
TRIES: Final = 5
"""Runs until one in which no server loses its lease but the one that is killed. A busy machine may keep a
server from renewing it, whose worker then goes on while others have the slot."""


class Site:
    """A server with a worker. `runs` has when it began and ended each job, and which that was."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.runs: list[tuple[float, float, bytes]] = []
        self.since: tuple[float, bytes] | None = None

    async def submit(self) -> None:
        """Submit background jobs, and wait for the answers."""
        reader, writer = await asyncio.open_connection(HOST, self.server.port)
        for number in range(JOBS):
            data = b"%d:%d" % (self.server.number, number)
            writer.write(request(Type.SUBMIT_JOB_BG, b"f", b"", data))
        for _ in range(JOBS):
            kind, body = await answer(reader)
            assert kind == Type.JOB_CREATED, (kind, body)
        writer.transport.abort()

    async def work(self) -> None:
        """Do what this server gives, until the connection ends."""
        reader, writer = await asyncio.open_connection(HOST, self.server.port)
        writer.write(request(Type.CAN_DO, b"f"))
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer.transport):
            while True:
                writer.write(request(Type.GRAB_JOB_UNIQ))
                kind, body = await answer(reader)
                while kind == Type.NOOP:
                    kind, body = await answer(reader)
                if kind == Type.NO_JOB:
                    writer.write(request(Type.PRE_SLEEP))
                    kind, _ = await answer(reader)
                    assert kind == Type.NOOP, kind
                    continue
                handle, _, _, data = body.split(b"\0")
                self.since = time.monotonic(), data
                await asyncio.sleep(JOB_SECONDS)
                self.end_run()
                writer.write(request(Type.WORK_COMPLETE, handle, b""))

    def end_run(self) -> None:
        """The worker runs nothing any more."""
        if self.since is not None:
            began, data = self.since
            self.since = None
            self.runs.append((began, time.monotonic(), data))

    def kill(self) -> None:
        """Kill the server, and its worker with it."""
        self.server.kill()
        self.end_run()


@needs_postgresql
class LimitTests(SynchronousTestCase):
    def start_anew(self) -> None:
        """Servers on a database without jobs."""
        folder = tempfile.TemporaryDirectory(prefix="txgearman-limits-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        configuration = self.folder / "gearmand.toml"
        configuration.write_text("[functions.f]\nmax-running = 1\n")
        self.url = shared_postgresql().new_database()
        options = [f"--config={configuration}", f"--store={self.url}", f"--store-lease={LEASE}"]
        nursery = shared_nursery()
        self.sites = [Site(Server(nursery, number, self.folder, options)) for number in range(3)]
        for site in self.sites:
            self.addCleanup(site.server.end)

    def test_all_queues_are_drained_one_job_at_a_time_though_a_server_is_killed(self) -> None:
        for _ in range(TRIES):
            self.start_anew()
            killed, slot_ends = asyncio.run(self.play())
            if not any(site.server.lost_leases() for site in self.sites):
                break
            for site in self.sites:
                site.server.end()
        else:
            self.fail(f"{TRIES} times a server could not renew its lease")
        runs = sorted(run for site in self.sites for run in site.runs)
        for (_, ended, first), (began, _, second) in itertools.pairwise(runs):
            self.assertLessEqual(ended, began, (first, second))
        began = min(began for site in self.sites[1:] for began, _, _ in site.runs if began > killed)
        self.assertGreater(began, slot_ends, "the slot is the killed server's until its lease ends")
        done = {data for _, _, data in runs}
        self.assertEqual(len(done), 3 * JOBS)
        # What ran at the kill runs again, and what had not been removed yet.
        self.assertLess(len(runs), 3 * JOBS + 20)
        with connected(self.url) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM txgearman_job").fetchall(), [(0,)])
        for site in self.sites:
            self.assertEqual(site.server.tracebacks(), [])

    async def play(self) -> tuple[float, float]:
        """Have the jobs done; returns when a server was killed, and when its slot becomes free."""
        for site in self.sites:
            await site.server.start()
        for site in self.sites:
            await site.submit()
        workers = [asyncio.create_task(site.work()) for site in self.sites]
        try:
            # Each of them has had the slot, and has jobs left.
            await self.wait_until(lambda: all(len(site.runs) > 5 for site in self.sites))
            victim = self.sites[0]
            await self.wait_until(lambda: victim.since is not None)
            self.assertLess(len(victim.runs), JOBS)
            victim.kill()
            killed = time.monotonic()
            workers[0].cancel()
            slot_ends = self.lease_of_the_slot()
            done = {data for site in self.sites for _, _, data in site.runs}
            self.assertLess(len(done), 3 * JOBS)
            await self.wait_until(
                lambda: len({data for site in self.sites for _, _, data in site.runs}) == 3 * JOBS
            )
            for site in self.sites[1:]:
                while await site.server.jobs():
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return killed, slot_ends

    def lease_of_the_slot(self) -> float:
        """When the lease ends of the server that has the slot, by the monotonic clock."""
        now = time.monotonic()
        ahead = time.time() - now
        with connected(self.url) as connection:
            ((lease_end,),) = connection.execute(
                "SELECT lease_end FROM txgearman_server JOIN txgearman_slot ON owner = number"
            ).fetchall()
        return float(lease_end) - ahead

    async def wait_until(self, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + GIVE_UP
        while not done():
            if time.monotonic() > give_up:
                self.fail(str([(len(site.runs), site.server.told()[-500:]) for site in self.sites]))
            await asyncio.sleep(0.001)
