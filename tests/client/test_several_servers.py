"""Several servers: who gets which submission, and what happens when one is lost or not there."""

from __future__ import annotations

import gc
from collections import Counter

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.several import BACKOFF, SeveralServersTestCase
from tests.connection.memory import PlayedEndpoint
from txgearman.client import Client, JobStatus
from txgearman.client.failover import CONNECT_PATIENCE
from txgearman.client.hashing import routing_key, score
from txgearman.client.submission import Priority, submission
from txgearman.connection.endpoint import named_endpoints
from txgearman.errors import ConnectionLost, NotConnected, ServerError, TimedOut
from txgearman.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
)

NAMES = [f"tcp:10.0.0.{number}:4730" for number in range(1, 6)]


def best(names: list[str], key: bytes) -> str:
    return max(names, key=lambda name: score(name, key))


class HashingTests(SynchronousTestCase):
    KEYS = [b"f\0%d" % number for number in range(2000)]

    def test_keys_are_spread(self) -> None:
        found = Counter(best(NAMES, key) for key in self.KEYS)
        self.assertEqual(len(found), len(NAMES))
        self.assertLess(max(found.values()), 2 * min(found.values()))

    def test_only_the_keys_of_a_server_that_leaves_move(self) -> None:
        without = NAMES[:2] + NAMES[3:]
        moved = Counter()
        for key in self.KEYS:
            before = best(NAMES, key)
            if before == NAMES[2]:
                moved[best(without, key)] += 1
            else:
                self.assertEqual(best(without, key), before)
        self.assertEqual(len(moved), 4, "and they are spread over the others")

    def test_a_server_that_joins_only_takes(self) -> None:
        more = [*NAMES, "tcp:10.0.0.6:4730"]
        taken = [key for key in self.KEYS if best(more, key) != best(NAMES, key)]
        self.assertEqual({best(more, key) for key in taken}, {more[-1]})
        self.assertLess(len(taken), len(self.KEYS) / 3)

    def test_the_choice_is_the_same_in_every_process_and_release(self) -> None:
        self.assertEqual(
            [NAMES.index(best(NAMES, key)) for key in self.KEYS[:10]], [3, 0, 3, 1, 1, 3, 2, 3, 2, 3]
        )

    def test_keys(self) -> None:
        def key(unique: bytes | None, data: bytes = b"d", function: bytes = b"f") -> bytes | None:
            return routing_key(submission(function, data, unique, Priority.NORMAL, False, None, None, 1000))

        self.assertIsNone(key(None))
        self.assertIsNone(key(b""))
        self.assertEqual(key(b"k", b"1"), key(b"k", b"2"))
        self.assertNotEqual(key(b"k"), key(b"k", function=b"g"))
        self.assertNotEqual(key(b"-", b"1"), key(b"-", b"2"))
        self.assertEqual(key(b"-", b"1"), key(b"-", b"1"))


class NamesTests(SynchronousTestCase):
    def test_names(self) -> None:
        endpoint = PlayedEndpoint()
        named = named_endpoints(Clock(), ["tcp:127.0.0.1:1", endpoint])
        self.assertEqual([name for name, _ in named], ["tcp:127.0.0.1:1", "#1"])
        self.assertIs(named[1][1], endpoint)

    def test_none_and_twice(self) -> None:
        for endpoints in ([], ["tcp:a:1", "tcp:a:1"], ["nonsense:"], [PlayedEndpoint()] * 2):
            with self.assertRaises(ValueError):
                Client(Clock(), endpoints)


