"""The blocking clients and workers on real servers in processes of their own, ours and gearmand."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

from twisted.trial.unittest import TestCase

from tests.blocking.servers import LIMIT, ThreadedWorker, in_thread, reversing, until, working
from tests.interop.programs import HOST, Server, gearmand, start_again, txgearmand
from tests.support import needs_program, on_reactor
from txgearman import blocking as gearman
from txgearman.blocking import errors


def try_all(address: str) -> None:
    """A bit of everything."""
    with ExitStack() as stack:
        client = gearman.GearmanClient([address])
        stack.callback(client.shutdown)
        admin = gearman.GearmanAdminClient([address])
        stack.callback(admin.shutdown)
        stack.enter_context(reversing(address))
        request = client.submit_job("reverse", "Grüße", poll_timeout=LIMIT)
        assert request.result == "eßürG", request
        request = client.submit_job("fail", "", poll_timeout=LIMIT)
        assert request.state == gearman.JOB_FAILED, request
        request = client.submit_job("updates", "", poll_timeout=LIMIT)
        assert list(request.data_updates) == ["part"], request.data_updates
        assert list(request.warning_updates) == ["beware"], request.warning_updates
        requests = client.submit_multiple_jobs(
            [{"task": "reverse", "data": "ab", "unique": "key"}] * 3, poll_timeout=LIMIT
        )
        assert [one.result for one in requests] == ["ba"] * 3, requests
        assert admin.ping_server() < LIMIT
        assert admin.get_version()
        (status,) = [one for one in admin.get_status() if one["task"] == "reverse"]
        assert status == {"task": "reverse", "queued": 0, "running": 0, "workers": 1}, status
        (worker,) = [one for one in admin.get_workers() if "reverse" in one["tasks"]]
        assert set(worker["tasks"]) == {"reverse", "fail", "updates"}, worker
        assert admin.send_maxqueue("reverse", 5) == "OK"


def try_exception(address: str) -> None:
    """The text of an exception reaches the submitter, and the worker goes on."""

    class Telling(ThreadedWorker):
        def on_job_exception(self, current_job: gearman.GearmanJob, exc_info: Any) -> bool:
            self.send_job_exception(current_job, str(exc_info[1]))
            return False

    def fail(*_: Any) -> None:
        raise LookupError("nichts da: ö")

    client = gearman.GearmanClient([address])
    worker = Telling(address)
    worker.register_task("fail", fail)
    with working(worker):
        for _ in range(2):
            request = client.submit_job("fail", "", poll_timeout=LIMIT)
            assert (request.state, request.exception) == (gearman.JOB_FAILED, "nichts da: ö"), request
    client.shutdown()


def try_names(address: str) -> None:
    """Names are the same in the list as in the program, whatever they are made of."""
    names = {"sp ace", "App\\tasks", "App\\Jobs", "\x1b[2J", "ERR x", "größe"}
    client = gearman.GearmanClient([address])
    admin = gearman.GearmanAdminClient([address])
    for name in names:
        client.submit_job(name, "", background=True, poll_timeout=LIMIT)
    found = {one["task"] for one in admin.get_status()}
    assert names <= found, found
    client.shutdown()
    admin.shutdown()


class Load:
    """Submits jobs one by one until it is stopped, and counts how they end."""

    def __init__(self, address: str) -> None:
        self.ends = {"result": 0, "error": 0}
        self.wrong: list[Any] = []
        self.stop = threading.Event()
        self._client = gearman.GearmanClient([address])
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        self._thread.join(LIMIT)
        self._client.shutdown()
        assert not self._thread.is_alive(), "a job hangs"

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                request = self._client.submit_job("reverse", "ab", poll_timeout=LIMIT)
            except (errors.ServerUnavailable, errors.ExceededConnectionAttempts):
                self.ends["error"] += 1
                self.stop.wait(0.02)
            else:
                if request.result == "ba":
                    self.ends["result"] += 1
                else:
                    self.wrong.append(request)


def try_extended(address: str, has_it: bool) -> None:
    """What python-gearman has no word for, on a server that knows it or does not."""
    client = gearman.GearmanClient([address])
    try:
        scheduled = client.submit_job("later", "", run_at=4e9, poll_timeout=LIMIT)
        assert (scheduled.background, scheduled.complete) == (True, True), scheduled
        requests = client.submit_multiple_jobs(
            [{"task": "f", "data": "", "attempts": 3}, {"task": "f", "data": ""}],
            background=True,
            poll_timeout=LIMIT,
        )
        expected = gearman.JOB_CREATED if has_it else gearman.JOB_FAILED
        assert [one.state for one in requests] == [expected, gearman.JOB_CREATED], requests
        assert has_it or "lacks the extension submit-extended" in requests[0].exception, requests
    finally:
        client.shutdown()


class OnServers(TestCase):
    @on_reactor
    async def test_txgearmand(self) -> None:
        async with txgearmand() as server:
            await in_thread(try_all, f"{HOST}:{server.port}")
            await in_thread(try_exception, f"{HOST}:{server.port}")
            await in_thread(try_names, f"{HOST}:{server.port}")
            await in_thread(try_extended, f"{HOST}:{server.port}", True)

    @needs_program("gearmand")
    @on_reactor
    async def test_gearmand(self) -> None:
        async with gearmand() as server:
            await in_thread(try_all, f"{HOST}:{server.port}")
            await in_thread(try_exception, f"{HOST}:{server.port}")
            await in_thread(try_names, f"{HOST}:{server.port}")
            await in_thread(try_extended, f"{HOST}:{server.port}", False)

    @on_reactor
    async def test_restart_of_txgearmand_under_load(self) -> None:
        async with txgearmand() as server:
            await self._restart(server)

    @needs_program("gearmand")
    @on_reactor
    async def test_restart_of_gearmand_under_load(self) -> None:
        async with gearmand() as server:
            await self._restart(server)

    async def _restart(self, server: Server) -> None:
        """Kill the server in the middle of a load, and start it again: all jobs end, and go on."""
        address = f"{HOST}:{server.port}"
        with ExitStack() as stack:
            stack.enter_context(reversing(address))
            load = stack.enter_context(Load(address))
            await in_thread(until, lambda: load.ends["result"] > 20, "the load runs")
            await server.program.kill()
            await in_thread(until, lambda: load.ends["error"] > 0, "the loss is noticed")
            again = await start_again(server)
            try:
                before = load.ends["result"]
                await in_thread(until, lambda: load.ends["result"] > before + 20, "the load goes on")
                await in_thread(stack.close)
            finally:
                await again.program.stop()
        self.assertEqual(load.wrong, [])
