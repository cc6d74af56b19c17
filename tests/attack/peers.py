"""Sockets of an attacker: raw bytes out and in, each step bounded in time.

Nothing here comes from the package under test.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Iterator
from struct import Struct
from typing import Final

from tests.processes.packets import Disorder, Type, request

PIECE: Final = 1 << 16
"""Bytes of one read or write."""

STUCK: Final = 0.3
"""Seconds without any progress after which the server counts as not reading or not writing any more."""

_header = Struct(">4sII")


class TimeUp(Exception):
    """The time of the attack is over."""


class Peer:
    """One connection. `deadline` is when the attack has to end, by the monotonic clock.

    `received` is what came and was not taken yet; `closed` whether the server ended the connection.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._deadline = deadline
        self.received = bytearray()
        self.closed = False

    def close(self) -> None:
        """Leave at once, without a word; bytes that are under way are lost."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def send(self, data: bytes, patience: float = STUCK) -> int:
        """Send without reading anything, until all is sent or the server does not read any more.

        Returns how many bytes the system took. Raises `TimeUp`.
        """
        view = memoryview(data)
        sent = 0
        while sent < len(data) and not self.closed:
            if not self._ready(writing=True, patience=patience):
                break
            sent += self._write(view[sent : sent + PIECE * 16])
        return sent

    def read(self, patience: float = STUCK) -> bytes:
        """All that comes until nothing has come for `patience` seconds, or the connection ends."""
        while not self.closed and self._ready(writing=False, patience=patience):
            self._read()
        return self.take()

    def read_some(self, patience: float = 5.0) -> bool:
        """Read once; whether anything came into `received`. Raises `TimeUp`."""
        before = len(self.received)
        if not self.closed and self._ready(writing=False, patience=patience):
            self._read()
        return len(self.received) > before

    def take(self) -> bytes:
        """What was received, once."""
        data = bytes(self.received)
        self.received.clear()
        return data

    def talk(self, data: bytes, patience: float = 30.0) -> bytes:
        """Send packets and take their answers meanwhile; returns these once the answer to an echo behind them
        is there, or the connection ends.

        Raises `TimeUp`, also where nothing comes for `patience` seconds.
        """
        marker = b"that was all %d" % len(data)
        return self.converse(data + request(Type.ECHO_REQ, marker), _answer_to(marker), patience)

    def ask(self, line: bytes, ending: bytes, patience: float = 30.0) -> bytes:
        """Send admin lines; returns what comes, once that ends with `ending` or the connection ends."""
        return self.converse(line, ending, patience)

    def converse(self, data: bytes, ending: bytes, patience: float) -> bytes:
        """Send and read at the same time; returns what came, without `ending`."""
        view = memoryview(data)
        sent = 0
        while not self.closed and not self.received.endswith(ending):
            if not self._ready(writing=sent < len(data), patience=patience, reading=True):
                raise TimeUp(f"no answer within {patience:.0f} s")
            if sent < len(data):
                sent += self._write(view[sent : sent + PIECE])
            self._read()
        return self.take().removesuffix(ending)

    def until(self, ending: bytes, patience: float = 5.0) -> bool:
        """Read until what was received ends so; whether it did."""
        give_up = time.monotonic() + patience
        while not self.closed and not self.received.endswith(ending) and time.monotonic() < give_up:
            if self._ready(writing=False, patience=give_up - time.monotonic()):
                self._read()
        return self.received.endswith(ending)

    def ends(self, patience: float = 5.0) -> bool:
        """Read until the server ends the connection; whether it did."""
        give_up = time.monotonic() + patience
        while not self.closed and time.monotonic() < give_up:
            if self._ready(writing=False, patience=give_up - time.monotonic()):
                self._read()
        return self.closed

    def _ready(self, *, writing: bool, patience: float, reading: bool = False) -> bool:
        """Whether the socket is ready within `patience`. Raises `TimeUp`."""
        now = time.monotonic()
        if now >= self._deadline:
            raise TimeUp("the time of the attack is over")
        if isinstance(self._socket, ssl.SSLSocket) and not writing and self._socket.pending():
            return True
        poll = select.poll()
        poll.register(
            self._socket,
            (select.POLLOUT if writing else 0) | (select.POLLIN if reading or not writing else 0),
        )
        return bool(poll.poll(1000 * max(0.0, min(patience, self._deadline - now))))

    def _write(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self.closed = True
            return 0

    def _read(self) -> None:
        try:
            data = self._socket.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        self.received += data
        self.closed = not data


def _answer_to(echo: bytes) -> bytes:
    return _header.pack(b"\0RES", Type.ECHO_RES, len(echo)) + echo


def header(kind: int, size: int) -> bytes:
    """The header of a packet that claims a body of `size` bytes."""
    return _header.pack(b"\0REQ", kind, size)


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The packets that came, the last of which may be cut off. Raises `Disorder` for what is none."""
    place = 0
    while place + _header.size <= len(data):
        magic, kind, size = _header.unpack_from(data, place)
        if magic != b"\0RES":
            raise Disorder(f"{data[place : place + 40]!r} where a packet should begin")
        place += _header.size
        if place + size > len(data):
            return
        yield kind, data[place : place + size]
        place += size


def created(data: bytes) -> bytes:
    """The handle of the first job that was accepted. Raises `Disorder` where none was."""
    return _first(data, Type.JOB_CREATED)


def assigned(data: bytes) -> bytes:
    """The handle of the first job that a worker was given. Raises `Disorder` where it was given none."""
    return _first(data, Type.JOB_ASSIGN_UNIQ).partition(b"\0")[0]


def _first(data: bytes, kind: int) -> bytes:
    for number, body in packets(data):
        if number == kind:
            return body
    raise Disorder(f"no packet {kind} in {data[:100]!r}")


def count(data: bytes, kind: int, beginning: bytes = b"") -> int:
    """How many packets of a kind there are whose bodies begin so."""
    return sum(number == kind and body.startswith(beginning) for number, body in packets(data))
