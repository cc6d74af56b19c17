"""Buffering a job's updates until they are taken, and no more of them than is allowed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import recorder
from txgearman.client import updates
from txgearman.client.updates import DataUpdate, StatusUpdate, UpdateStream, WarningUpdate
from txgearman.errors import UpdatesLost

ROOM = 1000
LARGEST = ROOM - updates.UPDATE_OVERHEAD


class UpdateStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(updates, "KEPT_BYTES", ROOM)
        self.stream = UpdateStream()

    def next(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(anext(self.stream))  # type: ignore[arg-type]

    def test_what_fills_the_room_is_kept(self) -> None:
        self.stream.add(DataUpdate(bytes(LARGEST)))
        self.assertEqual(self.successResultOf(self.next()), DataUpdate(bytes(LARGEST)))

    def test_taking_makes_room(self) -> None:
        for _ in range(3):
            self.stream.add(WarningUpdate(bytes(LARGEST)))
            self.successResultOf(self.next())

    def test_a_callback_makes_room_and_needs_none(self) -> None:
        taken: list[Any] = []
        self.stream.add(StatusUpdate(0, 1))
        self.stream.add(DataUpdate(bytes(LARGEST - updates.UPDATE_OVERHEAD)))
        self.stream.listen(DataUpdate, recorder(taken))
        self.stream.add(DataUpdate(bytes(10 * ROOM)))
        self.stream.add(WarningUpdate(bytes(LARGEST - updates.UPDATE_OVERHEAD)))
        self.assertEqual(
            [len(update.data) for update in taken], [LARGEST - updates.UPDATE_OVERHEAD, 10 * ROOM]
        )
        self.assertEqual(self.successResultOf(self.next()), StatusUpdate(0, 1))
        self.successResultOf(self.next())

    def test_past_the_room_the_reader_is_told_that_it_lost_something(self) -> None:
        self.stream.add(StatusUpdate(1, 3))
        self.stream.add(DataUpdate(bytes(LARGEST)))
        self.stream.add(StatusUpdate(3, 3))
        self.stream.finish(None)
        self.assertEqual(self.successResultOf(self.next()), StatusUpdate(1, 3))
        for _ in range(2):
            self.failureResultOf(self.next(), UpdatesLost)

    def test_small_updates_are_limited_too(self) -> None:
        for _ in range(ROOM):
            self.stream.add(StatusUpdate(1, 3))
        for _ in range(ROOM // updates.UPDATE_OVERHEAD):
            self.successResultOf(self.next())
        self.failureResultOf(self.next(), UpdatesLost)

    def test_one_reader_waits_at_a_time(self) -> None:
        first = self.next()
        self.failureResultOf(self.next(), RuntimeError)
        self.stream.add(StatusUpdate(1, 3))
        self.assertEqual(self.successResultOf(first), StatusUpdate(1, 3))

    def test_the_end_stays_the_end(self) -> None:
        waiting = self.next()
        self.stream.finish(None)
        self.failureResultOf(waiting, StopAsyncIteration)
        self.failureResultOf(self.next(), StopAsyncIteration)

    def test_a_callback_that_raises_is_logged_and_hinders_no_other(self) -> None:
        taken: list[Any] = []

        def broken(update: object) -> None:
            raise LookupError("my own fault")

        self.stream.listen(StatusUpdate, broken)
        self.stream.listen(StatusUpdate, recorder(taken))
        self.stream.add(StatusUpdate(1, 3))
        self.assertEqual(taken, [StatusUpdate(1, 3)])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
