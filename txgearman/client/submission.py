"""The arguments of a submission, checked and made into the packet that submits the job. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple, TypedDict

from txgearman.connection.arguments import (
    body_of,
    check_count,
    data_bytes,
    function_bytes,
    is_time,
    name_bytes,
)
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS
from txgearman.wire.attributes import format_attributes
from txgearman.wire.codec import pack_header
from txgearman.wire.limits import MAX_FUNCTION, MAX_UNIQUE
from txgearman.wire.packets import (
    REQUEST,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_EXTENDED,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
)


class Priority(Enum):
    """Which of the waiting jobs a worker gets first. The text does too, such as ``"high"``."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def priority_from(priority: Priority | str) -> Priority:
    """The priority that a caller means.

    Args:
        priority: The priority, or its text.

    Returns:
        The priority.

    Raises:
        TypeError: It is neither.
        ValueError: There is no such priority.
    """
    if isinstance(priority, Priority):
        return priority
    if not isinstance(priority, str):
        raise TypeError(f"the priority must be a Priority or its text, not {priority!r}")
    try:
        return Priority(priority.lower())
    except ValueError:
        known = ", ".join(repr(one.value) for one in Priority)
        raise ValueError(f"the priority must be one of {known}, not {priority!r}") from None


LATEST_EPOCH: Final = 2**63 - 1
"""The latest time of a scheduled job in seconds since 1970: a signed 64-bit number. gearmand does not answer
beyond that."""

_PACKETS: Final = {
    (Priority.HIGH, False): SUBMIT_JOB_HIGH,
    (Priority.NORMAL, False): SUBMIT_JOB,
    (Priority.LOW, False): SUBMIT_JOB_LOW,
    (Priority.HIGH, True): SUBMIT_JOB_HIGH_BG,
    (Priority.NORMAL, True): SUBMIT_JOB_BG,
    (Priority.LOW, True): SUBMIT_JOB_LOW_BG,
}


class JobOptions(TypedDict, total=False):
    """What may be said of one job beyond the protocol's own submits. All are extensions of the protocol: they
    need a server that has them. None is as if it were not said, which leaves it to the server.

    Attributes:
        expires: Seconds from the submission, or from `run_at`, after which no run of the job begins; 0 is
            never.
        attempts: How many runs may fail, from 1 to 1000. The server runs the job again, after a backoff; an
            online job's result comes from the last run.
        backoff: Seconds before the first retry.
        keep_result: Seconds for which the server keeps the result of an offline job; 0 is not at all.
        unique_for: Seconds for which the unique is kept once the job is completed: a submission with it is
            answered with this job, and does not run. 0 is not at all.
        traceparent: The span that the job belongs to, as the W3C writes it in the header of this name.
    """

    expires: float | None
    attempts: int | None
    backoff: float | None
    keep_result: float | None
    unique_for: float | None
    traceparent: str | None


def _attributes_of(options: JobOptions) -> dict[str, str]:
    """The options that are said, as attributes. Raises `TypeError` and `ValueError` for what cannot be."""
    attributes: dict[str, str] = {}
    for name, value in options.items():
        if name not in JobOptions.__annotations__:
            raise TypeError(f"a job has no option {name!r}")
        if value is None:
            continue
        if name == "traceparent":
            if not isinstance(value, str):
                raise TypeError(f"the traceparent must be str, not {type(value).__name__}")
            attributes[name] = value
        elif name == "attempts":
            check_count(value, name, 1, MAX_ATTEMPTS)
            attributes[name] = str(value)
        elif isinstance(value, int | float) and is_time(value) and value <= MAX_SECONDS:
            attributes[name] = _decimal(value)
        else:
            raise ValueError(f"{name} must be seconds from 0 to {MAX_SECONDS}, not {value!r}")
    return attributes


