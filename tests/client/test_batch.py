"""Submitting many offline jobs by one call: what is sent when, and what is told of each job."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.trial.unittest import SynchronousTestCase

from tests.client.played import PlayedClientTestCase
from tests.client.several import BACKOFF, SeveralServersTestCase
from tests.connection.memory import packet
from txgearman.client import Client, Priority
from txgearman.client.batch import CHUNK_BYTES
from txgearman.client.failover import CONNECT_PATIENCE
from txgearman.client.send_budget import REQUEST_OVERHEAD
from txgearman.errors import ConnectionLost, NotAllAccepted, NotConnected, ServerError, TimedOut
from txgearman.server import Settings
from txgearman.testing import MemoryGearman
from txgearman.wire.packets import ECHO_RES, ERROR, JOB_CREATED, OPTION_RES, WORK_COMPLETE

COST = len(b"f\0\0x") + REQUEST_OVERHEAD
"""What a job of ``f`` with one byte counts."""

IN_A_CHUNK = -(-CHUNK_BYTES // COST)
"""How many such jobs are sent in one turn."""

FULL = packet(ERROR, b"QUEUE_ERROR", b"Job queue is full")


def accepted(*numbers: int) -> bytes:
    """JOB_CREATED for each number."""
    return b"".join(packet(JOB_CREATED, b"H:%d" % number) for number in numbers)


def handles(count: int) -> list[bytes]:
    return [b"H:%d" % number for number in range(count)]


class OneServerTests(PlayedClientTestCase):
    def failed(self, batch: Deferred[Any]) -> NotAllAccepted:
        error = self.failureResultOf(batch, NotAllAccepted).value
        assert isinstance(error, NotAllAccepted)
        return error

    def test_the_handles_in_the_order_of_the_payloads(self) -> None:
        batch = self.client.submit_many("f", [b"a", b"bc", b"", b"a"])
        payloads = [b"a", b"bc", b"", b"a"]
        self.assertEqual(self.server.heard(), [("SUBMIT_JOB_BG", b"f", b"", data) for data in payloads])
        self.server.send(accepted(0, 1, 2))
        self.assertNoResult(batch)
        self.server.send(accepted(3))
        self.assertEqual(self.successResultOf(batch), handles(4))
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_answers_in_any_pieces(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 3)
        answers = accepted(0) + FULL + accepted(2)
        for index in range(len(answers)):
            self.assertNoResult(batch)
            self.server.send(answers[index : index + 1])
        error = self.failed(batch)
        self.assertEqual((error.taken, error.handles, list(error.errors)), (3, [b"H:0", b"", b"H:2"], [1]))

    def test_the_packets_of_each_kind(self) -> None:
        for options, expected in (
            ({"priority": Priority.HIGH}, ("SUBMIT_JOB_HIGH_BG", b"f", b"", b"x")),
            ({"priority": Priority.LOW}, ("SUBMIT_JOB_LOW_BG", b"f", b"", b"x")),
            ({"run_at": 9.5}, ("SUBMIT_JOB_EPOCH", b"f", b"", b"10", b"x")),
            ({"run_at": 9, "uniques": ["k"]}, ("SUBMIT_JOB_EPOCH", b"f", b"k", b"9", b"x")),
            ({"reducer": "r"}, ("SUBMIT_REDUCE_JOB_BACKGROUND", b"f", b"", b"r", b"", b"x")),
            ({"uniques": [b"k"]}, ("SUBMIT_JOB_BG", b"f", b"k", b"x")),
            ({"uniques": [None]}, ("SUBMIT_JOB_BG", b"f", b"", b"x")),
        ):
            batch = self.client.submit_many("f", [b"x"], **options)  # type: ignore[arg-type]
            self.assertEqual(self.server.heard(), [expected])
            self.server.send(accepted(0))
            self.assertEqual(self.successResultOf(batch), [b"H:0"])

    def test_refusals_in_the_middle(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 6)
        denied = packet(ERROR, b"ACCESS_DENIED", b"no")
        self.server.send(accepted(0) + FULL + FULL + accepted(3) + denied + FULL)
        error = self.failed(batch)
        self.assertEqual(error.handles, [b"H:0", b"", b"", b"H:3", b"", b""])
        codes = {index: refusal.code for index, refusal in error.errors.items()}  # type: ignore[attr-defined]
        self.assertEqual(codes, {1: "QUEUE_ERROR", 2: "QUEUE_ERROR", 4: "ACCESS_DENIED", 5: "QUEUE_ERROR"})
        self.assertIsInstance(error.__cause__, ServerError)
        self.assertEqual(str(error), "4 of 6 jobs were not accepted: QUEUE_ERROR: Job queue is full")

    def test_the_last_is_refused(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 2)
        self.server.send(accepted(0) + FULL)
        self.assertEqual(list(self.failed(batch).errors), [1])

    def test_among_other_requests(self) -> None:
        echo = self.client.echo(b"e")
        online = self.client.submit("f", b"online")
        batch = self.client.submit_many("f", [b"x"] * 2)
        late = self.client.submit("f", b"late", background=True)
        self.server.say(ECHO_RES, b"e")
        self.server.send(accepted(7, 0, 1))
        self.assertEqual(self.successResultOf(echo), b"e")
        self.assertEqual(self.successResultOf(batch), handles(2))
        self.assertNoResult(late)
        self.server.say(WORK_COMPLETE, b"H:7", b"r")
        self.assertEqual(self.successResultOf(self.successResultOf(online).result()), b"r")
        self.server.send(accepted(9))
        self.assertEqual(self.successResultOf(late).handle, b"H:9")

    def test_an_answer_of_another_kind_breaks_the_stream(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 2)
        self.server.send(accepted(0))
        self.server.say(ECHO_RES, b"")
        error = self.failed(batch)
        self.assertEqual((error.handles, list(error.errors)), ([b"H:0", b""], [1]))
        self.flushLoggedErrors()

    def test_a_lost_connection_in_the_middle(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 4)
        self.server.send(accepted(0) + FULL)
        self.server.lose()
        error = self.failed(batch)
        self.assertEqual(error.handles, [b"H:0", b"", b"", b""])
        kinds = {index: type(lost) for index, lost in error.errors.items()}
        self.assertEqual(kinds, {1: ServerError, 2: ConnectionLost, 3: ConnectionLost})
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_behind_a_lost_connection_it_goes_on_with_another(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * (IN_A_CHUNK + 2))
        first = self.server
        first.lose()
        self.clock.advance(0)
        self.assertIsNot(self.server, first)
        self.server.heard()
        self.server.say(OPTION_RES, b"exceptions")
        self.server.send(accepted(0, 1))
        error = self.failed(batch)
        self.assertEqual(error.handles, [b""] * IN_A_CHUNK + handles(2))
        self.assertEqual(list(error.errors), list(range(IN_A_CHUNK)))

    def test_without_a_server_no_more_is_taken(self) -> None:
        self.endpoint.refusal = Refused()
        self.server.lose()
        payloads = itertools.repeat(b"x")
        error = self.failed(self.client.submit_many("f", payloads))
        self.assertEqual((error.taken, len(error.errors)), (IN_A_CHUNK, IN_A_CHUNK))
        self.assertIsInstance(error.__cause__, NotConnected)

    def test_a_connection_that_ends_as_soon_as_it_is_made(self) -> None:
        self.server.lose()
        self.endpoint.drop = True
        for uniques in (None, [b"k"]):
            error = self.failed(self.client.submit_many("f", [b"x"], uniques=uniques))
            self.assertIsInstance(error.errors[0], NotConnected)

    def test_a_closed_client(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * (IN_A_CHUNK * 3))
        self.client.close()
        self.clock.advance(0)
        error = self.failed(batch)
        self.assertEqual(error.taken, 2 * IN_A_CHUNK)
        self.assertIsInstance(error.errors[0], ConnectionLost)
        self.assertIsInstance(error.errors[2 * IN_A_CHUNK - 1], NotConnected)

    def test_nothing_to_submit(self) -> None:
        self.assertEqual(self.successResultOf(self.client.submit_many("f", [])), [])
        self.assertEqual(self.successResultOf(self.client.submit_many("f", iter([]))), [])
        self.assertEqual(self.server.heard(), [])

    def test_wrong_arguments_are_told_at_the_call(self) -> None:
        client = Client(self.clock, self.endpoint, check_interval=None, max_packet=100)
        large = b"x" * 98
        for error, function, payloads, options in (
            (ValueError, "", [b""], {}),
            (TypeError, "f", b"data", {}),
            (TypeError, "f", "data", {}),
            (TypeError, "f", 5, {}),
            (TypeError, "f", [b"", "text"], {}),
            (TypeError, "f", (b"", None), {}),
            (ValueError, "f", [b"", large], {}),
            (ValueError, "f", [large[1:]], {"uniques": ["k"]}),
            (ValueError, "f", [b"", b""], {"uniques": ["k"]}),
            (ValueError, "f", [b"", b""], {"uniques": itertools.repeat("k")}),
            (ValueError, "f", [b""], {"uniques": ["k" * 65]}),
            (ValueError, "f", [b""], {"uniques": ["\0"]}),
            (TypeError, "f", [b""], {"uniques": [5]}),
            (TypeError, "f", [b""], {"uniques": 5}),
            (ValueError, "f", [b""], {"priority": "urgent"}),
            (TypeError, "f", [b""], {"priority": b"high"}),
            (ValueError, "f", [b""], {"priority": Priority.HIGH, "reducer": "r"}),
            (ValueError, "f", [b""], {"attempts": 0}),
            (ValueError, "f", [b""], {"timeout": -1}),
        ):
            self.assertRaises(error, client.submit_many, function, payloads, **options)
        self.assertEqual(self.endpoint.attempts, 1)
        self.assertNoResult(client.submit_many("f", [large[1:], large[1:]]))

    def test_a_wrong_payload_of_an_iterator_ends_the_batch_there(self) -> None:
        behind: Iterator[Any] = iter([b"a", b"b", "text", b"c"])
        batch = self.client.submit_many("f", behind)
        self.assertEqual(len(self.server.heard()), 2)
        self.assertNoResult(batch)
        self.server.send(accepted(0, 1))
        error = self.failed(batch)
        self.assertEqual((error.taken, error.handles), (3, [b"H:0", b"H:1", b""]))
        self.assertIsInstance(error.errors[2], TypeError)
        self.assertEqual(list(behind), [b"c"])

    def test_what_iterating_raises_ends_the_batch(self) -> None:
        def payloads() -> Iterator[bytes]:
            yield b"a"
            raise OSError("disk")

        batch = self.client.submit_many("f", payloads())
        self.server.send(accepted(0))
        error = self.failed(batch)
        self.assertIsInstance(error.__cause__, OSError)
        self.assertEqual(error.handles, [b"H:0", b""])

    def test_fewer_uniques_than_payloads_of_an_iterator(self) -> None:
        batch = self.client.submit_many("f", iter([b"a", b"b"]), uniques=iter(["k"]))
        self.server.send(accepted(0))
        self.assertIsInstance(self.failed(batch).errors[1], ValueError)

    def test_the_codec_makes_the_payloads(self) -> None:
        client = Client(self.clock, self.endpoint, check_interval=None, codec="json")
        self.assertRaises(TypeError, client.submit_many, "f", [1, {2}])
        self.successResultOf(client.connect())
        batch = client.submit_many("f", (value for value in ([1], {2}, 3)))
        self.assertEqual(self.server.heard()[1:], [("SUBMIT_JOB_BG", b"f", b"", b"[1]")])
        self.server.say(OPTION_RES, b"exceptions")
        self.server.send(accepted(0))
        self.assertIsInstance(self.failed(batch).errors[1], TypeError)

    def test_without_handles(self) -> None:
        batch = self.client.submit_many("f", [b"x"] * 2, keep_handles=False)
        self.server.send(accepted(0, 1))
        self.assertEqual(self.successResultOf(batch), [])
        batch = self.client.submit_many("f", [b"x"] * 2, keep_handles=False)
        self.server.send(accepted(0) + FULL)
        error = self.failed(batch)
        self.assertEqual((error.handles, list(error.errors)), ([], [1]))

    def test_the_time_limit(self) -> None:
        self.client._budget._limit = 3 * COST
        batch = self.client.submit_many("f", [b"x"] * 9, timeout=5)
        self.server.send(accepted(0) + FULL)
        self.clock.advance(4.9)
        self.assertNoResult(batch)
        self.clock.advance(0.2)
        error = self.failed(batch)
        self.assertIsInstance(error.__cause__, TimedOut)
        self.assertEqual((error.taken, error.handles), (3, [b"H:0", b"", b""]))
        kinds = {index: type(lost) for index, lost in error.errors.items()}
        self.assertEqual(kinds, {1: ServerError, 2: TimedOut})
        self.server.heard()
        self.server.send(accepted(2))
        self.assertEqual((self.server.heard(), self.client._budget.outstanding), ([], 0))

    def test_the_time_limit_of_a_connection(self) -> None:
        self.server.lose()
        self.endpoint.hold = True
        batch = self.client.submit_many("f", [b"x"] * 2, timeout=5)
        self.assertEqual(self.client._budget.outstanding, 2 * COST)
        self.clock.advance(5)
        error = self.failed(batch)
        self.assertEqual([type(lost) for lost in error.errors.values()], [TimedOut] * 2)
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_to_cancel_sends_nothing_more(self) -> None:
        batch = self.client.submit_many("f", itertools.repeat(b"x"))
        sent = len(self.server.heard())
        batch.cancel()
        self.failureResultOf(batch, CancelledError)
        self.assertEqual(self.server.heard(), [])
        self.server.send(accepted(*range(sent)))
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_an_iterator_is_read_as_there_is_room(self) -> None:
        self.client._budget._limit = 4 * COST
        read = 0

        def payloads() -> Iterator[bytes]:
            nonlocal read
            while read < 10:
                read += 1
                yield b"x"

        batch = self.client.submit_many("f", payloads())
        self.assertEqual((read, len(self.server.heard())), (4, 4))
        self.server.send(accepted(0, 1, 2))
        self.assertEqual(read, 4)
        room = self.client.room()
        self.server.send(accepted(3))
        self.assertEqual((read, len(self.server.heard())), (8, 4))
        self.assertNoResult(room)
        self.server.send(accepted(4, 5, 6, 7))
        self.successResultOf(room)
        self.assertEqual((read, len(self.server.heard())), (10, 2))
        self.server.send(accepted(8, 9))
        self.assertEqual(self.successResultOf(batch), handles(10))

    def test_the_reactor_has_a_turn_between_chunks(self) -> None:
        self.client.submit_many("f", [b"x"] * (2 * IN_A_CHUNK + 1))
        sizes: list[int] = []
        self.clock.callLater(0, lambda: sizes.append(self.client._budget.outstanding))
        self.clock.advance(0)
        # Behind the second chunk, which was there first, and ahead of the third.
        self.assertEqual(sizes, [2 * IN_A_CHUNK * COST])
        self.assertEqual(self.client._budget.outstanding, (2 * IN_A_CHUNK + 1) * COST)

    def test_a_silent_server_is_given_up(self) -> None:
        client = Client(self.clock, self.endpoint, check_interval=30, check_timeout=10)
        self.successResultOf(client.connect())
        self.server.say(OPTION_RES, b"exceptions")
        batch = client.submit_many("f", [b"x"] * 2)
        self.server.send(accepted(0))
        for _ in range(3):
            self.clock.advance(10)
            self.clock.advance(0)
        self.assertEqual(list(self.failed(batch).errors), [1])
        client.close()


class SeveralServersTests(SeveralServersTestCase):
    def answer(self, index: int, count: int) -> None:
        """Let a server accept so many, with handles of its own."""
        for number in range(count):
            self.endpoints[index].server.say(JOB_CREATED, b"H:%d:%d" % (index, number))

    def test_jobs_without_unique_are_spread(self) -> None:
        self.connect()
        batch = self.client.submit_many("f", [b"%d" % number for number in range(7)])
        heard = [[packet[-1] for packet in packets] for packets in self.heard()]
        self.assertEqual(heard, [[b"0", b"3", b"6"], [b"1", b"4"], [b"2", b"5"]])
        for index, packets in enumerate(heard):
            self.answer(index, len(packets))
        expected = [b"H:%d:%d" % (number % 3, number // 3) for number in range(7)]
        self.assertEqual(self.successResultOf(batch), expected)
        # The turn is with the one behind the last.
        for index in (1, 2, 0, 1):
            self.client.submit_many("f", [b""])
            self.assertEqual(self.where(), [index])

    def test_those_down_are_passed_over(self) -> None:
        self.connect()
        self.endpoints[1].refusal = Refused()
        self.endpoints[1].server.lose()
        self.client.submit_many("f", [b""] * 4)
        self.assertEqual([len(packets) for packets in self.heard()], [2, 0, 2])

    def test_a_unique_goes_to_its_server(self) -> None:
        self.connect()
        uniques = [b"%d" % number for number in range(30)]
        batch = self.client.submit_many("f", [b""] * 30, uniques=uniques)
        heard = self.heard()
        for index, packets in enumerate(heard):
            expected = [unique for unique in uniques if self.order(b"f", unique)[0] == index]
            self.assertEqual([unique for _name, _function, unique, _data in packets], expected)
            self.answer(index, len(packets))
        given = self.successResultOf(batch)
        for unique, handle in zip(uniques, given, strict=True):
            self.assertTrue(handle.startswith(b"H:%d:" % self.order(b"f", unique)[0]))

    def test_what_a_server_lost_is_tried_elsewhere(self) -> None:
        self.connect()
        uniques: list[bytes | None] = [b"%d" % number for number in range(12)] + [None] * 3
        payloads = [b"x%d" % number for number in range(15)]
        batch = self.client.submit_many("f", payloads, uniques=uniques)
        heard = self.heard()
        self.assertGreater(len(heard[0]), 2)
        self.answer(1, len(heard[1]))
        self.answer(2, len(heard[2]))
        self.answer(0, 2)
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        self.assertNoResult(batch)
        again = self.heard()
        self.assertEqual(sorted(again[1] + again[2]), sorted(heard[0][2:]))
        for index in (1, 2):
            for _name, _function, unique, _data in again[index]:
                if unique:
                    self.assertEqual(self.order(b"f", unique)[1], index)
            self.answer(index, len(again[index]))
        given = self.successResultOf(batch)
        at_first = [handle for handle in given if handle.startswith(b"H:0:")]
        self.assertEqual((at_first, given.count(b"")), ([b"H:0:0", b"H:0:1"], 0))
        self.assertEqual(self.client._budget.outstanding, 0)

    def test_one_server_after_the_other_is_lost(self) -> None:
        self.connect()
        payloads = [b"%d" % number for number in range(9)]
        for uniques in (None, [None] * 9):
            for endpoint in self.endpoints:
                endpoint.refusal = None
            self.clock.advance(BACKOFF)
            self.heard()
            batch = self.client.submit_many("f", payloads, uniques=uniques)
            for index in (0, 1):
                # Two of its three or more jobs are answered.
                self.endpoints[index].server.send(packet(JOB_CREATED, b"H:%d" % index) + FULL)
                self.endpoints[index].refusal = Refused()
                self.endpoints[index].server.lose()
            last = self.heard()[2]
            self.assertEqual(len(last), 9 - 2 * 2)
            self.assertNoResult(batch)
            self.answer(2, len(last))
            error = self.failureResultOf(batch, NotAllAccepted).value
            self.assertEqual({type(refusal) for refusal in error.errors.values()}, {ServerError})
            self.assertEqual([handle == b"" for handle in error.handles].count(True), 2)
            self.assertEqual(len(set(error.handles)), 8)
            self.assertEqual(sorted(error.errors), [index for index in range(9) if not error.handles[index]])
            self.assertEqual(self.client._budget.outstanding, 0)

    def test_where_all_are_lost_each_job_is(self) -> None:
        self.connect()
        batch = self.client.submit_many("f", [b"x"] * 6)
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
        for endpoint in self.endpoints:
            endpoint.server.lose()
        error = self.failureResultOf(batch, NotAllAccepted).value
        kinds = {index: type(lost) for index, lost in error.errors.items()}
        self.assertEqual(kinds, dict.fromkeys(range(6), ConnectionLost))

    def test_a_refusal_is_not_tried_elsewhere(self) -> None:
        self.connect()
        batch = self.client.submit_many("f", [b"x"] * 3)
        self.heard()
        self.endpoints[0].server.send(FULL)
        for index in (1, 2):
            self.answer(index, 1)
        error = self.failureResultOf(batch, NotAllAccepted).value
        self.assertEqual(list(error.errors), [0])
        self.assertEqual(self.where(), [])

    def test_the_first_use_connects_to_all_and_waits_for_the_server_of_a_unique(self) -> None:
        self.make()
        for endpoint in self.endpoints:
            endpoint.hold = True
        first, second, third = self.order(b"f", b"k")
        batch = self.client.submit_many("f", [b"x"], uniques=["k"])
        self.assertEqual([endpoint.attempts for endpoint in self.endpoints], [1, 1, 1])
        self.endpoints[second].accept()
        self.endpoints[third].accept()
        self.assertEqual(self.where(), [])
        self.clock.advance(CONNECT_PATIENCE - 0.1)
        self.endpoints[first].accept()
        self.assertEqual(self.where(), [first])
        self.answer(first, 1)
        self.assertEqual(self.successResultOf(batch), [b"H:%d:0" % first])

    def test_to_cancel_ends_what_waits_for_a_server(self) -> None:
        for timeout in (None, 1):
            self.setUp()
            self.make()
            for endpoint in self.endpoints:
                endpoint.hold = True
            first, second, _third = self.order(b"f", b"k")
            batch = self.client.submit_many("f", [b"x"] * 3, uniques=["k"] * 3, timeout=timeout)
            self.endpoints[second].accept()
            self.assertNoResult(batch)
            if timeout is None:
                batch.cancel()
                self.failureResultOf(batch, CancelledError)
            else:
                self.clock.advance(timeout)
                error = self.failureResultOf(batch, NotAllAccepted).value
                self.assertEqual([type(lost) for lost in error.errors.values()], [TimedOut] * 3)
            self.endpoints[first].accept()
            self.clock.advance(BACKOFF)
            self.assertEqual(self.where(), [])
            self.assertEqual(self.client._budget.outstanding, 0)


class OnServersTests(SynchronousTestCase):
    """With the real server, in memory."""

    def test_a_limit_of_the_queue_is_met_in_the_middle(self) -> None:
        gearman = MemoryGearman(Settings(max_jobs=5))
        client = gearman.client()

        async def submit() -> NotAllAccepted:
            try:
                await client.submit_many("f", [b"x"] * 8)
            except NotAllAccepted as error:
                return error
            raise AssertionError("all were accepted")

        error = gearman.wait(submit())
        self.assertEqual(list(error.errors), [5, 6, 7])
        self.assertEqual(len(set(error.handles[:5])), 5)
        gearman.wait(client.close())

    def test_very_many_on_two_servers_stay_within_the_limit(self) -> None:
        gearman = MemoryGearman()
        other = MemoryGearman(Settings(handle_prefix="H:other"), gearman.clock)
        client = gearman.client(other, max_backlog=50 * COST)
        most = 0

        def payloads() -> Iterator[bytes]:
            nonlocal most
            for _ in range(5000):
                most = max(most, client._budget.outstanding)
                yield b"x"

        given = gearman.wait(client.submit_many("f", payloads(), uniques=(str(n) for n in range(5000))))
        self.assertEqual(len(set(given)), 5000)
        self.assertLessEqual(most, 51 * COST)
        self.assertEqual(client._budget.outstanding, 0)
        gearman.wait(client.close())
