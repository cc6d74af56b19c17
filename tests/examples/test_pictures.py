"""The programs of the tutorial: its functions, its web application, its plain script, its systemd unit."""

from __future__ import annotations

import base64
import configparser
import contextlib
import io
import json
import os
import shlex
import signal
import struct
import sysconfig
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.test.requesthelper import DummyRequest

from tests.blocking.servers import BackgroundServer, ThreadedWorker, until, working
from tests.interop.programs import Server, exchange, run_program, running, txgearmand
from tests.support import free_port, load, needs_program, on_reactor
from txgearman.client import Client
from txgearman.testing import MemoryGearman

FOLDER = Path(__file__).parent.parent.parent / "examples" / "pictures"
UNIT = FOLDER / "txgearman-worker@.service"
PLACE = "/opt/pictures/venv/bin"


class Job:
    """What a function is given."""

    def __init__(self, unique: bytes = b"", **wanted: Any) -> None:
        self.unique = unique
        self.data = json.dumps(wanted).encode()
        self.statuses: list[tuple[int, int]] = []

    def send_status(self, numerator: int, denominator: int) -> None:
        self.statuses.append((numerator, denominator))


class Functions(SynchronousTestCase):
    def setUp(self) -> None:
        self.pictures = load(FOLDER / "pictures.py")

    def test_picture_is_png(self) -> None:
        job = Job(width=20, height=3, x=-0.5, y=0, size=4, depth=30)
        found = self.pictures.picture(job)
        self.assertEqual(found[:8], b"\x89PNG\r\n\x1a\n")
        chunks, at = {}, 8
        while at < len(found):
            length, kind = struct.unpack_from(">I4s", found, at)
            body = found[at + 8 : at + 8 + length]
            (checksum,) = struct.unpack_from(">I", found, at + 8 + length)
            self.assertEqual(checksum, zlib.crc32(kind + body))
            chunks[kind] = body
            at += length + 12
        self.assertEqual(list(chunks), [b"IHDR", b"IDAT", b"IEND"])
        self.assertEqual(chunks[b"IHDR"], struct.pack(">IIBBBBB", 20, 3, 8, 0, 0, 0, 0))
        pixels = zlib.decompress(chunks[b"IDAT"])
        rows = [pixels[21 * row : 21 * row + 21] for row in range(3)]
        self.assertEqual([row[0] for row in rows], [0, 0, 0])
        # -0.5 + 0i is in the set, -2.5 leaves it at once.
        self.assertEqual((rows[1][11], rows[1][1]), (0, 255))
        self.assertEqual(job.statuses, [(1, 3), (2, 3), (3, 3)])

    def test_at_most_a_hundred_statuses(self) -> None:
        job = Job(width=1, height=1000, depth=1)
        self.pictures.picture(job)
        self.assertEqual(len(job.statuses), 100)
        self.assertEqual(job.statuses[-1], (1000, 1000))

    def test_what_is_too_large_is_refused(self) -> None:
        for wanted in ({"width": 0}, {"width": 10_000, "height": 10_000}, {"depth": 1001}):
            job = Job(**{"width": 1, "height": 1, **wanted})
            self.assertRaises(ValueError, self.pictures.picture, job)

    def test_poster_is_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.patch(os, "environ", {**os.environ, "STATE_DIRECTORY": folder})
            job = Job(b"night", width=2, height=2)
            self.assertIsNone(self.pictures.poster(job))
            self.assertEqual(os.listdir(folder), ["night.png"])
            self.assertEqual((Path(folder) / "night.png").read_bytes(), self.pictures.picture(job))
            for name in (b"", b"../night", b"/night", b"a.b"):
                self.assertRaises(ValueError, self.pictures.poster, Job(name, width=2, height=2))
            self.assertEqual(os.listdir(folder), ["night.png"])


def events(request: DummyRequest) -> list[tuple[str, Any]]:
    """The server-sent events that were written so far."""
    found = []
    for text in b"".join(request.written).decode().split("\n\n")[:-1]:
        event, data = text.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


