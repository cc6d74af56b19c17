"""The configuration file: what it may say, its mistakes by line, and reading it again."""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req, res
from txgearman.broker.policy import FunctionOrder
from txgearman.server import Settings, make_service
from txgearman.server.config.configuration import MAX_SIZE, ConfigurationError, read_configuration
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.config.process_options import Level
from txgearman.server.process.logs import Threshold
from txgearman.server.process.program import reload_configuration
from txgearman.server.process.twistd import CONFIGURABLE, Options

WHOLE = """\
listen = ["tcp:1", "unix:/s"]
job-retries = 4
worker-wakeup = 2
order = "registration"
round-robin = true
handle-prefix = "P"
max-packet = "2K"
file-descriptors = 100

[functions."*"]
queue-limit = 1000
time-limit = "10m"

[functions.resize]
queue-limit = [0, 20, 10]
job-retries = 0
"""


class FileTestCase(SynchronousTestCase):
    """With a file in a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-configuration-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = str(self.folder / "gearmand.toml")

    def write(self, text: str | bytes) -> None:
        Path(self.path).write_bytes(text if isinstance(text, bytes) else text.encode())

    def options(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions([f"--config={self.path}", *arguments])
        return options


class ReadTest(FileTestCase):
    """Right files and wrong ones."""

    def test_everything(self) -> None:
        self.write(WHOLE)
        options = self.options()
        self.assertEqual(
            options.settings,
            Settings(
                listen=("tcp:1", "unix:/s"),
                job_retries=4,
                wakeup=2,
                order=FunctionOrder.REGISTRATION,
                round_robin=True,
                handle_prefix="P",
                max_packet=2048,
                functions={
                    "*": FunctionSettings((1000, 1000, 1000), 600.0),
                    "resize": FunctionSettings((0, 20, 10), None, 0),
                },
            ),
        )
        self.assertEqual(options.process.file_descriptors, 100)

    def test_an_empty_file(self) -> None:
        self.write("")
        self.assertEqual(self.options().settings, Settings())

    def test_the_command_line_wins(self) -> None:
        self.write('listen = "tcp:1"\njob-retries = 4\nmax-packet = 2048\n')
        settings = self.options("--listen=tcp:2", "--job-retries=5").settings
        self.assertEqual((settings.listen, settings.job_retries, settings.max_packet), (("tcp:2",), 5, 2048))

    def test_paths_are_relative_to_the_file(self) -> None:
        for written, path in (("token", str(self.folder / "token")), ("/token", "/token")):
            self.write(f'web-token-file = "{written}"\n')
            self.assertEqual(read_configuration(self.path, CONFIGURABLE).said, {"web-token-file": path})

    def assert_mistakes(self, text: str | bytes, *mistakes: tuple[int, str]) -> None:
        self.write(text)
        with self.subTest(text):
            with self.assertRaises(ConfigurationError) as caught:
                read_configuration(self.path, CONFIGURABLE)
            lines = str(caught.exception).splitlines()
            self.assertEqual(len(lines), len(mistakes), lines)
            for line, (number, said) in zip(lines, mistakes, strict=True):
                self.assertTrue(line.startswith(f"{self.path}:{number}: "), line)
                self.assertIn(said, line)

    def test_mistakes_are_all_told_with_their_lines(self) -> None:
        self.assert_mistakes(
            "# mine\njob-retires = 1\n\nmax-packet = true\n"
            'listen = [\n  1,\n]\n[functions.f]\njob-retries = "x"\n',
            (2, "unknown key 'job-retires'; did you mean 'job-retries'?"),
            (4, "max-packet must be a number of bytes, with K, M or G after it if wanted, not true"),
            (5, "listen must be text"),
            (9, "job-retries must be a whole number, not 'x'"),
        )

    def test_mistakes(self) -> None:
        for text, *mistakes in (
            ("a = 1\nb = \n", (2, "alue")),
            ("max-packet = 10\n", (1, "max-packet must be 1024 or more, not 10")),
            ("config = 'other.toml'\n", (1, "unknown key 'config'")),
            ("check-config = true\n", (1, "unknown key")),
            ("expires = '1h'\n", (1, 'a setting of functions; for all of them put it below [functions."*"]')),
            ("order = 'random'\n", (1, "'priority' or 'registration'")),
            ("\n[options]\nlisten = 'x'\n", (2, "unknown key 'options'")),
            ("functions = 1\n", (1, "must be a table")),
            ("[functions]\nf = 1\n", (2, "must be a table")),
            ("[function.f]\njob-retries = 1\n", (1, "did you mean 'functions'?")),
            ("[functions.f]\njob-retry = 1\n", (2, "did you mean 'job-retries'?")),
            ('[functions.""]\n', (1, "1 to 512 bytes")),
            ("[functions.f]\nqueue-limit = [1, 2]\n", (2, "queue-limit must be a number of jobs")),
            ("[functions.f]\nqueue-limit = -1\n", (2, "queue-limit")),
            ("[functions.f]\nqueue-limit = true\n", (2, "queue-limit")),
            ("[functions.f]\ntime-limit = -1\n", (2, "time-limit must be 0 or more")),
            ("[functions.f]\ntime-limit = 'soon'\n", (2, "time-limit")),
            ("# mine\na = " + "[" * 5000 + "\n", (2, "nested too deeply")),
            ("# mine\nmax-packet" + ".a" * 5000 + " = 1\n", (2, "max-packet must be a number of bytes")),
            ("\n" + "a" * 5000 + " = 1\n", (2, "unknown key 'aaa")),
            ("max-jobs = " + "9" * 5000, (1, "too many digits")),
            (
                "max-jobs = 0x" + "f" * 5000,
                (1, "max-jobs must be 9223372036854775807 or less, not a number of"),
            ),
            ("[functions.f]\njob-retries = -2\n", (2, "job-retries must be -1 or more")),
            (b"a = 1\nb = '\xff'\n", (2, "not UTF-8")),
        ):
            self.assert_mistakes(text, *mistakes)

    def test_no_file(self) -> None:
        for path in (self.path, str(self.folder)):
            with self.assertRaises(ConfigurationError) as caught:
                read_configuration(path, CONFIGURABLE)
            self.assertTrue(str(caught.exception).startswith(f"{path}: "))

    def test_a_huge_file(self) -> None:
        self.write(b"#" * (MAX_SIZE + 1))
        with self.assertRaises(ConfigurationError) as caught:
            read_configuration(self.path, CONFIGURABLE)
        self.assertIn("larger", str(caught.exception))

    def test_the_command_line_tells_mistakes_of_the_file_without_help(self) -> None:
        self.write("a = 1\n")
        with self.assertRaises(SystemExit) as caught:
            self.options()
        self.assertEqual(caught.exception.code, f"{self.path}:1: unknown key 'a'")

    def test_check(self) -> None:
        self.write(WHOLE)
        with redirect_stdout(io.StringIO()) as output, self.assertRaises(SystemExit) as caught:
            self.options("--check-config")
        self.assertEqual((caught.exception.code, output.getvalue()), (0, "The configuration is right.\n"))
        for text in ("a = 1", "listen = 'nonsense:1'"):
            self.write(text)
            with self.assertRaises(SystemExit) as caught:
                self.options("--check-config")
            self.assertIn(f"{self.path}:1: ", str(caught.exception.code))


class Defective:
    """An administration that fails to make the broker obey another policy."""

    def change_policy(self, _policy: object) -> None:
        raise RuntimeError("a defect")


class ReloadTest(FileTestCase):
    """Reading it again while the server runs."""

    def start(self, *arguments: str) -> None:
        self.reactor = MemoryReactorClock()
        self.running = self.options(*arguments)
        self.service = make_service(self.running.settings, reactor=self.reactor)
        self.service.startService()

    def reload(self, text: str) -> list[tuple[LogLevel, str]]:
        """Write the file and read it again; returns what was logged."""
        self.write(text)
        with capturedLogs() as events:
            reload_configuration(self.service, self.running)
        return [(event["log_level"], formatEvent(event)) for event in events]

    def connect(self) -> SocketlikeTransport:
        transport = SocketlikeTransport()
        transport.connect(self.service.factory.buildProtocol(None))
        return transport

    def ask(self, transport: SocketlikeTransport, *packets: bytes) -> bytes:
        transport.clear()
        transport.receive(b"".join(packets))
        self.reactor.advance(0)
        return bytes(transport.value())

    def test_nothing_changed(self) -> None:
        self.write(WHOLE)
        self.start()
        before = self.service.settings
        self.assertEqual(self.reload(WHOLE), [(LogLevel.info, "Configuration read again. Changed: nothing")])
        self.assertEqual(self.service.settings, before)

    def test_what_changed_and_what_needs_a_new_start_is_told(self) -> None:
        self.write(WHOLE)
        self.start()
        changed = (
            WHOLE.replace('"2K"', '"4K"')
            .replace("job-retries = 4", "job-retries = 5")
            .replace('"tcp:1"', '"tcp:2"')
            .replace('order = "registration"\nround-robin = true\n', "")
            .replace("file-descriptors = 100", "file-descriptors = 200")
            .replace("job-retries = 0", "job-retries = 1")
            .replace('"*"', '"a*"')
        )
        for _ in range(2):
            logged = self.reload(changed)
            self.assertEqual(
                logged[-1],
                (
                    LogLevel.warn,
                    "Not changed, as it needs a new start: listen, order, round-robin, file-descriptors",
                ),
            )
            if _ == 0:
                self.assertEqual(
                    logged[0][1],
                    "Configuration read again. Changed: job-retries, max-packet, functions.*, "
                    "functions.resize, functions.a*",
                )
            else:
                self.assertEqual(logged[0][1], "Configuration read again. Changed: nothing")
        settings = self.service.settings
        self.assertEqual((settings.listen, settings.job_retries), (("tcp:1", "unix:/s"), 5))
        self.assertIs(settings.order, FunctionOrder.REGISTRATION)

    def test_a_broken_file_changes_nothing(self) -> None:
        self.write(WHOLE)
        self.start()
        before = self.service.settings
        for text in ("job-retries = 1\nbroken = \n", "job-retries = 1\nunknown = 1\n", "job-retries = -5\n"):
            logged = self.reload(text)
            self.assertEqual([level for level, _ in logged], [LogLevel.error])
            self.assertIn(f"{self.path}:", logged[0][1])
            self.assertIs(self.service.settings, before)
        Path(self.path).unlink()
        with capturedLogs() as events:
            reload_configuration(self.service, self.running)
        self.assertIn("nothing was changed", formatEvent(events[0]))

    def test_jobs_stay_and_new_limits_hold(self) -> None:
        self.write("[functions.f]\nqueue-limit = 2\n")
        self.start("--handle-prefix=H:t")
        client, worker = self.connect(), self.connect()
        for _ in range(2):
            self.ask(client, req(18, b"f", b"", b"x"))
        self.assertIn(b"QUEUE_ERROR", self.ask(client, req(18, b"f", b"", b"x")))
        self.assertEqual(self.ask(worker, req(1, b"f"), req(9)), res(11, b"H:t:1", b"f", b"x"))
        self.reload("exceptions = true\n[functions.f]\nqueue-limit = 3\ntime-limit = 5\n")
        self.assertEqual(self.ask(client, req(18, b"f", b"", b"y")), res(8, b"H:t:3"))
        self.assertIn(b"QUEUE_ERROR", self.ask(client, req(18, b"f", b"", b"x")))
        self.assertEqual(self.ask(worker, req(13, b"H:t:1", b""), req(9)), res(11, b"H:t:2", b"f", b"x"))
        self.reactor.advance(5)
        self.assertEqual(self.ask(worker, req(9)), res(11, b"H:t:3", b"f", b"y"))
        self.assertEqual(self.service.factory.broker.total, 2)

    def test_new_connections_have_the_new_limit_of_packets(self) -> None:
        self.write("max-packet = 4096\n")
        self.start()
        old = self.connect()
        self.reload("max-packet = 1024\n")
        new = self.connect()
        echo = req(16, bytes(2000))
        self.assertEqual(self.ask(old, echo), res(17, bytes(2000)))
        self.assertIn(b"exceeds the limit of 1024", self.ask(new, echo))

    def test_the_access_policy_is_changed(self) -> None:
        self.write("")
        self.start()
        client = self.connect()
        submit = req(18, b"f", b"", b"x")
        self.assertNotIn(b"ACCESS_DENIED", self.ask(client, submit))
        self.assertIn("Changed: access", self.reload("[access.all]\nadmin = ['view']\n")[0][1])
        self.assertIn(b"ACCESS_DENIED", self.ask(client, submit))
        self.assertEqual(self.service.factory.broker.total, 1)
        self.assertIn("Changed: nothing", self.reload("[access.all]\nadmin = ['view']\n")[0][1])
        self.assertIn("Changed: access", self.reload("")[0][1])
        self.assertNotIn(b"ACCESS_DENIED", self.ask(client, submit))

    def test_what_the_command_line_said_stays_said(self) -> None:
        self.write("job-retries = 1\n")
        self.start("--job-retries=7")
        self.reload("job-retries = 2\n")
        self.assertEqual(self.service.settings.job_retries, 7)

    def test_all_or_nothing(self) -> None:
        """Every step of a reload fails once, and nothing of what the file says holds then.

        The steps: reading the file and files with tokens of the access policy, the new settings together,
        endpoints, TLS, the web side's token, traces, the store, and the broker's new policy. What follows is
        assignments, and each connection's functions, where one that cannot obey is dropped.
        """
        self.write("job-retries = 1\n[functions.f]\nqueue-limit = 1\n")
        self.start()
        client = self.connect()
        self.ask(client, req(18, b"f", b"", b"x"))
        factory = self.service.factory
        factory.threshold = Threshold(Level.INFO)

        def state() -> tuple[Any, ...]:
            function = factory.broker.functions.by_name[b"f"]
            return (
                *(
                    self.service.settings,
                    factory.settings,
                    factory.broker.functions.policy,
                    self.running.process,
                ),
                *(factory.threshold.level, factory.admission.limit, factory.access),
                *(function.limits, function.rate, function.time_limit, function.limited),
                self.service._tls,
            )

        good = (
            "job-retries = 2\nmax-connections = 7\nlog-level = 'debug'\n{}\n"
            "[access.all]\nsubmit = ['*']\n{}"
            "[functions.f]\nqueue-limit = 2\ntime-limit = 5\nsubmit-rate = 3\n"
        )
        missing = self.folder / "missing"
        before = state()
        for said, top, access in (
            ("unknown key", "job-retires = 1", ""),
            ("nested", f"a = {'[' * 5000}", ""),
            ("submit-rate must be", "submit-rate = inf", ""),
            ("missing: No such file", "", f"token-file = '{missing}'\n"),
            ("tls and web-tls need", "web-tls = true", ""),
            ("not 99999", "web = '99999'", ""),
            ("nonsense:1", "listen = 'nonsense:1'", ""),
            ("No such file", f"tls = 'tcp:0'\ntls-certificate = '{missing}'", ""),
            ("No such file", f"web-token-file = '{missing}'", ""),
            ("begins with one of", "store = 'mysql://x/y'", ""),
        ):
            with self.subTest(top or access):
                ((level, text),) = self.reload(good.format(top, access))
                self.assertIs(level, LogLevel.error)
                self.assertIn("nothing was changed", text)
                self.assertIn(said, text)
                self.assertEqual(state(), before)

        patch = self.patch(type(factory), "administration", Defective())
        ((level, _),) = self.reload(good.format("", ""))
        self.assertIs(level, LogLevel.critical)
        self.assertEqual(state(), before)
        patch.restore()
        self.flushLoggedErrors()
        logged = self.reload(good.format("", ""))
        self.assertEqual(logged[0][0], LogLevel.info)
        self.assertTrue(all(old != new for old, new in zip(before[:6], state()[:6], strict=True)))

    def test_a_connection_that_cannot_obey_is_dropped(self) -> None:
        self.write("")
        self.start()
        good, bad = self.connect(), self.connect()
        for transport in good, bad:
            self.ask(transport, req(1, b"f"))

        def fail() -> None:
            raise RuntimeError("a defect")

        connections = list(self.service.factory.connections.values())
        self.patch(connections[-1], "access_changed", fail)
        self.assertIn("Changed: access", self.reload("[access.all]\nadmin = ['view']\n")[-1][1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.reactor.advance(0)
        self.assertTrue(bad.disconnecting or bad.aborted)
        self.assertFalse(good.disconnecting)
        self.assertIn(b"ACCESS_DENIED", self.ask(good, req(1, b"f")))

    def test_what_is_known_of_it_afterwards(self) -> None:
        self.write("max-jobs = 5")
        self.start()
        self.reload("max-jobs = 6\nhistory = 7")
        self.reload("max-jobs = -1")
        refused, reloaded, *_ = self.service.factory.activity.newest_first()
        self.assertEqual((reloaded.actor, reloaded.action), (None, "reload configuration"))
        self.assertIn("max-jobs", reloaded.detail)
        self.assertEqual(refused.action, "refuse configuration")
        self.assertIn("max-jobs", refused.detail)

    def test_without_a_file(self) -> None:
        self.running = Options()
        self.running.parseOptions([])
        self.service = make_service(self.running.settings, reactor=MemoryReactorClock())
        with capturedLogs() as events:
            reload_configuration(self.service, self.running)
        self.assertEqual(
            [formatEvent(event) for event in events], ["Configuration read again. Changed: nothing"]
        )
