"""What is broken in a run, and how it is healed: each fault waits until all is well again. All
randomness is the run's own generator.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.history import Blow, History, Kind
from tests.chaos.power import lose_unsynced
from tests.chaos.proxy import Mode, Proxy
from tests.databases import PostgreSQL
from tests.processes.servers import Server

LIMITED: Final = 1 << 20
"""Bytes that a file may have at most while a server's files are limited."""

FULL_SECONDS: Final = (0.2, 1.5)
"""How long a disk is full at least and at most."""


@dataclass(slots=True)
class Arena:
    """What there is to break."""

    history: History
    servers: list[Server]
    rng: random.Random
    disk: Disk | None = None
    database: PostgreSQL | None = None
    database_name: str = ""
    files: Path | None = None
    """The folder of a SQLite database."""
    proxies: list[Proxy] = field(default_factory=list)
    """One for each server, in their order, if they are not to reach the database by themselves."""

    def stored_jobs(self) -> int:
        """How many jobs are in PostgreSQL, whosever they are; 0 without it."""
        if self.database is None:
            return 0
        ((jobs,),) = self.database.run_sql("SELECT count(*) FROM txgearman_job", self.database_name)
        return int(jobs)

    def between(self, least: float, most: float) -> float:
        """A random number of seconds."""
        return self.rng.uniform(least, most)


class Disk:
    """A small file system of its own for the store's files; `filler` is what makes it full."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink()


async def kill(arena: Arena) -> None:
    """One server dies; it is started again at once, or a little later."""
    server = arena.rng.choice(arena.servers)
    blow = arena.history.strike(Kind.KILL, server.number)
    server.kill()
    await asyncio.sleep(arena.rng.choice((0.0, arena.between(0.0, 0.5))))
    await _start(server, blow)


async def kill_all(arena: Arena) -> None:
    """All servers die at once, and are started at the same time."""
    blows = []
    for server in arena.servers:
        blows.append(arena.history.strike(Kind.KILL, server.number))
        server.kill()
    await asyncio.gather(*map(_start, arena.servers, blows))


async def stop(arena: Arena) -> None:
    """One server is ended by SIGTERM, under load, and started again."""
    server = arena.rng.choice(arena.servers)
    blow = arena.history.strike(Kind.STOP, server.number)
    await server.stop()
    await _start(server, blow)


async def pause(arena: Arena) -> None:
    """One server stands still."""
    server = arena.rng.choice(arena.servers)
    blow = arena.history.strike(Kind.PAUSE, server.number)
    server.pause()
    await _go_on(arena, server, blow)


async def pause_giving(arena: Arena) -> None:
    """The same, with a job that was given to a worker and is still to be sent."""
    server = arena.rng.choice(arena.servers)
    blow = arena.history.strike(Kind.PAUSE, server.number)
    await server.pause_when_giving()
    await _go_on(arena, server, blow)


async def _go_on(arena: Arena, server: Server, blow: Blow) -> None:
    """Let one that is paused go on: where it has a lease, behind the end of that more often than not."""
    lease = arena.history.lease
    try:
        await asyncio.sleep(arena.between(0.5 * lease, 2.0 * lease) if lease else arena.between(0.1, 1.5))
    finally:
        server.go_on()
    await server.answers()
    blow.heal()


async def full(arena: Arena) -> None:
    """There is no room left for the store."""
    blow = arena.history.strike(Kind.FULL)
    try:
        if arena.disk is not None:
            arena.disk.fill()
        else:
            for server in arena.servers:
                server.limit_files(LIMITED)
        await asyncio.sleep(arena.between(*FULL_SECONDS))
    finally:
        if arena.disk is not None:
            arena.disk.free()
        else:
            for server in arena.servers:
                server.limit_files(None)
    blow.heal()


async def power(arena: Arena) -> None:
    """The machine loses its power: the server dies, and what it had not synced is not on the disk."""
    assert arena.files is not None
    (server,) = arena.servers
    blow = arena.history.strike(Kind.POWER, server.number)
    server.kill()
    blow.unsynced = lose_unsynced(arena.files, arena.rng)
    await _start(server, blow)


async def database(arena: Arena) -> None:
    """The database dies, all its processes at once, and is started again."""
    assert arena.database is not None
    blow = arena.history.strike(Kind.DATABASE)
    await asyncio.to_thread(arena.database.kill)
    await asyncio.sleep(arena.rng.choice((0.0, arena.between(0.0, 1.0))))
    await asyncio.to_thread(arena.database.start)
    blow.heal()


async def database_and_kill(arena: Arena) -> None:
    """The database dies, and while it is away so do all servers."""
    assert arena.database is not None
    blow = arena.history.strike(Kind.DATABASE)
    await asyncio.to_thread(arena.database.kill)
    await asyncio.sleep(arena.between(0.0, 0.3))
    deaths = []
    for server in arena.servers:
        deaths.append(arena.history.strike(Kind.KILL, server.number))
        server.kill()
    await asyncio.to_thread(arena.database.start)
    blow.heal()
    await asyncio.gather(*map(_start, arena.servers, deaths))


async def cut(arena: Arena) -> None:
    """A server's connections to the database are cut, and for a while new ones too."""
    await _meddle(arena, Kind.CUT, Mode.CUT)


async def stall(arena: Arena) -> None:
    """What a server and its database say to each other arrives nowhere, then the connections are cut."""
    await _meddle(arena, Kind.STALL, Mode.STALL)


async def deaf(arena: Arena) -> None:
    """A server's transactions take place, but it never hears of it."""
    await _meddle(arena, Kind.DEAF, Mode.DEAF)


async def _meddle(arena: Arena, kind: Kind, mode: Mode) -> None:
    server = arena.rng.choice(arena.servers)
    proxy = arena.proxies[server.number]
    blow = arena.history.strike(kind, server.number)
    proxy.turn(mode)
    await asyncio.sleep(arena.rng.choice((0.05, arena.between(0.0, 1.5), 2 * arena.history.lease)))
    if arena.rng.random() < 0.2:
        # What it was about to take back when the connection returns is forgotten.
        death = arena.history.strike(Kind.KILL, server.number)
        server.kill()
        proxy.turn(Mode.PASS)
        blow.heal()
        await _start(server, death)
    else:
        proxy.turn(Mode.PASS)
        blow.heal()


async def _start(server: Server, blow: Blow) -> None:
    await server.start()
    blow.heal()


Fault = Callable[[Arena], Awaitable[None]]

FAULTS: Final[dict[str, Fault]] = {
    "kill": kill,
    "kill-all": kill_all,
    "stop": stop,
    "pause": pause,
    "pause-giving": pause_giving,
    "full": full,
    "power": power,
    "database": database,
    "database-and-kill": database_and_kill,
    "cut": cut,
    "stall": stall,
    "deaf": deaf,
}
