"""Encoding packets, and cutting a stream of bytes into packets and admin text lines.

The decoder keeps only the bytes of one unfinished packet or line. It tests every limit as soon as the
header is there, before the body is kept. It never raises for one bad packet: it yields `REFUSED` in
that packet's place, so that answers keep the order of requests; it raises `BrokenStream` where reading
on is impossible, after everything ahead of the break was yielded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final

from txgearman.errors import BadPacket, BrokenStream
from txgearman.wire.limits import HEADER_SIZE, MAX_LINE, MAX_PACKET
from txgearman.wire.packets import BY_NUMBER, PACKETS, REQUEST, RESPONSE, TEXT, name_of

REFUSED: Final = -1
"""Stands for a packet's number where the packet is bad: its one field is the `BadPacket`."""

_header = Struct(">4sII")
_unpack_header = _header.unpack_from
_pack_header = _header.pack
_LARGEST_BODY: Final = 0xFFFFFFFF

# What the decoder needs of the table, by number: how often to split the body (-1: it has no fields),
# and whether the last field must be free of NULs.
_SPLITS: Final = (-1, *(len(packet.fields) - 1 for packet in PACKETS))
_TEXT_TAIL: Final = (False, *(bool(packet.fields) and not packet.binary for packet in PACKETS))
_TYPES: Final = len(_SPLITS)


def frame(magic: bytes, number: int, body: bytes) -> bytes:
    """A packet around a `body` whose fields are already joined. Checks nothing: for the hot path."""
    return _pack_header(magic, number, len(body)) + body


def encode(magic: bytes, number: int, fields: Sequence[bytes] = ()) -> bytes:
    """A whole packet, checked against the table.

    `magic` is `REQUEST` or `RESPONSE`, `number` the packet's type, `fields` its fields as bytes.
    Raises `ValueError` for an unknown type, for the wrong number of fields, for a NUL in a field that
    cannot hold one, and for a body too large for the header.
    """
    packet = BY_NUMBER.get(number)
    if packet is None:
        raise ValueError(f"there is no packet type {number}")
    if len(fields) != len(packet.fields):
        raise ValueError(f"{packet.name} has {len(packet.fields)} fields, not {len(fields)}")
    for name, value in zip(packet.fields[:-1] if packet.binary else packet.fields, fields, strict=False):
        if b"\0" in value:
            raise ValueError(f"the {name} of {packet.name} must not contain NUL: {value!r}")
    body = b"\0".join(fields)
    if len(body) > _LARGEST_BODY:
        raise ValueError(f"a packet's body cannot exceed {_LARGEST_BODY} bytes, this has {len(body)}")
    return frame(magic, number, body)


class Decoder:
    """Cuts what one peer sends into packets and text lines.

    `magic` is what the peer's packets begin with; `max_packet` the largest body in bytes. With
    `text`, a first byte other than NUL begins an admin text line; without it, that breaks the stream.
    """

    __slots__ = ("_kept", "_magic", "_max_packet", "_text", "_wanted")

    def __init__(self, magic: bytes = REQUEST, max_packet: int = MAX_PACKET, *, text: bool = True) -> None:
        self._magic = magic
        self._max_packet = max_packet
        self._text = text
        self._kept = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, list[Any]]]:  # noqa: PLR0912 - a call per packet costs a tenth
        """What `data` completes: pairs of packet number and list of fields.

        Beside the numbers of the table there are `TEXT`, with the line (without its line end) as the
        one field, and `REFUSED`, with a `BadPacket`. Exhaust the iterator before the next call, or
        never call again. Raises `BrokenStream`.
        """
        kept = self._kept
        if kept:
            kept += data
            if len(kept) < self._wanted:
                return
            data = bytes(kept)
            self._kept = bytearray()
        start = 0
        end = len(data)
        wanted = 0
        while start < end:
            if data[start]:
                line = self._line(data, start)
                if line is None:
                    wanted = end - start + 1
                    break
                yield TEXT, [line.rstrip(b"\n").removesuffix(b"\r")]
                start += len(line)
                continue
            body = start + HEADER_SIZE
            if body > end:
                wanted = HEADER_SIZE
                break
            magic, number, size = _unpack_header(data, start)
            if size > self._max_packet or magic != self._magic:
                self._check_header(magic, number, size)
            stop = body + size
            if stop > end:
                wanted = stop - start
                break
            if magic != self._magic or number >= _TYPES or not number:
                yield _refuse_header(magic, number, self._magic)
            else:
                splits = _SPLITS[number]
                if splits < 0:
                    # gearmand too ignores a payload where the type has no fields.
                    yield number, []
                else:
                    fields = data[body:stop].split(b"\0", splits)
                    if len(fields) <= splits or (_TEXT_TAIL[number] and b"\0" in fields[splits]):
                        yield _mend(number, fields)
                    else:
                        yield number, fields
            start = stop
        if start < end:
            self._kept += memoryview(data)[start:]
            self._wanted = wanted

    def _line(self, data: bytes, start: int) -> bytes | None:
        """The text line at `start` with its line end, or None while that has not come."""
        if not self._text:
            raise BrokenStream(b"", "the peer does not speak the Gearman protocol")
        line_end = data.find(b"\n", start, start + MAX_LINE + 2)
        if line_end >= 0:
            return data[start : line_end + 1]
        if len(data) - start > MAX_LINE + 1:
            raise BrokenStream(b"", f"a text line has more than {MAX_LINE} bytes")
        return None

    def _check_header(self, magic: bytes, number: int, size: int) -> None:
        """Raise `BrokenStream` where a header forbids to wait for its body."""
        if magic not in (REQUEST, RESPONSE):
            raise BrokenStream(b"", f"bad magic {magic!r}")
        if size > self._max_packet:
            raise BrokenStream(
                b"ARGUMENT_TOO_LARGE",
                f"{name_of(number)} of {size} bytes exceeds the limit of {self._max_packet}",
            )


def _refuse_header(magic: bytes, number: int, expected: bytes) -> tuple[int, list[Any]]:
    """What stands in the place of a packet that has a body, but no type that could tell its fields."""
    if magic != expected:
        side = "Request" if expected == REQUEST else "Response"
        return REFUSED, [BadPacket(b"INVALID_MAGIC", f"{side} magic expected")]
    return REFUSED, [BadPacket(b"INVALID_COMMAND", f"Unknown packet type {number}")]


def _mend(number: int, fields: list[bytes]) -> tuple[int, list[Any]]:
    """The packet, if the only fault is a NUL behind its last field; else the refusal in its place."""
    wanted = _SPLITS[number] + 1
    if len(fields) < wanted:
        # gearmand reads on behind the packet for the missing NULs, and so loses its place in the stream.
        text = f"{name_of(number)} needs {wanted} fields, this has {len(fields)}"
        return REFUSED, [BadPacket(b"INVALID_PACKET", text)]
    last = fields[-1].removesuffix(b"\0")
    if b"\0" in last:
        return REFUSED, [BadPacket(b"INVALID_PACKET", f"{name_of(number)} has a NUL in its last field")]
    return number, [*fields[:-1], last]
