"""Handlers of signals that raise while a client's events are processed, as that of Ctrl-C: nothing is lost.

Python runs a handler when a function begins and behind each call, so the tests raise at each of these places
in turn.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman import blocking as gearman
from txgearman.blocking.event_queue import MAX_QUEUED_BYTES, EventQueue
from txgearman.blocking.status_requests import StatusRequests
from txgearman.blocking.submission import SHUTTING_DOWN, PendingRequests, Submission
from txgearman.client import JobStatus


class Interrupted(BaseException):
    """What a handler has raised."""


def interrupt(function: Callable[[], object], place: int) -> bool:
    """Call `function`, and raise at one of the places. Returns whether it has so many."""
    left = place

    def profile(frame: types.FrameType, event: str, _argument: object) -> None:
        nonlocal left
        module = frame.f_globals["__name__"]
        if event not in ("call", "return", "c_return") or not module.startswith("txgearman.blocking"):
            return
        left -= 1
        if left == 0:
            sys.setprofile(None)
            raise Interrupted

    sys.setprofile(profile)
    try:
        function()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


class Queue(SynchronousTestCase):
    def test_an_interrupted_event_is_processed_again(self) -> None:
        place = 1
        while True:
            processed: list[str] = []
            queue = EventQueue()
            queue.offer(lambda: processed.append("first"), 100)  # noqa: B023
            queue.put(lambda: processed.append("second"))  # noqa: B023
            was_interrupted = interrupt(queue.process_all, place)
            queue.process_all()
            self.assertEqual(list(dict.fromkeys(processed)), ["first", "second"], f"at place {place}")
            self.assertLessEqual(len(processed), 3)
            if not was_interrupted:
                break
            place += 1
        self.assertGreater(place, 10)

    def test_it_gets_no_third_chance(self) -> None:
        calls: list[int] = []

        def raising() -> None:
            calls.append(1)
            raise LookupError

        queue = EventQueue()
        queue.offer(raising, MAX_QUEUED_BYTES // 2)
        for _ in range(2):
            with self.assertRaises(LookupError):
                queue.process_all()
        queue.process_all()
        self.assertEqual(len(calls), 2)
        self.assertIs(queue.offer(raising, MAX_QUEUED_BYTES - 1000), True, "its room is free again")

    def test_others_are_woken(self) -> None:
        """One of them may wait for what was put back."""
        queue = EventQueue()

        def raising() -> None:
            raise LookupError

        queue.put(raising)
        before = queue.changes
        with self.assertRaises(LookupError):
            queue.process_all()
        self.assertGreater(queue.changes, before)


class Requests(SynchronousTestCase):
    """What a job's news make of its request, wherever they were interrupted."""

    def setUp(self) -> None:
        self.servers = [gearman.GearmanConnection("a"), gearman.GearmanConnection("b")]

    def submission(self, background: bool = False, servers: int = 1) -> None:
        """A request that was submitted to the first server."""
        self.queue, self.pending = EventQueue(), PendingRequests()
        self.reported: list[tuple[str, str]] = []
        job = gearman.GearmanJob(self.servers[0], None, "task", "unique", "data")
        self.request = gearman.GearmanJobRequest(job, background=background)
        self.request.connection_attempts = 1
        self.request.state = gearman.JOB_PENDING
        loan: Any = types.SimpleNamespace(taken=False, offer_soon=lambda: None)
        thread: Any = types.SimpleNamespace(loan=loan)
        client: Any = types.SimpleNamespace(
            connection_list=self.servers[:servers],
            decode_data=bytes.decode,
            on_gearman_error=lambda code, text: self.reported.append((code, text)),
            _event_queue=self.queue,
            _pending=self.pending,
        )
        self.request._submission = self.submitted = Submission(self.request, self.servers[0], thread, client)

    def at_each_place(self, submit: Callable[[], None], check: Callable[[], None]) -> None:
        place = 1
        while True:
            submit()
            was_interrupted = interrupt(self.queue.process_all, place)
            self.queue.process_all()
            check()
            if not was_interrupted:
                break
            place += 1
        self.assertGreater(place, 10)

    def test_completed(self) -> None:
        def submit() -> None:
            self.submission()
            self.submitted.accepted(b"H:1")
            self.submitted.status(1, 2)
            self.submitted.completed(b"result")

        def check() -> None:
            self.assertEqual((self.request.state, self.request.result), (gearman.JOB_COMPLETE, "result"))
            self.assertEqual((self.request.job.handle, self.request.status["denominator"]), ("H:1", 2))
            self.assertEqual(self.pending.waiting, {})

        self.at_each_place(submit, check)

    def test_failed(self) -> None:
        def submit() -> None:
            self.submission()
            self.submitted.accepted(b"H:1")
            self.submitted.failed(b"why")

        def check() -> None:
            self.assertEqual((self.request.state, self.request.exception), (gearman.JOB_FAILED, "why"))
            self.assertEqual(self.pending.waiting, {})

        self.at_each_place(submit, check)

    def test_data(self) -> None:
        def submit() -> None:
            self.submission()
            self.submitted.accepted(b"H:1")
            self.submitted.data(b"part")
            self.submitted.completed(b"")

        def check() -> None:
            self.assertEqual(set(self.request.data_updates), {"part"})
            self.assertLessEqual(len(self.request.data_updates), 2)

        self.at_each_place(submit, check)

    def test_refused(self) -> None:
        def submit() -> None:
            self.submission(background=True)
            self.submitted.refused("CODE", "text")

        def check() -> None:
            self.assertEqual((self.request.state, self.request.exception), (gearman.JOB_FAILED, "CODE: text"))
            self.assertEqual(self.reported, [("CODE", "text")])

        self.at_each_place(submit, check)

    def test_declined(self) -> None:
        def submit() -> None:
            self.submission(background=True, servers=2)
            self.submitted.refused(SHUTTING_DOWN, "text")

        def check() -> None:
            self.assertEqual((self.request.state, self.request.connection_attempts), (gearman.JOB_UNKNOWN, 0))
            self.assertEqual(list(self.request._declined_by), self.servers[:1])

        self.at_each_place(submit, check)

    def test_lost(self) -> None:
        def submit() -> None:
            self.submission()
            self.submitted.lost("why", sent=False)

        def check() -> None:
            self.assertEqual((self.request.state, self.request.connection_attempts), (gearman.JOB_UNKNOWN, 0))

        self.at_each_place(submit, check)

    def test_status(self) -> None:
        answers: list[Callable[[JobStatus], None]] = []
        self.patch(
            self.servers[0], "request_status", lambda _handle, received, _failed: answers.append(received)
        )

        def submit() -> None:
            self.submission()
            self.request.job.handle = "H:1"
            StatusRequests(self.queue, self.pending).ask(self.request)
            answers.pop()(JobStatus(True, True, 1, 2))

        def check() -> None:
            self.assertFalse(self.request._pending_status_requests)
            self.assertEqual(self.request.status["denominator"], 2)

        self.at_each_place(submit, check)
