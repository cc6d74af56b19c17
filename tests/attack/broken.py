"""A server that does on demand what an attack must not bring about.

A harness that does not see that proves nothing. This runs within the server: `harms_when_told` is called
before it starts.
"""

from __future__ import annotations

import time
from typing import Final

from tests.processes.packets import Type, request
from txgearman.server.protocol import GearmanServerProtocol

STALL: Final = b"stall, please"
KEEP: Final = b"keep memory, please"
FAIL: Final = b"fail, please"
LOSE: Final = b"lose a job, please"

STALL_SECONDS: Final = 0.6
STORED: Final = 150 << 20

_SUBMIT: Final = request(Type.SUBMIT_JOB)[:8]


def harms_when_told() -> None:
    """What is received with one of the words above in it does that harm."""
    received = GearmanServerProtocol.dataReceived
    kept: list[bytes] = []
    told: set[bytes] = set()

    def harm(self: GearmanServerProtocol, data: bytes) -> None:
        told.update(word for word in (STALL, KEEP, FAIL, LOSE) if word in data)
        received(self, data)
        if STALL in data:
            time.sleep(STALL_SECONDS)
        if KEEP in data:
            kept.append(b"x" * STORED)
        if FAIL in data:
            raise RuntimeError("as was asked for")
        if data.startswith(_SUBMIT) and LOSE in told:
            self.transport.loseConnection()

    GearmanServerProtocol.dataReceived = harm  # type: ignore[method-assign]
