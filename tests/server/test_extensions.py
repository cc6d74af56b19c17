"""Extensions of the protocol: who has asked for one gets its packets, and nobody else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs

from tests.server.peers import PREFIX, Peer, ServerTestCase, SocketlikeTransport, error, req, res
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.server import Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.extensions import result_waits
from txgearman.server.extensions.result_waits import MAX_WAITS_OF_ONE, POLL_INTERVAL, POLLS_AT_ONCE
from txgearman.server.extensions.submit_attributes import MAX_EPOCH
from txgearman.testing import MemoryGearman
from txgearman.wire.options import (
    CANCEL,
    EXCEPTIONS,
    EXTENSIONS,
    HEARTBEAT,
    OUTCOMES,
    RESULTS,
    SUBMIT_EXTENDED,
)
from txgearman.wire.packets import EXTENSION_PACKETS, Role

H1 = b"H:test:1"

NOT_FOUND = b"Job given in work result not found"


class OptionTests(ServerTestCase):
    def test_each_is_accepted_in_any_spelling(self) -> None:
        peer = self.peer()
        for option in sorted(EXTENSIONS):
            for spelling in (option, option.upper()):
                with self.subTest(spelling):
                    self.assertEqual(peer.ask(req(26, spelling)), res(27, spelling))

    def test_requests_of_an_option_that_was_not_asked_for_are_refused(self) -> None:
        """And the connection stays in step."""
        for packet in EXTENSION_PACKETS:
            if Role.SERVER in packet.senders:
                continue
            with self.subTest(packet.name):
                peer = self.peer()
                for other in EXTENSIONS - {packet.option}:
                    peer.ask(req(26, other))
                answer = peer.ask(req(packet.number, *[b"0"] * len(packet.fields)), req(16, b"echo"))
                self.assertTrue(answer.startswith(error(b"INVALID_COMMAND", b"")[:4]), answer)
                self.assertIn(b"INVALID_COMMAND", answer)
                self.assertIn(packet.option or b"", answer)
                self.assertTrue(answer.endswith(res(17, b"echo")), answer)

    def test_packets_of_the_server_are_refused(self) -> None:
        for packet in EXTENSION_PACKETS:
            if Role.SERVER in packet.senders:
                answer = self.peer().ask(req(packet.number, *[b"0"] * len(packet.fields)))
                self.assertEqual(answer, error(b"INVALID_COMMAND", b"Command not expected"))


class ExtensionTestCase(ServerTestCase):
    def running(self, *options: bytes) -> Peer:
        """A worker that has asked for these options and runs the only job."""
        worker = self.worker(b"f")
        for option in options:
            worker.ask(req(26, option))
        self.peer().ask(req(18, b"f", b"u", b"x"))
        worker.ask(req(9))
        return worker

    def serve_function(self, **settings: Any) -> None:
        """Another server, on which these are the settings of the function ``f``."""
        self.gearman = self.serve(functions={"f": FunctionSettings(**settings)})


class CancelTests(ExtensionTestCase):
    def cancel(self, *words: bytes) -> None:
        line = b" ".join((b"cancel job", H1, *words)) + b"\n"
        self.assertEqual(self.peer().ask(line), b"OK\r\n")

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

    def test_a_time_limit(self) -> None:
        told, untold = self.worker(), self.worker()
        told.ask(req(26, CANCEL))
        submit, late = req(18, b"f", b"u", b"x"), error(b"JOB_NOT_FOUND", NOT_FOUND)
        for worker, heard, answer in ((told, res(1000, H1, b"timed-out"), b""), (untold, b"", late)):
            worker.ask(req(23, b"f", b"5000"))
            self.peer().ask(submit)
            worker.ask(req(9))
            self.gearman.turn(5)
            self.assertEqual(worker.heard(), heard)
            self.assertEqual(worker.ask(req(13, H1, b"late")), answer)
            worker.ask(req(3))

    def test_the_client_of_a_foreground_job_leaves(self) -> None:
        for options, heard in (((CANCEL,), res(1000, H1, b"abandoned")), ((), b"")):
            with self.subTest(options):
                self.setUp()
                worker, client = self.worker(b"f"), self.peer()
                worker.ask(*(req(26, option) for option in options))
                client.ask(req(7, b"f", b"u", b"x"))
                worker.ask(req(9))
                client.hang_up()
                self.assertEqual(worker.heard(), heard)
                self.assertEqual(worker.ask(req(13, H1, b"late") + req(16, b"echo")), res(17, b"echo"))

    def test_a_function_that_the_access_policy_forbids_while_it_runs(self) -> None:
        for options, heard in (((CANCEL,), res(1000, H1, b"denied")), ((), b"")):
            with self.subTest(options):
                self.setUp()
                worker = self.running(*options)
                server = self.gearman.server
                server.reconfigure(replace(server.settings, access=AccessPolicy((Rule("none"),))))
                self.assertEqual(worker.heard(), heard)

    def test_force_spares_a_worker_that_was_told(self) -> None:
        worker = self.running(CANCEL)
        self.cancel(b"force")
        self.assertEqual(worker.heard(), res(1000, H1, b"cancelled"))
        self.assertIsNone(worker.lost)

    def test_force_cuts_the_connection_of_another(self) -> None:
        worker = self.running()
        self.peer().ask(req(18, b"f", b"v", b"y"))
        worker.ask(req(9))
        self.peer().ask(req(18, b"f", b"w", b"z"))
        worker.ask(req(9))
        with capturedLogs() as events:
            lines = b"cancel job H:test:1 FORCE\ncancel job H:test:2 force\n"
            self.assertEqual(self.peer().ask(lines), b"OK\r\n" * 2)
        self.assertEqual(worker.heard(), b"")
        self.assertIsInstance(worker.lost, ConnectionLost)
        said = [event["log_format"] for event in events]
        self.assertEqual(len([line for line in said if "cancelled by force" in line]), 1, said)
        other = self.worker(b"f")
        self.assertEqual(other.ask(req(9), req(9)), res(11, b"H:test:3", b"f", b"z") + res(10))

    def test_force_of_a_job_that_waits(self) -> None:
        self.peer().ask(req(18, b"f", b"u", b"x"))
        self.cancel(b"force")
        self.assertEqual(self.worker(b"f").ask(req(9)), res(10))

    def test_other_words_than_force(self) -> None:
        self.running()
        for words in (b"forc", b"force force", b"", b"force "):
            with self.subTest(words):
                answer = self.peer().ask(b"cancel job %b %b\n" % (H1, words))
                self.assertEqual(answer, b"ERR UNKNOWN_ERROR\r\n")


class AssignTests(ExtensionTestCase):
    """What a worker with ``outcomes`` gets for GRAB_JOB_ALL, and that nothing else changes."""

    def attributes(self, worker: Peer) -> bytes:
        """Those of the worker's next job."""
        answer = worker.ask(req(39))
        self.assertEqual(answer[:8], res(1001)[:8])
        return answer.split(b"\0")[-2]

    def test_a_first_run_has_no_attributes(self) -> None:
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.peer().ask(req(18, b"f", b"u", b"x\0y"))
        self.assertEqual(worker.ask(req(39)), res(1001, H1, b"f", b"u", b"", b"", b"x\0y"))

    def test_a_reducer(self) -> None:
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.peer().ask(req(38, b"f", b"u", b"r", b"", b"x"))
        self.assertEqual(worker.ask(req(39)), res(1001, H1, b"f", b"u", b"r", b"", b"x"))

    def test_other_grabs_and_other_options_are_answered_as_ever(self) -> None:
        for option, grab, answer in (
            (OUTCOMES, 9, res(11, H1, b"f", b"x")),
            (OUTCOMES, 30, res(31, H1, b"f", b"u", b"x")),
            (HEARTBEAT, 39, res(31, H1, b"f", b"u", b"x")),
            (EXCEPTIONS, 39, res(31, H1, b"f", b"u", b"x")),
        ):
            with self.subTest((option, grab)):
                self.setUp()
                worker = self.worker(b"f")
                worker.ask(req(26, option))
                self.peer().ask(req(18, b"f", b"u", b"x"))
                self.assertEqual(worker.ask(req(grab)), answer)

    def test_attempts_and_losses(self) -> None:
        self.serve_function(attempts=5, backoff=0.0)
        self.running().hang_up()
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.assertEqual(self.attributes(worker), b"losses=1")
        worker.ask(req(14, H1))
        self.assertEqual(self.attributes(worker), b"attempt=2\nlosses=1")
        worker.ask(req(1002, H1, b"0", b"0", b"it does not count"))
        self.assertEqual(self.attributes(worker), b"attempt=2\nlosses=1")

    def test_a_warning_is_no_attempt(self) -> None:
        self.running().ask(req(29, H1, b"careful"))
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.peer().ask(req(18, b"f", b"v", b"x"))
        self.assertEqual(self.attributes(worker), b"")

    def test_the_heartbeat(self) -> None:
        self.serve_function(heartbeat=30)
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.peer().ask(req(18, b"f", b"u", b"x"))
        self.assertEqual(self.attributes(worker), b"heartbeat=30")

    def test_the_span_of_the_submitter(self) -> None:
        """To a worker that asked for it, and to no other."""
        span = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for option, answer in (
            (OUTCOMES, res(1001, H1, b"f", b"u", b"", b"traceparent=" + span, b"x")),
            (HEARTBEAT, res(31, H1, b"f", b"u", b"x")),
        ):
            self.setUp()
            worker = self.worker(b"f")
            worker.ask(req(26, option))
            client = self.peer()
            client.ask(req(26, b"submit-extended"))
            client.ask(req(1007, b"f", b"u", b"background=1\ntraceparent=" + span, b"x"))
            self.assertEqual(worker.ask(req(39)), answer)

    def test_a_time_limit_is_not_told(self) -> None:
        self.serve_function(time_limit=30)
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        self.peer().ask(req(18, b"f", b"u", b"x"))
        self.assertEqual(self.attributes(worker), b"")


