"""Patterns for names of functions: ``*`` stands for any bytes. No other letter is special."""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: bytes, name: bytes) -> bool:
    """Whether `pattern` is the name, or fits it with its stars."""
    return pattern == name or (b"*" in pattern and _compiled(pattern).fullmatch(name) is not None)


@lru_cache(maxsize=1024)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(b".*".join(map(re.escape, pattern.split(b"*"))), re.DOTALL)
