"""Feeding a decoder in pieces, and random streams to feed it with. No tests here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from txgearman.errors import BadPacket, BrokenStream
from txgearman.wire.codec import Decoder, encode
from txgearman.wire.packets import PACKETS, REQUEST, TEXT, PacketType

Packet = tuple[int, list[Any]]


class Outcome(NamedTuple):
    """What a stream came to: its packets, and how it broke, if it did."""

    packets: list[Packet]
    broken: BrokenStream | None

    def comparable(self) -> tuple[list[Any], Any]:
        """The same as plain values: errors have no equality."""
        return [(number, [_plain(field) for field in fields]) for number, fields in self.packets], _plain(
            self.broken
        )


def _plain(value: Any) -> Any:
    if isinstance(value, BadPacket | BrokenStream):
        return type(value), value.code, value.text
    return value


def run(decoder: Decoder, pieces: Iterable[bytes]) -> Outcome:
    """Feed `pieces` until they end or the stream breaks."""
    packets: list[Packet] = []
    try:
        for piece in pieces:
            packets.extend(decoder.feed(piece))
    except BrokenStream as error:
        return Outcome(packets, error)
    return Outcome(packets, None)


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [stream[index : index + 1] for index in range(len(stream))]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """`stream` in pieces, cut at `places` (taken modulo its length), empty pieces among them."""
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


def whole_bytes_and_halves(stream: bytes) -> list[list[bytes]]:
    """Three ways to cut a stream that every example test tries."""
    return [[stream], byte_by_byte(stream), cut(stream, [len(stream) // 2])]


_no_nul = st.binary(max_size=12).map(lambda value: value.replace(b"\0", b""))
_any_bytes = st.binary(max_size=40)


def packets_of(packet: PacketType) -> st.SearchStrategy[Packet]:
    """Random packets of one type."""
    last = _any_bytes if packet.binary else _no_nul
    fields = [_no_nul] * (len(packet.fields) - 1) + [last] * bool(packet.fields)
    return st.tuples(*fields).map(lambda values: (packet.number, list(values)))


any_packet = st.sampled_from(PACKETS).flatmap(packets_of)

any_line = (
    st.binary(max_size=30)
    .map(lambda line: line.replace(b"\n", b"").lstrip(b"\0").rstrip(b"\r"))
    .filter(lambda line: not line.startswith(b"\x16\x03"))  # which is TLS
    .map(lambda line: (TEXT, [line]))
)

any_messages = st.lists(st.tuples(any_packet | any_line, st.booleans()), max_size=8)
"""Packets and lines, each with whether a line ends with CR LF."""


def stream_of(messages: Sequence[tuple[Packet, bool]], magic: bytes = REQUEST) -> bytes:
    """The bytes that carry `messages`."""
    return b"".join(
        fields[0] + (b"\r\n" if crlf else b"\n") if number == TEXT else encode(magic, number, fields)
        for (number, fields), crlf in messages
    )
