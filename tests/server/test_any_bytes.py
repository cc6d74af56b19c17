"""Whatever a peer sends: the server meets no error of its own, and serves the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import PREFIX, Peer, req, res
from tests.wire.effort import EFFORT
from tests.wire.streams import any_messages, cut, stream_of
from txgearman.server import Settings
from txgearman.testing import MemoryGearman

# Few names, so that random packets meet each other's jobs.
_name = st.sampled_from([b"f", b"g", b"", b"u", b"-"])
_handle = st.integers(1, 4).map(lambda number: b"H:test:%d" % number)
_number = st.sampled_from([b"0", b"1", b"-1", b"5", b"2000", b"x", b""])
_data = st.binary(max_size=5)

_sensible = st.one_of(
    st.tuples(st.sampled_from([7, 18, 21, 32, 33, 34]), _name, _name, _data),
    st.tuples(st.just(36), _name, _name, _number, _data),
    st.tuples(st.sampled_from([37, 38]), _name, _name, _name, _name, _data),
    st.tuples(st.sampled_from([1, 2, 22, 26, 41]), _name),
    st.tuples(st.just(23), _name, _number),
    st.tuples(st.sampled_from([3, 4, 9, 30, 39])),
    st.tuples(st.sampled_from([14, 15]), _handle),
    st.tuples(st.sampled_from([13, 25, 28, 29]), _handle, _data),
    st.tuples(st.just(12), _handle, _number, _number),
).map(lambda packet: req(*packet))

_line = st.sampled_from(
    ["status", "prioritystatus", "workers", "show jobs", "show unique jobs", "create function f"]
    + ["drop function f", "drop function g", "maxqueue f 1", "maxqueue f", "nonsense"]
    + [f"cancel job H:test:{number}" for number in range(1, 5)]
).map(lambda line: line.encode() + b"\n")

_said = st.tuples(st.integers(0, 2), st.lists(_sensible | _line, min_size=1, max_size=4).map(b"".join))


class AnyBytesTest(SynchronousTestCase):
    """Errors of the server come out of `MemoryGearman.turn`, so that nothing needs to be looked for."""

    def assert_serves(self, gearman: MemoryGearman) -> None:
        peer = Peer(gearman)
        gearman.connect(peer)
        self.assertEqual(peer.ask(req(16, b"x")), res(17, b"x"))
        self.assertEqual(peer.ask(b"verbose\n"), b"OK INFO\n")

    @EFFORT
    @given(st.binary(max_size=200), st.lists(st.integers(0), max_size=3))
    def test_any_bytes(self, stream: bytes, places: list[int]) -> None:
        self.say_to_one(stream, places)

    @EFFORT
    @given(any_messages, st.lists(st.integers(0), max_size=3))
    def test_any_packets_and_lines(self, messages: list[object], places: list[int]) -> None:
        self.say_to_one(stream_of(messages), places)  # type: ignore[arg-type]

    def say_to_one(self, stream: bytes, places: list[int]) -> None:
        gearman = MemoryGearman(Settings(handle_prefix=PREFIX))
        peer = Peer(gearman)
        gearman.connect(peer)
        for piece in cut(stream, places):
            peer.say(piece)
            gearman.turn()
        self.assert_serves(gearman)

    @EFFORT
    @given(st.lists(_said | st.sampled_from([(-1, b""), (-2, b"")]), max_size=30))
    def test_three_peers_that_make_sense(self, conversation: list[tuple[int, bytes]]) -> None:
        gearman = MemoryGearman(Settings(handle_prefix=PREFIX, wakeup=1))
        peers: list[Peer] = []

        def join() -> Peer:
            peer = Peer(gearman)
            gearman.connect(peer)
            # Whose first line is no command loses its connection.
            peer.ask(b"version\n")
            return peer

        peers = [join() for _ in range(3)]
        for who, what in conversation:
            if who == -1:
                gearman.turn(1.5)
            elif who == -2:
                peers.pop(0).hang_up()
                peers.append(join())
            else:
                peers[who].say(what)
                gearman.turn()
        for peer in peers:
            self.assertIsNone(peer.lost)
            peer.hang_up()
        self.assert_serves(gearman)
        # With everybody gone only background jobs are left, all of them waiting.
        for view in gearman.server.inspection.functions():
            self.assertEqual((view.running, view.workers), (0, 0))
            self.assertEqual(sum(view.waiting), view.total)
        self.assertTrue(all(view.background for view in gearman.server.inspection.jobs()))