class Web(SynchronousTestCase):
    """The web application, with a server and a worker in memory."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman()
        self.module = load(FOLDER / "web.py")
        self.root = self.module.make_site(self.gearman.client()).resource
        self.ends: list[Deferred[bytes]] = []

    def work(self, function: Callable[[Any], Any]) -> None:
        worker = self.gearman.worker(concurrency=5)
        worker.register("picture", function)
        self.gearman.wait(worker.start())

    def hold(self, job: Any) -> Deferred[bytes]:
        """A function whose end comes from the test."""
        job.send_status(1, 2)
        self.ends.append(Deferred())
        return self.ends[-1]

    def ask(self) -> DummyRequest:
        request = DummyRequest([b"picture"])
        self.root.getChildWithDefault(b"picture", request).render(request)
        self.gearman.turn(1)
        return request

    def test_progress_and_picture(self) -> None:
        self.work(self.hold)
        request = self.ask()
        self.assertEqual(request.responseHeaders.getRawHeaders("content-type"), ["text/event-stream"])
        ((accepted, handle), status) = events(request)
        self.assertEqual((accepted, handle[:2], status), ("accepted", "H:", ("status", [1, 2])))
        self.assertEqual(request.finished, 0)
        self.ends[0].callback(b"\x89PNG")
        self.gearman.turn(1)
        self.assertEqual(events(request)[2:], [("picture", base64.b64encode(b"\x89PNG").decode())])
        self.assertEqual(request.finished, 1)

    def test_two_browsers_wait_for_one_job(self) -> None:
        self.work(self.hold)
        requests = [self.ask(), self.ask()]
        (end,) = self.ends
        end.callback(b"same")
        self.gearman.turn(1)
        self.assertEqual([events(request)[-1][0] for request in requests], ["picture"] * 2)

    def test_failures_are_told(self) -> None:
        def fail(job: Any) -> bytes:
            raise ValueError("no colours")

        self.work(fail)
        request = self.ask()
        self.assertEqual(events(request)[-1][0], "failed")
        self.assertIn("no colours", events(request)[-1][1])
        self.assertEqual(request.finished, 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.gearman.stop()
        request = self.ask()
        self.assertEqual([event for event, _ in events(request)], ["failed"])
        self.assertEqual(request.finished, 1)

    def test_browser_leaves(self) -> None:
        self.work(self.hold)
        request = self.ask()
        written = list(request.written)
        request.processingFailed(Failure(ConnectionResetError("the browser has gone")))
        self.ends[0].callback(b"late")
        self.gearman.turn(1)
        self.assertEqual((request.written, request.finished), (written, 0))

    def test_page(self) -> None:
        request = DummyRequest([b""])
        page = self.root.getChildWithDefault(b"", request).render(request)
        # It asks for what the application has.
        self.assertIn(b'new EventSource("picture")', page)


class WebProgram(TestCase):
    @on_reactor
    async def test_serves_the_page_also_without_a_job_server(self) -> None:
        from twisted.internet import reactor

        listen = "tcp:0:interface=127.0.0.1"
        with contextlib.redirect_stdout(io.StringIO()) as output:
            serving = Deferred.fromCoroutine(
                load(FOLDER / "web.py").main(reactor, f"tcp:127.0.0.1:{free_port()}", listen)
            )
            url = output.getvalue().split()[-1]
        port = int(url.removesuffix("/").rpartition(":")[2])
        try:
            for path, expected in (("/", b"EventSource"), ("/picture", b"event: failed")):
                request = f"GET {path} HTTP/1.0\r\n\r\n".encode()
                answer = await exchange(port, request, lambda received, part=expected: part in received)
                self.assertIn(b" 200 OK", answer.partition(b"\r\n")[0])
        finally:
            serving.cancel()
            await self.assertFailure(serving, CancelledError)


class Order(SynchronousTestCase):
    """The plain script, with a server in another thread."""

    def run_script(self, *arguments: str) -> list[str]:
        module = load(FOLDER / "order.py")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(module.main(list(arguments), self.server.address), 0)
        return output.getvalue().splitlines()

    def test_from_order_to_end(self) -> None:
        jobs: list[Any] = []

        class Worker(ThreadedWorker):
            """Leaves its jobs open."""

            def on_job_execute(self, current_job: Any) -> bool:
                self.send_job_status(current_job, 3, 800)
                jobs.append(current_job)
                return True

        with BackgroundServer() as self.server:
            (handle,) = self.run_script("night")
            self.assertEqual(self.run_script("--ask", handle), ["It waits for a worker."])
            worker = Worker(self.server.address)
            worker.register_task("poster", lambda worker, job: "")
            with working(worker):
                until(lambda: bool(jobs), "the worker has the job")
                (job,) = jobs
                self.assertEqual(
                    (job.unique, json.loads(job.data)), ("night", {"width": 1200, "height": 800})
                )
                until(
                    lambda: "3 of 800 rows" in self.run_script("--ask", handle)[0],
                    "the server knows the status",
                )
                worker.send_job_complete(job, "")
                until(
                    lambda: "It is not known" in self.run_script("--ask", handle)[0],
                    "the server forgets the job",
                )

    def test_mistakes(self) -> None:
        module = load(FOLDER / "order.py")
        self.assertIn("python order.py NAME", module.main([]))
        self.assertIn("python order.py NAME", module.main(["--ask"]))
        self.assertIn("python order.py NAME", module.main(["../night"]))
        with BackgroundServer() as server:
            address = server.address
        self.assertIn(f"No answer from {address}", module.main(["night"], address))


class Unit(TestCase):
    """The template of systemd, and what it starts."""

    def setUp(self) -> None:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(UNIT)
        self.service = parser["Service"]

    @needs_program("systemd-analyze")
    @on_reactor
    async def test_systemd_accepts_it(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / UNIT.name
            # As it is, but for the place of the program, which must be there.
            text = UNIT.read_text(encoding="utf-8")
            self.assertIn(f"ExecStart={PLACE}/", text)
            unit.write_text(text.replace(f"{PLACE}/", f"{sysconfig.get_path('scripts')}/"), encoding="utf-8")
            code, output, complaints = await run_program(["systemd-analyze", "verify", str(unit)])
        ours = [line for line in (output + complaints).decode().splitlines() if UNIT.name[:-9] in line]
        self.assertEqual((code, ours), (0, []))

    def test_systemd_waits_longer_than_the_worker(self) -> None:
        command = self.command(1)
        drain = command[command.index("--drain") + 1]
        self.assertLess(int(drain.removesuffix("s")), int(self.service["TimeoutStopSec"].removesuffix("s")))

    def command(self, instance: int) -> list[str]:
        """What the unit starts, from this environment."""
        command = self.service["ExecStart"].replace("%i", str(instance)).replace("\\\n", " ")
        self.assertTrue(command.startswith(f"{PLACE}/"))
        return shlex.split(command.replace(f"{PLACE}/", f"{sysconfig.get_path('scripts')}/", 1))

    def environment(self, server: Server, state: str) -> dict[str, str]:
        """What systemd would set, but for the server's port."""
        name, _, address = self.service["Environment"].partition("=")
        return {
            name: address.replace("4730", str(server.port)),
            "STATE_DIRECTORY": state,
            # In the place of the working directory.
            "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parent.parent)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @on_reactor
    async def test_pool_drains_on_sigterm(self) -> None:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as state:
            async with txgearmand() as server:
                environment = self.environment(server, state)
                async with (
                    running(*self.command(1), environment=environment) as first,
                    running(*self.command(2), environment=environment) as second,
                    Client(reactor, server.endpoint) as client,  # type: ignore[arg-type]
                ):
                    await server.has("picture", workers=2)
                    shown = (await server.ask("workers")).decode()
                    for name in ("pictures-1", "pictures-2"):
                        self.assertIn(f" {name} : ", shown)
                    # Two jobs, so one for each, long enough to be stopped in their middle.
                    wanted = {"width": 200, "height": 200, "x": -0.6, "y": 0, "size": 0.1, "depth": 150}
                    begun: DeferredQueue[tuple[int, int]] = DeferredQueue()
                    jobs = []
                    for _ in range(2):
                        job = await client.submit("picture", json.dumps(wanted).encode())
                        job.on_status(lambda *status: begun.put(status))
                        jobs.append(job)
                    await server.has("picture", active=2)
                    await begun.get()
                    third = await client.submit(
                        "poster",
                        json.dumps({"width": 1, "height": 1}).encode(),
                        unique="late",
                        background=True,
                    )
                    first.signal(signal.SIGTERM)
                    second.signal(signal.SIGTERM)
                    for job in jobs:
                        self.assertEqual((await job.result(timeout=30))[:4], b"\x89PNG")
                    self.assertEqual([await first.ended(), await second.ended()], [0, 0])
                    # Neither took another job on its way out; the next worker does.
                    self.assertTrue((await client.status(third)).known)
                    self.assertEqual(os.listdir(state), [])
                    async with running(*self.command(3), environment=environment):
                        await server.has("poster", jobs=0)
                        self.assertEqual(os.listdir(state), ["late.png"])
