"""Names of functions: patterns for them, in which ``*`` stands for any bytes, and how they are shown."""

from __future__ import annotations

from typing import Final

MAX_SHOWN: Final = 128
"""Bytes of what a peer sent that go into one line of the log or one answer about it; the rest is counted.
Longer than any client id, and than any function's name that somebody has to recognise. Escaped, each may take
four characters."""


def matches(pattern: bytes, name: bytes) -> bool:
    """Whether `pattern` is the name, or fits it with its stars. No other letter is special.

    The pieces between the stars are looked for from left to right, each after the one before. That never has
    to go back: where a piece fits early, whatever could follow a later one can follow it too. So the time is
    at most that of the longest piece times the name, and no product of stars.
    """
    first, *middle = pattern.split(b"*")
    if not middle:
        return pattern == name
    last = middle.pop()
    end = len(name) - len(last)
    start = len(first)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        found = name.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True


def shown(text: bytes) -> str:
    """What a peer sent, in a line of the log or an answer: ASCII with nothing that could break a line, and of
    at most `MAX_SHOWN` bytes no more than is said here."""
    return ascii(text[:MAX_SHOWN])[2:-1] + _left_out(text)


def quoted(name: bytes) -> str:
    """A name as people are shown it: as `shown`, in quotes."""
    return ascii(name[:MAX_SHOWN])[1:] + _left_out(name)


def _left_out(text: bytes) -> str:
    return f"... ({len(text)} bytes)" if len(text) > MAX_SHOWN else ""
