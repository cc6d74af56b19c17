"""The table of packet types. How bodies are cut is tested with the decoder."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from txgearman.wire import packets
from txgearman.wire.options import EXTENSIONS
from txgearman.wire.packets import (
    BY_NUMBER,
    EXTENSION_PACKETS,
    PACKETS,
    REQUEST,
    RESPONSE,
    TEXT,
    PacketType,
    Role,
    name_of,
)

# Written down once more, from the protocol document: number, name, senders, fields, and * for a last
# field that holds any bytes.
DOCUMENTED = """
1 CAN_DO W function
2 CANT_DO W function
3 RESET_ABILITIES W
4 PRE_SLEEP W
5 UNUSED -
6 NOOP S
7 SUBMIT_JOB C function unique data*
8 JOB_CREATED S handle
9 GRAB_JOB W
10 NO_JOB S
11 JOB_ASSIGN S handle function data*
12 WORK_STATUS WS handle numerator denominator
13 WORK_COMPLETE WS handle data*
14 WORK_FAIL WS handle
15 GET_STATUS C handle
16 ECHO_REQ CW data*
17 ECHO_RES S data*
18 SUBMIT_JOB_BG C function unique data*
19 ERROR S code text
20 STATUS_RES S handle known running numerator denominator
21 SUBMIT_JOB_HIGH C function unique data*
22 SET_CLIENT_ID CW id
23 CAN_DO_TIMEOUT W function milliseconds*
24 ALL_YOURS W
25 WORK_EXCEPTION WS handle data*
26 OPTION_REQ CW option
27 OPTION_RES S option
28 WORK_DATA WS handle data*
29 WORK_WARNING WS handle data*
30 GRAB_JOB_UNIQ W
31 JOB_ASSIGN_UNIQ S handle function unique data*
32 SUBMIT_JOB_HIGH_BG C function unique data*
33 SUBMIT_JOB_LOW C function unique data*
34 SUBMIT_JOB_LOW_BG C function unique data*
35 SUBMIT_JOB_SCHED C function unique minute hour day month weekday data*
36 SUBMIT_JOB_EPOCH C function unique epoch data*
37 SUBMIT_REDUCE_JOB C function unique reducer aggregator data*
38 SUBMIT_REDUCE_JOB_BACKGROUND C function unique reducer aggregator data*
39 GRAB_JOB_ALL W
40 JOB_ASSIGN_ALL S handle function unique reducer data*
41 GET_STATUS_UNIQUE C unique
42 STATUS_RES_UNIQUE S unique known running numerator denominator clients
"""

ROLES = {"C": Role.CLIENT, "W": Role.WORKER, "S": Role.SERVER}

ALL = (*PACKETS, *EXTENSION_PACKETS)


def documented(line: str) -> PacketType:
    number, name, letters, *fields = line.split()
    senders = Role(0)
    for letter in letters.strip("-"):
        senders |= ROLES[letter]
    binary = bool(fields) and fields[-1].endswith("*")
    return PacketType(int(number), name, senders, tuple(field.rstrip("*") for field in fields), binary)


class TableTests(SynchronousTestCase):
    def test_rows_are_those_of_the_document(self) -> None:
        rows = [documented(line) for line in DOCUMENTED.strip().splitlines()]
        self.assertEqual(len(rows), 42)
        for row, packet in zip(rows, PACKETS, strict=True):
            self.assertEqual(row, dataclasses.replace(packet, missing=None))

    def test_what_a_worker_may_leave_out(self) -> None:
        optional = {packet.name: packet.missing for packet in PACKETS if packet.missing is not None}
        self.assertEqual(
            optional,
            {
                "WORK_STATUS": b"0",
                "WORK_COMPLETE": b"",
                "WORK_EXCEPTION": b"",
                "WORK_DATA": b"",
                "WORK_WARNING": b"",
            },
        )

    def test_numbers_are_consecutive_from_1(self) -> None:
        self.assertEqual([packet.number for packet in PACKETS], list(range(1, 43)))

    def test_extensions(self) -> None:
        """They are far from the protocol's numbers, and each belongs to an option that must be asked for."""
        numbers = [packet.number for packet in EXTENSION_PACKETS]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertGreaterEqual(numbers[0], 1000)
        self.assertEqual({packet.option for packet in EXTENSION_PACKETS}, EXTENSIONS)
        self.assertEqual({packet.option for packet in PACKETS}, {None})

    def test_names_are_unique(self) -> None:
        self.assertEqual(len({packet.name for packet in ALL}), len(ALL))

    def test_every_name_is_a_constant_of_its_number(self) -> None:
        for packet in ALL:
            self.assertEqual(getattr(packets, packet.name), packet.number)

    def test_field_names_are_unique_within_a_packet(self) -> None:
        for packet in ALL:
            self.assertEqual(len(set(packet.fields)), len(packet.fields), packet.name)

    def test_text_is_no_packet(self) -> None:
        self.assertNotIn(TEXT, BY_NUMBER)

    def test_by_number(self) -> None:
        extensions = [packet.number for packet in EXTENSION_PACKETS]
        self.assertEqual(list(BY_NUMBER), [*range(1, 43), *extensions])
        for number, packet in BY_NUMBER.items():
            self.assertEqual(packet.number, number)

    def test_magics(self) -> None:
        self.assertEqual((REQUEST, RESPONSE), (b"\0REQ", b"\0RES"))

    def test_name_of(self) -> None:
        self.assertEqual(name_of(7), "SUBMIT_JOB")
        self.assertEqual(name_of(99), "type 99")
        self.assertEqual(name_of(0), "type 0")
