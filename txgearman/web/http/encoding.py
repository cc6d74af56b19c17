"""Bytes of names and payloads in JSON, in paths and for people. Nothing of what they mean."""

from __future__ import annotations

import base64
import json
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

JSON_PIECE: Final = 24 * 1024
"""Bytes of a large payload that become JSON at a time, at most 144 KiB of it. A multiple of three, so that
pieces of base64 join without padding."""

LOOK_PIECE: Final = 256 * 1024
"""Bytes of a large payload that are tested for UTF-8 at a time."""

utf_8_decoder: Final = getincrementaldecoder("utf-8")


def text(data: bytes) -> str:
    """Decode bytes for people: as UTF-8, with ``\\xNN`` for other bytes."""
    return data.decode("utf-8", "backslashreplace")


_QUOTED: Final = {octet: quote(bytes((octet,)), safe="") for octet in range(256)}


def identifier(name: bytes) -> str:
    """Encode bytes for a path, percent-encoded, so that none is lost."""
    # A quarter of what `quote` takes.
    return name.decode("latin-1").translate(_QUOTED)


def payload(data: bytes) -> dict[str, str]:
    """Encode bytes for programs: UTF-8 as a string, anything else in base64."""
    try:
        return {"encoding": "utf-8", "data": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": base64.b64encode(data).decode("ascii")}


def payload_pieces(data: bytes) -> Iterator[bytes]:
    """Encode large bytes as the JSON of `payload`, in pieces.

    In one go it would take long, and up to twelve times the memory.

    Args:
        data: The bytes.

    Yields:
        The pieces. An empty one stands for work that has made no output yet.
    """
    is_text = True
    decoder = utf_8_decoder()
    view = memoryview(data)
    for start in range(0, len(data), LOOK_PIECE):
        try:
            decoder.decode(view[start : start + LOOK_PIECE], final=start + LOOK_PIECE >= len(data))
        except UnicodeDecodeError:
            is_text = False
            break
        yield b""
    yield b'{"encoding":"%b","data":"' % (b"utf-8" if is_text else b"base64")
    decoder = utf_8_decoder()
    for start in range(0, len(data), JSON_PIECE):
        part = view[start : start + JSON_PIECE]
        yield json.dumps(decoder.decode(part))[1:-1].encode("ascii") if is_text else base64.b64encode(part)
    yield b'"}'
