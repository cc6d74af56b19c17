"""``twistd gearmand`` as an operator meets it: real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, Program, assert_no_traceback, run_program, running, until
from tests.server.lines import Line, close, connect
from tests.server.peers import req, res
from tests.support import free_port, on_reactor

TWISTD = str(Path(sysconfig.get_path("scripts")) / "twistd")
STARTED = b"Gearman job server listens"


@dataclass(frozen=True)
class Started:
    """A server that runs in the foreground, with its log in its output."""

    program: Program
    port: int
    folder: Path

    @property
    def log(self) -> str:
        return self.program.output.decode() + self.program.errors.decode()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.program.pid, number)


@contextlib.asynccontextmanager
async def twistd(*options: str, of_twistd: tuple[str, ...] = ()) -> AsyncIterator[Started]:
    """``twistd gearmand`` on a free port, once it listens, with further options of either."""
    with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
        port = free_port()
        command = [TWISTD, "--nodaemon", "--pidfile=", f"--rundir={folder}", *of_twistd, "gearmand"]
        listen = f"--listen=tcp:{port}:interface={HOST}"
        async with running(*command, listen, *options) as program:
            await program.wrote(STARTED)
            # The reactor, which handles the signals, is started after that message.
            await close(await answering(port))
            yield Started(program, port, Path(folder))


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def local(path: str) -> Line:
    """A connection over a UNIX socket on which the server has answered."""
    from twisted.internet import reactor

    line: Line = await connectProtocol(UNIXClientEndpoint(reactor, path), Line())
    await line.say()
    return line


async def answering(port: int) -> Line:
    """A connection on which the server has answered."""
    line = await connect(port)
    await line.say()
    return line


async def refused(*options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a ``twistd gearmand`` that does not start."""
    with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
        code, output, errors = await run_program(
            [TWISTD, "--nodaemon", "--pidfile=", f"--rundir={folder}", "gearmand", *options]
        )
    return code, output.decode(), errors.decode()


