"""Where payloads come from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import on_reactor
from txgearman.cli.payloads import Payloads, PipedLines, from_files, lines_of


async def all_of(payloads: Payloads) -> list[bytes]:
    found = []
    while (payload := await payloads.next()) is not None:
        found.append(payload)
    return found


class FileTest(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def take(self, payloads: Payloads) -> list[bytes]:
        return self.successResultOf(Deferred.fromCoroutine(all_of(payloads)))

    def test_whole_files(self) -> None:
        payloads = from_files([self.file("a", b"one\ntwo\n"), self.file("b", b"")])
        self.assertEqual(payloads.total, 2)
        self.assertEqual(self.take(payloads), [b"one\ntwo\n", b""])

    def test_lines_of_a_file(self) -> None:
        for content, lines in [
            (b"", []),
            (b"\n", [b""]),
            (b"a", [b"a"]),
            (b"a\n\nb\r\n", [b"a", b"", b"b\r"]),
            (b"a\nb", [b"a", b"b"]),
        ]:
            with open(self.file("lines", content), "rb") as file:
                payloads = lines_of(None, file)
                self.assertEqual(payloads.total, len(lines))
                self.assertEqual(self.take(payloads), lines)

    def test_a_file_that_was_read_in_part(self) -> None:
        with open(self.file("lines", b"a\nb\nc\n"), "rb") as file:
            file.readline()
            payloads = lines_of(None, file)
            self.assertEqual((payloads.total, self.take(payloads)), (2, [b"b", b"c"]))


async def settled() -> None:
    """Leave the call from the thread: under pytest the reactor would make it again in the next test."""
    from twisted.internet import reactor

    await deferLater(cast(IReactorTime, reactor), 0)


class PipeTest(TestCase):
    async def piped(self, *chunks: bytes) -> tuple[list[bytes], int | None]:
        """The lines of a pipe into which `chunks` are written, each only when those before were read."""
        from twisted.internet import reactor

        reading, writing = os.pipe()
        try:
            with os.fdopen(writing, "wb", buffering=0) as end:
                payloads = PipedLines(reactor, reading)
                taking = Deferred.fromCoroutine(all_of(payloads))
                for chunk in chunks:
                    end.write(chunk)
            return await taking, payloads.total
        finally:
            os.close(reading)

    @on_reactor
    async def test_lines_however_they_are_cut(self) -> None:
        for chunks, lines in [
            ((), []),
            ((b"a\nb\n",), [b"a", b"b"]),
            ((b"a", b"b\nc", b"\n", b"\n", b"d"), [b"ab", b"c", b"", b"d"]),
            ((b"x\n" * 5000,), [b"x"] * 5000),
        ]:
            self.assertEqual(await self.piped(*chunks), (lines, len(lines)))
        await settled()

    @on_reactor
    async def test_each_line_comes_as_soon_as_it_is_there(self) -> None:
        from twisted.internet import reactor

        reading, writing = os.pipe()
        try:
            payloads = PipedLines(reactor, reading)
            first = Deferred.fromCoroutine(payloads.next())
            self.assertNoResult(first)
            os.write(writing, b"one\ntw")
            self.assertEqual(await first, b"one")
            self.assertIsNone(payloads.total)
            second = Deferred.fromCoroutine(payloads.next())
            os.write(writing, b"o\n")
            self.assertEqual(await second, b"two")
        finally:
            os.close(writing)
            self.assertIsNone(await payloads.next())
            os.close(reading)
        await settled()

    @on_reactor
    async def test_many_may_ask_at_once(self) -> None:
        from twisted.internet import reactor

        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as end:
            end.write(b"".join(b"%d\n" % number for number in range(100)))
        try:
            payloads = PipedLines(reactor, reading)
            taken = await gatherResults([Deferred.fromCoroutine(all_of(payloads)) for _ in range(7)])
        finally:
            os.close(reading)
        found = sorted(int(line) for lines in taken for line in lines)
        self.assertEqual(found, list(range(100)))
        await settled()

    @on_reactor
    async def test_what_cannot_be_read(self) -> None:
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as folder:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                payloads = PipedLines(reactor, descriptor)
                with self.assertRaises(IsADirectoryError):
                    await payloads.next()
                self.assertIsNone(await payloads.next())
            finally:
                os.close(descriptor)
        await settled()
