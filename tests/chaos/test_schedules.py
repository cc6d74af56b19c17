"""Servers that are killed again and again while a schedule ticks each second: one on a SQLite file, some on
one PostgreSQL database.

No worker takes the jobs, so each stays in the database and can be counted in the end: one for each tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.test_trials import WITHOUT_SQLITE
from tests.databases import needs_postgresql, shared_postgresql
from tests.processes.nursery import shared_nursery
from tests.processes.servers import Server

LEASE: Final = 1.5
"""Seconds; jobs of a server that was killed are taken over while a trial lasts."""

SETTLING: Final = 3.0
"""Seconds that the last tick may take until it has its job, on a machine that does much else."""

DEFINITION: Final = '{"function":"f","every":1,"overlap":"queue","missed":"all"}'


async def _trial(servers: list[Server], chance: random.Random, kills: int) -> tuple[int, int]:
    """Kill servers, and start them again; returns the first and the last tick that must have a job."""
    await asyncio.gather(*(server.start() for server in servers))
    assert await servers[0].ask(f"create schedule s {DEFINITION}") == "OK\r\n"
    begin = int(time.time()) + 1
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.1, 1.2))
        victims = [server for server in servers if server.running]
        chance.choice(victims).kill()
        dead = [server for server in servers if not server.running]
        # The last one may be killed too: who comes back makes up for what was missed.
        if len(dead) == len(servers) or chance.random() < 0.6:
            await chance.choice(dead).start()
    await asyncio.gather(*(server.start() for server in servers if not server.running))
    end = int(time.time())
    await asyncio.sleep(SETTLING)
    for server in servers:
        await server.stop()
    return begin, end


class ScheduleTrials(SynchronousTestCase):
    """What both have."""

    def trial(self, number: int, url: str, folder: str, seed: int, kills: int = 8) -> range:
        """Have servers killed while they tick; returns the ticks that must have a job."""
        options = ["--store", url, "--store-lease", str(LEASE)]
        servers = [Server(shared_nursery(), each, Path(folder), options) for each in range(number)]
        try:
            begin, end = asyncio.run(_trial(servers, random.Random(seed), kills))
            logged = [text for server in servers for text in server.tracebacks()]
        finally:
            for server in servers:
                server.end()
        self.assertEqual(logged, [])
        self.assertGreater(end + 1 - begin, kills // 2)
        return range(begin, end + 1)

    def assert_one_each(self, ticks: range, uniques: list[bytes]) -> None:
        """Each tick has one job."""
        jobs = Counter(int(unique.split(b":")[1]) for unique in uniques)
        self.assertEqual([tick for tick in ticks if not jobs[tick]], [], "ticks without a job")
        self.assertEqual([tick for tick, count in jobs.items() if count > 1], [], "ticks with several")


@unittest.skipIf(WITHOUT_SQLITE, WITHOUT_SQLITE)
class SqliteScheduleTrials(ScheduleTrials):
    def test_one_server(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-chaos-") as folder:
            ticks = self.trial(1, f"sqlite:///{folder}/queue.db", folder, seed=1)
            with contextlib.closing(sqlite3.connect(f"{folder}/queue.db")) as connection:
                rows = connection.execute('SELECT "unique" FROM txgearman_job').fetchall()
        self.assert_one_each(ticks, [unique for (unique,) in rows])


@needs_postgresql
class PostgresqlScheduleTrials(ScheduleTrials):
    def trial_on_database(self, number: int, seed: int) -> None:
        database = shared_postgresql()
        url = database.new_database()
        with tempfile.TemporaryDirectory(prefix="txgearman-chaos-") as folder:
            ticks = self.trial(number, url, folder, seed)
        rows = database.run_sql('SELECT "unique" FROM txgearman_job', url.rpartition("/")[2])
        self.assert_one_each(ticks, [bytes(unique) for (unique,) in rows])

    def test_two_servers(self) -> None:
        self.trial_on_database(2, seed=1)

    def test_three_servers(self) -> None:
        self.trial_on_database(3, seed=2)
