"""The floor under the benchmarks: a Twisted protocol that reads and writes what a job server would.

Lives here: fixed answers to the packets of three loads, with no queue, no jobs and no checks. Never here:
anything that would make it a job server. What txgearman is slower than this is the price of its own
work; what this takes is the price of Twisted's reactor, of Python and of the kernel.

It is right for exactly these loads of load.c: background submits, foreground jobs of one client and
one worker one at a time, and echoes. Called as ``python benchmarks/echo.py PORT``.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import Final, cast

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.tcp import Server

PRE_SLEEP: Final = 4
SUBMIT_JOB: Final = 7
WORK_COMPLETE: Final = 13
ECHO_REQ: Final = 16
SUBMIT_JOB_BG: Final = 18
GRAB_JOB_UNIQ: Final = 30

HANDLE: Final = b"H:localhost:123456"

_header = Struct(">4sII")


def _packet(number: int, body: bytes) -> bytes:
    return _header.pack(b"\0RES", number, len(body)) + body


CREATED: Final = _packet(8, HANDLE)
NOOP: Final = _packet(6, b"")
NO_JOB: Final = _packet(10, b"")


class Floor(Protocol):
    """One connection. The last to announce sleep is the worker, the last to submit is the client."""

    worker: Floor | None = None
    client: Floor | None = None
    payload = b""
    """Of the one job that waits for the worker's grab."""

    _kept = b""

    def connectionMade(self) -> None:
        """Send small answers at once, as both job servers do: Twisted leaves Nagle's algorithm on."""
        cast(Server, self.transport).setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Answer every whole packet of one read in one write."""
        if self._kept:
            data = self._kept + data
        start, end = 0, len(data)
        answers: list[bytes] = []
        while end - start >= _header.size:
            _, number, size = _header.unpack_from(data, start)
            body = start + _header.size
            if body + size > end:
                break
            start = body + size
            if number == SUBMIT_JOB_BG:
                answers.append(CREATED)
            elif number == ECHO_REQ:
                answers.append(_packet(17, data[body:start]))
            else:
                self._relay(number, data[body:start], answers)
        self._kept = data[start:]
        if answers:
            self._answer(b"".join(answers))

    def _relay(self, number: int, body: bytes, answers: list[bytes]) -> None:
        """The packets of one foreground job on its way from the client to the worker and back."""
        if number == SUBMIT_JOB:
            Floor.client = self
            Floor.payload = body
            answers.append(CREATED)
            if Floor.worker is not None:
                Floor.worker._write(NOOP)
        elif number == GRAB_JOB_UNIQ and Floor.payload:
            # Function, unique and data of a submit are in an assignment in the same order.
            answers.append(_packet(31, HANDLE + b"\0" + Floor.payload))
            Floor.payload = b""
        elif number == GRAB_JOB_UNIQ:
            answers.append(NO_JOB)
        elif number == WORK_COMPLETE and Floor.client is not None:
            Floor.client._write(_packet(WORK_COMPLETE, body))
        elif number == PRE_SLEEP:
            Floor.worker = self

    def _answer(self, data: bytes) -> None:
        """Write to whom just sent: offered to the socket at once, the rest through the reactor."""
        transport = cast(Server, self.transport)
        if not transport.dataBuffer and not transport._tempDataBuffer:
            sent = transport.writeSomeData(data)
            data = data[sent:] if isinstance(sent, int) and sent > 0 else data
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Write to another connection than the one that just sent: through the reactor."""
        cast(ITransport, self.transport).write(data)


class FloorFactory(ServerFactory):
    """Makes the connections."""

    protocol = Floor


def main() -> None:
    """Listen on the port of the command line until a signal comes."""
    from twisted.internet import reactor

    reactor.listenTCP(int(sys.argv[1]), FloorFactory(), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
