"""Functions that the tests let the command's worker import."""

from __future__ import annotations

import os
import threading

from txgearman.worker import Job


def reverse(job: Job) -> bytes:
    """The payload backwards."""
    data: bytes = job.data[::-1]
    return data


def where(_job: Job) -> bytes:
    """The process and the thread it is called in."""
    return f"{os.getpid()} {threading.current_thread().name}".encode()
