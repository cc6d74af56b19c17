"""Runs a program for each job: the payload is its standard input, and its standard output is the result.
The end of its standard error is kept for who submitted a job that fails.

This blocks, so it runs in threads. Nothing here knows of connections.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from txgearman.errors import FailJob, Reject, Retry
from txgearman.wire.names import text_of

RETRIED: Final = 75
"""The exit code of a program that wants its job to be run again: EX_TEMPFAIL of sysexits.h, which mail
servers take so."""

REJECTED: Final = 65
"""The exit code of a program whose job no other run can help: EX_DATAERR of sysexits.h, for wrong input."""


ERROR_BYTES: Final = 4096
"""Bytes of standard error, the last ones, that are sent with the failure of a job. An ordinary traceback
fits, and a chatty program does not fill the server's memory."""

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of one read of standard error: what a pipe holds."""

_READS_AT_END: Final = 16
"""Reads of standard error once the program has ended: as much as Linux lets a pipe hold, a mebibyte. A child
that outlives the program may write for ever."""

_STANDARD_ERROR: Final = 2


class ThreadJob(Protocol):
    """A job whose methods can be called in a thread. It is hashable."""

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

    @property
    def attempt(self) -> int | None:
        """Which of the job's attempts it is, None if that is not known."""

    @property
    def losses(self) -> int | None:
        """How many workers went away with the job before, None if that is not known."""

    @property
    def traceparent(self) -> str | None:
        """The span that it belongs to, as the W3C writes it; None if that is not known."""

    def send_data(self, data: bytes) -> None:
        """Send a part of the result."""


class ProgramRunner:
    """Runs a program once for each job, also several at the same time.

    Each program gets a process group of its own, so that Ctrl-C on the terminal does not end it. Its
    environment has ``TXGEARMAN_HANDLE``, ``TXGEARMAN_FUNCTION`` and ``TXGEARMAN_UNIQUE``, and, where the
    server tells, ``TXGEARMAN_ATTEMPT`` and ``TXGEARMAN_LOSSES``. ``TRACEPARENT``, OpenTelemetry's name,
    is the span that the job belongs to, if its submit named one.

    Args:
        arguments: The program and its arguments. A single argument is a line for ``/bin/sh``.
        lines: Whether to send each line as data as soon as it is written. The result is then empty.
    """

    def __init__(self, arguments: Sequence[str], lines: bool) -> None:
        self._arguments = ["/bin/sh", "-c", *arguments] if len(arguments) == 1 else list(arguments)
        self._lines = lines
        self._running: dict[ThreadJob, subprocess.Popen[bytes]] = {}
        # Jobs that were killed while they waited for a thread: their programs are not started.
        self._killed: weakref.WeakSet[ThreadJob] = weakref.WeakSet()
        # Reentrant: `end` is called in a signal handler too, which may interrupt `kill`.
        self._lock = threading.RLock()
        self._ending = False

    def run(self, job: ThreadJob) -> bytes:
        """Run the program for a job.

        Args:
            job: The job.

        Returns:
            The result.

        Raises:
            FailJob: The program fails, or is killed, maybe before its start. Its data has the end of what the
                program wrote to standard error.
            Retry: It ends with `RETRIED`. The text has the end of its standard error, too.
            Reject: It ends with `REJECTED`. Likewise.
        """
        errors = _ErrorOutput()
        try:
            process = self._start(job, errors.write_end)
        finally:
            errors.started()
        with process, self._killed_on_error(process, job):
            result = self._stream_lines(process, job) if self._lines else process.communicate(job.data)[0]
            code = process.wait()
        tail = errors.tail().rstrip()
        if code == 0:
            return result
        summary = f"the command {_exit_text(code)}"
        data = b"%b\n%b" % (summary.encode(), tail) if tail else summary.encode()
        if code == RETRIED:
            raise Retry(text=text_of(data))
        if code == REJECTED:
            raise Reject(text_of(data))
        raise FailJob(summary, data=data)

    def terminate(self, job: ThreadJob) -> None:
        """Tell the program of `job` and its children to end, by SIGTERM, or prevent its start."""
        self._end(job, signal.SIGTERM)

    def kill(self, job: ThreadJob) -> None:
        """Kill the program of `job` and its children, or prevent its start."""
        self._end(job, signal.SIGKILL)

    def _end(self, job: ThreadJob, number: signal.Signals) -> None:
        with self._lock:
            process = self._running.get(job)
            if process is None:
                self._killed.add(job)
            else:
                _signal(process, number)

    def end(self) -> None:
        """Kill all running programs, and start no more."""
        with self._lock:
            self._ending = True
            for process in self._running.values():
                _kill(process)

    def _start(self, job: ThreadJob, errors: int) -> subprocess.Popen[bytes]:
        """Start the program, unless it is to be killed already. Raises `FailJob` if it is.

        `errors` is the descriptor that becomes its standard error.
        """
        environment = {
            **os.environb,
            b"TXGEARMAN_HANDLE": job.handle,
            b"TXGEARMAN_FUNCTION": job.function,
            b"TXGEARMAN_UNIQUE": job.unique,
        }
        for name, value in (
            (b"TXGEARMAN_ATTEMPT", job.attempt),
            (b"TXGEARMAN_LOSSES", job.losses),
            (b"TRACEPARENT", job.traceparent),
        ):
            # This worker may be the program of another job.
            environment.pop(name, None)
            if value is not None:
                environment[name] = str(value).encode()
        # With the lock held: after `end` this process may be gone at once, and would leave behind a program
        # that runs but is not in `_running` yet.
        with self._lock:
            if self._ending or job in self._killed:
                raise FailJob("the command was not started")
            process = self._running[job] = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                process_group=0,
            )
        return process

    @contextlib.contextmanager
    def _killed_on_error(self, process: subprocess.Popen[bytes], job: ThreadJob) -> Iterator[None]:
        """Kill the program if the block raises. Behind the block it has ended."""
        try:
            yield
        except BaseException:
            _kill(process)
            raise
        finally:
            with self._lock:
                del self._running[job]

    def _stream_lines(self, process: subprocess.Popen[bytes], job: ThreadJob) -> bytes:
        writer = threading.Thread(target=_write_input, args=(process, job.data), daemon=True)
        writer.start()
        assert process.stdout is not None
        for line in process.stdout:
            job.send_data(line)
        writer.join()
        return b""


