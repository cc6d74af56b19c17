"""One run: servers on a store, a crowd on the servers, blows, healing, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.crowd import Crowd, Load
from tests.chaos.faults import FAULTS, Arena, Disk
from tests.chaos.history import ATTEMPTS, BACKOFF, CONFIGURATION, Blow, History, Kind
from tests.chaos.power import library
from tests.chaos.proxy import Proxy
from tests.chaos.verdict import Verdict, judge
from tests.databases import PostgreSQL
from tests.processes.nursery import shared_nursery
from tests.processes.servers import Failed, Server

DISK_SIZE: Final = "64m"
"""Of the file system that is filled."""

QUIET: Final = 1.0
"""Seconds without any job before the jobs that are missing count as lost; with a lease, beside it."""

DRAIN_LIMIT: Final = 120.0
"""Seconds to do what is left when all is healed."""

ON_ALL: Final = ("kill", "stop", "pause")
ON_SQLITE: Final = (*ON_ALL, "full", "power")
ON_POSTGRESQL: Final = (*ON_ALL, "database", "database-and-kill", "cut", "stall", "deaf")
WITH_SEVERAL: Final = ("kill-all", "pause-giving")


def faults_for(store: str, servers: int) -> tuple[str, ...]:
    """What can be broken."""
    faults = {"sqlite": ON_SQLITE, "postgresql": ON_POSTGRESQL}.get(store, ON_ALL)
    return faults + WITH_SEVERAL if servers > 1 else faults


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: until `blows` were dealt or `seconds` have passed, whichever is given and comes first.

    `store` is ``memory``, ``sqlite`` or ``postgresql``. `faults` are names of `FAULTS`. `lease`, for a store
    that may be shared, is in seconds. `calm` is the longest time between two blows. `mistake` is one that
    the servers make, of tests.chaos.broken. The servers' logs are put into `logs` at the end.
    """

    store: str
    faults: tuple[str, ...] = ("kill",)
    seed: int = 0
    servers: int = 1
    blows: int | None = None
    seconds: float | None = None
    lease: float = 10.0
    calm: float = 0.8
    load: Load = field(default_factory=Load)
    mistake: str | None = None
    logs: Path | None = None


@dataclass(slots=True)
class Report:
    """What came of a plan. `starts` counts starts of servers."""

    plan: Plan
    history: History
    verdict: Verdict
    seconds: float
    starts: int


def run(plan: Plan, say: Callable[[str], object] = lambda _: None) -> Report:
    """Carry out a plan; `say` is told of each blow. Raises `Failed` if a server does not do its part."""
    return asyncio.run(_run(plan, say))


async def _run(plan: Plan, say: Callable[[str], object]) -> Report:
    async with contextlib.AsyncExitStack() as stack:
        history = History(plan.servers, plan.lease if plan.store == "postgresql" else 0.0)
        rng = random.Random(plan.seed)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txgearman-chaos-")))
        arena = await stack.enter_async_context(_arena(plan, history, rng, folder))
        await asyncio.gather(*(server.start() for server in arena.servers))
        # Its own generator, or how often it draws would depend on timing and change the blows.
        crowd = Crowd(
            history, [server.port for server in arena.servers], plan.load, random.Random(plan.seed + 1)
        )
        crowd.start()
        await _strike(plan, arena, say)
        await crowd.stop_submitting(20.0)
        await _drain(arena, crowd)
        await _stop_and_start(arena)
        await asyncio.sleep(QUIET)
        await crowd.stop_working(3.0)
        await crowd.ask_for_all_results()
        await _look_at_what_is_left(arena)
        for server in arena.servers:
            await server.stop()
            if plan.logs is not None:
                server.keep_log(plan.logs)
            for when in server.lost_leases():
                # It is written down to the second, some time after the lease's end.
                begin, end = when - plan.lease, when + 1.0
                history.blows.append(Blow(Kind.LEASE, server.number, begin, end))
            history.disorders.extend(f"server {server.number} logged {text}" for text in server.tracebacks())
        return Report(
            plan,
            history,
            judge(history),
            time.monotonic() - history.begin,
            sum(server.starts for server in arena.servers),
        )


