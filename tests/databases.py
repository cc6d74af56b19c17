"""Database servers of our own for tests, benchmarks and trials by destruction.

`PostgreSQL` is one cluster: a data folder of its own, a free port of 127.0.0.1, settings of a careful
production but for its size, and nothing that outlives this process. Everything here blocks.

    with PostgreSQL() as cluster:
        url = cluster.new_database()

A `CuttableProxy` between a program and such a server can be cut. Tests share `shared_postgresql()`, which
starts at its first use and ends with the process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support import free_port, process_state

HOST: Final = "127.0.0.1"
USER: Final = "gearman"
START_LIMIT: Final = 60
"""Seconds a cluster may take to start, recovery after a crash included."""
_SETTINGS: Final = {"max_connections": "60", "log_min_messages": "warning"}
_LOOK_AGAIN: Final = 0.01
"""Seconds between two looks at what only another process knows."""
_REMOVE: Final = 'cat; "$1" -D "$2/data" --mode=immediate stop; rm -rf "$2"'
_ATTEMPTS: Final = 3
"""Starts before giving up, where somebody else took the free port in between."""


def postgresql_programs() -> Path | None:
    """The folder with the newest PostgreSQL's programs; None where there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = shutil.which("initdb")
    if debian:
        return debian[-1].parent
    return Path(found).parent if found else None


def needs_postgresql(test: Any) -> Any:
    """Skip a test, saying why, where PostgreSQL or its driver is not installed."""
    missing = [] if postgresql_programs() else ["PostgreSQL"]
    try:
        import psycopg  # noqa: F401
    except ImportError:
        missing.append("psycopg")
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")(test)


@functools.cache
def shared_postgresql() -> PostgreSQL:
    """The cluster that the tests of this process share."""
    return PostgreSQL().start()


