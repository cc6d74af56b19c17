"""Any mixture of requests, answers, cancellations and time-outs: each asker is answered once, and rightly."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint, packet
from tests.wire.effort import EFFORT
from txgearman.client import Client, Job
from txgearman.errors import ConnectionLost, JobFailed, ServerError, TimedOut
from txgearman.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    OPTION_RES,
    STATUS_RES,
    WORK_COMPLETE,
    WORK_FAIL,
)

STEPS = (
    # Submissions and answers more often than the rest, so that jobs are under way.
    *("submit", "answer") * 4,
    *("offline", "echo", "status", "refuse", "cancel", "wait", "complete", "fail"),
)
LIMIT = 3.5


@dataclass(eq=False)
class Asked:
    """One request of the test, what came of it, and what was given as its answer."""

    kind: str
    key: bytes
    outcomes: list[Any] = field(default_factory=list)
    expected: Any = None


class MatchingTests(SynchronousTestCase):
    @EFFORT
    @given(
        steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=20, max_size=80),
        piece=st.integers(1, 40),
        handles=st.integers(1, 3),
    )
    def test_each_is_answered_once(self, steps: list[tuple[str, int]], piece: int, handles: int) -> None:
        run = Run(piece, handles)
        for step, number in steps:
            run.step(step, number)
        run.server.lose()
        run.client.close()
        for asked in run.all:
            self.assertEqual(len(asked.outcomes), 1, asked)
            (outcome,) = asked.outcomes
            if asked.expected is None:
                self.assertIsInstance(outcome, ConnectionLost, asked)
            elif isinstance(asked.expected, type):
                self.assertIsInstance(outcome, asked.expected, asked)
            else:
                self.assertEqual(outcome, asked.expected, asked)
        self.assertEqual(run.clock.getDelayedCalls(), [])


class Run:
    """A client, and a server that answers in order, in pieces of `piece` bytes.

    With few `handles` many jobs share one. As gearmand does, the server then tells the end of them once
    for each, also for those whose submission was cancelled.
    """

    def __init__(self, piece: int, handles: int) -> None:
        self.clock = Clock()
        endpoint = PlayedEndpoint()
        self.client = Client(self.clock, endpoint, check_interval=None)
        self.client.connect()
        self.server = endpoint.server
        self.all: list[Asked] = []
        self._piece = piece
        self._handles = handles
        self._unanswered: deque[Asked] = deque()
        self._deferreds: dict[Asked, Deferred[Any]] = {}
        self._results: dict[bytes, list[Asked]] = {}
        self._copies: Counter[bytes] = Counter()
        self._say(packet(OPTION_RES, b"exceptions"))

    def step(self, step: str, number: int) -> None:
        if step in ("submit", "offline", "echo", "status"):
            self._ask(step, number)
        elif step == "answer" and self._unanswered:
            self._answer(self._unanswered.popleft(), number)
        elif step == "refuse" and self._unanswered:
            asked = self._unanswered.popleft()
            self._expect(asked, ServerError)
            self._say(packet(ERROR, b"QUEUE_ERROR", b"full"))
        elif step == "cancel" and self._deferreds:
            asked = list(self._deferreds)[number % len(self._deferreds)]
            self._expect(asked, CancelledError)
            self._deferreds[asked].cancel()
        elif step == "wait":
            # In whole seconds, so that no time-out is due in the same instant as a step.
            self.clock.advance(1)
        elif step in ("complete", "fail"):
            self._end(step, b"H:%d" % (number % self._handles))

    def _ask(self, kind: str, number: int) -> None:
        asked = Asked(kind, b"%d" % len(self.all))
        timeout = LIMIT if number % 2 else None
        requests: dict[str, Any] = {
            "submit": lambda: self.client.submit("f", asked.key, timeout=timeout),
            "offline": lambda: self.client.submit("f", asked.key, background=True, timeout=timeout),
            "echo": lambda: self.client.echo(asked.key, timeout=timeout),
            "status": lambda: self.client.status(asked.key, timeout=timeout),
        }
        self._unanswered.append(asked)
        self._record(asked, requests[kind]())

    def _record(self, asked: Asked, deferred: Deferred[Any]) -> None:
        self.all.append(asked)
        self._deferreds[asked] = deferred

        def keep(outcome: Any) -> None:
            self._deferreds.pop(asked, None)
            if isinstance(outcome, Failure):
                outcome = outcome.value
                if isinstance(outcome, TimedOut):
                    self._expect(asked, TimedOut)
            elif asked.kind in ("submit", "offline"):
                outcome = self._accepted(asked, outcome)
            elif asked.kind == "status":
                outcome = outcome.numerator
            asked.outcomes.append(outcome)

        deferred.addBoth(keep)

    def _accepted(self, asked: Asked, job: Job) -> bytes:
        if asked.kind == "submit":
            result = Asked("result", job.handle)
            self._results.setdefault(job.handle, []).append(result)
            self._record(result, job.result())
        return job.handle

    def _expect(self, asked: Asked, expected: Any) -> None:
        """What is expected first counts; what comes later is ignored by the client."""
        if asked.expected is None:
            asked.expected = expected

    def _answer(self, asked: Asked, number: int) -> None:
        if asked.kind == "echo":
            self._expect(asked, asked.key)
            self._say(packet(ECHO_RES, asked.key))
        elif asked.kind == "status":
            self._expect(asked, int(asked.key))
            self._say(packet(STATUS_RES, asked.key, b"1", b"1", asked.key, b"0"))
        else:
            handle = b"H:%d" % (number % self._handles)
            self._expect(asked, handle)
            if asked.kind == "submit":
                self._copies[handle] += 1
            self._say(packet(JOB_CREATED, handle))

    def _end(self, step: str, handle: bytes) -> None:
        result = b"result %d" % len(self.all)
        for asked in self._results.pop(handle, ()):
            self._expect(asked, JobFailed if step == "fail" else result)
        end = packet(WORK_FAIL, handle) if step == "fail" else packet(WORK_COMPLETE, handle, result)
        self._say(end * self._copies.pop(handle, 1))

    def _say(self, data: bytes) -> None:
        for start in range(0, len(data), self._piece):
            self.server.send(data[start : start + self._piece])
