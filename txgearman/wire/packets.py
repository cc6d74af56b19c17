"""The table of packet types: the one place that knows what each packet carries.

Source: the protocol document of gearmand (docs/source/protocol) and gearmand's observed behaviour
where the two differ. A body is its fields joined by NUL; every field but the last ends at its NUL, so
only the last may hold NULs, and it may only where `PacketType.binary` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import Final

from txgearman.wire.options import CANCEL, HEARTBEAT, OUTCOMES, RESULTS, SUBMIT_EXTENDED

REQUEST: Final = b"\0REQ"
"""Magic of packets to a server."""

RESPONSE: Final = b"\0RES"
"""Magic of packets from a server."""

TEXT: Final = 0
"""Stands for an admin text line where a packet's number is expected; no packet has this number."""


class Role(Flag):
    """Who sends a packet."""

    CLIENT = auto()
    WORKER = auto()
    SERVER = auto()


@dataclass(frozen=True, slots=True)
class PacketType:
    """One row of the table.

    Attributes:
        number: The type on the wire.
        name: Its name in the protocol document.
        senders: Who sends it.
        fields: The names of what the body holds, in order.
        binary: Whether the last field may hold any bytes.
        missing: What the last field counts as where it is not there, NUL ahead and all; None where it must
            be.
        option: The option that the peer has to have asked for; None for a packet of the protocol itself.
    """

    number: int
    name: str
    senders: Role
    fields: tuple[str, ...] = ()
    binary: bool = False
    missing: bytes | None = None
    option: bytes | None = None


_C, _W, _S = Role.CLIENT, Role.WORKER, Role.SERVER
_ANY = _C | _W

CAN_DO: Final = 1
CANT_DO: Final = 2
RESET_ABILITIES: Final = 3
PRE_SLEEP: Final = 4
UNUSED: Final = 5
NOOP: Final = 6
SUBMIT_JOB: Final = 7
JOB_CREATED: Final = 8
GRAB_JOB: Final = 9
NO_JOB: Final = 10
JOB_ASSIGN: Final = 11
WORK_STATUS: Final = 12
WORK_COMPLETE: Final = 13
WORK_FAIL: Final = 14
GET_STATUS: Final = 15
ECHO_REQ: Final = 16
ECHO_RES: Final = 17
SUBMIT_JOB_BG: Final = 18
ERROR: Final = 19
STATUS_RES: Final = 20
SUBMIT_JOB_HIGH: Final = 21
SET_CLIENT_ID: Final = 22
CAN_DO_TIMEOUT: Final = 23
ALL_YOURS: Final = 24
WORK_EXCEPTION: Final = 25
OPTION_REQ: Final = 26
OPTION_RES: Final = 27
WORK_DATA: Final = 28
WORK_WARNING: Final = 29
GRAB_JOB_UNIQ: Final = 30
JOB_ASSIGN_UNIQ: Final = 31
SUBMIT_JOB_HIGH_BG: Final = 32
SUBMIT_JOB_LOW: Final = 33
SUBMIT_JOB_LOW_BG: Final = 34
SUBMIT_JOB_SCHED: Final = 35
SUBMIT_JOB_EPOCH: Final = 36
SUBMIT_REDUCE_JOB: Final = 37
SUBMIT_REDUCE_JOB_BACKGROUND: Final = 38
GRAB_JOB_ALL: Final = 39
JOB_ASSIGN_ALL: Final = 40
GET_STATUS_UNIQUE: Final = 41
STATUS_RES_UNIQUE: Final = 42

# Extensions. Numbers from 1000 on are far from what the protocol may still define.
JOB_CANCEL: Final = 1000
JOB_ASSIGN_EXTENDED: Final = 1001
WORK_RETRY: Final = 1002
WORK_REJECT: Final = 1003
WORK_HEARTBEAT: Final = 1004
GET_RESULT: Final = 1005
RESULT_RES: Final = 1006
SUBMIT_JOB_EXTENDED: Final = 1007
WORK_FAIL_EXTENDED: Final = 1008

