"""A program that is run for each job: the payload on its standard input, its standard output the result.

It blocks, so it is for a thread. Nothing here knows of connections.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Protocol

from txgearman.errors import FailJob


class ThreadJob(Protocol):
    """What is needed of a job; its methods can be called in a thread, and it can be a key of a dictionary."""

    @property
    def handle(self) -> bytes:
        """The server's name for the job."""

    @property
    def function(self) -> bytes:
        """The name of its function."""

    @property
    def unique(self) -> bytes:
        """The key it was submitted with."""

    @property
    def data(self) -> bytes:
        """The payload."""

    def send_data(self, data: bytes) -> None:
        """Send a part of the result."""


class Commands:
    """Runs `arguments` once for each job; many can run at the same time.

    A single argument is a line for ``/bin/sh``. With `lines` each line is sent as soon as it is written,
    and the result behind them is empty.

    Each program gets a process group of its own, so that Ctrl-C on the terminal does not end it, and
    ``TXGEARMAN_HANDLE``, ``TXGEARMAN_FUNCTION`` and ``TXGEARMAN_UNIQUE`` in its environment.
    """

    def __init__(self, arguments: Sequence[str], lines: bool) -> None:
        self._arguments = ["/bin/sh", "-c", *arguments] if len(arguments) == 1 else list(arguments)
        self._lines = lines
        self._running: dict[ThreadJob, subprocess.Popen[bytes]] = {}
        # Killed before their programs were started, for which they may wait in a full pool.
        self._killed: weakref.WeakSet[ThreadJob] = weakref.WeakSet()
        # `end` is called in a signal handler too, maybe in the middle of `kill`.
        self._lock = threading.RLock()
        self._ending = False

    def run(self, job: ThreadJob) -> bytes:
        """The result of a job. Raises `FailJob` if the program fails or is killed, be it before its start."""
        with self._lock:
            if job in self._killed:
                raise FailJob("the command was not started")
        environment = {
            **os.environb,
            b"TXGEARMAN_HANDLE": job.handle,
            b"TXGEARMAN_FUNCTION": job.function,
            b"TXGEARMAN_UNIQUE": job.unique,
        }
        process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,
        )
        with process, self._watched(process, job):
            result = self._pass_on(process, job) if self._lines else process.communicate(job.data)[0]
            code = process.wait()
        if code:
            raise FailJob(f"the command {_end(code)}")
        return result

    def kill(self, job: ThreadJob) -> None:
        """Kill the program that runs for `job`, or shall."""
        with self._lock:
            process = self._running.get(job)
            if process is None:
                self._killed.add(job)
            else:
                _kill(process)

    def end(self) -> None:
        """Kill all that run, and all that are started from now on."""
        with self._lock:
            self._ending = True
            for process in self._running.values():
                _kill(process)

    @contextlib.contextmanager
    def _watched(self, process: subprocess.Popen[bytes], job: ThreadJob) -> Iterator[None]:
        """Let the program be killed within the body, and kill it if that raises."""
        with self._lock:
            self._running[job] = process
            if self._ending or job in self._killed:
                _kill(process)
        try:
            yield
        except BaseException:
            _kill(process)
            raise
        finally:
            with self._lock:
                del self._running[job]

    def _pass_on(self, process: subprocess.Popen[bytes], job: ThreadJob) -> bytes:
        feeder = threading.Thread(target=_feed, args=(process, job.data), daemon=True)
        feeder.start()
        assert process.stdout is not None
        for line in process.stdout:
            job.send_data(line)
        feeder.join()
        return b""


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    # It need not read what it is given.
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and what it started."""
    # Once it is reaped its number may be another's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
