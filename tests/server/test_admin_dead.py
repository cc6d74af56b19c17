"""The admin commands about failed jobs, with workers that fail over the wire."""

from __future__ import annotations

from base64 import b64encode

from tests.server.peers import Peer, ServerTestCase, req
from txgearman.server.config.function_options import FunctionSettings

CAN_DO, GRAB_JOB, WORK_FAIL, WORK_EXCEPTION, SUBMIT_JOB_BG = 1, 9, 14, 25, 18
BACKOFF = 10.0


class DeadJobsTest(ServerTestCase):
    def setUp(self) -> None:
        functions = {"f": FunctionSettings(attempts=2, backoff=BACKOFF, jitter=0.0)}
        self.gearman = self.serve(functions=functions)
        self.admin = self.peer()
        self.worker: Peer = self.peer()
        self.worker.ask(req(CAN_DO, b"f"), req(CAN_DO, b"g h"))

    def ask(self, line: bytes) -> bytes:
        return self.admin.ask(line + b"\n")

    def submit(self, function: bytes = b"f", unique: bytes = b"", data: bytes = b"data") -> None:
        self.admin.ask(req(SUBMIT_JOB_BG, function, unique, data))

    def raise_in(self, handle: bytes, error: bytes = b"oh\tno\nline two") -> None:
        """The worker gets the job, raises as Perl's does, and goes on."""
        self.assertIn(handle, self.worker.ask(req(GRAB_JOB)))
        self.assertEqual(self.worker.ask(req(WORK_EXCEPTION, handle, error), req(WORK_FAIL, handle)), b"")

    def kill(self, handle: bytes, unique: bytes = b"") -> None:
        self.submit(unique=unique)
        self.raise_in(handle)
        self.gearman.clock.advance(BACKOFF)
        self.raise_in(handle)

    def test_show_dead(self) -> None:
        self.assertEqual(self.ask(b"show dead"), b".\n")
        self.kill(b"H:test:1", b"a unique")
        ended = int(self.gearman.clock.seconds())
        line = b"H:test:1\tf\ta unique\t%d\t2\traised\toh\\tno\n" % ended
        for command in (b"show dead", b"SHOW Dead f"):
            self.assertEqual(self.ask(command), line + b".\n")
        self.assertEqual(self.ask(b"show dead g"), b".\n")

    def test_names_may_be_written_with_escapes(self) -> None:
        self.submit(b"g h")
        self.raise_in(b"H:test:1")
        self.assertIn(b"H:test:1\tg h\t", self.ask(b"show dead g\\x20h"))
        self.assertEqual(self.ask(b"forget dead g\\x20h"), b"OK 1\r\n")

    def test_show_job(self) -> None:
        self.assertEqual(self.ask(b"show job H:test:1"), b"ERR UNKNOWN_JOB\r\n")
        self.submit(unique=b"u")
        self.raise_in(b"H:test:1")
        lines = dict(line.split(b"\t", 1) for line in self.ask(b"show job H:test:1").splitlines()[:-1])
        self.assertEqual(
            (lines[b"state"], lines[b"attempts"], lines[b"outcome"], lines[b"unique"]),
            (b"retrying", b"1", b"raised", b"u"),
        )
        self.assertEqual(lines[b"error"], b64encode(b"oh\tno\nline two"))
        self.assertEqual(lines[b"data"], b64encode(b"data"))

    def test_retry(self) -> None:
        self.kill(b"H:test:1", b"u")
        self.assertEqual(self.ask(b"retry job H:test:2"), b"ERR UNKNOWN_JOB\r\n")
        self.assertEqual(self.ask(b"retry job H:test:1"), b"OK\r\n")
        self.assertEqual(self.ask(b"show dead"), b".\n")
        self.raise_in(b"H:test:1")
        self.assertEqual(self.ask(b"retry job H:test:1"), b"OK\r\n", "it waited for its retry")
        self.raise_in(b"H:test:1")
        self.submit(unique=b"u")
        self.assertEqual(self.ask(b"retry job H:test:1"), b"ERR UNIQUE_IN_USE\r\n")

    def test_kill(self) -> None:
        self.submit()
        self.assertEqual(
            self.ask(b"kill job H:test:1"), b"ERR UNKNOWN_JOB\r\n", "it does not wait for a retry"
        )
        self.raise_in(b"H:test:1")
        self.assertEqual(self.ask(b"kill job H:test:1"), b"OK\r\n")
        self.assertIn(b"H:test:1\tf\t\t", self.ask(b"show dead"))

    def test_all_of_a_function(self) -> None:
        for number in range(1, 4):
            self.kill(b"H:test:%d" % number, b"u%d" % number)
        self.submit(unique=b"u2")
        self.assertEqual(self.ask(b"retry dead f"), b"OK 2 skipped 1\r\n")
        self.assertEqual(self.ask(b"forget dead f"), b"OK 1\r\n")
        self.assertEqual(self.ask(b"forget dead f"), b"OK 0\r\n")

    def test_words_that_are_missing_or_wrong(self) -> None:
        for line in (b"retry", b"retry job", b"forget dead", b"kill dead f", b"retry some f"):
            self.assertTrue(self.ask(line).startswith(b"ERR INVALID_ARGUMENTS"), line)
        self.assertEqual(self.ask(b"show job"), b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n")
