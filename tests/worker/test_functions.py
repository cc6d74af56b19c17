"""What a registered function's return value or exception becomes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgearman.worker.functions import (
    EXCEPTION_BYTES,
    MAX_TIMEOUT_MS,
    exception_text,
    milliseconds,
    result_bytes,
)


class ResultTests(SynchronousTestCase):
    def test_bytes_and_none(self) -> None:
        self.assertEqual(result_bytes(b"a\0b", b"f"), b"a\0b")
        self.assertEqual(result_bytes(None, b"f"), b"")

    def test_other_types_name_the_function(self) -> None:
        for value in ("text", 1, bytearray(b"x"), [b"x"]):
            with self.assertRaisesRegex(
                TypeError, f"f.xff must return bytes or None, not {type(value).__name__}"
            ):
                result_bytes(value, b"f\xff")


class ExceptionTests(SynchronousTestCase):
    def test_type_and_message(self) -> None:
        self.assertEqual(exception_text(ValueError("größe")), "ValueError: größe".encode())

    def test_without_a_message(self) -> None:
        self.assertEqual(exception_text(ValueError()), b"ValueError")

    def test_a_message_that_utf8_cannot_hold(self) -> None:
        self.assertEqual(exception_text(ValueError("a\udcffb")), b"ValueError: a\\udcffb")

    def test_an_exception_that_cannot_be_shown(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise LookupError

        self.assertTrue(exception_text(Mute()).startswith(b"Mute: "))

    def test_a_long_message_is_cut_at_a_whole_character(self) -> None:
        room = EXCEPTION_BYTES - len("ValueError: ")
        self.assertEqual(len(exception_text(ValueError("x" * room))), EXCEPTION_BYTES)
        self.assertEqual(len(exception_text(ValueError("x" * (room + 1)))), EXCEPTION_BYTES)
        text = exception_text(ValueError("x" * (room - 1) + "ä"))
        self.assertEqual(len(text), EXCEPTION_BYTES - 1)
        text.decode()


class TimeoutTests(SynchronousTestCase):
    def test_seconds_become_milliseconds_rounded_up(self) -> None:
        self.assertIsNone(milliseconds(None))
        self.assertEqual(milliseconds(1.5), 1500)
        self.assertEqual(milliseconds(0.0001), 1)
        self.assertEqual(milliseconds(MAX_TIMEOUT_MS / 1000), MAX_TIMEOUT_MS)

    def test_what_is_no_time_limit(self) -> None:
        for timeout in (0, -1, float("nan"), float("inf"), (MAX_TIMEOUT_MS + 1) / 1000):
            with self.assertRaises(ValueError):
                milliseconds(timeout)
