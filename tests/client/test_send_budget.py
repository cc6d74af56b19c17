"""The send budget: when it allows more submissions, and that waiting for it keeps memory within its limit."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from tests.client.played import PlayedClientTestCase
from txgearman.client import Client
from txgearman.client.send_budget import REQUEST_OVERHEAD, SendBudget
from txgearman.errors import ConnectionLost, NotConnected, TimedOut
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import ERROR, JOB_CREATED

BODY = len(b"f\0\0data")
COST = BODY + REQUEST_OVERHEAD
"""What a submission of ``f`` with ``data`` counts."""


class SendBudgetTests(SynchronousTestCase):
    def test_it_is_available_up_to_the_limit_and_again_at_half_of_it(self) -> None:
        budget = SendBudget(4 * REQUEST_OVERHEAD)
        for _ in range(4):
            self.successResultOf(budget.available())
            budget.charge(0)
        waiting = budget.available()
        budget.release(0)
        self.assertNoResult(waiting)
        self.assertNoResult(budget.available())
        budget.release(0)
        self.successResultOf(waiting)
        self.successResultOf(budget.available())

    def test_who_came_first_goes_first_and_no_more_than_the_budget_allows(self) -> None:
        budget = SendBudget(2 * REQUEST_OVERHEAD)
        budget.charge(REQUEST_OVERHEAD)
        went = []
        for number in range(5):

            def go(_: None, number: int = number) -> None:
                went.append(number)
                budget.charge(0)

            budget.available().addCallback(go)
        budget.release(REQUEST_OVERHEAD)
        self.assertEqual(went, [0, 1])
        budget.release(0)
        self.assertEqual(went, [0, 1, 2])

    def test_to_cancel_ends_the_own_waiting_only(self) -> None:
        budget = SendBudget(1)
        budget.charge(0)
        first, second = budget.available(), budget.available()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        budget.release(0)
        self.successResultOf(second)

    def test_the_end_of_all_requests(self) -> None:
        budget = SendBudget(1000)
        self.successResultOf(budget.all_answered())
        budget.charge(1)
        budget.charge(2)
        given_up, end = budget.all_answered(), budget.all_answered()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        budget.release(1)
        self.assertNoResult(end)
        budget.release(2)
        self.successResultOf(end)

    def test_what_waits_counts_until_it_need_not(self) -> None:
        budget = SendBudget(1000)
        waited: Deferred[int] = Deferred()
        held = budget.charged_until(5, waited)
        self.assertEqual(budget.outstanding, 5 + REQUEST_OVERHEAD)
        waited.callback(7)
        self.assertEqual((self.successResultOf(held), budget.outstanding), (7, 0))
        held = budget.charged_until(5, Deferred())
        held.cancel()
        self.failureResultOf(held, CancelledError)
        self.assertEqual(budget.outstanding, 0)


class ClientBudgetTests(PlayedClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.use(self.client)

    def use(self, client: Client) -> None:
        """Limit the client to two submissions."""
        client._budget._limit = 2 * COST

    def test_answers_of_each_kind_make_room(self) -> None:
        for answer in ((JOB_CREATED, b"H:1"), (ERROR, b"QUEUE_ERROR", b"full")):
            for _ in range(2):
                self.successResultOf(self.client.room())
                self.client.submit("f", b"data", background=True).addErrback(lambda _: None)
            room = self.client.room()
            self.assertNoResult(room)
            self.server.say(*answer)
            self.successResultOf(room)
            self.server.say(*answer)
            self.assertEqual(self.client._budget.outstanding, 0)

    def test_a_wrong_answer_and_a_lost_connection_make_room_once(self) -> None:
        submitted = [self.client.submit("f", b"data") for _ in range(2)]
        asked = self.client.status(b"H:1")
        room = self.client.room()
        self.server.lose()
        for one in (*submitted, asked):
            self.failureResultOf(one, ConnectionLost)
        self.successResultOf(room)
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_what_was_given_up_counts_until_it_is_answered(self) -> None:
        submitted = [self.client.submit("f", b"data", timeout=5) for _ in range(2)]
        room = self.client.room()
        self.clock.advance(5)
        for one in submitted:
            self.failureResultOf(one, TimedOut)
        self.assertNoResult(room)
        self.server.say(JOB_CREATED, b"H:1")
        self.successResultOf(room)

    def test_what_waits_for_a_connection_counts(self) -> None:
        self.server.lose()
        self.endpoint.hold = True
        for retry in (0, 3):
            submitted = [self.client.submit("f", b"data", retry=retry) for _ in range(2)]
            room = self.client.room()
            self.assertNoResult(room)
            for one in submitted:
                one.cancel()
                self.failureResultOf(one, CancelledError)
            if not retry:
                # It is the attempt that they wait for, which goes on.
                self.assertEqual(self.client._budget.outstanding, 0)
            self.successResultOf(room)

    def test_behind_the_end_nobody_waits(self) -> None:
        submitted = [self.client.submit("f", b"data") for _ in range(2)]
        room = self.client.room()
        self.client.close()
        for one in submitted:
            self.failureResultOf(one, ConnectionLost)
        self.successResultOf(room)
        self.failureResultOf(self.client.submit("f", b"data"), NotConnected)
        self.successResultOf(self.client.room())

    def test_the_limit_is_at_least_one(self) -> None:
        self.assertRaises(ValueError, Client, self.clock, self.endpoint, max_backlog=0)


class ManyTests(SynchronousTestCase):
    def test_very_many_submissions_stay_within_the_limit(self) -> None:
        gearman = MemoryGearman()
        other = MemoryGearman(clock=gearman.clock)
        client = gearman.client(other, max_backlog=50 * COST)
        most = 0

        async def submit_all() -> None:
            nonlocal most
            submitted = []
            for _ in range(5000):
                await client.room()
                submitted.append(client.submit("f", b"data", background=True))
                most = max(most, client._budget.outstanding)
            await gatherResults(submitted)

        gearman.wait(submit_all())
        self.assertTrue(50 * COST <= most < 51 * COST, most)
        self.assertEqual(client._budget.outstanding, 0)
        gearman.wait(client.close())
