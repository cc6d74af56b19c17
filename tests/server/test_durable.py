"""``twistd gearmand --store``: a real server, killed and started again."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, assert_no_traceback, exchange, free_port, run_program
from tests.server.peers import req
from tests.server.test_twistd import TWISTD, twistd
from tests.support import on_reactor


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
    async def test_a_store_that_cannot_be_used_is_one_clear_line(self) -> None:
        not_a_database = Path(self.folder.name) / "queue.db"
        not_a_database.write_bytes(b"something else" * 1000)
        for store, expected in (
            (self.store, "is not a SQLite database"),
            ("--store=nonsense", "not the URL of a store"),
            ("--store=sqlite:////no/such/folder/queue.db", "unable to open"),
        ):
            with self.subTest(store):
                listen = f"--listen=tcp:{free_port()}:interface={HOST}"
                command = [TWISTD, "--nodaemon", "--pidfile=", f"--rundir={self.folder.name}"]
                code, output, errors = await run_program([*command, "gearmand", listen, store])
                self.assertEqual(code, 1)
                said = (output + errors).decode()
                assert_no_traceback(said)
                self.assertIn(expected, said)
