"""The options that limit what runs: those for all functions, and for one function the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from txgearman.broker.policy import (
    KEY_SEPARATOR,
    MAX_SEPARATOR,
    MAX_START_RATE,
    NO_RULES,
    NO_RUN_RULES,
    FunctionRules,
    RunRules,
)
from txgearman.server.config.option_kinds import INTEGER, NUMBER, TEXT, Option, option, options_of, show_value


def _check_separator(separator: str) -> None:
    if not 0 < len(separator) <= MAX_SEPARATOR:
        raise ValueError(f"must have 1 to {MAX_SEPARATOR} characters")


_COUNT: Final[dict[str, Any]] = {"kind": INTEGER, "least": 0}
_RATE: Final[dict[str, Any]] = {"kind": NUMBER, "least": 0, "most": MAX_START_RATE}
_BURST: Final[dict[str, Any]] = {"kind": INTEGER, "least": 0, "most": MAX_START_RATE}
_SEPARATOR: Final[dict[str, Any]] = {"kind": TEXT, "check": _check_separator}

_OPTIONS: Final[dict[str, tuple[Any, str, dict[str, Any]]]] = {
    "max_running": (
        0,
        "How many jobs of a function may run at a time. While so many run, workers find the function empty. "
        "It holds for all servers on one database together. 0 is no limit.",
        _COUNT,
    ),
    "start_rate": (
        0.0,
        "How many jobs of a function may begin to run in a second, in the long run. It holds for each server "
        "alone: two on one database may begin twice as many. 0 is no limit.",
        _RATE,
    ),
    "start_burst": (
        0,
        "How many of them may begin at once. 0 is as many as the rate, and at least one.",
        _BURST,
    ),
    "max_running_per_key": (
        0,
        "How many jobs of a function with the same key may run at a time. The key is what a job's unique has "
        "before the ``--key-separator``, or all of it; an empty one is none. Full keys are passed over. It "
        "holds for all servers on one database together. 0 is no limit.",
        _COUNT,
    ),
    "key_separator": (KEY_SEPARATOR.decode(), "What ends the key in a unique.", _SEPARATOR),
    "pause_after": (
        0,
        "Pause a function by itself when so many of its runs have failed in a row. Each server on a database "
        "counts those of its own workers; the pause is for all. 0 is never.",
        _COUNT,
    ),
}


RUN_LIMITS: Final = tuple(name.replace("_", "-") for name in _OPTIONS)
"""What the limits are called."""


def for_all(name: str) -> Any:
    """The option for all functions that this field is."""
    default, meaning, values = _OPTIONS[name]
    return option(default, meaning, reloadable=True, **values)


def for_one(name: str, as_for_all: Callable[[str, dict[str, Any]], Any]) -> Any:
    """The option of one function that this field is, as `as_for_all` makes it."""
    return as_for_all(name.replace("_", "-"), _OPTIONS[name][2])


class RunLimitSettings(Protocol):
    """What the settings of all functions and of one have in common."""

    @property
    def max_running(self) -> int | None: ...
    @property
    def start_rate(self) -> float | None: ...
    @property
    def start_burst(self) -> int | None: ...
    @property
    def max_running_per_key(self) -> int | None: ...
    @property
    def key_separator(self) -> str | None: ...
    @property
    def pause_after(self) -> int | None: ...


def run_rules(settings: RunLimitSettings) -> FunctionRules:
    """The rules that are said by these settings."""
    separator = settings.key_separator
    return FunctionRules(
        max_running=settings.max_running,
        start_rate=settings.start_rate,
        start_burst=settings.start_burst,
        max_running_per_key=settings.max_running_per_key,
        key_separator=None if separator is None else separator.encode(),
        pause_after=settings.pause_after,
    )


def default_rules(settings: RunLimitSettings) -> FunctionRules:
    """The rules of functions that nothing else is said of; `NO_RULES` where there are none."""
    rules = run_rules(settings)
    return NO_RULES if rules.runs == NO_RUN_RULES else rules


@dataclass(frozen=True, slots=True)
class _OneLimit:
    """The options of one function once more, by which their values are read."""

    max_running: int = for_all("max_running")
    start_rate: float = for_all("start_rate")
    start_burst: int = for_all("start_burst")
    max_running_per_key: int = for_all("max_running_per_key")
    key_separator: str = for_all("key_separator")
    pause_after: int = for_all("pause_after")


_BY_NAME: Final[dict[str, Option]] = {each.name: each for each in options_of(_OneLimit)}


def with_run_limit(rules: RunRules, name: str, value: str) -> RunRules:
    """The rules with another value for one limit.

    Args:
        rules: The rules as they are.
        name: Which limit, one of `RUN_LIMITS`.
        value: Its value, as on the command line.

    Returns:
        The rules with that value.

    Raises:
        ValueError: There is no such limit, or no such value.
    """
    each = _BY_NAME.get(name)
    if each is None:
        raise ValueError(f"{show_value(name)} is none of {', '.join(RUN_LIMITS)}")
    converted = each.of_text(value)
    return replace(rules, **{each.attribute: converted.encode() if each.kind is TEXT else converted})
