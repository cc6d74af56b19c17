"""What stands between the servers of a run and their database, and can be cut, stalled or made deaf."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK: Final = 1 << 16


class Mode(Enum):
    """What becomes of bytes and connections."""

    PASS = "everything passes"
    CUT = "connections are ended, and new ones at once"
    STALL = "nothing passes, connections stay; new ones are taken and hear nothing"
    DEAF = "what servers say reaches the database, its answers are thrown away"


class Proxy:
    """Takes connections on `port` and passes them on to `target`, a port of this machine.

    Connections that were stalled or deaf are of no use afterwards: they are cut when the mode changes.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._taken, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End every connection, and listen no more."""
        if self._server is not None:
            self._server.close()
            self._cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def turn(self, mode: Mode) -> None:
        """Behave like this from now on."""
        broken = self._mode is not Mode.PASS
        self._mode = mode
        if mode is Mode.CUT or broken:
            self._cut()
        self._changed.set()
        self._changed = asyncio.Event()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._mode is not Mode.CUT:
                await self._join(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(HOST, self._target)
        self._writers.add(forth)
        try:
            await asyncio.gather(self._pass(reader, forth, False), self._pass(back, writer, True))
        finally:
            forth.transport.abort()
            self._writers.discard(forth)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        """Pass on one direction; raises `OSError` at its end, which ends the other."""
        while data := await reader.read(CHUNK):
            while self._mode is Mode.STALL:
                await self._changed.wait()
            if self._mode is Mode.DEAF and answers:
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
