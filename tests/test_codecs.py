"""Codecs: what goes out and comes in, and what is refused."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.codecs import BYTES, JSON, TEXT, codec_from, decoded, encoded
from txgearman.errors import BadPayload

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: (
        st.lists(values) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values)
    ),
    max_leaves=10,
)


class Shouting:
    """A codec of the tests' own."""

    def encode(self, value: Any) -> bytes:
        return str(value).upper().encode()

    def decode(self, data: bytes) -> Any:
        return data.decode().lower()


class CodecTests(SynchronousTestCase):
    def test_bytes_pass_as_they_are(self) -> None:
        self.assertEqual(encoded(BYTES, b"\0\xff"), b"\0\xff")
        self.assertEqual(decoded(BYTES, b"\0\xff", b"H:1"), b"\0\xff")

    def test_text_is_utf_8(self) -> None:
        self.assertEqual(encoded(TEXT, "größe"), "größe".encode())
        self.assertEqual(decoded(TEXT, "größe".encode(), b"H:1"), "größe")

    @EFFORT
    @given(_VALUES)
    def test_json_comes_back_as_it_went(self, value: Any) -> None:
        self.assertEqual(decoded(JSON, encoded(JSON, value), b"H:1"), value)

    def test_json_is_utf_8_and_short(self) -> None:
        self.assertEqual(encoded(JSON, {"größe": [1, None]}), '{"größe":[1,null]}'.encode())

    def test_an_object_of_the_caller_s(self) -> None:
        codec = codec_from(Shouting())
        self.assertEqual(encoded(codec, "abc"), b"ABC")
        self.assertEqual(decoded(codec, b"ABC", b"H:1"), "abc")

    def test_the_words(self) -> None:
        for word, codec in {"bytes": BYTES, "text": TEXT, "json": JSON}.items():
            self.assertIs(codec_from(word), codec)  # type: ignore[arg-type]

    def test_what_is_no_codec(self) -> None:
        with self.assertRaisesRegex(ValueError, "one of bytes, text, json or an object, not 'pickle'"):
            codec_from("pickle")  # type: ignore[arg-type]
        for nothing in (None, 5, object()):
            with self.assertRaisesRegex(TypeError, "needs a method encode"):
                codec_from(nothing)  # type: ignore[arg-type]


class RefusalTests(SynchronousTestCase):
    def test_what_cannot_be_encoded_raises_at_the_call(self) -> None:
        for codec, value in ((BYTES, "text"), (BYTES, None), (TEXT, b"x"), (TEXT, 1), (JSON, object())):
            with self.assertRaises(TypeError):
                encoded(codec, value)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for codec, value in ((TEXT, "\ud800"), (JSON, "\ud800"), (JSON, float("nan")), (JSON, deep)):
            with self.assertRaises(ValueError):
                encoded(codec, value)

    def test_a_codec_that_makes_no_bytes(self) -> None:
        class Broken(Shouting):
            def encode(self, value: Any) -> bytes:
                return "text"  # type: ignore[return-value]

        with self.assertRaisesRegex(TypeError, "made str of the data"):
            encoded(Broken(), "x")

    def test_what_cannot_be_decoded_says_of_which_job_and_what_came(self) -> None:
        for codec, data in (
            (TEXT, b"\xff"),
            (JSON, b""),
            (JSON, b"{"),
            (JSON, b"\xff"),
            (JSON, b"NaN"),
            (JSON, b"[" * 100_000),
        ):
            with self.assertRaises(BadPayload) as caught:
                decoded(codec, data, b"H:1")
            self.assertEqual((caught.exception.data, caught.exception.handle), (data, b"H:1"))
            self.assertIn("H:1", str(caught.exception))
