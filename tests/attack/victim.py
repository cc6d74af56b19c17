"""The honest peers beside an attack, as a process of their own: ``python -m tests.attack.victim PORT PID``.

One connection sends ECHO_REQ, one at a time. A client submits jobs, and a worker does them. What they met is
printed as JSON lines, the last one when standard input ends. Nothing here comes from the package under test.

It is a process of its own so that nothing the attackers do in theirs can make an echo look late.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.processes.packets import Disorder, Type, answer, request
from tests.processes.servers import HOST

ECHO_PAUSE: Final = 0.005
"""Seconds between an echo and the next: a stall that begins in between is seen as so much shorter."""

JOB_PAUSE: Final = 0.02
"""Seconds between a job's end and the next submit: some fifty a second, which load nobody."""

TELL_EVERY: Final = 0.1
"""Seconds between two lines of output."""

LAST_JOB: Final = 20.0
"""Seconds that the last job may take when the attackers have left: later it is lost."""

FUNCTION: Final = b"honest"


@dataclass(slots=True)
class Observed:
    """What the honest peers have met so far.

    `recent` is the longest time that an echo took since the line before, in seconds, without what `Waits`
    counts. `refused` counts jobs answered with an ERROR, `lost` those that were accepted and did not come to
    their right end. `wrong` is what should not happen: a connection that was closed, a wrong answer.
    """

    echoes: int = 0
    recent: float = 0.0
    accepted: int = 0
    done: int = 0
    refused: int = 0
    lost: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


class Waits:
    """How long the server's process and this one were ready to run and had no processor, in seconds.

    That is what other programs on the machine cost, and no fault of the server. Linux counts it; elsewhere it
    is always 0, and the stalls are those of the clock.
    """

    def __init__(self, pid: int) -> None:
        self._paths = (Path(f"/proc/{pid}/task/{pid}/schedstat"), Path("/proc/self/schedstat"))

    def now(self) -> float:
        """In all, since the two began."""
        waited = 0
        for path in self._paths:
            with contextlib.suppress(OSError, IndexError):
                waited += int(path.read_text().split()[1])
        return waited / 1e9


class Victim:
    """The three connections."""

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._waits = Waits(pid)
        self.observed = Observed()
        self._leaving = asyncio.Event()
        # When the echo that is under way was sent, and how long both processes had waited by then.
        self._asked: tuple[float, float] | None = None

    async def run(self) -> None:
        """Until standard input ends."""
        peers = [asyncio.create_task(self._told(peer)) for peer in (self._work(), self._echo())]
        client = asyncio.create_task(self._told(self._submit()))
        teller = asyncio.create_task(self._tell())
        await asyncio.to_thread(sys.stdin.read)
        self._leaving.set()
        _, pending = await asyncio.wait([client], timeout=LAST_JOB)
        if pending:
            client.cancel()
            self.observed.wrong.append(f"no answer to a submit within {LAST_JOB:.0f} s")
        self.observed.lost = self.observed.accepted - self.observed.done
        self._look()
        self._print()
        for task in (teller, *peers):
            task.cancel()

    async def _told(self, peer: object) -> None:
        """A peer's life, of whose end something is said unless all are leaving."""
        try:
            await peer  # type: ignore[misc]
        except (OSError, EOFError) as failure:
            self.observed.wrong.append(f"an honest connection was closed: {failure}")
        except Disorder as failure:
            self.observed.wrong.append(f"a wrong answer: {failure}")

    async def _echo(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        while True:
            text = b"%d" % self.observed.echoes
            self._asked = time.monotonic(), self._waits.now()
            writer.write(request(Type.ECHO_REQ, text))
            try:
                echo = await answer(reader)
                self._look()
            finally:
                # No echo is under way either where the connection has ended.
                self._asked = None
            if echo != (Type.ECHO_RES, text):
                raise Disorder("not the echo that was asked for")
            self.observed.echoes += 1
            await asyncio.sleep(ECHO_PAUSE)

    def _look(self) -> None:
        """Take down how long the echo takes that is under way."""
        if self._asked is None:
            return
        sent, waited = self._asked
        wall = time.monotonic() - sent
        self.observed.recent = max(self.observed.recent, wall - (self._waits.now() - waited))

    async def _submit(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        number = 0
        while not self._leaving.is_set():
            number += 1
            data = b"job %d" % number
            writer.write(request(Type.SUBMIT_JOB, FUNCTION, b"", data))
            kind, body = await answer(reader)
            if kind == Type.ERROR:
                self.observed.refused += 1
            elif kind == Type.JOB_CREATED:
                self.observed.accepted += 1
                if await answer(reader) != (Type.WORK_COMPLETE, body + b"\0" + data[::-1]):
                    raise Disorder("not the end of the job that was submitted")
                self.observed.done += 1
            else:
                raise Disorder(f"packet {kind} in answer to a submit")
            await asyncio.sleep(JOB_PAUSE)

    async def _work(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(request(Type.CAN_DO, FUNCTION) + request(Type.GRAB_JOB_UNIQ))
        while True:
            kind, body = await answer(reader)
            if kind == Type.JOB_ASSIGN_UNIQ:
                handle, _, _, data = body.split(b"\0", 3)
                writer.write(request(Type.WORK_COMPLETE, handle, data[::-1]) + request(Type.GRAB_JOB_UNIQ))
            elif kind == Type.NO_JOB:
                writer.write(request(Type.PRE_SLEEP))
            elif kind == Type.NOOP:
                writer.write(request(Type.GRAB_JOB_UNIQ))
            else:
                raise Disorder(f"packet {kind} to a worker: {body[:100]!r}")

    async def _tell(self) -> None:
        while True:
            self._look()
            self._print()
            self.observed.recent = 0.0
            await asyncio.sleep(TELL_EVERY)

    def _print(self) -> None:
        print(json.dumps(dataclasses.asdict(self.observed)), flush=True)


if __name__ == "__main__":
    asyncio.run(Victim(int(sys.argv[1]), int(sys.argv[2])).run())
