"""The commands for schedules, on real servers."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.cli.running import Ended, command
from tests.interop.expectations import Expectations, OnGearmand, OnTxgearman
from tests.support import on_reactor
from txgearman.cli.exit_codes import ExitCode

ADD = ("schedules add", "nightly", "--function", "report", "--cron", "30 3 * * mon-fri")


class SchedulesTest(OnTxgearman, Expectations, TestCase):
    @on_reactor
    async def test_from_adding_to_removing(self) -> None:
        async with self.serve_alone("--allow-unsaved-schedules") as server:
            empty = await command(server, "schedules list", "--json")
            added = await command(server, *ADD, "--timezone", "Europe/Berlin", "--data", "grün")
            with tempfile.NamedTemporaryFile() as file:
                Path(file.name).write_bytes(b"\xff\0")
                other = ("schedules add", "poll", "-f", "f", "--every", "2h", "--data-file", file.name)
                self.assertEqual(await command(server, *other), Ended(0, b"poll added\n", ""))
            paused = await command(server, "schedules pause", "nightly", "none", "poll")
            listed = await command(server, "schedules list")
            as_json = await command(server, "schedules list", "--json")
            ran = await command(server, "schedules run", "poll")
            job = await command(server, "job", ran.output.decode().strip(), "--json")
            resumed = await command(server, "schedules resume", "poll")
            removed = await command(server, "schedules remove", "nightly", "poll")
            left = await command(server, "schedules list", "--json")
        self.assertEqual((empty, left), (Ended(0, b"[]\n", ""),) * 2)
        self.assertEqual(added, Ended(0, b"nightly added\n", ""))
        unknown = "txgearman: none: UNKNOWN_SCHEDULE There is no such schedule\n"
        self.assertEqual(paused, Ended(ExitCode.REFUSED, b"nightly paused\npoll paused\n", unknown))
        cells = [re.split("  +", line) for line in listed.output.decode().splitlines()]
        self.assertEqual(cells[0][:6], ["Name", "Function", "When", "Timezone", "State", "Next"])
        self.assertEqual(
            cells[1], ["nightly", "report", "30 3 * * mon-fri", "Europe/Berlin", "paused", "-", "-", *"0000"]
        )
        self.assertEqual(
            [(row["name"], row["when"], row["next"]) for row in json.loads(as_json.output)],
            [("nightly", "30 3 * * mon-fri", None), ("poll", "every 7200s", None)],
        )
        (shown,) = json.loads(job.output)
        self.assertEqual((shown["function"], shown["data_base64"], shown["unique"]), ("f", "/wA=", "poll"))
        self.assertEqual(resumed, Ended(0, b"poll resumed\n", ""))
        self.assertEqual(removed, Ended(0, b"nightly removed\npoll removed\n", ""))

    @on_reactor
    async def test_what_the_server_refuses(self) -> None:
        async with self.serve_alone("--allow-unsaved-schedules") as server:
            wrong = await command(server, *ADD[:-1], "0 0 31 2 *")
            large = await command(server, *ADD, "--data", "x" * 9000)
            none = await command(server, "schedules run", "none")
        self.assertEqual((wrong.code, wrong.output), (ExitCode.REFUSED, b""))
        self.assertIn("day of month", wrong.errors)
        self.assertEqual(large.code, ExitCode.USAGE)
        self.assertIn("at most 8192 bytes", large.errors)
        self.assertEqual((none.code, none.output), (ExitCode.REFUSED, b""))

    @on_reactor
    async def test_without_a_store(self) -> None:
        async with self.serve_alone() as server:
            added = await command(server, *ADD)
        self.assertEqual(added.code, ExitCode.REFUSED)
        self.assertIn("allow-unsaved-schedules", added.errors)


class NoSchedulesTest(OnGearmand, Expectations, TestCase):
    """gearmand has no schedules, which is said in one line."""

    @on_reactor
    async def test_refused(self) -> None:
        commands = (
            ("schedules list",),
            ADD,
            ("schedules pause", "a"),
            ("schedules remove", "a"),
            ("schedules run", "a"),
        )
        async with self.serve() as server:
            refused = [await command(server, *arguments) for arguments in commands]
        said = f"txgearman: {server.endpoint}: this server has no schedules\n"
        self.assertEqual(refused, [Ended(ExitCode.REFUSED, b"", said)] * len(commands))
