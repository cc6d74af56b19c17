"""Names as text that programs written for bytes can use too. No I/O."""

from __future__ import annotations

from typing import Any, Self


class Name(str):
    """The name of a function, a job's handle or unique, or a client id.

    It is a str. Programs for Python 2, and for the ports of python-gearman to Python 3 whose names are bytes,
    may also call `decode`, and compare it with bytes. As in Python 2, text and bytes are equal if both are
    the same ASCII. Then they have the same hash, so such a name is also found among keys that are bytes.
    """

    __slots__ = ()

    @classmethod
    def of(cls, name: str | bytes) -> Self:
        """Make a name of text, or of the wire's bytes. Bytes that are not UTF-8 become lone surrogates."""
        return cls(name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Decode the name's bytes, as `bytes.decode` does."""
        return self.encode("utf-8", "surrogateescape").decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bytes):
            return self.isascii() and self.encode("ascii") == other
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        # Programs that read the pickle may not have this package.
        return str, (str(self),)
