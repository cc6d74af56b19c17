"""Job handles: making them, and finding the live job that one names.

Handles are kept in chunks of consecutive numbers. One dictionary for all would have to grow in one go,
which at two million jobs holds everything up for a third of a second, and would keep its memory when
the queue has drained. A chunk is small enough to stay in the processor's cache while it fills, and goes
when its last job goes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txgearman.broker.entities import Job

CHUNK_BITS: Final = 12
"""Binary digits of a handle's number that stay within a chunk: 4096 handles."""

_LAST_IN_CHUNK: Final = (1 << CHUNK_BITS) - 1
_MAX_DIGITS: Final = 20


_first = operator.itemgetter(0)


class Handles:
    """The live jobs by handle; `prefix` is what handles begin with, ahead of a colon and a number, and
    the first number is the one after `last`.

    `newest` is the chunk that the last handle from `next` belongs to. Whoever takes a handle puts its
    job there; a job may have several.
    """

    __slots__ = ("_chunks", "_format", "_last", "_others", "_prefix", "_recent", "newest")

    def __init__(self, prefix: bytes, last: int = 0) -> None:
        self._prefix = prefix + b":"
        self._format = prefix.replace(b"%", b"%%") + b":%d"
        self._last = last
        self.newest: dict[bytes, Job] = {}
        self._chunks = {last >> CHUNK_BITS: self.newest}
        # The chunk of the handle that was removed last, and most likely of the next.
        self._recent = self.newest
        # Of jobs that were kept from a time when the server had another prefix, or made by another server.
        self._others: dict[bytes, Job] = {}

    def next(self) -> bytes:
        """A handle that was never given before."""
        self._last = number = self._last + 1
        if not number & _LAST_IN_CHUNK:
            if not self.newest:
                del self._chunks[(number - 1) >> CHUNK_BITS]
            self.newest = self._chunks[number >> CHUNK_BITS] = {}
        return self._format % number

    def skip(self, numbers: int) -> int:
        """Leave out so many numbers; returns the first of them."""
        first = self._last + 1
        self.skip_to(self._last + numbers)
        return first

    def skip_to(self, last: int) -> None:
        """Give numbers from after `last` from now on, which must not be less than the last one given."""
        if last >> CHUNK_BITS != self._last >> CHUNK_BITS:
            if not self.newest:
                del self._chunks[self._last >> CHUNK_BITS]
            self.newest = self._chunks.setdefault(last >> CHUNK_BITS, {})
        self._last = last

    def put(self, handle: bytes, job: Job) -> None:
        """Take in a job that has a handle from before."""
        digits = handle.removeprefix(self._prefix)
        if digits.isdigit():
            self._chunks.setdefault(int(digits) >> CHUNK_BITS, {})[handle] = job
        else:
            # Its prefix may begin with ours.
            self._others[handle] = job

    def get(self, handle: bytes) -> Job | None:
        """The live job with this handle, which may be anything that a peer sent."""
        digits = handle.removeprefix(self._prefix)
        if len(digits) > _MAX_DIGITS or not digits.isdigit():
            return self._others.get(handle)
        chunk = self._chunks.get(int(digits) >> CHUNK_BITS)
        return None if chunk is None else chunk.get(handle)

    def remove(self, handle: bytes) -> None:
        """Forget a handle of a live job."""
        chunk = self._recent
        if chunk.pop(handle, None) is None:
            if handle in self._others:
                del self._others[handle]
                return
            self._recent = chunk = self._chunks[self._chunk_of(handle)]
            del chunk[handle]
        if not chunk and chunk is not self.newest:
            del self._chunks[self._chunk_of(handle)]

    def _chunk_of(self, handle: bytes) -> int:
        """The number of the chunk that a handle of ours belongs to."""
        return int(handle[len(self._prefix) :]) >> CHUNK_BITS

    def handle_of(self, number: int) -> bytes:
        """The handle that `next` gave with this number."""
        return self._format % number

    def last(self) -> int:
        """The number of the handle that was given last."""
        return self._last

    def after(self, number: int) -> list[Job]:
        """The live jobs of the chunk of handles that goes on after `number`, or of the next that has any,
        in the order of their handles; about a chunk's length of them. Empty when there are none.

        A job is listed once, by the handle it was given first.
        """
        chunks = {index for index in self._chunks if index >= (number + 1) >> CHUNK_BITS}
        others: dict[int, list[Job]] = {}
        for handle, job in self._others.items():
            if number_of(handle) > number:
                others.setdefault(number_of(handle) >> CHUNK_BITS, []).append(job)
        for index in sorted(chunks | others.keys()):
            chunk = self._chunks.get(index, {})
            jobs = [job for handle, job in chunk.items() if handle == job.handle]
            numbered = [(number_of(job.handle), job) for job in jobs + others.get(index, [])]
            # Not always in order: a job that was kept comes back behind those that came after it.
            numbered.sort(key=_first)
            found = [job for its, job in numbered if its > number]
            if found:
                return found
        return []

    def __iter__(self) -> Iterator[tuple[bytes, Job]]:
        """All handles with their jobs, in the order they were made; those made meanwhile may be left out."""
        yield from list(self._others.items())
        for chunk in list(self._chunks.values()):
            yield from list(chunk.items())


def number_in(handle: bytes) -> int | None:
    """The number that a handle ends with, which may be anything that a peer sent; None without one."""
    _, _, digits = handle.rpartition(b":")
    return int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else None


def number_of(handle: bytes) -> int:
    """The number that a handle of ours ends with."""
    return int(handle[handle.rindex(b":") + 1 :])
