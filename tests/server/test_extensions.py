"""Extensions of the protocol: who has asked for one gets its packets, and nobody else does."""

from __future__ import annotations

from tests.server.peers import Peer, ServerTestCase, req, res
from txgearman.wire.options import CANCEL, EXTENSIONS

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