class OutcomeTests(ExtensionTestCase):
    def test_a_retry(self) -> None:
        worker = self.running(OUTCOMES)
        self.assertEqual(worker.ask(req(1002, H1, b"1500", b"1", b"busy \0")), b"")
        self.gearman.turn(1.4)
        self.assertEqual(worker.ask(req(9)), res(10))
        self.gearman.turn(0.2)
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"x"))

    def test_an_empty_delay_is_the_functions_backoff(self) -> None:
        self.serve_function(backoff=7, jitter=0.0)
        worker = self.running(OUTCOMES)
        worker.ask(req(1002, H1, b"", b"1", b""))
        self.gearman.turn(6.9)
        self.assertEqual(worker.ask(req(9)), res(10))
        self.gearman.turn(0.2)
        self.assertEqual(worker.ask(req(9)), res(11, H1, b"f", b"x"))

    def test_no_delay_is_too_long(self) -> None:
        """It is cut to what a database still takes for a time."""
        worker = self.running(OUTCOMES)
        self.assertEqual(worker.ask(req(1002, H1, b"9" * 20, b"1", b"")), b"")
        lines = dict(
            line.split(b"\t", 1) for line in self.peer().ask(b"show job " + H1 + b"\n").splitlines()[:-1]
        )
        self.assertEqual(lines[b"state"], b"retrying")
        self.assertLess(float(lines[b"next_run"]), MAX_EPOCH)

    def test_what_is_no_retry_is_refused_and_the_job_runs_on(self) -> None:
        for fields, text in (
            ((b"soon", b"1"), b"Delay is not a decimal number of at most 20 digits"),
            ((b"-1", b"1"), b"Delay must not be negative"),
            ((b"1", b"2"), b"Whether the run counts must be 0 or 1"),
            ((b"1", b""), b"Whether the run counts must be 0 or 1"),
        ):
            with self.subTest(fields):
                self.setUp()
                worker = self.running(OUTCOMES)
                self.assertEqual(worker.ask(req(1002, H1, *fields, b"why")), error(b"INVALID_ARGUMENT", text))
                self.assertEqual(worker.ask(req(13, H1, b"")), b"")

    def test_a_rejection(self) -> None:
        self.serve_function(attempts=5)
        worker = self.running(OUTCOMES)
        self.assertEqual(worker.ask(req(1003, H1, b"no such user")), b"")
        self.assertEqual(self.peer().ask(b"show dead\n").split(b"\t")[5:], [b"failed", b"no such user\n.\n"])

    def test_clients_that_asked_for_exceptions_get_the_text(self) -> None:
        """The three packets with a text: each is WORK_FAIL to others, and without a text to all."""
        for number, fields in ((1008, ()), (1003, ()), (1002, (b"", b"1"))):
            for option, text, news in (
                (EXCEPTIONS, b"why", res(25, H1, b"why")),
                (EXCEPTIONS, b"", res(14, H1)),
                (OUTCOMES, b"why", res(14, H1)),
            ):
                with self.subTest((number, option, text)):
                    self.setUp()
                    client = self.peer()
                    client.ask(req(26, option))
                    client.ask(req(7, b"f", b"u", b"x"))
                    worker = self.worker(b"f")
                    worker.ask(req(26, OUTCOMES))
                    worker.ask(req(39))
                    self.assertEqual(worker.ask(req(number, H1, *fields, text)), b"")
                    self.assertEqual(client.heard(), news)

    def test_a_job_that_is_not_the_workers(self) -> None:
        self.running(OUTCOMES)
        worker = self.worker(b"f")
        worker.ask(req(26, OUTCOMES))
        for number, fields in ((1008, ()), (1003, ()), (1002, (b"", b"1"))):
            self.assertEqual(
                worker.ask(req(number, H1, *fields, b"why")),
                error(b"JOB_NOT_FOUND", b"Job given in work result not found"),
            )


