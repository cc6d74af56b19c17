"""The servers of a run as processes that can be killed, paused and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import select
import shutil
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.processes import instants
from tests.processes.nursery import Nursery
from tests.support import free_port, process_state

HOST: Final = "127.0.0.1"

START_LIMIT: Final = 30.0
"""Seconds from its start until a server must answer: with others on a busy machine, and jobs to load."""

STOP_LIMIT: Final = 20.0
"""Seconds that a server may take to end after SIGTERM."""

GIVES_WITHIN: Final = 1.0
"""Seconds in which a server should give a job to a worker."""

LOOK: Final = 0.02
"""Seconds between two looks at a process."""

_LOG_TIME: Final = "%Y-%m-%dT%H:%M:%S%z"
_LOST_LEASE: Final = re.compile(r"^(\S+) .*The lease expired", re.MULTILINE)


class Failed(Exception):
    """A program did not do what a run needs of it; the text says which, with its log."""


class Server:
    """One ``twistd gearmand`` on a port of its own, which it keeps over its deaths.

    `options` are those of ``gearmand``; `mistake` is as for `Nursery.start`.
    """

    def __init__(
        self,
        nursery: Nursery,
        number: int,
        folder: Path,
        options: Sequence[str],
        mistake: str | None = None,
    ) -> None:
        self._nursery = nursery
        self.number = number
        self.port = free_port()
        self._folder = folder
        self.log = folder / f"server-{number}.log"
        self._output = folder / f"server-{number}.output"
        self._options = tuple(options)
        self._mistake = mistake
        self._pid = 0
        # A process id may be another process's by the time it is used, this never is.
        self._process: int | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        """The id of its process. Raises `Failed` if it has ended by itself."""
        if not self.running:
            raise Failed(f"server {self.number} is not running:\n{self.told()}")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether it is there, paused or not."""
        return self._process is not None and not select.select([self._process], [], [], 0)[0]

    def told(self) -> str:
        """The end of what it logged and printed."""
        return "".join(
            path.read_text(errors="replace")[-3000:] for path in (self.log, self._output) if path.exists()
        )

    def keep_log(self, folder: Path) -> None:
        """Put its log into another folder."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.log, folder)

    def lost_leases(self) -> list[float]:
        """When it learned that it had lost its lease, by the history's clock and to the second."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        ahead = time.time() - time.monotonic()
        return [datetime.strptime(when, _LOG_TIME).timestamp() - ahead for when in _LOST_LEASE.findall(text)]

    def tracebacks(self) -> list[str]:
        """Errors in its logs that it did not expect."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return ["Traceback" + part[:2000] for part in text.split("Traceback")[1:]]

    async def start(self) -> None:
        """Start it; returns when it answers. Raises `Failed`."""
        arguments = [
            "--nodaemon",
            "--pidfile=",
            f"--logfile={self.log}",
            f"--rundir={self._folder}",
            "gearmand",
            "--listen",
            f"tcp:{self.port}:interface={HOST}",
            *self._options,
        ]
        self._pid = self._nursery.start(arguments, self._output, self._mistake)
        self._forget()
        with contextlib.suppress(ProcessLookupError):
            self._process = os.pidfd_open(self._pid)
        self.starts += 1
        await self.answers()

    async def answers(self) -> None:
        """Wait until it answers. Raises `Failed`."""
        give_up = time.monotonic() + START_LIMIT
        while True:
            pid = self.pid
            with contextlib.suppress(OSError, EOFError):
                # One that stands still takes connections all the same.
                if (await asyncio.wait_for(self.ask("getpid"), START_LIMIT)).strip() == f"OK {pid}":
                    return
            if time.monotonic() > give_up:
                raise Failed(f"server {self.number} does not answer:\n{self.told()}")
            await asyncio.sleep(LOOK)

    async def ask(self, line: str) -> str:
        """The first line of the answer to an admin command, all lines for one that lists."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(line.encode() + b"\n")
            if line == "status" or line.startswith("show "):
                if (first := await reader.readline()) == b".\n":
                    return ".\n"
                return (first + await reader.readuntil(b".\n")).decode()
            return (await reader.readline()).decode()
        finally:
            writer.transport.abort()

    async def jobs(self) -> int:
        """How many jobs it has, in all functions."""
        text = await self.ask("status")
        return sum(int(row.split("\t")[1]) for row in text.split("\n") if "\t" in row)

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        select.select([self._process], [], [])

    async def stop(self) -> None:
        """End it as an operator would. Raises `Failed` if it does not obey."""
        self._signal(signal.SIGTERM)
        give_up = time.monotonic() + STOP_LIMIT
        while self.running:
            if time.monotonic() > give_up:
                raise Failed(f"server {self.number} does not obey SIGTERM:\n{self.told()}")
            await asyncio.sleep(LOOK)

    def _signal(self, number: signal.Signals) -> None:
        if not self.running or self._process is None:
            raise Failed(f"server {self.number} is not running:\n{self.told()}")
        signal.pidfd_send_signal(self._process, number)

    def pause(self) -> None:
        """Take the processor from it."""
        self._signal(signal.SIGSTOP)

    async def pause_when_giving(self) -> None:
        """Have it stop between giving a job to a worker and sending it, if it gives any soon."""
        self._signal(instants.GIVING)
        give_up = time.monotonic() + GIVES_WITHIN
        while process_state(self.pid) != "T" and time.monotonic() < give_up:
            await asyncio.sleep(LOOK)
        self.pause()

    def go_on(self) -> None:
        """Give the processor back."""
        self._signal(signal.SIGCONT)

    def limit_files(self, size: int | None) -> None:
        """Let it write no file beyond `size` bytes, or any: a disk that is full, for whom is not root."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def end(self) -> None:
        """Whatever its state, let nothing of it stay."""
        if self.running:
            self.kill()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            os.close(self._process)
            self._process = None
