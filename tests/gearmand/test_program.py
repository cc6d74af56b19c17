"""``txgearmand`` as an operator meets it: real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from twisted.logger import LogLevel
from twisted.python.syslog import SyslogObserver
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import authorities
from tests.gearmand.programs import LIMIT, Connection, in_background, make_script, run
from tests.support import free_port
from txgearman.server.config.process_options import Level
from txgearman.server.gearmand.log import GearmandLog
from txgearman.server.gearmand.options import NO_LOG
from txgearman.server.gearmand.program import running_server
from txgearman.server.process.logs import Threshold
from txgearman.version import VERSION
from txgearman.wire import packets as p


class ProgramCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-gearmand-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.script = make_script(self.folder)
        self.pid_file = self.folder / "pid"
        self.log = self.folder / "log"
        self.port = free_port()

    def words(self, *words: str, without: str = "") -> list[str]:
        """The program on a port of its own, with further words, and without one of the usual options."""
        usual = {
            "listen": "127.0.0.1",
            "port": self.port,
            "pid-file": self.pid_file,
            "log-file": self.log,
        }
        said = [f"--{name}={value}" for name, value in usual.items() if name != without]
        return [self.script, *said, *words]


class AnswerTests(ProgramCase):
    def test_words_that_only_ask(self) -> None:
        self.assertEqual(run(self.script, "--version").stdout, f"\ntxgearmand {VERSION}\n")
        self.assertIn("--libsqlite3-db", run(self.script, "-h").stdout)
        checked = run(*self.words("-t", "8", "--check-args"))
        self.assertEqual(checked.stdout, "")
        self.assertEqual(
            checked.stderr, "txgearmand: --threads has no effect: one thread serves all connections.\n"
        )
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["txgearmand"])

    def test_errors_are_one_line_and_exit_code_1(self) -> None:
        for words, text in (
            (["--nosuch"], "unrecognised option '--nosuch'"),
            (["-q", "MySQL"], "There is no queue MySQL here."),
            (["--pid-file=/nonexistent/pid"], "Could not open pid file for writing: /nonexistent/pid"),
            (["--user=no_such_user"], "no_such_user" if os.getuid() == 0 else "Must be root"),
            (["-f", "99999999999"], "Failed to set limit for the number of file descriptors."),
            (["--ssl", "--ssl-certificate=/nonexistent/c", "--ssl-key=/nonexistent/k"], "/nonexistent/"),
            (["--job-handle-prefix=a b"], "handle-prefix must be printable ASCII"),
        ):
            errors = run(self.script, "-L", "127.0.0.1", *words, code=1).stderr
            self.assertTrue(errors.startswith("txgearmand: "), errors)
            self.assertIn(text, errors)
            self.assertEqual(errors.count("\n"), 1, errors)


class ServingTests(ProgramCase):
    def test_in_the_background(self) -> None:
        with in_background(*self.words("--daemon"), pid_file=self.pid_file) as process:
            with Connection(self.port) as connection:
                self.assertEqual(connection.line("version"), f"OK txgearman-{VERSION}")
            self.assertEqual(self.pid_file.stat().st_mode & 0o777, 0o644)
            self.assertEqual(self.log.stat().st_mode & 0o777, 0o644)
            process.stop()
        self.assertFalse(self.pid_file.exists())

    def test_sighup_opens_the_log_anew(self) -> None:
        with in_background(*self.words("-d"), pid_file=self.pid_file) as process:
            self.log.rename(self.folder / "log.1")
            process.send_signal(signal.SIGHUP)
            # What is logged at the end comes after the signal.
            process.stop()
        self.assertIn("Gearman job server listens", (self.folder / "log.1").read_text())
        self.assertIn("Configuration read again. Changed: nothing", self.log.read_text())

    def test_sighup_reads_the_configuration_file_again(self) -> None:
        file = self.folder / "conf"
        file.write_text("--verbose=ERROR")
        with in_background(*self.words("-d", f"--config-file={file}"), pid_file=self.pid_file) as process:
            self.assertEqual(self.log.read_text(), "")
            file.write_text("--verbose=INFO -j 3 -t 2")
            process.send_signal(signal.SIGHUP)
            process.stop()
        self.assertIn("Changed: job-retries, log-level", self.log.read_text())

    def test_a_second_one_leaves_the_first_alone(self) -> None:
        with in_background(*self.words("-d"), pid_file=self.pid_file) as process:
            errors = run(*self.words("-d"), code=1).stderr
            self.assertIn(f"a job server runs already, with process id {process.pid}", errors)
            other = self.folder / "pid2"
            errors = run(
                self.script, "-d", "-L127.0.0.1", f"-p{self.port}", f"-P{other}", "-lnone", code=1
            ).stderr
            self.assertIn("Address already in use", errors)
            self.assertFalse(other.exists())
            self.assertEqual(self.pid_file.read_text(), str(process.pid))

    def test_a_pid_file_that_is_left(self) -> None:
        # A process there is, and it is none of ours.
        self.pid_file.write_text("1\n")
        with in_background(*self.words("-d"), pid_file=self.pid_file):
            self.assertNotEqual(self.pid_file.read_text(), "1\n")

    def test_a_pid_file_with_the_same_process_id(self) -> None:
        """As in a container that was killed and is started again."""
        with subprocess.Popen(
            ["gearmand"],
            executable=shutil.which("cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            # Popen returns a moment before the kernel shows the program's command line.
            other.stdin.write(b"runs")
            self.assertEqual(other.stdout.read(4), b"runs")
            self.pid_file.write_text(f"{other.pid}\n")
            self.assertEqual(running_server(str(self.pid_file)), other.pid)
            self.patch(os, "getpid", lambda: other.pid)
            self.assertEqual(running_server(str(self.pid_file)), 0)

    def test_in_the_foreground(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            program = subprocess.Popen(
                self.words("--log-file=stderr", without="log-file"),
                stderr=subprocess.PIPE,
                text=True,
            )
            assert program.stderr is not None
            for line in program.stderr:
                if "listens at" in line:
                    break
            # It answers once the reactor runs, which handles the signals.
            with Connection(self.port) as connection:
                connection.line("version")
            program.send_signal(number)
            program.stderr.read()
            program.stderr.close()
            self.assertEqual(program.wait(LIMIT), 0, number)
            self.assertFalse(self.pid_file.exists())

    def test_a_log_that_cannot_be_opened(self) -> None:
        done = run(*self.words("-d", "--log-file=/nonexistent/log", without="log-file"))
        try:
            self.assertIn('Could not open log file "/nonexistent/log", switching to stderr.', done.stderr)
        finally:
            os.kill(int(self.pid_file.read_text()), signal.SIGTERM)

    def test_every_address_is_said_in_the_log(self) -> None:
        words = self.words("-d", "--threads=3", without="listen")
        with in_background(*words, pid_file=self.pid_file) as process:
            for host in ("127.0.0.1", "127.0.0.2"):
                with Connection(self.port, host) as connection:
                    # As gearmand shows it, though one socket is for both kinds of addresses.
                    self.assertRegex(connection.line("workers"), r"^\d+ 127\.0\.0\.1 - :")
            process.stop()
        log = self.log.read_text()
        self.assertEqual(log.count("listens at every address"), 1)
        self.assertEqual(log.count("--threads has no effect"), 1)

    def test_tls(self) -> None:
        with authorities() as (folder, authority, _):
            certificate = authority.issue(folder / "server.pem", "localhost")
            words = self.words("-d", "--ssl", f"--ssl-certificate={certificate}", f"--ssl-key={certificate}")
            with in_background(*words, f"--ssl-ca-file={authority.ca}", pid_file=self.pid_file):
                context = ssl.create_default_context(cafile=authority.ca)
                with (
                    socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as plain,
                    context.wrap_socket(plain, server_hostname="localhost") as connection,
                ):
                    connection.sendall(b"version\n")
                    self.assertEqual(connection.recv(100), f"OK txgearman-{VERSION}\n".encode())
        self.assertIn("--ssl-ca-file has no effect: no client is asked", self.log.read_text())


class LogTests(SynchronousTestCase):
    """Where the log goes; what is logged is not asked here."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-gearmand-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "folder" / "log"
        self.path.parent.mkdir()

    def log(self, syslog: bool = False) -> GearmandLog:
        log = GearmandLog(str(self.path), syslog)
        assert log.file is not None
        self.addCleanup(log.file.close)
        return log

    def write(self, log: GearmandLog, text: str, level: Level = Level.INFO) -> None:
        event = {"log_time": 0.0, "log_level": LogLevel.info, "log_format": text, "log_namespace": "test"}
        log.observer(Threshold(level))(event)

    def test_a_file_and_syslog(self) -> None:
        said: list[str] = []
        self.patch(SyslogObserver, "openlog", staticmethod(lambda *words: said.append(words[0])))
        self.patch(SyslogObserver, "syslog", staticmethod(lambda _priority, text: said.append(text)))
        log = self.log(syslog=True)
        self.write(log, "an event")
        self.write(log, "one below the threshold", Level.WARN)
        self.assertEqual(said, ["gearmand", "[-] an event"])
        self.assertRegex(self.path.read_text(), r"^\S+ \[test#info\] an event\n$")

    def test_none(self) -> None:
        self.write(GearmandLog(NO_LOG, False), "an event")
        self.assertEqual(list(self.path.parent.iterdir()), [])

    def test_the_file_stays_open_where_it_cannot_be_opened_anew(self) -> None:
        log = self.log()
        moved = self.path.parent.rename(self.path.parent.with_name("moved"))
        log.reopen()
        self.write(log, "an event")
        self.assertIn("an event", (moved / "log").read_text())

    def test_it_is_not_rotated_by_itself(self) -> None:
        log = self.log()
        self.write(log, "x" * 2_000_000)
        self.write(log, "an event")
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["log"])


