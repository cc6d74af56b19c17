"""A kept result: what a background job returned, for whoever asks for it later."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_RESULT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a result that is kept at most: what memory keeps in all by default. Larger ones belong into a file
or an object store, with their name as the result."""

RESULT_OVERHEAD: Final = 512
"""Bytes that a kept result counts beside its data: its objects or its row, and its entries in indexes."""


class KeptResult(NamedTuple):
    """The result of a background job that was completed.

    `number` is the one that its handle ends with; no two jobs of a store have the same. `ended` and
    `expires_at`, until when it is kept, are in seconds since the epoch. `data` is None for a result that was
    too large to be kept as a whole, or that began before a client wanted it kept. What follows is what is to
    be known of the job itself when it is forgotten otherwise, `submitted` in seconds since the epoch.
    """

    number: int
    handle: bytes
    function: bytes
    ended: float
    expires_at: float
    data: bytes | None
    unique: bytes
    priority: int
    submitted: float
    attempts: int
    losses: int

    @property
    def weight(self) -> int:
        """The bytes that it counts for in a limit of bytes."""
        return RESULT_OVERHEAD + len(self.data or b"")


class ResultCounts(NamedTuple):
    """How many results are kept, and how many bytes they count for by `KeptResult.weight`."""

    results: int
    weight: int
