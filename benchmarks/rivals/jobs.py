"""What every job of this comparison has: its payload, the trace that a run leaves, and the broker's port.

Imported by all clients and workers. No library is imported here.

A job carries its number. A run of the no-op job appends number and time to one file, by a single write, as
threads, greenlets and forked processes may do at once. So jobs that were lost or ran twice are found, and the
time is taken in the same way whatever the worker is made of. The write takes about a microsecond.
"""

from __future__ import annotations

import functools
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"

PORT: Final = "TXGEARMAN_BENCH_PORT"
RUNS: Final = "TXGEARMAN_BENCH_RUNS"
"""Environment variables: the broker's port, and the file of the runs."""

PAYLOAD_BYTES: Final = 64

_RUN: Final = struct.Struct("=qq")


def port() -> int:
    """The broker's port on `HOST`."""
    return int(os.environ[PORT])


def redis_url() -> str:
    """Where Redis listens."""
    return f"redis://{HOST}:{port()}/0"


def payloads(count: int) -> list[str]:
    """The payloads of the jobs 0 to `count` - 1: ASCII, 64 characters each."""
    return [f"{number:08}".ljust(PAYLOAD_BYTES, "x") for number in range(count)]


def ran(payload: str) -> None:
    """Note that the job with this payload runs."""
    os.write(_file(), _RUN.pack(int(payload[:8]), time.monotonic_ns()))


@functools.cache
def _file() -> int:
    return os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def count_runs(path: Path) -> int:
    """How many runs were noted so far."""
    try:
        return path.stat().st_size // _RUN.size
    except FileNotFoundError:
        return 0


def read_runs(path: Path) -> Iterator[tuple[int, int]]:
    """Number of the job and monotonic nanoseconds of each run that was noted, in their order."""
    noted = path.read_bytes()
    return _RUN.iter_unpack(noted[: len(noted) // _RUN.size * _RUN.size])
