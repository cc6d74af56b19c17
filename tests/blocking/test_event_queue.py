"""The queue between the background thread and those who wait, and time limits."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, until
from txgearman.blocking import event_queue as module
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.event_queue import EVENT_OVERHEAD, EventQueue


def nothing() -> None:
    """An event that does nothing."""


class Queue(SynchronousTestCase):
    def test_order(self) -> None:
        event_queue, events = EventQueue(), [lambda number=number: number for number in range(3)]
        for event in events:
            event_queue.put(event)
        self.assertEqual([event_queue.take() for _ in range(4)], [*events, None])

    def test_limit(self) -> None:
        self.patch(module, "MAX_QUEUED_BYTES", 2 * EVENT_OVERHEAD + 10)
        event_queue = EventQueue()
        self.assertIs(event_queue.offer(nothing, 10), True)
        self.assertIs(event_queue.offer(nothing, 1), False)
        self.assertIs(event_queue.offer(nothing, 0), True)
        event_queue.put(nothing)
        event_queue.take()
        self.assertIs(event_queue.offer(nothing, 11), False)
        self.assertIs(event_queue.offer(nothing, 10), True)

    def test_wait_for_a_change(self) -> None:
        event_queue = EventQueue()
        before = event_queue.changes
        thread = threading.Timer(0.01, event_queue.put, [nothing])
        thread.start()
        self.assertIs(event_queue.wait(before, Deadline(LIMIT)), True)
        thread.join()
        self.assertIs(event_queue.wait(before, Deadline(0)), True)
        self.assertIs(event_queue.wait(event_queue.changes, Deadline(0)), False)
        self.assertIs(event_queue.wait(event_queue.changes, Deadline(0.01)), False)

    def test_wait_longer_than_a_slice(self) -> None:
        self.patch(module, "WAIT_SLICE_SECONDS", 0.001)
        event_queue = EventQueue()
        self.assertIs(event_queue.wait(event_queue.changes, Deadline(0.01)), False)

    def test_all_who_wait_are_woken(self) -> None:
        event_queue, woken = EventQueue(), []
        before = event_queue.changes
        threads = [
            threading.Thread(target=lambda: woken.append(event_queue.wait(before, Deadline(LIMIT))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        event_queue.wake()
        until(lambda: woken == [True] * 3, "all are woken")
        for thread in threads:
            thread.join()

    def test_closed(self) -> None:
        event_queue = EventQueue()
        before = event_queue.changes
        event_queue.put(nothing)
        event_queue.close("gone")
        self.assertIs(event_queue.wait(before, Deadline(None)), True)
        self.assertIs(event_queue.take(), nothing)
        with self.assertRaisesRegex(ServerUnavailable, "gone"):
            event_queue.wait(event_queue.changes, Deadline(None))
        event_queue.reopen()
        self.assertIs(event_queue.wait(event_queue.changes, Deadline(0)), False)


class Deadlines(SynchronousTestCase):
    def test_none(self) -> None:
        deadline = Deadline(None)
        self.assertIsNone(deadline.remaining())
        self.assertIs(deadline.over, False)
        self.assertEqual(deadline.within(5), 5)

    def test_over(self) -> None:
        for seconds in (0, -1):
            deadline = Deadline(seconds)
            self.assertEqual(deadline.remaining(), 0.0)
            self.assertIs(deadline.over, True)
            self.assertEqual(deadline.within(5), 0.0)

    def test_within(self) -> None:
        deadline = Deadline(100)
        self.assertEqual(deadline.within(5), 5)
        self.assertTrue(99 < deadline.within(1000) <= 100)
