"""One job for each kind of answer a worker can give, and what its client must be told of it.

The jobs use the repertoire that foreign.py describes.
"""

from __future__ import annotations

from typing import Final

from tests.interop.foreign import Event, Job

EVERY_BYTE: Final = bytes(range(256))
MEBIBYTE: Final = 4096
"""How often `EVERY_BYTE` makes a mebibyte."""


def jobs_of(prefix: str, data: bytes) -> list[Job]:
    """A job for each kind of answer; the first shall give back `data`."""
    return [
        Job(f"{prefix}echo", data),
        Job(f"{prefix}size", EVERY_BYTE, repeat=MEBIBYTE),
        Job(f"{prefix}chatty", b"a\0b"),
        Job(f"{prefix}fail", b"a\0b"),
        Job(f"{prefix}raise", b"a\0b"),
    ]


def answers(data: bytes, exception: bytes = b"reason\0a\0b") -> list[list[Event]]:
    """What a client that tells everything is told of the jobs of `jobs_of`, job by job.

    `exception` is what the worker sends of an exception.
    """
    return [
        [("complete", data)],
        [("complete", b"1048576")],
        [
            ("data", b"one\0a\0b"),
            ("warning", b"careful\0a\0b"),
            ("status", 1, 2),
            ("data", b"two"),
            ("complete", b"done"),
        ],
        [("fail",)],
        [("exception", exception)],
    ]


def joined_answers(data: bytes) -> list[list[Event]]:
    """What PHP's doNormal tells: libgearman joins data and result, PHP keeps the exception to itself."""
    echo, size, _, fail, _ = answers(data)
    return [echo, size, [("complete", b"one\0a\0btwodone")], fail, [("exception", b"")]]
