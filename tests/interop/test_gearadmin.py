"""Debian's ``gearadmin`` program: what it prints of a server in a known situation."""

from __future__ import annotations

import re

from twisted.trial.unittest import TestCase

from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import Server, run_program, running
from tests.support import needs_program, on_reactor


async def gearadmin(server: Server, *options: str) -> bytes:
    """What ``gearadmin`` prints, to standard output or to standard error. It always exits with 0."""
    code, output, errors = await run_program(
        ["gearadmin", "-h", server.host, "-p", str(server.port), *options]
    )
    assert code == 0, (code, output, errors)
    return output + errors


async def submit_background(server: Server, function: str, *options: str) -> bytes:
    """Queue a job and return its handle."""
    command = ["gearman", "-h", server.host, "-p", str(server.port), "-v", "-b", "-f", function, *options]
    code, output, errors = await run_program(command, b"x")
    assert code == 0, (code, output, errors)
    return output.removeprefix(b"Task created: ").strip()


class Gearadmin(Expectations):
    """Each command against a server of its own, so that whole answers can be compared."""

    @needs_program("gearadmin")
    @on_reactor
    async def test_an_idle_server(self) -> None:
        async with self.serve_alone() as server:
            self.assertEqual(await gearadmin(server, "--status"), b".\n")
            self.assertEqual(await gearadmin(server, "--priority-status"), b".\n")
            self.assertEqual(await gearadmin(server, "--show-jobs"), b".\n")
            self.assertEqual(await gearadmin(server, "--show-unique-jobs"), b".\n")
            self.assertEqual(await gearadmin(server, "--getpid"), f"{server.pid}\n".encode())
            self.assertRegex((await gearadmin(server, "--server-version")).decode(), r"^\S*\d+\.\d+\S*\n$")
            self.assertRegex(
                (await gearadmin(server, "--server-verbose")).decode(),
                r"^(FATAL|ALERT|CRITICAL|ERROR|WARNING|NOTICE|INFO|DEBUG)\n$",
            )

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_workers(self) -> None:
        async with self.serve_alone() as server:
            command = ["gearman", "-w", "-h", server.host, "-p", str(server.port)]
            async with (
                running(*command, "-f", "one", "-f", "two", "--", "cat"),
                running(*command, "-f", "two", "--", "cat"),
            ):
                await server.has("two", workers=2)
                status = await gearadmin(server, "--status")
                priorities = await gearadmin(server, "--priority-status")
                # Connections that are closing are on the list until their close reaches the server.
                lines = (await gearadmin(server, "--workers")).decode().splitlines()
            await server.has("two", workers=0)
        self.assertEqual(sorted(status.splitlines()), [b".", b"one\t0\t0\t1", b"two\t0\t0\t2"])
        self.assertEqual(sorted(priorities.splitlines()), [b".", b"one\t0\t0\t0\t1", b"two\t0\t0\t0\t2"])
        self.assertEqual(lines[-1], ".")
        functions = []
        for line in lines[:-1]:
            match = re.fullmatch(r"(\d+) 127\.0\.0\.1 - :((?: \S+)*)", line)
            assert match is not None, line
            functions.append(sorted(match[2].split()))
        self.assertEqual([names for names in sorted(functions) if names], [["one", "two"], ["two"]])
        self.assertIn([], functions)

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_jobs_in_the_queue(self) -> None:
        async with self.serve_alone() as server:
            high = await submit_background(server, "some", "-u", "u-high", "-I")
            normal = await submit_background(server, "some", "-u", "u-normal")
            low = await submit_background(server, "other", "-u", "u-low", "-L")
            status = await gearadmin(server, "--status")
            priorities = await gearadmin(server, "--priority-status")
            jobs = await gearadmin(server, "--show-jobs")
            uniques = await gearadmin(server, "--show-unique-jobs")
        self.assertEqual(sorted(status.splitlines()), [b".", b"other\t1\t0\t0", b"some\t2\t0\t0"])
        self.assertEqual(sorted(priorities.splitlines()), [b".", b"other\t0\t0\t1\t0", b"some\t1\t1\t0\t0"])
        self.assertEqual(
            sorted(jobs.splitlines()), sorted([b".", *(job + b"\t0\t0\t1" for job in (high, normal, low))])
        )
        self.assertEqual(sorted(uniques.splitlines()), [b".", b"u-high", b"u-low", b"u-normal"])

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_a_foreground_job_in_the_queue(self) -> None:
        async with self.serve_alone() as server:
            client = ["gearman", "-h", server.host, "-p", str(server.port), "-f", "some", "-u", "waits", "-s"]
            async with running(*client):
                await server.has("some", jobs=1)
                jobs = await gearadmin(server, "--show-jobs")
                uniques = await gearadmin(server, "--show-unique-jobs")
        self.assertRegex(jobs.decode(), r"^H:\S+:1\t0\t0\t0\n\.\n$")
        self.assertEqual(uniques, b"waits\n.\n")

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_cancel_a_queued_job(self) -> None:
        async with self.serve_alone() as server:
            handle = (await submit_background(server, "some")).decode()
            self.assertEqual(await gearadmin(server, "--cancel-job", handle), b"OK\n")
            worker = ["gearman", "-w", "-h", server.host, "-p", str(server.port), "-f", "some"]
            async with running(*worker, "--", "sh", "-c", "echo ran >&2") as idle:
                await server.has("some", jobs=0, workers=1)
                self.assertEqual(await gearadmin(server, "--show-jobs"), b".\n")
            self.assertEqual(idle.errors, b"")
            self.assertEqual(await gearadmin(server, "--cancel-job", handle), b"Error: UNKNOWN_JOB\r\n")

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_cancel_fails_the_job_for_its_client(self) -> None:
        async with self.serve_alone() as server:
            client = ["gearman", "-h", server.host, "-p", str(server.port), "-f", "some", "-s"]
            async with running(*client) as waiting:
                await server.has("some", jobs=1)
                handle = (await server.rows("show jobs"))[0][0]
                self.assertEqual(await gearadmin(server, "--cancel-job", handle), b"OK\n")
                code = await waiting.ended()
        self.assertEqual((code, bytes(waiting.errors)), (1, b"Job failed\n"))

    @needs_program("gearadmin", "gearman")
    @on_reactor
    async def test_create_and_drop_functions(self) -> None:
        async with self.serve_alone() as server:
            self.assertEqual(await gearadmin(server, "--create-function", "fresh"), b"OK\n")
            self.assertEqual(await gearadmin(server, "--create-function", "fresh"), b"OK\n")
            self.assertEqual(await gearadmin(server, "--status"), b"fresh\t0\t0\t0\n.\n")
            worker = ["gearman", "-w", "-h", server.host, "-p", str(server.port), "-f", "fresh", "--", "cat"]
            async with running(*worker):
                await server.has("fresh", workers=1)
                self.assertEqual(
                    await gearadmin(server, "--drop-function", "fresh"),
                    b"Error: there are still connected workers or executing clients\r\n",
                )
            await server.has("fresh", workers=0)
            self.assertEqual(await gearadmin(server, "--drop-function", "fresh"), b"OK\n")
            self.assertEqual(await gearadmin(server, "--status"), b".\n")
            self.assertEqual(
                await gearadmin(server, "--drop-function", "fresh"), b"Error: function not found\r\n"
            )


class GearadminTest(OnTxgearman, Gearadmin, TestCase):
    """On our server."""


class GearadminOnGearmandTest(OnGearmand, Gearadmin, TestCase):
    """On gearmand."""
