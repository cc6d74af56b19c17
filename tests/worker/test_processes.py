"""What processes say, as the worker hears it: messages in any pieces. No processes here."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgearman.worker.child import HEAD, LENGTH, PACKET, RESULT
from txgearman.worker.processes import _Ear

LONGEST = 20 * 1024 * 1024
READ = 64 * 1024
"""Bytes that a transport reads at a time."""


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Run:
    """Notes what it hears; there is room after a packet once `room` fires."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.next_room: Deferred[None] = succeed(None)

    def heard(self, kind: bytes, content: bytes) -> None:
        self.messages.append((kind, content))

    def room(self) -> Deferred[None]:
        return self.next_room


class Piece(bytes):
    """A part of what comes, which counts the bytes that are copied to put it behind others."""

    copied = 0

    def __radd__(self, other: bytes) -> bytes:
        Piece.copied += len(other) + len(self)
        return bytes(other) + bytes(self)


def message(kind: bytes, content: bytes, run: int = 1) -> bytes:
    body = HEAD.pack(kind, run) + content
    return LENGTH.pack(len(body)) + body


class EarTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.run_ = Run()
        self.ear, self.transport = self.hear(self.run_)

    def hear(self, run: Any) -> tuple[_Ear, Transport]:
        ears: set[_Ear] = set()
        ear, transport = _Ear({1: run}, LONGEST, ears), Transport()
        ear.makeConnection(transport)
        self.assertEqual(ears, {ear})
        return ear, transport

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
            run = Run()
            ear, _transport = self.hear(run)
            for begin, end in zip([0, *places], [*places, len(data)], strict=True):
                ear.dataReceived(data[begin:end])
            self.assertEqual(run.messages, said, places)
            ear.dataReceived(message(RESULT, b"and on"))
            self.assertEqual(run.messages[-1], (RESULT, b"and on"))

    def test_what_is_of_another_run_is_dropped(self) -> None:
        self.ear.dataReceived(message(RESULT, b"old", run=7) + message(RESULT, b"new"))
        self.assertEqual(self.run_.messages, [(RESULT, b"new")])

    def test_a_large_message_is_not_copied_with_each_read(self) -> None:
        Piece.copied = 0
        content = bytes(LONGEST)
        data = message(RESULT, content) + message(RESULT, b"next")
        for begin in range(0, len(data), READ):
            self.ear.dataReceived(Piece(data[begin : begin + READ]))
        self.assertEqual(self.run_.messages, [(RESULT, content), (RESULT, b"next")])
        self.assertLessEqual(Piece.copied, len(data))

    def test_at_the_limit_and_one_past_it(self) -> None:
        self.ear.dataReceived(LENGTH.pack(HEAD.size + LONGEST))
        self.assertFalse(self.transport.aborted)
        for length in (HEAD.size + LONGEST + 1, HEAD.size - 1, 0, 2**32 - 1):
            ear, transport = self.hear(self.run_)
            ear.dataReceived(message(RESULT, b"before") + LENGTH.pack(length))
            self.assertTrue(transport.aborted, length)
        self.assertEqual(self.run_.messages, [(RESULT, b"before")] * 4)

    def test_nothing_is_heard_until_there_is_room(self) -> None:
        self.run_.next_room = Deferred()
        self.ear.dataReceived(message(PACKET, b"1") + message(PACKET, b"2") + message(RESULT, b"3")[:5])
        self.assertEqual(self.run_.messages, [(PACKET, b"1")])
        self.assertEqual(self.transport.producerState, "paused")
        # What had been read already.
        self.ear.dataReceived(message(RESULT, b"3")[5:])
        self.assertEqual(self.run_.messages, [(PACKET, b"1")])
        room, self.run_.next_room = self.run_.next_room, succeed(None)
        room.callback(None)
        self.assertEqual(self.run_.messages[1:], [(PACKET, b"2"), (RESULT, b"3")])
        self.assertEqual(self.transport.producerState, "producing")
