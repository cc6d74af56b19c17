"""Callers' arguments: what is accepted, and that the rest raises at the call."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.connection.arguments import (
    body_of,
    check_timeout,
    data_bytes,
    function_bytes,
    name_bytes,
)
from txgearman.wire.limits import MAX_FUNCTION


class NameTests(SynchronousTestCase):
    def test_str_is_encoded_and_bytes_are_kept(self) -> None:
        self.assertEqual(name_bytes("größe", "x", 64), "größe".encode())
        self.assertEqual(name_bytes(b"\xff\xfe", "x", 64), b"\xff\xfe")

    def test_length_counts_bytes_at_the_limit_and_one_past_it(self) -> None:
        self.assertEqual(name_bytes("ä" * 4, "x", 8), "ä".encode() * 4)
        with self.assertRaisesRegex(ValueError, "the unique has 9 bytes, at most 8 are allowed"):
            name_bytes("ä" * 4 + "a", "the unique", 8)

    def test_nul_is_refused(self) -> None:
        for value in ("a\0b", b"\0"):
            with self.assertRaisesRegex(ValueError, "NUL"):
                name_bytes(value, "x", 64)

    def test_other_types_are_refused(self) -> None:
        for value in (None, 1, bytearray(b"x")):
            with self.assertRaisesRegex(TypeError, "x must be str or bytes, not"):
                name_bytes(value, "x", 64)  # type: ignore[arg-type]

    def test_what_utf8_cannot_hold_is_a_value_error(self) -> None:
        with self.assertRaises(ValueError):
            name_bytes("\ud800", "x", 64)

    def test_a_function_needs_a_name_of_limited_length(self) -> None:
        self.assertEqual(function_bytes("f" * MAX_FUNCTION), b"f" * MAX_FUNCTION)
        for name in ("", "f" * (MAX_FUNCTION + 1)):
            with self.assertRaises(ValueError):
                function_bytes(name)


class DataTests(SynchronousTestCase):
    def test_bytes_are_kept_with_their_nuls(self) -> None:
        self.assertEqual(data_bytes(b"\0x\0", "the data"), b"\0x\0")

    def test_str_is_not_guessed_at(self) -> None:
        with self.assertRaisesRegex(TypeError, "the data must be bytes, not str"):
            data_bytes("text", "the data")  # type: ignore[arg-type]

    def test_a_body_at_the_limit_and_one_past_it(self) -> None:
        self.assertEqual(body_of((b"ab", b"cd"), 5), b"ab\0cd")
        with self.assertRaisesRegex(ValueError, "would have 6 bytes, at most 5"):
            body_of((b"ab", b"cde"), 5)


class TimeoutTests(SynchronousTestCase):
    def test_none_and_numbers_from_zero_are_accepted(self) -> None:
        for timeout in (None, 0, 0.5, 10**9):
            check_timeout(timeout)

    def test_others_are_refused(self) -> None:
        for timeout in (-1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                check_timeout(timeout)
