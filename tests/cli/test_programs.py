"""A program for each job: real ones, in this thread and others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import temporary_folder
from txgearman.cli.programs import ERROR_BYTES, ProgramRunner
from txgearman.errors import FailJob, JobOver, Reject, Retry

SOON = 10
"""Seconds after which what should have happened did not."""

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(eq=False)
class Work:
    """A job that records what is sent for it; `over` is after how many parts nobody waits any more."""

    data: bytes = b""
    handle: bytes = b"H:test:1"
    function: bytes = b"f"
    unique: bytes = b"u"
    over: int | None = None
    attempt: int | None = None
    losses: int | None = None
    traceparent: str | None = None
    sent: list[bytes] = field(default_factory=list)
    sending: threading.Event = field(default_factory=threading.Event)

    def send_data(self, data: bytes) -> None:
        if self.over is not None and len(self.sent) >= self.over:
            raise JobOver("over")
        self.sent.append(data)
        self.sending.set()


def commands(*arguments: str, lines: bool = False) -> ProgramRunner:
    return ProgramRunner(arguments, lines)


class CommandsTest(SynchronousTestCase):
    def assertFails(self, ran: ProgramRunner, said: str, work: Work | None = None) -> None:
        with self.assertRaises(FailJob) as caught:
            ran.run(work or Work())
        self.assertIn(said, str(caught.exception))

    def test_a_program_with_arguments(self) -> None:
        self.assertEqual(commands("tr", "a-z", "A-Z").run(Work(b"hello")), b"HELLO")

    def test_a_line_for_the_shell(self) -> None:
        self.assertEqual(commands("tr a-z A-Z | rev").run(Work(b"hello")), b"OLLEH")

    def test_every_byte_and_more_than_a_pipe_holds(self) -> None:
        data = bytes(range(256)) * 4096
        self.assertTrue(commands("cat").run(Work(data)) == data)
        self.assertEqual(commands("wc", "-c").run(Work(data)).strip(), b"%d" % len(data))

    def test_a_program_that_reads_nothing(self) -> None:
        for lines in (False, True):
            work = Work(b"x" * 1_000_000)
            result = commands("true", lines=lines).run(work)
            self.assertEqual((result, work.sent), (b"", []))

    def test_what_it_is_told_of_the_job(self) -> None:
        line = 'printf "%s %s %s" "$TXGEARMAN_HANDLE" "$TXGEARMAN_FUNCTION" "$TXGEARMAN_UNIQUE"'
        work = Work(handle=b"H:x:7", function="größe".encode(), unique=b"\xff")
        self.assertEqual(commands(line).run(work), b"H:x:7 gr\xc3\xb6\xc3\x9fe \xff")

    def test_which_attempt_it_is(self) -> None:
        line = 'printf "%s %s" "${TXGEARMAN_ATTEMPT-none}" "${TXGEARMAN_LOSSES-none}"'
        self.assertEqual(commands(line).run(Work(attempt=3, losses=0)), b"3 0")
        # A worker may be the program of another job.
        os.environ["TXGEARMAN_ATTEMPT"] = os.environ["TXGEARMAN_LOSSES"] = "7"
        self.addCleanup(os.environ.pop, "TXGEARMAN_ATTEMPT")
        self.addCleanup(os.environ.pop, "TXGEARMAN_LOSSES")
        self.assertEqual(commands(line).run(Work()), b"none none")

    def test_the_span_that_it_belongs_to(self) -> None:
        line = 'printf "%s" "${TRACEPARENT-none}"'
        self.assertEqual(commands(line).run(Work(traceparent=TRACEPARENT)), TRACEPARENT.encode())
        os.environ["TRACEPARENT"] = TRACEPARENT
        self.addCleanup(os.environ.pop, "TRACEPARENT")
        self.assertEqual(commands(line).run(Work()), b"none")

    def test_what_a_program_decides(self) -> None:
        """By the exit codes of sysexits.h."""
        with self.assertRaises(Retry) as retry:
            commands("exit 75").run(Work())
        error = retry.exception
        self.assertEqual((error.delay, error.counts), (None, True))
        self.assertEqual(error.text, "the command ended with exit code 75")
        with self.assertRaises(Reject) as reject:
            commands("echo some; exit 65", lines=True).run(Work())
        self.assertEqual(reject.exception.text, "the command ended with exit code 65")

    def test_failures(self) -> None:
        self.assertFails(commands("exit 3"), "ended with exit code 3")
        self.assertFails(commands("kill -TERM $$"), "was ended by SIGTERM")
        self.assertFails(commands("echo some; false"), "exit code 1")
        self.assertFails(commands("echo some; false", lines=True), "exit code 1")

    def test_the_submitter_is_told_what_it_wrote_to_standard_error(self) -> None:
        for line, data in (
            ("echo one >&2; echo two >&2; exit 3", b"the command ended with exit code 3\none\ntwo"),
            ("echo result; exit 3", b"the command ended with exit code 3"),
            ("echo why >&2; kill -KILL $$", b"the command was ended by SIGKILL\nwhy"),
        ):
            for lines in (False, True):
                with self.assertRaises(FailJob) as caught:
                    commands(line, lines=lines).run(Work())
                self.assertEqual(caught.exception.data, data)
        with self.assertRaises(Retry) as retry:
            commands("echo busy >&2; exit 75").run(Work())
        self.assertEqual(retry.exception.text, "the command ended with exit code 75\nbusy")
        with self.assertRaises(Reject) as reject:
            commands("printf '\\377' >&2; exit 65").run(Work())
        self.assertEqual(reject.exception.text, "the command ended with exit code 65\n\\xff")

    def test_only_the_end_of_standard_error_is_kept(self) -> None:
        # Characters of two bytes, and one byte more: the first one that is kept would be cut.
        line = f"printf 'é%.0s' $(seq {ERROR_BYTES}) >&2; printf x >&2; exit 1"
        with self.assertRaises(FailJob) as caught:
            commands(line).run(Work())
        data = caught.exception.data
        assert data is not None
        kept = data.partition(b"\n")[2]
        self.assertEqual(kept.decode(), "é" * (ERROR_BYTES // 2 - 1) + "x")

    def test_standard_error_is_passed_on_to_that_of_this_process(self) -> None:
        code = (
            "from tests.cli.test_programs import commands, Work\n"
            "commands('echo one >&2; echo two >&2').run(Work())\n"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SOON, check=True)
        self.assertEqual((ran.stdout, ran.stderr), (b"", b"one\ntwo\n"))

    def test_nobody_waits_for_a_child_that_holds_standard_error(self) -> None:
        fifo = temporary_folder(self) / "fifo"
        os.mkfifo(fifo)
        with self.assertRaises(FailJob) as caught:
            commands(f"cat {fifo} >/dev/null & echo why >&2; exit 1").run(Work())
        self.assertEqual(caught.exception.data, b"the command ended with exit code 1\nwhy")
        with open(fifo, "wb"):
            pass  # the child reads the end of it, and ends

    def test_a_program_that_is_not_there(self) -> None:
        with self.assertRaises(FileNotFoundError):
            commands("/nowhere/nothing", "x").run(Work())

    def test_lines_are_sent_as_they_come(self) -> None:
        work = Work(b"a\nb\nc")
        self.assertEqual(commands("cat", lines=True).run(work), b"")
        self.assertEqual(work.sent, [b"a\n", b"b\n", b"c"])

    def test_a_line_is_sent_before_the_next_is_there(self) -> None:
        work = Work()
        ran = commands("echo one; exec sleep 60", lines=True)
        thread = threading.Thread(target=self.assertFails, args=(ran, "SIGKILL", work))
        thread.start()
        self.assertTrue(work.sending.wait(SOON))
        ran.kill(work)
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
        self.assertEqual(work.sent, [b"one\n"])

    def test_nobody_waits_any_more(self) -> None:
        """The program would go on for ever; it is killed, with what it started."""
        with self.assertRaises(JobOver):
            commands("yes | cat", lines=True).run(Work(over=1))

    def test_what_the_program_started_is_killed_too(self) -> None:
        """The pipe is held by a child of the shell, and only its end lets the job end."""
        work = Work()
        ran = commands("echo up; sleep 60; true", lines=True)
        thread = threading.Thread(target=self.assertFails, args=(ran, "SIGKILL", work))
        thread.start()
        self.assertTrue(work.sending.wait(SOON))
        ran.kill(work)
        thread.join(SOON)
        self.assertFalse(thread.is_alive())

    def test_a_program_may_end_by_itself_when_it_is_told_to(self) -> None:
        work = Work()
        ran = commands("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done", lines=True)
        thread = threading.Thread(target=self.assertFails, args=(ran, "exit code 3", work))
        thread.start()
        self.assertTrue(work.sending.wait(SOON))
        ran.terminate(work)
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
        self.assertEqual(work.sent, [b"up\n", b"bye\n"])

    def test_a_program_whose_job_was_told_to_end_is_not_started(self) -> None:
        work = Work()
        ran = commands("echo up", lines=True)
        ran.terminate(work)
        self.assertFails(ran, "not started", work)

    def test_killing_another_job_s_program_is_not_ours(self) -> None:
        ran = commands("cat")
        ran.kill(Work())
        self.assertEqual(ran.run(Work(b"x")), b"x")

    def test_a_program_whose_job_was_given_up_is_not_started(self) -> None:
        """Its job waited for a thread; nobody would end the program."""
        work = Work()
        ran = commands("echo up", lines=True)
        ran.kill(work)
        self.assertFails(ran, "not started", work)
        self.assertEqual(work.sent, [])

    def test_the_end_kills_all_and_starts_no_more(self) -> None:
        ran = commands("echo up; exec sleep 60", lines=True)
        works = [Work(), Work()]
        threads = [threading.Thread(target=self.assertFails, args=(ran, "SIGKILL", work)) for work in works]
        for thread, work in zip(threads, works, strict=True):
            thread.start()
            self.assertTrue(work.sending.wait(SOON))
        ran.end()
        for thread in threads:
            thread.join(SOON)
            self.assertFalse(thread.is_alive())
        self.assertFails(ran, "not started")

    def test_the_end_kills_a_program_that_is_just_starting(self) -> None:
        """Behind `end` the process may be gone: what is not killed then is never killed."""
        ran = commands("sleep 60")
        killed_by_the_end: list[int] = []
        returned = threading.Event()

        def end() -> None:
            ran.end()
            killed_by_the_end.extend(killed)
            returned.set()

        killed: list[int] = []
        ending = threading.Thread(target=end)
        popen, killpg = subprocess.Popen, os.killpg

        def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            process = popen(*arguments, **options)
            ending.start()
            # It must not return yet; an `end` that does not wait for the start would, within microseconds.
            returned.wait(0.05)
            return process

        def kill(group: int, number: int) -> None:
            killed.append(group)
            killpg(group, number)

        self.patch(subprocess, "Popen", start)
        self.patch(os, "killpg", kill)
        self.assertFails(ran, signal.SIGKILL.name)
        ending.join(SOON)
        self.assertEqual(len(killed_by_the_end), 1)
