"""The time limit that is set and lifted for every request."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.web.http.deadline import Deadline


class DeadlineTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadline = Deadline(self.clock)
        self.over: list[tuple[str, float]] = []

    def set(self, seconds: float, name: str = "") -> None:
        self.deadline.set(seconds, lambda: self.over.append((name, self.clock.seconds())))

    def pass_seconds(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)

    def test_it_is_over_once(self) -> None:
        self.set(3)
        self.assertTrue(self.deadline.is_set)
        self.pass_seconds(10)
        self.assertEqual(self.over, [("", 3)])
        self.assertFalse(self.deadline.is_set)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_set_for_longer(self) -> None:
        self.set(3, "first")
        self.pass_seconds(2)
        self.set(5, "second")
        self.pass_seconds(10)
        self.assertEqual(self.over, [("second", 7)])

    def test_set_for_shorter(self) -> None:
        self.set(60, "first")
        self.set(2, "second")
        self.pass_seconds(10)
        self.assertEqual(self.over, [("second", 2)])

    def test_lifted(self) -> None:
        self.set(3)
        self.deadline.lift()
        self.assertFalse(self.deadline.is_set)
        self.pass_seconds(10)
        self.assertEqual(self.over, [])
        self.set(2)
        self.pass_seconds(10)
        self.assertEqual(self.over, [("", 12)])

    def test_setting_and_lifting_it_makes_one_timer(self) -> None:
        for _ in range(100):
            self.set(20)
            self.deadline.lift()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_closed(self) -> None:
        self.set(3)
        self.deadline.close()
        self.deadline.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_it_calls_may_set_it_again(self) -> None:
        self.deadline.set(3, lambda: self.set(2))
        self.pass_seconds(10)
        self.assertEqual(self.over, [("", 5)])
