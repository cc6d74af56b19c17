"""What the attributes of SUBMIT_JOB_EXTENDED say: read and checked, for the broker. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from txgearman.broker.job_options import NO_OPTIONS, JobOptions, traceparent_from
from txgearman.broker.job_states import Priority
from txgearman.errors import InvalidArgument
from txgearman.wire.attributes import parse_attributes

MAX_EPOCH: Final = 253402300799
"""Seconds since the epoch: the end of the year 9999, the last date Python's datetime has."""

_PRIORITIES: Final = {priority.name.lower(): int(priority) for priority in Priority}
_FLAGS: Final = {"0": False, "1": True}
_WHOLE: Final = re.compile(r"[0-9]{1,20}\Z", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?\Z", re.ASCII)


class SubmitAttributes(NamedTuple):
    """The attributes of a submit.

    Attributes:
        background: Whether the job goes on without a client.
        priority: One of `Priority`, as a plain int.
        run_at: Seconds since the epoch before which no worker gets the job; None for at once.
        options: What is said of the job alone; None for nothing.
    """

    background: bool
    priority: int
    run_at: float | None
    options: JobOptions | None


def read_submit_attributes(field: bytes) -> SubmitAttributes:
    """Read the attributes of a submit.

    Args:
        field: The field of the packet.

    Returns:
        What they say. What they do not say is as with SUBMIT_JOB.

    Raises:
        ArgumentTooLarge: There are too many, or they are too long.
        InvalidArgument: One is unknown, or has a value that cannot be.
    """
    values = parse_attributes(field)
    background = _choice(values, "background", _FLAGS, False)
    priority = _choice(values, "priority", _PRIORITIES, int(Priority.NORMAL))
    run_at = _seconds(values, "run_at")
    if run_at is not None and run_at > MAX_EPOCH:
        raise InvalidArgument(f"run_at must not exceed {MAX_EPOCH}")
    attempts = values.pop("attempts", None)
    if attempts is not None and _WHOLE.match(attempts) is None:
        raise _bad("attempts", "a whole number")
    traceparent = values.pop("traceparent", None)
    options = JobOptions(
        expires=_seconds(values, "expires"),
        attempts=None if attempts is None else int(attempts),
        backoff=_seconds(values, "backoff"),
        keep_result=_seconds(values, "keep_result"),
        unique_for=_seconds(values, "unique_for"),
        traceparent=None if traceparent is None else traceparent_from(traceparent),
    )
    if values:
        raise InvalidArgument(f"Attribute is not known: {next(iter(values))}")
    return SubmitAttributes(background, priority, run_at, None if options == NO_OPTIONS else options)


def _choice(values: dict[str, str], name: str, choices: Mapping[str, Any], default: Any) -> Any:
    text = values.pop(name, None)
    if text is None:
        return default
    if text not in choices:
        raise _bad(name, " or ".join(choices))
    return choices[text]


def _seconds(values: dict[str, str], name: str) -> float | None:
    text = values.pop(name, None)
    if text is None:
        return None
    if _DECIMAL.match(text) is None:
        raise _bad(name, "a decimal number of seconds")
    return float(text)


def _bad(name: str, rule: str) -> InvalidArgument:
    return InvalidArgument(f"{name} must be {rule}")
