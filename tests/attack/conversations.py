"""Random conversations from a generator of random numbers: packets, admin lines and HTTP requests, in pieces.

Most of what is said makes sense, or nearly.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote_from_bytes

from tests.attack.peers import header
from tests.processes.packets import request

NAMES: Final = (
    *(b"f", b"g", b"h", b"", b"-", b".", b"u", b"f" * 64, b"f" * 65, b"f" * 512, b"f" * 513, b"\xff\xfe"),
    *(
        b"a b",
        b"a\tb",
        b"a\nb",
        b"\x1b[2J",
        b"\x9b",
        "\u202eü".encode(),
        b"__proto__",
        b"%2F",
        b"OK",
        b"ERR x",
    ),
)
"""Few, so that random requests meet each other's jobs, and each in some way at a limit."""

NUMBERS: Final = (
    *(
        b"0",
        b"1",
        b"-1",
        b"1000",
        b"4294967296",
        b"9" * 19,
        b"9" * 400,
        b"nan",
        b"inf",
        b"1e9",
        b"0x1",
        b"",
        b" 1",
    ),
    *(b"\xd9\xa3", b"1.5", b"\x00\x00\x00\x01"),
)

LAST_TYPE: Final = 50
"""A little beyond the last type of packet that there is."""

_FIELDS: Final[dict[int, str]] = {
    **dict.fromkeys((1, 2, 22, 26, 41), "n"),
    **dict.fromkeys((7, 18, 21, 32, 33, 34), "nnd"),
    **dict.fromkeys((13, 25, 28, 29), "hd"),
    **dict.fromkeys((14, 15), "h"),
    **dict.fromkeys((37, 38), "nnnnd"),
    12: "h99",
    16: "d",
    23: "n9",
    35: "nn99999d",
    36: "nn9d",
}
"""The fields of the requests: a name, a number, a handle, or data."""


def packet(rng: random.Random) -> bytes:
    """A request: mostly one that makes sense, else one with something wrong."""
    kind = rng.choice(list(_FIELDS)) if rng.random() < 0.7 else rng.randrange(LAST_TYPE)
    fields = [_field(rng, what) for what in _FIELDS.get(kind, "")]
    chance = rng.random()
    if chance < 0.05:
        fields = fields[: rng.randrange(len(fields) + 1)]
    elif chance < 0.1:
        fields += [_field(rng, "d")] * rng.randrange(1, 4)
    data = request(kind, *fields)
    if chance > 0.97:
        return header(kind, rng.choice((0, 1, 1 << 20, 1 << 26, (1 << 26) + 1, (1 << 32) - 1))) + data[12:]
    if chance > 0.94:
        return changed(rng, data)
    return data


def _field(rng: random.Random, what: str) -> bytes:
    if what == "n":
        return rng.choice(NAMES)
    if what == "9":
        return rng.choice(NUMBERS)
    if what == "h":
        return b"H:fuzz:%d" % rng.randrange(1, 20) if rng.random() < 0.8 else rng.choice(NAMES)
    return rng.randbytes(rng.choice((0, 1, 5, 100, 5_000)))


def changed(rng: random.Random, data: bytes) -> bytes:
    """The same with a byte changed, a piece left out, or a piece twice."""
    if not data:
        return data
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice(
        (
            data[:first] + rng.randbytes(1) + data[first + 1 :],
            data[:first] + data[last:],
            data[:last] + data[first:],
            rng.randbytes(last - first),
        )
    )


_LINES: Final = (
    *(
        b"status",
        b"prioritystatus",
        b"workers",
        b"show jobs",
        b"show unique jobs",
        b"show limits",
        b"show store",
    ),
    *(
        b"show function limits",
        b"version",
        b"getpid",
        b"verbose",
        b"show",
        b"cancel job",
        b"cancel",
        b"maxqueue",
    ),
    *(b"maxrate", b"create function", b"drop function", b"create", b"drop", b"", b"nonsense", b"SHOW JOBS"),
)
"""Whole commands and beginnings. None stops the server."""


def line(rng: random.Random) -> bytes:
    """An admin line: a command, with words, with too many, or with something wrong."""
    number = rng.choice((0, 0, 1, 1, 2, 3, 4, 6))
    words = [rng.choice(_LINES), *(_field(rng, rng.choice("nh99")) for _ in range(number))]
    text = rng.choice((b" ", b" ", b" ", b"  ", b"\t")).join(words)
    if rng.random() < 0.05:
        text = changed(rng, text)
    if rng.random() < 0.01:
        text += b" " * rng.choice((8_000, 8_192, 9_000))
    # `shutdown` can come of none of these, but of a change to another line it must not either.
    return text.replace(b"shutdown", b"") + rng.choice((b"\n", b"\n", b"\r\n"))