class PlacingTests(SeveralServersTestCase):
    def test_without_a_unique_each_server_gets_its_turn(self) -> None:
        self.connect()
        counts: Counter[int] = Counter()
        for _ in range(9):
            self.client.submit("f", b"")
            (index,) = self.where()
            counts[index] += 1
        self.assertEqual(counts, {0: 3, 1: 3, 2: 3})

    def test_a_unique_goes_to_one_server(self) -> None:
        self.connect()
        for number in range(20):
            unique = b"%d" % number
            for background in (False, True):
                self.client.submit("f", b"", unique=unique, background=background)
                self.assertEqual(self.where(), self.order(b"f", unique)[:1])

    def test_a_server_that_is_down_is_passed_over_until_it_is_back(self) -> None:
        self.connect()
        first, second, _third = self.order(b"f", b"k")
        self.endpoints[first].refusal = Refused()
        self.endpoints[first].server.lose()
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [second])
        for _ in range(6):
            self.client.submit("f", b"")
        self.assertEqual(self.where(), sorted({0, 1, 2} - {first}))
        self.assertEqual(self.client.servers[f"#{first}"], False)
        self.endpoints[first].refusal = None
        self.clock.advance(BACKOFF)
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [first])
        self.assertEqual(list(self.client.servers.values()), [True] * 3)

    def test_the_first_use_connects_to_all(self) -> None:
        for use in (
            lambda: self.client.echo(b""),
            lambda: self.client.submit("f", b"", unique="k"),
            lambda: self.client.submit("f", b""),
            lambda: self.client.status(b"H:1"),
            lambda: self.client.status_by_unique(b"k"),
        ):
            self.setUp()
            self.make()
            use()
            self.assertEqual([endpoint.attempts for endpoint in self.endpoints], [1, 1, 1])

    def test_the_first_connection_will_do(self) -> None:
        for endpoint in self.endpoints:
            endpoint.hold = True
        self.make()
        connected, submitted = self.client.connect(), self.client.submit("f", b"")
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].accept()
        self.assertNoResult(connected)
        self.endpoints[2].accept()
        self.successResultOf(connected)
        self.assertEqual(self.where(), [2])
        self.assertNoResult(submitted)

    def test_a_unique_waits_for_its_server_at_the_first_use(self) -> None:
        for endpoint in self.endpoints:
            endpoint.hold = True
        self.make()
        self.client.submit("f", b"", unique="k")
        first, second, third = self.order(b"f", b"k")
        self.endpoints[second].accept()
        self.endpoints[third].accept()
        self.assertEqual(self.where(), [])
        self.endpoints[first].accept()
        self.assertEqual(self.where(), [first])

    def test_but_not_if_it_refuses(self) -> None:
        first, second, _third = self.order(b"f", b"k")
        self.endpoints[first].refusal = Refused()
        self.make()
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [second])

    def test_and_not_for_long(self) -> None:
        first, second, _third = self.order(b"f", b"k")
        self.endpoints[first].hold = True
        self.make()
        submitted = self.client.submit("f", b"", unique="k")
        self.clock.advance(CONNECT_PATIENCE - 0.1)
        self.assertEqual(self.where(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.where(), [second])
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [second], "nobody waits for it again")
        self.endpoints[first].accept()
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [first], "until it is there")
        self.assertNoResult(submitted)

    def test_no_server(self) -> None:
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
            endpoint.hold = True
        for uniques in ((None, "k", None, "k"), ("k", "k", None)):
            self.make()
            for endpoint in self.endpoints:
                endpoint.attempts = 0
            for attempt, unique in enumerate(uniques, 1):
                submitted = self.client.submit("f", b"", unique=unique)
                for endpoint in self.endpoints:
                    self.assertNoResult(submitted)
                    self.assertEqual(endpoint.attempts, attempt)
                    endpoint.accept()
                self.failureResultOf(submitted, NotConnected)
        connected = self.client.connect()
        for endpoint in self.endpoints:
            endpoint.accept()
        self.failureResultOf(connected, NotConnected)

    def test_one_that_comes_back_while_all_are_down_is_used_at_once(self) -> None:
        self.connect()
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
            endpoint.server.lose()
        for unique in (None, "k"):
            self.failureResultOf(self.client.submit("f", b"", unique=unique), NotConnected)
        self.endpoints[1].refusal = None
        self.client.submit("f", b"", unique="k")
        self.assertEqual(self.where(), [1])