class RunningTest(TestCase):
    """From start to end."""

    async def assert_answers(self, server: Started) -> None:
        line = await connect(server.port)
        self.assertEqual(await line.ask(req(16, b"x"), b"x"), res(17, b"x"))
        self.assertEqual(await line.ask(b"getpid\n", b"\n"), f"OK {server.program.pid}\n".encode())
        await close(line)

    async def assert_ended(self, server: Started) -> None:
        # As with gearmand. By itself twistd would send itself the signal again at the end.
        self.assertEqual(await server.program.ended(), 0)
        self.assertIn("Server Shut Down.", server.log)
        assert_no_traceback(server.log)

    @on_reactor
    async def test_on_two_endpoints(self) -> None:
        from twisted.internet import reactor

        async with twistd("--listen=unix:here.sock") as server:
            await self.assert_answers(server)
            path = str(server.folder / "here.sock")
            local: Line = await connectProtocol(UNIXClientEndpoint(reactor, path), Line())
            self.assertEqual(await local.ask(b"workers\n", b"\n.\n"), b"3 unix - :\n.\n")
            await close(local)

    @on_reactor
    async def test_sigterm(self) -> None:
        async with twistd("--drain-timeout=0") as server:
            client, worker = await connect(server.port), await connect(server.port)
            await client.say(req(7, b"f", b"", b""), req(36, b"f", b"", b"4102444800", b""))
            await worker.say(req(23, b"f", b"9000"), req(9), req(4))
            server.signal(signal.SIGTERM)
            await self.assert_ended(server)
            self.assertIn("they are lost, as there is no store", server.log)
            await close(client, worker)

    @on_reactor
    async def test_sigterm_lets_running_jobs_end(self) -> None:
        async with twistd("--drain-timeout=60") as server:
            client, worker = await connect(server.port), await connect(server.port)
            handle = (await client.say(req(7, b"f", b"", b"x")))[12:]
            await client.say(req(7, b"f", b"", b"waits"))
            await worker.say(req(1, b"f"), req(9))
            server.signal(signal.SIGTERM)
            await self.until_closed(server.port)
            self.assertEqual(await worker.say(req(9)), res(10))
            self.assertEqual(await worker.say(req(13, handle, b"result")), b"")
            self.assertEqual(await client.heard(b"result"), res(13, handle, b"result"))
            await self.assert_ended(server)
            await close(client, worker)

    @on_reactor
    async def test_a_second_sigterm_does_not_wait(self) -> None:
        async with twistd("--drain-timeout=60") as server:
            client, worker = await connect(server.port), await connect(server.port)
            await client.say(req(7, b"f", b"", b"x"))
            await worker.say(req(1, b"f"), req(9))
            server.signal(signal.SIGTERM)
            await self.until_closed(server.port)
            self.assertIsNone(server.program.exit_code)
            server.signal(signal.SIGTERM)
            await self.assert_ended(server)
            await close(client, worker)

    @on_reactor
    async def test_sigint(self) -> None:
        async with twistd() as server:
            server.signal(signal.SIGINT)
            await self.assert_ended(server)

    @on_reactor
    async def test_sigusr1_waits_for_the_last_job(self) -> None:
        async with twistd() as server:
            client, worker = await connect(server.port), await connect(server.port)
            handle = (await client.say(req(7, b"f", b"", b"x")))[12:]
            await worker.say(req(1, b"f"), req(9))
            server.signal(signal.SIGUSR1)
            await self.until_closed(server.port)
            self.assertIsNone(server.program.exit_code)
            self.assertEqual(await worker.say(req(13, handle, b"result")), b"")
            self.assertEqual(await client.heard(b"result"), res(13, handle, b"result"))
            self.assertEqual(await server.program.ended(), 0)
            assert_no_traceback(server.log)
            await close(client, worker)

    @on_reactor
    async def test_sigusr1_and_then_sigterm(self) -> None:
        async with twistd() as server:
            client = await connect(server.port)
            await client.say(req(18, b"f", b"", b"x"))
            server.signal(signal.SIGUSR1)
            await self.until_closed(server.port)
            server.signal(signal.SIGTERM)
            await self.assert_ended(server)
            await close(client)

    @on_reactor
    async def test_sighup_reads_the_configuration_again(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
            file = Path(folder) / "gearmand.toml"
            file.write_text("[functions.f]\nqueue-limit = 1\n")
            async with twistd(f"--config={file}", "--handle-prefix=P") as server:
                client = await connect(server.port)
                submit = req(18, b"f", b"", b"x")
                self.assertEqual(await client.ask(submit, b"1"), res(8, b"P:1"))
                self.assertIn(b"QUEUE_ERROR", await client.ask(submit, b"full"))
                file.write_text("[functions.f]\nqueue-limit = 2\n")
                server.signal(signal.SIGHUP)
                await server.program.wrote(b"Changed: functions.f")
                self.assertEqual(await client.ask(submit, b"2"), res(8, b"P:2"))
                file.write_text("[functions.f]\nqueue-limits = 3\n")
                server.signal(signal.SIGHUP)
                await server.program.wrote(b"gearmand.toml:2: unknown key 'queue-limits'")
                self.assertIn(b"QUEUE_ERROR", await client.ask(submit, b"full"))
                self.assertEqual(await client.ask(b"status\n", b".\n"), b"f\t2\t0\t0\n.\n")
                server.signal(signal.SIGTERM)
                await self.assert_ended(server)
                await close(client)

    @on_reactor
    async def test_shutdown(self) -> None:
        async with twistd() as server:
            line = await connect(server.port)
            self.assertEqual(await line.ask(b"shutdown\n", b"\n"), b"OK\r\n")
            self.assertEqual(await server.program.ended(), 0)
            assert_no_traceback(server.log)
            await line.lost

    @on_reactor
    async def test_shutdown_said_twice(self) -> None:
        async with twistd() as server:
            line = await connect(server.port)
            line.transport.write(b"shutdown\nshutdown\nshutdown graceful\n")
            self.assertEqual(await server.program.ended(), 0)
            assert_no_traceback(server.log)
            await line.lost

    @on_reactor
    async def test_shutdown_graceful(self) -> None:
        async with twistd() as server:
            line = await connect(server.port)
            self.assertEqual(await line.ask(b"shutdown graceful\n", b"\n"), b"OK\r\n")
            self.assertEqual(await server.program.ended(), 0)
            assert_no_traceback(server.log)
            await line.lost

    @on_reactor
    async def test_on_other_reactors(self) -> None:
        for name in ("asyncio", "poll", "select"):
            with self.subTest(name):
                async with twistd(of_twistd=(f"--reactor={name}",)) as server:
                    await self.assert_answers(server)
                    server.signal(signal.SIGTERM)
                    await self.assert_ended(server)

    @on_reactor
    async def test_options_reach_the_server(self) -> None:
        async with twistd("--handle-prefix=P", "--exceptions", "--max-packet=2k") as server:
            line = await connect(server.port)
            self.assertEqual(await line.ask(req(18, b"f", b"", b""), b"1"), res(8, b"P:1"))
            line.transport.write(req(16, bytes(2049)))
            await line.lost
            self.assertIn(b"exceeds the limit of 2048", line.received)

    @on_reactor
    async def test_more_connections_than_files_may_be_open(self) -> None:
        async with twistd("--file-descriptors=40") as server:
            lines = [await connect(server.port) for _ in range(60)]
            served = []
            for line in lines:
                line.transport.write(b"verbose\n")
                try:
                    served.append(await line.heard(b"OK INFO\n"))
                except ConnectionDone:
                    break
            self.assertGreater(len(served), 10)
            self.assertLess(len(served), 40)
            await close(*lines)
            await self.assert_answers(server)
            server.signal(signal.SIGTERM)
            await self.assert_ended(server)

    @on_reactor
    async def test_without_files_for_new_connections_it_does_not_spin(self) -> None:
        from twisted.internet import reactor

        # Its own limit is out of the way, so that the system's is met.
        async with twistd("--file-descriptors=40", "--max-connections=1000") as server:
            there = await answering(server.port)
            lines = [await connect(server.port) for _ in range(200)]
            await there.say()
            before = cpu_seconds(server.program.pid)
            await deferLater(reactor, 0.5)
            self.assertLess(cpu_seconds(server.program.pid) - before, 0.2)
            await close(there, *lines)
            await self.assert_answers(server)
            self.assertEqual(server.log.count("EMFILE"), 1)

    @on_reactor
    async def test_as_a_daemon(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
            port, pid_file = free_port(), Path(folder) / "pid"
            command = [TWISTD, f"--pidfile={pid_file}", f"--logfile={folder}/log", f"--rundir={folder}"]
            code, output, errors = await run_program(
                [*command, "gearmand", f"--listen=tcp:{port}:interface={HOST}"]
            )
            self.assertEqual(code, 0, (output, errors))
            pid = int(pid_file.read_text())
            try:
                line = await connect(port)
                self.assertEqual(await line.ask(b"getpid\n", b"\n"), f"OK {pid}\n".encode())
                await close(line)
            finally:
                os.kill(pid, signal.SIGTERM)

                async def gone() -> bool:
                    return not pid_file.exists()

                await until(gone, "the daemon has removed its pid file")
            assert_no_traceback((Path(folder) / "log").read_text())

    async def until_closed(self, port: int) -> None:
        """Wait until nobody listens at the port."""

        async def closed() -> bool:
            try:
                await close(await connect(port))
            except ConnectError:
                return True
            return False

        await until(closed, "the server lets nobody in")


class LogTest(TestCase):
    """What the log looks like, and from which level on it is written."""

    @on_reactor
    async def test_json_lines(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
            log = Path(folder) / "log"
            async with running(
                *[TWISTD, "--nodaemon", "--pidfile=", f"--rundir={folder}", f"--logfile={log}"],
                *["gearmand", "--listen=unix:here.sock", "--log-format=json", "--log-level=debug"],
            ) as program:

                async def listens() -> bool:
                    return log.exists() and STARTED in log.read_bytes()

                await until(listens, "the server listens")
                await close(await local(f"{folder}/here.sock"))
                program.signal(signal.SIGTERM)
                await program.ended()
            lines = [json.loads(line) for line in log.read_text().splitlines()]
        (started,) = [line for line in lines if line["message"].startswith(STARTED.decode())]
        self.assertEqual((started["level"], started["fields"]), ("info", {"endpoints": "unix:here.sock"}))
        self.assertIn("debug", {line["level"] for line in lines})
        self.assertEqual(program.output + program.errors, b"")

    @on_reactor
    async def test_the_level_can_be_changed_while_it_runs(self) -> None:
        async with twistd() as server:
            admin = await connect(server.port)
            self.assertEqual(await admin.ask(b"verbose warn\n", b"\n"), b"OK WARN\n")
            await admin.ask(b"maxqueue quiet 1\n", b"OK\r\n")
            server.signal(signal.SIGUSR2)
            await server.program.wrote(b"from level debug on")
            self.assertEqual(await admin.ask(b"verbose\n", b"\n"), b"OK DEBUG\n")
            await admin.ask(b"maxqueue loud 1\n", b"OK\r\n")
            await close(await answering(server.port), admin)
            await server.program.wrote(b"is gone")
            self.assertNotIn("quiet", server.log)
            self.assertIn("Action over admin by 127.0.0.1: maxqueue loud (1)", server.log)

    @on_reactor
    async def test_an_observer_of_twistd_keeps_its_say(self) -> None:
        logger = "--logger=twisted.logger.STDLibLogObserver"
        for option in ("--log-format=json", "--log-level=warn"):
            code, output, errors = await run_program([TWISTD, "--nodaemon", logger, "gearmand", option])
            self.assertEqual(code, 2, (output, errors))
            self.assertIn(b"has no effect beside twistd's --logger", output + errors)

    @on_reactor
    async def test_twist_has_options_of_its_own(self) -> None:
        twist = str(Path(TWISTD).with_name("twist"))
        code, output, errors = await run_program([twist, "gearmand", "--log-format=json"])
        self.assertEqual(code, 64, (output, errors))
        self.assertIn(b"log-format is for twistd", output + errors)


class RefusedTest(TestCase):
    """What cannot be started says so in one line and fails."""

    def assert_one_clear_line(self, result: tuple[int, str, str], named: str) -> None:
        code, output, errors = result
        self.assertEqual((code, output), (2, ""), result)
        self.assertNotIn("Traceback", output + errors)
        self.assertIn(named, errors.strip())
        self.assertNotIn("\n", errors.strip())

    @on_reactor
    async def test_an_unknown_option(self) -> None:
        self.assert_one_clear_line(await refused("--nonsense"), "nonsense")

    @on_reactor
    async def test_a_wrong_value(self) -> None:
        self.assert_one_clear_line(await refused("--max-packet=tiny"), "tiny")

    @on_reactor
    async def test_a_wrong_configuration(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
            file = Path(folder) / "gearmand.toml"
            file.write_text("\nmax-paket = 5\n")
            for option in ("--exceptions", "--check-config"):
                result = await refused(f"--config={file}", option)
                said = f"{file}:2: unknown key 'max-paket'; did you mean 'max-packet'?"
                self.assertEqual((result[0], result[2].strip()), (1, said))

    @on_reactor
    async def test_a_right_configuration_is_only_checked(self) -> None:
        with tempfile.TemporaryDirectory(prefix="txgearman-twistd-") as folder:
            file = Path(folder) / "gearmand.toml"
            file.write_text("max-packet = '5M'\n")
            code, output, errors = await refused(f"--config={file}", "--check-config")
        self.assertEqual((code, output, errors), (0, "The configuration is right.\n", ""))

    @on_reactor
    async def test_a_wrong_endpoint(self) -> None:
        self.assert_one_clear_line(await refused("--listen=nonsense:1"), "nonsense:1")

    @on_reactor
    async def test_a_port_in_use(self) -> None:
        with socket.socket() as holder:
            holder.bind((HOST, 0))
            holder.listen()
            port = holder.getsockname()[1]
            code, output, errors = await refused(f"--listen=tcp:{port}:interface={HOST}")
        self.assertEqual(code, 1, (output, errors))
        self.assertIn(f"Couldn't listen on {HOST}:{port}", output + errors)
        self.assertIn("in use", output + errors)
        self.assertNotIn(STARTED.decode(), output + errors)


class PluginTest(TestCase):
    """How ``twistd`` knows it."""

    @on_reactor
    async def test_twistd_lists_it(self) -> None:
        code, output, errors = await run_program([TWISTD, "--help"])
        self.assertEqual((code, errors), (0, b""))
        self.assertRegex(output.decode(), r"(?m)^ +gearmand +A Gearman job server$")

    @on_reactor
    async def test_help(self) -> None:
        code, output, errors = await run_program([TWISTD, "gearmand", "--help"])
        self.assertEqual((code, errors), (0, b""))
        for option in (b"--listen=", b"--job-retries=", b"--max-packet=", b"SIGUSR1", b"-L, "):
            self.assertIn(option, output)
        self.assertLessEqual(output.count(b"\n"), 2 * 40, "two screens")

    @on_reactor
    async def test_the_garbage_collector_is_left_to_a_service_that_counts_the_jobs(self) -> None:
        script = (
            "import gc\n"
            "from txgearman.server.process.memory import MemoryService\n"
            "from txgearman.server.process.twistd import Options, makeService\n"
            "options = Options()\n"
            "options.parseOptions([])\n"
            "(server,) = makeService(options)\n"
            "(memory,) = [one for one in server if isinstance(one, MemoryService)]\n"
            "print(gc.isenabled(), memory._jobs())"
        )
        code, output, errors = await run_program([sys.executable, "-c", script])
        self.assertEqual((code, output, errors), (0, b"False 0\n", b""))

    @on_reactor
    async def test_the_plugin_and_the_package_install_no_reactor(self) -> None:
        script = (
            "import sys, twisted.plugins.txgearman_gearmand, txgearman, txgearman.client, txgearman.worker,"
            " txgearman.server, txgearman.server.process.twistd, txgearman.testing\n"
            "print('twisted.internet.reactor' in sys.modules)"
        )
        code, output, errors = await run_program([sys.executable, "-c", script])
        self.assertEqual((code, output, errors), (0, b"False\n", b""))
