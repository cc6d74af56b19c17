"""Gearman's packets, put together and taken apart by hand: nothing here comes from the package under test."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from struct import Struct

_header = Struct(">4sII")


class Type(IntEnum):
    """The packet types that the clients and workers of a run use."""

    CAN_DO = 1
    PRE_SLEEP = 4
    NOOP = 6
    JOB_CREATED = 8
    NO_JOB = 10
    WORK_COMPLETE = 13
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_EPOCH = 36


class Disorder(Exception):
    """The server sent what it may not."""


def request(kind: int, *fields: bytes) -> bytes:
    """A packet to a server."""
    body = b"\0".join(fields)
    return _header.pack(b"\0REQ", kind, len(body)) + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next packet from a server.

    Raises `Disorder` for what is none, and `EOFError` or `OSError` where the connection ends.
    """
    magic, kind, size = _header.unpack(await reader.readexactly(_header.size))
    if magic != b"\0RES":
        raise Disorder(f"magic {magic!r}")
    return kind, await reader.readexactly(size)
