"""Functions in threads and processes, on the real reactor: all that a function can do works there too."""

from __future__ import annotations

import builtins
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.interop.programs import until
from tests.support import on_reactor, process_state
from tests.worker import blocking
from txgearman.client import Admin, Client
from txgearman.client import Job as ClientJob
from txgearman.codecs import BYTES
from txgearman.errors import JobFailed, JobOver, JobRaised
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.worker import Hooks, Job, Worker
from txgearman.worker.threads import ThreadWriter

LIMIT = 20.0
"""Seconds for one answer; to start a process takes half of one, on a busy machine more."""


@asynccontextmanager
async def joined(settings: Settings | None = None, **options: Any) -> AsyncIterator[tuple[Client, Worker]]:
    """A client and a worker, not started, of a server in this process. The worker must stop at the end."""
    from twisted.internet import reactor

    factory = GearmanServerFactory(reactor, settings)  # type: ignore[arg-type]
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
    endpoint = f"tcp:127.0.0.1:{port.getHost().port}"
    worker = Worker(reactor, endpoint, **options)  # type: ignore[arg-type]
    try:
        async with Client(reactor, endpoint) as client:  # type: ignore[arg-type]
            yield client, worker
    finally:
        await worker.stop(0)
        await port.stopListening()
        factory.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(pid: int) -> None:
    async def gone() -> bool:
        return not alive(pid)

    await until(gone, f"process {pid} ends")


async def idle(pid: int) -> None:
    """Until a process waits. One that is killed in the moment in which it hands a result over holds a lock of
    pebble's pool, which nobody gets then for a minute."""

    async def waits() -> bool:
        return process_state(pid) == "S"

    await until(waits, f"process {pid} waits")


