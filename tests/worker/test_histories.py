"""Random histories of a worker: whatever happens, it comes to its end, and all slots are free again.

Servers give jobs, asked for or not, wake and refuse; connections are lost, refused and held up; functions
come and go, return, raise, wait, and are cancelled; the worker is stopped and started in the middle.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.histories import HISTORIES, STEPS, PlayedHistory
from tests.connection.memory import PlayedServer
from txgearman.errors import FailJob, Reject, Retry
from txgearman.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_EXTENDED,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    OPTION_RES,
)
from txgearman.worker import Hooks, Job, Worker

FUNCTIONS = ("f", "g", "h")


class Expected(Exception):
    """What functions and hooks of these tests raise."""


class History(PlayedHistory):
    """One worker with one or two servers."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, servers=(1, 1, 2))
        self.concurrency = self.random.choice((1, 2, 5))
        hooks = Hooks(self.hook, self.hook, self.hook) if self.random.random() < 0.3 else None
        self.worker = Worker(
            self.clock,
            self.endpoints,
            concurrency=self.concurrency,
            check_interval=self.random.choice((None, 5)),
            hooks=hooks,
            heartbeat=self.random.random() < 0.5,
        )
        self.registered: set[str] = set()
        self.running: list[Deferred[Any]] = []

    # -- functions and hooks --------------------------------------------------------------------

    def outcome(self) -> Any:
        """What a function returns, unless it raises."""
        chance = self.random.random()
        if chance < 0.3:
            return b"r"
        if chance < 0.4:
            raise self.random.choice(
                (Expected(), FailJob("no", data=b"d"), FailJob(), Retry(1), Reject("no"))
            )
        if chance < 0.5:
            return self.random.choice((None, "text", 7))
        if chance < 0.6:
            self.act()
            return b"r"
        waiting: Deferred[Any] = Deferred()
        self.running.append(waiting)
        return waiting if chance < 0.8 else self.stubborn(waiting)

    async def stubborn(self, waiting: Deferred[Any]) -> bytes:
        """Goes on when it is cancelled, now and then."""
        try:
            await waiting
        except BaseException:
            if self.random.random() < 0.5:
                raise
        return b"r"

    def function(self, job: Job) -> Any:
        if self.random.random() < 0.2:
            job.send_data(b"d")
        return self.outcome()

    def hook(self, _job: Job, *_rest: object) -> Any:
        return self.outcome() if self.random.random() < 0.3 else None

    # -- what the user does ---------------------------------------------------------------------

    def act(self) -> None:
        self.random.choice(
            (
                self.register,
                self.register,
                self.unregister,
                lambda: self.track("start", self.worker.start()),
                lambda: self.track("start", self.worker.start()),
                lambda: self.track("stop", self.worker.stop(self.random.choice((0, 3, None)))),
                self.cancel,
            )
        )()

    def register(self) -> None:
        free = [name for name in FUNCTIONS if name not in self.registered]
        if free:
            name = self.random.choice(free)
            self.registered.add(name)
            self.worker.register(
                name,
                self.function,
                concurrency=self.random.choice((None, 1)),
                time_limit=self.random.choice((None, 2)),
            )

    def unregister(self) -> None:
        if self.registered:
            name = self.random.choice(sorted(self.registered))
            self.registered.remove(name)
            self.worker.unregister(name)

    # -- what servers and networks do -----------------------------------------------------------

    def answer(self, server: PlayedServer) -> None:
        for name, *fields in server.heard():
            if name.startswith("GRAB_JOB"):
                self.give(server) if self.random.random() < 0.6 else server.say(NO_JOB)
            elif name == "ECHO_REQ":
                server.say(ECHO_RES, *fields)
            elif name == "OPTION_REQ":
                server.say(OPTION_RES, *fields)

    def give(self, server: PlayedServer) -> None:
        number, between = self.random.choice(
            (
                (JOB_ASSIGN, ()),
                (JOB_ASSIGN_UNIQ, (b"u",)),
                (JOB_ASSIGN_ALL, (b"u", b"")),
                (JOB_ASSIGN_EXTENDED, (b"u", b"", b"")),
                (JOB_ASSIGN_EXTENDED, (b"u", b"", b"attempt=2\nheartbeat=3")),
            )
        )
        handle = self.random.choice((b"H:1", b"H:2"))
        server.say(number, handle, self.random.choice(FUNCTIONS).encode(), *between, b"data")

    def say_anything(self, server: PlayedServer) -> None:
        self.random.choice(
            (
                lambda: self.give(server),
                lambda: server.say(NO_JOB),
                lambda: server.say(NOOP),
                lambda: server.say(NOOP),
                lambda: server.say(ERROR, b"JOB_NOT_FOUND", b"text"),
                lambda: server.say(JOB_CREATED, b"H:1"),
                lambda: server.send(b"\0RES\xff\xff\xff\xff\0\0\0\0"),
            )
        )()

    def happen(self) -> None:
        chance = self.random.random()
        if chance < 0.25:
            self.act()
        elif chance < 0.55:
            self.with_a_server(self.answer)
        elif chance < 0.65:
            self.with_a_server(self.say_anything)
        elif chance < 0.75:
            if self.running:
                waiting = self.running.pop(self.random.randrange(len(self.running)))
                if not waiting.called:
                    waiting.callback(b"r")
        else:
            self.disturb()
        self.hang_up()

    # -- the whole ------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Let it happen; returns what is wrong in the end."""
        for _ in range(STEPS):
            self.happen()
        self.track("stop", self.worker.stop(0))
        for _ in range(50):
            for waiting in self.running:
                if not waiting.called:
                    waiting.callback(b"r")
            self.hang_up()
            if not self.worker.running:
                continue
            # A function or a hook that ended has started it again.
            self.track("stop", self.worker.stop(0))
        self.lose_all()
        wrong = self.left()
        wrong += [
            f"{name} failed with {results[0]}"
            for name, _, results in self.asked
            if name == "stop" and results and results[0] is not None and not results[0].check(CANCELLED)
        ]
        free = self.worker._config.limits[0].free_slots
        if free != self.concurrency:
            wrong.append(f"{free} of {self.concurrency} slots are free")
        return wrong


CANCELLED = "twisted.internet.defer.CancelledError"


class HistoriesTests(SynchronousTestCase):
    def test_it_comes_to_its_end_with_all_slots_free(self) -> None:
        for seed in range(HISTORIES):
            self.assertEqual(History(seed).run(), [], f"history {seed}")
            self.flushLoggedErrors(Expected, FailJob, Retry, Reject, TypeError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
