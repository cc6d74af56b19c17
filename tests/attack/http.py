"""HTTP requests of an attacker, as bytes, and what of an answer matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.attack.attack import Target


class Answer(NamedTuple):
    """An answer: `status` is 0 where none came."""

    status: int
    head: bytes
    body: bytes


def http(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    host: str = "localhost",
) -> bytes:
    """A whole request, behind which the connection ends."""
    lines = {"Host": host, "Connection": "close", **(headers or {})}
    if body or method in ("POST", "PUT", "PATCH"):
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def ask(target: Target, request: bytes, patience: float = 10.0) -> Answer:
    """What the server answers to one request on a connection of its own, until it ends that."""
    peer = target.connect_web()
    peer.send(request)
    peer.ends(patience)
    answer = parse(peer.take())
    target.forget(peer)
    return answer


def parse(data: bytes) -> Answer:
    """The first answer in what came, its body as it stands there."""
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    known = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit()
    return Answer(int(words[1]) if known else 0, head, body)
