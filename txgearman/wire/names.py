r"""Names of peers in the lines of admin lists: escaped by the server, turned back by clients.

A name is a function, a unique, a client id: any bytes that a peer chose. Raw, it could end its line, add a
column, end the list, read as a refusal, or give orders to the terminal that it is shown on. gearmand prints
names raw; the escapes are this package's.

* TAB, CR and LF are ``\t``, ``\r`` and ``\n``. Each byte of another control character is ``\x`` and two
  hexadecimal digits. These are ASCII's, those of C1 (U+0080 to U+009F, and bytes 0x80 to 0x9F that are not
  UTF-8), and the line and paragraph separators of Unicode, at which some readers cut lines.
* A backslash is doubled ahead of what would read as an escape: a backslash, ``t``, ``r``, ``n``, ``x``. Any
  other stays, so that ``App\Jobs`` is shown as it is.
* The first letter is escaped where the name reads as a part of the frame, also to readers that ignore spaces
  around it: ``.`` ends a list, a line that begins with the word ``ERR`` or ``OK`` is an answer of its own.

All else stays, UTF-8 and bytes that are not. `unescape` gives the name back in every case.
"""

from __future__ import annotations

import re
from typing import Final

# Decoded with surrogateescape, so that bytes that are not UTF-8 are U+DC80 to U+DCFF.
_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xDC80, 0xDCA0))
_SHORT: Final = {"\t": r"\t", "\r": r"\r", "\n": r"\n"}
_MEANT: Final = {b"\\t": b"\t", b"\\r": b"\r", b"\\n": b"\n", b"\\\\": b"\\"}


def _hexadecimal(letter: str) -> str:
    return "".join([f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape")])


_SHOWN: Final = {code: _SHORT.get(chr(code)) or _hexadecimal(chr(code)) for code in _CONTROLS}
_SHOWN_IN_WORD: Final = {**_SHOWN, ord(" "): r"\x20"}

_UNSAFE: Final = "".join(map(chr, _CONTROLS))
_LOOK_CLOSER: Final = re.compile(rf"[\\{_UNSAFE}]")
_LOOK_CLOSER_IN_WORD: Final = re.compile(rf"[\\ {_UNSAFE}]")
_AMBIGUOUS: Final = re.compile(rf"\\(?=[\\trnx{_UNSAFE}])")
_AMBIGUOUS_IN_WORD: Final = re.compile(rf"\\(?=[\\trnx {_UNSAFE}])")
_FRAME: Final = re.compile(r" *(?:\. *|(?:ERR|OK)(?: .*)?)", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:[\\trn]|x[0-9a-fA-F]{2})")


def text_of(name: bytes) -> str:
    """A name, or other bytes of a peer's, for a message or JSON.

    Args:
        name: The bytes.

    Returns:
        Their text, with backslash escapes for bytes that are not UTF-8.
    """
    return name.decode("utf-8", "backslashreplace")


def escape(name: bytes) -> bytes:
    """Show a name as a line of its own, or as a column between tabs.

    Args:
        name: The name. Its spaces stay: programs look names up as they are.

    Returns:
        The name with its escapes.
    """
    return _escape(name, _LOOK_CLOSER, _AMBIGUOUS, _SHOWN)


def escape_word(name: bytes) -> bytes:
    r"""Show a name as a word between spaces.

    Args:
        name: The name. A space is ``\x20``, and a lone colon, which separates words, ``\x3a``.

    Returns:
        The name with its escapes.
    """
    if name == b":":
        return rb"\x3a"
    return _escape(name, _LOOK_CLOSER_IN_WORD, _AMBIGUOUS_IN_WORD, _SHOWN_IN_WORD)


def unescape(shown: bytes) -> bytes:
    """Read a name that `escape` or `escape_word` has shown. What is no escape stays.

    Args:
        shown: The name with its escapes.

    Returns:
        The name.
    """
    return _ESCAPE.sub(_unescaped, shown) if b"\\" in shown else shown


def has_escapes(line: bytes) -> bool:
    """Whether `unescape` would change anything in a line.

    Args:
        line: The line.

    Returns:
        True if it would.
    """
    return _ESCAPE.search(line) is not None


def _unescaped(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    meant = _MEANT.get(escape)
    return bytes.fromhex(escape[2:].decode("ascii")) if meant is None else meant


def _escape(
    name: bytes, look_closer: re.Pattern[str], ambiguous: re.Pattern[str], shown: dict[int, str]
) -> bytes:
    text = name.decode("utf-8", "surrogateescape")
    first = ""
    if _FRAME.fullmatch(text) is not None:
        first, text = _hexadecimal(text[0]), text[1:]
    elif look_closer.search(text) is None:
        return name
    text = first + ambiguous.sub(r"\\\\", text).translate(shown)
    return text.encode("utf-8", "surrogateescape")