class PostgreSQL:
    """A cluster: its programs run as an ordinary user, also where this process is root's.

    `port` is where it listens; `stop`, `kill` and `start` may follow each other as often as one likes.
    `settings` are those of postgresql.conf. To a file of `largest_file` bytes it can write no more, as on a
    full disk; less than the 16 MiB of its log does not work.
    """

    def __init__(self, largest_file: int | None = None, **settings: str) -> None:
        programs = postgresql_programs()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._programs = programs
        self._settings = _SETTINGS | settings
        self._largest_file = largest_file
        self._names = itertools.count(1)
        self._folder = Path(tempfile.mkdtemp(prefix="txgearman-postgresql-"))
        self._data = self._folder / "data"
        self._account = _ordinary_account()
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        self.port = 0
        # Whatever becomes of this process, SIGKILL included, its end of the pipe closes with it.
        self._remover = subprocess.Popen(
            ["sh", "-c", _REMOVE, "sh", programs / "pg_ctl", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **self._as_account(),
        )
        atexit.register(self.remove)
        try:
            # Without --no-sync the empty database itself would be fsynced, file by file.
            self._run(
                "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={USER}"
            )
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def running(self) -> bool:
        """Whether the cluster's main process is there."""
        return self._pid() is not None

    def start(self) -> Self:
        """Start it, at its first start on a free port, and return when it answers."""
        for attempt in range(1, _ATTEMPTS + 1):
            port = self.port or free_port()
            options = self._settings | {
                "listen_addresses": HOST,
                "port": str(port),
                "unix_socket_directories": str(self._folder),
            }
            words = " ".join(f"-c {name}={value}" for name, value in options.items())
            log = str(self._folder / "log")
            try:
                self._run(
                    "pg_ctl", "--wait", f"--timeout={START_LIMIT}", f"--log={log}", "-o", words, "start"
                )
            except AssertionError:
                if self.port or attempt == _ATTEMPTS:
                    raise
            else:
                self.port = port
                break
        return self

    def stop(self, mode: str = "fast") -> None:
        """End it: ``fast`` cuts its connections and writes what is in memory, ``immediate`` does not write.

        Nothing happens if it does not run.
        """
        if self.running:
            self._run("pg_ctl", "--wait", f"--mode={mode}", "stop")

    def kill(self) -> None:
        """End all its processes with SIGKILL, as a crash does."""
        pid = self._pid()
        if pid is None:
            return
        # The main process first, or it would begin to recover from the death of the others.
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while any(map(_is_alive, (pid, *map(int, children)))):
            time.sleep(_LOOK_AGAIN)
        # Where nobody has reaped it yet its number still looks taken.
        for lock in (self._data / "postmaster.pid", self._folder / f".s.PGSQL.{self.port}.lock"):
            lock.unlink(missing_ok=True)

    def remove(self) -> None:
        """End it and delete its data."""
        atexit.unregister(self.remove)
        self._remover.communicate()

    def new_database(self, scheme: str = "postgresql") -> str:
        """Make an empty database; returns its URL."""
        name = f"test{next(self._names)}"
        self.run_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"{scheme}://{USER}@{HOST}:{self.port}/{name}"

    def run_sql(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement in a connection of its own; returns its rows."""
        with connected(f"postgresql://{USER}@{HOST}:{self.port}/{database}") as connection:
            cursor = connection.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def _as_account(self) -> dict[str, Any]:
        """What makes a process that of the ordinary account."""
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _limit(self) -> None:
        """Called in the process that becomes a program."""
        assert self._largest_file is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._largest_file, self._largest_file))

    def _pid(self) -> int | None:
        try:
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        return pid

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end. Raises `AssertionError` with its words if it fails."""
        with tempfile.TemporaryFile() as output:
            # No pipes: the server that pg_ctl starts would keep them open.
            process = subprocess.run(
                [self._programs / program, "-D", self._data, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                **self._as_account(),
                preexec_fn=self._limit if self._largest_file else None,
                timeout=2 * START_LIMIT,
            )
            output.seek(0)
            log = self._folder / "log"
            assert process.returncode == 0, (
                f"{program}: {output.read().decode(errors='replace')}\n"
                f"{log.read_text(errors='replace') if log.exists() else ''}"
            )


class _Then(Enum):
    """What becomes of a packet that a `CuttableProxy` waits for."""

    CUT_BEHIND = auto()
    CUT_AT = auto()
    WITHHOLD = auto()
    DELAY = auto()


class CuttableProxy:
    """What lies between a program and the server at `port` of 127.0.0.1; the program connects to `url(...)`.

    `cut` ends its connections. After `cut_behind(b"COMMIT")` the next packet with these bytes still gets
    through, and the connection ends when the server has done it, in the place of its answer, and with
    `for_good` no other is made until `mend`; after `cut_at(b"COMMIT")` it ends at once, while the server does
    it. After `withhold_behind` it does not end, but nothing comes back. After `delay` it ends, and the packet
    gets through when `deliver` is called.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._words: bytes | None = None
        self._then = _Then.CUT_BEHIND
        self._for_good = self._broken = False
        self._unanswered: dict[socket.socket, _Then] = {}
        """Connections to the server whose next answer gets lost."""
        self.withheld = threading.Event()
        """Whether the server has done what it cannot tell of, as answers are withheld or it came late."""
        self._late: tuple[socket.socket, bytes] | None = None
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """`url` with the port of this cable."""
        return url.replace(f":{self._server}/", f":{self.port}/")

    def cut(self) -> None:
        """End all connections through it; new ones can be made."""
        # One that is made at once in the place of one of them stays.
        connections = self._connections[:]
        del self._connections[: len(connections)]
        for connection in connections:
            _hang_up(connection)

    def cut_behind(self, words: bytes, for_good: bool = False) -> None:
        """Lose the answer to the next packet with `words`."""
        self._await(words, _Then.CUT_BEHIND, for_good)

    def mend(self) -> None:
        """Let new connections through."""
        self._for_good = self._broken = False

    def cut_at(self, words: bytes) -> None:
        """Let the next packet with `words` through, and end its connection without waiting for the answer."""
        self._await(words, _Then.CUT_AT)

    def withhold_behind(self, words: bytes) -> None:
        """Lose the answer to the next packet with `words` and all behind it; the connection stays."""
        self._await(words, _Then.WITHHOLD)

    def delay(self, words: bytes) -> None:
        """Keep the next packet with `words` and end its connection for good."""
        self._await(words, _Then.DELAY, True)

    def deliver(self) -> None:
        """Let through what was kept, and return when the server has done it."""
        assert self._late is not None
        far, data = self._late
        far.sendall(data)
        assert self.withheld.wait(START_LIMIT)

    def _await(self, words: bytes, then: _Then, for_good: bool = False) -> None:
        self.withheld.clear()
        self._words, self._then, self._for_good = words, then, for_good

    def remove(self) -> None:
        """End everything."""
        _hang_up(self._listener)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                if self._broken:
                    near.close()
                    continue
                far = socket.create_connection((HOST, self._server))
                self._connections += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self._bring_back, args=(far, near), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                if self._words is None or self._words not in data:
                    far.sendall(data)
                    continue
                self._words = None
                self._broken = self._for_good
                self._unanswered[far] = self._then
                if self._then is _Then.DELAY:
                    self._late = far, data
                else:
                    far.sendall(data)
                if self._then in {_Then.CUT_AT, _Then.DELAY}:
                    # The server finds out when it answers.
                    _hang_up(near)
                    return
        _hang_up(far)

    def _bring_back(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 20):
                then = self._unanswered.get(far)
                if then in {_Then.WITHHOLD, _Then.DELAY}:
                    self.withheld.set()
                if then is None:
                    near.sendall(data)
                elif then is not _Then.WITHHOLD:
                    break
        _hang_up(near)
        _hang_up(far)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection of psycopg for tests to look or meddle with."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


def _ordinary_account() -> pwd.struct_passwd | None:
    """The account to run PostgreSQL's programs, which refuse root; None for this process's own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("no account to run PostgreSQL: neither postgres nor nobody exists")


def _is_alive(process: int) -> bool:
    """Whether a process is there and not dead but for being reaped."""
    try:
        return process_state(process) != "Z"
    except OSError:
        return False
