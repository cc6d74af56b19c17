"""Values to the bytes of a payload and back, for the data, results and updates of jobs. No I/O, no Twisted.

There is no pickle here on purpose: whoever can send a payload could run code.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NoReturn, Protocol

from txgearman.errors import BadPayload


class Codec(Protocol):
    """Makes payloads of values, and back. Any object with these two methods will do."""

    def encode(self, value: Any, /) -> bytes:
        """Make a payload.

        Args:
            value: What the user gave.

        Returns:
            The payload.

        Raises:
            ValueError: The value cannot be encoded.
            TypeError: A value of this type cannot be encoded.
        """
        ...

    def decode(self, data: bytes, /) -> Any:
        """Read a payload. It may raise anything for bytes that it cannot decode.

        Args:
            data: The payload.

        Returns:
            The value that the user gets.
        """
        ...


class _Bytes:
    """Bytes as they are."""

    def encode(self, value: Any, /) -> bytes:
        if not isinstance(value, bytes):
            # The encoding of a str cannot be guessed.
            raise TypeError(f"the data must be bytes, not {type(value).__name__}")
        return value

    def decode(self, data: bytes, /) -> bytes:
        return data


class _Text:
    """A str as UTF-8."""

    def encode(self, value: Any, /) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"the data must be str, not {type(value).__name__}")
        return value.encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()


class _Json:
    """What JSON can hold, as UTF-8 without superfluous spaces. NaN and infinity are not JSON."""

    def encode(self, value: Any, /) -> bytes:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except RecursionError:
            raise ValueError("the data is nested too deeply for JSON") from None
        return text.encode()

    def decode(self, data: bytes, /) -> Any:
        return json.loads(data.decode(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


BYTES: Final[Codec] = _Bytes()
"""Bytes go out and come in as they are."""

TEXT: Final[Codec] = _Text()
"""A str goes out, and comes in, as UTF-8."""

JSON: Final[Codec] = _Json()
"""Values of JSON: dicts with str keys, lists, str, int, float, bool and None, as UTF-8."""

CodecChoice = Codec | Literal["bytes", "text", "json"]
"""What an option ``codec`` takes: one of the words, or an object with encode and decode."""

_WORDS: Final = {"bytes": BYTES, "text": TEXT, "json": JSON}


def codec_from(choice: CodecChoice) -> Codec:
    """The codec that the option ``codec`` means.

    Args:
        choice: The option's value.

    Returns:
        The codec.

    Raises:
        ValueError: The word is none of the three.
        TypeError: The object lacks one of the two methods.
    """
    if isinstance(choice, str):
        codec = _WORDS.get(choice)
        if codec is None:
            raise ValueError(f"the codec must be one of {', '.join(_WORDS)} or an object, not {choice!r}")
        return codec
    for name in ("encode", "decode"):
        if not callable(getattr(choice, name, None)):
            raise TypeError(f"a codec needs a method {name}, {choice!r} has none")
    return choice


def encoded(codec: Codec, value: Any) -> bytes:
    """The payload of a value.

    Args:
        codec: Encodes it, and may raise anything for a value that it cannot encode.
        value: The value.

    Returns:
        The payload.

    Raises:
        TypeError: The codec made anything but bytes.
    """
    data = codec.encode(value)
    if not isinstance(data, bytes):
        raise TypeError(f"the codec made {type(data).__name__} of the data, not bytes")
    return data


def decoded(codec: Codec, data: bytes, handle: bytes) -> Any:
    """The value of a payload.

    Args:
        codec: Decodes it.
        data: The payload.
        handle: The job it belongs to, for the error.

    Returns:
        The value.

    Raises:
        BadPayload: The codec raised, whatever it raised.
    """
    try:
        return codec.decode(data)
    # Deeply nested JSON raises RecursionError, which is no ValueError, and codecs may raise anything.
    except Exception as error:
        raise BadPayload(handle, data, f"{type(error).__name__}: {error}") from error