class PlaceExpectations:
    """What holds in threads and processes alike."""

    pool: ClassVar[dict[str, int]]

    async def run_one(self: Any, function: Any, data: bytes = b"", **options: Any) -> Any:
        """The result of one job of `function`."""
        async with joined(**self.pool, **options) as (client, worker):
            worker.register("f", function)
            await worker.start()
            job = await client.submit("f", data)
            return await job.result(LIMIT)

    async def cancel_once_it_runs(self: Any, client: Client, job: ClientJob) -> int:
        """Cancel a job that has said in which process it runs; returns that."""
        begun: Deferred[bytes] = Deferred()
        job.on_data(begun.callback)
        pid = int(await begun)
        from twisted.internet import reactor

        async with Admin(reactor, job.server) as admin:  # type: ignore[arg-type]
            await admin.cancel(job.handle)
        await self.assertFailure(job.result(LIMIT), JobFailed)
        return pid

    @on_reactor
    async def test_what_is_sent_on_the_way_arrives_in_order_and_before_the_result(self: Any) -> None:
        async with joined(**self.pool) as (client, worker):
            worker.register("f", blocking.chatty)
            await worker.start()
            job = await client.submit("f", b"")
            got: list[Any] = []
            job.on_data(got.append)
            job.on_warning(lambda data: got.append(("warning", data)))
            job.on_status(lambda *numbers: got.append(numbers))
            self.assertEqual(await job.result(LIMIT), b"done")
            expected = [*(b"%d" % number for number in range(100)), ("warning", b"careful"), (1, 2)]
            self.assertEqual(got, expected)

    @on_reactor
    async def test_mistakes_are_raised_where_they_are_made(self: Any) -> None:
        self.assertEqual(await self.run_one(blocking.mistaken), b"TypeError ValueError")

    @on_reactor
    async def test_how_jobs_fail(self: Any) -> None:
        async with joined(**self.pool, tracebacks=True) as (client, worker):
            for function in (blocking.raises, blocking.leaves, blocking.not_bytes, blocking.fails):
                worker.register(function.__name__, function)
            await worker.start()
            for name, text, line in (
                ("raises", "LookupError: größe", 'raise LookupError("größe")'),
                ("leaves", "SystemExit: 3", "raise SystemExit(3)"),
                ("not_bytes", "TypeError: the function not_bytes must return bytes or None, not int", ""),
            ):
                job = await client.submit(name, b"")
                error = await self.assertFailure(job.result(LIMIT), JobRaised)
                first, *trace = error.data.decode().splitlines()
                self.assertEqual(first, text)
                self.assertIn(line, "\n".join(trace))
                self.assertEqual(len(self.flushLoggedErrors()), 1)
            job = await client.submit("fails", b"")
            error = await self.assertFailure(job.result(LIMIT), JobRaised)
            self.assertEqual(error.data, b"not today")

    @on_reactor
    async def test_failing_with_data(self: Any) -> None:
        async with joined(**self.pool, max_packet=9_000) as (client, worker):
            for function in (blocking.fails_with, blocking.fails_with_too_much):
                worker.register(function.__name__, function)
            await worker.start()
            job = await client.submit("fails_with", b"")
            error = await self.assertFailure(job.result(LIMIT), JobRaised)
            self.assertEqual(error.data, b"\0\xff")
            job = await client.submit("fails_with_too_much", b"")
            error = await self.assertFailure(job.result(LIMIT), JobRaised)
            self.assertEqual(error.data, b"not today")

    @on_reactor
    async def test_what_a_function_decides(self: Any) -> None:
        """The server is told, and the next run which attempt it is."""
        settings = Settings(functions={"*": FunctionSettings(retry_online=True)})
        with tempfile.TemporaryDirectory() as folder:
            async with joined(settings, **self.pool) as (client, worker):
                worker.register("retries", blocking.retries)
                worker.register("puts off", blocking.puts_off)
                await worker.start()
                job = await client.submit("retries", b"")
                self.assertEqual(await job.result(LIMIT), b"2 0")
                job = await client.submit("retries", b"rejected")
                error = await self.assertFailure(job.result(LIMIT), JobRaised)
                self.assertEqual(error.data, "no such größe".encode())
                job = await client.submit("puts off", str(Path(folder) / "file").encode())
                self.assertEqual(await job.result(LIMIT), b"1")

    @on_reactor
    async def test_codecs(self: Any) -> None:
        for codec, data, result in (
            ("json", b'{"a":["\xc3\xa4"]}', b'{"a":["\xc3\xa4"]}'),
            ("text", b"\xc3\xa4", b"\xc3\xa4"),
            (blocking.Shout(), b"ab", b"AB!"),
        ):
            self.assertEqual(await self.run_one(blocking.echo, data, codec=codec), result)

    @on_reactor
    async def test_as_many_at_once_as_there_is_room_for(self: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            release = Path(folder) / "release"
            async with joined(**dict.fromkeys(self.pool, 2)) as (client, worker):
                worker.register("f", blocking.hold)
                await worker.start()
                begun: list[bytes] = []
                two: Deferred[None] = Deferred()

                def begin(data: bytes) -> None:
                    begun.append(data)
                    if len(begun) == 2:
                        two.callback(None)

                jobs = [await client.submit("f", os.fsencode(release)) for _ in range(4)]
                for job in jobs:
                    job.on_data(begin)
                await two
                running = [(await client.status(job)).running for job in jobs]
                self.assertEqual(running, [True, True, False, False])
                release.touch()
                results = await gatherResults([job.result(LIMIT) for job in jobs])
                self.assertEqual(results, [b"released"] * 4)
                self.assertEqual(len(begun), 4)

    @on_reactor
    async def test_hooks(self: Any) -> None:
        calls: list[tuple[Any, ...]] = []
        hooks = Hooks(
            before_job=lambda job: calls.append(("before", job.handle)),
            after_job=lambda job, result: calls.append(("after", result)),
        )
        self.assertEqual(await self.run_one(blocking.echo, b"x", hooks=hooks), b"x")
        self.assertEqual([call[0] for call in calls], ["before", "after"])
        self.assertEqual(calls[1][1], b"x")

    @on_reactor
    async def test_a_parent_that_comes_late_starts_no_second_pool(self: Any) -> None:
        async with joined(**self.pool) as (_client, worker):
            await worker.start()
            pools = worker._threads or worker._processes
            pool = pools._pool
            parent = MultiService()
            parent.startService()
            worker.setServiceParent(parent)
            self.assertIs(pools._pool, pool)


class ThreadTests(PlaceExpectations, TestCase):
    pool = {"threads": 1}

    @on_reactor
    async def test_where_it_runs(self) -> None:
        pid, main = (await self.run_one(blocking.place)).split()
        self.assertEqual((int(pid), main), (os.getpid(), b"0"))

    @on_reactor
    async def test_what_is_async_stays_in_the_reactors_thread(self) -> None:
        async def function(job: Job) -> bytes:
            return blocking.place(job)

        self.assertEqual((await self.run_one(function)).split()[1], b"1")

    async def assert_place_is_kept(self, client: Client, release: Path) -> None:
        """The next job, of ``echo``, is not taken before the function of another has returned."""
        waiting = await client.submit("echo", b"x")
        # Far more round trips than the worker would need to get the job.
        for _ in range(20):
            self.assertFalse((await client.status(waiting)).running)
        release.touch()
        self.assertEqual(await waiting.result(LIMIT), b"x")

    @on_reactor
    async def test_a_thread_that_outlives_its_limit_keeps_its_place(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            release = Path(folder) / "release"
            async with joined(threads=1) as (client, worker):
                worker.register("hold", blocking.hold, time_limit=0.05)
                worker.register("echo", blocking.echo)
                await worker.start()
                job = await client.submit("hold", os.fsencode(release))
                error = await self.assertFailure(job.result(LIMIT), JobRaised)
                self.assertIn(b"TimeLimitExceeded", error.data)
                await self.assert_place_is_kept(client, release)

    @on_reactor
    async def test_a_thread_that_still_runs_does_not_hold_up_the_stop(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            release = Path(folder) / "release"
            async with joined(threads=1) as (client, worker):
                worker.register("hold", blocking.hold)
                await worker.start()
                job = await client.submit("hold", os.fsencode(release))
                begun: Deferred[bytes] = Deferred()
                job.on_data(begun.callback)
                await begun
                await worker.stop(0)
                self.assertFalse((await client.status(job)).running, "given back")
                release.touch()

    @on_reactor
    async def test_a_cancelled_job_may_end_itself(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            met = Path(folder) / "met"
            async with joined(threads=1) as (client, worker):
                worker.register("heed", blocking.heed)
                worker.register("echo", blocking.echo)
                await worker.start()
                job = await client.submit("heed", os.fsencode(met))
                await self.cancel_once_it_runs(client, job)
                job = await client.submit("echo", b"x")
                self.assertEqual(await job.result(LIMIT), b"x")
            self.assertEqual(met.read_text(), "cancelled")

    @on_reactor
    async def test_a_thread_that_outlives_its_cancelled_job_keeps_its_place(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            release = Path(folder) / "release"
            async with joined(threads=1) as (client, worker):
                worker.register("hold", blocking.hold)
                worker.register("echo", blocking.echo)
                await worker.start()
                job = await client.submit("hold", os.fsencode(release))
                await self.cancel_once_it_runs(client, job)
                await self.assert_place_is_kept(client, release)

    def test_it_needs_a_reactor(self) -> None:
        with self.assertRaises(TypeError):
            Worker(Clock(), "tcp:127.0.0.1:4730", threads=1)


class ThreadWriterTests(SynchronousTestCase):
    def test_what_was_sent_before_the_end_and_arrives_behind_it_is_dropped(self) -> None:
        class Recording:
            codec = BYTES
            max_packet = 100
            written: list[bytes] = []

            def write(self, data: bytes) -> None:
                self.written.append(data)

        class Queue:
            def __init__(self) -> None:
                self.calls: list[Any] = []

            def callFromThread(self, call: Any, *arguments: Any) -> None:
                self.calls.append((call, arguments))

        recording, queue = Recording(), Queue()
        job = Job(recording, b"H:1", b"f", b"", None, b"")
        job._writer = ThreadWriter(queue, recording, job)
        job.send_data(b"1")
        job.send_data(b"2")
        (first, arguments), (second, late) = queue.calls
        first(*arguments)
        job._writer = None
        second(*late)
        self.assertEqual(len(recording.written), 1)
        with self.assertRaises(JobOver):
            job.send_data(b"3")


class ProcessTests(PlaceExpectations, TestCase):
    pool = {"processes": 1}

    @on_reactor
    async def test_where_it_runs(self) -> None:
        pid, main = (await self.run_one(blocking.place)).split()
        self.assertNotEqual(int(pid), os.getpid())
        self.assertEqual(main, b"1")
        await ended(int(pid))

    @on_reactor
    async def test_at_the_time_limit_the_process_is_ended_and_the_next_job_runs(self) -> None:
        async with joined(processes=1) as (client, worker):
            worker.register("hold", blocking.hold, time_limit=0.05)
            worker.register("echo", blocking.echo)
            await worker.start()
            job = await client.submit("hold", b"/nowhere")
            begun: list[bytes] = []
            job.on_data(begun.append)
            error = await self.assertFailure(job.result(LIMIT), JobRaised)
            self.assertIn(b"TimeLimitExceeded", error.data)
            await ended(int(begun[0]))
            job = await client.submit("echo", b"x")
            self.assertEqual(await job.result(LIMIT), b"x")

    @on_reactor
    async def test_the_process_of_a_cancelled_job_is_ended_and_the_next_job_runs(self) -> None:
        async with joined(processes=1) as (client, worker):
            worker.register("hold", blocking.hold)
            worker.register("place", blocking.place)
            await worker.start()
            job = await client.submit("hold", b"/nowhere")
            pid = await self.cancel_once_it_runs(client, job)
            await ended(pid)
            for _ in range(2):
                job = await client.submit("place", b"")
                self.assertNotEqual(int((await job.result(LIMIT)).split()[0]), pid)

    @on_reactor
    async def test_a_process_that_dies_fails_its_job_and_no_other(self) -> None:
        async with joined(processes=1) as (client, worker):
            for function in (blocking.dies, blocking.place):
                worker.register(function.__name__, function)
            await worker.start()
            job = await client.submit("dies", b"")
            error = await self.assertFailure(job.result(LIMIT), JobRaised)
            self.assertIn(b"ProcessDied", error.data)
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            job = await client.submit("place", b"")
            await job.result(LIMIT)

    @on_reactor
    async def test_a_process_that_is_killed_without_a_job_is_replaced(self) -> None:
        async with joined(processes=1) as (client, worker):
            worker.register("place", blocking.place)
            await worker.start()
            pids = []
            for _ in range(3):
                job = await client.submit("place", b"")
                pids.append(int((await job.result(LIMIT)).split()[0]))
                await idle(pids[-1])
                os.kill(pids[-1], 9)
                await ended(pids[-1])
            self.assertEqual(len(set(pids)), 3)

    @on_reactor
    async def test_a_stop_ends_the_process_of_what_still_runs(self) -> None:
        async with joined(processes=1) as (client, worker):
            worker.register("hold", blocking.hold)
            await worker.start()
            job = await client.submit("hold", b"/nowhere")
            begun: Deferred[bytes] = Deferred()
            job.on_data(begun.callback)
            pid = int(await begun)
            await worker.stop(0)
            self.assertFalse(alive(pid))
            self.assertFalse((await client.status(job)).running, "given back")

    @on_reactor
    async def test_it_can_be_started_again(self) -> None:
        async with joined(processes=1, threads=1, concurrency=1) as (client, worker):
            worker.register("process", blocking.place, processes=True)
            worker.register("thread", blocking.place, threads=True)
            for _ in range(2):
                await worker.start()
                for name in ("process", "thread"):
                    job = await client.submit(name, b"")
                    await job.result(LIMIT)
                await worker.stop()

    @on_reactor
    async def test_a_result_larger_than_a_packet(self) -> None:
        async with joined(processes=1, max_packet=1000) as (client, worker):
            worker.register("long", blocking.long)
            await worker.start()
            job = await client.submit("long", b"900")
            self.assertEqual(await job.result(LIMIT), bytes(900))
            for size in (b"1001", b"3000000"):
                job = await client.submit("long", size)
                error = await self.assertFailure(job.result(LIMIT), JobRaised)
                self.assertIn(b"at most 1000", error.data)
                self.assertEqual(len(self.flushLoggedErrors()), 1)


class RegisteringTests(SynchronousTestCase):
    def worker(self, **options: Any) -> Worker:
        from twisted.internet import reactor

        return Worker(reactor, "tcp:127.0.0.1:4730", **options)  # type: ignore[arg-type]

    def test_a_function_that_a_process_cannot_import(self) -> None:
        def local(job: Job) -> bytes:
            return b""

        worker = self.worker(processes=1)
        for function in (local, lambda job: b""):
            with self.assertRaisesRegex(ValueError, "must be able to import"):
                worker.register("f", function)
        worker.register("f", blocking.echo)

    def test_a_codec_that_a_process_cannot_import(self) -> None:
        class Local(blocking.Shout):
            pass

        with self.assertRaisesRegex(ValueError, "must be able to import"):
            self.worker(processes=1, codec=Local()).register("f", blocking.echo)

    def test_executors_that_cannot_be(self) -> None:
        async def waits(job: Job) -> bytes:
            return b""

        class Waits:
            async def __call__(self, job: Job) -> bytes:
                return b""

        both = self.worker(threads=1, processes=1)
        for worker, function, options in (
            (both, blocking.echo, {}),
            (both, blocking.echo, {"threads": True, "processes": True}),
            (both, waits, {"threads": True}),
            (both, Waits(), {"processes": True}),
            (self.worker(), blocking.echo, {"threads": True}),
            (self.worker(threads=1), blocking.echo, {"processes": True}),
        ):
            with self.assertRaises(ValueError):
                worker.register("f", function, **options)
        for number, function in enumerate((waits, Waits())):
            both.register(f"f{number}", function)

    def test_numbers_that_cannot_be(self) -> None:
        for options in ({"threads": -1}, {"processes": -1}, {"threads": 2, "concurrency": 0}):
            with self.assertRaises(ValueError):
                self.worker(**options)

    def test_processes_without_pebble(self) -> None:
        real = builtins.__import__

        def without(name: str, *arguments: Any) -> Any:
            if name == "pebble":
                raise ModuleNotFoundError("No module named 'pebble'")
            return real(name, *arguments)

        self.patch(builtins, "__import__", without)
        with self.assertRaisesRegex(ImportError, r"install txgearman\[processes\]"):
            self.worker(processes=1)
        self.worker(threads=1)
