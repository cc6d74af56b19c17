"""The program as it is installed: a script of its own, processes in the background, and a plain connection.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack
from typing import Final

from txgearman.wire import packets as p

CHECKOUT: Final = Path(__file__).parents[2]

LIMIT: Final = 60.0
"""Seconds that a program may take for anything, on a busy machine."""

_LOOK_AGAIN: Final = 0.01
"""Seconds between two looks at what only another process knows."""

_SCRIPT: Final = """\
#!{python}
import sys
import time

sys.path.insert(0, {checkout!r})
from txgearman.server.gearmand.program import main

sys.exit(main())
"""


def make_script(folder: Path, name: str = "txgearmand") -> str:
    """Write the program into a folder; returns its path."""
    path = folder / name
    path.write_text(_SCRIPT.format(python=sys.executable, checkout=str(CHECKOUT)))
    path.chmod(0o755)
    return str(path)


def run(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Raises `AssertionError` for another exit code."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, (command, done)
    return done


class Process:
    """A process that need not be a child: how it ends is seen, whoever reaps it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def wait(self) -> None:
        """Return when it has ended. Raises `AssertionError` if it does not."""
        assert select.select([self._descriptor], [], [], LIMIT)[0], f"process {self.pid} does not end"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and return when it has ended."""
        self.send_signal(number)
        self.wait()


@contextlib.contextmanager
def in_background(*command: str, pid_file: Path) -> Iterator[Process]:
    """A server that goes to the background by itself; it is ended at last."""
    run(*command)
    process = Process(int(pid_file.read_text()))
    try:
        yield process
    finally:
        process.stop(signal.SIGKILL)


def _connected(host: str, port: int) -> socket.socket:
    """A connection, as soon as there is somebody: gearmand goes to the background before it listens."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return socket.create_connection((host, port), timeout=LIMIT)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(_LOOK_AGAIN)


class Connection:
    """A connection to a job server of this machine."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._socket = _connected(host, port)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, number: int, *arguments: bytes) -> None:
        body = b"\0".join(arguments)
        self._socket.sendall(b"\0REQ" + pack(">II", number, len(body)) + body)

    def receive(self) -> tuple[int, bytes]:
        """The next packet: its number and its body."""
        header = self._file.read(12)
        assert len(header) == 12, f"the server closed the connection after {header!r}"
        number, size = unpack(">II", header[4:])
        return number, self._file.read(size)

    def ask(self, number: int, *arguments: bytes) -> tuple[int, bytes]:
        self.send(number, *arguments)
        return self.receive()

    def line(self, text: str) -> str:
        """The first line of the answer to an admin line."""
        self._socket.sendall(text.encode() + b"\n")
        return self._file.readline().decode().strip()

    def submit(self, number: int, *arguments: bytes) -> bytes:
        """Submit a job; returns its handle."""
        kind, handle = self.ask(number, *arguments)
        assert kind == p.JOB_CREATED, (kind, handle)
        return handle

    def run_all(self, *functions: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """Do all jobs that wait, as their worker; returns function, unique and data of each, in order."""
        for function in functions:
            self.send(p.CAN_DO, function)
        found = []
        while (job := self.grab()) is not None:
            self.send(p.WORK_COMPLETE, job[0], b"")
            found.append(job[1:])
        # Answered behind what was said before.
        self.ask(p.ECHO_REQ, b"done")
        return found

    def grab(self) -> tuple[bytes, bytes, bytes, bytes] | None:
        """The next job, as handle, function, unique and data; None if there is none."""
        kind, body = self.ask(p.GRAB_JOB_UNIQ)
        if kind == p.NO_JOB:
            return None
        assert kind == p.JOB_ASSIGN_UNIQ, (kind, body)
        handle, function, unique, data = body.split(b"\0", 3)
        return handle, function, unique, data
