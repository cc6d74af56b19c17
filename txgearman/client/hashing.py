"""Rendezvous hashing: which server a routing key belongs to. No I/O.

Each server has a score for each key, and the highest wins. When a server leaves, only its keys move; when one
joins, only those that it wins. All clients that know the servers by the same names choose alike.
"""

from __future__ import annotations

from hashlib import blake2b

from txgearman.client.submission import Submission

_SCORE_BYTES = 8


def routing_key(new: Submission) -> bytes | None:
    """The routing key of a submission: its function and unique; None without a unique.

    For the unique ``-``, which stands for the data itself, the data counts too.
    """
    if not new.unique:
        return None
    return new.body if new.unique == b"-" else new.function + b"\0" + new.unique


def score(server: str, key: bytes) -> bytes:
    """The score of a server for a key; the server with the greatest is the key's."""
    # The key may be as long as a job's data, so it is digested by itself.
    digest = blake2b(key).digest()
    return blake2b(server.encode() + b"\0" + digest, digest_size=_SCORE_BYTES).digest()
