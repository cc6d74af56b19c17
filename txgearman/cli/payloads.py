"""The payloads of `submit`: arguments, files, or the lines of a file or of standard input.

A file on a disk is read in the reactor's thread. A pipe or a terminal is read in a thread, as reading it may
block.
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

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of one read."""


class Payloads(Protocol):
    """A sequence of payloads.

    Attributes:
        total: How many there are; None while that is not known.
    """

    total: int | None

    async def next(self) -> bytes | None:
        """Return the next payload, None after the last. Raises `OSError` if it cannot be read."""
        ...


class KnownPayloads:
    """Payloads that are there without waiting, `total` of them."""

    def __init__(self, payloads: Iterable[bytes], total: int) -> None:
        self.total: int | None = total
        self._payloads = iter(payloads)

    async def next(self) -> bytes | None:
        return next(self._payloads, None)


class PipedLines:
    """The lines of a pipe or terminal, without their line ends, each as soon as it has come."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.total: int | None = None
        self._reactor = reactor
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._ended = False
        self._lines_read = 0
        self._read_lock = DeferredLock()
        self._read_requests = threading.Semaphore(0)
        self._chunk_arrival: Deferred[None] | None = None
        self._reader: threading.Thread | None = None

    async def next(self) -> bytes | None:
        # Several callers may wait at the same time. One of them waits for the thread.
        await self._read_lock.acquire()
        try:
            while not self._lines and not self._ended:
                await self._read()
        finally:
            self._read_lock.release()
        if not self._lines:
            return None
        return self._lines.popleft()

    def _read(self) -> Deferred[None]:
        """Let the thread read once. Fires when its bytes have come."""
        if self._reader is None:
            # A daemon: the process must be able to end while the thread waits for input.
            self._reader = threading.Thread(target=self._read_in_thread, name="standard input", daemon=True)
            self._reader.start()
        self._chunk_arrival = Deferred()
        self._read_requests.release()
        return self._chunk_arrival

    def _read_in_thread(self) -> None:
        chunk: bytes | OSError = b"?"
        while chunk and not isinstance(chunk, OSError):
            self._read_requests.acquire()
            try:
                chunk = os.read(self._descriptor, _CHUNK_BYTES)
            except OSError as error:
                chunk = error
            self._reactor.callFromThread(self._chunk_read, chunk)

    def _chunk_read(self, chunk: bytes | OSError) -> None:
        chunk_arrival, self._chunk_arrival = self._chunk_arrival, None
        assert chunk_arrival is not None
        if isinstance(chunk, OSError):
            self._ended = True
            chunk_arrival.errback(chunk)
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
            self.total = self._lines_read
        chunk_arrival.callback(None)

    def _add(self, line: bytes) -> None:
        self._lines_read += 1
        self._lines.append(line)


def read_file(path: str) -> bytes:
    """Read a whole file, or standard input for ``-``. Raises `OSError`."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def from_files(paths: Iterable[str]) -> KnownPayloads:
    """The content of each file. `next` raises `OSError` for one that cannot be read."""
    paths = list(paths)

    def contents() -> Iterator[bytes]:
        for path in paths:
            yield read_file(path)

    return KnownPayloads(contents(), len(paths))


def lines_of(reactor: Any, stream: IO[bytes]) -> Payloads:
    """The lines of an open file, without their line ends. It is closed after the last."""
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return PipedLines(reactor, stream.fileno())
    begin = stream.tell()
    total = sum(1 for _ in stream)
    stream.seek(begin)

    def lines() -> Iterator[bytes]:
        with stream:
            for line in stream:
                yield line.removesuffix(b"\n")

    return KnownPayloads(lines(), total)
