"""Extensions of the protocol: who has asked for one gets its packets, and nobody else does."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs

from tests.server.peers import Peer, ServerTestCase, error, req, res
from txgearman.access.policy import AccessPolicy, Rule
from txgearman.wire.options import CANCEL, EXTENSIONS

H1 = b"H:test:1"

NOT_FOUND = b"Job given in work result not found"


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