def conversation(rng: random.Random, lines: float) -> list[bytes]:
    """What one peer says, in pieces. Of its messages this part, from 0 to 1, are admin lines."""
    messages = [line(rng) if rng.random() < lines else packet(rng) for _ in range(rng.randrange(1, 20))]
    return cut(rng, b"".join(messages))


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in some pieces."""
    ends = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


_METHODS: Final = (
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "FOO",
    "get",
)
_PATHS: Final = (
    *("", "functions", "functions/{n}", "functions/{n}/jobs", "jobs/{h}", "jobs/{h}/data", "jobs/{h}/events"),
    *("connections", "connections/{9}", "status", "server", "openapi.json", "live", "nothing"),
)
_PARAMETERS: Final = (
    *("search={n}", "after={9}", "after=stored-1-{9}", "limit={9}", "offset={9}", "length={9}", "role={n}"),
    *(
        "state={n}",
        "state=stored",
        "unique={n}",
        "background=true",
        "background={n}",
        "priority={n}",
        "run_at={9}",
    ),
    *("timeout=0.01", "timeout={9}", "view=overview", "view={n}", "%", "&&", "={n}", "%zz=%"),
)
_HEADERS: Final = (
    *(
        "Accept: text/event-stream",
        "Accept: {n}",
        "Origin: http://evil.example",
        "Origin: {n}",
        "Expect: 100-continue",
    ),
    *("Authorization: Bearer {n}", "Authorization: {n}", "X-Gearman-Unique: {n}", "X-Gearman-Priority: {n}"),
    *(
        "X-Gearman-Run-At: {9}",
        "X-Gearman-Timeout: {9}",
        "X-Gearman-Background: true",
        "Range: bytes={9}-{9}",
    ),
    *(
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: {n}",
        "Content-Length: {9}",
        "Host: {n}",
        "Connection: {n}",
    ),
    *(
        "If-None-Match: {n}",
        "Accept-Encoding: gzip",
        "Content-Type: {n}",
        "Upgrade: websocket",
        "Cookie: {n}",
        "{n}",
    ),
)
_BODIES: Final = (
    *(
        b"",
        b"x",
        b'{"paused":true}',
        b'{"paused":1}',
        b'{"limits":{"high":1,"normal":null}}',
        b'{"limits":{"low":-1}}',
    ),
    *(
        b'{"limits":{"high":1e999}}',
        b"{",
        b"[" * 2_000,
        b"null",
        b'{"quiet":true}',
        b"\xff",
        b'{"paused":NaN}',
    ),
)


def http_request(rng: random.Random) -> bytes:
    """A request: mostly one that makes sense, else one with something wrong."""
    path = rng.choice(("/", "/", "/metrics", "/healthz", "/readyz", "/{n}", "/static/{n}", "//", "*"))
    if rng.random() < 0.8:
        path = "/api/v1/" + rng.choice(_PATHS)
    if rng.random() < 0.6:
        path += "?" + "&".join(rng.choice(_PARAMETERS) for _ in range(rng.randrange(1, 4)))
    method = rng.choice(_METHODS)
    body = rng.choice(_BODIES) if method in ("POST", "PUT", "PATCH") or rng.random() < 0.05 else b""
    lines = ["Host: localhost", "Connection: close"]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    raw = rng.random() < 0.2
    data = _filled(rng, f"{method} {path} HTTP/1.1", raw)
    for one in (*lines, *(rng.choice(_HEADERS) for _ in range(rng.choice((0, 0, 0, 1, 2))))):
        data += b"\r\n" + _filled(rng, one, True).replace(b"\n", b" ")
    data += b"\r\n\r\n" + body
    return changed(rng, data) if rng.random() < 0.05 else data


def _filled(rng: random.Random, pattern: str, raw: bool) -> bytes:
    """A pattern with its names, numbers and handles, quoted as in a path or not."""
    parts = re.split(r"\{([nh9])\}", pattern)
    filled = [
        part.encode("latin-1")
        if not number % 2
        else (_field(rng, part) if raw else quote_from_bytes(_field(rng, part), safe="").encode())
        for number, part in enumerate(parts)
    ]
    return b"".join(filled)


def pieces_of(rng: random.Random, peers: Sequence[object], lines: float) -> Iterator[tuple[int, bytes]]:
    """A few conversations through each other: which peer says which piece next."""
    left = [conversation(rng, lines) for _ in peers]
    while any(left):
        number = rng.choice([number for number, pieces in enumerate(left) if pieces])
        yield number, left[number].pop(0)
