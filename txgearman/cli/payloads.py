"""Where the payloads of `submit` come from: arguments, files, or the lines of a file or of standard input.

A file on a disk is read in the reactor's thread, a pipe or a terminal in a thread of its own, as it may
let its reader wait.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredLock

_CHUNK: Final = 64 * 1024
"""Bytes that are read at once."""


class Payloads(Protocol):
    """One payload after the other. `total` is how many there are, None where that is not known yet."""

    total: int | None

    async def next(self) -> bytes | None:
        """The next payload, None behind the last. Raises `OSError` where it cannot be read."""
        ...


class Given:
    """Payloads that can be had without waiting, `total` of them."""

    def __init__(self, payloads: Iterable[bytes], total: int) -> None:
        self.total: int | None = total
        self._payloads = iter(payloads)

    async def next(self) -> bytes | None:
        return next(self._payloads, None)


class PipedLines:
    """The lines of a pipe or terminal, without their line ends, each as soon as it is there."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.total: int | None = None
        self._reactor = reactor
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._ended = False
        self._count = 0
        self._turn = DeferredLock()
        self._asked = threading.Semaphore(0)
        self._arrival: Deferred[None] | None = None
        self._reader: threading.Thread | None = None

    async def next(self) -> bytes | None:
        # Several may ask at the same time; one of them waits for the reader.
        await self._turn.acquire()
        try:
            while not self._lines and not self._ended:
                await self._read()
        finally:
            self._turn.release()
        if not self._lines:
            return None
        return self._lines.popleft()

    def _read(self) -> Deferred[None]:
        """Let the thread read once; fires when what it read is here."""
        if self._reader is None:
            # A daemon: where nothing comes any more, it must not hold up the end of the process.
            self._reader = threading.Thread(target=self._read_on, name="standard input", daemon=True)
            self._reader.start()
        self._arrival = Deferred()
        self._asked.release()
        return self._arrival

    def _read_on(self) -> None:
        chunk: bytes | OSError = b"?"
        while chunk and not isinstance(chunk, OSError):
            self._asked.acquire()
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except OSError as error:
                chunk = error
            self._reactor.callFromThread(self._arrived, chunk)

    def _arrived(self, chunk: bytes | OSError) -> None:
        arrival, self._arrival = self._arrival, None
        assert arrival is not None
        if isinstance(chunk, OSError):
            self._ended = True
            arrival.errback(chunk)
            return
        first, *others = chunk.split(b"\n")
        self._parts.append(first)
        for part in others:
            self._add(b"".join(self._parts))
            self._parts = [part]
        if not chunk:
            self._ended = True
            last = b"".join(self._parts)
            if last:
                self._add(last)
            self.total = self._count
        arrival.callback(None)

    def _add(self, line: bytes) -> None:
        self._count += 1
        self._lines.append(line)


def whole(path: str) -> bytes:
    """The whole content of a file, or of standard input for ``-``. Raises `OSError`."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def from_files(paths: Iterable[str]) -> Given:
    """The whole content of each file. Raises `OSError` for the first that cannot be read."""
    paths = list(paths)

    def contents() -> Iterator[bytes]:
        for path in paths:
            yield whole(path)

    return Given(contents(), len(paths))


def lines_of(reactor: Any, stream: IO[bytes]) -> Payloads:
    """The lines of an open file, without their line ends. It is closed behind the last."""
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return PipedLines(reactor, stream.fileno())
    begin = stream.tell()
    total = sum(1 for _ in stream)
    stream.seek(begin)

    def lines() -> Iterator[bytes]:
        with stream:
            for line in stream:
                yield line.removesuffix(b"\n")

    return Given(lines(), total)
