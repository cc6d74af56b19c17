"""Completion in a shell, with what real sockets answer."""

from __future__ import annotations

import contextlib
import os
import socketserver
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.programs import HOST
from tests.support import free_port, needs_program, temporary_folder
from txgearman.cli import completion
from txgearman.cli.app import app

LIMIT = 30
OURS, GEARMANDS = b"OK txgearman-1.0\n", b"OK 1.1.20\n"
NAMES = (b"resize", b"report", rb"mail\x20out", rb"odd\tname", "hütte".encode())
STATUS = b"".join([name + b"\t3\t1\t2\n" for name in NAMES]) + b".\n"
JOBS = b"H:a:1\t0\t0\t1\nH:a:12\t0\t0\t0\nH:b:3\t0\t0\t1\n.\n"


class _Handler(socketserver.StreamRequestHandler):
    """Answers each line with what the test says; silent where it says nothing."""

    def handle(self) -> None:
        server: Any = self.server
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                server.asked.append(line)
                answer = server.answers.get(line.strip())
                if answer is None:
                    server.silence.wait(LIMIT)
                else:
                    # In two parts, as a network may bring it.
                    self.wfile.write(answer[:3])
                    self.wfile.write(answer[3:])


@contextlib.contextmanager
def answering(answers: dict[bytes, bytes], path: str | None = None) -> Iterator[Any]:
    """A server that gives these answers to these lines, on a free port or a UNIX socket."""
    base: Any = socketserver.ThreadingTCPServer if path is None else socketserver.ThreadingUnixStreamServer
    with base((HOST, 0) if path is None else path, _Handler) as server:
        server.daemon_threads = True
        server.answers, server.asked, server.silence = answers, [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.silence.set()
            server.shutdown()
            thread.join(LIMIT)


def _address(bound: Any) -> str:
    return f"{HOST}:{bound[1]}" if isinstance(bound, tuple) else f"unix:{bound}"


class CompletionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        # The answers of these servers are there at once; a loaded machine must not make them late.
        self.patch(completion, "ANSWER_SECONDS", LIMIT)

    def completed(self, line: str, *servers: Any, breaks: str = ":") -> list[str]:
        """What is offered for the last word of a line."""
        addresses = [_address(each.server_address) for each in servers]
        environment = {
            "_TXGEARMAN_COMPLETE": "bash_complete",
            "_TXGEARMAN_LINE": line,
            "_TXGEARMAN_BREAKS": breaks,
            "TXGEARMAN_SERVER": " ".join(addresses) or f"{HOST}:{free_port()}",
        }
        ran = CliRunner().invoke(app, [], env=environment, prog_name="txgearman")
        self.assertEqual(ran.exit_code, 0, ran.output)
        return [item.removeprefix("plain,") for item in ran.output.splitlines() if item]


class NamesTest(CompletionTestCase):
    def test_functions(self) -> None:
        with answering({b"version": OURS, b"status": STATUS}) as server:
            self.assertEqual(self.completed("txgearman pause ", server), ["resize", "report", "hütte"])
            self.assertEqual(self.completed("txgearman pause re", server), ["resize", "report"])
            self.assertEqual(self.completed("txgearman pause resize re", server), ["report"])
            for line in (
                "txgearman status rep",
                "txgearman resume rep",
                "txgearman drop rep",
                "txgearman submit rep",
                "txgearman limits rep",
                "txgearman maxqueue rep",
                "txgearman jobs --function rep",
                "txgearman dead -f rep",
                "txgearman retry --function rep",
                "txgearman worker -f rep",
                "txgearman schedules add name --function rep",
                f"txgearman -s {HOST}:{server.server_address[1]} status rep",
                f"txgearman status -s {HOST}:{server.server_address[1]} rep",
            ):
                self.assertEqual(self.completed(line, server), ["report"], line)

    def test_gearmand_escapes_nothing(self) -> None:
        with answering({b"version": GEARMANDS, b"status": b"a\\x62\t1\t0\t0\nb\t1\t0\t0\n.\n"}) as server:
            # A shell would take the backslash for its own.
            self.assertEqual(self.completed("txgearman pause ", server), ["b"])

    def test_handles_have_colons(self) -> None:
        with answering({b"version": OURS, b"show jobs": JOBS}) as server:
            for line, offered in (
                ("txgearman job ", ["H:a:1", "H:a:12", "H:b:3"]),
                ("txgearman job H:", ["a:1", "a:12", "b:3"]),
                ("txgearman job H:a:1", ["1", "12"]),
                ("txgearman cancel H:a:1 H:a:", ["12"]),
                ("txgearman jobs H:b", ["b:3"]),
                ("txgearman result X", []),
            ):
                self.assertEqual(self.completed(line, server), offered, line)
            self.assertEqual(self.completed("txgearman job H:b", server, breaks=" \t\n"), ["H:b:3"])

    def test_others(self) -> None:
        workers = b"7 127.0.0.1 - : resize\n12 127.0.0.1 painter : a b\n13 127.0.0.1 - :\n.\n"
        answers = {
            b"version": OURS,
            b"show dead": b"H:a:9\tf\t\t1\t1\tfailed\t\n.\n",
            b"show schedules": b"nightly\tf\tx\tUTC\tactive\t1\t-\t0\t0\t0\t0\n.\n",
            b"workers": workers,
        }
        with answering(answers) as server:
            self.assertEqual(self.completed("txgearman retry H", server), ["H:a:9"])
            self.assertEqual(self.completed("txgearman forget ", server), ["H:a:9"])
            self.assertEqual(self.completed("txgearman schedules run n", server), ["nightly"])
            self.assertEqual(self.completed("txgearman schedules pause ", server), ["nightly"])
            self.assertEqual(self.completed("txgearman quiet ", server), ["7", "12"])

    def test_several_servers(self) -> None:
        first = {b"version": OURS, b"status": b"a1\t0\t0\t0\nb\t0\t0\t0\n.\n"}
        second = {b"version": GEARMANDS, b"status": b"a1\t0\t0\t0\na2\t0\t0\t0\n.\n"}
        with answering(first) as one, answering(second) as two:
            self.assertEqual(self.completed("txgearman pause a", one, two), ["a1", "a2"])

    def test_a_unix_socket(self) -> None:
        path = temporary_folder(self) / "socket"
        with answering({b"version": OURS, b"status": STATUS}, str(path)) as server:
            self.assertEqual(self.completed("txgearman pause rep", server), ["report"])

    def test_so_many_and_no_more(self) -> None:
        rows = b"".join([b"f%d\t0\t0\t0\n" % number for number in range(completion.MAX_ITEMS + 10)])
        with answering({b"version": OURS, b"status": rows + b".\n"}) as server:
            self.assertEqual(len(self.completed("txgearman pause f", server)), completion.MAX_ITEMS)

    def test_a_long_answer_is_read_in_part(self) -> None:
        self.patch(completion, "MAX_BYTES", 100)
        rows = b"".join([b"function-%d\t0\t0\t0\n" % number for number in range(100_000)])
        with answering({b"version": OURS, b"status": rows}) as server:
            offered = self.completed("txgearman pause f", server)
        self.assertIn("function-0", offered)
        self.assertTrue(set(offered) < {f"function-{number}" for number in range(100_000)})


class NoAnswerTest(CompletionTestCase):
    """The shell is never kept waiting, and never told of an error."""

    def test_a_server_that_is_silent(self) -> None:
        self.patch(completion, "ANSWER_SECONDS", 0.01)
        for answers in ({}, {b"version": OURS}):
            with answering(answers) as server:
                self.assertEqual(self.completed("txgearman pause f", server), [])

    def test_no_server(self) -> None:
        self.assertEqual(self.completed("txgearman pause f"), [])

    def test_answers_without_names(self) -> None:
        for answer in (b"ERR ACCESS_DENIED You+may+not\r\n", b".\n"):
            with answering({b"version": OURS, b"status": answer}) as server:
                self.assertEqual(self.completed("txgearman pause ", server), [])

    def test_addresses_that_are_none(self) -> None:
        for server in ("haproxy:tcp:h:1", "tcp:h:port", "tcp:h", "odd:1:2", "tls:127.0.0.1:1", ""):
            with self.assertRaises(OSError):
                completion._connect(server)


class ShellTest(SynchronousTestCase):
    """The scripts, in real shells."""

    def said_by(self, *command: str) -> list[str]:
        """What a shell writes of which ``txgearman`` is this one, and which has a server with `JOBS`."""
        folder = temporary_folder(self)
        program = folder / "txgearman"
        # A loaded machine must not make the answer late.
        code = f"from txgearman.cli import completion, main; completion.ANSWER_SECONDS = {LIMIT}; main()"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        with answering({b"version": OURS, b"show jobs": JOBS}) as server:
            environment = {
                **os.environ,
                "HOME": str(folder),
                "PATH": f"{folder.resolve()}{os.pathsep}{os.environ['PATH']}",
                "TXGEARMAN_SERVER": f"{HOST}:{server.server_address[1]}",
            }
            ran = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return ran.stdout.splitlines()

    def test_bash(self) -> None:
        lines = """
            eval "$(txgearman completion bash)"
            complete -p txgearman
            for COMP_LINE in "txgearman job H:a:1" "txgearman submi"; do
                COMP_POINT=${#COMP_LINE}
                _txgearman_completion txgearman 2>&1
                printf '%s;' "${COMPREPLY[@]}"
                echo
            done
        """
        self.assertEqual(
            self.said_by("bash", "--norc", "-c", lines),
            ["complete -o nosort -F _txgearman_completion txgearman", "1;12;", "submit;"],
        )

    @needs_program("zsh")
    def test_zsh(self) -> None:
        # What a terminal's line editor has in place of these shows what it is given, and keeps it to itself.
        lines = """
            compdef() { echo "compdef $@" }
            compadd() { echo "${(Pj:;:)@[-1]}" }
            _describe() { echo "${(Pj:;:)@[-2]}" }
            eval "$(txgearman completion zsh)"
            words=(txgearman job H:a:1) CURRENT=3; _txgearman_completion
            words=(txgearman submi) CURRENT=2; _txgearman_completion
        """
        self.assertEqual(
            self.said_by("zsh", "-f", "-c", lines),
            [
                "compdef _txgearman_completion txgearman",
                "H:a:1;H:a:12",
                "submit:Submit jobs and show their results.",
            ],
        )

    @needs_program("fish")
    def test_fish(self) -> None:
        lines = """
            txgearman completion fish | source
            complete -C "txgearman job H:a:1"
            complete -C "txgearman submi"
        """
        self.assertEqual(
            self.said_by("fish", "--no-config", "-c", lines),
            ["H:a:1", "H:a:12", "submit\tSubmit jobs and show their results."],
        )
