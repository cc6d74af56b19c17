"""The commands on real servers, ours and gearmand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.trial.unittest import TestCase

from tests.cli.running import COMMAND, Ended, at_work, command, process
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.interop.programs import HOST, Server, run_program, running, until
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.support import free_port, needs_program, on_reactor
from txgearman.cli import dead_jobs
from txgearman.cli.exit_codes import ExitCode


def rows(ended: Ended) -> list[dict[str, Any]]:
    """What a command with --json wrote: one array, or a line for each job."""
    text = ended.output.decode()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def _words(line: str) -> list[str]:
    """The words of a command line; those of a command in a group are one, as `command` takes them."""
    words = line.split()
    return [" ".join(words[:2]), *words[2:]] if words[0] == "schedules" else words


class Submitting(Expectations):
    """What ``submit`` does with a worker on the other side."""

    @on_reactor
    async def test_one_job(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            by_argument = await command(server, "submit", f"{self.prefix}upper", "grün")
            by_stdin = await command(server, "submit", f"{self.prefix}upper", stdin=b"a\nb\0\n")
            empty = await command(server, "submit", f"{self.prefix}upper", "")
        self.assertEqual(by_argument, Ended(0, "GRüN".encode(), ""))
        self.assertEqual(by_stdin, Ended(0, b"A\nB\0\n", ""))
        self.assertEqual(empty, Ended(0, b"", ""))

    @on_reactor
    async def test_data_and_warnings(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            plain = await command(server, "submit", f"{self.prefix}chatty", "x")
            as_json = await command(server, "submit", f"{self.prefix}chatty", "x", "--json")
        self.assertEqual(plain, Ended(0, b"one\n\xffend", "warning: care\\x1b[2J!\n"))
        (row,) = rows(as_json)
        self.assertRegex(row.pop("handle"), r"^H:.+:\d+$")
        self.assertEqual(
            row,
            {
                "number": 1,
                "function": f"{self.prefix}chatty",
                "server": server.endpoint,
                "outcome": "completed",
                "result_base64": "b25lCv9lbmQ=",
                "warnings": ["care\x1b[2J!\n"],
            },
        )

    @on_reactor
    async def test_a_job_that_fails(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            failed = await command(server, "submit", f"{self.prefix}upper", "bad")
            raised = await command(server, "submit", f"{self.prefix}boom", "x")
            as_json = await command(server, "submit", f"{self.prefix}boom", "x", "--json")
        self.assertEqual((failed.code, failed.output), (ExitCode.JOB_FAILED, b""))
        self.assertRegex(failed.errors, r"^txgearman: job H:\S+ failed\n$")
        self.assertEqual((raised.code, raised.output), (ExitCode.JOB_FAILED, b""))
        self.assertRegex(raised.errors, r"^txgearman: job H:\S+ raised: ValueError: no such thing\n$")
        self.assertEqual(as_json.code, ExitCode.JOB_FAILED)
        (row,) = rows(as_json)
        self.assertEqual(row["outcome"], "raised")
        self.assertIn("no such thing", row["error"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    @on_reactor
    async def test_many_jobs_in_their_order(self) -> None:
        lines = b"".join(b"line %d\n" % number for number in range(200))
        async with self.serve() as server, at_work(server, self.prefix):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "lines"
                path.write_bytes(lines)
                by_lines = await command(server, "submit", f"{self.prefix}upper", "-l", "-f", str(path))
                files = await command(server, "submit", f"{self.prefix}upper", *["-f", str(path)] * 2)
            arguments = await command(server, "submit", f"{self.prefix}upper", "a", "b", "--jobs", "1")
        self.assertEqual(by_lines, Ended(0, lines.upper(), ""))
        self.assertEqual(files, Ended(0, lines.upper() * 2, ""))
        self.assertEqual(arguments, Ended(0, b"A\nB\n", ""))

    @on_reactor
    async def test_some_of_many_fail(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            plain = await command(server, "submit", f"{self.prefix}upper", "a", "bad", "c")
            as_json = await command(server, "submit", f"{self.prefix}upper", "a", "bad", "c", "--json")
        self.assertEqual((plain.code, plain.output), (ExitCode.JOB_FAILED, b"A\nC\n"))
        self.assertRegex(
            plain.errors, r"^txgearman: job 2: job H:\S+ failed\ntxgearman: 1 of 3 jobs gave no result\n$"
        )
        self.assertEqual(as_json.code, ExitCode.JOB_FAILED)
        self.assertEqual([row["outcome"] for row in rows(as_json)], ["completed", "failed", "completed"])

    @on_reactor
    async def test_time_limit(self) -> None:
        async with self.serve() as server:
            one = await command(server, "submit", f"{self.prefix}nobody", "x", "--timeout", "50ms")
            many = await command(
                server, "submit", f"{self.prefix}nobody", "x", "y", "--timeout", "50ms", "--json"
            )
        self.assertEqual((one.code, one.output), (ExitCode.TIMED_OUT, b""))
        self.assertEqual(one.errors, "txgearman: no result within 0.05 seconds; the job may still run\n")
        self.assertEqual(many.code, ExitCode.JOB_FAILED)
        self.assertEqual([row["outcome"] for row in rows(many)], ["timed-out"] * 2)

    @on_reactor
    async def test_background(self) -> None:
        function = f"{self.prefix}later"
        async with self.serve() as server:
            one = await command(server, "submit", function, "x", "--background", "--priority", "high")
            two = await command(server, "submit", function, "x", "y", "-b", "--json")
            joined = [await command(server, "submit", function, "x", "-b", "-u", function) for _ in range(2)]
            later = await command(server, "submit", function, "x", "--at", "+1h")
            waiting = await server.status(function)
        self.assertRegex(one.output, rb"^H:\S+\n$")
        self.assertEqual([row["outcome"] for row in rows(two)], ["accepted"] * 2)
        self.assertEqual(joined[0].output, joined[1].output)
        self.assertRegex(later.output, rb"^H:\S+\n$")
        self.assertEqual(waiting, (5, 0, 0))

    @on_reactor
    async def test_what_only_the_client_sees_is_wrong(self) -> None:
        async with self.serve() as server:
            ended = await command(server, "submit", "f", "x", "--unique", "k" * 65)
        self.assertEqual(ended.code, ExitCode.USAGE)
        self.assertEqual(len(ended.errors.splitlines()), 1)

    @on_reactor
    async def test_a_full_queue(self) -> None:
        function = f"{self.prefix}full"
        async with self.serve() as server:
            await command(server, "submit", function, "x", "-b")
            limited = await command(server, "maxqueue", function, "1")
            refused = await command(server, "submit", function, "y", "-b")
            both_refused = await command(server, "submit", function, "y", "z", "-b")
            lifted = await command(server, "maxqueue", function, "none")
            taken = await command(server, "submit", function, "y", "-b")
        self.assertEqual(limited, Ended(0, f"{function} has at most 1 job\n".encode(), ""))
        self.assertEqual(lifted, Ended(0, f"{function} has no limit of its jobs\n".encode(), ""))
        self.assertEqual(refused.code, ExitCode.REFUSED)
        self.assertIn("QUEUE", refused.errors)
        self.assertTrue(
            both_refused.errors.endswith("txgearman: 2 of 2 jobs were not accepted\n"), both_refused
        )
        self.assertEqual(taken.code, 0)


class Asking(Expectations):
    """What the commands say that look at a server."""

    @on_reactor
    async def test_status(self) -> None:
        function = f"{self.prefix}waiting"
        async with self.serve() as server:
            await command(server, "submit", function, "x", "-b")
            as_json = await command(server, "status", function, "--json")
            plain = await command(server, "status", function)
            everything = await command(server, "status", "--json")
            unknown = await command(server, "status", f"{self.prefix}unknown")
        ours = self.kind != "gearmand"
        row = {
            "server": server.endpoint,
            "function": function,
            "state": "active" if ours else None,
            "queued": 1,
            "scheduled": 0 if ours else None,
            "retrying": 0 if ours else None,
            "running": 0,
            "dead": 0 if ours else None,
            "workers": 0,
        }
        self.assertEqual(rows(as_json), [row])
        self.assertIn(row, rows(everything))
        shown = [line.split() for line in plain.output.decode().splitlines()]
        titles = [title.capitalize() for title in row][1:]
        cells = ["-" if cell is None else f"{cell}" for cell in row.values()][1:]
        self.assertEqual(shown, [titles, cells])
        said = f"txgearman: no server knows the function {self.prefix}unknown\n"
        self.assertEqual(unknown, Ended(ExitCode.REFUSED, b"", said))

    @on_reactor
    async def test_names_of_any_kind(self) -> None:
        # A line feed in a name made the list of gearmand unreadable as a whole.
        names = ["sp ace", "App\\tasks", "two\nlines", "tab\t", "ERR x", "\x1b[2J", "a\u202eb", "ordinary"]
        async with self.serve_alone() as server:
            line = await connect(server.port)
            await line.say(*(req(1, name.encode()) for name in names))
            everything = await command(server, "status", "--json")
            some = [await command(server, "status", name, "--json") for name in names]
            plain = await command(server, "status")
            await close(line)
        self.assertEqual([row["function"] for row in rows(everything)], sorted(names))
        self.assertEqual(
            [[row["function"] for row in rows(ended)] for ended in some], [[name] for name in names]
        )
        shown = plain.output.decode()
        for text in ("sp ace ", r"App\tasks ", r"two\nlines ", r"\x1b[2J ", r"a\u202eb "):
            self.assertIn(text, shown)
        self.assertEqual(len(shown.splitlines()), len(names) + 1)

    @on_reactor
    async def test_workers(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            as_json = await command(server, "workers", "--json")
            plain = await command(server, "workers")
            everyone = await command(server, "workers", "--all", "--json")
        (row,) = [row for row in rows(as_json) if f"{self.prefix}upper" in row["functions"]]
        self.assertEqual(set(row["functions"]), {self.prefix + name for name in ("upper", "chatty", "boom")})
        self.assertEqual(row["host"], HOST)
        self.assertIn(f"{self.prefix}upper".encode(), plain.output)
        self.assertGreater(len(rows(everyone)), len(rows(as_json)))

    @on_reactor
    async def test_jobs_and_their_end(self) -> None:
        function = f"{self.prefix}waiting"
        async with self.serve() as server:
            handle = (await command(server, "submit", function, "x", "-b")).output.decode().strip()
            everything = await command(server, "jobs", "--json")
            one = await command(server, "jobs", handle, "--json")
            cancelled = await command(server, "cancel", handle)
            unknown = await command(server, "jobs", "H:none:1")
            not_there = await command(server, "cancel", "H:none:1")
            nonsense = await command(server, "cancel", "a b")
        (row,) = [row for row in rows(everything) if row["handle"] == handle]
        self.assertTrue(row["background"])
        ours = self.kind != "gearmand"
        known = (row["function"], row["state"], row["size"], row["priority"])
        self.assertEqual(known, (function, "queued", 1, "normal") if ours else (None,) * 4)
        (row,) = rows(one)
        self.assertEqual((row["handle"], row["state"], row["server"]), (handle, "waiting", server.endpoint))
        self.assertEqual(cancelled, Ended(0, f"{handle} cancelled\n".encode(), ""))
        said = "txgearman: no server knows the job H:none:1; it has ended, or never was\n"
        self.assertEqual(unknown, Ended(ExitCode.REFUSED, b"", said))
        self.assertEqual(not_there, Ended(ExitCode.REFUSED, b"", said))
        self.assertEqual(nonsense.code, ExitCode.USAGE)

    @on_reactor
    async def test_version_and_ping(self) -> None:
        async with self.serve() as server:
            plain = await command(server, "version")
            as_json = await command(server, "version", "--json")
            ping = await command(server, "ping")
            ping_json = await command(server, "ping", "--json")
            known = (await server.ask("version")).decode().strip().removeprefix("OK ")
        self.assertEqual(plain, Ended(0, f"{known}\n".encode(), ""))
        self.assertEqual(rows(as_json), [{"server": server.endpoint, "version": known}])
        self.assertRegex(ping.output.decode(), rf"^{re.escape(server.endpoint)} answered in \d+\.\d ms\n$")
        (row,) = rows(ping_json)
        self.assertGreater(row["seconds"], 0)

    @on_reactor
    async def test_one_of_two_servers_is_not_there(self) -> None:
        nobody = f"tcp:{HOST}:{free_port()}"
        async with self.serve() as server:
            both = await command(server, "status", "--server", nobody)
            version = await command(server, "version", "--server", nobody, "--json")
            submitted = await command(server, "submit", f"{self.prefix}f", "x", "-b", "--server", nobody)
        self.assertEqual(both.code, ExitCode.NOT_CONNECTED)
        self.assertRegex(both.errors, rf"^txgearman: {nobody}: .*refused.*\n$")
        self.assertTrue(both.output.startswith(b"Server "), both)
        self.assertEqual([row["server"] for row in rows(version)], [server.endpoint])
        self.assertEqual((submitted.code, submitted.errors), (0, ""))

    @on_reactor
    async def test_a_function_that_is_not_known_cannot_be_limited_at_gearmand(self) -> None:
        async with self.serve() as server:
            ended = await command(server, "maxqueue", f"{self.prefix}unknown", "3")
        if self.kind == "gearmand":
            self.assertEqual((ended.code, ended.output), (ExitCode.REFUSED, b""))
            self.assertIn("does not know the function", ended.errors)
        else:
            said = f"{self.prefix}unknown has at most 3 jobs\n".encode()
            self.assertEqual(ended, Ended(0, said, ""))


class DeadJobsTest(OnTxgearman, Expectations, TestCase):
    """The commands for dead jobs, on our server, which keeps them."""

    async def let_fail(self, server: Server, function: str, *arguments: str) -> list[str]:
        """Let background jobs raise, and return their handles once they are dead."""
        async with at_work(server, self.prefix):
            ended = await command(server, "submit", function, "-b", *arguments)
            handles = ended.output.decode().split()

            async def are_dead() -> bool:
                dead = {row["handle"] for row in rows(await command(server, "dead", "--json"))}
                return dead >= set(handles)

            await until(are_dead, "the jobs are dead")
        self.assertTrue(self.flushLoggedErrors(ValueError))
        return handles

    @on_reactor
    async def test_they_are_shown(self) -> None:
        function = f"{self.prefix}boom"
        async with self.serve_alone() as server:
            (text,) = await self.let_fail(server, function, "one\ntwo", "-u", "key")
            with tempfile.NamedTemporaryFile() as file:
                Path(file.name).write_bytes(b"\xff\0")
                (odd,) = await self.let_fail(server, function, "--file", file.name)
            plain = await command(server, "dead")
            as_json = await command(server, "dead", "--json", "--function", function)
            nothing = [
                await command(server, "dead", *choice, "--json")
                for choice in (["-f", "other"], ["--search", "Three"])
            ]
            found = [
                await command(server, "dead", "--search", search) for search in ("two", "key", text, "thing")
            ]
            one = await command(server, "job", text)
            one_as_json = await command(server, "job", odd, "--json")
        cells = [re.split("  +", line) for line in plain.output.decode().splitlines()]
        self.assertEqual(cells[0], ["Handle", "Function", "Unique", "Ended", "Attempts", "Outcome", "Error"])
        self.assertEqual([row[0] for row in cells[1:]], [odd, text])
        self.assertEqual(cells[2][:3], [text, function, "key"])
        self.assertEqual(cells[2][4:], ["1", "raised", "ValueError: no such thing"])
        first, second = rows(as_json)
        self.assertEqual((first["handle"], first["data_base64"]), (odd, "/wA="))
        self.assertEqual(
            {name: second[name] for name in ("server", "handle", "function", "unique", "state", "data")},
            {
                "server": server.endpoint,
                "handle": text,
                "function": function,
                "unique": "key",
                "state": "dead",
                "data": "one\ntwo",
            },
        )
        self.assertEqual(second["error"], "ValueError: no such thing")
        self.assertIsNone(second["next_run"])
        self.assertGreaterEqual(second["ended"], second["submitted"])
        self.assertEqual(nothing, [Ended(0, b"[]\n", "")] * 2)
        self.assertEqual([len(ended.output.splitlines()) for ended in found], [2, 2, 2, 3])
        shown = one.output.decode()
        self.assertRegex(shown, rf"(?m)^Handle +{text}$")
        self.assertRegex(shown, r"(?m)^Outcome +raised$")
        self.assertRegex(shown, r"(?m)^Data( +)one\n +two$")
        self.assertEqual(rows(one_as_json), [first])

    @on_reactor
    async def test_by_handle(self) -> None:
        function = f"{self.prefix}boom"
        async with self.serve_alone() as server:
            first, second, third = await self.let_fail(server, function, "a", "b", "c")
            (keyed,) = await self.let_fail(server, function, "d", "-u", "key")
            retried = await command(server, "retry", first, "H:none:1", second)
            forgotten = await command(server, "forget", third)
            again = [await command(server, verb, third) for verb in ("retry", "forget")]
            live = await command(server, "submit", function, "e", "-b", "-u", "key")
            in_use = await command(server, "retry", keyed)
            skipped = await command(server, "retry", "--function", function)
            left = await command(server, "dead", "--json")
            unknown = await command(server, "job", third)
            nonsense = [await command(server, verb, "a b") for verb in ("retry", "forget", "job")]
        said = "txgearman: no server has a dead job H:none:1\n"
        done = f"{first} retried\n{second} retried\n".encode()
        self.assertEqual(retried, Ended(ExitCode.REFUSED, done, said))
        self.assertEqual(forgotten, Ended(0, f"{third} forgotten\n".encode(), ""))
        said = f"txgearman: no server has a dead job {third}\n"
        self.assertEqual(again, [Ended(ExitCode.REFUSED, b"", said)] * 2)
        self.assertEqual(live.code, 0)
        self.assertEqual((in_use.code, in_use.output), (ExitCode.REFUSED, b""))
        self.assertIn(f"{keyed} stays dead", in_use.errors)
        self.assertEqual(skipped, Ended(0, b"0 jobs retried, 1 skipped\n", ""))
        self.assertEqual([row["handle"] for row in rows(left)], [keyed])
        # It was deleted, and the server remembers its end.
        self.assertEqual(unknown.code, 0)
        self.assertRegex(unknown.output.decode(), r"(?m)^State +ended$")
        self.assertEqual([ended.code for ended in nonsense], [ExitCode.USAGE] * 3)

    @on_reactor
    async def test_all(self) -> None:
        """Also more than are asked for ahead, and those of functions whose names are no words or no UTF-8."""
        boom, many = f"{self.prefix}boom", [f"{number}" for number in range(dead_jobs.COMMANDS_AHEAD * 2 + 1)]
        async with self.serve_alone() as server:
            handles = await self.let_fail(server, boom, *many)
            everything = await command(server, "dead", "--json")
            by_handle = await command(server, "retry", *handles[:-1])
            by_function = await command(server, "forget", "-f", boom)
            none_left = await command(server, "retry", "--function", boom)
            worker = await connect(server.port)
            names = [b"sp ace", b"App\\tasks", b"\xff", rb"\xff"]
            await worker.say(*(req(1, name) for name in names), *(req(18, name, b"", b"x") for name in names))
            for _ in names:
                assigned = await worker.say(req(9))
                await worker.say(req(14, assigned[12:].split(b"\0")[0]))
            await close(worker)
            retried = await command(server, "retry", "--all")
            left = await command(server, "dead", "--json")
        self.assertEqual({row["handle"] for row in rows(everything)}, set(handles))
        self.assertEqual(by_handle.output.decode().split()[::2], handles[:-1])
        self.assertEqual(by_function, Ended(0, b"1 job forgotten\n", ""))
        self.assertEqual(none_left, Ended(0, b"0 jobs retried\n", ""))
        self.assertEqual(retried, Ended(0, b"4 jobs retried\n", ""))
        self.assertEqual(left, Ended(0, b"[]\n", ""))

    @on_reactor
    async def test_two_servers(self) -> None:
        function = f"{self.prefix}boom"
        nobody = f"tcp:{HOST}:{free_port()}"
        async with self.serve_alone() as server, self.serve_alone() as other:
            (handle,) = await self.let_fail(server, function, "x")
            both = ["--server", other.endpoint]
            listed = await command(server, "dead", *both)
            shown = await command(server, "job", handle, *both)
            forgotten = await command(server, "forget", "--all", *both)
            (handle,) = await self.let_fail(server, function, "x")
            retried = await command(server, "retry", handle, "--server", nobody)
        self.assertTrue(listed.output.startswith(b"Server "))
        self.assertTrue(shown.output.startswith(b"Server "))
        counts = {line.split(": ")[0]: line.split(": ")[1] for line in forgotten.output.decode().splitlines()}
        self.assertEqual(counts, {server.endpoint: "1 job forgotten", other.endpoint: "0 jobs forgotten"})
        self.assertEqual((retried.code, retried.output), (0, f"{handle} retried\n".encode()))
        self.assertRegex(retried.errors, rf"^txgearman: {nobody}: .*refused.*\n$")


class ControlTest(OnTxgearman, Expectations, TestCase):
    """The commands that gearmand has not."""

    @on_reactor
    async def test_finding_jobs(self) -> None:
        function = f"{self.prefix}f"
        async with self.serve() as server:
            await command(server, "submit", function, "data", "-b", "-u", "key", "-p", "high")
            await command(server, "submit", function, "x", "--at", "+1h")
            await command(server, "submit", f"{self.prefix}g", "x", "-b")
            mine = await command(server, "jobs", "-f", function, "--json")
            plain = await command(server, "jobs", "-f", function, "--state", "queued", "--state", "running")
            others = [
                await command(server, "jobs", "-f", function, *filters, "--json")
                for filters in (("--unique", "key"), ("--older-than", "1h"), ("--state", "scheduled"))
            ]
        first, second = rows(mine)
        self.assertEqual((first["unique"], first["priority"], first["size"]), ("key", "high", 4))
        self.assertEqual((second["state"], second["unique"]), ("scheduled", None))
        titles, row = plain.output.decode().splitlines()
        self.assertEqual(
            titles.split(),
            ["Handle", "Function", "State", "Age", "Attempts", "Unique", "Priority", "Size"],
        )
        self.assertRegex(row, rf"^H:\S+ +{re.escape(function)} +queued +\d+s +0 +key +high +4$")
        found = [[job["handle"] for job in rows(other)] for other in others]
        self.assertEqual(found, [[first["handle"]], [], [second["handle"]]])

    @on_reactor
    async def test_pausing_and_dropping(self) -> None:
        function = f"{self.prefix}f"
        async with self.serve() as server:
            await command(server, "submit", function, "x", "-b")
            ended = [await command(server, "pause", function, f"{self.prefix}none")]
            (paused,) = rows(await command(server, "status", function, "--json"))
            ended.append(await command(server, "resume", function))
            (resumed,) = rows(await command(server, "status", function, "--json"))
            ended.append(await command(server, "drop", function))
            (job,) = rows(await command(server, "jobs", "-f", function, "--json"))
            await command(server, "cancel", job["handle"])
            ended.append(await command(server, "drop", function))
        unknown = f"txgearman: no server knows the function {self.prefix}none\n"
        in_use = f"txgearman: {server.endpoint}: there are still connected workers or executing clients\n"
        self.assertEqual(
            ended,
            [
                Ended(ExitCode.REFUSED, f"{function} paused\n".encode(), unknown),
                Ended(0, f"{function} resumed\n".encode(), ""),
                Ended(ExitCode.REFUSED, b"", in_use),
                Ended(0, f"{function} dropped\n".encode(), ""),
            ],
        )
        self.assertEqual((paused["state"], resumed["state"]), ("paused", "active"))

    @on_reactor
    async def test_limits(self) -> None:
        function = f"{self.prefix}f"
        async with self.serve() as server:
            changes = "--max-queue 5,none,7 --max-rate 2.5 --rate-burst 4 --max-running 3 --start-rate 9"
            changed = await command(server, "limits", function, *changes.split(), "--json")
            plain = await command(server, "limits", function, "--key-separator", "/", "--pause-after", "2")
            all_limits = await command(server, "limits", "--json")
            shown = await command(server, "limits")
            wrong = await command(server, "limits", function, "--key-separator", "x" * 500)
            removed = await command(server, "limits", function, "--none", "--max-queue", "1")
            gone = await command(server, "limits", function, "--none")
        ((limits,),) = [row["functions"] for row in rows(changed)]
        self.assertEqual(
            (limits["max_queue_high"], limits["max_queue_normal"], limits["max_queue_low"]), (5, 0, 7)
        )
        self.assertEqual(
            [limits[name] for name in ("max_rate", "rate_burst", "max_running", "start_rate")], [2.5, 4, 3, 9]
        )
        row = plain.output.decode().splitlines()[1]
        self.assertEqual(
            re.split("  +", row), [function, "5/-/7", "2.5/s, 4 at once", "3", "9/s", "-", "2", "0"]
        )
        (of_all,) = rows(all_limits)
        self.assertIn("max-jobs", [limit["name"] for limit in of_all["limits"]])
        self.assertIn(function, [limits["function"] for limits in of_all["functions"]])
        table = [re.split("  +", line) for line in shown.output.decode().splitlines()]
        # What is used depends on the tests that share the server.
        limit_of = {row[0]: row[1] for row in table if len(row) == 4}
        for name, limit in (
            ("handshake-timeout", "10s"),
            ("max-packet", "64 MiB"),
            ("max-jobs", "no limit"),
            ("max-kept-uniques", "100000"),
        ):
            self.assertEqual(limit_of[name], limit)
        self.assertRegex(next(row[2] for row in table if row[0] == "max-unsent"), "^[0-9.]+ (bytes|KiB|MiB)$")
        self.assertIn(function, [row[0] for row in table])
        self.assertEqual(wrong.code, ExitCode.REFUSED)
        self.assertIn("INVALID_ARGUMENTS", wrong.errors)
        row = removed.output.decode().splitlines()[1]
        self.assertEqual(re.split("  +", row), [function, "1", *"-----", "0"])
        self.assertEqual(gone, Ended(0, f"{function} has no limits\n".encode(), ""))

    @on_reactor
    async def test_quiet(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            workers = rows(await command(server, "workers", "--json"))
            (worker,) = [row for row in workers if f"{self.prefix}upper" in row["functions"]]
            number = f"{worker['number']}"
            quieted = await command(server, "quiet", number, "999999999")
            during = rows(await command(server, "workers", "--json"))
            ended = await command(server, "quiet", "--off", number)
            after = rows(await command(server, "workers", "--json"))
        self.assertEqual((quieted.code, quieted.output), (5, f"{number} gets no more jobs\n".encode()))
        self.assertIn("no server has a connection 999999999", quieted.errors)
        self.assertEqual(ended, Ended(0, f"{number} gets jobs again\n".encode(), ""))
        quiet = [
            [row["quiet"] for row in listed if row["number"] == worker["number"]]
            for listed in (during, after)
        ]
        self.assertEqual((worker["quiet"], worker["running"], quiet), (False, 0, [[True], [False]]))


class NoDeadJobsTest(OnGearmand, Expectations, TestCase):
    """gearmand keeps no dead jobs, which is said in one line."""

    @on_reactor
    async def test_refused(self) -> None:
        async with self.serve() as server:
            commands = (
                ["dead"],
                ["dead", "--json"],
                ["retry", "H:x:1"],
                ["forget", "--all"],
                ["retry", "-f", "f"],
            )
            refused = [await command(server, *arguments) for arguments in commands]
            job = await command(server, "job", "H:x:1")
        said = f"txgearman: {server.endpoint}: this server has no dead jobs\n"
        self.assertEqual(refused, [Ended(ExitCode.REFUSED, b"", said)] * len(commands))
        self.assertEqual((job.code, job.output), (ExitCode.REFUSED, b""))
        self.assertIn("does not show single jobs", job.errors)


class Working(Expectations):
    """``worker`` as a process of its own, with commands and Python code."""

    @on_reactor
    async def test_a_command_for_each_job(self) -> None:
        upper = f"{self.prefix}upper"
        async with self.serve() as server, process(server, "worker", "-f", upper, "tr", "a-z", "A-Z"):
            ended = await command(server, "submit", upper, "a", "b", "")
        self.assertEqual(ended, Ended(0, b"A\nB\n\n", ""))

    @on_reactor
    async def test_a_command_that_fails_and_one_that_streams(self) -> None:
        line = 'echo "$TXGEARMAN_UNIQUE"; cat; exit 3'
        function = f"{self.prefix}lines"
        async with (
            self.serve() as server,
            process(server, "worker", "--lines", "-j", "2", "-f", function, line) as worker,
        ):
            ended = await command(server, "submit", function, "x", "--unique", "key")
            self.assertTrue(await worker.stop())
        self.assertEqual((ended.code, ended.output), (ExitCode.JOB_FAILED, b"key\nx"))
        said = worker.errors.decode()
        self.assertRegex(
            said, rf"job H:\S+ of {re.escape(function)} failed: the command ended with exit code 3"
        )
        self.assertNotIn("Traceback", said)

    @on_reactor
    async def test_graceful_drain(self) -> None:
        """After SIGTERM the running job ends and gives its result, and no other is taken."""
        function = f"{self.prefix}slow"
        with tempfile.TemporaryDirectory() as folder:
            gate = Path(folder) / "gate"
            os.mkfifo(gate)
            async with (
                self.serve() as server,
                process(server, "worker", "-f", function, f"cat; cat {gate}") as worker,
                process(server, "submit", function, "first") as first,
            ):
                await server.has(function, active=1)
                await command(server, "submit", function, "second", "-b")
                worker.signal(signal.SIGTERM)
                await self.said(worker, b"ending")
                gate.write_text(" done")
                self.assertEqual((await first.ended(), bytes(first.output)), (0, b"first done"))
                self.assertEqual(await worker.ended(), 0)
                await server.has(function, jobs=1, active=0, workers=0)

    @on_reactor
    async def test_drain_has_a_limit(self) -> None:
        function = f"{self.prefix}endless"
        async with (
            self.serve() as server,
            process(server, "worker", "--drain", "100ms", "-f", function, "sleep 60; true") as worker,
        ):
            await command(server, "submit", function, "x", "-b")
            await server.has(function, active=1)
            worker.signal(signal.SIGINT)
            self.assertEqual(await worker.ended(), ExitCode.TIMED_OUT)
            await server.has(function, jobs=1, active=0, workers=0)
        self.assertIn(b"go to other workers: 1", worker.errors)

    @on_reactor
    async def test_a_second_signal_ends_it_at_once(self) -> None:
        """The program that ran is killed, and what it started: nobody holds its pipe any more."""
        function = f"{self.prefix}endless"
        with tempfile.TemporaryDirectory() as folder:
            pipe = Path(folder) / "pipe"
            os.mkfifo(pipe)
            reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            try:
                async with (
                    self.serve() as server,
                    process(server, "worker", "-f", function, f"exec 3>{pipe}; sleep 60; true") as worker,
                ):
                    await command(server, "submit", function, "x", "-b")
                    await until(self.held(reading, True), "the program holds the pipe")
                    worker.signal(signal.SIGINT)
                    await self.said(worker, b"ending")
                    worker.signal(signal.SIGINT)
                    self.assertEqual(await worker.ended(), -signal.SIGINT)
                    await until(self.held(reading, False), "nobody holds the pipe")
                    await server.has(function, jobs=1, active=0)
            finally:
                os.close(reading)

    def held(self, pipe: int, wanted: bool) -> Callable[[], Awaitable[bool]]:
        """Whether somebody holds the other end of an empty pipe, or nobody, as is `wanted`."""

        async def so() -> bool:
            try:
                return (os.read(pipe, 1) != b"") == wanted
            except BlockingIOError:
                return wanted

        return so

    @on_reactor
    async def test_python_functions(self) -> None:
        in_reactor, in_threads, in_processes = (f"{self.prefix}{place}" for place in "rtp")

        def named(prefix: str) -> list[str]:
            places = [("reverse", "tests.cli.functions:reverse"), ("where", "tests.cli.functions:where")]
            return [f"--python={prefix}{name}={place}" for name, place in places]

        async with (
            self.serve() as server,
            process(server, "worker", "--jobs", "2", *named(in_reactor)) as reactor_,
            process(server, "worker", "--threads", "2", *named(in_threads)) as threads,
            process(server, "worker", "--processes", "1", *named(in_processes)) as processes,
        ):
            where = {}
            for prefix in (in_reactor, in_threads, in_processes):
                reversed_ = await command(server, "submit", f"{prefix}reverse", "abc")
                self.assertEqual(reversed_, Ended(0, b"cba", ""))
                told = await command(server, "submit", f"{prefix}where", "x")
                where[prefix] = told.output.decode().split()
            self.assertEqual(where[in_reactor], [str(reactor_.pid), "MainThread"])
            self.assertEqual(where[in_threads][0], str(threads.pid))
            self.assertNotEqual(where[in_threads][1], "MainThread")
            self.assertNotEqual(where[in_processes][0], str(processes.pid))

    @on_reactor
    async def test_what_a_command_decides(self) -> None:
        """With exit code 75 it runs again, without any configuration, and with 65 it is dead at once. It
        is told the span of its submit each time."""
        function = f"{self.prefix}decides"
        span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        line = 'echo "in $TRACEPARENT" >&2; if [ "$TXGEARMAN_ATTEMPT" = 1 ]; then exit 75; fi; exit 65'
        async with (
            self.serve_alone("--backoff", "0") as server,
            process(server, "worker", "--heartbeat", "-f", function, line) as worker,
        ):
            submitted = await command(server, "submit", "-b", function, "x", "--traceparent", span)
            handle = submitted.output.decode().strip()

            async def is_dead() -> bool:
                return bool(rows(await command(server, "dead", "--json")))

            await until(is_dead, "the job is dead")
            (dead,) = rows(await command(server, "dead", "--json"))
            self.assertTrue(await worker.stop())
        self.assertEqual(
            (dead["handle"], dead["attempts"], dead["outcome"], dead["error"]),
            (handle, 2, "failed", f"the command ended with exit code 65\nin {span}"),
        )
        told = worker.errors.decode()
        self.assertIn(
            f"job {handle} of {function} is to be retried: the command ended with exit code 75", told
        )
        self.assertIn(f"job {handle} of {function} is rejected: the command ended with exit code 65", told)

    async def said(self, program: Any, text: bytes) -> None:
        """Wait until a program has written `text` to standard error."""
        await program._until(lambda: text in program.errors, 10, f"say {text!r}")


class SubmittingTest(OnTxgearman, Submitting, TestCase):
    """On our server."""

    @on_reactor
    async def test_extended(self) -> None:
        async with self.serve() as server:
            scheduled = await command(server, "submit", "f", "x", "--at", "+5m", "--priority", "low")
            options = "--expires 2d --attempts 3 --backoff 0 --unique u --unique-for 1h --traceparent none"
            many = await command(server, "submit", "g", "x", "-b", *options.split())
            waiting = await server.status("f"), await server.status("g")
        self.assertRegex(scheduled.output + many.output, rb"^H:\S+\nH:\S+\n$")
        self.assertEqual(waiting, ((1, 0, 0), (1, 0, 0)))


class SubmittingOnGearmandTest(OnGearmand, Submitting, TestCase):
    """On gearmand."""

    @on_reactor
    async def test_extended(self) -> None:
        async with self.serve() as server:
            refused = await command(server, "submit", "f", "x", "-b", "--attempts", "3")
        self.assertEqual(refused.code, ExitCode.REFUSED)
        self.assertRegex(refused.errors, "lacks the extension submit-extended, needed for attempts\n$")
        self.assertEqual(len(refused.errors.splitlines()), 1)


class AskingTest(OnTxgearman, Asking, TestCase):
    """On our server."""


class AskingOnGearmandTest(OnGearmand, Asking, TestCase):
    """On gearmand."""


class WorkingTest(OnTxgearman, Working, TestCase):
    """On our server."""


class WorkingOnGearmandTest(OnGearmand, Expectations, TestCase):
    """On gearmand: one of the above, as the rest is our own."""

    test_a_command_for_each_job = Working.test_a_command_for_each_job


class ProcessTest(OnTxgearman, Expectations, TestCase):
    """What only a process of its own shows: exit codes, standard error, signals, pipes."""

    async def run_command(
        self, server: Server, *arguments: str, stdin: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        return await run_program(
            [*COMMAND, *arguments], stdin, environment={"TXGEARMAN_SERVER": f"{server.host}:{server.port}"}
        )

    @on_reactor
    async def test_no_server(self) -> None:
        code, output, errors = await run_program(
            [*COMMAND, "submit", "--server", f"{HOST}:{free_port()}", "f", "x"]
        )
        self.assertEqual((code, output), (ExitCode.NOT_CONNECTED, b""))
        self.assertEqual(len(errors.splitlines()), 1)
        self.assertIn(b"refused", errors)

    @on_reactor
    async def test_an_address_that_is_none(self) -> None:
        for arguments in (["ping"], ["submit", "f", "x"], ["status"], ["worker", "-f", "f", "cat"]):
            ended = await command(None, *arguments[:1], "--server", "nonsense:a:b", *arguments[1:])
            self.assertEqual((ended.code, ended.output), (ExitCode.USAGE, b""))
            self.assertEqual(len(ended.errors.splitlines()), 1)
            self.assertIn("nonsense", ended.errors)

    @on_reactor
    async def test_a_pipe(self) -> None:
        async with self.serve() as server, at_work(server, self.prefix):
            ended = await self.run_command(
                server, "submit", f"{self.prefix}upper", "--lines", stdin=b"a\nb\nbad\nc"
            )
        self.assertEqual(ended[:2], (ExitCode.JOB_FAILED, b"A\nB\nC\n"))

    @on_reactor
    async def test_nobody_reads_the_output(self) -> None:
        async with (
            self.serve() as server,
            at_work(server, self.prefix),
            process(server, "submit", f"{self.prefix}upper", "--lines") as program,
        ):
            program.write(b"a\n")
            await program.wrote(b"A\n")
            program.transport.closeChildFD(1)
            program.write(b"b\n")
            self.assertEqual((await program.ended(), bytes(program.errors)), (ExitCode.BROKEN_PIPE, b""))

    @on_reactor
    async def test_a_stream_that_is_full_or_closed(self) -> None:
        """What cannot be told must not change the exit code, nor end up in the results."""
        nowhere = f"127.0.0.1:{free_port()}"
        async with self.serve() as server:
            address = f"{server.host}:{server.port}"
            for redirected, there, code in (
                (">/dev/full", address, ExitCode.NOT_WRITTEN),
                (">&-", address, ExitCode.OK),
                ("<&- >&- 2>&-", address, ExitCode.OK),
                ("2>/dev/full", nowhere, ExitCode.NOT_CONNECTED),
                ("2>&-", nowhere, ExitCode.NOT_CONNECTED),
            ):
                line = f'exec "$@" {redirected}'
                ended = await run_program(["/bin/sh", "-c", line, "sh", *COMMAND, "ping", "--server", there])
                self.assertEqual(ended[:2], (code, b""), redirected)
                self.assertNotIn(b"Traceback", ended[2])

    @on_reactor
    async def test_interrupted(self) -> None:
        function = f"{self.prefix}nobody"
        async with (
            self.serve() as server,
            process(server, "submit", function, "x") as first,
            process(server, "submit", function, "x") as second,
        ):
            await server.has(function, jobs=2)
            first.signal(signal.SIGINT)
            second.signal(signal.SIGTERM)
            self.assertEqual((await first.ended(), bytes(first.errors)), (ExitCode.INTERRUPTED, b""))
            self.assertEqual((await second.ended(), bytes(second.errors)), (ExitCode.TERMINATED, b""))
            await server.has(function, jobs=0)

    @on_reactor
    async def test_the_server_goes_away(self) -> None:
        async with self.serve_alone() as server, process(server, "submit", "nobody", "x") as program:
            await server.has("nobody", jobs=1)
            server.program.signal(signal.SIGTERM)
            code = await program.ended()
        self.assertEqual((code, bytes(program.output)), (ExitCode.NOT_CONNECTED, b""))
        self.assertEqual(len(program.errors.splitlines()), 1, program)

    @on_reactor
    async def test_a_lost_connection_is_another_outcome_than_a_lost_job(self) -> None:
        async with (
            self.serve_alone() as server,
            process(server, "submit", "nobody", "x", "--json") as program,
        ):
            await server.has("nobody", jobs=1)
            server.program.signal(signal.SIGTERM)
            code = await program.ended()
        self.assertEqual(code, ExitCode.NOT_CONNECTED)
        self.assertEqual(json.loads(program.output)["outcome"], "connection-lost")

    @on_reactor
    async def test_the_server_goes_away_while_lines_come(self) -> None:
        """The command ends without waiting for the end of its input."""
        async with (
            self.serve_alone() as server,
            at_work(server, ""),
            process(server, "submit", "upper", "--lines") as program,
        ):
            program.write(b"a\n")
            await program.wrote(b"A\n")
            await server.program.stop()
            program.write(b"b\n")
            self.assertEqual(await program.ended(), ExitCode.NOT_CONNECTED)
        self.assertEqual((bytes(program.output), len(program.errors.splitlines())), (b"A\n", 1))

    @on_reactor
    async def test_drain_and_reload(self) -> None:
        async with self.serve_alone() as server:
            reloaded = await command(server, "reload")
            drained = await command(server, "drain")
            self.assertEqual(await server.program.ended(), 0)
        self.assertEqual(reloaded, Ended(0, b"changed: nothing\n", ""))
        said = f"{server.endpoint} drains, and ends with its running jobs\n"
        self.assertEqual(drained, Ended(0, said.encode(), ""))

    @on_reactor
    async def test_shutdown(self) -> None:
        async with self.serve_alone() as server:
            ended = await command(server, "shutdown")
            self.assertEqual(ended, Ended(0, b"", ""))
            self.assertEqual(await server.program.ended(), 0)

    @on_reactor
    async def test_a_worker_waits_for_its_server(self) -> None:
        port = free_port()
        arguments = ["worker", "--server", f"{HOST}:{port}", "-f", "f", "cat"]
        async with self.serve() as server, process(server, *arguments) as program:
            await program._until(lambda: b"trying again" in program.errors, 10, "say so")
            self.assertTrue(await program.stop())
        self.assertEqual(program.exit_code, 0)

    @on_reactor
    async def test_a_worker_that_is_refused_ends(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.toml"
            policy.write_text('[access.all]\nwork = ["good*"]\nsubmit = ["*"]\nadmin = ["view"]\n')
            async with (
                self.serve_alone(f"--config={policy}") as server,
                process(server, "worker", "-f", "good", "-f", "bad", "cat") as program,
            ):
                self.assertEqual(await program.ended(), ExitCode.REFUSED)
                said = program.errors.decode().splitlines()
        denied = "txgearman: ACCESS_DENIED: You may not work on 'bad'. The server's access policy says so: "
        self.assertEqual(said[-1], denied + "ask who runs it for the right")
        self.assertEqual(len(said), 2)

    @on_reactor
    async def test_wrong_python_functions(self) -> None:
        async with self.serve() as server:
            for place, said in [
                ("nowhere_at_all:f", "cannot import nowhere_at_all"),
                ("os:nothing", "there is no nothing in os"),
                ("os:sep", "cannot be called"),
                ("os", "names no Python function"),
            ]:
                ended = await command(server, "worker", "--python", place)
                self.assertEqual((ended.code, ended.output), (ExitCode.USAGE, b""), place)
                self.assertIn(said, ended.errors)
            ended = await command(server, "worker", "-f", "f", "/nowhere/program", "x")
            self.assertEqual(ended.code, ExitCode.USAGE)


class RestartOnGearmandTest(OnGearmand, Expectations, TestCase):
    """gearmand is killed and started again."""

    @contextlib.asynccontextmanager
    async def listening(self, port: int, folder: str) -> AsyncIterator[Server]:
        """gearmand on this port of 127.0.0.1."""
        options = [
            f"--listen={HOST}",
            f"--port={port}",
            f"--log-file={folder}/log",
            f"--pid-file={folder}/pid",
        ]

        async def answers() -> bool:
            try:
                return (await server.ask("version")).startswith(b"OK")
            except (ConnectError, ConnectionDone):
                return False

        async with running("gearmand", *options) as program:
            server = Server("gearmand", port, program, Path(folder))
            await until(answers, "gearmand answers")
            yield server

    @needs_program("gearmand")
    @on_reactor
    async def test_the_worker_comes_back(self) -> None:
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            async with (
                self.listening(port, folder) as first,
                process(first, "worker", "-f", "upper", "tr a-z A-Z") as worker,
            ):
                before = await command(first, "submit", "upper", "a")
                await first.program.kill()
                await worker._until(lambda: b"trying again" in worker.errors, 10, "say so")
                async with self.listening(port, folder) as second:
                    await second.has("upper", workers=1)
                    after = await command(second, "submit", "upper", "b")
                    self.assertTrue(await worker.stop())
        self.assertEqual((before, after), (Ended(0, b"A", ""), Ended(0, b"B", "")))
        said = worker.errors.decode().splitlines()
        self.assertRegex(said[1], rf"^txgearman: tcp:{HOST}:{port}: .*refused.*; trying again$")
        self.assertEqual(said[2], f"txgearman: tcp:{HOST}:{port}: connected")
        self.assertEqual(len(said), 4)


class ShutdownOnGearmandTest(OnGearmand, Expectations, TestCase):
    """gearmand refuses to be shut down."""

    @on_reactor
    async def test_refused(self) -> None:
        async with self.serve() as server:
            ended = await command(server, "shutdown")
        self.assertEqual((ended.code, ended.output), (ExitCode.REFUSED, b""))
        self.assertIn("this server ends by signals alone", ended.errors)

    @on_reactor
    async def test_what_it_does_not_have(self) -> None:
        """Each command says so in a line, and no other error comes out."""
        async with self.serve() as server:
            for words, said in (
                ("jobs --function f", "cannot look for jobs"),
                ("job H:none:1", "does not show single jobs"),
                ("pause f", "cannot pause functions"),
                ("resume f", "cannot pause functions"),
                ("limits", "shows no limits"),
                ("limits f --max-running 3", "shows no limits"),
                ("quiet 1", "cannot quiet workers"),
                ("drain", "cannot drain"),
                ("reload", "has no configuration"),
                ("dead", "no dead jobs"),
                ("schedules list", "no schedules"),
            ):
                ended = await command(server, *_words(words))
                self.assertEqual((ended.code, ended.output), (ExitCode.REFUSED, b""), words)
                self.assertRegex(ended.errors, rf"^txgearman: {server.endpoint}: this server .*{said}.*\n$")
