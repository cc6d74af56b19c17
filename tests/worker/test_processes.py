"""Messages of worker processes, as the worker receives them in any pieces. No processes here."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgearman.worker.child import LENGTH_PREFIX, MESSAGE_HEADER, PACKET, RESULT
from txgearman.worker.processes import _ChildProtocol

LONGEST = 20 * 1024 * 1024
READ = 64 * 1024
"""Bytes that a transport reads at a time."""


class RecordedJob:
    """Records its messages. After a packet it is writable once `next_writable` fires."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.next_writable: Deferred[None] = succeed(None)

    def message_received(self, kind: bytes, content: bytes) -> None:
        self.messages.append((kind, content))

    def writable(self) -> Deferred[None]:
        return self.next_writable


class Piece(bytes):
    """A part of what comes, which counts the bytes that are copied to put it behind others."""

    copied = 0

    def __radd__(self, other: bytes) -> bytes:
        Piece.copied += len(other) + len(self)
        return bytes(other) + bytes(self)


def message(kind: bytes, content: bytes, number: int = 1) -> bytes:
    body = MESSAGE_HEADER.pack(kind, number) + content
    return LENGTH_PREFIX.pack(len(body)) + body


class ChildProtocolTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.job = RecordedJob()
        self.protocol, self.transport = self.make_protocol(self.job)

    def make_protocol(self, job: Any) -> tuple[_ChildProtocol, StringTransport]:
        protocols: set[_ChildProtocol] = set()
        protocol, transport = _ChildProtocol({1: job}, LONGEST, protocols), StringTransport()
        protocol.makeConnection(transport)
        self.assertEqual(protocols, {protocol})
        return protocol, transport

    def test_in_any_pieces(self) -> None:
        said = [(PACKET, b""), (RESULT, b"x" * 300), (PACKET, b"\0" * 7), (RESULT, bytes(range(256)))]
        data = b"".join(message(*each) for each in said)
        chance = random.Random(1)
        cuts = [
            range(1, len(data)),
            range(0),
            *(sorted(chance.sample(range(len(data)), 9)) for _ in range(200)),
        ]
        for places in cuts:
            job = RecordedJob()
            protocol, _transport = self.make_protocol(job)
            for begin, end in zip([0, *places], [*places, len(data)], strict=True):
                protocol.dataReceived(data[begin:end])
            self.assertEqual(job.messages, said, places)
            protocol.dataReceived(message(RESULT, b"and on"))
            self.assertEqual(job.messages[-1], (RESULT, b"and on"))

    def test_a_message_of_another_job_is_dropped(self) -> None:
        self.protocol.dataReceived(message(RESULT, b"old", number=7) + message(RESULT, b"new"))
        self.assertEqual(self.job.messages, [(RESULT, b"new")])

    def test_a_large_message_is_not_copied_with_each_read(self) -> None:
        Piece.copied = 0
        content = bytes(LONGEST)
        data = message(RESULT, content) + message(RESULT, b"next")
        for begin in range(0, len(data), READ):
            self.protocol.dataReceived(Piece(data[begin : begin + READ]))
        self.assertEqual(self.job.messages, [(RESULT, content), (RESULT, b"next")])
        self.assertLessEqual(Piece.copied, len(data))

    def test_at_the_limit_and_one_past_it(self) -> None:
        self.protocol.dataReceived(LENGTH_PREFIX.pack(MESSAGE_HEADER.size + LONGEST))
        self.assertFalse(self.transport.disconnected)
        for length in (MESSAGE_HEADER.size + LONGEST + 1, MESSAGE_HEADER.size - 1, 0, 2**32 - 1):
            protocol, transport = self.make_protocol(self.job)
            protocol.dataReceived(message(RESULT, b"before") + LENGTH_PREFIX.pack(length))
            self.assertTrue(transport.disconnected, length)
        self.assertEqual(self.job.messages, [(RESULT, b"before")] * 4)

    def test_nothing_is_handled_until_the_connection_is_writable(self) -> None:
        self.job.next_writable = Deferred()
        self.protocol.dataReceived(message(PACKET, b"1") + message(PACKET, b"2") + message(RESULT, b"3")[:5])
        self.assertEqual(self.job.messages, [(PACKET, b"1")])
        self.assertEqual(self.transport.producerState, "paused")
        # What had been read already.
        self.protocol.dataReceived(message(RESULT, b"3")[5:])
        self.assertEqual(self.job.messages, [(PACKET, b"1")])
        writable, self.job.next_writable = self.job.next_writable, succeed(None)
        writable.callback(None)
        self.assertEqual(self.job.messages[1:], [(PACKET, b"2"), (RESULT, b"3")])
        self.assertEqual(self.transport.producerState, "producing")