class LostSubmissionsTests(SeveralServersTestCase):
    """A submission whose connection is lost before it was accepted."""

    def test_it_goes_to_the_next_server(self) -> None:
        self.connect()
        first, second, third = self.order(b"f", b"k")
        submitted = self.client.submit("f", b"data", unique="k")
        self.endpoints[first].server.lose()
        self.assertEqual(self.heard()[second], [("SUBMIT_JOB", b"f", b"k", b"data")])
        self.endpoints[second].server.lose()
        self.assertEqual(self.heard()[third], [("SUBMIT_JOB", b"f", b"k", b"data")])
        self.endpoints[third].server.say(JOB_CREATED, b"H:3")
        job = self.successResultOf(submitted)
        self.assertEqual((job.handle, job.server), (b"H:3", f"#{third}"))
        self.endpoints[third].server.say(WORK_COMPLETE, b"H:3", b"r")
        self.assertEqual(self.successResultOf(job.result()), b"r")

    def test_each_server_is_tried_once(self) -> None:
        for unique in (None, "k"):
            self.setUp()
            self.connect()
            submitted = self.client.submit("f", b"", unique=unique)
            for _ in range(3):
                self.assertNoResult(submitted)
                (index,) = self.where()
                self.endpoints[index].server.lose()
            self.failureResultOf(submitted, ConnectionLost)
            self.assertEqual(self.where(), [])

    def test_that_it_was_sent_once_is_not_forgotten(self) -> None:
        """`NotConnected` promises that nothing was sent."""
        self.connect()
        for endpoint in self.endpoints:
            endpoint.refusal = Refused()
        submitted = self.client.submit("f", b"")
        (index,) = self.where()
        for endpoint in self.endpoints:
            if endpoint is not self.endpoints[index]:
                endpoint.server.lose()
        self.endpoints[index].server.lose()
        error = self.failureResultOf(submitted).value
        self.assertIs(type(error), ConnectionLost)

    def test_many_at_once(self) -> None:
        self.connect()
        submitted = [self.client.submit("f", b"%d" % number) for number in range(30)]
        self.heard()
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        self.assertEqual([len(packets) for packets in self.heard()], [0, 5, 5])
        for index in (1, 2):
            for _ in range(15):
                self.endpoints[index].server.say(JOB_CREATED, b"H:x")
        for each in submitted:
            self.successResultOf(each)

    def test_a_refusal_is_the_answer(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", unique="k")
        (index,) = self.where()
        self.endpoints[index].server.say(ERROR, b"QUEUE_ERROR", b"full")
        self.failureResultOf(submitted, ServerError)
        self.assertEqual(self.where(), [])

    def test_a_server_that_ends_is_passed_over(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", unique="k")
        for index in self.order(b"f", b"k"):
            self.assertNoResult(submitted)
            self.assertEqual(self.where(), [index])
            self.endpoints[index].server.say(ERROR, b"SHUTTING_DOWN", b"The server is shutting down")
        self.assertEqual(self.failureResultOf(submitted, ServerError).value.code, "SHUTTING_DOWN")

    def test_the_time_limit_holds_for_all_attempts_together(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", unique="k", timeout=5)
        self.clock.advance(3)
        first, second, _third = self.order(b"f", b"k")
        self.endpoints[first].server.lose()
        self.clock.advance(2)
        self.failureResultOf(submitted, TimedOut)
        self.endpoints[second].server.lose()
        self.heard()
        self.assertEqual(self.where(), [])

    def test_cancelled_on_the_way(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", unique="k")
        first, second, third = self.order(b"f", b"k")
        self.endpoints[first].server.lose()
        submitted.cancel()
        self.failureResultOf(submitted, CancelledError)
        self.heard()
        self.endpoints[second].server.lose()
        self.assertEqual(self.heard()[third], [])

    def test_not_to_wait_for_the_end_of_close(self) -> None:
        self.connect()
        closed = self.client.close()
        closed.cancel()
        self.failureResultOf(closed, CancelledError)
        for endpoint in self.endpoints:
            endpoint.server.hang_up()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_close_sends_nothing_elsewhere(self) -> None:
        self.connect()
        second_at_0 = next(b"%d" % number for number in range(99) if self.order(b"f", b"%d" % number)[1] == 0)
        first = self.order(b"f", second_at_0)[0]
        submitted = [self.client.submit("f", b"", unique=unique) for unique in (second_at_0, "k", None)]
        self.endpoints[first].server.lose()
        self.clock.advance(BACKOFF)
        self.heard()
        closed = self.client.close()
        for each in submitted:
            self.assertIn("the client was closed", str(self.failureResultOf(each, ConnectionLost).value))
        self.assertEqual(self.where(), [])
        for endpoint in self.endpoints:
            self.assertNoResult(closed)
            endpoint.server.hang_up()
        self.assertIsNone(self.successResultOf(closed))
        self.failureResultOf(self.client.submit("f", b""), NotConnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_job_that_runs_is_not_sent_again(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", unique="k")
        (index,) = self.where()
        self.endpoints[index].server.say(JOB_CREATED, b"H:1")
        job = self.successResultOf(submitted)
        self.endpoints[index].server.lose()
        self.failureResultOf(job.result(), ConnectionLost)
        self.assertEqual(self.where(), [])


class StatusTests(SeveralServersTestCase):
    def say_status(self, index: int, known: bytes, handle: bytes = b"H:1") -> None:
        self.endpoints[index].server.say(STATUS_RES, handle, known, b"0", b"%d" % index, b"9")

    def test_of_a_job_is_asked_at_its_server(self) -> None:
        self.connect()
        for _ in range(4):
            submitted = self.client.submit("f", b"", background=True)
            (index,) = self.where()
            self.endpoints[index].server.say(JOB_CREATED, b"H:1")
            job = self.successResultOf(submitted)
            status = self.client.status(job)
            self.assertEqual(self.where(), [index])
            self.say_status(index, b"1")
            self.assertEqual(self.successResultOf(status), JobStatus(True, False, index, 9))

    def test_of_a_job_whose_server_is_down(self) -> None:
        self.connect()
        submitted = self.client.submit("f", b"", background=True, unique="k")
        (index,) = self.where()
        self.endpoints[index].server.say(JOB_CREATED, b"H:1")
        job = self.successResultOf(submitted)
        self.endpoints[index].refusal = Refused()
        self.endpoints[index].server.lose()
        self.failureResultOf(self.client.status(job), NotConnected)
        self.endpoints[index].refusal = None
        status = self.client.status(job)
        self.assertEqual(self.where(), [index])
        self.assertNoResult(status)

    def test_of_a_handle_is_asked_everywhere(self) -> None:
        self.connect()
        status = self.client.status("H:1")
        self.assertEqual(self.heard(), [[("GET_STATUS", b"H:1")]] * 3)
        self.say_status(0, b"0")
        self.assertNoResult(status)
        self.say_status(1, b"1")
        self.assertEqual(self.successResultOf(status), JobStatus(True, False, 1, 9))
        self.say_status(2, b"0")

    def test_of_a_handle_nobody_knows(self) -> None:
        self.connect()
        status = self.client.status("H:1")
        for index in range(3):
            self.assertNoResult(status)
            self.say_status(index, b"0")
        self.assertFalse(self.successResultOf(status).known)

    def test_of_a_handle_while_servers_are_lost(self) -> None:
        self.connect()
        status, hopeless = self.client.status("H:1"), self.client.status("H:2")
        self.endpoints[0].server.lose()
        self.say_status(1, b"0")
        self.endpoints[1].server.lose()
        self.endpoints[2].server.lose()
        self.assertFalse(self.successResultOf(status).known)
        self.failureResultOf(hopeless, ConnectionLost)

    def test_of_a_handle_leaves_out_a_server_that_is_down(self) -> None:
        self.connect()
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        status = self.client.status("H:1")
        self.assertEqual(self.where(), [1, 2])
        self.say_status(1, b"0")
        self.say_status(2, b"0")
        self.assertFalse(self.successResultOf(status).known)

    def test_of_a_unique_is_asked_everywhere(self) -> None:
        self.connect()
        status = self.client.status_by_unique("k")
        for index in range(3):
            known = b"%d" % (index == 2)
            self.endpoints[index].server.say(STATUS_RES_UNIQUE, b"k", known, b"0", b"0", b"0", known)
        self.assertEqual(self.successResultOf(status), JobStatus(True, False, 0, 0, 1))

    def test_giving_up(self) -> None:
        self.connect()
        status, cancelled = self.client.status("H:1", timeout=5), self.client.status("H:1")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.clock.advance(5)
        self.failureResultOf(status, TimedOut)
        for index in range(3):
            for _ in range(2):
                self.say_status(index, b"1")


class EchoTests(SeveralServersTestCase):
    def test_any(self) -> None:
        self.connect()
        echo = self.client.echo(b"e")
        (index,) = self.where()
        self.endpoints[index].server.lose()
        (index,) = [index for index, packets in enumerate(self.heard()) if ("ECHO_REQ", b"e") in packets]
        self.endpoints[index].server.say(ECHO_RES, b"e")
        self.assertEqual(self.successResultOf(echo), b"e")

    def test_each(self) -> None:
        self.connect()
        self.endpoints[0].refusal = Refused()
        self.endpoints[0].server.lose()
        echoes = self.client.echo_each(b"e", timeout=5)
        self.endpoints[1].server.say(ECHO_RES, b"e")
        self.assertNoResult(echoes)
        self.clock.advance(5)
        found = self.successResultOf(echoes)
        self.assertIsInstance(found.pop("#0"), NotConnected)
        self.assertIsInstance(found.pop("#2"), TimedOut)
        self.assertEqual(found, {"#1": b"e"})

    def test_the_option_is_asked_for_at_each(self) -> None:
        self.make()
        self.client.connect()
        for endpoint in self.endpoints:
            self.assertEqual(endpoint.server.heard(), [("OPTION_REQ", b"exceptions")])
            endpoint.server.say(OPTION_RES, b"exceptions")
