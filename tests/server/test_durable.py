"""``twistd gearmand --store``: a real server, killed and started again."""

from __future__ import annotations

import re
import signal
import tempfile
from functools import partial
from pathlib import Path

from twisted.internet.error import ConnectError
from twisted.trial.unittest import TestCase

from tests.interop.programs import (
    HOST,
    assert_no_traceback,
    exchange,
    free_port,
    run_program,
    running,
    until,
)
from tests.server.lines import close, connect
from tests.server.peers import req
from tests.server.test_twistd import TWISTD, twistd
from tests.support import fill, on_reactor, small_disk
from txgearman.server.persistence.outage import MAX_BACKOFF


class DurableTests(TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="txgearman-durable-")
        self.addCleanup(self.folder.cleanup)
        self.store = f"--store=sqlite:///{self.folder.name}/queue.db"

    @on_reactor
    async def test_what_was_acknowledged_survives_a_kill(self) -> None:
        async with twistd(self.store) as server:
            submits = b"".join(req(18, b"f", b"", b"%d" % number) for number in range(100))
            await exchange(server.port, submits, lambda heard: heard.count(b"\0RES") == 100)
            server.signal(signal.SIGKILL)
            await server.program.ended()
        async with twistd(self.store) as server:
            status = await exchange(server.port, b"status\n", lambda heard: heard.endswith(b".\n"))
            self.assertEqual(status, b"f\t100\t0\t0\n.\n")
            self.assertIn("100 jobs loaded", server.log)

    @on_reactor
    async def test_settings_and_schedules_that_were_answered_survive_a_kill(self) -> None:
        lines = [
            b"maxqueue f 5",
            b"limit f max-running 3",
            b"create function g",
            b"pause function g",
            b'create schedule s {"function":"f","every":3600}',
            b'create schedule gone {"function":"f","every":3600}',
            b"pause schedule s",
            b"drop schedule gone",
        ]
        async with twistd(self.store) as server:
            line = await connect(server.port)
            said = b"\n".join(lines) + b"\n"
            self.assertEqual(await line.ask(said, b"OK\r\n" * len(lines)), b"OK\r\n" * len(lines))
            server.signal(signal.SIGKILL)
            await server.program.ended()
        async with twistd(self.store) as server:
            line = await connect(server.port)
            limits = await line.ask(b"show function limits\n", b".\n")
            self.assertEqual(limits.split(b"\t")[:4], [b"f", b"5", b"5", b"5"])
            self.assertEqual(limits.split(b"\t")[7], b"3")
            functions = await line.ask(b"show functions\n", b".\n")
            self.assertIn(b"g\tpaused\t", functions)
            schedules = (await line.ask(b"show schedules\n", b".\n")).splitlines()
            self.assertEqual([row.split(b"\t")[0] for row in schedules], [b"s", b"."])
            self.assertEqual(schedules[0].split(b"\t")[4], b"paused")
            await close(line)

    @on_reactor
    async def test_jobs_of_a_full_key_hide_no_other_behind_them(self) -> None:
        options = (self.store, "--store-ahead=50", "--max-running-per-key=1")
        uniques = [*(b"big:%d" % number for number in range(500)), b"small:1"]
        async with twistd(*options) as server:
            submits = b"".join(req(18, b"f", unique, b"") for unique in uniques)
            await exchange(server.port, submits, lambda heard: heard.count(b"\0RES") == len(uniques))
            server.signal(signal.SIGKILL)
            await server.program.ended()
        async with twistd(*options) as server:
            line = await connect(server.port)
            await line.say(req(1, b"f"))
            given: list[bytes] = []

            async def get(unique: bytes) -> bool:
                given.extend(re.findall(rb"(big:\d+|small:\d+)\0", await line.say(req(30))))
                return unique in given

            await until(partial(get, b"small:1"), "the job of the other key is given")
            self.assertEqual(given, [b"big:0", b"small:1"])
            await close(line)

    @on_reactor
    async def test_a_store_that_cannot_be_used_is_one_clear_line(self) -> None:
        not_a_database = Path(self.folder.name) / "queue.db"
        not_a_database.write_bytes(b"something else" * 1000)
        for store, expected in (
            (self.store, "is not a SQLite database"),
            ("--store=nonsense", "not the URL of a store"),
            (f"--store=sqlite:///{self.folder.name}/{'q' * 300}", "unable to open"),
        ):
            with self.subTest(store):
                listen = f"--listen=tcp:{free_port()}:interface={HOST}"
                command = [TWISTD, "--nodaemon", "--pidfile=", f"--rundir={self.folder.name}"]
                code, output, errors = await run_program([*command, "gearmand", listen, store])
                self.assertEqual(code, 1)
                said = (output + errors).decode()
                assert_no_traceback(said)
                self.assertIn(expected, said)


