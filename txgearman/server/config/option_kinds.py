"""What an option is: described once, as a field of a dataclass. The command line, the configuration file,
``--help`` and the table of docs/server.rst follow from that. No option is named here: they are in `options`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

LARGEST_WHOLE: Final = 2**63 - 1
"""The largest whole number of an option without a bound of its own: what databases and systems take for one.
None is needed that large."""

LONGEST_SAID: Final = 60
"""Characters of a wrong value that an error shows."""

_SIZES: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}
_TIMES: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of a kind are written.

    `called` is what an error calls them. `of_text` makes a value of the word on the command line, `of_toml`
    of what the configuration file has; both raise `ValueError` or `TypeError` for what is no such value.
    `repeated` means that the option may be given more than once, and its values make a tuple. `numbers` are
    the types of its values where these are numbers, which are finite then and no booleans.
    """

    called: str
    of_text: Callable[[str], Any]
    of_toml: Callable[[Any], Any]
    repeated: bool = False
    numbers: tuple[type, ...] = ()


def _only(*types: type) -> Callable[[Any], Any]:
    """Lets through what is of one of the types; True is no number."""

    def check(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError
        return value

    return check


def _suffixed(units: Mapping[str, float], number: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        unit = units.get(text[-1:].lower())
        return number(text) if unit is None else number(text[:-1]) * unit

    return convert


def _texts(value: Any) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if type(value) is not list or not all(type(text) is str for text in value):
        raise TypeError
    return tuple(value)


def _text_or(kind_of_text: Callable[[str], Any], *types: type) -> Callable[[Any], Any]:
    return lambda value: kind_of_text(value) if type(value) is str else _only(*types)(value)


def _finite(number: str | int | float) -> float:
    """A finite number, and no -0. Raises `ValueError`, or `OverflowError` for a whole number too large."""
    value = float(number) + 0.0
    if not math.isfinite(value):
        raise ValueError
    return value


_of_size: Final = _suffixed(_SIZES, int)
_of_time: Final = _suffixed(_TIMES, float)


def _seconds(text: str) -> float:
    # Behind the unit: 1e308d is finite only without it.
    return _finite(_of_time(text))


def _number(value: Any) -> float:
    return _finite(_only(int, float)(value))


FLAG: Final = Kind("true or false", lambda _text: True, _only(bool))
INTEGER: Final = Kind("a whole number", int, _only(int), numbers=(int,))
NUMBER: Final = Kind("a number", _finite, _number, numbers=(int, float))
SIZE: Final = Kind(
    "a number of bytes, with K, M or G after it if wanted", _of_size, _text_or(_of_size, int), numbers=(int,)
)
SECONDS: Final = Kind(
    "a number of seconds, with s, m, h or d after it if wanted",
    _seconds,
    lambda value: _seconds(value) if type(value) is str else _number(value),
    numbers=(int, float),
)
TEXT: Final = Kind("text", str, lambda value: str(value) if type(value) is int else _only(str)(value))
"""In the configuration file a whole number too, such as a port."""
PATH: Final = Kind("the path of a file", os.path.abspath, _only(str))
TEXTS: Final = Kind("text, or a list of texts", lambda text: (text,), _texts, repeated=True)


def choice(values: type[Enum]) -> Kind:
    """One of the values of an enum, each of which is a text."""
    return Kind(" or ".join(repr(value.value) for value in values), values, _text_or(values))


def _is_finite(value: Any) -> bool:
    # A whole number is, but may be too large for a float.
    return type(value) is int or math.isfinite(value)


def _bound(most: float) -> str:
    return str(most) if isinstance(most, int) else f"{most:g}"


def show_value(value: Any) -> str:
    """A wrong value as an error shows it: in TOML's words where that is easy, and never long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**LONGEST_SAID:
        # Python refuses to write very long ones, as that takes quadratic time.
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}..."


class OptionError(ValueError):
    """The value of an option cannot be used. The text says so without the option's name.

    Args:
        name: The option.
        text: What is wrong.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.option = name


@contextmanager
def about_option(name: str) -> Iterator[None]:
    """Say of each `ValueError` from within which option it is about."""
    try:
        yield
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(name, str(error)) from error


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `option` tells what the attributes are; `attribute` is the name of the field."""

    attribute: str
    name: str
    kind: Kind
    default: Any
    meaning: str
    short: str | None
    shown: str
    reloadable: bool
    least: float | None
    most: float | None
    check: Callable[[Any], None] | None

    @property
    def is_flag(self) -> bool:
        """Whether it is given without a value."""
        return self.kind is FLAG

    def of_text(self, text: str) -> Any:
        """The value that `text` on the command line stands for. Raises `ValueError`, naming the option."""
        return self._convert(self.kind.of_text, text)

    def of_toml(self, value: Any) -> Any:
        """The value that `value` in the configuration file stands for. Raises `ValueError` likewise."""
        return self._convert(self.kind.of_toml, value)

    def _convert(self, convert: Callable[[Any], Any], value: Any) -> Any:
        try:
            converted = convert(value)
        except (TypeError, ValueError, OverflowError):
            raise self._no_such_value(value) from None
        self.verify(converted)
        return converted

    def _no_such_value(self, value: Any) -> ValueError:
        return ValueError(f"{self.name} must be {self.kind.called}, not {show_value(value)}")

    def verify(self, value: Any) -> None:
        """Raises `ValueError`, naming the option, if the value is no such number or out of its bounds."""
        if value is None:
            return
        if self.kind.numbers and (type(value) not in self.kind.numbers or not _is_finite(value)):
            raise self._no_such_value(value)
        if self.least is not None and value < self.least:
            raise ValueError(f"{self.name} must be {self.least:g} or more, not {show_value(value)}")
        most = LARGEST_WHOLE if self.most is None and int in self.kind.numbers else self.most
        if most is not None and value > most:
            raise ValueError(f"{self.name} must be {_bound(most)} or less, not {show_value(value)}")
        if self.check is not None:
            try:
                self.check(value)
            except ValueError as error:
                raise ValueError(f"{self.name} {error}") from None


def option(
    default: Any,
    meaning: str,
    *,
    kind: Kind | None = None,
    name: str | None = None,
    short: str | None = None,
    shown: str | None = None,
    reloadable: bool = False,
    least: float | None = None,
    most: float | None = None,
    check: Callable[[Any], None] | None = None,
) -> Any:
    """A field of a dataclass that is an option.

    `default` is its value if nothing is said, or what makes it. `meaning` are sentences for operators, with
    code in double backquotes. `kind` follows from the default, if it is not given. `name` is the field's,
    with hyphens, if it is not given. `short` is a letter. `shown` is how the default is written, if not as it
    is. `reloadable` means that a reload of the configuration changes it: nobody may keep a copy of its value.
    `least` and `most` are bounds. `check` raises `ValueError` for what cannot be, with a text that goes on
    after the option's name.
    """
    if kind is None:
        kind = _kind_of(default)
    shown = _shown(default) if shown is None else shown
    metadata = {Option: (name, kind, default, meaning, short, shown, reloadable, least, most, check)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _kind_of(default: Any) -> Kind:
    if isinstance(default, Enum):
        return choice(type(default))
    kinds = {bool: FLAG, int: INTEGER, float: SECONDS, tuple: TEXTS}
    return kinds.get(type(default), TEXT)


def _shown(default: Any) -> str:
    if default is None or default is False:
        return ""
    if isinstance(default, tuple):
        return " ".join(f"``{value}``" for value in default)
    value = default.value if isinstance(default, Enum) else default
    return f"``{value:g}``" if isinstance(value, float) else f"``{value}``"


def options_of(settings: type) -> tuple[Option, ...]:
    """The options that are fields of a dataclass, in its order."""
    found = []
    for each in fields(settings):
        if Option in each.metadata:
            name, *rest = each.metadata[Option]
            found.append(Option(each.name, name or each.name.replace("_", "-"), *rest))
    return tuple(found)


def with_values(settings: type[T], values: Mapping[str, Any]) -> T:
    """Settings with those of `values`, by the names of options, that are theirs, and defaults for the rest.

    Raises `ValueError` for what a value cannot be.
    """
    return settings(
        **{each.attribute: values[each.name] for each in options_of(settings) if each.name in values}
    )


def with_reloadable(before: T, wanted: T) -> tuple[T, list[str], list[str]]:
    """What settings become that run as `before` when `wanted` is asked for: the reloadable options change.

    Returns them, the names of the options that changed, and of those that would have to.
    """
    changed = [
        each
        for each in options_of(type(before))
        if getattr(before, each.attribute) != getattr(wanted, each.attribute)
    ]
    values = {each.attribute: getattr(wanted, each.attribute) for each in changed if each.reloadable}
    return (
        replace(cast(Any, before), **values),
        [each.name for each in changed if each.reloadable],
        [each.name for each in changed if not each.reloadable],
    )


def verify(settings: Any) -> None:
    """Raises `ValueError`, naming the option, if a field of the dataclass is out of its option's bounds."""
    for each in options_of(type(settings)):
        each.verify(getattr(settings, each.attribute))