_JOB = ("function", "unique", "data")
# The protocol document gives three fields and the data; libgearman sends, and gearmand waits for, a
# fourth ahead of the data, the aggregator, and ignores it.
_REDUCE = ("function", "unique", "reducer", "aggregator", "data")

PACKETS: Final[tuple[PacketType, ...]] = (
    PacketType(CAN_DO, "CAN_DO", _W, ("function",)),
    PacketType(CANT_DO, "CANT_DO", _W, ("function",)),
    PacketType(RESET_ABILITIES, "RESET_ABILITIES", _W),
    PacketType(PRE_SLEEP, "PRE_SLEEP", _W),
    PacketType(UNUSED, "UNUSED", Role(0)),
    PacketType(NOOP, "NOOP", _S),
    PacketType(SUBMIT_JOB, "SUBMIT_JOB", _C, _JOB, binary=True),
    PacketType(JOB_CREATED, "JOB_CREATED", _S, ("handle",)),
    PacketType(GRAB_JOB, "GRAB_JOB", _W),
    PacketType(NO_JOB, "NO_JOB", _S),
    PacketType(JOB_ASSIGN, "JOB_ASSIGN", _S, ("handle", "function", "data"), binary=True),
    # Perl's Gearman::Worker leaves out an empty result, and always the denominator.
    PacketType(WORK_STATUS, "WORK_STATUS", _W | _S, ("handle", "numerator", "denominator"), missing=b"0"),
    PacketType(WORK_COMPLETE, "WORK_COMPLETE", _W | _S, ("handle", "data"), binary=True, missing=b""),
    PacketType(WORK_FAIL, "WORK_FAIL", _W | _S, ("handle",)),
    PacketType(GET_STATUS, "GET_STATUS", _C, ("handle",)),
    PacketType(ECHO_REQ, "ECHO_REQ", _ANY, ("data",), binary=True),
    PacketType(ECHO_RES, "ECHO_RES", _S, ("data",), binary=True),
    PacketType(SUBMIT_JOB_BG, "SUBMIT_JOB_BG", _C, _JOB, binary=True),
    PacketType(ERROR, "ERROR", _S, ("code", "text")),
    PacketType(STATUS_RES, "STATUS_RES", _S, ("handle", "known", "running", "numerator", "denominator")),
    PacketType(SUBMIT_JOB_HIGH, "SUBMIT_JOB_HIGH", _C, _JOB, binary=True),
    PacketType(SET_CLIENT_ID, "SET_CLIENT_ID", _ANY, ("id",)),
    # Decimal text; but the package gearman on npm sends four binary bytes, which gearmand takes for none.
    PacketType(CAN_DO_TIMEOUT, "CAN_DO_TIMEOUT", _W, ("function", "milliseconds"), binary=True),
    PacketType(ALL_YOURS, "ALL_YOURS", _W),
    PacketType(WORK_EXCEPTION, "WORK_EXCEPTION", _W | _S, ("handle", "data"), binary=True, missing=b""),
    PacketType(OPTION_REQ, "OPTION_REQ", _ANY, ("option",)),
    PacketType(OPTION_RES, "OPTION_RES", _S, ("option",)),
    PacketType(WORK_DATA, "WORK_DATA", _W | _S, ("handle", "data"), binary=True, missing=b""),
    PacketType(WORK_WARNING, "WORK_WARNING", _W | _S, ("handle", "data"), binary=True, missing=b""),
    PacketType(GRAB_JOB_UNIQ, "GRAB_JOB_UNIQ", _W),
    PacketType(JOB_ASSIGN_UNIQ, "JOB_ASSIGN_UNIQ", _S, ("handle", "function", "unique", "data"), binary=True),
    PacketType(SUBMIT_JOB_HIGH_BG, "SUBMIT_JOB_HIGH_BG", _C, _JOB, binary=True),
    PacketType(SUBMIT_JOB_LOW, "SUBMIT_JOB_LOW", _C, _JOB, binary=True),
    PacketType(SUBMIT_JOB_LOW_BG, "SUBMIT_JOB_LOW_BG", _C, _JOB, binary=True),
    PacketType(
        SUBMIT_JOB_SCHED,
        "SUBMIT_JOB_SCHED",
        _C,
        ("function", "unique", "minute", "hour", "day", "month", "weekday", "data"),
        binary=True,
    ),
    PacketType(
        SUBMIT_JOB_EPOCH, "SUBMIT_JOB_EPOCH", _C, ("function", "unique", "epoch", "data"), binary=True
    ),
    PacketType(SUBMIT_REDUCE_JOB, "SUBMIT_REDUCE_JOB", _C, _REDUCE, binary=True),
    PacketType(SUBMIT_REDUCE_JOB_BACKGROUND, "SUBMIT_REDUCE_JOB_BACKGROUND", _C, _REDUCE, binary=True),
    PacketType(GRAB_JOB_ALL, "GRAB_JOB_ALL", _W),
    PacketType(
        JOB_ASSIGN_ALL, "JOB_ASSIGN_ALL", _S, ("handle", "function", "unique", "reducer", "data"), binary=True
    ),
    PacketType(GET_STATUS_UNIQUE, "GET_STATUS_UNIQUE", _C, ("unique",)),
    # The protocol document calls the first field a handle; gearmand sends the unique.
    PacketType(
        STATUS_RES_UNIQUE,
        "STATUS_RES_UNIQUE",
        _S,
        ("unique", "known", "running", "numerator", "denominator", "clients"),
    ),
)
"""The packet types of the protocol, in the order of their numbers, 1 to 42."""