class FullDiskTests(TestCase):
    """A disk that is full, and not for ever. The store's part is in tests/store/test_full_disk.py."""

    @on_reactor
    async def test_it_recovers_without_a_restart_and_with_one(self) -> None:
        disk = small_disk(self, 6 * 1024 * 1024)
        store = f"--store=sqlite:///{disk}/queue.db"
        submit = req(18, b"f", b"", b"x" * 1000)

        async def accepts() -> bool:
            return b"QUEUE_ERROR" not in await line.say(submit)

        async with twistd(store) as server:
            line = await connect(server.port)
            handles: list[bytes] = []
            while b"QUEUE_ERROR" not in (heard := await line.say(submit * 100)):
                handles += re.findall(rb"H:[^\0]+?:\d+", heard)
                self.assertLess(len(handles), 10_000)
            handles += re.findall(rb"H:[^\0]+?:\d+", heard)
            self.assertGreater(len(handles), 500)
            self.assertIn(b"the disk is full", await line.ask(b"show store\n", b"\n.\n"))
            for begin in range(0, len(handles), 100):
                some = handles[begin : begin + 100]
                cancels = b"".join(b"cancel job %b\n" % handle for handle in some)
                self.assertEqual(await line.ask(cancels, b"OK\r\n" * len(some)), b"OK\r\n" * len(some))

            await until(accepts, "jobs are accepted again", MAX_BACKOFF + 1)
            await close(line)
            server.signal(signal.SIGTERM)
            await server.program.ended()
            assert_no_traceback(server.log)
        filler = fill(disk)
        async with twistd(store) as server:
            self.assertIn("1 jobs loaded", server.log)
            line = await connect(server.port)
            # What the database does not use any more is given back to the disk.
            self.assertNotIn(b"QUEUE_ERROR", await line.say(submit))
            fill(disk)
            self.assertIn(b"QUEUE_ERROR", await line.say(submit))
            await line.say(req(1, b"f"))
            (handle,) = re.findall(rb"H:[^\0]+?:\d+", await line.say(req(9)))
            await line.say(req(13, handle, b"done"))
            filler.unlink()
            await until(accepts, "jobs are accepted again", MAX_BACKOFF + 1)
            await close(line)
            assert_no_traceback(server.log)

    @on_reactor
    async def test_a_log_on_a_full_disk_takes_nothing_down(self) -> None:
        for form in ("text", "json"):
            with self.subTest(form):
                command = [
                    TWISTD,
                    "--nodaemon",
                    "--pidfile=",
                    f"--rundir={self.folder()}",
                    "--logfile=/dev/full",
                ]
                port = free_port()
                listen = f"--listen=tcp:{port}:interface={HOST}"
                async with running(*command, "gearmand", listen, f"--log-format={form}") as program:
                    await until(partial(_listens, port), "the server answers")
                    line = await connect(port)
                    self.assertEqual(await line.ask(b"maxqueue f 1\n", b"\r\n"), b"OK\r\n", "which is logged")
                    self.assertIn(b"H:", await line.say(req(18, b"f", b"", b"x")))
                    await close(line)
                    program.signal(signal.SIGTERM)
                    await program.ended()
                    self.assertEqual((program.output, program.errors), (b"", b""))

    def folder(self) -> str:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-durable-")
        self.addCleanup(folder.cleanup)
        return folder.name


async def _listens(port: int) -> bool:
    try:
        await close(await connect(port))
    except ConnectError:
        return False
    return True
