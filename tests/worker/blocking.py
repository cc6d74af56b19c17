"""Functions that block, for threads and processes: a process imports them from here."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from txgearman.errors import FailJob, JobCancelled, Reject, Retry
from txgearman.worker import Job

MAIN = threading.get_ident()
"""The thread that imported this: in the tests that of the reactor, in a process its only one."""


def echo(job: Job) -> Any:
    return job.data


def place(job: Job) -> bytes:
    """Process, and whether it is the main thread."""
    return b"%d %d" % (os.getpid(), threading.get_ident() == MAIN)


def chatty(job: Job) -> bytes:
    for number in range(100):
        job.send_data(b"%d" % number)
    job.send_warning(b"careful")
    job.send_status(1, 2)
    return b"done"


def mistaken(job: Job) -> bytes:
    """Sends what cannot be sent; returns what it met."""
    met = []
    for send in (lambda: job.send_data("text"), lambda: job.send_status(-1, 1)):
        try:
            send()
        except (TypeError, ValueError) as error:
            met.append(type(error).__name__.encode())
    return b" ".join(met)


def raises(job: Job) -> bytes:
    raise LookupError("größe")


def leaves(job: Job) -> bytes:
    raise SystemExit(3)


def fails(job: Job) -> bytes:
    raise FailJob("not today")


def fails_with(job: Job) -> bytes:
    raise FailJob("not today " * 200_000, data=b"\0\xff")


def fails_with_too_much(job: Job) -> bytes:
    raise FailJob("not today", data=bytes(10_000))


def not_bytes(job: Job) -> Any:
    return 7


def dies(job: Job) -> bytes:
    os._exit(7)


def long(job: Job) -> bytes:
    return bytes(int(job.data))


def hold(job: Job) -> bytes:
    """Says its process, and runs until the file whose name it was given is there."""
    job.send_data(b"%d" % os.getpid())
    while not Path(os.fsdecode(job.data)).exists():
        time.sleep(0.002)
    return b"released"


def heed(job: Job) -> bytes:
    """As `hold`, until the job is cancelled; then it writes what it met into the file. For a thread."""
    job.send_data(b"%d" % os.getpid())
    path = Path(os.fsdecode(job.data))
    while not job.cancelled:
        time.sleep(0.002)
    try:
        job.send_data(b"late")
    except JobCancelled as error:
        path.write_text(error.reason)
    return b"dropped"


PIECE = bytes(64 * 1024)
PIECES = 300


def floods(job: Job) -> bytes:
    """Sends much, as fast as it can."""
    for _ in range(PIECES):
        job.send_data(PIECE)
    return b"done"


class Shout:
    """A codec of our own that a process can import."""

    def encode(self, value: str) -> bytes:
        return value.upper().encode()

    def decode(self, data: bytes) -> str:
        return data.decode() + "!"


def retries(job: Job) -> bytes:
    """Wants to be run again, then tells which attempt it is; or rejects its job."""
    if job.data == b"rejected":
        raise Reject("no such größe")
    if job.attempt == 1:
        raise Retry(0.0, "not yet \0")
    return b"%s %s" % (str(job.attempt).encode(), str(job.losses).encode())


def puts_off(job: Job) -> bytes:
    """Waits for a file without counting it as a failure."""
    path = Path(job.data.decode())
    if not path.exists():
        path.touch()
        raise Retry(0.0, "no file", counts=False)
    return b"%d" % job.attempt
