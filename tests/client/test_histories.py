"""Random histories of a client: whatever happens, each Deferred fires once and nothing is left.

The servers mostly answer what they are asked, and now and then say anything else; connections are lost,
refused and held up, time passes, Deferreds are cancelled, and callbacks do what they like.
"""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.histories import HISTORIES, STEPS, PlayedHistory
from tests.connection.memory import PlayedServer, packet
from txgearman.client import Client, Job
from txgearman.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    NOOP,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

HANDLES = (b"H:1", b"H:2", b"H:3")


class History(PlayedHistory):
    """One client with one to three servers, and what it was asked."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, servers=(1, 1, 2, 3))
        self.client = Client(
            self.clock,
            self.endpoints,
            check_interval=self.random.choice((None, 5)),
            max_backlog=self.random.choice((1, 5000, 10**7)),
        )
        self.jobs: list[Job] = []

    # -- what the user does ---------------------------------------------------------------------

    def ask(self) -> None:
        self.random.choice(
            (
                *[self.submit] * 4,
                self.submit_many,
                self.follow,
                self.follow,
                self.cancel,
                lambda: self.track("echo", self.client.echo(b"e", self.time())),
                lambda: self.track("each", self.client.echo_each(b"e", self.time())),
                lambda: self.track("status", self.client.status(self.random.choice(HANDLES))),
                lambda: self.track("unique", self.client.status_by_unique("u", self.time())),
                lambda: self.track("room", self.client.room()),
                lambda: self.track("answered", self.client.answered()),
                lambda: self.track("connect", self.client.connect(self.time())),
                lambda: self.track("close", self.client.close()) if self.random.random() < 0.1 else None,
            )
        )()

    def time(self) -> float | None:
        return self.random.choice((None, 3))

    def submit(self) -> None:
        submitted = self.client.submit(
            "f",
            b"data",
            unique=self.random.choice((None, "u", "-")),
            background=self.random.random() < 0.3,
            retry=self.random.choice((0, 0, 1, 3)),
            timeout=self.time(),
        )

        def accepted(job: Job) -> None:
            self.jobs.append(job)
            if self.random.random() < 0.1:
                self.ask()

        self.track("submit", submitted.addCallback(accepted))

    def submit_many(self) -> None:
        count = self.random.choice((1, 3, 700))
        uniques = self.random.choice((None, ["u"] * count))
        payloads = self.random.choice((list, iter))([b"x"] * count)
        self.track("many", self.client.submit_many("f", payloads, uniques=uniques, timeout=self.time()))

    def follow(self) -> None:
        online = [job for job in self.jobs if not job.background]
        if not online:
            return
        job = self.random.choice(online)
        self.track("result", job.result(self.time()))

        async def read() -> None:
            async for _update in job.updates():
                pass

        if self.random.random() < 0.5:
            self.track("updates", Deferred.fromCoroutine(read()))
        else:
            job.on_data(lambda _: self.ask())

    # -- what servers and networks do -----------------------------------------------------------

    def answer(self, server: PlayedServer) -> None:
        for name, *fields in server.heard():
            if name.startswith("SUBMIT"):
                refused = self.random.random() < 0.2
                server.send(self.refusal() if refused else packet(JOB_CREATED, self.random.choice(HANDLES)))
            elif name == "ECHO_REQ":
                server.say(ECHO_RES, *fields)
            elif name == "OPTION_REQ":
                server.say(OPTION_RES, *fields)
            elif name == "GET_STATUS":
                server.say(STATUS_RES, *fields, b"0", b"0", b"0", b"0")
            elif name == "GET_STATUS_UNIQUE":
                server.say(STATUS_RES_UNIQUE, *fields, b"1", b"0", b"1", b"2", b"3")

    def refusal(self) -> bytes:
        return packet(ERROR, self.random.choice((b"SHUTTING_DOWN", b"QUEUE_ERROR", b"\xff")), b"text")

    def say_anything(self, server: PlayedServer) -> None:
        handle = self.random.choice(HANDLES)
        server.send(
            self.random.choice(
                (
                    *[packet(WORK_COMPLETE, handle, b"r")] * 3,
                    *[packet(WORK_DATA, handle, b"d")] * 3,
                    packet(WORK_STATUS, handle, b"1", b"x"),
                    packet(WORK_WARNING, handle, b"d"),
                    packet(WORK_FAIL, handle),
                    packet(WORK_EXCEPTION, handle, b"x"),
                    packet(JOB_CREATED, handle),
                    packet(ECHO_RES, b"e"),
                    packet(STATUS_RES, handle, b"1", b"0", b"1", b"2"),
                    packet(NOOP),
                    self.refusal(),
                    b"\0RES\xff\xff\xff\xff\0\0\0\0",
                )
            )
        )

    def happen(self) -> None:
        chance = self.random.random()
        if chance < 0.45:
            self.ask()
        elif chance < 0.7:
            self.with_a_server(self.answer)
        elif chance < 0.77:
            self.with_a_server(self.say_anything)
        else:
            self.disturb()
        self.hang_up()

    # -- the whole ------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Let it happen; returns what is wrong in the end."""
        for _ in range(STEPS):
            self.happen()
        self.track("close", self.client.close())
        self.lose_all()
        self.clock.advance(0)
        wrong = self.left()
        wrong += [f"{job} has no end" for job in self.jobs if not (job.background or job._done)]
        if self.client._budget.outstanding:
            wrong.append(f"the send budget counts {self.client._budget.outstanding} bytes")
        return wrong


class HistoriesTests(SynchronousTestCase):
    def test_each_deferred_fires_once_and_nothing_is_left(self) -> None:
        for seed in range(HISTORIES):
            self.assertEqual(History(seed).run(), [], f"history {seed}")
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