class _ErrorOutput:
    """The standard error of a program: passed on to that of this process as it comes, with its end kept.

    It is a pipe whose other end the program gets. A thread passes on what comes, also from children that
    outlive the program, for which nobody waits.

    Attributes:
        write_end: The descriptor for the program.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._lock = threading.Lock()
        self._kept = b""
        self._cut = self._ended = False

    def started(self) -> None:
        """The program has its end, or there is no program."""
        os.close(self.write_end)
        threading.Thread(target=self._pass_on, name="standard error", daemon=True).start()

    def tail(self) -> bytes:
        """Pass on what has come until now, and return its last `ERROR_BYTES`."""
        with self._lock:
            for _ in range(_READS_AT_END):
                if not self._read():
                    break
        # The first character may have lost its first bytes.
        return self._kept.lstrip(bytes(range(0x80, 0xC0))) if self._cut else self._kept

    def _pass_on(self) -> None:
        readable = select.poll()
        readable.register(self._read_end, select.POLLIN)
        while not self._ended:
            readable.poll()
            with self._lock:
                self._read()
        os.close(self._read_end)

    def _read(self) -> bool:
        """Read once, with the lock held. Returns whether there may be more."""
        if self._ended:
            return False
        try:
            chunk = os.read(self._read_end, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._ended = True
            return False
        kept = self._kept + chunk
        self._cut = self._cut or len(kept) > ERROR_BYTES
        self._kept = kept[-ERROR_BYTES:]
        _write_all(_STANDARD_ERROR, chunk)
        return True


def _write_all(descriptor: int, data: bytes) -> None:
    # It may be a full disk, or a pipe without a reader. The program goes on.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


def _write_input(process: subprocess.Popen[bytes], data: bytes) -> None:
    # A program may end without reading its input.
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and its children."""
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the program and its children."""
    # Once it is reaped its process id may be another's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _exit_text(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
