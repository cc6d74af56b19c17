"""Between the values of a program and the bytes of the wire. No I/O."""

from __future__ import annotations

from typing import Any


class DataEncoder:
    """What a `data_encoder` must have: subclass it, or give any object with these two methods.

    It is used for all data of jobs: input, result, updates, warnings and exceptions.
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes | str:
        """The value as bytes, or as str, which is then sent as UTF-8."""
        raise NotImplementedError

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """The value of these bytes."""
        raise NotImplementedError


class TextEncoder(DataEncoder):
    """Text in and out, as UTF-8: the default.

    Bytes that are no UTF-8 become lone surrogates, as in file names, and come out as the same bytes
    again, so no data is lost or refused. Bytes can be sent too; what comes is always str.
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        if isinstance(encodable_object, str):
            return bytes_of(encodable_object)
        if isinstance(encodable_object, bytes):
            return encodable_object
        raise TypeError(f"the data must be str or bytes, not {type(encodable_object).__name__}")

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        return text_of(decodable_string)


class NoopEncoder(DataEncoder):
    """Bytes in and out, as they are."""

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        if not isinstance(encodable_object, bytes):
            raise TypeError(f"the data must be bytes, not {type(encodable_object).__name__}")
        return encodable_object

    @classmethod
    def decode(cls, decodable_string: bytes) -> bytes:
        return decodable_string


def text_of(value: bytes) -> str:
    """Bytes as text, without loss."""
    return value.decode("utf-8", "surrogateescape")


def bytes_of(value: str | bytes) -> bytes:
    """Text as bytes; the other way of `text_of`."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def encoded(encoder: Any, value: Any) -> bytes:
    """`value` as the bytes that `encoder` makes of it. Raises `TypeError` if it makes none."""
    data = encoder.encode(value)
    if not isinstance(data, bytes | str):
        raise TypeError(f"the data encoder must make bytes or str, not {type(data).__name__}")
    return bytes_of(data)
