"""What the tests share: running on the real reactor under pytest and trial alike, programs, examples."""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Coroutine
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.internet.defer import Deferred

DOCS = Path(__file__).parent.parent / "docs"

LONGEST_TEST = 60.0
"""Seconds after which a test on the real reactor has failed."""

PORTS = (10_000, 65_000)
"""The first port that a test may choose, and the end: above those of programs that may run here."""

block_on: Callable[[Deferred[Any]], Any] | None = None
"""Set by conftest.py: under pytest-twisted the reactor runs in a greenlet of its own, so trial cannot
start it and the test switches to it instead. Under trial it stays None."""


def on_reactor(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    """Make an ``async def`` test of a `twisted.trial.unittest.TestCase` run on the real reactor.

    Clean up inside the test (``try``/``finally``, ``async with``): a clean-up that returns an unfired
    Deferred would make trial start the reactor that pytest-twisted already runs.
    """

    @functools.wraps(test)
    def run(self: Any) -> Any:
        from twisted.internet import reactor

        deferred = Deferred.fromCoroutine(test(self)).addTimeout(LONGEST_TEST, reactor)
        return deferred if block_on is None else block_on(deferred)

    return run


def load(path: Path) -> ModuleType:
    """The module in the file `path`, made anew. Its folder can be imported from meanwhile."""
    spec = spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def table(page: str, header: str) -> list[list[str]]:
    """The rows of the ``csv-table`` of the docs' page whose header row begins with `header`."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^\.\. csv-table::.*\n((?:   :.*\n)+)\n((?:   .*\n|\n)+)", text, re.MULTILINE):
        options, body = found.groups()
        if f':header: "{header}"' in options:
            lines = [line.strip() for line in body.splitlines() if line.strip()]
            return list(csv.reader(lines, skipinitialspace=True))
    raise AssertionError(f"{page} has no such table: {header}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that the system gives to nobody by itself.

    Between the choice and its use the system would give away one of its own range: to another process's
    connection, or to the near end of a client's attempt to reach a server that is down, which TCP connects to
    itself. It is drawn by chance, so that runners side by side do not choose the same.
    """
    given = range(*map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()))
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        if port in given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def process_state(pid: int) -> str:
    """The letter by which Linux says what a process does: ``T`` if it is stopped, ``Z`` if it is dead and not
    reaped. Raises `OSError` for one that is not there."""
    return _state(Path(f"/proc/{pid}"))


def pause(pid: int) -> None:
    """Stop a process with SIGSTOP, and return when all its threads stand still.

    The signal alone returns earlier. On a busy machine a thread of the process would still answer what is
    sent to it afterwards.
    """
    os.kill(pid, signal.SIGSTOP)
    while any(_state(thread) != "T" for thread in Path(f"/proc/{pid}/task").iterdir()):
        os.sched_yield()


def _state(folder: Path) -> str:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0]


def small_disk(test: unittest.TestCase, size: int) -> Path:
    """The folder of a file system of `size` bytes, which is there until the end of `test`. Skips the test
    where there is no right to mount one: CI runs as root."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tempfile.mkdtemp(prefix="txgearman-disk-")
    test.addCleanup(os.rmdir, folder)
    command = [str(mount), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if (
        mount is None
        or umount is None
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        raise unittest.SkipTest("no right to mount a file system")
    test.addCleanup(subprocess.run, [umount, folder], check=True)
    return Path(folder)


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte; returns the file that does."""
    filler = disk / "filler"
    with filler.open("ab") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return filler


def needs_program(*names: str) -> Callable[[Any], Any]:
    """Skip a test, saying why, where one of the programs `names` is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def temporary_folder(test: unittest.TestCase) -> Path:
    """A folder that goes with the test. trial's own `mktemp` makes one below the current folder, which under
    pytest is the checkout."""
    folder = tempfile.TemporaryDirectory(prefix="txgearman-test-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)
