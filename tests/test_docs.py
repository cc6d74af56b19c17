"""The documentation says what is true: its examples run, and its tables agree with the code.

Whether the pages can be built is checked by ``make check``, with Sphinx.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import re
import shlex
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.application.service import IService, IServiceCollection
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

import txgearman
from benchmarks.workloads import LIBRARY_WORKLOADS, WORKLOADS
from tests.support import DOCS, load, on_reactor, table
from txgearman import Client, errors
from txgearman.access.policy import Identity, Right
from txgearman.broker.histograms import Meter
from txgearman.broker.meters import Counts, measures_of
from txgearman.client import Admin
from txgearman.errors import FailJob
from txgearman.server import GearmanService, Settings
from txgearman.server.admin import commands as admin_commands
from txgearman.server.config.options import METRICS_FUNCTIONS
from txgearman.server.process import twistd
from txgearman.server.process.twistd import Options
from txgearman.server.schedules.scheduling import schedules_of
from txgearman.server.service import check_endpoint
from txgearman.testing import MemoryGearman
from txgearman.web.metrics import FAMILIES, Snapshot
from txgearman.wire.codec import Decoder, encode
from txgearman.wire.options import EXTENSIONS
from txgearman.wire.packets import (
    BY_NUMBER,
    CAN_DO,
    EXTENSION_PACKETS,
    GRAB_JOB,
    PACKETS,
    REQUEST,
    RESPONSE,
    SET_CLIENT_ID,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    PacketType,
    Role,
    name_of,
)
from txgearman.worker import Job

ROOT = Path(__file__).parent.parent
EXAMPLES = DOCS / "examples"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.rst")])


def example(name: str) -> ModuleType:
    return load(EXAMPLES / name)


@contextmanager
def printed() -> Iterator[list[str]]:
    """The lines that are printed within the block, there when it is over."""
    lines: list[str] = []
    with redirect_stdout(io.StringIO()) as output:
        yield lines
    lines += output.getvalue().splitlines()


def application_file(name: str, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """What the example, a file for twistd, defines after `changes` of its text."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, name, "exec"), names)
    return names


def literal(cell: str) -> str:
    return cell.strip("`")


# -- examples -----------------------------------------------------------------------------------