EXTENSION_PACKETS: Final[tuple[PacketType, ...]] = (
    PacketType(JOB_CANCEL, "JOB_CANCEL", _S, ("handle", "reason"), option=CANCEL),
    PacketType(
        JOB_ASSIGN_EXTENDED,
        "JOB_ASSIGN_EXTENDED",
        _S,
        ("handle", "function", "unique", "reducer", "attributes", "data"),
        binary=True,
        option=OUTCOMES,
    ),
    PacketType(
        WORK_RETRY,
        "WORK_RETRY",
        _W,
        ("handle", "milliseconds", "counts", "text"),
        binary=True,
        option=OUTCOMES,
    ),
    PacketType(WORK_REJECT, "WORK_REJECT", _W, ("handle", "text"), binary=True, option=OUTCOMES),
    PacketType(WORK_HEARTBEAT, "WORK_HEARTBEAT", _W, ("handle",), option=HEARTBEAT),
    PacketType(GET_RESULT, "GET_RESULT", _C, ("handle", "wait"), option=RESULTS),
    PacketType(
        RESULT_RES, "RESULT_RES", _S, ("handle", "state", "reason", "data"), binary=True, option=RESULTS
    ),
    PacketType(
        SUBMIT_JOB_EXTENDED,
        "SUBMIT_JOB_EXTENDED",
        _C,
        ("function", "unique", "attributes", "data"),
        binary=True,
        option=SUBMIT_EXTENDED,
    ),
    PacketType(
        WORK_FAIL_EXTENDED, "WORK_FAIL_EXTENDED", _W, ("handle", "text"), binary=True, option=OUTCOMES
    ),
)
"""The packet types of the extensions, in the order of their numbers, from 1000 on."""

BY_NUMBER: Final = {packet.number: packet for packet in (*PACKETS, *EXTENSION_PACKETS)}
"""Both tables by number."""


def name_of(number: int) -> str:
    """The name of a packet type, for messages.

    Args:
        number: The packet's type.

    Returns:
        Its name; ``type 99`` where there is none.
    """
    packet = BY_NUMBER.get(number)
    return packet.name if packet is not None else f"type {number}"
