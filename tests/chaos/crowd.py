"""The clients and workers of a run. They note everything in the history, and survive what is broken.

They speak the protocol by hand on asyncio. Clients never submit a job again: what happened to it stays
visible. Some workers die in the middle of a job, and some go on behind a lost connection, as real ones do.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.history import (
    ATTEMPTS,
    KEPT,
    KEYED,
    LIMITED,
    ONCE,
    Cancel,
    History,
    Outcome,
    Result,
    Submission,
    Turn,
    result_of,
)
from tests.processes.packets import Disorder, Type, answer, request

HOST: Final = "127.0.0.1"

FUNCTIONS: Final = (b"first", b"second", b"third")

FEATURED: Final = (LIMITED, KEYED, KEPT, ONCE)
"""Those that servers do more for than to hand out jobs."""

KEYS: Final = 4
"""Keys of the jobs of `KEYED`."""

ONCE_UNIQUES: Final = 16
ONCE_FRESH: Final = 2
"""Uniques that the jobs of `ONCE` have at a time, and how many of them are new with each second."""

LIMITED_SECONDS: Final = 0.04
"""Seconds that a job with a limit takes at most: so long that others wait for its slot."""

TO_BE_STOPPED: Final = 2.0
DEAF_TO_BE_STOPPED: Final = 0.4
"""Seconds that a job runs which is to be cancelled meanwhile, if it is not: by workers that can be told of
that, and by others."""

CANCELS_WITHIN: Final = 0.3
"""Seconds after which a job is cancelled, at most."""

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
    featured_share: float = 0.3
    cancel_share: float = 0.02
    cancel_share_epoch: float = 0.3
    """Jobs that are cancelled soon after they were accepted, and of those that are to run at a time."""
    stop_share: float = 0.01
    """Jobs that are cancelled while they run."""
    death_share: float = 0.003
    fail_share: float = 0.03
    doomed_share: float = 0.02
    """Jobs that fail whenever they run; `fail_share` of all runs fail beside them."""
    session: float = 3.0
    """Seconds after which a client goes to another server, if there are several."""


class Crowd:
    """All clients and workers of a run, on servers at `ports`. `idle` says that nobody need be served."""

    def __init__(self, history: History, ports: Sequence[int], load: Load, rng: random.Random) -> None:
        self._history = history
        self._ports = ports
        self._load = load
        self._rng = rng
        self._submitting = True
        self._working = True
        self._clients: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._administrator: asyncio.Task[None] | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._to_cancel: list[tuple[float, bytes, int]] = []
        """When to cancel which job on which server."""
        self._kept: list[bytes] = []
        """The handles of jobs whose results are kept."""
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

        self._readers = [asyncio.create_task(self._on_servers(self._reader, 0, lambda: self._submitting))]
        self._administrator = asyncio.create_task(self._cancel_jobs())

    async def stop_submitting(self, timeout: float) -> None:
        """Submit no more; what is not answered within `timeout` seconds stays unknown."""
        self._submitting = False
        await _end([*self._clients, *self._readers], timeout)

    async def stop_working(self, timeout: float) -> None:
        """Work no more."""
        self._working = False
        assert self._administrator is not None
        await _end([*self._workers, self._administrator], timeout)

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
                turn += role != self._worker
                continue
            try:
                await role(number, server, reader, writer)
            except (EOFError, OSError):
                pass
            except Disorder as disorder:
                when = time.monotonic() - self._history.begin
                self._history.disorders.append(f"{when:.3f}: {role.__name__} on server {server}: {disorder}")
            finally:
                writer.transport.abort()
            # Workers stay with their server, so that each has some.
            turn += role != self._worker

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
        function = rng.choice(FEATURED if rng.random() < load.featured_share else FUNCTIONS)
        chance = rng.random()
        unique = b""
        if chance < load.common_share:
            unique = b"common-%d" % rng.randrange(COMMON_UNIQUES)
        elif chance < load.common_share + load.unique_share:
            unique = b"%032x" % rng.getrandbits(128)
        elif chance < load.common_share + load.unique_share + 0.02:
            unique = b"-"
        if function == KEYED:
            unique = b"%d:%x" % (rng.randrange(KEYS), rng.getrandbits(64))
        elif function == ONCE:
            fresh = int(time.monotonic() - self._history.begin) * ONCE_FRESH
            unique = b"once-%d" % (fresh + rng.randrange(ONCE_UNIQUES))
        slow = rng.random() * load.slow if rng.random() < load.slow_share else 0.0
        if function in (LIMITED, KEYED):
            slow = rng.random() * LIMITED_SECONDS
        size = load.large if rng.random() < load.large_share else rng.randrange(load.size)
        if rng.random() < load.epoch_share:
            # In this order: a pause between the two makes the time on the history's clock too early, and
            # finds no fault.
            now = time.monotonic()
            wall_time = time.time()
            run_at = int(wall_time) + rng.randint(0, EPOCH_WITHIN)
            here = now + run_at - wall_time
            submission = self._history.submit(server, function, unique, "normal", here)
            data = _data(submission.payload, slow, size)
            return submission, request(Type.SUBMIT_JOB_EPOCH, function, unique, b"%d" % run_at, data)
        priority = rng.choice(tuple(SUBMITS))
        submission = self._history.submit(server, function, unique, priority)
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
            if item.function == KEPT:
                self._kept.append(body)
            share = self._load.cancel_share if item.run_at is None else self._load.cancel_share_epoch
            if self._rng.random() < share:
                self._cancel_soon(body, item.server)
        elif kind == Type.ERROR:
            item.answered = time.monotonic()
            item.error = body.partition(b"\0")[0]
        else:
            raise Disorder(f"{kind} {body!r} as the answer to a submit")

    async def _reader(
        self, number: int, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Ask for results, of jobs that are done and of others."""
        leave = time.monotonic() + self._load.session
        await _want(b"results", reader, writer)
        while self._submitting and (len(self._ports) == 1 or time.monotonic() < leave):
            await asyncio.sleep(LOOK)
            if self._kept:
                handle = self._rng.choice(self._kept[-200:])
                await self._ask_for_result(handle, server, reader, writer)

    async def ask_for_all_results(self) -> None:
        """Ask all servers for the results of all jobs that are to have one."""
        for server, port in enumerate(self._ports):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                await _want(b"results", reader, writer)
                for handle in dict.fromkeys(self._kept):
                    await self._ask_for_result(handle, server, reader, writer, last=True)
            finally:
                writer.transport.abort()

    async def _ask_for_result(
        self,
        handle: bytes,
        server: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        last: bool = False,
    ) -> None:
        asked = time.monotonic()
        writer.write(request(Type.GET_RESULT, handle, b"0"))
        kind, body = await answer(reader)
        if kind == Type.ERROR:
            # The store cannot be asked for now.
            return
        if kind != Type.RESULT_RES:
            raise Disorder(f"{kind} {body!r} as the answer to a question for a result")
        of, state, _, data = body.split(b"\0", 3)
        if of != handle:
            raise Disorder(f"the result of {of!r} as that of {handle!r}")
        self._history.results.append(
            Result(handle, server, asked, time.monotonic(), state.decode(), data, last)
        )

    # -- the administrator --------------------------------------------------------------------------

    def _cancel_soon(self, handle: bytes, server: int) -> None:
        when = time.monotonic() + self._rng.random() * CANCELS_WITHIN
        heapq.heappush(self._to_cancel, (when, handle, server))

    async def _cancel_jobs(self) -> None:
        while self._working:
            await asyncio.sleep(LOOK)
            while self._to_cancel and self._to_cancel[0][0] <= time.monotonic():
                _, handle, server = heapq.heappop(self._to_cancel)
                with contextlib.suppress(OSError, EOFError, TimeoutError):
                    await asyncio.wait_for(self._cancel(handle, server), PATIENCE)

    async def _cancel(self, handle: bytes, server: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._ports[server])
        cancel = Cancel(handle, server, time.monotonic())
        self._history.cancels.append(cancel)
        try:
            writer.write(b"cancel job %s\r\n" % handle)
            line = await reader.readline()
            if line.startswith(b"OK"):
                cancel.answered = time.monotonic()
                self.undone.discard(handle)
                self._done.add(handle)
            elif line:
                self._history.cancels.remove(cancel)
        finally:
            writer.transport.abort()

    # -- workers ------------------------------------------------------------------------------------

    async def _worker(
        self, number: int, server: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        hears = number % 2 == 0
        if hears:
            await _want(b"cancel", reader, writer)
        for function in (*FUNCTIONS, *FEATURED):
            writer.write(request(Type.CAN_DO, function))
        writer.write(request(Type.GRAB_JOB_UNIQ))
        packets = _Packets(reader)
        last: Turn | None = None
        try:
            while self._working:
                kind, body = await packets.next()
                if _is_about(last, kind, body, hears):
                    continue
                if kind == Type.NO_JOB:
                    writer.write(request(Type.PRE_SLEEP))
                    await self._sleep(packets)
                    writer.write(request(Type.GRAB_JOB_UNIQ))
                elif kind == Type.JOB_ASSIGN_UNIQ:
                    last = await self._work(number, server, body, packets, writer)
                    if last.outcome not in (Outcome.UNANSWERED, Outcome.STOPPED):
                        return
                else:
                    raise Disorder(f"{kind} {body!r} to a worker")
        finally:
            packets.close()

    async def _sleep(self, packets: _Packets) -> None:
        packet = await packets.within(PATIENCE)
        if packet is not None and packet[0] != Type.NOOP:
            raise Disorder(f"{packet} to a sleeping worker")

    async def _work(
        self, number: int, server: int, body: bytes, packets: _Packets, writer: asyncio.StreamWriter
    ) -> Turn:
        """Do a job and report it. Its outcome is as if the connection ended ahead of the next answer, if
        it was reported; then, and when it was stopped, the connection is of use behind it."""
        rng = self._rng
        handle, function, _, data = body.split(b"\0", 3)
        payload, milliseconds = _read(data)
        hears = number % 2 == 0
        turn = Turn(payload, handle, number, server, time.monotonic(), outcome=Outcome.ABANDONED, hears=hears)
        self._history.turns.append(turn)
        goes_on = rng.random() < 0.5
        dies = rng.random() < self._load.death_share
        turn.failed = self._is_doomed(payload) or rng.random() < self._load.fail_share
        until = turn.begin + milliseconds / 1000
        if rng.random() < self._load.stop_share:
            until = turn.begin + (TO_BE_STOPPED if hears else DEAF_TO_BE_STOPPED)
            self._cancel_soon(handle, server)
        try:
            while time.monotonic() < until and (goes_on or turn.lost is None):
                if turn.lost is None:
                    await self._listen(turn, packets)
                    if turn.outcome is Outcome.STOPPED:
                        break
                else:
                    await asyncio.sleep(LOOK)
        finally:
            turn.end = time.monotonic()
        if turn.outcome is Outcome.STOPPED:
            writer.write(request(Type.GRAB_JOB_UNIQ))
            return turn
        if dies or (turn.lost is not None and not goes_on):
            return turn
        self._failed[handle] += turn.failed
        if not turn.failed or self._failed[handle] >= ATTEMPTS:
            self.undone.discard(handle)
            self._done.add(handle)
        if turn.lost is not None:
            turn.outcome = Outcome.UNREPORTED
            return turn
        turn.outcome = Outcome.UNANSWERED
        writer.write(_report(turn, function) + request(Type.GRAB_JOB_UNIQ))
        return turn

    async def _listen(self, turn: Turn, packets: _Packets) -> None:
        """Whether the connection is there still, and whether the job is to go on, a moment later."""
        try:
            packet = await packets.within(LOOK)
        except (OSError, EOFError):
            turn.lost = time.monotonic()
            return
        if packet is None:
            return
        if packet[0] != Type.JOB_CANCEL or not turn.hears:
            raise Disorder(f"{packet} to a worker with a job")
        if packet[1].startswith(turn.handle + b"\0"):
            turn.outcome = Outcome.STOPPED

    def _is_doomed(self, payload: int) -> bool:
        return random.Random(payload).random() < self._load.doomed_share


class _Packets:
    """What a worker is sent. To wait for it with a limit of time loses nothing of it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._next: asyncio.Task[tuple[int, bytes]] | None = None

    async def next(self) -> tuple[int, bytes]:
        """The next packet."""
        packet = await self.within(None)
        assert packet is not None
        return packet

    async def within(self, seconds: float | None) -> tuple[int, bytes] | None:
        """The next packet, if it comes within so long."""
        if self._next is None:
            self._next = asyncio.create_task(answer(self._reader))
        done, _ = await asyncio.wait({self._next}, timeout=seconds)
        if not done:
            return None
        came, self._next = self._next, None
        return came.result()

    def close(self) -> None:
        """Wait no more."""
        if self._next is not None:
            self._next.cancel()


async def _want(option: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for an extension of the protocol."""
    writer.write(request(Type.OPTION_REQ, option))
    if (got := await answer(reader)) != (Type.OPTION_RES, option):
        raise Disorder(f"{got} as the answer to the option {option!r}")


def _is_about(turn: Turn | None, kind: int, body: bytes, hears: bool) -> bool:
    """Write down what a packet says of the last turn, if that was reported. Whether it says nothing else."""
    reported = turn if turn is not None and turn.outcome is Outcome.UNANSWERED else None
    if kind == Type.NOOP:
        return True
    if kind == Type.JOB_CANCEL and hears:
        if reported is not None and body.startswith(reported.handle + b"\0"):
            # It was said ahead of the report, which is dropped.
            reported.outcome = Outcome.REFUSED
        return True
    if reported is not None and kind == Type.ERROR:
        reported.outcome = Outcome.REFUSED
        return True
    if reported is not None:
        reported.outcome = Outcome.ACCEPTED
        reported.confirmed = time.monotonic()
    return False


def _report(turn: Turn, function: bytes) -> bytes:
    """What a worker says of a job that has come to its end."""
    if turn.failed:
        return request(Type.WORK_FAIL, turn.handle)
    if function != KEPT:
        return request(Type.WORK_COMPLETE, turn.handle, b"")
    result = result_of(turn.payload)
    part = turn.payload % len(result)
    return request(Type.WORK_DATA, turn.handle, result[:part]) + request(
        Type.WORK_COMPLETE, turn.handle, result[part:]
    )


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
