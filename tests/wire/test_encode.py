"""Making packets: the exact bytes, and each way to be refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.wire import codec
from txgearman.wire.codec import encode, frame
from txgearman.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GRAB_JOB,
    JOB_CREATED,
    PACKETS,
    REQUEST,
    RESPONSE,
    SUBMIT_JOB,
    WORK_STATUS,
)


class FrameTests(SynchronousTestCase):
    def test_header_is_magic_type_and_size(self) -> None:
        self.assertEqual(frame(REQUEST, 7, b"f\0u\0d"), b"\0REQ\0\0\0\x07\0\0\0\x05f\0u\0d")

    def test_empty_body(self) -> None:
        self.assertEqual(frame(RESPONSE, 10, b""), b"\0RES\0\0\0\x0a\0\0\0\0")


class EncodeTests(SynchronousTestCase):
    def test_fields_are_joined_by_nul(self) -> None:
        self.assertEqual(encode(REQUEST, SUBMIT_JOB, [b"f", b"u", b"d"]), b"\0REQ\0\0\0\x07\0\0\0\x05f\0u\0d")

    def test_no_nul_behind_the_last_field(self) -> None:
        self.assertEqual(encode(RESPONSE, JOB_CREATED, [b"H:x:1"]), b"\0RES\0\0\0\x08\0\0\0\x05H:x:1")

    def test_empty_fields_stay(self) -> None:
        self.assertEqual(encode(REQUEST, SUBMIT_JOB, [b"", b"", b""]), b"\0REQ\0\0\0\x07\0\0\0\x02\0\0")

    def test_without_fields(self) -> None:
        self.assertEqual(encode(REQUEST, GRAB_JOB), b"\0REQ\0\0\0\x09\0\0\0\0")

    def test_binary_last_field_may_hold_nul(self) -> None:
        self.assertTrue(encode(REQUEST, SUBMIT_JOB, [b"f", b"u", b"\0d\0"]).endswith(b"f\0u\0\0d\0"))
        self.assertTrue(encode(REQUEST, ECHO_REQ, [b"\0"]).endswith(b"\0\0\0\x01\0"))

    def test_unknown_type(self) -> None:
        for number in (-1, 0, 43, 2**32):
            with self.assertRaisesRegex(ValueError, f"no packet type {number}"):
                encode(REQUEST, number)

    def test_wrong_number_of_fields(self) -> None:
        for packet in PACKETS:
            for count in {0, 1, len(packet.fields) - 1, len(packet.fields) + 1} - {-1, len(packet.fields)}:
                with self.assertRaisesRegex(ValueError, rf"{packet.name} has {len(packet.fields)} fields"):
                    encode(REQUEST, packet.number, [b"x"] * count)

    def test_nul_in_every_field_that_cannot_hold_one(self) -> None:
        refused = 0
        for packet in PACKETS:
            for index, name in enumerate(packet.fields):
                fields = [b"x"] * len(packet.fields)
                fields[index] = b"a\0b"
                if packet.binary and index == len(packet.fields) - 1:
                    encode(REQUEST, packet.number, fields)
                else:
                    with self.assertRaisesRegex(ValueError, f"the {name} of {packet.name} must not contain"):
                        encode(REQUEST, packet.number, fields)
                    refused += 1
        self.assertGreater(refused, 60)

    def test_body_at_the_headers_limit_and_one_past_it(self) -> None:
        # The true limit is 4 GiB; a small one shows where the line is drawn.
        self.patch(codec, "_LARGEST_BODY", 10)
        encode(REQUEST, CAN_DO, [b"x" * 10])
        with self.assertRaisesRegex(ValueError, "cannot exceed 10 bytes, this has 11"):
            encode(REQUEST, CAN_DO, [b"x" * 11])
        encode(REQUEST, WORK_STATUS, [b"xxxx", b"xx", b"xx"])
        with self.assertRaisesRegex(ValueError, "cannot exceed"):
            encode(REQUEST, WORK_STATUS, [b"xxxx", b"xx", b"xxx"])

    def test_largest_body_is_what_the_header_can_say(self) -> None:
        self.assertEqual(codec._LARGEST_BODY, 2**32 - 1)
