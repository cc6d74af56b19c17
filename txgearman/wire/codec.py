"""Encoding packets, and cutting a stream of bytes into packets and admin text lines.

The decoder keeps only the bytes of one unfinished packet or line. It tests every limit as soon as the
header is there, before the body is kept. It never raises for one bad packet: it yields `REFUSED` in
that packet's place, so that answers keep the order of requests; it raises `BrokenStream` where reading
on is impossible, after everything ahead of the break was yielded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Final

from txgearman.errors import BadPacket, BrokenStream
from txgearman.wire.limits import HEADER_SIZE, MAX_LINE, MAX_PACKET
from txgearman.wire.packets import BY_NUMBER, PACKETS, REQUEST, RESPONSE, TEXT, name_of

TOO_LARGE: Final = b"ARGUMENT_TOO_LARGE"
"""The code of the `BrokenStream` for a packet that exceeds the limit."""

REFUSED: Final = -1
"""Stands for a packet's number where the packet is bad: its one field is the `BadPacket`."""

UNFINISHED: Final = -2
"""Stands for a packet's number where only a part of it has come: its one field is how many bytes those are,
and 0 once the rest has come."""

_header = Struct(">4sII")
_unpack_header = _header.unpack_from
pack_header = _header.pack
"""A packet's header, of its magic, its number and the size of its body in bytes. `frame` without the call."""

# Not Final, which a compiler would write into the code: a test puts a smaller one here.
_LARGEST_BODY = 0xFFFFFFFF

LARGE: Final = 16 * 1024
"""Bytes of a body above which a packet is taken apart with more calls and fewer copies."""

SMALL_PIECE: Final = 1024
"""Bytes below which pieces of a large packet are put together as they come."""

_CHECKED: Final = -1

# How often to split the body, by number, for the types whose last field may hold any bytes, and for those
# without fields; the other types want a closer look.
_SPLITS: Final = (
    _CHECKED,
    *(
        len(packet.fields) - 1
        if packet.binary and len(packet.fields) > 1
        else _CHECKED
        if packet.fields
        else 0
        for packet in PACKETS
    ),
)
_TYPES: Final = len(_SPLITS)


def frame(magic: bytes, number: int, body: bytes) -> bytes:
    """Put a header ahead of a body. Checks nothing: for the hot path.

    Args:
        magic: `REQUEST` or `RESPONSE`.
        number: The packet's type.
        body: The fields, joined already.

    Returns:
        The packet.
    """
    return pack_header(magic, number, len(body)) + body