class PrintedConfigurationTests(ProgramCase):
    def behaviour(self) -> list[bytes]:
        """What tells these options from the defaults of ``twistd gearmand``."""
        with Connection(self.port) as connection:
            handle = connection.submit(p.SUBMIT_JOB_HIGH_BG, b"first", b"", b"")
            connection.submit(p.SUBMIT_JOB_BG, b"second", b"", b"")
            connection.send(p.CAN_DO, b"first")
            connection.send(p.CAN_DO, b"second")
            jobs = []
            while (job := connection.grab()) is not None:
                jobs.append(job[1])
                connection.send(p.WORK_COMPLETE, job[0], b"")
            return [handle.rpartition(b":")[0], *jobs]

    def test_a_server_started_from_it_does_the_same(self) -> None:
        words = self.words("--job-handle-prefix=H:mine")
        with in_background(*words, "-d", pid_file=self.pid_file) as process:
            expected = self.behaviour()
            process.stop()
        self.assertEqual(expected, [b"H:mine", b"second", b"first"])
        file = self.folder / "gearmand.toml"
        file.write_text(run(*words, "--print-config").stdout)
        twistd = str(Path(sysconfig.get_path("scripts")) / "twistd")
        command = [
            twistd,
            f"--pidfile={self.pid_file}",
            f"--logfile={self.log}",
            "gearmand",
            f"--config={file}",
        ]
        with in_background(*command, pid_file=self.pid_file):
            self.assertEqual(self.behaviour(), expected)

    def test_it_says_that_it_takes_no_jobs_over(self) -> None:
        words = self.words("--print-config", "-q", "libsqlite3", f"--libsqlite3-db={self.folder}/jobs.db")
        text = run(*words).stdout
        self.assertIn("it alone takes jobs over from gearmand's queue", text.splitlines()[1])
        self.assertIn(f'store = "sqlite:///{self.folder}/jobs.db.txgearman"', text)

    def test_its_first_line_is_the_command(self) -> None:
        first = run(*self.words("--print-config", "--syslog", "-u", "nobody")).stdout.splitlines()[0]
        self.assertEqual(
            first,
            f"# twistd --pidfile={self.pid_file} --logfile={self.log} --nodaemon --syslog --uid=nobody "
            "gearmand --config=THIS_FILE",
        )
