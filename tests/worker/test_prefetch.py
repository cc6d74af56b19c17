"""Whose turn it is to grab a job, as the rule alone: connections are played, nothing is sent."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgearman.worker.prefetch import (
    MAX_PREFETCH,
    REGRAB_SECONDS,
    ConcurrencyLimit,
    Prefetcher,
    State,
    assigned,
    found_empty,
    hold_slot,
)


class Played:
    """A connection whose server is played by the test: `says_none`, `gives` and `wakes`."""

    def __init__(self, prefetcher: Prefetcher, clock: Clock, *limits: ConcurrencyLimit) -> None:
        self.state = State.READY
        self.limits = limits
        self.emptied_at = 0.0
        self.pending_grabs = 0
        self.prefetch = 0
        self.grabs = 0
        self.slept = 0
        self.running = 0
        self._prefetcher = prefetcher
        self._clock = clock
        prefetcher.join(self)

    def grab(self) -> None:
        self.grabs += 1

    def sleep(self) -> None:
        self.state = State.ASLEEP
        self.slept += 1

    def speak(self) -> None:
        """Something happened here: its turn may have come."""
        self.grabs += self._prefetcher.grab(self)

    def says_none(self) -> None:
        assert self.pending_grabs
        found_empty(self, self._clock.seconds())
        self.speak()

    def gives(self) -> None:
        """A job that begins to run."""
        assert self.pending_grabs
        assigned(self)
        self.running += 1
        self.speak()

    def ends(self) -> None:
        """A job ends."""
        self.running -= 1
        self.grabs += self._prefetcher.job_ended(self)

    def wakes(self) -> None:
        assert self.state is State.ASLEEP
        self.state = State.READY
        self.speak()


class PrefetcherTests(SynchronousTestCase):
    def connect(self, count: int, concurrency: int = 1) -> list[Played]:
        self.clock = Clock()
        self.prefetcher = Prefetcher(self.clock)
        self.limit = ConcurrencyLimit(concurrency)
        connections = [Played(self.prefetcher, self.clock, self.limit) for _ in range(count)]
        self.prefetcher.grab()
        return connections

    def states(self, connections: list[Played]) -> list[State]:
        return [connection.state for connection in connections]

    def test_one_at_a_time_grabs_from_each_in_turn_and_sleeps_when_none_has_a_job(self) -> None:
        connections = self.connect(3)
        for connection in connections:
            self.assertEqual([a.state for a in connections].count(State.GRABBING), 1)
            self.assertEqual([a.slept for a in connections], [0, 0, 0], "not all have said so")
            connection.says_none()
        self.assertEqual(self.states(connections), [State.ASLEEP] * 3)
        self.assertEqual([(a.grabs, a.slept) for a in connections], [(1, 1)] * 3)
        self.assertEqual(self.limit.free_slots, 1)

    def test_servers_that_have_jobs_are_served_in_turn(self) -> None:
        connections = self.connect(3)
        for _ in range(4):
            for connection in connections:
                connection.gives()
                self.assertEqual(self.limit.free_slots, 0)
                connection.ends()
        self.assertEqual([connection.grabs for connection in connections], [5, 4, 4])

    def test_there_are_as_many_grabs_as_free_slots(self) -> None:
        connections = self.connect(3, concurrency=2)
        self.assertEqual(self.states(connections), [State.GRABBING, State.GRABBING, State.READY])
        connections[0].gives()
        self.assertEqual(self.states(connections), [State.READY, State.GRABBING, State.READY])
        connections[1].says_none()
        self.assertEqual(
            self.states(connections), [State.READY, State.EMPTY, State.GRABBING], "the next in turn"
        )
        connections[2].gives()
        self.assertEqual(self.limit.free_slots, 0)
        self.assertNotIn(State.GRABBING, self.states(connections))
        connections[2].ends()
        self.assertEqual(self.states(connections)[0], State.GRABBING)

    def test_a_server_without_jobs_is_neither_asked_before_each_job_nor_forgotten(self) -> None:
        busy, empty = self.connect(2)
        busy.gives()
        busy.ends()
        empty.says_none()
        for _ in range(10):
            busy.gives()
            busy.ends()
        self.assertEqual((empty.grabs, empty.slept), (1, 0), "it does not promise to come at once")
        busy.gives()
        self.clock.advance(REGRAB_SECONDS)
        busy.ends()
        self.assertEqual(empty.grabs, 2)
        empty.gives()
        self.assertEqual(self.states([busy, empty]), [State.READY, State.READY])
        empty.ends()
        self.assertEqual((busy.pending_grabs, empty.pending_grabs), (1, 0), "the other's turn")

    def test_servers_that_answer_slowly_are_not_asked_for_ever(self) -> None:
        connections = self.connect(3)
        for connection in connections:
            self.clock.advance(2 * REGRAB_SECONDS)
            connection.says_none()
        self.assertEqual([(connection.grabs, connection.slept) for connection in connections], [(1, 1)] * 3)

    def test_slow_servers_without_jobs_do_not_keep_a_slow_one_with_jobs_from_its_turn(self) -> None:
        first, second, busy = self.connect(3)
        first.says_none()
        second.says_none()
        for _ in range(5):
            busy.gives()
            busy.ends()
            for _ in range(2):
                for empty in (first, second):
                    if empty.pending_grabs:
                        self.clock.advance(2 * REGRAB_SECONDS)
                        empty.says_none()
            self.clock.advance(2 * REGRAB_SECONDS)
            self.assertEqual(busy.pending_grabs, 1)

    def test_a_woken_server_gets_its_turn_while_another_has_jobs_without_end(self) -> None:
        busy, quiet = self.connect(2)
        busy.says_none()
        quiet.says_none()
        busy.wakes()
        busy.gives()
        quiet.wakes()
        self.assertEqual(quiet.state, State.READY, "there is no free slot now")
        busy.ends()
        self.assertEqual((busy.state, quiet.state), (State.READY, State.GRABBING))

    def test_a_worker_at_its_limit_does_not_sleep(self) -> None:
        busy, empty = self.connect(2, concurrency=2)
        busy.gives()
        empty.says_none()
        self.assertEqual(busy.state, State.GRABBING)
        busy.gives()
        self.assertEqual((self.limit.free_slots, empty.state, empty.slept), (0, State.EMPTY, 0))
        busy.ends()
        busy.says_none()
        self.assertEqual(
            self.states([busy, empty]), [State.ASLEEP, State.ASLEEP], "there is room, and no job"
        )

    def test_a_connection_that_ends_gives_back_its_slot(self) -> None:
        first, second, third = self.connect(3)
        second.state = third.state = State.EMPTY
        self.prefetcher.leave(first)
        self.assertEqual(self.limit.free_slots, 1)
        self.prefetcher.grab()
        self.assertEqual(self.states([second, third]), [State.ASLEEP, State.ASLEEP])

    def test_each_limit_of_a_connection_counts(self) -> None:
        (shared,) = self.connect(1, concurrency=3)
        own = ConcurrencyLimit(1)
        narrow = Played(self.prefetcher, self.clock, self.limit, own)
        self.prefetcher.grab()
        narrow.gives()
        self.assertEqual((narrow.state, own.free_slots), (State.READY, 0), "it has room for one")
        shared.says_none()
        self.assertEqual(shared.state, State.ASLEEP, "a connection without room keeps no other awake")
        narrow.ends()
        self.assertEqual(narrow.state, State.GRABBING)
        self.assertEqual((own.free_slots, self.limit.free_slots), (0, 2))

    def test_nobody_grabs_once_it_is_closed(self) -> None:
        first, second = self.connect(2, concurrency=3)
        first.gives()
        self.prefetcher.closed = True
        second.gives()
        first.ends()
        self.assertEqual(self.states([first, second]), [State.GRABBING, State.READY], "asked before")
        self.assertEqual((first.grabs, second.grabs), (2, 1))

    def test_it_prefetches_from_a_server_that_gives_one_job_after_the_other(self) -> None:
        (only,) = self.connect(1, concurrency=100)
        for number in range(1, 20):
            only.gives()
            self.assertEqual(only.pending_grabs, min(number, MAX_PREFETCH))
        self.assertEqual(self.limit.free_slots, 100 - 19 - MAX_PREFETCH)
        for left in reversed(range(MAX_PREFETCH)):
            self.assertEqual(only.slept, 0)
            only.says_none()
            self.assertEqual(only.pending_grabs, left)
        self.assertEqual((only.state, self.limit.free_slots), (State.ASLEEP, 100 - 19))
        only.wakes()
        self.assertEqual(only.pending_grabs, 1, "it begins anew")

    def test_it_prefetches_no_more_than_there_are_free_slots(self) -> None:
        (only,) = self.connect(1, concurrency=3)
        for _ in range(20):
            only.gives()
            only.ends()
            self.assertEqual(self.limit.free_slots + only.pending_grabs, 3)
        self.assertEqual(only.pending_grabs, 3)
        for _ in range(3):
            only.gives()
        self.assertEqual((only.pending_grabs, self.limit.free_slots, only.running), (0, 0, 3))

    def test_the_slots_of_what_was_prefetched_are_given_back_when_the_connection_ends(self) -> None:
        first, second = self.connect(2, concurrency=10)
        for _ in range(6):
            first.gives()
            first.ends()
        self.assertGreater(first.pending_grabs, 1)
        self.assertEqual(self.limit.free_slots, 10 - first.pending_grabs - second.pending_grabs)
        self.prefetcher.leave(first)
        self.assertEqual((first.pending_grabs, self.limit.free_slots), (0, 9))

    def test_several_share_the_slots_in_turn(self) -> None:
        first, second = self.connect(2, concurrency=4)
        for _ in range(10):
            for connection in (first, second):
                connection.gives()
                connection.ends()
        self.assertEqual((first.pending_grabs, second.pending_grabs), (2, 2))

    def test_a_job_that_was_not_grabbed_holds_a_slot_too(self) -> None:
        (only,) = self.connect(1)
        only.gives()
        only.running += 1
        hold_slot(only)
        only.ends()
        self.assertEqual((only.state, self.limit.free_slots), (State.READY, 0))
        only.ends()
        self.assertEqual((only.state, self.limit.free_slots), (State.GRABBING, 0))
