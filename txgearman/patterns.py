"""Names of functions: patterns for them, in which ``*`` stands for any bytes, and how they are shown."""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: bytes, name: bytes) -> bool:
    """Whether `pattern` is the name, or fits it with its stars. No other letter is special."""
    return pattern == name or (b"*" in pattern and _compiled(pattern).fullmatch(name) is not None)


def quoted(name: bytes) -> str:
    """A name as people are shown it: in quotes, and with nothing that could break a line."""
    return ascii(name)[1:]


@lru_cache(maxsize=1024)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(b".*".join(map(re.escape, pattern.split(b"*"))), re.DOTALL)
