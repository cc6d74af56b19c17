"""Whether what comes back to a peer is what the docs say, whatever it had sent."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from tests.attack.http import parse
from tests.attack.names import harmful
from tests.processes.packets import Type
from tests.support import table

_FROM_SERVER: Final = {6, 8, 10, 11, 12, 13, 14, 17, 19, 20, 25, 27, 28, 29, 31, 40, 42}

SUCCESS: Final = {100, 200, 202, 204, 302, 304}


@cache
def error_codes() -> frozenset[bytes]:
    """The codes of ERROR packets that are in the docs."""
    return frozenset(row[0].strip("`").encode() for row in table("protocol.rst", "Code"))


@cache
def statuses() -> frozenset[int]:
    """The statuses of HTTP that are in the docs, and those of what goes well."""
    return frozenset(int(row[0]) for row in table("http.rst", "Status")) | SUCCESS


def undocumented(answers: bytes) -> Iterator[str]:
    """What is wrong with what came to a peer: packets and lines, the last of which may be cut off."""
    place = 0
    while place < len(answers):
        if answers.startswith(b"\0", place):
            if len(answers) < place + 12:
                return
            magic, kind = answers[place : place + 4], int.from_bytes(answers[place + 4 : place + 8], "big")
            end = place + 12 + int.from_bytes(answers[place + 8 : place + 12], "big")
            if magic != b"\0RES" or kind not in _FROM_SERVER:
                yield f"packet {kind} with magic {magic!r}"
                return
            code = answers[place + 12 : end].partition(b"\0")[0]
            if kind == Type.ERROR and end <= len(answers) and code not in error_codes():
                yield f"an ERROR with code {code[:60]!r}"
        else:
            end = answers.find(b"\n", place) + 1 or len(answers)
            text = answers[place:end].decode("utf-8", "surrogateescape")
            # A refusal shows the peer its own words, and nobody else.
            if not text.startswith("ERR ") and any(map(harmful, text)):
                found = sorted(filter(harmful, set(text)))
                yield f"a line with the control characters {found}: {text[:80]!r}"
        place = end


def wrong_answer(answers: bytes) -> Iterator[str]:
    """What is wrong with the beginning of the bytes that came over HTTP, if any came."""
    if answers and (status := parse(answers).status) not in statuses():
        yield f"status {status}: {answers[:200]!r}"