class Roles(SynchronousTestCase):
    """The examples of client, worker and offline jobs, on a server in memory."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example"))

    def work(self) -> None:
        """Start the worker of functions.py."""
        worker = example("functions.py").make_worker(self.gearman.clock, self.gearman.endpoint)
        self.gearman.wait(worker.start())

    def test_worker_and_clients(self) -> None:
        clock, endpoint = self.gearman.clock, self.gearman.endpoint
        with printed() as lines:
            working = Deferred.fromCoroutine(example("worker.py").main(clock, endpoint))
            for name in ("client.py", "many.py"):
                self.gearman.wait(example(name).main(clock, endpoint))
        waiting = f"Waiting for the server {endpoint}"
        self.assertEqual(lines, [waiting, "Working", "!dlroW olleH", "eno owt eerht"])
        self.assertNoResult(working)
        working.cancel()
        self.failureResultOf(working, CancelledError)

    def test_very_many_jobs(self) -> None:
        self.gearman.server.administration.set_limits(b"reverse", (90, 90, 90))
        module = example("very_many.py")
        payloads = [b"%d" % number for number in range(100)]
        with printed() as lines:
            self.gearman.wait(module.main(self.gearman.clock, iter(payloads), self.gearman.endpoint))
        refusal = "QUEUE_ERROR: Job queue is full"
        self.assertEqual(lines[0], f"10 of 100 jobs were not accepted: {refusal}")
        self.assertEqual(lines[1:], [f"payload {place}: {refusal}" for place in range(90, 100)])
        doing = module.one_by_one(self.gearman.clock, iter(payloads[:5]), self.gearman.endpoint)
        self.assertEqual(
            [failure.value.code for failure in self.gearman.wait(doing)],
            ["QUEUE_ERROR"] * 5,
        )

    def test_results_of_very_many_jobs(self) -> None:
        def reverse(job: Job) -> bytes:
            if job.data == b"no":
                raise FailJob
            return job.data[::-1]

        worker = self.gearman.worker()
        worker.register("reverse", reverse)
        self.gearman.wait(worker.start())
        with printed() as lines:
            results = example("very_many.py").results
            self.gearman.wait(results(self.gearman.clock, [b"ab", b"no", b"cd"], self.gearman.endpoint))
        self.assertEqual(lines[::2], ["0 ba", "2 dc"])
        self.assertIn("failed", lines[1])

    def test_decisions(self) -> None:
        module = example("decisions.py")
        # Too busy, refused for now, and delivered.
        module.mailer.answers = [421, 450, 250, 550]
        worker = self.gearman.worker()
        worker.register("mail", module.send_mail)
        self.gearman.wait(worker.start())
        client = self.gearman.client()
        job = self.gearman.wait(client.submit("mail", b"me@there", background=True))
        admin = Admin(self.gearman.clock, self.gearman.endpoint)
        states = []
        for _ in range(3):
            self.gearman.turn()
            detail = self.gearman.wait(admin.job(job.handle))
            states.append((detail.state, detail.outcome, detail.attempts, detail.error))
            self.gearman.turn(60)
        self.assertEqual(
            states,
            [
                ("retrying", None, 0, b"too busy"),
                ("retrying", "failed", 1, b"refused for now: 450"),
                ("ended", "completed", 1, b"refused for now: 450"),
            ],
        )
        for data, error in ((b"me@there", b"refused: 550"), (b"me", b"no address")):
            job = self.gearman.wait(client.submit("mail", data))
            with self.assertRaises(errors.JobRaised) as caught:
                self.gearman.wait(job.result())
            self.assertEqual(caught.exception.data, error)

    def test_updates(self) -> None:
        self.work()
        module = example("updates.py")
        for follow in (module.iterate, module.call_back):
            with printed() as lines:
                self.gearman.wait(follow(self.gearman.clock, self.gearman.endpoint))
            self.assertEqual(
                lines,
                [
                    "data: one",
                    "status: 1/4",
                    "data: two",
                    "status: 2/4",
                    "warning: line 3 is empty",
                    "status: 3/4",
                    "data: four",
                    "status: 4/4",
                    "result: 4",
                ],
            )

    def test_errors(self) -> None:
        run = example("errors.py").run
        client = self.gearman.client()
        no_worker = self.gearman.wait(run(client, "parse", b"1"))
        self.assertEqual(no_worker, "the job may still run: no result within 60 seconds")
        self.work()
        outcomes = [self.gearman.wait(run(client, "parse", data)) for data in (b"7", b"", b"x")]
        self.assertEqual(
            outcomes,
            [
                "result: 7",
                "failed: nothing to parse",
                "failed: ValueError: invalid literal for int() with base 10: b'x'",
            ],
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.gearman.server.administration.set_limits(b"full", (1, 1, 1))
        self.gearman.wait(client.submit("full", b"", background=True))
        self.assertEqual(self.gearman.wait(run(client, "full", b"")), "refused: QUEUE_ERROR")
        waiting = Deferred.fromCoroutine(run(client, "wait", b"5"))
        self.gearman.turn(1)
        self.gearman.stop()
        self.assertIn("the job may run or may have run: no result came", self.gearman.wait(waiting))
        self.assertIn("nothing was sent", self.gearman.wait(run(client, "parse", b"1")))

    def test_several_servers(self) -> None:
        module = example("several_servers.py")
        second = MemoryGearman(clock=self.gearman.clock)
        worker = second.worker(codec="json")
        worker.register("forecast", lambda job: [job.data["city"], ["rain"] * job.data["days"]])
        self.gearman.wait(worker.start())
        # Whichever server has the job, only the second is up in the end.
        with printed() as lines:
            running = Deferred.fromCoroutine(
                module.main(self.gearman.clock, [self.gearman.endpoint, second.endpoint])
            )
            self.gearman.turn(1)
            self.gearman.stop()
            self.gearman.wait(running)
        self.assertEqual(lines, ["['Köln', ['rain', 'rain', 'rain']]"])

    def test_administer(self) -> None:
        main = example("administer.py").main
        client = self.gearman.client()
        for function in ("resize", "resize", "paint"):
            self.gearman.wait(client.submit(function, b"", background=True))
        worker = self.gearman.worker()
        worker.register("paint", lambda job: Deferred())
        self.gearman.wait(worker.start())
        with printed() as lines:
            self.gearman.wait(main(self.gearman.clock, self.gearman.endpoint))
        self.assertEqual(lines, ["txgearman-0.1.0", "resize: 2 jobs wait for 0 workers"])

    def test_offline(self) -> None:
        module = example("offline.py")
        clock, endpoint = self.gearman.clock, self.gearman.endpoint
        handle = self.gearman.wait(module.hand_over(clock, endpoint))
        self.assertEqual(handle, b"H:example:1")
        watching = Deferred.fromCoroutine(module.watch(clock, handle, endpoint))
        with printed() as lines:
            self.gearman.turn(0.5)
            self.work()
            self.gearman.wait(watching)
        self.assertEqual(lines, ["waiting 0/0", *["running 0/0"] * 3, "not known any more"])
        # The clock in memory begins in 1970, so tomorrow is far away for it.
        tomorrow = self.gearman.wait(module.run_tomorrow(clock, endpoint))
        self.gearman.turn(86400)
        self.assertTrue(self.gearman.wait(self.gearman.client().status(tomorrow)).known)

    def test_decorated_function_runs(self) -> None:
        self.work()
        job = self.gearman.wait(self.gearman.client().submit("wait", b"2.5"))
        self.assertEqual(self.gearman.wait(job.result()), b"waited")
        self.assertEqual(self.gearman.clock.seconds(), 2.5)

    def test_delayed_reverse(self) -> None:
        folder = ROOT / "examples" / "delayed_reverse"
        client, worker = load(folder / "client.py"), load(folder / "worker.py")
        said: dict[str, list[str]] = {"client": [], "worker": []}
        offered = self.gearman.worker()
        offered.register(
            "delayed_reverse",
            worker.make_delayed_reverse(self.gearman.clock, output=said["worker"].append),
        )
        self.gearman.wait(offered.start())
        self.gearman.wait(
            client.main(self.gearman.clock, self.gearman.endpoint, output=said["client"].append)
        )
        for role, lines in said.items():
            shown = (EXAMPLES / f"delayed_reverse_{role}.txt").read_text(encoding="utf-8")
            self.assertEqual(lines, shown.splitlines())


class Embedding(TestCase):
    """The examples that listen, on free ports of 127.0.0.1."""

    async def assertServes(self, reactor: Any, endpoint: str) -> None:
        async with Client(reactor, endpoint) as client:
            self.assertEqual(await client.echo(b"there?", timeout=10), b"there?")

    @on_reactor
    async def test_own_endpoint(self) -> None:
        from twisted.internet import reactor

        module = example("own_endpoint.py")
        factory, listening = await module.listen(reactor, 0)
        try:
            await self.assertServes(reactor, f"tcp:127.0.0.1:{listening.getHost().port}")
        finally:
            await module.stop(factory, listening)

    @on_reactor
    async def test_pools(self) -> None:
        from twisted.internet import reactor

        notes: list[str] = []
        servers = [await example("own_endpoint.py").listen(reactor, 0) for _ in range(2)]
        endpoints = [f"tcp:127.0.0.1:{listening.getHost().port}" for _, listening in servers]
        worker = example("pools.py").make_worker(reactor, endpoints, notes.append)
        worker.startService()
        try:
            for endpoint in endpoints:
                async with Client(reactor, endpoint) as client:  # type: ignore[arg-type]
                    for function, data, result in (
                        ("count_down", b'{"from": 3}', b'{"steps":3}'),
                        ("write_index", b"null", b"null"),
                    ):
                        job = await client.submit(function, data)
                        self.assertEqual(await job.result(timeout=10), result)
                    job = await client.submit("count_down", b"{}")
                    await self.assertFailure(job.result(timeout=10), errors.JobRaised)
        finally:
            await worker.stop()
            for factory, listening in servers:
                await example("own_endpoint.py").stop(factory, listening)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)
        self.assertEqual(
            notes,
            [
                "begin count_down",
                'end count_down: {"steps":3}',
                "begin write_index",
                "end write_index: null",
                "begin count_down",
                "failed count_down: 'from'",
            ]
            * 2,
        )

    @on_reactor
    async def test_application_file_serves(self) -> None:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as folder:
            # The file as it is, but for a free port and a folder of the test's own.
            socket = f"unix:{folder}/gearmand.sock"
            names = application_file("gearmand.tac", {"tcp:4730:": "tcp:0:", "unix:gearmand.sock": socket})
            application = IService(names["application"])
            application.privilegedStartService()
            application.startService()
            try:
                await self.assertServes(reactor, socket)
            finally:
                await application.stopService()


class Services(SynchronousTestCase):
    """The examples that are made of services, on a reactor in memory."""

    def test_server_starts_and_stops_with_the_process(self) -> None:
        reactor = MemoryReactorClock()
        serving = Deferred.fromCoroutine(example("server.py").main(reactor, "tcp:4730:interface=127.0.0.1"))
        self.assertNoResult(serving)
        ((port, factory, _backlog, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (4730, "127.0.0.1"))
        self.assertEqual(_answer(factory, b"version\n", reactor), b"OK txgearman-0.1.0\n")
        self.assertEqual(list(reactor.triggers["before"]), ["shutdown"])

    def test_two_servers_share_nothing(self) -> None:
        reactor = MemoryReactorClock()
        servers = example("two_servers.py").make_servers(reactor, "tcp:4730", "tcp:4731")
        servers.startService()
        first, second = (factory for _port, factory, _backlog, _interface in reactor.tcpServers)
        _answer(first, b"create function resize\n", reactor)
        self.assertEqual(_answer(first, b"status\n", reactor), b"resize\t0\t0\t0\n.\n")
        self.assertEqual(_answer(second, b"status\n", reactor), b".\n")
        self.assertEqual(
            [service.settings.max_packet for service in servers], [1024 * 1024, Settings().max_packet]
        )

    def test_worker_application_file(self) -> None:
        names = application_file("worker.tac")
        self.assertEqual(list(IServiceCollection(names["application"])), [names["worker"]])

    def test_server_application_file(self) -> None:
        names = application_file("gearmand.tac")
        (server,) = IServiceCollection(names["application"])
        self.assertIsInstance(server, GearmanService)
        self.assertEqual(server.settings.job_retries, 3)


def _answer(factory: Any, request: bytes, reactor: MemoryReactorClock) -> bytes:
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(request)
    reactor.advance(0)
    protocol.connectionLost(Failure(ConnectionDone()))
    answer: bytes = transport.value()
    return answer


class UsersTests(SynchronousTestCase):
    """The examples of tests pass."""

    def test_trial_example(self) -> None:
        module = example("test_with_trial.py")
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.ThumbnailTests)
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (3, [], []))

    def test_schedule_example(self) -> None:
        module = example("test_schedule.py")
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.ReportTests)
        result = unittest.TestResult()
        suite.run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))

    def test_pytest_example(self) -> None:
        module = example("test_with_pytest.py")
        tests = [
            test
            for name, test in vars(module).items()
            if name.startswith("test_") and inspect.isfunction(test)
        ]
        self.assertEqual(len(tests), 2)
        for test in tests:
            test(MemoryGearman())
        self.flushLoggedErrors()

    def test_retry_example(self) -> None:
        example("test_retry_policy.py").test_mail_is_tried_three_times_and_then_kept()


class AdminTranscript(SynchronousTestCase):
    """examples/admin.txt is what a server answers."""

    def setUp(self) -> None:
        self.gearman = MemoryGearman(Settings(handle_prefix="H:example"))
        workers = [
            self.connect(
                encode(REQUEST, SET_CLIENT_ID, [client_id]) + encode(REQUEST, CAN_DO, [b"thumbnail"])
            )
            for client_id in (b"thumbnailer-1", b"thumbnailer-2")
        ]
        client = self.connect(encode(REQUEST, SUBMIT_JOB, [b"thumbnail", b"cat", b""]))
        workers[0].send(encode(REQUEST, GRAB_JOB))
        client.send(encode(REQUEST, SUBMIT_JOB_BG, [b"thumbnail", b"", b""]))
        client.send(encode(REQUEST, SUBMIT_JOB_HIGH_BG, [b"thumbnail", b"dog", b""]))
        self.shut_down: list[bool] = []
        self.patch(self.gearman.server, "shut_down", lambda *, graceful: self.shut_down.append(graceful))

    def connect(self, request: bytes) -> Peer:
        peer = Peer(self.gearman)
        peer.send(request)
        return peer

    def test_every_answer(self) -> None:
        administrator = Peer(self.gearman)
        text = (EXAMPLES / "admin.txt").read_text(encoding="utf-8")
        for exchange in text.removeprefix("> ").split("\n> "):
            command, *shown = exchange.splitlines()
            if command == "getpid":
                shown = [f"OK {os.getpid()}"]
            self.assertEqual(administrator.send(command.encode() + b"\n").splitlines(), shown)
        self.assertEqual(self.shut_down, [True])


class Peer(Protocol):
    """A connection to the server in memory that says raw bytes and collects the answers."""

    def __init__(self, gearman: MemoryGearman) -> None:
        self.gearman = gearman
        self.answer = b""
        gearman.connect(self)

    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    def send(self, request: bytes) -> str:
        """What the server answers to `request`."""
        self.answer = b""
        assert self.transport is not None
        self.transport.write(request)
        self.gearman.turn()
        return self.answer.decode("latin-1")


# -- tables and texts ---------------------------------------------------------------------------


class Tables(SynchronousTestCase):
    """The tables of the pages say what the code says."""

    def test_packets(self) -> None:
        shown = [row[:4] for row in table("protocol.rst", "No.")]
        self.assertEqual(
            shown,
            [[str(row.number), row.name, _senders(row), _body(row)] for row in PACKETS],
        )

    def test_packets_of_extensions(self) -> None:
        shown = [row[:4] for row in table("extensions.rst", "No.")]
        rows = [[str(row.number), row.name, _senders(row), _body(row)] for row in EXTENSION_PACKETS]
        self.assertEqual(shown, rows)

    def test_extensions(self) -> None:
        shown = {row[0].strip("`").encode() for row in table("extensions.rst", "Option")}
        self.assertEqual(shown, EXTENSIONS)

    def test_packets_called_refused_are_refused(self) -> None:
        gearman = MemoryGearman()
        for number, name, senders, _body_text, meaning in table("protocol.rst", "No."):
            row = BY_NUMBER[int(number)]
            answer = Peer(gearman).send(encode(REQUEST, row.number, [b"0"] * len(row.fields)))
            refused = "INVALID_COMMAND" in answer
            self.assertEqual(refused, meaning == "Refused." or senders in {"S", ""}, name)

    def test_answers_of_packets(self) -> None:
        """Each packet whose row names an answer is answered so by a server without jobs."""
        gearman = MemoryGearman()
        asked = 0
        for number, name, _senders_text, _body_text, meaning in table("protocol.rst", "No."):
            if "Answer: " not in meaning:
                continue
            asked += 1
            fields = [b"exceptions" if field == "option" else b"0" for field in BY_NUMBER[int(number)].fields]
            answer = Peer(gearman).send(encode(REQUEST, int(number), fields)).encode("latin-1")
            ((answered, _fields),) = Decoder(RESPONSE).feed(answer)
            self.assertIn(name_of(answered), meaning.replace(",", " ").replace(".", " ").split(), name)
        self.assertEqual(asked, 9)

    def test_errors_on_the_wire(self) -> None:
        shown = {literal(row[0]) for row in table("protocol.rst", "Code")}
        sources = "".join(
            path.read_text(encoding="utf-8")
            for folder in ("server", "wire")
            for path in (Path(txgearman.__file__).parent / folder).rglob("*.py")
        )
        codes = set(re.findall(r'b"([A-Z]+_[A-Z_]+)"', sources))
        codes |= {refusal.code.decode() for refusal in (errors.QueueFull, errors.JobNotFound)}
        codes |= {refusal.code.decode() for refusal in (errors.ArgumentTooLarge, errors.InvalidArgument)}
        codes |= {refusal.code.decode() for refusal in (errors.AccessDenied, errors.UniqueKept)}
        codes |= {refusal.code.decode() for refusal in (errors.RateExceeded, errors.ShuttingDown)}
        self.assertEqual(shown, codes)

    def test_options(self) -> None:
        """The table of the options is made from their descriptions; these must be whole."""
        self.assertIn("\n.. gearmand-options::\n", (DOCS / "server.rst").read_text(encoding="utf-8"))
        taken = {name.rstrip("=") for name in Options().longOpt}
        described = {option.name for option in twistd.OPTIONS}
        self.assertEqual(taken - described, {"version", "help", "help-all"})
        self.assertEqual(len(described), len(twistd.OPTIONS))
        for option in twistd.OPTIONS:
            self.assertRegex(option.meaning, r"^[A-Z].*\.$", option.name)
            self.assertEqual(option.meaning.count("``") % 2, 0, option.name)

    def test_schedules_of_a_configuration_file(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(EXAMPLES / "schedules.toml")])
        names = [schedule.name for schedule in schedules_of(options.settings)]
        self.assertEqual(names, [b"poll-orders", b"nightly-report", b"ping"])

    def test_configuration_file(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(EXAMPLES / "gearmand.toml")])
        policy = options.settings.policy
        self.assertEqual(options.settings.max_packet, 16 * 1024 * 1024)
        self.assertEqual(policy.rules_for(b"image-resize").time_limit, 600)
        self.assertEqual(policy.rules_for(b"send-mail").job_retries, 10)
        self.assertEqual(policy.rules_for(b"send-mail").limits, (100_000,) * 3)

    def test_access_rules(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(EXAMPLES / "access.toml")])
        access = options.settings.access
        assert access is not None
        here = access.rights_of(Identity(address=ip_address("127.0.0.1")))
        self.assertTrue(here.may_submit(b"f") and here.may(Right.VIEW))
        self.assertFalse(here.may_work(b"f") or here.may(Right.MANAGE))
        worker = access.rights_of(
            Identity(frozenset({"worker-7.example.com"}), address=ip_address("10.1.2.3"))
        )
        self.assertTrue(worker.may_work(b"image-resize"))
        self.assertFalse(worker.may_work(b"send-mail") or worker.may_submit(b"image-resize"))
        self.assertTrue(access.rights_of(Identity(unix=True, uid=0)).may(Right.SHUTDOWN))
        token = access.rights_of(Identity(token=b"example-of-a-token"))
        self.assertTrue(token.may(Right.MANAGE))
        self.assertFalse(token.may(Right.SHUTDOWN))

    def test_restricted_server(self) -> None:
        self.patch(twistd, "check_settings", lambda *_: None)  # the files are not here
        options = Options()
        options.parseOptions(["--config", str(EXAMPLES / "restricted.toml")])
        settings = options.settings
        self.assertEqual(settings.listen + settings.tls, ("unix:/run/gearmand.sock", "tcp:4730"))
        assert settings.access is not None
        worker = settings.access.rights_of(Identity(frozenset({"images-1.example.com"})))
        self.assertTrue(worker.may_work(b"image-resize"))
        self.assertFalse(worker.may_submit(b"image-resize") or worker.may_work(b"other"))
        self.assertFalse(any(map(worker.may, Right)))

    def test_configuration_of_the_readme(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        access_text, jobs_text = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
        self.patch(twistd, "check_settings", lambda *_: None)  # the certificates are not here
        with tempfile.TemporaryDirectory(prefix="txgearman-docs-") as folder:
            (Path(folder) / "token").write_text("0123456789abcdef")
            file = Path(folder) / "gearmand.toml"
            file.write_text(access_text, encoding="utf-8")
            options = Options()
            options.parseOptions(["--config", str(file)])
            file.write_text(jobs_text, encoding="utf-8")
            of_jobs = Options()
            of_jobs.parseOptions(["--config", str(file)])
        self.assertEqual(of_jobs.settings.functions["render"].max_running, 20)
        self.assertEqual(list(of_jobs.settings.schedules), ["nightly-report"])
        access = options.settings.access
        assert access is not None
        worker = access.rights_of(Identity(frozenset({"worker-1"})))
        self.assertTrue(worker.may_work(b"image-shout"))
        self.assertFalse(worker.may_submit(b"image-shout"))
        self.assertTrue(access.rights_of(Identity(token=b"0123456789abcdef")).may(Right.VIEW))
        self.assertFalse(access.rights_of(Identity(address=ip_address("127.0.0.1"))).may(Right.VIEW))

    def test_limits(self) -> None:
        for _what, value, constant in table("server.rst", "What"):
            module, name = literal(constant).rsplit(".", 1)
            self.assertEqual(value, str(getattr(importlib.import_module(module), name)), constant)

    def test_metrics(self) -> None:
        shown = [[literal(name), kind, labels] for name, kind, labels, _ in table("metrics.rst", "Metric")]
        self.assertEqual(
            shown, [[family.exported, family.kind, ", ".join(family.labels)] for family in FAMILIES]
        )

    def test_labels_of_metrics(self) -> None:
        """Each value that a label can have by the table is named in the row of its metric."""
        rows = {literal(name): meaning for name, _kind, _labels, meaning in table("metrics.rst", "Metric")}
        for name, values in (
            ("txgearman_jobs_failed_total", ("failed", "raised", "lost", "timed-out")),
            (
                "txgearman_jobs_dropped_total",
                ("cancelled", "abandoned", "not-saved", "expired", "taken-over"),
            ),
            ("txgearman_jobs_queued", ("high", "normal", "low")),
        ):
            (family,) = (family for family in FAMILIES if family.exported == name)
            shown = {labels[1] for labels, _value in family.values(_snapshot_of_one_function())}
            self.assertEqual(shown, set(values))
            for value in values:
                self.assertIn(f"``{value}``", rows[name])

    def test_size_of_metrics(self) -> None:
        by_function = [family for family in FAMILIES if "function" in family.labels]
        each = 0
        for family in by_function:
            metric = family.metric(_snapshot_of_one_function())
            each += len(metric.samples)
        text = " ".join((DOCS / "metrics.rst").read_text(encoding="utf-8").split())
        self.assertIn(f"at most {METRICS_FUNCTIONS + 1} times {each} numbers by function", text)
        self.assertIn(f"{METRICS_FUNCTIONS} if nothing is said", text)

    def test_admin_commands(self) -> None:
        """Each documented command is known to the server, and the server knows no other."""
        gearman = MemoryGearman()
        known = {name.decode() for name in admin_commands._ANSWERS}
        shown = [literal(row[0]) for row in table("server.rst", "Command")]
        self.assertEqual({command.split()[0] for command in shown}, known)
        for command in shown:
            sent = command.replace(" RATE", " 2.5").replace(" BURST", " 10").replace("ing N", "ing 3")
            answer = Peer(gearman).send(sent.encode() + b"\n")
            self.assertNotIn("UNKNOWN_COMMAND", answer)
            self.assertNotIn("INVALID_ARGUMENTS", answer)

    def test_errors_of_the_client(self) -> None:
        shown = {literal(row[0]).removeprefix("~txgearman.errors.") for row in table("client.rst", "Error")}
        leaves = {
            name
            for name, error in vars(errors).items()
            if isinstance(error, type) and issubclass(error, errors.ClientError)
        }
        self.assertEqual(shown, leaves - {"ClientError", "JobError"})

    def test_workloads(self) -> None:
        shown = [row[0] for row in table("performance.rst", "Workload")]
        self.assertEqual(shown, [workload.name for workload in WORKLOADS])

    def test_library_workloads(self) -> None:
        shown = [row[0] for row in table("performance.rst", "Library workload")]
        self.assertEqual(shown, [workload.name for workload in LIBRARY_WORKLOADS])


def _snapshot_of_one_function() -> Snapshot:
    row = measures_of(b"f", Counts(), Meter())
    counted = (0, 0, 0, 0, 1, 0, 0, 0, 0)
    return Snapshot([row], {"f": 0}, *counted, {}, 0, [], {}, {}, row.waited, None, {}, None, [])


def _senders(row: PacketType) -> str:
    letters = {Role.CLIENT: "C", Role.WORKER: "W", Role.SERVER: "S"}
    return ", ".join(letter for role, letter in letters.items() if role in row.senders)


def _body(row: PacketType) -> str:
    fields = list(row.fields)
    if row.binary:
        fields[-1] = f"*{fields[-1]}*"
    return ", ".join(fields)


class Texts(SynchronousTestCase):
    """What can be checked of the pages themselves."""

    def text(self) -> str:
        return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    def test_readme_shows_the_examples(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```", readme, re.DOTALL)
        self.assertEqual(len(blocks), readme.count("```python"))
        self.assertEqual(len(blocks), 3)
        for name, code in blocks:
            self.assertEqual(code, (ROOT / name).read_text(encoding="utf-8"))

    def test_every_example_is_shown_and_tested(self) -> None:
        text = self.text()
        tested = set(
            re.findall(r'(?:example|application_file)\(\s*"(.+?)"', Path(__file__).read_text("utf-8"))
        )
        # Run in a loop or by test_aio; imported by examples; compared with what was said; replayed.
        tested |= {
            "client.py",
            "many.py",
            "asyncio_jobs.py",
            "asyncio_worker.py",
            "thumbnails.py",
            "admin.txt",
            "gearmand.toml",
            "schedules.toml",
            "access.toml",
            "restricted.toml",
        }
        tested |= {"delayed_reverse_client.txt", "delayed_reverse_worker.txt"}
        self.assertEqual({path.name for path in EXAMPLES.iterdir() if path.is_file()}, tested)
        self.assertEqual([name for name in tested if f"examples/{name}" not in text], [])

    def test_pages_hold_no_python_of_their_own(self) -> None:
        """Python that is not in a file would not be run by these tests."""
        self.assertEqual(
            re.findall(r"(?:code|sourcecode|code-block):: python|^ *>>> .*", self.text(), re.M), []
        )

    def test_command_lines_of_the_server(self) -> None:
        lines = re.findall(r"^ +twistd .*?gearmand(?: (.*))?$", self.text(), re.MULTILINE)
        self.assertGreater(len(lines), 5)

        def check(reactor: Any, settings: Settings) -> None:
            for endpoint in settings.endpoints:
                # These need the files they name, and the sockets that systemd hands over.
                if not endpoint.startswith(("ssl:", "systemd:")):
                    check_endpoint(reactor, endpoint)

        self.patch(twistd, "check_settings", check)
        for line in lines:
            if "--help" not in line and "--check-config" not in line:
                arguments = shlex.split(line.replace("gearmand.toml", str(EXAMPLES / "gearmand.toml")))
                Options().parseOptions(arguments)

    def test_contributing_names_what_is_there(self) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        named = [name for name in re.findall(r"`([\w./]+)`", text) if "/" in name]
        self.assertGreater(len(named), 10)
        self.assertEqual([name for name in named if not (ROOT / name).exists()], [])
        targets = set(
            re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        )
        self.assertLessEqual(set(re.findall(r"`?make ([\w-]+)", text)), targets | {"it"})

    def test_version(self) -> None:
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        self.assertIn(f"## {txgearman.__version__} ", changelog)
