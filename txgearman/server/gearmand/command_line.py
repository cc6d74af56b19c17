"""Reading a command line and a configuration file as gearmand does. What the options mean is not known here.

gearmand's own way is that of Boost.Program_options: a value stands after the option or ``=``, after the
letter of a short form, or is the next word, whatever that begins with. On the command line an option must be
written out. In the file, which is words between spaces and line ends, an unambiguous beginning will do, and
words that are no options are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from txgearman.server.gearmand.options import (
    BY_NAME,
    BY_SHORT,
    COUNTED_LEVELS,
    DEFAULT_CONFIG,
    OPTIONS,
    GearmandOption,
)

MAX_SIZE: Final = 1024 * 1024
"""Bytes of a configuration file; a larger one is taken for a mistake."""

_SEPARATORS: Final = re.compile(r"[ \n\r]+")
_WHOLE: Final = re.compile(r"[+-]?\d{1,18}")


class CommandLineError(ValueError):
    """The options cannot be used. The text is for the operator."""


def read_options(words: Sequence[str]) -> dict[str, str]:
    """Read the command line, and the configuration file that it names or that is there by default.

    Args:
        words: The words after the program's name.

    Returns:
        The value of each option that was given, by its long name; empty for one that takes none. What the
        command line says holds before what the file says.

    Raises:
        CommandLineError: An option, a value or the file cannot be used.
    """
    said = _parse(words, from_file=False)
    path = said.get("config-file", DEFAULT_CONFIG)
    text = _text_of(path)
    if text is None:
        if path != DEFAULT_CONFIG:
            raise CommandLineError(f"Could not open configuration file {path}.")
        return said
    return _parse(list(filter(None, _SEPARATORS.split(text))), from_file=True) | said


def _text_of(path: str) -> str | None:
    """The text of a file; None for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError:
        return None
    if len(content) > MAX_SIZE:
        raise CommandLineError(f"{path}: larger than {MAX_SIZE} bytes")
    return content.decode("utf-8", "surrogateescape")


def _parse(words: Sequence[str], from_file: bool) -> dict[str, str]:
    said: dict[str, str] = {}
    louder = 0
    left = iter(words)
    for word in left:
        if word.startswith("--") and len(word) > 2:
            option, value = _long(word, left, from_file)
            _note(said, option, value)
        elif word.startswith("-") and len(word) > 1 and word != "--":
            for short, value in _short(word, left):
                if short is None:
                    louder += 1
                else:
                    _note(said, short, value)
        elif not from_file:
            raise _unknown(word)
    if louder:
        said.setdefault("verbose", COUNTED_LEVELS[min(louder, len(COUNTED_LEVELS)) - 1])
    return said


def _note(said: dict[str, str], option: GearmandOption, value: str) -> None:
    if option.name in said:
        raise CommandLineError(f"option '--{option.name}' cannot be specified more than once")
    if option.whole and not _WHOLE.fullmatch(value):
        raise CommandLineError(f"the argument ('{value}') for option '--{option.name}' is invalid")
    said[option.name] = value


def _long(word: str, left: Iterator[str], from_file: bool) -> tuple[GearmandOption, str]:
    name, equals, value = word[2:].partition("=")
    option = BY_NAME.get(name)
    if option is None and from_file and name:
        option = _beginning_with(name, word)
    if option is None:
        raise _unknown(word)
    if option.value is None:
        if equals:
            raise CommandLineError(f"option '--{option.name}' does not take any arguments")
        return option, ""
    if equals and not value:
        raise CommandLineError(
            f"the argument for option '--{option.name}' should follow immediately after the equal sign"
        )
    return option, value if equals else _next(option, left)


def _beginning_with(name: str, word: str) -> GearmandOption | None:
    """The one option whose name begins so; None without one."""
    found = [option for option in OPTIONS if option.name.startswith(name) and not option.hidden]
    if len(found) > 1:
        names = ", ".join(f"'--{option.name}'" for option in found)
        raise CommandLineError(f"option '{word}' is ambiguous and matches {names}")
    return found[0] if found else None


def _short(word: str, left: Iterator[str]) -> Iterator[tuple[GearmandOption | None, str]]:
    """The options of a word of short ones; None is one of ``-v``."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter == "v":
            yield None, ""
            continue
        option = BY_SHORT.get(letter)
        if option is None:
            raise _unknown(word)
        if option.value is None:
            yield option, ""
        else:
            yield option, letters or _next(option, left)
            return


def _next(option: GearmandOption, left: Iterator[str]) -> str:
    value = next(left, None)
    if value is None:
        raise CommandLineError(f"the required argument for option '--{option.name}' is missing")
    return value


def _unknown(word: str) -> CommandLineError:
    return CommandLineError(f"unrecognised option '{word}'")


def number_of(said: Mapping[str, str], name: str, default: int) -> int:
    """The value of an option that is a whole number."""
    return int(said.get(name, default))
