"""The blocking admin client on a server of ours."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer, ThreadedWorker, reverse, until, working
from tests.interop.programs import HOST
from tests.support import free_port
from txgearman import blocking as gearman
from txgearman.blocking import errors
from txgearman.version import VERSION


class Commands(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.server = self.stack.enter_context(BackgroundServer())
        self.admin = self.admin_of(self.server.address)

    def admin_of(self, *servers: Any, **options: Any) -> gearman.GearmanAdminClient:
        admin = gearman.GearmanAdminClient(servers, **options)
        self.stack.callback(admin.shutdown)
        return admin

    def test_ping(self) -> None:
        self.assertTrue(0 < self.admin.ping_server() < LIMIT)

    def test_version(self) -> None:
        self.assertIn(VERSION, self.admin.get_version())

    def test_status(self) -> None:
        self.assertEqual(self.admin.get_status(), ())
        client = gearman.GearmanClient([self.server.address])
        self.stack.callback(client.shutdown)
        client.submit_job("grüße", "", background=True, poll_timeout=LIMIT)
        self.assertEqual(
            self.admin.get_status(), ({"task": "grüße", "queued": 1, "running": 0, "workers": 0},)
        )

    def test_workers(self) -> None:
        worker = ThreadedWorker(self.server.address)
        worker.set_client_id("name")
        worker.register_task("reverse", reverse)
        self.stack.enter_context(working(worker))

        def found() -> list[dict[str, Any]]:
            return [one for one in self.admin.get_workers() if one["tasks"]]

        until(lambda: bool(found()), "the worker is shown")
        (one,) = found()
        self.assertTrue(one.pop("file_descriptor").isdigit())
        self.assertEqual(one, {"ip": HOST, "client_id": "name", "tasks": ("reverse",)})

    def test_limits_and_pauses(self) -> None:
        self.assertEqual(self.admin.send_maxrate("größe", 2.5, 4), "OK")
        self.assertEqual(self.admin.send_limit(b"f", "max-running", 3), "OK")
        self.assertEqual(self.admin.send_pause("f"), "OK")
        functions = self.server.factory.broker.functions.by_name
        limit = functions["größe".encode()].rate
        assert limit is not None
        self.assertEqual((limit.per_second, limit.burst), (2.5, 4))
        runs = functions[b"f"].run_limits
        assert runs is not None
        self.assertEqual((runs.rules.max_running, functions[b"f"].paused), (3, True))
        self.assertEqual(self.admin.send_resume("f"), "OK")
        self.assertEqual(self.admin.send_limit("f"), "OK")
        self.assertEqual((functions[b"f"].run_limits, functions[b"f"].paused), (None, False))
        self.assertEqual(self.admin.send_maxrate("größe"), "OK")
        self.assertIsNone(functions["größe".encode()].rate)
        with self.assertRaisesRegex(errors.ProtocolError, "UNKNOWN_FUNCTION"):
            self.admin.send_pause("none")
        with self.assertRaises(ValueError):
            self.admin.send_limit("f", "max-running")

    def test_maxqueue(self) -> None:
        self.assertEqual(self.admin.send_maxqueue("reverse", 5), "OK")
        self.assertEqual(self.admin.send_maxqueue("reverse", -1), "OK")
        with self.assertRaises(ValueError):
            self.admin.send_maxqueue("two words", 5)

    def test_maxqueue_as_text(self) -> None:
        self.assertEqual(self.admin.send_maxqueue("reverse", "1"), "OK")
        client = self.client()
        client.submit_job("reverse", "", background=True, poll_timeout=LIMIT)
        self.assertEqual(client.submit_job("reverse", "", poll_timeout=LIMIT).state, gearman.JOB_FAILED)
        with self.assertRaises(ValueError):
            self.admin.send_maxqueue("reverse", "many")

    def client(self) -> gearman.GearmanClient:
        client = gearman.GearmanClient([self.server.address])
        self.stack.callback(client.shutdown)
        return client

    def test_pid(self) -> None:
        self.assertEqual(self.admin.get_pid(), str(os.getpid()))

    def test_jobs(self) -> None:
        self.assertEqual((self.admin.get_jobs(), self.admin.get_unique_jobs()), ((), ()))
        client = self.client()
        offline = client.submit_job("reverse", "", unique="key", background=True, poll_timeout=LIMIT)
        online = client.submit_job(
            "reverse", "", unique="other", wait_until_complete=False, poll_timeout=LIMIT
        )
        jobs = {job["handle"]: job for job in self.admin.get_jobs()}
        self.assertEqual(
            jobs,
            {
                offline.job.handle: {"handle": offline.job.handle, "queued": 0, "canceled": 0, "enabled": 1},
                online.job.handle: {"handle": online.job.handle, "queued": 0, "canceled": 0, "enabled": 0},
            },
        )
        self.assertEqual({job["unique"] for job in self.admin.get_unique_jobs()}, {"key", "other"})
        self.assertEqual(self.admin.cancel_job(offline.job.handle), "OK")
        self.assertEqual(self.admin.cancel_job(offline.job.handle.encode()), "ERR UNKNOWN_JOB")
        self.assertEqual([job["handle"] for job in self.admin.get_jobs()], [online.job.handle])

    def test_shutdown(self) -> None:
        self.assertIsNone(self.admin.send_shutdown())

    def test_refusal(self) -> None:
        with self.assertRaises(errors.ProtocolError):
            self.admin._run(lambda admin: admin.cancel("H:nowhere:1"))

    def test_comes_back_after_a_restart(self) -> None:
        self.admin.ping_server()
        self.admin.get_status()
        self.server.stop()
        for ask in (self.admin.ping_server, self.admin.get_status):
            with self.assertRaises(errors.ServerUnavailable):
                ask()
        self.server.start()
        self.admin.ping_server()
        self.assertEqual(self.admin.get_status(), ())

    def test_no_server(self) -> None:
        admin = self.admin_of(f"{HOST}:{free_port()}")
        for ask in (admin.ping_server, admin.get_version, self.admin_of().get_version):
            with self.assertRaises(errors.ServerUnavailable):
                ask()

    def test_server_that_never_answers(self) -> None:
        mute = self.stack.enter_context(BackgroundServer(mute=True))
        admin = self.admin_of(mute.address, poll_timeout=0.05)
        for ask in (admin.ping_server, admin.get_version):
            with self.assertRaises(errors.InvalidAdminClientState):
                ask()

    def test_one_server(self) -> None:
        with self.assertRaises(ValueError):
            gearman.GearmanAdminClient(["a", "b"])
