"""Random histories of peers with all sets of options: nobody gets what it did not ask for.

The packets of extensions that a server sends are JOB_CANCEL (a job was cancelled, timed out or abandoned, its
worker was silent or is denied), JOB_ASSIGN_EXTENDED (a grab) and RESULT_RES (an answer, and the end of a
wait). The histories make all of them, in functions that have every feature at once, and leave nothing behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations
from random import Random
from struct import unpack_from

from tests.broker.bench import leftovers
from tests.server.peers import Peer, ServerTestCase, req
from txgearman.server.config.function_options import FunctionSettings
from txgearman.wire.options import EXCEPTIONS, EXTENSIONS
from txgearman.wire.packets import BY_NUMBER, JOB_ASSIGN_EXTENDED, JOB_CANCEL, RESULT_RES, Role

ALL_OPTIONS = sorted({*EXTENSIONS, EXCEPTIONS})

SETS = [*chain.from_iterable(combinations(ALL_OPTIONS, count) for count in range(len(ALL_OPTIONS) + 1))]
"""All sets of options."""

STEPS = 400
"""Of one history of 8 peers. All sets take 8 histories, which is a second."""

FUNCTIONS = {
    "f": FunctionSettings(
        keep_results=60.0,
        heartbeat=2.0,
        time_limit=5.0,
        attempts=3,
        backoff=0.5,
        retry_online=True,
        max_running_per_key=2,
        unique_for=3.0,
        expires=20.0,
    ),
    "g": FunctionSettings(max_running=3, pause_after=5, start_rate=20.0, heartbeat=1.0, keep_results=1.0),
    "h": FunctionSettings(),
}


def packets_of(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The packets of a stream from the server, as their numbers and bodies."""
    at = 0
    while at < len(stream):
        magic, number, size = unpack_from(">4sII", stream, at)
        assert magic == b"\0RES", stream[at : at + 40]
        yield number, stream[at + 12 : at + 12 + size]
        at += 12 + size


class History:
    """One history on a server. `told` counts the packets of extensions by number."""

    def __init__(self, case: ServerTestCase, random: Random, sets: list[tuple[bytes, ...]]) -> None:
        self.case = case
        self.random = random
        self.gearman = case.serve(functions=FUNCTIONS)
        self.told: Counter[int] = Counter()
        self.peers: dict[Peer, frozenset[bytes]] = {}
        for options in sets:
            self.add(options)
        self.admin = case.peer(self.gearman)

    def add(self, options: tuple[bytes, ...]) -> None:
        peer = self.case.peer(self.gearman)
        self.peers[peer] = frozenset(options)
        peer.ask(*[req(26, option) for option in options], *[req(1, name.encode()) for name in FUNCTIONS])

    @property
    def handle(self) -> bytes:
        """Of a job that is not old, if there are jobs."""
        last = self.gearman.server.inspection.last_number
        return b"H:test:%d" % max(1, last - self.random.randrange(12))

    def own_handle(self, peer: Peer) -> bytes:
        """Of a job that the peer runs, if there is one."""
        jobs = [
            job
            for connection in self.gearman.server.connections.values()
            if connection.transport._peer is peer.transport
            for job in connection.worker.jobs
        ]
        return self.random.choice(jobs) if jobs else self.handle

    def step(self) -> None:
        random = self.random
        peer = random.choice(list(self.peers))
        function, unique = (
            random.choice((b"f", b"f", b"g", b"h")),
            random.choice((b"", b"-", b"k:1", b"k:2", b"u")),
        )
        job = self.own_handle(peer)
        attributes = random.choice(
            (b"", b"background=1", b"attempts=2\nunique_for=2", b"background=1\nexpires=1")
        )
        what = random.choice(
            (
                req(random.choice((7, 18, 21, 32, 33, 34)), function, unique, b"data"),
                req(38, function, unique, b"r", b"", b"data"),
                req(1007, function, unique, attributes, b"data"),
                *[req(random.choice((9, 30, 39, 39)))] * 4,
                req(4),
                req(28, job, b"part"),
                req(12, job, b"1", b"2"),
                *[req(13, job, b"end")] * 2,
                req(14, job),
                req(25, job, b"raised"),
                req(1002, job, random.choice((b"", b"0", b"700")), random.choice((b"0", b"1")), b"later"),
                req(1003, job, b"never"),
                req(1004, job),
                req(1008, job, b"failed"),
                *[req(1005, self.handle, random.choice((b"0", b"1", b"1")))] * 2,
                req(15, self.handle),
            )
        )
        rare = random.random()
        if rare < 0.08:
            self.gearman.turn(random.choice((0.1, 0.7, 2.5)))
        elif rare < 0.12:
            self.admin.ask(b"cancel job %b%b\n" % (self.handle, random.choice((b"", b"", b" force"))))
        elif rare < 0.13:
            self.gearman.server.administration.resume_function(b"g")
        elif rare < 0.15:
            peer.hang_up()
        elif not peer.lost:
            peer.say(what)
        for each in [each for each in self.peers if each.lost]:
            self.check(each)
            self.add(tuple(self.peers.pop(each)))

    def check(self, peer: Peer) -> None:
        """All that the peer was told is of the protocol, or of an option that it asked for."""
        for number, body in packets_of(peer.heard()):
            packet = BY_NUMBER[number]
            assert Role.SERVER in packet.senders, packet.name
            assert packet.option is None or packet.option in self.peers[peer], (packet.name, self.peers[peer])
            assert body.count(b"\0") >= len(packet.fields) - 1, (packet.name, body)
            if packet.option is not None:
                self.told[number] += 1

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.gearman.turn(30.0)
        for peer in self.peers:
            self.check(peer)
            peer.hang_up()
        for handle, _ in list(self.gearman.server.broker.life.handles):
            self.admin.ask(b"cancel job %b\n" % handle)
        self.gearman.turn(1.0)
        # Each slot, deadline, part of a result and wait was given up once, however its job ended.
        self.case.assertEqual(leftovers(self.gearman.server.broker), {})
        self.case.assertEqual(len(self.gearman.server.results), 0)


class RandomTests(ServerTestCase):
    def test_nobody_gets_what_it_did_not_ask_for(self) -> None:
        random = Random(20)
        told: Counter[int] = Counter()
        sets = SETS[:]
        random.shuffle(sets)
        for first in range(0, len(sets), 8):
            history = History(self, random, sets[first : first + 8])
            history.run()
            told += history.told
        self.assertEqual(told.keys(), {JOB_CANCEL, JOB_ASSIGN_EXTENDED, RESULT_RES})
        self.assertGreater(min(told.values()), 10, told)
