"""Names in lines: whatever bytes they are, they stay in their place, and can be turned back."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.effort import EFFORT
from txgearman.wire.names import escape, escape_word, has_escapes, unescape

# Random bytes hit what matters too seldom.
_pieces = st.sampled_from(
    [b"\\", b"\\\\", b"t", b"r", b"n", b"x", b"0", b"1b", b"\t", b"\r", b"\n", b" ", b"\x1b", b"\x7f", b"\0"]
    + [b".", b"E", b"ERR", b"OK", b":", b"\xc2", b"\x9b", b"\x80", b"\xa0", b"\xff", b"\xf0\x9f\x98"]
    + ["ä\u0085\u009f\u2028\u2029\u202e€😀"[index].encode() for index in range(8)]
)
names = st.lists(_pieces, max_size=10).map(b"".join) | st.binary(max_size=40)


def controls(shown: bytes) -> list[str]:
    """Characters in a line that a terminal obeys, or at which a reader may cut it."""
    text = shown.decode("utf-8", "surrogateescape")
    return [
        letter
        for letter in text
        if unicodedata.category(letter) in {"Cc", "Zl", "Zp"} or "\udc80" <= letter <= "\udc9f"
    ]


class NamesTest(SynchronousTestCase):
    def assert_shown(self, name: bytes, shown: bytes, word: bytes | None = None) -> None:
        self.assertEqual(escape(name), shown)
        self.assertEqual(escape_word(name), shown if word is None else word)
        self.assertEqual(unescape(escape(name)), name)
        self.assertEqual(unescape(escape_word(name)), name)

    def test_what_stays(self) -> None:
        for name in (
            b"",
            b"f",
            "größe-😀".encode(),
            b"a.b:c/d",
            b"a\xff\xfe\xa0",
            b"..",
            b"ERRx",
            b"OKAY",
            b"err",
        ):
            self.assert_shown(name, name)
        self.assert_shown(b"sp  ace ", b"sp  ace ", rb"sp\x20\x20ace\x20")
        self.assert_shown("\u202e\u200f".encode(), "\u202e\u200f".encode())

    def test_control_characters(self) -> None:
        self.assert_shown(b"\t\r\n", rb"\t\r\n")
        for code in {*range(0x20), 0x7F} - set(b"\t\r\n"):
            self.assert_shown(bytes([code]), b"\\x%02x" % code)
        for code in range(0x80, 0xA0):
            self.assert_shown(bytes([code]), b"\\x%02x" % code)
            self.assert_shown(chr(code).encode(), b"\\xc2\\x%02x" % code)
            # Behind its first byte it is a letter of UTF-8.
            self.assert_shown(b"\xc3%c" % code, b"\xc3%c" % code)
        self.assert_shown("\u2028\u2029".encode(), rb"\xe2\x80\xa8\xe2\x80\xa9")

    def test_a_backslash_is_doubled_only_ahead_of_what_reads_as_an_escape(self) -> None:
        for name in (rb"App\Jobs", b"a\\", rb"\0", rb"\X1b", rb"C:\Users"):
            self.assert_shown(name, name)
        for name, shown in (
            (rb"App\tasks", rb"App\\tasks"),
            (rb"\r\n\xyz", rb"\\r\\n\\xyz"),
            (rb"\\server", rb"\\\server"),
            (b"\\\x1b", rb"\\\x1b"),
            (b"\\\xc2\x9b", rb"\\\xc2\x9b"),
        ):
            self.assert_shown(name, shown)
        self.assert_shown(rb"a\ b", rb"a\ b", rb"a\\\x20b")

    def test_the_frame(self) -> None:
        self.assert_shown(b".", rb"\x2e")
        self.assert_shown(b"  .  ", rb"\x20 .  ", rb"\x20\x20.\x20\x20")
        self.assert_shown(b"ERR", rb"\x45RR")
        self.assert_shown(b"ERR x\ty", rb"\x45RR x\ty", rb"\x45RR\x20x\ty")
        self.assert_shown(b"OK", rb"\x4fK")
        self.assert_shown(b" OK 1", rb"\x20OK 1", rb"\x20OK\x201")
        self.assert_shown(b":", b":", rb"\x3a")

    def test_what_is_no_escape_stays(self) -> None:
        # Of a server with other rules than ours: better shown as it is than not.
        for shown in (b"\\", rb"a\b", rb"\x", rb"\x1", rb"\xg0", rb"App\Jobs"):
            self.assertEqual(unescape(shown), shown)
            self.assertFalse(has_escapes(shown))
        self.assertEqual(unescape(rb"\x1B\x1b"), b"\x1b\x1b")

    @EFFORT
    @given(names)
    def test_any_name_can_be_turned_back(self, name: bytes) -> None:
        for shown in (escape(name), escape_word(name)):
            self.assertEqual(unescape(shown), name)
            self.assertEqual(has_escapes(shown), shown != name)
            self.assertEqual(controls(shown), [])

    @EFFORT
    @given(names)
    def test_no_name_is_taken_for_the_frame(self, name: bytes) -> None:
        shown = escape(name)
        self.assertNotEqual(shown.strip(), b".")
        self.assertIsNone(re.match(rb"\s*(ERR|OK)(\s|\Z)", shown))
        self.assertEqual(len(shown.decode("utf-8", "replace").splitlines()), 1 if shown else 0)
        word = escape_word(name)
        self.assertEqual(word.split(), [word] if word else [])
        self.assertNotEqual(word, b":")

    @EFFORT
    @given(st.lists(names, max_size=4), names)
    def test_words_of_a_row_can_be_told_apart(self, functions: list[bytes], client_id: bytes) -> None:
        row = b"1 host %b :" % escape_word(client_id) + b"".join(
            b" " + escape_word(name) for name in functions
        )
        _, _, shown, colon, *words = row.split(b" ")
        self.assertEqual((unescape(shown), colon), (client_id, b":"))
        self.assertEqual([unescape(word) for word in words], functions)
