"""The unique of a job that was completed, which is kept for a time; and which uniques are the same."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

UNIQUE_IS_DATA: Final = b"-"
"""The unique that stands for "jobs with the same data are the same job"."""

_DATA_MARK: Final = b"\0"
"""Begins the key of data. Uniques end at a NUL on the wire, so none that was sent can look like one."""

_DIGEST_SIZE: Final = 32
"""Bytes. Long enough that nobody finds two payloads with one digest, to have a job taken for another."""


def unique_key(unique: bytes, data: bytes) -> bytes | None:
    """What is equal for jobs of one function that are the same.

    Args:
        unique: The unique of a job.
        data: Its payload.

    Returns:
        The key, which a database can hold unique together with the function; None for a job that is like no
        other.
    """
    if unique != UNIQUE_IS_DATA:
        return unique or None
    return _DATA_MARK + blake2b(data, digest_size=_DIGEST_SIZE).digest() if data else None


class KeptUnique(NamedTuple):
    """A unique that is kept.

    Attributes:
        function: The name of the job's function.
        key: The `unique_key` of the job.
        handle: The job's handle.
        until: Until when it is kept, in seconds since the epoch.
    """

    function: bytes
    key: bytes
    handle: bytes
    until: float
