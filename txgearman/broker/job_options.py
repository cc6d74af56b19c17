"""What a submit may say of its job alone, in place of what is said for the job's function."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from txgearman.errors import InvalidArgument
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACEPARENT_SIZE: Final = 55
_MAX_TRACEPARENT: Final = 512
"""Characters that a traceparent has at most, where a later version of it says more. The W3C asks for as many
of the header that goes with it."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What is said of one job. None means that nothing is said: what holds for the function holds.

    Encoded, they have 300 bytes at most.

    Attributes:
        expires: Seconds from the job's submission, or its `run_at`, after which no run of it begins; 0 is
            never.
        attempts: How many runs may fail. Clients that wait for the job go on waiting while it is retried.
        backoff: Seconds before the first retry.
        keep_result: Seconds for which the result is kept; 0 is not at all.
        unique_for: Seconds for which the unique is kept after the job is completed; 0 is not at all.
        traceparent: The span that the job's span is below, as `traceparent_from` returns it.

    Raises:
        InvalidArgument: A number is not within its bounds, or the traceparent is malformed.
    """

    expires: float | None = None
    attempts: int | None = None
    backoff: float | None = None
    keep_result: float | None = None
    unique_for: float | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        for name in ("expires", "backoff", "keep_result", "unique_for"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds <= MAX_SECONDS:
                raise InvalidArgument(f"{name} must be 0 to {MAX_SECONDS} seconds")
        if self.attempts is not None and not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise InvalidArgument(f"attempts must be 1 to {MAX_ATTEMPTS}")
        if self.traceparent is not None and traceparent_from(self.traceparent) != self.traceparent:
            raise InvalidArgument("traceparent is malformed")

    def encode(self) -> bytes:
        """The options as a store keeps them: a JSON object of what is said.

        Returns:
            The object.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        said = {name: value for name, value in values.items() if value is not None}
        return json.dumps(said, separators=(",", ":")).encode()


NO_OPTIONS: Final = JobOptions()


def decode_options(stored: bytes | None) -> JobOptions | None:
    """Read what `JobOptions.encode` has made. Options of a newer server are left out.

    Args:
        stored: What the store has; None for a job without options.

    Returns:
        The options; None for none. What cannot be read counts as none: the job is not lost for that.
    """
    if stored is None:
        return None
    try:
        values: Any = json.loads(stored)
        if not isinstance(values, dict):
            return None
        known = {each.name: values[each.name] for each in fields(NO_OPTIONS) if each.name in values}
        return JobOptions(**known)
    except (ValueError, TypeError, RecursionError, InvalidArgument):
        return None


def traceparent_from(text: str) -> str | None:
    """Read a W3C ``traceparent``.

    Args:
        text: What a client has sent.

    Returns:
        The text; None if it is malformed. Then it is to be ignored, as the W3C has it.
    """
    if _TRACEPARENT.match(text) is None or len(text) > _MAX_TRACEPARENT:
        return None
    # Version 00 has nothing after that; a later one goes on with a dash.
    rest = text[_TRACEPARENT_SIZE:]
    if rest and (text.startswith("00") or not rest.startswith("-")):
        return None
    return text[:_TRACEPARENT_SIZE]
