"""Data encoders: the values of a program to the bytes of the wire, and back. No I/O."""

from __future__ import annotations

from typing import Any


class DataEncoder:
    """The interface of a `data_encoder`. Subclass it, or use any object with these two methods.

    It encodes all data of jobs: input, result, updates, warnings and exceptions.
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes | str:
        """Encode a value.

        Args:
            encodable_object: The value.

        Returns:
            Bytes, or str, which is sent as UTF-8.
        """
        raise NotImplementedError

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Decode bytes.

        Args:
            decodable_string: The bytes.

        Returns:
            The value.
        """
        raise NotImplementedError


class TextEncoder(DataEncoder):
    """Text in and out, as UTF-8: the default.

    Bytes that are not UTF-8 become lone surrogates, as in file names. Encoding these gives the same bytes
    again, so no data is lost or refused. It encodes bytes too, and always decodes to str.
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
    """Decode bytes to text, without loss."""
    return value.decode("utf-8", "surrogateescape")


def bytes_of(value: str | bytes) -> bytes:
    """Encode text to bytes; the inverse of `text_of`."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def encoded(encoder: Any, value: Any) -> bytes:
    """Encode `value` by `encoder`. Raises `TypeError` if that makes neither bytes nor str."""
    data = encoder.encode(value)
    if not isinstance(data, bytes | str):
        raise TypeError(f"the data encoder must make bytes or str, not {type(data).__name__}")
    return bytes_of(data)
