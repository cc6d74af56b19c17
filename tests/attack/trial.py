"""One attack: a fresh server, honest peers, the attacker, and what all of that came to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.servers import allow_open_files
from tests.attack.attack import Attack, Bounds, Target
from tests.attack.peers import TimeUp
from tests.certificates import Authority
from tests.processes.nursery import CHECKOUT, shared_nursery
from tests.processes.packets import Disorder
from tests.processes.servers import HOST, Failed, Server
from tests.support import free_port

MEMORY: Final = 3072
"""MiB more than before at which a server is killed, so that what fails here does no harm to the machine."""

LOOK: Final = 0.02
"""Seconds between two looks at the memory."""

WARM: Final = 0.5
"""Seconds of honest work before an attack, after which memory does not grow by itself."""

QUIET: Final = 0.5
"""Seconds of good echoes in a row after which nothing of an attack is under way any more."""

CALM: Final = 0.1
"""Seconds in which an echo comes when nothing is under way."""

AFTERMATH: Final = 40.0
"""Seconds that what was sent may keep a server busy at most, and that the memory has to come down."""

NEWCOMER: Final = 5.0
"""Seconds in which a peer that comes behind an attack must be served."""


@dataclass(slots=True)
class Result:
    """What an attack came to: `stall` in seconds, memory in MiB, `log_line` in bytes, the longest."""

    name: str
    bounds: Bounds
    stall: float = 0.0
    before: float = 0.0
    most: float = 0.0
    after: float = 0.0
    log_lines: int = 0
    log_line: int = 0
    tracebacks: int = 0
    echoes: int = 0
    jobs: int = 0
    refused: int = 0
    lost: int = 0
    seconds: float = 0.0
    finished: bool = False
    """Whether the attacker could do all that he wanted, in the time that he had."""
    faults: list[str] = field(default_factory=list)
    """What the attack saw, or the honest peers, or the harness."""

    def broken(self) -> list[str]:
        """The bounds that do not hold, each with what was there."""
        bounds = self.bounds
        checks = (
            (self.stall <= bounds.stall, f"an echo took {self.stall:.2f} s, at most {bounds.stall:.2f}"),
            (
                self.most - self.before <= bounds.peak,
                f"memory grew by {self.most - self.before:.0f} MiB, at most {bounds.peak}",
            ),
            (
                self.after - self.before <= bounds.left,
                f"{self.after - self.before:.0f} MiB stayed, at most {bounds.left}",
            ),
            (self.log_lines <= bounds.log_lines, f"{self.log_lines} log lines, at most {bounds.log_lines}"),
            (
                self.log_line <= bounds.log_line,
                f"a log line of {self.log_line} bytes, at most {bounds.log_line}",
            ),
            (not self.tracebacks, f"{self.tracebacks} tracebacks"),
            (not self.lost, f"{self.lost} honest jobs were lost"),
            (bounds.refusals or not self.refused, f"{self.refused} honest jobs were refused"),
            (self.echoes and self.jobs, "the honest peers were never served"),
        )
        return [text for holds, text in checks if not holds] + self.faults


def run(attack: Attack, seconds: float, seed: int, mistake: str | None = None) -> Result:
    """Carry out an attack for so many seconds at most. `mistake` is as for `Server`."""
    allow_open_files()
    return asyncio.run(_run(attack, seconds, seed, mistake))


async def _run(attack: Attack, seconds: float, seed: int, mistake: str | None) -> Result:
    begin = time.monotonic()
    result = Result(attack.name, attack.bounds)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txgearman-attack-")))
        target = Target(0, free_port(), free_port(), folder, random.Random(seed), 0.0)
        stack.callback(target.leave)
        server = Server(shared_nursery(), 0, folder, _options(attack, target), mistake)
        stack.callback(server.end)
        target.port = server.port
        try:
            await server.start()
            await _attacked(attack, target, server, result, seconds)
        except Failed as failure:
            result.faults.append(str(failure))
        _read_log(server, result)
    result.faults += target.faults
    result.seconds = time.monotonic() - begin
    return result


def _options(attack: Attack, target: Target) -> list[str]:
    options = list(attack.options(target))
    if attack.web:
        options += ["--web", f"tcp:{target.web_port}:interface={HOST}"]
    if attack.unix:
        options += ["--listen", f"unix:{target.unix_path}"]
    if attack.tls:
        authority = Authority(target.folder / "ca")
        certificate = authority.issue(target.folder / "server.pem", HOST)
        options += ["--tls", f"tcp:{target.tls_port}:interface={HOST}"]
        options += ["--tls-certificate", str(certificate)]
        if "--tls-ca" not in options:
            options += ["--tls-ca", str(authority.ca), "--tls-verify", "optional"]
    return options


async def _attacked(attack: Attack, target: Target, server: Server, result: Result, seconds: float) -> None:
    """The time from the first honest peer to the last one. Raises `Failed` if the server ends by itself."""
    async with _victim(server) as victim, _guard(server, result) as memory:
        await victim.served()
        await asyncio.sleep(WARM)
        lines = len(_log(server))
        memory.begin()
        result.before = result.most = memory.now()
        victim.begin()
        target.deadline = time.monotonic() + seconds
        result.finished = await _step(attack.run, target)
        await _calm(victim)
        await asyncio.to_thread(target.leave)
        await _calm(victim)
        await _settled(server, memory, result)
        target.deadline = time.monotonic() + AFTERMATH
        result.finished &= await _step(attack.after, target)
        await asyncio.to_thread(target.leave)
        await _newcomer(server, result)
        result.most = max(result.most, memory.peak())
        await victim.leave()
        victim.judge(result)
        result.log_lines = len(_log(server)) - lines
    if server.running:
        await server.stop()
    elif not memory.exceeded:
        raise Failed(f"the server has ended:\n{server.told()}")


async def _step(part: Callable[[Target], None], target: Target) -> bool:
    """Let the attacker do a part; whether he got to its end."""
    try:
        await asyncio.to_thread(part, target)
    except (TimeUp, OSError):
        return False
    except Disorder as failure:
        target.fault(f"the attacker got a wrong answer: {failure}")
        return False
    finally:
        # Where this was cancelled, the attacker's thread ends with its next step.
        target.deadline = 0.0
    return True


async def _calm(victim: _Victim) -> None:
    """Wait until echoes come as ever again, or for long enough."""
    now = time.monotonic()
    give_up, good_since = now + AFTERMATH, now
    while not victim.ended and now < give_up and now < good_since + QUIET:
        await victim.heard()
        now = time.monotonic()
        if victim.recent > CALM:
            good_since = now


async def _settled(server: Server, memory: _Memory, result: Result) -> None:
    """Wait until memory is where it may stay, or for long enough."""
    give_up = time.monotonic() + AFTERMATH
    while True:
        result.after = memory.now()
        within = result.after - result.before <= result.bounds.left
        if within or not server.running or time.monotonic() > give_up:
            return
        await asyncio.sleep(0.2)


async def _newcomer(server: Server, result: Result) -> None:
    """One who comes behind the attack asks who the server is."""
    try:
        async with asyncio.timeout(NEWCOMER):
            await server.ask("getpid")
    except (OSError, EOFError, TimeoutError) as failure:
        result.faults.append(f"who comes behind is not served: {type(failure).__name__} {failure}")


def _log(server: Server) -> list[str]:
    return server.log.read_text(errors="replace").splitlines() if server.log.exists() else []


def _read_log(server: Server, result: Result) -> None:
    result.log_line = max((len(line.encode()) for line in _log(server)), default=0)
    result.tracebacks = len(server.tracebacks())


# -- what watches ---------------------------------------------------------------------------------


class _Victim:
    """The harness's end of the process of the honest peers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.last: dict[str, Any] = {}
        self.ended = False
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        self._stall = 0.0
        self._counts = False

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.last = json.loads(line)
            if self._counts:
                self._stall = max(self._stall, self.last["recent"])
            self._news.set()
        self.ended = True
        self._news.set()

    @property
    def recent(self) -> float:
        """The longest echo since it told before, in seconds."""
        return float(self.last.get("recent", 0.0))

    def begin(self) -> None:
        """From now on count how long echoes take."""
        self._counts = True

    async def served(self) -> None:
        """Wait until all of its connections have been served."""
        while not self.ended and not (self.last and self.last["echoes"] and self.last["done"]):
            await self.heard()

    async def heard(self) -> None:
        """Wait for the next thing that it tells."""
        self._news.clear()
        if not self.ended:
            await self._news.wait()

    async def leave(self) -> None:
        """Let it end its work, and itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    def judge(self, result: Result) -> None:
        """Write down what it met."""
        result.stall = self._stall
        result.echoes, result.jobs = self.last["echoes"], self.last["done"]
        result.refused, result.lost = self.last["refused"], self.last["lost"]
        result.faults += self.last["wrong"]


@contextlib.asynccontextmanager
async def _victim(server: Server) -> AsyncIterator[_Victim]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.attack.victim",
        str(server.port),
        str(server.pid),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
    )
    try:
        yield _Victim(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class _Memory:
    """The resident memory of a server, in MiB."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._last = 0.0
        self.exceeded = False
        """Whether the server was killed, as it had far too much."""

    def begin(self) -> None:
        """Forget what the most was so far."""
        (self._process / "clear_refs").write_text("5")

    def now(self) -> float:
        """What it has."""
        return self._field("VmRSS")

    def peak(self) -> float:
        """The most that it had since `begin`."""
        return self._field("VmHWM")

    def _field(self, name: str) -> float:
        """What the system says; the last that was known, where the process has ended."""
        with contextlib.suppress(OSError):
            for line in (self._process / "status").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    self._last = int(line.split()[1]) / 1024
        return self._last


@contextlib.asynccontextmanager
async def _guard(server: Server, result: Result) -> AsyncIterator[_Memory]:
    """Look at the memory all the while, and kill a server that has far too much."""
    memory = _Memory(server.pid)

    async def watch() -> None:
        while server.running:
            result.most = max(result.most, memory.now())
            if result.before and result.most - result.before > MEMORY:
                memory.exceeded = True
                server.kill()
                result.faults.append(f"killed, as it had {MEMORY} MiB more than before")
            await asyncio.sleep(LOOK)

    watching = asyncio.create_task(watch())
    try:
        yield memory
    finally:
        watching.cancel()
