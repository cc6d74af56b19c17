"""Reading TOML so that errors can name the line. No option of ours is known here.

The standard library's reader says nothing of where a value stands. But a TOML file is a row of expressions,
each of whole lines, and what stands before the end of any of them is a TOML file too. So the line of a value
is found by reading beginnings of the file, and only when there is an error to be shown.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

Path = tuple[str | int, ...]
"""The keys that lead to a value, and the index where there is a list of tables."""

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Document:
    """A TOML file that was read: `data` is what it holds.

    Raises `ValueError` if `text` is no TOML, with the line in its first argument and what is wrong in its
    second.
    """

    def __init__(self, text: str) -> None:
        self._lines = _LINE.findall(text)
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _AT.search(str(error))
            line = int(found[1]) if found and found[1] else max(len(self._lines), 1)
            said = str(error)[: found.start()] if found else str(error)
            raise ValueError(line, f"this is not TOML: {said}") from None
        except RecursionError:
            raise ValueError(self._unreadable_from(RecursionError), "nested too deeply") from None
        except ValueError:
            # Python makes no number of more than 4300 digits, as that takes quadratic time.
            raise ValueError(self._unreadable_from(ValueError), "a number has too many digits") from None

    def line(self, path: Path) -> int:
        """The number of the line in which the value that `path` leads to begins, the first being 1."""
        low, high = 0, len(self._lines)  # The value is not in the first `low` lines, and in the first `high`.
        while high - low > 1:
            middle = (low + high) // 2
            if self._has(path, middle):
                high = middle
            else:
                low = middle
        # The expression ends in line `high`, and begins after the one before it.
        begin = high - 1
        while begin and self._read(begin) is None:
            begin -= 1
        return begin + 1

    def _unreadable_from(self, kind: type[Exception]) -> int:
        """The number of the first line with which reading fails in a way that has no line."""
        low, high = 0, len(self._lines)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                tomllib.loads("".join(self._lines[:middle]))
                fails = False
            except tomllib.TOMLDecodeError:
                fails = False
            except kind:
                fails = True
            low, high = (low, middle) if fails else (middle, high)
        return high

    def _has(self, path: Path, lines: int) -> bool:
        """Whether the value is in the expressions that end in the first `lines` lines."""
        while (value := self._read(lines)) is None:
            lines -= 1
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def _read(self, lines: int) -> Any:
        try:
            return tomllib.loads("".join(self._lines[:lines]))
        except tomllib.TOMLDecodeError:
            return None
