"""Whose turn it is to ask for a job, as the rule alone: connections are played, nothing is sent."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.worker.turns import ASK_AGAIN, AT_ONCE, Limit, State, Turns, denied, given, occupy


class Played:
    """A connection whose server is played by the test: `says_none`, `gives` and `wakes`."""

    def __init__(self, turns: Turns, clock: Clock, *limits: Limit) -> None:
        self.state = State.READY
        self.limits = limits
        self.emptied_at = 0.0
        self.asked = 0
        self.in_a_row = 0
        self.asks = 0
        self.slept = 0
        self.running = 0
        self._turns = turns
        self._clock = clock
        turns.join(self)

    def ask(self) -> None:
        self.asks += 1

    def sleep(self) -> None:
        self.state = State.ASLEEP
        self.slept += 1

    def speak(self) -> None:
        """Something happened here: its turn may have come."""
        self.asks += self._turns.turn(self)

    def says_none(self) -> None:
        assert self.asked
        denied(self, self._clock.seconds())
        self.speak()

    def gives(self) -> None:
        """A job that begins to run."""
        assert self.asked
        given(self)
        self.running += 1
        self.speak()

    def ends(self) -> None:
        """A job ends."""
        self.running -= 1
        self.asks += self._turns.pass_on(self)

    def wakes(self) -> None:
        assert self.state is State.ASLEEP
        self.state = State.READY
        self.speak()


class TurnsTests(SynchronousTestCase):
    def connect(self, count: int, concurrency: int = 1) -> list[Played]:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.limit = Limit(concurrency)
        askers = [Played(self.turns, self.clock, self.limit) for _ in range(count)]
        self.turns.turn()
        return askers

    def states(self, askers: list[Played]) -> list[State]:
        return [asker.state for asker in askers]

    def test_one_at_a_time_asks_each_in_turn_and_sleeps_when_none_has_a_job(self) -> None:
        askers = self.connect(3)
        for asker in askers:
            self.assertEqual([a.state for a in askers].count(State.ASKING), 1)
            self.assertEqual([a.slept for a in askers], [0, 0, 0], "not all have said so")
            asker.says_none()
        self.assertEqual(self.states(askers), [State.ASLEEP] * 3)
        self.assertEqual([(a.asks, a.slept) for a in askers], [(1, 1)] * 3)
        self.assertEqual(self.limit.free, 1)

    def test_servers_that_have_jobs_are_served_in_turn(self) -> None:
        askers = self.connect(3)
        for _ in range(4):
            for asker in askers:
                asker.gives()
                self.assertEqual(self.limit.free, 0)
                asker.ends()
        self.assertEqual([asker.asks for asker in askers], [5, 4, 4])

    def test_as_many_as_there_is_room_for_are_asked_at_once(self) -> None:
        askers = self.connect(3, concurrency=2)
        self.assertEqual(self.states(askers), [State.ASKING, State.ASKING, State.READY])
        askers[0].gives()
        self.assertEqual(self.states(askers), [State.READY, State.ASKING, State.READY])
        askers[1].says_none()
        self.assertEqual(self.states(askers), [State.READY, State.EMPTY, State.ASKING], "the next in turn")
        askers[2].gives()
        self.assertEqual(self.limit.free, 0)
        self.assertNotIn(State.ASKING, self.states(askers))
        askers[2].ends()
        self.assertEqual(self.states(askers)[0], State.ASKING)

    def test_a_server_without_jobs_is_neither_asked_before_each_job_nor_forgotten(self) -> None:
        busy, empty = self.connect(2)
        busy.gives()
        busy.ends()
        empty.says_none()
        for _ in range(10):
            busy.gives()
            busy.ends()
        self.assertEqual((empty.asks, empty.slept), (1, 0), "it does not promise to come at once")
        busy.gives()
        self.clock.advance(ASK_AGAIN)
        busy.ends()
        self.assertEqual(empty.asks, 2)
        empty.gives()
        self.assertEqual(self.states([busy, empty]), [State.READY, State.READY])
        empty.ends()
        self.assertEqual((busy.asked, empty.asked), (1, 0), "the other's turn")

    def test_servers_that_answer_slowly_are_not_asked_for_ever(self) -> None:
        askers = self.connect(3)
        for asker in askers:
            self.clock.advance(2 * ASK_AGAIN)
            asker.says_none()
        self.assertEqual([(asker.asks, asker.slept) for asker in askers], [(1, 1)] * 3)

    def test_slow_servers_without_jobs_do_not_keep_a_slow_one_with_jobs_from_its_turn(self) -> None:
        first, second, busy = self.connect(3)
        first.says_none()
        second.says_none()
        for _ in range(5):
            busy.gives()
            busy.ends()
            for _ in range(2):
                for empty in (first, second):
                    if empty.asked:
                        self.clock.advance(2 * ASK_AGAIN)
                        empty.says_none()
            self.clock.advance(2 * ASK_AGAIN)
            self.assertEqual(busy.asked, 1)

    def test_a_woken_server_gets_its_turn_while_another_has_jobs_without_end(self) -> None:
        busy, quiet = self.connect(2)
        busy.says_none()
        quiet.says_none()
        busy.wakes()
        busy.gives()
        quiet.wakes()
        self.assertEqual(quiet.state, State.READY, "there is no room now")
        busy.ends()
        self.assertEqual((busy.state, quiet.state), (State.READY, State.ASKING))

    def test_a_worker_at_its_limit_does_not_sleep(self) -> None:
        busy, empty = self.connect(2, concurrency=2)
        busy.gives()
        empty.says_none()
        self.assertEqual(busy.state, State.ASKING)
        busy.gives()
        self.assertEqual((self.limit.free, empty.state, empty.slept), (0, State.EMPTY, 0))
        busy.ends()
        busy.says_none()
        self.assertEqual(
            self.states([busy, empty]), [State.ASLEEP, State.ASLEEP], "there is room, and no job"
        )

    def test_a_connection_that_ends_gives_back_its_place(self) -> None:
        first, second, third = self.connect(3)
        second.state = third.state = State.EMPTY
        self.turns.leave(first)
        self.assertEqual(self.limit.free, 1)
        self.turns.turn()
        self.assertEqual(self.states([second, third]), [State.ASLEEP, State.ASLEEP])

    def test_each_limit_of_a_connection_counts(self) -> None:
        (shared,) = self.connect(1, concurrency=3)
        own = Limit(1)
        narrow = Played(self.turns, self.clock, self.limit, own)
        self.turns.turn()
        narrow.gives()
        self.assertEqual((narrow.state, own.free), (State.READY, 0), "it has room for one")
        shared.says_none()
        self.assertEqual(shared.state, State.ASLEEP, "a connection without room keeps no other awake")
        narrow.ends()
        self.assertEqual(narrow.state, State.ASKING)
        self.assertEqual((own.free, self.limit.free), (0, 2))

    def test_nobody_asks_once_it_is_closed(self) -> None:
        first, second = self.connect(2, concurrency=3)
        first.gives()
        self.turns.closed = True
        second.gives()
        first.ends()
        self.assertEqual(self.states([first, second]), [State.ASKING, State.READY], "asked before")
        self.assertEqual((first.asks, second.asks), (2, 1))

    def test_a_server_that_gives_one_job_after_the_other_is_asked_for_more_at_once(self) -> None:
        (only,) = self.connect(1, concurrency=100)
        for number in range(1, 20):
            only.gives()
            self.assertEqual(only.asked, min(number, AT_ONCE))
        self.assertEqual(self.limit.free, 100 - 19 - AT_ONCE)
        for left in reversed(range(AT_ONCE)):
            self.assertEqual(only.slept, 0)
            only.says_none()
            self.assertEqual(only.asked, left)
        self.assertEqual((only.state, self.limit.free), (State.ASLEEP, 100 - 19))
        only.wakes()
        self.assertEqual(only.asked, 1, "it begins anew")

    def test_more_at_once_are_no_more_than_there_is_room_for(self) -> None:
        (only,) = self.connect(1, concurrency=3)
        for _ in range(20):
            only.gives()
            only.ends()
            self.assertEqual(self.limit.free + only.asked, 3)
        self.assertEqual(only.asked, 3)
        for _ in range(3):
            only.gives()
        self.assertEqual((only.asked, self.limit.free, only.running), (0, 0, 3))

    def test_what_a_connection_asked_for_at_once_is_given_back_when_it_ends(self) -> None:
        first, second = self.connect(2, concurrency=10)
        for _ in range(6):
            first.gives()
            first.ends()
        self.assertGreater(first.asked, 1)
        self.assertEqual(self.limit.free, 10 - first.asked - second.asked)
        self.turns.leave(first)
        self.assertEqual((first.asked, self.limit.free), (0, 9))

    def test_several_share_the_room_in_turn(self) -> None:
        first, second = self.connect(2, concurrency=4)
        for _ in range(10):
            for asker in (first, second):
                asker.gives()
                asker.ends()
        self.assertEqual((first.asked, second.asked), (2, 2))

    def test_a_job_that_was_not_asked_for_takes_a_place_too(self) -> None:
        (only,) = self.connect(1)
        only.gives()
        only.running += 1
        occupy(only)
        only.ends()
        self.assertEqual((only.state, self.limit.free), (State.READY, 0))
        only.ends()
        self.assertEqual((only.state, self.limit.free), (State.ASKING, 0))
