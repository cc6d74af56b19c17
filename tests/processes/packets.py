"""Gearman's packets, put together and taken apart by hand: nothing here comes from the package under test."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from struct import Struct

_header = Struct(">4sII")


class Type(IntEnum):
    """The packet types that the clients and workers of a run use."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    GRAB_JOB_ALL = 39
    GET_STATUS_UNIQUE = 41
    JOB_CANCEL = 1000
    GET_RESULT = 1005
    RESULT_RES = 1006


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
