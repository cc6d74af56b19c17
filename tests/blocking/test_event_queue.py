"""The queue between the background thread and those who wait, and time limits."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.served import LIMIT, until
from txgearman.blocking import inbox as module
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.inbox import EVENT_OVERHEAD, Inbox


def nothing() -> None:
    """An event that does nothing."""


class Queue(SynchronousTestCase):
    def test_order(self) -> None:
        inbox, events = Inbox(), [lambda number=number: number for number in range(3)]
        for event in events:
            inbox.post(event)
        self.assertEqual([inbox.take() for _ in range(4)], [*events, None])

    def test_limit(self) -> None:
        self.patch(module, "KEPT_BYTES", 2 * EVENT_OVERHEAD + 10)
        inbox = Inbox()
        self.assertIs(inbox.offer(nothing, 10), True)
        self.assertIs(inbox.offer(nothing, 1), False)
        self.assertIs(inbox.offer(nothing, 0), True)
        inbox.post(nothing)
        inbox.take()
        self.assertIs(inbox.offer(nothing, 11), False)
        self.assertIs(inbox.offer(nothing, 10), True)

    def test_wait_for_a_change(self) -> None:
        inbox = Inbox()
        before = inbox.changes
        thread = threading.Timer(0.01, inbox.post, [nothing])
        thread.start()
        self.assertIs(inbox.wait(before, Deadline(LIMIT)), True)
        thread.join()
        self.assertIs(inbox.wait(before, Deadline(0)), True)
        self.assertIs(inbox.wait(inbox.changes, Deadline(0)), False)
        self.assertIs(inbox.wait(inbox.changes, Deadline(0.01)), False)

    def test_wait_longer_than_a_slice(self) -> None:
        self.patch(module, "WAIT_SLICE", 0.001)
        inbox = Inbox()
        self.assertIs(inbox.wait(inbox.changes, Deadline(0.01)), False)

    def test_all_who_wait_are_woken(self) -> None:
        inbox, woken = Inbox(), []
        before = inbox.changes
        threads = [
            threading.Thread(target=lambda: woken.append(inbox.wait(before, Deadline(LIMIT))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        inbox.wake()
        until(lambda: woken == [True] * 3, "all are woken")
        for thread in threads:
            thread.join()

    def test_closed(self) -> None:
        inbox = Inbox()
        before = inbox.changes
        inbox.post(nothing)
        inbox.close("gone")
        self.assertIs(inbox.wait(before, Deadline(None)), True)
        self.assertIs(inbox.take(), nothing)
        with self.assertRaisesRegex(ServerUnavailable, "gone"):
            inbox.wait(inbox.changes, Deadline(None))
        inbox.reopen()
        self.assertIs(inbox.wait(inbox.changes, Deadline(0)), False)


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