def encode(magic: bytes, number: int, fields: Sequence[bytes] = ()) -> bytes:
    """A whole packet, checked against the table.

    Args:
        magic: `REQUEST` or `RESPONSE`.
        number: The packet's type.
        fields: Its fields.

    Returns:
        The packet.

    Raises:
        ValueError: The type is unknown, the number of fields is wrong, a field holds a NUL and cannot, or the
            body is too large for the header.
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


_TLS_HANDSHAKE: Final = b"\x16\x03"
"""What every TLS connection begins with (RFC 8446, 5.1). Taken for a line, whose end may never come, it would
leave its sender waiting for ever."""


class Decoder:
    """Cuts what one peer sends into packets and text lines.

    Args:
        magic: What the peer's packets begin with.
        max_packet: The largest body of a packet in bytes.
        text: Whether a first byte other than NUL begins an admin text line. Otherwise it breaks the stream.
        tell_from: From how many bytes on an unfinished packet is told of by `UNFINISHED`, `LARGE` at least.
    """

    __slots__ = ("_have", "_kept", "_magic", "_max_packet", "_pieces", "_tell_from", "_text", "_wanted")

    def __init__(
        self,
        magic: bytes = REQUEST,
        max_packet: int = MAX_PACKET,
        *,
        text: bool = True,
        tell_from: int = sys.maxsize,
    ) -> None:
        self._magic = magic
        self._max_packet = max_packet
        self._text = text
        self._tell_from = tell_from
        # An unfinished packet, or what may become one: in one piece, or if it is large, in those that came.
        self._kept = bytearray()
        self._pieces: list[bytes | bytearray] = []
        self._have = 0
        self._wanted = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, list[Any]]]:  # noqa: PLR0912 (no calls, for speed)
        """Cut the next bytes. Exhaust the iterator before the next call, or never call again.

        Beside the numbers of the table there are `TEXT`, with the line (without its line end) as the one
        field, `REFUSED`, with a `BadPacket`, and `UNFINISHED`.

        Args:
            data: The bytes, as they came.

        Yields:
            Each packet that is complete: its number and the list of its fields.

        Raises:
            BrokenStream: What follows cannot be read, or must not be awaited.
        """
        kept = self._kept
        if kept:
            kept += data
            if len(kept) < self._wanted:
                return
            self._kept = bytearray()
            data = bytes(kept)
        elif self._pieces:
            missing = self._wanted - self._have
            yield from self._more(data, missing)
            data = data[missing:]
        start = 0
        end = len(data)
        wanted = 0
        expected = self._magic
        max_packet = self._max_packet
        while start < end:
            body = start + HEADER_SIZE
            if body > end or data[start]:
                line = self._line(data, start) if data[start] else None
                if line is None:
                    wanted = end - start + 1 if data[start] else HEADER_SIZE
                    break
                yield TEXT, [_without_end(line)]
                start += len(line)
                continue
            magic, number, size = _unpack_header(data, start)
            if magic != expected or size > max_packet:
                self._check_header(magic, number, size)
                splits = _CHECKED
            else:
                splits = _SPLITS[number] if number < _TYPES else _CHECKED
            stop = body + size
            if stop > end:
                wanted = stop - start
                break
            # The most frequent first: what each packet is asked here is a twentieth of a small job.
            if splits > 0 and size <= LARGE:
                fields = data[body:stop].split(b"\0", splits)
                yield (number, fields) if len(fields) > splits else _short(number, fields)
            elif splits == 0:
                # gearmand too ignores a payload where the type has no fields.
                yield number, []
            else:
                yield self._uncommon(magic, number, data, body, stop)
            start = stop
        if start < end:
            yield from self._keep(data[start:], wanted)

    @property
    def kept(self) -> int:
        """Bytes of an unfinished packet or line."""
        return self._have if self._pieces else len(self._kept)

    def forget(self) -> None:
        """Let go of what has come of an unfinished packet. The decoder must not be used any more."""
        self._kept.clear()
        self._pieces.clear()

    def _keep(self, data: bytes, wanted: int) -> Sequence[tuple[int, list[Any]]]:
        """Keep the beginning of what will have so many bytes, as far as that is known."""
        self._wanted = wanted
        if wanted <= LARGE or len(data) < HEADER_SIZE:
            self._kept += data
            return ()
        self._have = 0
        return self._add_piece(data)

    def _add_piece(self, data: bytes) -> Sequence[tuple[int, list[Any]]]:
        """Keep one more piece of a large packet; what there is to tell of it. Small pieces are put together,
        as each takes some fifty bytes beside its own."""
        pieces = self._pieces
        self._have += len(data)
        if len(data) >= SMALL_PIECE:
            pieces.append(data)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))
        return ((UNFINISHED, [self._have]),) if self._have >= self._tell_from else ()

    def _more(self, data: bytes, missing: int) -> Iterator[tuple[int, list[Any]]]:
        """More of a large packet, of which so many bytes are missing."""
        if len(data) < missing:
            yield from self._add_piece(data)
            return
        if self._wanted >= self._tell_from:
            yield UNFINISHED, [0]
        # No name here may refer to its bytes: who pauses after the packet would keep them a second time.
        yield self._whole(data, missing)

    def _whole(self, data: bytes, missing: int) -> tuple[int, list[Any]]:
        """The large packet of which so many bytes were missing."""
        pieces, self._pieces = self._pieces, []
        first, *more = pieces
        magic, number, _size = _unpack_header(first, 0)
        return self._uncommon(
            magic, number, first, HEADER_SIZE, len(first), *more, memoryview(data)[:missing]
        )

    def _line(self, data: bytes, start: int) -> bytes | None:
        """The text line at `start` with its line end, or None while that has not come."""
        if not self._text:
            raise BrokenStream(b"", "the peer does not speak the Gearman protocol")
        if data.startswith(_TLS_HANDSHAKE, start):
            raise BrokenStream(b"", "the peer speaks TLS, which is not spoken here")
        line_end = data.find(b"\n", start, start + MAX_LINE + 2)
        line = data[start:] if line_end < 0 else data[start : line_end + 1]
        if len(_without_end(line)) > MAX_LINE:
            raise BrokenStream(b"", f"a text line has more than {MAX_LINE} bytes")
        return None if line_end < 0 else line

    def _check_header(self, magic: bytes, number: int, size: int) -> None:
        """Raise `BrokenStream` where a header forbids to wait for its body."""
        if magic not in (REQUEST, RESPONSE):
            raise BrokenStream(b"", f"bad magic {magic!r}")
        if size > self._max_packet:
            raise BrokenStream(
                TOO_LARGE,
                f"{name_of(number)} of {size} bytes exceeds the limit of {self._max_packet}",
            )

    def _uncommon(
        self,
        magic: bytes,
        number: int,
        first: bytes | bytearray,
        start: int,
        stop: int,
        *more: bytes | bytearray | memoryview,
    ) -> tuple[int, list[Any]]:
        """The packet whose body begins with the bytes of `first` from `start` to `stop` and goes on with
        `more`; for those of types that want a closer look, and for large ones.

        The data of these is copied once, where the way of small packets copies it two or three times;
        that is a third of the time a job with 100 KiB takes.
        """
        splits = _SPLITS[number] if number < _TYPES and magic == self._magic else _CHECKED
        if splits == _CHECKED:
            return self._checked(magic, number, b"".join((memoryview(first)[start:stop], *more)))
        if not splits:
            return number, []
        fields: list[bytes] = []
        while len(fields) < splits:
            end = first.find(0, start, stop)
            if end < 0:
                body = b"".join((memoryview(first)[start:stop], *more))
                if not more:
                    return _short(number, [*fields, body])
                # Only of a peer that sends the beginning of its packets by itself.
                first, start, stop, more = body, 0, len(body), ()
                continue
            fields.append(bytes(first[start:end]))
            start = end + 1
        fields.append(b"".join((memoryview(first)[start:stop], *more)))
        return number, fields

    def _checked(self, magic: bytes, number: int, body: bytes) -> tuple[int, list[Any]]:
        """The packet, or the refusal in its place, where `feed` does not do with one look at the body."""
        if magic != self._magic:
            side = "Request" if self._magic == REQUEST else "Response"
            return _refuse(b"INVALID_MAGIC", f"{side} magic expected")
        packet = BY_NUMBER.get(number)
        if packet is None:
            return _refuse(b"INVALID_COMMAND", f"Unknown packet type {number}")
        fields = body.split(b"\0", len(packet.fields) - 1) if len(packet.fields) > 1 else [body]
        if len(fields) < len(packet.fields):
            return _short(number, fields)
        if not packet.binary and b"\0" in fields[-1]:
            # Senders that end the last field with a NUL too mean the name without it.
            fields[-1] = fields[-1].removesuffix(b"\0")
            if b"\0" in fields[-1]:
                return _refuse(b"INVALID_PACKET", f"{packet.name} has a NUL in its last field")
        return number, fields


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _short(number: int, fields: list[bytes]) -> tuple[int, list[Any]]:
    """A packet with too few fields: with what its type says for a missing last one, or its refusal.

    gearmand reads on after such a packet for the missing NULs, and so loses its place in the stream.
    """
    packet = BY_NUMBER[number]
    wanted = len(packet.fields)
    if packet.missing is not None and len(fields) == wanted - 1:
        return number, [*fields, packet.missing]
    return _refuse(b"INVALID_PACKET", f"{packet.name} needs {wanted} fields, this has {len(fields)}")


def _refuse(code: bytes, text: str) -> tuple[int, list[Any]]:
    return REFUSED, [BadPacket(code, text)]
