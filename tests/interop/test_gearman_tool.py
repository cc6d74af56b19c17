"""Debian's ``gearman`` program as client and as worker."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import Server, run_program, running
from tests.support import needs_program, on_reactor

EVERY_BYTE = bytes(range(256))


def gearman(server: Server, *arguments: str) -> list[str]:
    """The command line of ``gearman`` for `server`."""
    return ["gearman", "-h", server.host, "-p", str(server.port), *arguments]


def shell(server: Server, script: str, *options: str) -> list[str]:
    """The command line of a worker that runs the shell `script` for each job."""
    return gearman(server, "-w", *options, "--", "sh", "-c", script)


class GearmanTool(Expectations):
    """What the program does with a server; its own ways are written down where they surprise."""

    @needs_program("gearman")
    @on_reactor
    async def test_foreground(self) -> None:
        function = f"{self.prefix}upper"
        async with self.serve() as server, running(*shell(server, "tr a-z A-Z", "-f", function)):
            ended = await run_program(gearman(server, "-f", function), b"hello")
        self.assertEqual(ended, (0, b"HELLO", b""))

    @needs_program("gearman")
    @on_reactor
    async def test_every_byte_and_a_mebibyte(self) -> None:
        function = f"{self.prefix}same"
        data = EVERY_BYTE * 4096
        with tempfile.NamedTemporaryFile() as file:
            # The program writes the whole workload before it reads, so a plain cat would block it.
            worker = f"cat >{file.name}; cat {file.name}"
            async with self.serve() as server, running(*shell(server, worker, "-f", function)):
                ended = await run_program(gearman(server, "-f", function), data)
        self.assertEqual((ended[0], ended[2]), (0, b""))
        self.assertEqual(len(ended[1]), len(data))
        self.assertTrue(ended[1] == data)

    @needs_program("gearman")
    @on_reactor
    async def test_empty_workload(self) -> None:
        function = f"{self.prefix}count"
        async with self.serve() as server, running(*shell(server, "wc -c", "-f", function)):
            ended = await run_program(gearman(server, "-f", function, "-s"))
        self.assertEqual(ended, (0, b"0\n", b""))

    @needs_program("gearman")
    @on_reactor
    async def test_a_job_for_each_line(self) -> None:
        function = f"{self.prefix}length"
        async with self.serve() as server, running(*shell(server, "wc -c", "-f", function)):
            with_newline = await run_program(gearman(server, "-f", function, "-n"), b"a\nbb\nccc\n")
            without = await run_program(gearman(server, "-f", function, "-N"), b"a\nbb\nccc\n")
        self.assertEqual(with_newline, (0, b"2\n3\n4\n", b""))
        self.assertEqual(without, (0, b"1\n2\n3\n", b""))

    @needs_program("gearman")
    @on_reactor
    async def test_one_workload_for_two_functions(self) -> None:
        upper, length = f"{self.prefix}upper", f"{self.prefix}length"
        async with (
            self.serve() as server,
            running(*shell(server, "tr a-z A-Z", "-f", upper)),
            running(*shell(server, "wc -c", "-f", length)),
        ):
            both = ("-P", "-f", upper, "-f", length)
            code, output, errors = await run_program(gearman(server, *both), b"some\n")
        self.assertEqual((code, errors), (0, b""))
        self.assertEqual(
            sorted(output.splitlines()), sorted([f"{upper}: SOME".encode(), f"{length}: 5".encode()])
        )

    @needs_program("gearman")
    @on_reactor
    async def test_a_worker_that_sends_its_lines_as_they_come(self) -> None:
        function = f"{self.prefix}lines"
        async with self.serve() as server:
            worker = gearman(server, "-w", "-n", "-f", function, "--", "cat")
            async with running(*worker):
                ended = await run_program(gearman(server, "-f", function), b"a\nb\nc\n")
        # Each line is data, and the program repeats its first in the result: so it does on any server.
        self.assertEqual((ended[0], ended[2]), (0, b""))
        self.assertEqual(sorted(set(ended[1].splitlines())), [b"a", b"b", b"c"])

    @needs_program("gearman")
    @on_reactor
    async def test_a_failing_worker(self) -> None:
        function = f"{self.prefix}bad"
        async with self.serve() as server:
            worker = shell(server, "cat >/dev/null; exit 3", "-f", function)
            async with running(*worker):
                ended = await run_program(gearman(server, "-f", function), b"x")
        self.assertEqual(ended, (1, b"", b"Job failed\n"))

    @needs_program("gearman")
    @on_reactor
    async def test_background_jobs_wait_and_go_by_priority(self) -> None:
        function = f"{self.prefix}note"
        async with self.serve() as server:
            with tempfile.TemporaryDirectory() as folder:
                for priority, data in (("-L", b"low "), ("", b"normal "), ("-I", b"high ")):
                    options = ["-b", "-f", function, *([priority] if priority else [])]
                    self.assertEqual(await run_program(gearman(server, *options), data), (0, b"", b""))
                self.assertEqual(await server.status(function), (3, 0, 0))
                notes = Path(folder) / "notes"
                worker = shell(server, f"cat >>{notes}", "-c", "3", "-f", function)
                self.assertEqual((await run_program(worker))[0], 0)
                self.assertEqual(notes.read_bytes(), b"high normal low ")
            await server.has(function, jobs=0, workers=0)

    @needs_program("gearman")
    @on_reactor
    async def test_one_unique_is_one_job(self) -> None:
        function, unique = f"{self.prefix}once", f"{self.prefix}unique"
        async with self.serve() as server:
            submit = gearman(server, "-v", "-b", "-f", function, "-u", unique)
            first = await run_program(submit, b"x")
            second = await run_program(submit, b"x")
            self.assertEqual(await server.status(function), (1, 0, 0))
            self.assertIn([unique], await server.rows("show unique jobs"))
            self.assertEqual((await run_program(shell(server, "cat", "-c", "1", "-f", function)))[0], 0)
            await server.has(function, jobs=0)
        self.assertTrue(first[1].startswith(b"Task created: H:"), first)
        self.assertEqual(second, first)

    @needs_program("gearman")
    @on_reactor
    async def test_two_clients_share_one_job(self) -> None:
        function = f"{self.prefix}shared"
        async with self.serve() as server:
            submit = gearman(server, "-f", function, "-u", f"{self.prefix}unique")
            async with running(*submit) as first, running(*submit) as second:
                for client in (first, second):
                    client.write(b"x")
                    client.transport.closeChildFD(0)
                await server.has(function, jobs=1)
                async with running(*shell(server, "cat; echo $$", "-f", function)):
                    self.assertEqual((await first.ended(), await second.ended()), (0, 0))
        self.assertEqual(first.output, second.output)
        self.assertTrue(first.output.startswith(b"x"), first)

    @needs_program("gearman")
    @on_reactor
    async def test_a_client_that_gives_up(self) -> None:
        function = f"{self.prefix}nobody"
        async with self.serve() as server:
            _, output, errors = await run_program(gearman(server, "-t", "50", "-f", function), b"x")
        self.assertEqual(output, b"")
        self.assertIn(b"GEARMAN_TIMEOUT", errors)


class GearmanToolTest(OnTxgearman, GearmanTool, TestCase):
    """On our server."""


class GearmanToolOnGearmandTest(OnGearmand, GearmanTool, TestCase):
    """On gearmand."""