@contextlib.asynccontextmanager
async def _arena(plan: Plan, history: History, rng: random.Random, folder: Path) -> AsyncIterator[Arena]:
    """Everything that the plan breaks; what runs or is mounted behind the body is ended."""
    arena = Arena(history, [], rng)
    async with contextlib.AsyncExitStack() as stack:
        nursery = shared_nursery(library() if "power" in plan.faults else None)
        urls = [""] * plan.servers
        if plan.store == "sqlite":
            place = folder / "disk"
            place.mkdir()
            arena.files = place
            if "full" in plan.faults and _mounted(place):
                stack.callback(subprocess.run, ["umount", str(place)], check=True)
                arena.disk = Disk(place)
            urls = [f"sqlite:///{place}/queue.db"] * plan.servers
        elif plan.store == "postgresql":
            arena.database = stack.enter_context(await asyncio.to_thread(PostgreSQL))
            url = arena.database.new_database()
            arena.database_name = url.rpartition("/")[2]
            for number in range(plan.servers):
                proxy = Proxy(arena.database.port)
                await proxy.start()
                stack.push_async_callback(proxy.stop)
                arena.proxies.append(proxy)
                urls[number] = url.replace(f":{arena.database.port}/", f":{proxy.port}/")
        configuration = folder / "gearmand.toml"
        configuration.write_text(CONFIGURATION)
        for number, url in enumerate(urls):
            options = ["--config", str(configuration)]
            options += ["--attempts", str(ATTEMPTS), "--backoff", str(BACKOFF), "--jitter", "0"]
            if url:
                options += ["--store", url, "--store-lease", str(plan.lease)]
            mistake = plan.mistake and f"tests.chaos.broken.{plan.mistake}"
            server = Server(nursery, number, folder, options, mistake)
            stack.callback(server.end)
            arena.servers.append(server)
        yield arena


def _mounted(place: Path) -> bool:
    """Whether a small file system is mounted at `place`, which only root may do."""
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(place)]
    return mount is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0


async def _strike(plan: Plan, arena: Arena, say: Callable[[str], object]) -> None:
    """Deal the blows."""
    give_up = None if plan.seconds is None else time.monotonic() + plan.seconds
    dealt = 0
    while (plan.blows is None or dealt < plan.blows) and (give_up is None or time.monotonic() < give_up):
        await asyncio.sleep(arena.between(0.05, plan.calm))
        name = arena.rng.choice(plan.faults)
        say(f"{time.monotonic() - arena.history.begin:8.2f} s  blow {dealt + 1}: {name}")
        await FAULTS[name](arena)
        dealt += 1


async def _drain(arena: Arena, crowd: Crowd) -> None:
    """Wait until the servers and their database have no job left, and none comes. Those of a server that was
    killed are in the database alone until another one takes them over."""
    quiet = QUIET + 2 * arena.history.lease
    now = time.monotonic()
    empty_since: float | None = None
    give_up = now + DRAIN_LIMIT
    while empty_since is None or (crowd.undone and now < empty_since + quiet):
        left = sum([await server.jobs() for server in arena.servers])
        left = left or await asyncio.to_thread(arena.stored_jobs)
        now = time.monotonic()
        if left:
            empty_since = None
            if now > give_up:
                raise Failed(f"{left} jobs are left after {DRAIN_LIMIT} seconds")
        elif empty_since is None:
            empty_since = now
        await asyncio.sleep(0.05)


async def _look_at_what_is_left(arena: Arena) -> None:
    """Write down which jobs are dead, and which the servers have: those on one database list the same dead
    jobs."""
    history = arena.history
    for server in arena.servers:
        rows = (await server.ask("show dead")).encode().split(b"\n")[:-2]
        dead = Counter(row.split(b"\t")[0] for row in rows)
        if history.dead and arena.database is not None and dead != history.dead:
            history.disorders.append(f"server {server.number} lists other dead jobs than the others")
        history.dead |= dead
        rows = (await server.ask("show jobs")).encode().split(b"\n")[:-2]
        history.alive.update(row.split(b"\t")[0] for row in rows)


async def _stop_and_start(arena: Arena) -> None:
    """End all servers as an operator would, and start them again: no job that was done may come back."""
    await asyncio.gather(*(server.stop() for server in arena.servers))
    arena.history.settled = time.monotonic()
    await asyncio.gather(*(server.start() for server in arena.servers))
