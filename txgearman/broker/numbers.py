"""Numbers as peers write them, and the one that stands for no limit."""

from __future__ import annotations

import re
import sys
from typing import Final

UNLIMITED_COUNT: Final = sys.maxsize
"""The limit where there is none: a comparison needs no second test then."""

MAX_DIGITS: Final = 20
"""Digits of a number that are read: more than 64 bits have."""

_leading_digits = re.compile(rb"\s*([0-9]{1,%d})(?![0-9])" % MAX_DIGITS).match


def leading_number(text: bytes) -> int:
    """The decimal number that `text` begins with; 0 if that is none, negative or too long.

    As gearmand's atoi and strtol read it: some workers send ``1.5``.
    """
    match = _leading_digits(text)
    return int(match[1]) if match else 0