class HeartbeatTests(ExtensionTestCase):
    def test_a_worker_that_says_nothing_loses_its_job(self) -> None:
        self.serve_function(heartbeat=10)
        worker = self.running(HEARTBEAT, CANCEL)
        for _ in range(5):
            self.gearman.turn(9)
            self.assertEqual(worker.ask(req(1004, H1)), b"")
        self.gearman.turn(9)
        other = self.worker(b"f")
        self.assertEqual(other.ask(req(9)), res(10))
        self.gearman.turn(1.1)
        self.assertEqual(worker.heard(), res(1000, H1, b"silent"))
        self.assertEqual(other.ask(req(9)), res(11, H1, b"f", b"x"))
        self.assertEqual(worker.ask(req(1004, H1), req(13, H1, b"late"), req(16, b"echo")), res(17, b"echo"))

    def test_a_worker_of_others_keeps_its_job_by_a_status(self) -> None:
        """And gets no packet that it does not know when it loses it."""
        self.serve_function(heartbeat=10)
        worker = self.running()
        for done in range(5):
            self.gearman.turn(9)
            self.assertEqual(worker.ask(req(12, H1, b"%d" % done, b"5")), b"")
        self.gearman.turn(11)
        self.assertEqual(worker.heard(), b"")
        self.assertEqual(self.worker(b"f").ask(req(9)), res(11, H1, b"f", b"x"))
        self.assertEqual(worker.ask(req(13, H1, b"late"), req(16, b"echo")), res(17, b"echo"))

    def test_clients_do_not_hear_of_it(self) -> None:
        client = self.peer()
        client.ask(req(7, b"f", b"u", b"x"))
        worker = self.worker(b"f")
        worker.ask(req(26, HEARTBEAT))
        worker.ask(req(9))
        self.assertEqual((worker.ask(req(1004, H1)), client.heard()), (b"", b""))

    def test_a_job_that_is_not_the_workers(self) -> None:
        worker = self.running(HEARTBEAT)
        self.assertEqual(worker.ask(req(1004, b"H:test:9"), req(16, b"echo")), res(17, b"echo"))


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
        text = b"GET_RESULT needs the option results, ask for it by OPTION_REQ"
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

    def test_a_job_says_for_how_long_for_itself(self) -> None:
        """In a function that keeps results, and in one that keeps none."""
        peer = self.asker()
        peer.ask(req(26, SUBMIT_EXTENDED))
        worker = self.worker(b"f", b"g")
        for number, (function, seconds) in enumerate(
            ((b"f", b"10"), (b"g", b"10"), (b"f", b"0"), (b"g", b"0")), 1
        ):
            with self.subTest(function + seconds):
                handle = b"H:test:%d" % number
                said = b"background=1\nkeep_result=" + seconds
                self.assertEqual(peer.ask(req(1007, function, b"", said, b"x")), res(8, handle))
                worker.ask(req(9), req(28, handle, b"part "), req(13, handle, b"end"))
                gone = res(1006, handle, b"gone", b"completed", b"")
                if seconds == b"10":
                    kept = res(1006, handle, b"completed", b"", b"part end")
                    self.assertEqual(peer.ask(req(1005, handle, b"0")), kept)
                    self.pass_time(10)
                self.assertEqual(peer.ask(req(1005, handle, b"0")), gone)

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


