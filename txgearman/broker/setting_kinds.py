"""The settings that administrators make for functions, and what their values are.

Values are those of JSON, as a store keeps them. They hold over what the operator's file says, which the rules
of the policy are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeGuard

from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.policy import FunctionRules, RunRules

SettingValue = bool | int | list[int | float | str | None]

PAUSED: Final = "paused"
"""Whether the function is paused."""

MAX_QUEUE: Final = "maxqueue"
"""How many jobs it may have, by the priority of a new one; null is no limit."""

MAX_RATE: Final = "maxrate"
"""New jobs a second, 0 for no limit, and how many of them may come at once."""

MAX_RUNNING: Final = "max-running"
"""How many jobs of it may run at a time; 0 is no limit."""

START_RATE: Final = "start-rate"
"""How many of its jobs may begin to run in a second, 0 for no limit, and how many at once."""

MAX_RUNNING_PER_KEY: Final = "max-running-per-key"
"""How many of its jobs with the same key may run at a time, 0 for no limit, and what a key ends at, each byte
as the character with its number."""

PAUSE_AFTER: Final = "pause-after"
"""How many failed runs in a row pause it; 0 is never."""

RUN_KINDS: Final = (MAX_RUNNING, START_RATE, MAX_RUNNING_PER_KEY, PAUSE_AFTER)
"""The parts of `RunRules`."""

KINDS: Final = (PAUSED, MAX_QUEUE, MAX_RATE, *RUN_KINDS)


def value_of(rules: FunctionRules, kind: str) -> SettingValue:
    """What rules say, as the value of a setting.

    Args:
        rules: The rules of a function.
        kind: One of `KINDS`.

    Returns:
        The value.
    """
    if kind == PAUSED:
        return False
    if kind == MAX_QUEUE:
        return list(rules.limits or (None,) * PRIORITIES)
    if kind == MAX_RATE:
        return [rules.submit_rate or 0.0, rules.submit_burst or 0]
    return value_of_runs(rules.runs, kind)


def value_of_runs(rules: RunRules, kind: str) -> SettingValue:
    """What limits of runs say, as the value of a setting.

    Args:
        rules: The limits.
        kind: One of `RUN_KINDS`.

    Returns:
        The value.
    """
    if kind == MAX_RUNNING:
        return rules.max_running
    if kind == START_RATE:
        return [rules.start_rate, rules.start_burst]
    if kind == MAX_RUNNING_PER_KEY:
        return [rules.max_running_per_key, rules.key_separator.decode("latin-1")]
    return rules.pause_after


def with_value(rules: RunRules, kind: str, value: SettingValue) -> RunRules:
    """Limits of runs with the value of one setting.

    Args:
        rules: The limits.
        kind: One of `RUN_KINDS`.
        value: What `is_valid`.

    Returns:
        The limits of which `value_of_runs` gives this value.
    """
    if isinstance(value, list):
        number, more = value
        if kind == START_RATE:
            assert number is not None
            return replace(rules, start_rate=float(number), start_burst=int(more or 0))
        separator = str(more).encode("latin-1")
        return replace(rules, max_running_per_key=int(number or 0), key_separator=separator)
    if kind == MAX_RUNNING:
        return replace(rules, max_running=int(value))
    return replace(rules, pause_after=int(value))


def is_valid(kind: str, value: object) -> bool:
    """Test a value that was read, as anybody may have written it.

    Args:
        kind: A kind of setting.
        value: A value.

    Returns:
        Whether this is a kind that is known, and a value of it.
    """
    if kind == PAUSED:
        return isinstance(value, bool)
    if kind == MAX_QUEUE:
        return (
            isinstance(value, list)
            and len(value) == PRIORITIES
            and all(each is None or (type(each) is int and each > 0) for each in value)
        )
    if kind in (MAX_RATE, START_RATE):
        return _is_pair(value) and _is_count(value[1]) and type(value[0]) in (int, float) and value[0] >= 0
    if kind == MAX_RUNNING_PER_KEY:
        return _is_pair(value) and _is_count(value[0]) and _is_separator(value[1])
    return kind in RUN_KINDS and _is_count(value)


def _is_pair(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 2


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_separator(value: object) -> bool:
    return isinstance(value, str) and bool(value) and all(ord(character) < 256 for character in value)
