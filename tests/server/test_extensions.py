"""Extensions of the protocol: who has asked for one gets its packets, and nobody else does."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from tests.server.peers import PREFIX, Peer, ServerTestCase, SocketlikeTransport, error, req, res
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server import Settings, result_waits
from txgearman.server.config.options import FunctionSettings
from txgearman.server.result_waits import MAX_WAITS_OF_ONE, POLL_INTERVAL, POLLS_AT_ONCE
from txgearman.testing import MemoryGearman
from txgearman.wire.options import CANCEL, EXTENSIONS, RESULTS
from txgearman.wire.packets import EXTENSION_PACKETS

H1 = b"H:test:1"


class OptionTests(ServerTestCase):
    def test_each_is_accepted_in_any_spelling(self) -> None:
        peer = self.peer()
        for option in sorted(EXTENSIONS):
            for spelling in (option, option.upper()):
                with self.subTest(spelling):
                    self.assertEqual(peer.ask(req(26, spelling)), res(27, spelling))


class CancelTests(ServerTestCase):
    def running(self, *options: bytes) -> Peer:
        """A worker that has asked for these options and runs the only job."""
        worker = self.worker(b"f")
        for option in options:
            worker.ask(req(26, option))
        self.peer().ask(req(18, b"f", b"u", b"x"))
        worker.ask(req(9))
        return worker

    def cancel(self) -> None:
        self.assertEqual(self.peer().ask(b"cancel job " + H1 + b"\n"), b"OK\r\n")

    def test_a_worker_that_asked_is_told(self) -> None:
        worker = self.running(CANCEL)
        self.cancel()
        self.assertEqual(worker.heard(), res(1000, H1, b"cancelled"))
        self.assertEqual(worker.ask(req(13, H1, b"late") + req(16, b"echo")), res(17, b"echo"))

    def test_nobody_else_is(self) -> None:
        for options in ((), (b"exceptions",)):
            with self.subTest(options):
                worker = self.running(*options)
                self.cancel()
                self.assertEqual(worker.heard(), b"")
                self.setUp()


class ResultCase(ServerTestCase):
    def serve(self, **settings: Any) -> MemoryGearman:
        functions = {"f": FunctionSettings(keep_results=3600.0)}
        return super().serve(functions=functions, **settings)

    def asker(self) -> Peer:
        """A client that has asked for the option."""
        peer = self.peer()
        self.assertEqual(peer.ask(req(26, RESULTS)), res(27, RESULTS))
        return peer

    def running(self, function: bytes = b"f") -> Peer:
        """A worker that runs the only job."""
        worker = self.worker(function)
        self.peer().ask(req(18, function, b"", b"x"))
        worker.ask(req(9))
        return worker

    def pass_time(self, seconds: float) -> None:
        self.gearman.clock.advance(seconds)
        self.gearman.turn()


class ResultTests(ResultCase):
    def test_without_the_option_it_is_refused(self) -> None:
        text = b"GET_RESULT needs the option results, which was not asked for"
        peer = self.peer()
        self.assertEqual(
            peer.ask(req(1005, H1, b"1") + req(16, b"echo")),
            error(b"INVALID_COMMAND", text) + res(17, b"echo"),
        )

    def test_the_way_of_a_job(self) -> None:
        peer = self.asker()
        self.peer().ask(req(18, b"f", b"", b"x"))
        ask = req(1005, H1, b"0")
        self.assertEqual(peer.ask(ask), res(1006, H1, b"pending", b"queued", b""))
        worker = self.worker(b"f")
        worker.ask(req(9))
        self.assertEqual(peer.ask(ask), res(1006, H1, b"pending", b"running", b""))
        worker.ask(req(28, H1, b"a\0part") + req(13, H1, b"end"))
        self.assertEqual(peer.ask(ask), res(1006, H1, b"completed", b"", b"a\0partend"))
        self.pass_time(3600)
        self.assertEqual(peer.ask(ask), res(1006, H1, b"gone", b"completed", b""))

    def test_other_ends(self) -> None:
        peer = self.asker()
        for number, (end, answer) in enumerate(
            (
                (req(14, b"H:test:1"), (b"failed", b"failed", b"")),
                (req(25, b"H:test:2", b"oh\0no"), (b"failed", b"raised", b"oh\0no")),
                (b"cancel job H:test:3\n", (b"gone", b"cancelled", b"")),
            ),
            1,
        ):
            handle = b"H:test:%d" % number
            self.running().ask(end)
            self.assertEqual(peer.ask(req(1005, handle, b"1")), res(1006, handle, *answer))
        for unknown in (b"H:test:9", b"", b"x" * 63):
            answer = res(1006, unknown, b"unknown", b"", b"")
            self.assertEqual(peer.ask(req(1005, unknown, b"1")), answer)

    def test_answers_keep_the_order_of_requests(self) -> None:
        peer = self.asker()
        self.assertEqual(
            peer.ask(req(16, b"1") + req(1005, H1, b"0") + req(16, b"2")),
            res(17, b"1") + res(1006, H1, b"unknown", b"", b"") + res(17, b"2"),
        )

    def test_wrong_requests(self) -> None:
        peer = self.asker()
        for fields, code in (
            ((b"x" * 64, b"0"), b"ARGUMENT_TOO_LARGE"),
            ((H1, b""), b"INVALID_ARGUMENT"),
            ((H1, b"2"), b"INVALID_ARGUMENT"),
            ((H1,), b"INVALID_PACKET"),
        ):
            self.assertIn(code, peer.ask(req(1005, *fields)), fields)

    def test_many_questions_in_one_read(self) -> None:
        """A peer that does not read is asked for no more: not all of the answers are made."""
        worker, size = self.running(), 1 << 20
        worker.ask(req(13, H1, bytes(size)))
        transport = SocketlikeTransport()
        transport.connect(self.gearman.server.buildProtocol(None))
        transport.receive(req(26, RESULTS))
        transport.receive(req(1005, H1, b"0") * 100)
        self.gearman.turn()
        self.assertLess(transport.unsent, 4 * size)
        self.assertFalse(transport.aborted)
        heard = 0
        while data := transport.take():
            heard += len(data)
            self.gearman.turn()
        answer = res(1006, H1, b"completed", b"", bytes(size))
        self.assertEqual(heard, len(res(27, RESULTS)) + 100 * len(answer))

    def test_nobody_else_gets_a_packet_of_an_extension(self) -> None:
        """A peer that asked for all other options, through the whole life of jobs whose results are kept."""
        numbers = {packet.number for packet in EXTENSION_PACKETS if packet.option == RESULTS}
        peer = self.worker(b"f")
        for option in EXTENSIONS - {RESULTS}:
            peer.ask(req(26, option))
        heard = peer.ask(req(18, b"f", b"", b"x") + req(9) + req(13, H1, b"end"))
        for number in numbers:
            self.assertNotIn(res(number)[:8], heard)


class WaitTests(ResultCase):
    pending = res(1006, H1, b"pending", b"running", b"")

    def test_the_answer_comes_when_it_is_there(self) -> None:
        worker, peer = self.running(), self.asker()
        self.assertEqual(peer.ask(req(1005, H1, b"1") + req(16, b"e")), self.pending + res(17, b"e"))
        worker.ask(req(13, H1, b"end"))
        self.assertEqual(peer.heard(), res(1006, H1, b"completed", b"", b"end"))
        self.pass_time(10 * POLL_INTERVAL)
        self.assertEqual(peer.heard(), b"")
        self.assertEqual(len(self.gearman.server.results), 0)

    def test_each_wait_has_its_answer(self) -> None:
        worker, peer, other = self.running(), self.asker(), self.asker()
        self.assertEqual(peer.ask(req(1005, H1, b"1") * 2), self.pending * 2)
        self.assertEqual(other.ask(req(1005, H1, b"1")), self.pending)
        worker.ask(req(14, H1))
        answer = res(1006, H1, b"failed", b"failed", b"")
        self.assertEqual((peer.heard(), other.heard()), (answer * 2, answer))

    def test_who_leaves_waits_no_more(self) -> None:
        self.running()
        peer, other = self.asker(), self.asker()
        peer.ask(req(1005, H1, b"1"))
        other.ask(req(1005, H1, b"1"))
        peer.hang_up()
        self.assertEqual(len(self.gearman.server.results), 1)
        other.hang_up()
        self.assertEqual(len(self.gearman.server.results), 0)

    def test_so_many_waits(self) -> None:
        """Both limits: at the limit and one past it. The connection stays in step."""
        self.running()
        peer = self.asker()
        ask = req(1005, H1, b"1")
        self.assertEqual(peer.ask(ask * MAX_WAITS_OF_ONE), self.pending * MAX_WAITS_OF_ONE)
        text = b"Results are waited for 1000 times, as often as they may"
        self.assertEqual(peer.ask(ask + req(16, b"e")), error(b"TOO_MANY_WAITS", text) + res(17, b"e"))
        with patch.object(result_waits, "MAX_WAITS", MAX_WAITS_OF_ONE + 1):
            self.assertEqual(self.asker().ask(ask), self.pending)
            self.assertIn(b"TOO_MANY_WAITS", self.asker().ask(ask))

    def test_jobs_that_do_not_tell_of_their_end_are_looked_at(self) -> None:
        """In turn, so many at once."""
        worker, peer = self.worker(b"g"), self.asker()
        handles = [b"H:test:%d" % number for number in range(1, POLLS_AT_ONCE + 2)]
        for handle in handles:
            peer.ask(req(18, b"g", b"", b"x"))
            peer.ask(req(1005, handle, b"1"))
        for handle in handles:
            worker.ask(req(9) + req(13, handle, b""))
        self.assertEqual(peer.heard(), b"")
        answers = [res(1006, handle, b"gone", b"completed", b"") for handle in handles]
        self.pass_time(POLL_INTERVAL)
        self.assertEqual(peer.heard(), b"".join(answers[:-1]))
        self.pass_time(POLL_INTERVAL)
        self.assertEqual(peer.heard(), answers[-1])

    def test_it_needs_the_right_to_view(self) -> None:
        def change(*admin: str) -> None:
            rule = Rule("everybody", submit=(b"*",), work=(b"*",), admin=frozenset(admin))
            functions = {"f": FunctionSettings(keep_results=3600.0)}
            settings = Settings(handle_prefix=PREFIX, functions=functions, access=AccessPolicy((rule,)))
            self.gearman.server.reconfigure(settings)

        worker, peer = self.running(), self.asker()
        change("view")
        self.assertEqual(peer.ask(req(1005, H1, b"1")), self.pending)
        change()
        self.assertEqual(peer.heard(), res(1006, H1, b"unknown", b"", b""))
        denied = error(b"ACCESS_DENIED", b"You may not see the results of jobs")
        self.assertEqual(peer.ask(req(1005, H1, b"1")), denied)
        worker.ask(req(13, H1, b"end"))
        self.assertEqual(peer.heard(), b"")
