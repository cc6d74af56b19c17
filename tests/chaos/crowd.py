"""The clients and workers of a run. They note everything in the ledger, and survive what is broken.

They speak the protocol by hand on asyncio. Clients never submit a job again: what happened to it stays
visible. Some workers die in the middle of a job, and some go on behind a lost connection, as real ones do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.ledger import ATTEMPTS, Ledger, Outcome, Submission, Turn
from tests.processes.packets import Disorder, Type, answer, request

HOST: Final = "127.0.0.1"

FUNCTIONS: Final = (b"first", b"second", b"third")

SUBMITS: Final = {
    "high": Type.SUBMIT_JOB_HIGH_BG,
    "normal": Type.SUBMIT_JOB_BG,
    "low": Type.SUBMIT_JOB_LOW_BG,
}

RECONNECT: Final = 0.02
"""Seconds between two tries to connect."""

LOOK: Final = 0.02
"""Seconds between two looks of a worker at its connection while it works."""

PATIENCE: Final = 1.0
"""Seconds that an idle worker waits to be woken before it asks for a job all the same, as libgearman does."""

PAUSE: Final = 0.03
REFUSED_PAUSE: Final = 0.3
"""Seconds that a client waits at most before it submits again, and when something was refused."""

LARGEST_BURST: Final = 40
"""Submits that a client sends before it waits for their answers."""

COMMON_UNIQUES: Final = 20
"""Uniques that all clients use again and again."""

EPOCH_WITHIN: Final = 3
"""Seconds; how far away the times of jobs are that are to run at a time."""


@dataclass(slots=True)
class Load:
    """How much the crowd does, and how its members are to behave.

    `backlog` is how many acknowledged jobs may wait to be done; `size` the bytes of most jobs at most.
    Shares are of 1.
    """

    clients: int = 5
    workers: int = 8
    backlog: int = 1500
    size: int = 1500
    large: int = 60_000
    large_share: float = 0.01
    slow_share: float = 0.02
    slow: float = 0.6
    epoch_share: float = 0.04
    common_share: float = 0.1
    unique_share: float = 0.3
    death_share: float = 0.003
    fail_share: float = 0.03
    doomed_share: float = 0.02
    """Jobs that fail whenever they run; `fail_share` of all runs fail beside them."""
    session: float = 3.0
    """Seconds after which a client goes to another server, if there are several."""


class Crowd:
    """All clients and workers of a run, on servers at `ports`. `idle` says that nobody need be served."""

    def __init__(self, ledger: Ledger, ports: Sequence[int], load: Load, rng: random.Random) -> None:
        self._ledger = ledger
        self._ports = ports
        self._load = load
        self._rng = rng
        self._submitting = True
        self._working = True
        self._clients: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self.undone: set[bytes] = set()
        """Handles that were acknowledged and whose job was not done yet."""
        self._done: set[bytes] = set()
        self._failed: Counter[bytes] = Counter()

    def start(self) -> None:
        """Send everybody to work."""
        for number in range(self._load.clients):
            self._clients.append(
                asyncio.create_task(self._on_servers(self._client, number, lambda: self._submitting))
            )
        for number in range(self._load.workers):
            self._workers.append(
                asyncio.create_task(self._on_servers(self._worker, number, lambda: self._working))
            )

    async def stop_submitting(self, timeout: float) -> None:
        """Submit no more; what is not answered within `timeout` seconds stays unknown."""
        self._submitting = False
        await _end(self._clients, timeout)

    async def stop_working(self, timeout: float) -> None:
        """Work no more."""
        self._working = False
        await _end(self._workers, timeout)

    # -- connections --------------------------------------------------------------------------------

    async def _on_servers(self, role: Callable[..., Any], number: int, wanted: Callable[[], bool]) -> None:
        """Play a role on one connection after another."""
        turn = number
        while wanted():
            server = turn % len(self._ports)
            try:
                reader, writer = await asyncio.open_connection(HOST, self._ports[server])
            except OSError:
                await asyncio.sleep(RECONNECT)
                turn += role == self._client
                continue
            try:
                await role(number, server, reader, writer)
            except (EOFError, OSError):
                pass
            except Disorder as disorder:
                when = time.monotonic() - self._ledger.begin
                self._ledger.disorders.append(f"{when:.3f}: {role.__name__} on server {server}: {disorder}")
            finally:
                writer.transport.abort()
            # Workers stay with their server, so that each has some.
            turn += role == self._client

    # -- clients ------------------------------------------------------------------------------------

    async def _client(
        self, number: int, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        rng = self._rng
        leave = time.monotonic() + self._load.session * (0.5 + rng.random())
        while self._submitting and (len(self._ports) == 1 or time.monotonic() < leave):
            if len(self.undone) > self._load.backlog:
                await asyncio.sleep(LOOK)
                continue
            burst = 1 if rng.random() < 0.5 else rng.randint(2, LARGEST_BURST)
            sent: list[Submission | bytes] = []
            packets = []
            for _ in range(burst):
                if rng.random() < 0.05:
                    echo = b"%d" % rng.getrandbits(64)
                    sent.append(echo)
                    packets.append(request(Type.ECHO_REQ, echo))
                else:
                    submission, packet = self._new_job(server)
                    sent.append(submission)
                    packets.append(packet)
            writer.write(b"".join(packets))
            refused = False
            for item in sent:
                kind, body = await answer(reader)
                self._answered(item, kind, body)
                refused = refused or kind == Type.ERROR
            await asyncio.sleep(rng.random() * (REFUSED_PAUSE if refused else PAUSE))

    def _new_job(self, server: int) -> tuple[Submission, bytes]:
        rng, load = self._rng, self._load
        function = rng.choice(FUNCTIONS)
        chance = rng.random()
        unique = b""
        if chance < load.common_share:
            unique = b"common-%d" % rng.randrange(COMMON_UNIQUES)
        elif chance < load.common_share + load.unique_share:
            unique = b"%032x" % rng.getrandbits(128)
        elif chance < load.common_share + load.unique_share + 0.02:
            unique = b"-"
        slow = rng.random() * load.slow if rng.random() < load.slow_share else 0.0
        size = load.large if rng.random() < load.large_share else rng.randrange(load.size)
        if rng.random() < load.epoch_share:
            run_at = int(time.time()) + rng.randint(0, EPOCH_WITHIN)
            here = run_at - time.time() + time.monotonic()
            submission = self._ledger.submit(server, function, unique, "normal", here)
            data = _data(submission.payload, slow, size)
            return submission, request(Type.SUBMIT_JOB_EPOCH, function, unique, b"%d" % run_at, data)
        priority = rng.choice(tuple(SUBMITS))
        submission = self._ledger.submit(server, function, unique, priority)
        data = _data(submission.payload, slow, size)
        return submission, request(SUBMITS[priority], function, unique, data)

    def _answered(self, item: Submission | bytes, kind: int, body: bytes) -> None:
        if isinstance(item, bytes):
            if (kind, body) != (Type.ECHO_RES, item):
                raise Disorder(f"{kind} {body!r} as the answer to echo {item!r}")
        elif kind == Type.JOB_CREATED:
            item.answered = time.monotonic()
            item.handle = body
            if body not in self._done:
                self.undone.add(body)
        elif kind == Type.ERROR:
            item.answered = time.monotonic()
            item.error = body.partition(b"\0")[0]
        else:
            raise Disorder(f"{kind} {body!r} as the answer to a submit")

    # -- workers ------------------------------------------------------------------------------------

    async def _worker(
        self, number: int, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for function in FUNCTIONS:
            writer.write(request(Type.CAN_DO, function))
        writer.write(request(Type.GRAB_JOB_UNIQ))
        reported: Turn | None = None
        try:
            while self._working:
                kind, body = await answer(reader)
                if kind == Type.NOOP:
                    continue
                if kind == Type.ERROR and reported is not None:
                    reported.outcome = Outcome.REFUSED
                    reported = None
                    continue
                if reported is not None:
                    reported.outcome = Outcome.ACCEPTED
                    reported.confirmed = time.monotonic()
                    reported = None
                if kind == Type.NO_JOB:
                    writer.write(request(Type.PRE_SLEEP))
                    await self._sleep(reader)
                    writer.write(request(Type.GRAB_JOB_UNIQ))
                elif kind == Type.JOB_ASSIGN_UNIQ:
                    reported = await self._work(number, server, body, reader, writer)
                    if reported is None:
                        return
                else:
                    raise Disorder(f"{kind} {body!r} to a worker")
        finally:
            if reported is not None:
                reported.outcome = Outcome.UNANSWERED

    async def _sleep(self, reader: asyncio.StreamReader) -> None:
        try:
            kind, body = await asyncio.wait_for(answer(reader), PATIENCE)
        except TimeoutError:
            return
        if kind != Type.NOOP:
            raise Disorder(f"{kind} {body!r} to a sleeping worker")

    async def _work(
        self,
        number: int,
        server: int,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Turn | None:
        """Do a job and report it; None if the connection is of no use behind it."""
        rng = self._rng
        handle, _, _, data = body.split(b"\0", 3)
        payload, milliseconds = _read(data)
        turn = Turn(payload, handle, number, server, time.monotonic(), outcome=Outcome.ABANDONED)
        self._ledger.turns.append(turn)
        goes_on = rng.random() < 0.5
        dies = rng.random() < self._load.death_share
        turn.failed = self._is_doomed(payload) or rng.random() < self._load.fail_share
        until = turn.begin + milliseconds / 1000
        lost = False
        try:
            while time.monotonic() < until and (goes_on or not lost):
                await asyncio.sleep(LOOK)
                lost = reader.at_eof() or reader.exception() is not None
        finally:
            turn.end = time.monotonic()
        if dies or (lost and not goes_on):
            return None
        self._failed[handle] += turn.failed
        if not turn.failed or self._failed[handle] >= ATTEMPTS:
            self.undone.discard(handle)
            self._done.add(handle)
        if lost:
            turn.outcome = Outcome.UNREPORTED
            return None
        turn.outcome = Outcome.UNANSWERED
        report = request(Type.WORK_FAIL, handle) if turn.failed else request(Type.WORK_COMPLETE, handle, b"")
        writer.write(report + request(Type.GRAB_JOB_UNIQ))
        return turn

    def _is_doomed(self, payload: int) -> bool:
        return random.Random(payload).random() < self._load.doomed_share


def _data(payload: int, slow: float, size: int) -> bytes:
    """A job's data: who it is, how many milliseconds it takes, and bytes that can be told to be whole."""
    head = b"%d %d " % (payload, slow * 1000)
    return head + b"%08x" % (payload * 2654435761 % 2**32) * (size // 8)


def _read(data: bytes) -> tuple[int, int]:
    """Payload and milliseconds of a job's data. Raises `Disorder` if it is not as it was submitted."""
    payload, milliseconds, rest = data.split(b" ", 2)
    if rest != b"%08x" % (int(payload) * 2654435761 % 2**32) * (len(rest) // 8):
        raise Disorder(f"the data of job {payload!r} was changed")
    return int(payload), int(milliseconds)


async def _end(tasks: list[asyncio.Task[None]], timeout: float) -> None:
    """Wait for tasks to end, and end those that do not. What they raised is raised."""
    _, late = await asyncio.wait(tasks, timeout=timeout)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
