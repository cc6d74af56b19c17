"""Every reason for which a start can fail, in the foreground and in the background: real processes.

Each ends with exit code 1, one line on standard error, no pid file and no process. The reasons, by where they
are met:

* options: unknown ones, wrong values, ports that cannot be, endpoints, files of TLS, of tokens and of the
  configuration, URLs and drivers of stores, a log that cannot be, a user without a group;
* making the service: the log's file, too few open files;
* twistd's environment: the folder to run in, the pid file, changing the user (one that does not exist is
  refused by twistd itself, which shows its help);
* listening: ports in use or not allowed, UNIX sockets that cannot be made;
* the store: a missing folder, no right to write, another server's, a newer version, no database at all, a
  PostgreSQL that is away;
* the end of the process by anything else, such as a signal while it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.interop.programs import HOST, Program, run_program, until
from tests.server import starting
from tests.server.test_twistd import TWISTD
from tests.support import free_port, on_reactor

NOBODY: Final = 65534
"""The owner of what the server must not touch."""


@dataclass
class Case:
    """What is prepared for one start: a folder that everybody may write to, and a port that is free."""

    folder: Path
    port: int
    stack: contextlib.ExitStack

    def path(self, name: str, content: str | bytes | None = None, mode: int = 0o644) -> str:
        """The path of a file in the folder, made if there is `content`."""
        path = self.folder / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(mode)
        return str(path)

    def taken_port(self) -> int:
        """A port at which somebody listens."""
        holder = self.stack.enter_context(socket.socket())
        holder.bind((HOST, 0))
        holder.listen()
        return int(holder.getsockname()[1])

    def locked_folder(self) -> str:
        """A folder in which nobody but root may make files."""
        path = self.folder / "locked"
        path.mkdir()
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o555)
        return str(path)

    def secret(self, name: str) -> str:
        """The path of a file that nobody but root may read."""
        path = self.path(name, "", mode=0)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        return path

    def newer_store(self) -> str:
        """The URL of a store with tables of a version that this program does not know."""
        path = self.path("newer.db")
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript(
                "CREATE TABLE txgearman_meta (version INTEGER, starts INTEGER);"
                "INSERT INTO txgearman_meta VALUES (1000, 1)"
            )
        Path(path).chmod(0o666)
        return f"sqlite:///{path}"

    def owned_store(self) -> str:
        """The URL of a store that another server has."""
        path = self.path("owned.db")
        lock = self.stack.enter_context(
            contextlib.closing(sqlite3.connect(path + "-owner", isolation_level=None))
        )
        lock.execute("BEGIN EXCLUSIVE")
        return f"sqlite:///{path}"


Options = Callable[[Case], list[str]]


@dataclass(frozen=True)
class Row:
    """A start that fails: the options of the server and of twistd, and what the line says. One that is
    `unprivileged` is run without root's rights; one that is `only_background` fails nowhere else; `needs` is
    a package without which it is left out."""

    name: str
    said: str
    options: Options = field(default=lambda case: [])
    of_twistd: Options = field(default=lambda case: [])
    unprivileged: bool = False
    only_background: bool = False
    needs: str = ""


def listen_at(text: str) -> Options:
    return lambda case: [f"--listen={text.format(folder=case.folder, port=case.port)}"]


def store_at(text: str) -> Options:
    return lambda case: [f"--store={text.format(folder=case.folder, port=free_port())}"]


def configured(text: str) -> Options:
    return lambda case: [f"--config={case.path('gearmand.toml', text.format(folder=case.folder))}"]


OPTIONS: Final = (
    Row("unknown option", "nonsense", lambda case: ["--nonsense"]),
    Row("wrong value", "max-packet must be", lambda case: ["--max-packet=tiny"]),
    Row("web port too large", "not 99999", lambda case: ["--web=99999"]),
    Row("port too large", "not 65536", listen_at("tcp:65536")),
    Row("wrapped port too large", "not 65536", listen_at("haproxy:tcp:65536")),
    Row("negative port", "not -1", listen_at("tcp:-1")),
    Row("no endpoint", "nonsense:1", listen_at("nonsense:1")),
    Row(
        "configuration missing",
        "gone.toml: No such file",
        lambda case: [f"--config={case.path('gone.toml')}"],
    ),
    Row("configuration a folder", "Is a directory", lambda case: [f"--config={case.folder}"]),
    Row(
        "configuration unreadable",
        "secret.toml: Permission denied",
        lambda case: [f"--config={case.secret('secret.toml')}"],
        unprivileged=True,
    ),
    Row("configuration wrong", "gearmand.toml:1: unknown key", configured("max-paket = 1")),
    Row("configuration nested", "gearmand.toml:1: nested", configured("a = " + "[" * 5000)),
    Row(
        "certificate missing",
        "cert.pem: No such file",
        lambda case: ["--tls=tcp:0", f"--tls-certificate={case.path('cert.pem')}"],
        needs="OpenSSL",
    ),
    Row(
        "certificate bad",
        "cert.pem",
        lambda case: ["--tls=tcp:0", f"--tls-certificate={case.path('cert.pem', 'no certificate')}"],
        needs="OpenSSL",
    ),
    Row(
        "web token missing",
        "No such file",
        lambda case: ["--web=0", f"--web-token-file={case.path('token')}"],
    ),
    Row(
        "access token missing",
        "token: No such file",
        configured("[access.a]\ntoken-file = '{folder}/token'\n"),
    ),
    Row("store unknown", "not the URL of a store", store_at("mysql://localhost/x")),
)

ENVIRONMENT: Final = (
    Row(
        "background log to stdout or a missing folder",
        "log",
        of_twistd=lambda case: [f"--logfile={case.path('missing/log')}"],
    ),
    Row("log to no output", "--nodaemon", of_twistd=lambda case: ["--logfile=-"], only_background=True),
    Row("log a folder", "Is a directory", of_twistd=lambda case: [f"--logfile={case.folder}"]),
    Row("few files", "open files", lambda case: ["--file-descriptors=12"]),
    Row(
        "pid file in a missing folder",
        "missing/pid: No such file",
        of_twistd=lambda case: [f"--pidfile={case.path('missing/pid')}"],
    ),
    Row(
        "run folder missing",
        "missing: No such file",
        of_twistd=lambda case: [f"--rundir={case.path('missing')}"],
    ),
    Row("user without a group", "3999999999 is no user", of_twistd=lambda case: ["--uid=3999999999"]),
    Row(
        "user not allowed", "failed to set", of_twistd=lambda case: ["--uid=1", "--gid=1"], unprivileged=True
    ),
)

LISTENING: Final = (
    Row("port in use", "in use", lambda case: [f"--listen=tcp:{case.taken_port()}:interface={HOST}"]),
    Row(
        "web port in use",
        "in use",
        lambda case: [f"--listen=unix:{case.path('s')}", f"--web={case.taken_port()}"],
    ),
    Row("port not allowed", "Permission denied", listen_at("tcp:1:interface=127.0.0.1"), unprivileged=True),
    Row("backlog too large", "backlog=9", listen_at("tcp:0:backlog=99999999999")),
    Row("UNIX socket in a missing folder", "missing/s", listen_at("unix:{folder}/missing/s")),
    Row("UNIX socket with too long a name", "too long", listen_at("unix:{folder}/" + "x" * 108)),
    Row(
        "UNIX socket not allowed",
        "Permission denied",
        lambda case: [f"--listen=unix:{case.locked_folder()}/s"],
        unprivileged=True,
    ),
)

STORE: Final = (
    Row(
        "store in a missing folder",
        "there is no folder ",
        store_at("sqlite:///{folder}/missing/q.db"),
        needs="sqlalchemy",
    ),
    Row("store a folder", "folder", store_at("sqlite:///{folder}"), needs="sqlalchemy"),
    Row(
        "store not allowed",
        "unable to open",
        lambda case: [f"--store=sqlite:///{case.locked_folder()}/q.db"],
        unprivileged=True,
        needs="sqlalchemy",
    ),
    Row(
        "store no database",
        "not a SQLite database",
        lambda case: [f"--store=sqlite:///{case.path('q.db', b'no database' * 1000)}"],
        needs="sqlalchemy",
    ),
    Row("store newer", "version 1000", lambda case: [f"--store={case.newer_store()}"], needs="sqlalchemy"),
    Row(
        "store another's",
        "another server uses it",
        lambda case: [f"--store={case.owned_store()}"],
        needs="sqlalchemy",
    ),
    Row(
        "PostgreSQL away",
        "refused",
        store_at("postgresql://gearman@127.0.0.1:{port}/gearman"),
        needs="psycopg",
    ),
)


async def run_all(commands: list[tuple[list[str], bool]]) -> list[tuple[int | None, str, str]]:
    """What comes of ``twistd`` with each of these options, and without root's rights where that is said:
    exit code, standard output, standard error."""
    driver = [sys.executable, "-m", "tests.server.starting"]
    limit = starting.RUN_LIMIT * len(commands)
    code, output, errors = await run_program(driver, json.dumps(commands).encode(), limit)
    assert code == 0, errors
    return [(code, output, errors) for code, output, errors in json.loads(output)]


@contextlib.contextmanager
def a_case() -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="txgearman-start-") as folder, contextlib.ExitStack() as stack:
        yield Case(Path(folder), free_port(), stack)


class FailingStartTest(TestCase):
    """All reasons, by the tables above."""

    def command(self, row: Row, case: Case, background: bool) -> list[str]:
        options = row.options(case)
        if not any(option.startswith("--listen") for option in options):
            options = [f"--listen=tcp:{case.port}:interface={HOST}", *options]
        where = [f"--logfile={case.folder}/log"] if background else ["--nodaemon"]
        own = [f"--pidfile={case.folder}/pid", f"--rundir={case.folder}", *where, *row.of_twistd(case)]
        return [*own, "gearmand", *options]

    async def assert_all_fail(self, rows: tuple[Row, ...]) -> None:
        """In the foreground and in the background."""
        with contextlib.ExitStack() as stack:
            starts = [
                (row, stack.enter_context(a_case()), background)
                for row in rows
                if not row.needs or find_spec(row.needs)
                for background in (False, True)
                if background or not row.only_background
            ]
            commands = [(self.command(*start), start[0].unprivileged) for start in starts]
            for (row, case, background), result in zip(starts, await run_all(commands), strict=True):
                with self.subTest(row.name, background=background):
                    self.assert_failed(row, case, result)

    def assert_failed(self, row: Row, case: Case, result: tuple[int | None, str, str]) -> None:
        code, output, errors = result
        log = case.folder / "log"
        logged = log.read_text() if log.is_file() else ""
        told = (row.name, code, output, errors, logged)
        lines = errors.splitlines()
        self.assertEqual(len(lines), 1, told)
        # What the command line says wrong comes with a hint.
        self.assertEqual(code, 2 if lines[0].endswith("Try twistd gearmand --help") else 1, told)
        self.assertIn(row.said, lines[0], told)
        for text in (output, errors, logged):
            self.assertNotIn("Traceback", text, told)
            self.assertNotIn("Usage:", text, told)
        self.assertFalse((case.folder / "pid").exists(), told)

    @on_reactor
    async def test_options(self) -> None:
        await self.assert_all_fail(OPTIONS)

    @on_reactor
    async def test_environment(self) -> None:
        await self.assert_all_fail(ENVIRONMENT)

    @on_reactor
    async def test_listening(self) -> None:
        await self.assert_all_fail(LISTENING)

    @on_reactor
    async def test_store(self) -> None:
        await self.assert_all_fail(STORE)


def spawn(command: list[str]) -> Program:
    """Start a process. It has ended, as a `Program`, when all processes that come of it have: they hold open
    the pipe that is descriptor 3."""
    from twisted.internet import reactor

    program = Program(command)
    reactor.spawnProcess(  # type: ignore[attr-defined]
        program, command[0], command, env=os.environ, childFDs={0: "w", 1: "r", 2: "r", 3: "r"}
    )
    program.transport.closeChildFD(0)
    return program


class KilledStartTest(TestCase):
    """A child that is killed while it starts, and so says nothing to its parent."""

    @on_reactor
    async def test_the_parent_does_not_wait_for_it(self) -> None:
        with a_case() as case:
            silent = case.stack.enter_context(socket.create_server((HOST, 0)))
            silent.setblocking(False)
            store = f"--store=postgresql://gearman@{HOST}:{silent.getsockname()[1]}/gearman"
            pid_file = case.folder / "pid"
            command = [TWISTD, f"--pidfile={pid_file}", f"--rundir={case.folder}", "gearmand"]
            program = spawn([*command, f"--listen=unix:{case.folder}/s", store])
            try:

                async def waits_for_the_database() -> bool:
                    with contextlib.suppress(BlockingIOError):
                        case.stack.enter_context(silent.accept()[0])
                        return True
                    return False

                await until(waits_for_the_database, "the child has connected")
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
                code = await program.ended()
            finally:
                await program.kill()
            self.assertEqual((code, program.output), (1, b""))
            self.assertEqual(program.errors, b"the server was ended before it served\n")
            self.assertFalse(pid_file.exists())
