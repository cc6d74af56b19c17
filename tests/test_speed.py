"""A guard against gross loss of speed: the server's own work, in steps of a calibration loop.

Both run in this process on the same processor, one after the other, and only the ratio counts, so that
a slow or busy machine does not fail the test. The limits are three times what was measured when they
were set: they are to catch a walk over a queue, not a call more. `make bench` measures for real.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgearman.server import GearmanServerFactory, GearmanServerProtocol, Settings
from txgearman.wire.codec import encode
from txgearman.wire.packets import CAN_DO, GRAB_JOB_UNIQ, REQUEST, SUBMIT_JOB_BG, WORK_COMPLETE

JOBS: Final = 4_000
READ: Final = 500
"""Packets that come in one read."""

DEEP: Final = 40_000
"""Jobs that wait beside the measured ones in the deep queue."""

SUBMIT_STEPS: Final = 3 * 11.0
"""Steps that a submit may take, its encoding by the test included."""

DRAIN_STEPS: Final = 3 * 22.0
"""Steps that a job's way to its end may take, the same."""

DEEP_FACTOR: Final = 3.0
"""How much slower a job may be in a deep queue than in a shallow one."""


def calibrate() -> float:
    """Processor seconds of one step: some of everything that a packet costs in plain Python."""

    def loop() -> None:
        kept: dict[bytes, tuple[bytes, ...]] = {}
        for number in range(JOBS):
            name = b"H:test:%d" % number
            kept[name] = (name, *(b"one\0two\0%d" % number).split(b"\0"))

    return best(loop) / JOBS


def best(run: Callable[[], None]) -> float:
    """The least processor seconds of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


class Server:
    """A server whose one connection is fed by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.factory = GearmanServerFactory(self.clock, Settings(handle_prefix="H:test"))
        self.connection = self.factory.buildProtocol(None)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)
        self.numbers = iter(range(1, 10**9))

    def read(self, connection: GearmanServerProtocol, data: bytes) -> None:
        connection.dataReceived(data)
        self.clock.advance(0)
        self.transport.clear()

    def submit(self, count: int, unique: bool) -> None:
        packets = [
            encode(
                REQUEST,
                SUBMIT_JOB_BG,
                [b"f", b"unique-%d" % next(self.numbers) if unique else b"", b"x" * 64],
            )
            for _ in range(count)
        ]
        for start in range(0, count, READ):
            self.read(self.connection, b"".join(packets[start : start + READ]))

    def drain(self, count: int, first: int) -> None:
        self.read(self.connection, encode(REQUEST, CAN_DO, [b"f"]))
        grab = encode(REQUEST, GRAB_JOB_UNIQ)
        self.read(self.connection, grab)
        for number in range(first, first + count):
            done = encode(REQUEST, WORK_COMPLETE, [b"H:test:%d" % number, b""])
            self.read(self.connection, done + grab)


class SpeedTest(SynchronousTestCase):
    def setUp(self) -> None:
        # As under twistd, which tunes it so that it hardly ever runs.
        gc.disable()
        self.addCleanup(gc.enable)

    def measure(self, unique: bool = False, depth: int = 0) -> tuple[float, float]:
        """Steps of the calibration that one submit and one job's way to its end take."""
        step = calibrate()
        submits, drains = [], []
        for _ in range(3):
            server = Server()
            server.submit(depth, unique)
            begin = time.process_time()
            server.submit(JOBS, unique)
            middle = time.process_time()
            server.drain(JOBS, 1)
            submits.append(middle - begin)
            drains.append(time.process_time() - middle)
            self.assertEqual(server.factory.broker.total, depth)
        return min(submits) / JOBS / step, min(drains) / JOBS / step

    def test_against_plain_python(self) -> None:
        for unique in (False, True):
            submit, drain = self.measure(unique)
            self.assertLess(submit, SUBMIT_STEPS, f"submits, unique: {unique}")
            self.assertLess(drain, DRAIN_STEPS, f"drain, unique: {unique}")

    def test_a_deep_queue_costs_no_more(self) -> None:
        shallow = self.measure(unique=True)
        deep = self.measure(unique=True, depth=DEEP)
        for name, here, there in zip(("submits", "drain"), deep, shallow, strict=True):
            self.assertLess(here, there * DEEP_FACTOR, name)