class ResultOfOneJobTests(ResultCase):
    """What a submit says of its own result holds before what is said of the function."""

    def result(self, function: bytes, attributes: bytes) -> bytes:
        """What a client that asks is told of a completed job with these attributes."""
        self.setUp()
        client, worker = self.asker(), self.worker(function)
        client.ask(req(26, SUBMIT_EXTENDED))
        client.ask(req(1007, function, b"", b"background=1\n" + attributes, b"x"))
        worker.ask(req(9))
        worker.ask(req(28, H1, b"part ") + req(13, H1, b"end"))
        return client.ask(req(1005, H1, b"0"))

    def test_it_is_kept_as_the_submit_says(self) -> None:
        kept = res(1006, H1, b"completed", b"", b"part end")
        gone = res(1006, H1, b"gone", b"completed", b"")
        for function, attributes, answer in (
            (b"f", b"attempts=2", kept),
            (b"f", b"keep_result=0", gone),
            (b"f", b"keep_result=5", kept),
            (b"other", b"keep_result=5", kept),
            (b"other", b"attempts=2", gone),
        ):
            with self.subTest((function, attributes)):
                self.assertEqual(self.result(function, attributes), answer)

    def test_for_as_long(self) -> None:
        self.result(b"f", b"keep_result=5")
        peer = self.asker()
        self.pass_time(4.9)
        self.assertIn(b"completed\0\0part end", peer.ask(req(1005, H1, b"0")))
        self.pass_time(0.2)
        self.assertEqual(peer.ask(req(1005, H1, b"0")), res(1006, H1, b"gone", b"completed", b""))

    def test_what_a_run_that_failed_has_sent_is_no_part_of_it(self) -> None:
        self.setUp()
        client, worker = self.asker(), self.worker(b"other")
        client.ask(req(26, SUBMIT_EXTENDED))
        attributes = b"background=1\nkeep_result=5\nattempts=2\nbackoff=0"
        client.ask(req(1007, b"other", b"", attributes, b"x"))
        worker.ask(req(9))
        worker.ask(req(28, H1, b"first ") + req(14, H1))
        self.gearman.turn(1)
        worker.ask(req(9))
        worker.ask(req(13, H1, b"second"))
        self.assertEqual(client.ask(req(1005, H1, b"0")), res(1006, H1, b"completed", b"", b"second"))
