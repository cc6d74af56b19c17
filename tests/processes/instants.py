"""A server that stops itself at a chosen instant, where a signal from outside would seldom hit it.

Runs within the server: `listen` is called when its process begins. Nothing else of the server is changed.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from txgearman.server.protocol import GearmanServerProtocol
from txgearman.wire.packets import JOB_ASSIGN, JOB_ASSIGN_ALL, JOB_ASSIGN_UNIQ

GIVING: Final = signal.SIGRTMIN
"""Asks the server to stop when a worker has got a job of the store, next time, and was not sent it yet."""

_KINDS: Final = {number.to_bytes(4, "big") for number in (JOB_ASSIGN, JOB_ASSIGN_UNIQ, JOB_ASSIGN_ALL)}


def listen() -> None:
    """Obey `GIVING` from now on. What was asked is forgotten when the process goes on behind a stop."""
    asked = False
    flush = GearmanServerProtocol.flush

    def ask(number: int, _frame: object) -> None:
        nonlocal asked
        asked = number == GIVING

    def stop_ahead(self: GearmanServerProtocol) -> None:
        nonlocal asked
        if asked and _gives(self):
            asked = False
            os.kill(os.getpid(), signal.SIGSTOP)
        flush(self)

    for number in (GIVING, signal.SIGCONT):
        signal.signal(number, ask)
    GearmanServerProtocol.flush = stop_ahead  # type: ignore[method-assign]


def _gives(connection: GearmanServerProtocol) -> bool:
    packets = {packet[4:8] for packet in connection._out}
    return bool(packets & _KINDS) and any(job.stored for job in connection.worker.jobs.values())