class Submission(NamedTuple):
    """A new job whose arguments were checked.

    Attributes:
        packet: The type of the packet that submits it.
        body: The packet's body.
        function: The function's name.
        unique: The job's unique, empty for none.
        background: Whether it is an offline job.
        extended_for: Which arguments need the extended packet; empty for a packet that every server knows.
    """

    packet: int
    body: bytes
    function: bytes
    unique: bytes
    background: bool
    extended_for: str = ""


def submission(
    function: str | bytes,
    data: bytes,
    unique: str | bytes | None,
    priority: Priority | str,
    background: bool,
    run_at: datetime | float | None,
    reducer: str | bytes | None,
    max_packet: int,
    options: JobOptions | None = None,
) -> Submission:
    """Check the arguments of `Client.submit`, and make a packet of them.

    Args:
        function: As for `Client.submit`.
        data: The job's payload.
        unique: As for `Client.submit`.
        priority: As for `Client.submit`.
        background: As for `Client.submit`.
        run_at: As for `Client.submit`.
        reducer: As for `Client.submit`.
        max_packet: The largest body of a packet in bytes.
        options: What else is said of the job.

    Returns:
        The job as its packet: the plain one where that says all.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that no server must see, or the packet would be too large.
    """
    name = function_bytes(function)
    data = data_bytes(data, "the job's data")
    key = b"" if unique is None else name_bytes(unique, "the unique", MAX_UNIQUE)
    if not isinstance(priority, Priority):
        priority = priority_from(priority)
    if run_at is None and reducer is None and not options:
        offline = bool(background)
        body = body_of((name, key, data), max_packet)
        return Submission(_PACKETS[priority, offline], body, name, key, offline)
    attributes = _attributes_of(options) if options else {}
    if options and not attributes:
        return submission(function, data, unique, priority, background, run_at, reducer, max_packet)
    if attributes or (run_at is not None and priority is not Priority.NORMAL):
        return _extended(name, key, data, priority, background, run_at, reducer, attributes, max_packet)
    if priority is not Priority.NORMAL:
        raise ValueError("the protocol has only normal priority for a job with a reducer")
    if run_at is not None:
        if reducer is not None:
            raise ValueError("the protocol has no job with both run_at and a reducer")
        body = body_of((name, key, b"%d" % _epoch(run_at), data), max_packet)
        return Submission(SUBMIT_JOB_EPOCH, body, name, key, True)
    assert reducer is not None
    # The empty field is the aggregator, which no server reads.
    fields = (name, key, name_bytes(reducer, "the reducer's name", MAX_FUNCTION), b"", data)
    packet = SUBMIT_REDUCE_JOB_BACKGROUND if background else SUBMIT_REDUCE_JOB
    return Submission(packet, body_of(fields, max_packet), name, key, bool(background))


def _extended(
    name: bytes,
    key: bytes,
    data: bytes,
    priority: Priority,
    background: bool,
    run_at: datetime | float | None,
    reducer: str | bytes | None,
    attributes: dict[str, str],
    max_packet: int,
) -> Submission:
    """The job as an extended submit."""
    needed_for = [*attributes] or ["priority with run_at"]
    if reducer is not None:
        raise ValueError(f"the protocol has no job with both a reducer and {needed_for[0]}")
    offline = bool(background) or run_at is not None
    if run_at is not None:
        attributes["run_at"] = _decimal(_timestamp(run_at))
    if priority is not Priority.NORMAL:
        attributes["priority"] = priority.value
    if offline:
        attributes["background"] = "1"
    body = body_of((name, key, format_attributes(attributes), data), max_packet)
    return Submission(SUBMIT_JOB_EXTENDED, body, name, key, offline, ", ".join(needed_for))


