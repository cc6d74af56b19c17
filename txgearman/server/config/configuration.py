"""The configuration file: TOML with the options of the command line, settings of functions, rules of access.

What there may be follows from the descriptions of the options; here is only how the file is laid out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from txgearman.access.policy import AccessPolicy
from txgearman.server.config.access_rules import RuleSettings
from txgearman.server.config.function_options import FunctionSettings, check_function_name
from txgearman.server.config.option_kinds import PATH, Option, options_of, show_value
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.server.config.toml import Document, Path

MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes; a larger file is taken for a mistake, such as the name of a log."""


class ConfigurationError(ValueError):
    """A configuration file is wrong. The text has a line for each mistake: file, line number, mistake."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a file says: `said` are values of options by name, `functions` the settings of functions,
    `schedules` recurring jobs, `access` who may do what, None if it says nothing of it. `lines` are
    where options stand, by name."""

    said: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, FunctionSettings] = field(default_factory=dict)
    schedules: Mapping[str, ScheduleSettings] = field(default_factory=dict)
    access: AccessPolicy | None = None
    lines: Mapping[str, int] = field(default_factory=dict)


def read_configuration(path: str, options: Sequence[Option]) -> Configuration:
    """Read the file at `path`, in which each of `options` may stand. Raises `ConfigurationError`."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_SIZE:
        raise ConfigurationError(f"{path}: larger than {MAX_SIZE} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8") from None
    try:
        document = Document(text)
    except ValueError as error:
        line, said = error.args
        raise ConfigurationError(f"{path}:{line}: {said}") from None
    return _Reading(path, document, options).done()


class _Reading:
    """One reading of one file, which goes on after a mistake to find them all."""

    def __init__(self, path: str, document: Document, options: Sequence[Option]) -> None:
        self._path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._document = document
        self._options = {option.name: option for option in options}
        self._mistakes: list[tuple[int, str]] = []

    def done(self) -> Configuration:
        data = dict(self._document.data)
        functions = self._functions(data.pop("functions", {}))
        schedules = self._schedules(data.pop("schedules", {}))
        access = self._access(data.pop("access")) if "access" in data else None
        said = self._values((), data, self._options, tables=("functions", "schedules", "access"))
        if self._mistakes:
            lines = [f"{self._path}:{line}: {text}" for line, text in sorted(self._mistakes)]
            raise ConfigurationError("\n".join(lines))
        stand = {name: self._document.line((name,)) for name in said}
        return Configuration(said, functions, schedules, access, stand)

    def _wrong(self, path: Path, text: str) -> None:
        self._mistakes.append((self._document.line(path), text))

    def _values(
        self, path: Path, table: Mapping[str, Any], options: Mapping[str, Option], tables: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The values of a table whose keys are options."""
        values = {}
        for key, value in table.items():
            option = options.get(key)
            if option is None:
                self._wrong((*path, key), _unknown(path, key, [*options, *tables]))
                continue
            try:
                values[key] = option.of_toml(value)
            except ValueError as error:
                self._wrong((*path, key), str(error))
            else:
                if option.kind is PATH:
                    values[key] = os.path.join(self._folder, values[key])
        return values

    def _functions(self, tables: Any) -> dict[str, FunctionSettings]:
        functions = {}
        options = {option.name: option for option in options_of(FunctionSettings)}
        for name, table in self._tables("functions", tables):
            try:
                check_function_name(name)
            except ValueError as error:
                self._wrong(("functions", name), str(error))
            values = self._values(("functions", name), table, options)
            functions[name] = FunctionSettings(
                **{options[key].attribute: value for key, value in values.items()}
            )
        return functions

    def _schedules(self, tables: Any) -> dict[str, ScheduleSettings]:
        schedules = {}
        options = {option.name: option for option in options_of(ScheduleSettings)}
        for name, table in self._tables("schedules", tables):
            mistakes = len(self._mistakes)
            values = self._values(("schedules", name), table, options)
            if len(self._mistakes) > mistakes:
                # What follows from a wrong value is no mistake of its own.
                continue
            try:
                settings = ScheduleSettings(
                    **{options[key].attribute: value for key, value in values.items()}
                )
                settings.schedule(name)
            except ValueError as error:
                self._wrong(("schedules", name), str(error))
            else:
                schedules[name] = settings
        return schedules

    def _access(self, tables: Any) -> AccessPolicy:
        rules = []
        options = {option.name: option for option in options_of(RuleSettings)}
        for name, table in self._tables("access", tables):
            values = self._values(("access", name), table, options)
            try:
                rules.append(
                    RuleSettings(**{options[key].attribute: value for key, value in values.items()}).rule(
                        name
                    )
                )
            except ValueError as error:
                self._wrong(("access", name), str(error))
        return AccessPolicy(tuple(rules))

    def _tables(self, name: str, tables: Any) -> list[tuple[str, dict[str, Any]]]:
        """The tables in the table `name`."""
        if not isinstance(tables, dict):
            self._wrong((name,), f"{name} must be a table: [{name}.NAME]")
            return []
        found = []
        for key, table in tables.items():
            if isinstance(table, dict):
                found.append((key, table))
            else:
                self._wrong((name, key), f"{name}.{key} must be a table: [{name}.NAME]")
        return found


def _unknown(path: Path, key: str, known: Sequence[str]) -> str:
    if not path and any(option.name == key for option in options_of(FunctionSettings)):
        return f'{key} is a setting of functions; for all of them put it below [functions."*"]'
    near = get_close_matches(key, known, n=1)
    return f"unknown key {show_value(key)}" + (f"; did you mean {near[0]!r}?" if near else "")
