"""Which jobs are the same, as a key that a database can hold unique together with the function."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

UNIQUE_IS_DATA: Final = b"-"
"""The unique that stands for "jobs with the same data are the same job"."""

_DATA_MARK: Final = b"\0"
"""Begins the key of data. Uniques end at a NUL on the wire, so none that was sent can look like one."""

_DIGEST_SIZE: Final = 32
"""Bytes. Long enough that nobody finds two payloads with one digest, to have a job taken for another."""


def unique_key(unique: bytes, data: bytes) -> bytes | None:
    """What is equal for jobs of one function that are the same; None for a job that is like no other."""
    if unique != UNIQUE_IS_DATA:
        return unique or None
    return _DATA_MARK + blake2b(data, digest_size=_DIGEST_SIZE).digest() if data else None
