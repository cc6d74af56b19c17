"""Names of functions that a program may mistake for something else. No expectations here."""

from __future__ import annotations

from typing import Final

NAMES: Final = (
    # Members that every object has in JavaScript.
    b"__proto__",
    b"constructor",
    b"toString",
    b"hasOwnProperty",
    b"valueOf",
    # Segments of a path.
    b"",
    b".",
    b"..",
    b"/",
    b"a/b",
    b"%2F",
    b"%2e%2e",
    b"?",
    b"#",
    b"&function=x",
    b"+",
    # Text that moves or hides what is beside it.
    b" ",
    b"a\nb",
    b"\r",
    b"\x1b[2J",
    "\u202egnp.exe".encode(),
    "a\u2069\u202eb".encode(),
    "\u05d0\u05d1\u05d2 \u05d3".encode(),
    "\u200f\u200b".encode(),
    # Bytes that are no text.
    b"\xff",
    b"a\xed\xa0\x80b",
    b"\\xff",
    # Markup, and the longest name that is taken.
    b"<b>\"'`</b>",
    b"n" * 512,
)
"""Each may be the name of a function."""
