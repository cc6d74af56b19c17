"""Client, worker and admin client in programs of asyncio; the server is in another thread."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet._resolver import GAIResolver
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer
from tests.support import free_port, load
from txgearman import aio, client, worker
from txgearman.client import DataUpdate, StatusUpdate, WarningUpdate
from txgearman.errors import BadPayload, JobFailed, JobRaised, NoResult, NotConnected, Reject, Retry
from txgearman.server import Settings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.worker import Hooks
from txgearman.worker import Job as WorkerJob

EXAMPLES = Path(__file__).parent.parent / "docs/examples"


async def shout(job: WorkerJob) -> bytes:
    """Waits as asyncio does between all that it sends."""
    job.send_data(b"one")
    await asyncio.sleep(0)
    job.send_status(1, 2)
    await aio.future(job.room())
    job.send_warning(b"careful")
    return bytes(job.data).upper()


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.server = stack.enter_context(BackgroundServer())
        # A name, so that it has to be looked up.
        self.endpoint = f"tcp:localhost:{self.server.port}"

    def run_async(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run(asyncio.wait_for(main(), LIMIT))


class ClientTests(_Case):
    def test_a_job_from_its_submission_to_its_end(self) -> None:
        async def main() -> None:
            working = aio.Worker(self.endpoint)
            working.register("shout", shout)
            async with working, aio.Client(self.endpoint) as submitting:
                job = await submitting.submit("shout", b"abc", unique="u")
                updates = [update async for update in job.updates()]
                self.assertEqual(await job.result(), b"ABC")
                self.assertEqual(await job.result(timeout=1), b"ABC", "as often as it is asked for")
            self.assertEqual(updates, [DataUpdate(b"one"), StatusUpdate(1, 2), WarningUpdate(b"careful")])
            self.assertEqual((job.function, job.unique, job.background), (b"shout", b"u", False))
            self.assertEqual((job.server, job.last_status), (self.endpoint, (1, 2)))
            self.assertIn(job.handle.decode(), repr(job))

        self.run_async(main)

    def test_outcomes_of_very_many(self) -> None:
        async def main() -> None:
            working = aio.Worker(self.endpoint, concurrency=8)
            working.register("reverse", lambda job: job.data[::-1])
            async with working, aio.Client(self.endpoint, codec="text") as submitting:
                payloads = [f"{number}!" for number in range(300)]
                outcomes = [one async for one in submitting.run_many("reverse", iter(payloads), window=50)]
                self.assertEqual([one.result() for one in outcomes], [data[::-1] for data in payloads])
                left = submitting.run_many("reverse", payloads, ordered=False)
                async for outcome in left:
                    self.assertEqual(outcome.value, payloads[outcome.index][::-1])
                    break
                await left.aclose()
                self.assertEqual([one async for one in left], [])

        self.run_async(main)

    def test_many_at_once(self) -> None:
        async def main() -> None:
            working = aio.Worker(self.endpoint, concurrency=8)
            working.register("shout", shout)
            async with working, aio.Client(self.endpoint) as submitting:

                async def one(number: int) -> bytes:
                    job = await submitting.submit("shout", b"j%d" % number)
                    return bytes(await job.result())

                results = await asyncio.gather(*map(one, range(50)))
            self.assertEqual(results, [b"J%d" % number for number in range(50)])

        self.run_async(main)

    def test_what_is_asked(self) -> None:
        async def main() -> None:
            async with (
                aio.Client([self.endpoint], codec="text") as submitting,
                aio.Admin(self.endpoint) as admin,
            ):
                self.assertEqual(submitting.servers, {self.endpoint: True})
                job = await submitting.submit("f", "é", unique="k", background=True)
                self.assertTrue((await submitting.status(job)).known)
                self.assertTrue((await submitting.status(job.handle)).known)
                self.assertTrue((await submitting.status_by_unique("k")).known)
                with self.assertRaises(NoResult):
                    job.updates()
                with self.assertRaises(NoResult):
                    await job.result()
                self.assertEqual(len(await submitting.submit_many("f", map(str, range(100)))), 100)
                await submitting.room()
                await submitting.answered()
                self.assertEqual(await submitting.echo(b"e"), b"e")
                self.assertEqual(await submitting.echo_each(b"e"), {self.endpoint: b"e"})
                (status,) = await admin.status()
                self.assertEqual((status.function, status.total), ("f", 101))
                await admin.cancel(job.handle)
                self.assertFalse((await submitting.status(job)).known)

        self.run_async(main)

    def test_updates_are_read_on_behind_one_that_cannot_be_decoded(self) -> None:
        async def function(job: WorkerJob) -> None:
            job.send_data(b"\xff")
            job.send_data(b"b")

        async def main() -> None:
            working = aio.Worker(self.endpoint)
            working.register("f", function)
            async with working, aio.Client(self.endpoint, codec="text") as submitting:
                updates = (await submitting.submit("f", "")).updates()
                with self.assertRaises(BadPayload):
                    await anext(updates)
                self.assertEqual([update async for update in updates], [DataUpdate("b")])

        self.run_async(main)

    def test_callbacks(self) -> None:
        async def main() -> None:
            got: list[Any] = []
            working = aio.Worker(self.endpoint)
            async with aio.Client(self.endpoint) as submitting:
                job = await submitting.submit("shout", b"")
                job.on_data(got.append)
                job.on_warning(got.append)
                job.on_status(lambda *status: got.append(status))
                working.register("shout", shout)
                async with working:
                    await job.result()
            self.assertEqual(got, [b"one", (1, 2), b"careful"])

        self.run_async(main)

    def test_to_give_up_waiting_ends_the_waiting_only(self) -> None:
        async def main() -> None:
            async with aio.Client(self.endpoint) as submitting:
                job = await submitting.submit("f", b"")
                for waiting in (job.result(), anext(job.updates())):
                    with self.assertRaises(TimeoutError):
                        await asyncio.wait_for(waiting, 0.01)
                working = aio.Worker(self.endpoint)
                working.register("f", lambda _: b"r")
                async with working:
                    self.assertEqual(await job.result(), b"r")

        self.run_async(main)

    def test_a_name_that_is_looked_up_for_long_does_not_hold_up_the_loop(self) -> None:
        begun, proceed = threading.Event(), threading.Event()
        proceeded: list[bool] = []
        self.addCleanup(proceed.set)

        def look_up(*_arguments: Any) -> list[Any]:
            begun.set()
            proceeded.append(proceed.wait(LIMIT))
            return []

        # What it looks up names by is bound at Twisted's import.
        self.patch(GAIResolver.__init__, "__defaults__", (None, look_up))

        async def main() -> None:
            before = set(threading.enumerate())
            waiting = asyncio.ensure_future(aio.Client("tcp:server.example:4730").__aenter__())
            await asyncio.to_thread(begun.wait, LIMIT)
            threads.extend(set(threading.enumerate()) - before)
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting
            proceed.set()

        threads: list[threading.Thread] = []
        self.run_async(main)
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual(proceeded, [True])

    def test_no_server(self) -> None:
        async def main() -> None:
            nowhere = f"tcp:127.0.0.1:{free_port()}"
            for kind in (aio.Client, aio.Admin):
                with self.assertRaises(NotConnected):
                    async with kind(nowhere):
                        self.fail("it is not there")
            submitting = aio.Client(nowhere)
            with self.assertRaises(NotConnected):
                await submitting.submit("f", b"")
            await submitting.close()
            await submitting.close()
            with self.assertRaises(NotConnected):
                await submitting.submit("f", b"")

        self.run_async(main)

    def test_mistakes(self) -> None:
        with self.assertRaises(RuntimeError):
            aio.Client(self.endpoint)

        async def main() -> None:
            with self.assertRaises(ValueError):
                aio.Client([])
            async with aio.Client(self.endpoint) as submitting:
                with self.assertRaises(TypeError):
                    submitting.submit("f", "text")

        self.run_async(main)

    @unittest.skipUnless(sys.platform == "linux", "counts the open files as Linux shows them")
    def test_nothing_is_left_behind(self) -> None:
        async def main() -> None:
            working = aio.Worker(self.endpoint, threads=1)
            working.register("f", lambda _: b"")
            async with working, aio.Client(self.endpoint) as submitting:
                await (await submitting.submit("f", b"")).result()

        def count() -> tuple[int, int]:
            gc.collect()
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        self.run_async(main)
        files, threads = count()
        for _ in range(5):
            self.run_async(main)
        # The server's ends of the connections may last a little longer than ours.
        more_files, more_threads = count()
        self.assertLess(more_files - files, 5)
        self.assertLess(more_threads - threads, 5)


class WorkerTests(_Case):
    def test_exceptions_and_hooks(self) -> None:
        called: list[str] = []

        async def before(_job: WorkerJob) -> None:
            await asyncio.sleep(0)
            called.append("before")

        async def failed(_job: WorkerJob, failure: Any) -> None:
            await asyncio.sleep(0)
            called.append(failure.type.__name__)

        async def boom(_job: WorkerJob) -> bytes:
            await asyncio.sleep(0)
            raise LookupError("no such thing")

        async def main() -> None:
            working = aio.Worker(self.endpoint, hooks=Hooks(before_job=before, on_failure=failed))
            working.function("boom")(boom)
            async with working, aio.Client(self.endpoint) as submitting:
                with self.assertRaises(JobRaised) as caught:
                    await (await submitting.submit("boom", b"")).result()
                self.assertEqual(caught.exception.data, b"LookupError: no such thing")

        self.run_async(main)
        self.assertEqual(called, ["before", "LookupError"])
        self.flushLoggedErrors(LookupError)

    def test_what_a_function_decides(self) -> None:
        attempts: list[int | None] = []

        async def decide(job: WorkerJob) -> bytes:
            await asyncio.sleep(0)
            attempts.append(job.attempt)
            if job.attempt == 1:
                raise Retry(0.0, "not yet")
            raise Reject("no")

        async def main() -> None:
            working = aio.Worker(self.endpoint, heartbeat=True)
            working.register("decide", decide)
            async with working, aio.Client(self.endpoint) as submitting:
                with self.assertRaises(JobRaised) as caught:
                    await (await submitting.submit("decide", b"")).result()
                self.assertEqual(caught.exception.data, b"no")

        self.server.stop()
        self.server = BackgroundServer(
            settings=Settings(functions={"decide": FunctionSettings(retry_online=True)})
        )
        self.addCleanup(self.server.stop)
        self.endpoint = f"tcp:localhost:{self.server.port}"
        self.run_async(main)
        self.assertEqual(attempts, [1, 2])

    def test_what_returns_something_to_await(self) -> None:
        hooked: list[str] = []

        async def note(what: str) -> None:
            await asyncio.sleep(0)
            hooked.append(what)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            hooks = Hooks(before_job=lambda _job: note("before"), after_job=lambda *_: note("after"))
            working = aio.Worker(self.endpoint, hooks=hooks)
            working.register("coroutine", lambda *arguments: shout(*arguments))  # noqa: PLW0108 (no coroutine function)
            working.register("task", lambda job: loop.create_task(shout(job)))
            working.register(
                "deferred", lambda job: job.room().addCallback(lambda _: bytes(job.data).upper())
            )
            async with working, aio.Client(self.endpoint) as submitting:
                for name in ("coroutine", "task", "deferred"):
                    self.assertEqual(await (await submitting.submit(name, b"abc")).result(), b"ABC", name)

        self.run_async(main)
        self.assertEqual(hooked, ["before", "after"] * 3)

    def test_a_stop_waits_for_the_job_that_runs(self) -> None:
        async def main() -> None:
            begun = asyncio.Event()

            async def slow(_job: WorkerJob) -> bytes:
                begun.set()
                await asyncio.sleep(0.05)
                return b"done"

            async with aio.Client(self.endpoint) as submitting:
                working = aio.Worker(self.endpoint)
                working.register("slow", slow)
                async with working:
                    job = await submitting.submit("slow", b"")
                    await begun.wait()
                self.assertEqual(await job.result(), b"done")

        self.run_async(main)

    def test_a_job_without_time_to_end_is_cancelled(self) -> None:
        seen: list[BaseException] = []

        async def main() -> None:
            begun = asyncio.Event()

            async def stuck(_job: WorkerJob) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except BaseException as error:
                    seen.append(error)
                    raise

            working = aio.Worker(
                self.endpoint, hooks=Hooks(on_failure=lambda _job, failure: seen.append(failure.value))
            )
            working.register("stuck", stuck)
            await working.start()
            async with aio.Client(self.endpoint) as submitting:
                await submitting.submit("stuck", b"", background=True)
                await begun.wait()
                await working.stop(0)
            await asyncio.sleep(0)

        self.run_async(main)
        self.assertEqual([type(error) for error in seen], [asyncio.CancelledError, CancelledError])

    def test_the_task_of_a_cancelled_job_is_cancelled(self) -> None:
        seen: list[Any] = []

        async def main() -> None:
            begun, ended = asyncio.Event(), asyncio.Event()

            async def stuck(job: WorkerJob) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    # It may clean up.
                    await asyncio.sleep(0)
                    seen.append((job.cancelled, job.cancel_reason))
                    ended.set()
                    raise

            working = aio.Worker(self.endpoint)
            working.register("stuck", stuck)
            working.register("shout", shout)
            async with working, aio.Client(self.endpoint) as submitting, aio.Admin(self.endpoint) as admin:
                job = await submitting.submit("stuck", b"")
                await begun.wait()
                await admin.cancel(job.handle)
                await ended.wait()
                with self.assertRaises(JobFailed):
                    await job.result()
                following = await submitting.submit("shout", b"abc")
                self.assertEqual(await following.result(), b"ABC")

        self.run_async(main)
        self.assertEqual(seen, [(True, "cancelled")])

    def test_functions_that_block(self) -> None:
        async def main() -> None:
            def where(_job: WorkerJob) -> bytes:
                return threading.current_thread().name.encode()

            working = aio.Worker(self.endpoint, threads=1)
            working.register("there", where)
            working.register("here", where, threads=False)
            async with working, aio.Client(self.endpoint) as submitting:
                there, here = [
                    await (await submitting.submit(name, b"")).result() for name in ("there", "here")
                ]
            mine = threading.current_thread().name.encode()
            self.assertNotEqual(there, mine)
            self.assertEqual(here, mine)
            with self.assertRaises(ValueError):
                working.register("shout", shout, threads=True)

        self.run_async(main)

    def test_a_thread_that_outlives_the_loop_disturbs_nobody(self) -> None:
        begun, proceed = threading.Event(), threading.Event()
        raised: list[Any] = []
        self.patch(threading, "excepthook", raised.append)
        self.addCleanup(proceed.set)

        def function(_job: WorkerJob) -> None:
            begun.set()
            proceed.wait(LIMIT)

        async def main() -> None:
            working = aio.Worker(self.endpoint, threads=1)
            working.register("f", function)
            async with aio.Client(self.endpoint) as submitting:
                await working.start()
                await submitting.submit("f", b"", background=True)
                await asyncio.to_thread(begun.wait, LIMIT)
                await working.stop(0)
            workers.extend(thread for thread in threading.enumerate() if "txgearman-worker" in thread.name)

        workers: list[threading.Thread] = []
        self.run_async(main)
        proceed.set()
        self.assertTrue(workers)
        for thread in workers:
            thread.join(LIMIT)
        self.assertEqual(raised, [])

    def test_it_starts_once(self) -> None:
        async def main() -> None:
            working = aio.Worker(self.endpoint)
            await working.start()
            await working.stop()
            await working.stop()
            with self.assertRaises(RuntimeError):
                await working.start()

        self.run_async(main)


class ExampleTests(_Case):
    def test_jobs(self) -> None:
        with redirect_stdout(io.StringIO()) as output:
            self.run_async(lambda: load(EXAMPLES / "asyncio_jobs.py").main(self.endpoint))
        self.assertEqual(
            output.getvalue().splitlines(),
            ["1 of 3", "2 of 3", "3 of 3", "!dlroW olleH", "[b'eno', b'owt']"],
        )

    def test_a_worker_until_it_is_told_to_stop(self) -> None:
        path = EXAMPLES / "asyncio_worker.py"
        with subprocess.Popen([sys.executable, path, self.endpoint], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                self.assertTrue(process.stdout.readline().startswith(b"Waiting for the server tcp:"))
                self.assertEqual(process.stdout.readline(), b"Working\n")

                async def main() -> None:
                    async with aio.Client(self.endpoint) as submitting:
                        job = await submitting.submit("reverse", b"abc")
                        self.assertEqual(await job.result(), b"cba")

                self.run_async(main)
                process.terminate()
                self.assertEqual(process.wait(LIMIT), 0)
            finally:
                process.kill()

    def test_a_worker_that_is_told_to_stop_while_there_is_no_server(self) -> None:
        path = EXAMPLES / "asyncio_worker.py"
        with subprocess.Popen(
            [sys.executable, path, "unix:/no/such/socket"], stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), b"Waiting for the server unix:/no/such/socket\n")
                process.terminate()
                self.assertEqual(process.wait(LIMIT), 0)
            finally:
                process.kill()


class SurfaceTests(SynchronousTestCase):
    def test_it_has_all_that_the_twisted_classes_have(self) -> None:
        for ours, twisted, without in (
            (aio.Client, client.Client, set()),
            (aio.Job, client.Job, set()),
            (aio.Admin, client.Admin, set()),
            (aio.Worker, worker.Worker, {*dir(Service), "startService", "stopService"}),
        ):
            missing = {name for name in dir(twisted) if not name.startswith("_")} - {*dir(ours)} - without
            self.assertEqual(missing, set(), ours)

    def test_methods_say_what_they_take_and_give(self) -> None:
        ours = inspect.signature(aio.Client.submit)
        self.assertEqual(ours.return_annotation, "Future[Job]")
        self.assertEqual(ours.parameters, inspect.signature(client.Client.submit).parameters)
        self.assertEqual(aio.Client.submit.__doc__, client.Client.submit.__doc__)
        made = [*inspect.signature(aio.Worker).parameters]
        self.assertEqual(made, [*inspect.signature(worker.Worker).parameters][1:])