class JobTemplate:
    """What is the same in many offline jobs: all but their data and uniques, checked as by `submission`.

    Each job must pass `check` first; the other methods check nothing.
    """

    __slots__ = ("_function", "_max_packet", "_packet", "_suffix", "extended_for", "overhead")

    def __init__(
        self,
        function: str | bytes,
        priority: Priority | str,
        run_at: datetime | float | None,
        reducer: str | bytes | None,
        max_packet: int,
        options: JobOptions | None = None,
    ) -> None:
        empty = submission(function, b"", None, priority, True, run_at, reducer, max_packet, options)
        self.extended_for = empty.extended_for
        """As `Submission.extended_for`."""
        self._packet = empty.packet
        self._function = empty.function
        # The unique comes after the function's name, and the data last, whatever the packet.
        self._suffix = empty.body[len(empty.function) + 1 :]
        self._max_packet = max_packet
        self.overhead = len(empty.body)
        """Bytes of a body without data and unique."""

    def check(self, data: bytes, unique: str | bytes | None) -> bytes:
        """The unique as bytes, empty for none. Raises `TypeError` and `ValueError` as `submission` does."""
        data_bytes(data, "the job's data")
        key = b"" if unique is None else name_bytes(unique, "the unique", MAX_UNIQUE)
        size = self.overhead + len(key) + len(data)
        if size > self._max_packet:
            raise ValueError(f"the packet would have {size} bytes, at most {self._max_packet} are allowed")
        return key

    def check_all(
        self, datas: Sequence[bytes], uniques: Iterable[str | bytes | None] | None
    ) -> list[bytes] | None:
        """Check all jobs, and that there are as many uniques as payloads. Returns the uniques as bytes."""
        if uniques is None:
            # Most often all is well, and this finds it several times faster.
            largest = max(map(len, datas), default=0) if set(map(type, datas)) <= {bytes} else None
            if largest is None or self.overhead + largest > self._max_packet:
                for data in datas:
                    self.check(data, None)
            return None
        # One more than needed, as the iterator may be infinite.
        several = list(islice(uniques, len(datas) + 1))
        if len(several) != len(datas):
            raise ValueError("there must be as many uniques as payloads")
        return [self.check(data, unique) for data, unique in zip(datas, several, strict=True)]

    def fill(self, data: bytes, unique: bytes) -> Submission:
        """A single job."""
        body = b"".join((self._function, b"\0", unique, self._suffix, data))
        return Submission(self._packet, body, self._function, unique, True, self.extended_for)

    def packets(self, datas: Sequence[bytes], uniques: Sequence[bytes] | None) -> bytes:
        """The packets of many jobs, one behind the other."""
        pieces: list[bytes] = []
        before = self._function + b"\0"
        if uniques is None:
            # Payloads of one batch have few sizes, and what precedes the data depends on the size alone.
            heads: dict[int, bytes] = {}
            for data in datas:
                size = len(data)
                head = heads.get(size)
                if head is None:
                    header = pack_header(REQUEST, self._packet, self.overhead + size)
                    head = heads[size] = header + before + self._suffix
                pieces.append(head)
                pieces.append(data)
        else:
            for data, unique in zip(datas, uniques, strict=True):
                size = self.overhead + len(unique) + len(data)
                pieces += (
                    pack_header(REQUEST, self._packet, size),
                    before,
                    unique,
                    self._suffix,
                    data,
                )
        return b"".join(pieces)


def _epoch(when: datetime | float) -> int:
    """`when` in whole seconds since 1970, rounded up so that no job runs before its time."""
    return math.ceil(_timestamp(when))


def _timestamp(when: datetime | float) -> float:
    """`when` in seconds since 1970."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(f"run_at needs a time zone: {when!r}")
        when = when.timestamp()
    elif isinstance(when, bool) or not isinstance(when, int | float):
        raise TypeError(f"run_at must be a datetime or a number of seconds, not {type(when).__name__}")
    if isinstance(when, float) and not math.isfinite(when):
        raise ValueError(f"run_at must be finite: {when!r}")
    if not (when > -1 and math.ceil(when) <= LATEST_EPOCH):
        raise ValueError(f"run_at must lie between 1970 and {LATEST_EPOCH} seconds later: {when!r}")
    return max(when, 0)


def _decimal(number: float) -> str:
    """A number as servers read it: without an exponent, and to the microsecond."""
    return str(number) if isinstance(number, int) else f"{number:.6f}".rstrip("0").rstrip(".")
