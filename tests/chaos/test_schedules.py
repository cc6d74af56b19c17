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
from collections.abc import Callable
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
"""Seconds in which a tick that is done twice would show."""

LAST_TICK_WITHIN: Final = 60.0
"""Seconds after which a tick has its job or never will, on a machine that does much else."""

LOOK: Final = 0.1
"""Seconds between two looks into the database."""

KILLS: Final = 8

DEFINITION: Final = '{"function":"f","every":1,"overlap":"queue","missed":"all"}'


def _ticks_of(uniques: list[bytes]) -> Counter[int]:
    """How many jobs each tick has."""
    return Counter(int(unique.split(b":")[1]) for unique in uniques)


async def _trial(
    servers: list[Server], chance: random.Random, kills: int, uniques: Callable[[], list[bytes]]
) -> range:
    """Kill servers, and start them again; returns the ticks that must have a job. `uniques` gives those of
    all jobs."""
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
    ticks = range(begin, int(time.time()) + 1)
    await asyncio.sleep(SETTLING)
    give_up = time.monotonic() + LAST_TICK_WITHIN
    while not set(ticks) <= _ticks_of(uniques()).keys() and time.monotonic() < give_up:
        await asyncio.sleep(LOOK)
    for server in servers:
        await server.stop()
    return ticks


class ScheduleTrials(SynchronousTestCase):
    """What both have."""

    def check(self, number: int, url: str, seed: int, uniques: Callable[[], list[bytes]]) -> None:
        """Have servers killed while they tick. `uniques` gives those of all jobs in the database at `url`."""
        options = ["--store", url, "--store-lease", str(LEASE)]
        with tempfile.TemporaryDirectory(prefix="txgearman-chaos-") as folder:
            servers = [Server(shared_nursery(), each, Path(folder), options) for each in range(number)]
            try:
                ticks = asyncio.run(_trial(servers, random.Random(seed), KILLS, uniques))
                logged = [text for server in servers for text in server.tracebacks()]
            finally:
                for server in servers:
                    server.end()
        self.assertEqual(logged, [])
        self.assertGreater(len(ticks), KILLS // 2)
        jobs = _ticks_of(uniques())
        self.assertEqual([tick for tick in ticks if not jobs[tick]], [], "ticks without a job")
        self.assertEqual([tick for tick, count in jobs.items() if count > 1], [], "ticks with several")


@unittest.skipIf(WITHOUT_SQLITE, WITHOUT_SQLITE)
class SqliteScheduleTrials(ScheduleTrials):
    def test_one_server(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-chaos-") as folder:
            path = f"{folder}/queue.db"

            def uniques() -> list[bytes]:
                with contextlib.closing(sqlite3.connect(path)) as connection:
                    rows = connection.execute('SELECT "unique" FROM txgearman_job').fetchall()
                return [unique for (unique,) in rows]

            self.check(1, f"sqlite:///{path}", 1, uniques)


@needs_postgresql
class PostgresqlScheduleTrials(ScheduleTrials):
    def check_on_database(self, number: int, seed: int) -> None:
        database = shared_postgresql()
        url = database.new_database()

        def uniques() -> list[bytes]:
            rows = database.run_sql('SELECT "unique" FROM txgearman_job', url.rpartition("/")[2])
            return [bytes(unique) for (unique,) in rows]

        self.check(number, url, seed, uniques)

    def test_two_servers(self) -> None:
        self.check_on_database(2, seed=1)

    def test_three_servers(self) -> None:
        self.check_on_database(3, seed=2)
