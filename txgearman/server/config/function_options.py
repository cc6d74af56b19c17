"""What an operator may choose for single functions, and the bounds of what is chosen for all of them alike.
Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.policy import UNLIMITED, FunctionRules
from txgearman.job_limits import MAX_SECONDS
from txgearman.server.config.option_kinds import (
    FLAG,
    INTEGER,
    LARGEST_WHOLE,
    NUMBER,
    SECONDS,
    Kind,
    option,
    show_value,
    verify,
)
from txgearman.server.config.run_limit_options import for_one, run_rules
from txgearman.wire.limits import MAX_FUNCTION

MAX_RATE: Final = 10**9
"""The largest rate and burst of new jobs, of ``maxrate`` too: more than any server takes."""

MAX_TIME_LIMIT: Final = MAX_SECONDS
"""Seconds of the longest time limit of a function, ten years, as for workers that set one."""

MIN_HEARTBEAT: Final = 1.0
"""Seconds of the shortest heartbeat, as of the shortest time limit: below that a busy machine looks dead, and
what workers send for it becomes a load."""


def check_function_name(name: str) -> None:
    """Test the name of a function, or a pattern for one.

    Args:
        name: What the operator wrote.

    Raises:
        ValueError: It is empty, or longer than a name may be.
    """
    if not 0 < len(name.encode()) <= MAX_FUNCTION:
        raise ValueError(
            f"the name of a function must have 1 to {MAX_FUNCTION} bytes, not {show_value(name)}"
        )


def _limits(value: Any) -> tuple[int, ...]:
    numbers = [value] * PRIORITIES if type(value) is int else value
    if type(numbers) is not list or [type(number) for number in numbers] != [int] * PRIORITIES:
        raise TypeError
    if min(numbers) < 0 or max(numbers) > LARGEST_WHOLE:
        raise ValueError
    return tuple(numbers)


def _limits_of_text(text: str) -> tuple[int, ...]:
    numbers = [int(number) for number in text.split(",")]
    return _limits(numbers if len(numbers) > 1 else numbers[0])


def _check_limits(limits: Any) -> None:
    try:
        _limits(list(limits))
    except (TypeError, ValueError):
        raise ValueError(f"must be {LIMITS.called}, not {show_value(limits)}") from None


def _check_heartbeat(seconds: float) -> None:
    if 0 < seconds < MIN_HEARTBEAT:
        raise ValueError(f"must be 0, or {MIN_HEARTBEAT:g} or more, not {show_value(seconds)}")


LIMITS: Final = Kind(
    "a number of jobs, or a list of one for high, normal and low priority", _limits_of_text, _limits
)


# What is said for all functions and for one alone has the same values.
LOSSES: Final[dict[str, Any]] = {"kind": INTEGER, "least": UNLIMITED}
ATTEMPTS: Final[dict[str, Any]] = {"kind": INTEGER, "least": 1}
DURATION: Final[dict[str, Any]] = {"kind": SECONDS, "least": 0, "most": MAX_TIME_LIMIT}
BACKOFF: Final = DURATION
BACKOFF_FACTOR: Final[dict[str, Any]] = {"kind": NUMBER, "least": 1, "most": 1000}
HEARTBEAT: Final[dict[str, Any]] = {**DURATION, "check": _check_heartbeat}
JITTER: Final[dict[str, Any]] = {"kind": NUMBER, "least": 0, "most": 1}


def _as_for_all(name: str, values: Mapping[str, Any]) -> Any:
    """The option of one function that is `name` for all functions."""
    return option(None, f"As ``{name}``, for the jobs of this function.", **values)


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """The settings of one function, or of those whose name fits a pattern; None where nothing is said.

    Attributes:
        queue_limit: How many jobs the function may have when one more is let in, by the priority of that one
            (high, normal, low). 0 is no limit.
        time_limit: Seconds after which a running job is given to another worker. 0 is no limit.
        job_retries: How many workers may lose a job before it fails.
        submit_rate: New jobs a second. 0 is no limit.
        submit_burst: How many of them may come at once. 0 is as many as the rate.

    Raises:
        ValueError: A value cannot be.
    """

    queue_limit: tuple[int, ...] | None = option(
        None,
        "A new job is refused with QUEUE_ERROR while the function has so many jobs or more, running ones "
        "included. A list of three numbers is for new jobs of high, normal and low priority. 0 is no limit.",
        kind=LIMITS,
        check=_check_limits,
    )
    time_limit: float | None = option(
        None,
        "Seconds after which a running job is taken from its worker and given to another, as with "
        "CAN_DO_TIMEOUT; of the two limits the shorter one holds. 0 is no limit.",
        **DURATION,
    )
    job_retries: int | None = _as_for_all("job-retries", LOSSES)
    attempts: int | None = _as_for_all("attempts", ATTEMPTS)
    backoff: float | None = _as_for_all("backoff", BACKOFF)
    backoff_factor: float | None = _as_for_all("backoff-factor", BACKOFF_FACTOR)
    backoff_max: float | None = _as_for_all("backoff-max", BACKOFF)
    jitter: float | None = _as_for_all("jitter", JITTER)
    heartbeat: float | None = _as_for_all("heartbeat", HEARTBEAT)
    retry_online: bool | None = option(
        None,
        "Let clients that wait for a result wait while the job is retried. Otherwise they are told of the "
        "first failure, and the job is not retried for them.",
        kind=FLAG,
    )
    expires: float | None = option(
        None,
        "Seconds from a job's submission, or from the time it is to run at, after which no run of it begins: "
        "the job ends. One that had failed before is dead then. 0 is never.",
        **DURATION,
    )
    unique_for: float | None = option(
        None,
        "Seconds for which the unique of a job is kept once the job is completed: a submit with it is "
        "answered with this job and does not run. 0 is not at all.",
        **DURATION,
    )
    keep_results: float | None = option(
        None,
        "Seconds for which the results of background jobs are kept for whoever asks for them. 0 keeps none.",
        **DURATION,
    )
    submit_rate: float | None = option(
        None,
        "How many new jobs a second the function takes; one more is refused with RATE_EXCEEDED. "
        "0 is no limit.",
        kind=NUMBER,
        least=0,
        most=MAX_RATE,
    )
    submit_burst: int | None = option(
        None,
        "How many of them may come at once. 0 is as many as the rate, and at least one.",
        kind=INTEGER,
        least=0,
        most=MAX_RATE,
    )

    max_running: int | None = for_one("max_running", _as_for_all)
    start_rate: float | None = for_one("start_rate", _as_for_all)
    start_burst: int | None = for_one("start_burst", _as_for_all)
    max_running_per_key: int | None = for_one("max_running_per_key", _as_for_all)
    key_separator: str | None = for_one("key_separator", _as_for_all)
    pause_after: int | None = for_one("pause_after", _as_for_all)

    def __post_init__(self) -> None:
        verify(self)

    @property
    def rules(self) -> FunctionRules:
        """The part that is the broker's."""
        limits = None if self.queue_limit is None else tuple(limit or None for limit in self.queue_limit)
        return replace(
            run_rules(self),
            limits=limits,
            time_limit=self.time_limit,
            job_retries=self.job_retries,
            submit_rate=self.submit_rate,
            submit_burst=self.submit_burst,
            attempts=self.attempts,
            backoff=self.backoff,
            backoff_factor=self.backoff_factor,
            backoff_max=self.backoff_max,
            jitter=self.jitter,
            retry_online=self.retry_online,
            expires=self.expires,
            heartbeat=self.heartbeat,
            unique_for=self.unique_for,
            keep_results=self.keep_results,
        )
