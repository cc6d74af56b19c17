"""The field ``attributes`` of the packets of extensions: lines ``name=value``, joined by LF, in UTF-8.

Which names mean what is said where they are used. A server refuses a name that it does not know, as whoever
sends one relies on it. A worker ignores such a name, as a newer server may say more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from txgearman.access.patterns import quoted
from txgearman.errors import ArgumentTooLarge, InvalidArgument

MAX_SIZE: Final = 4096
"""Bytes of the whole field. All the names that there are, with their longest values, have less than a
quarter of that."""

MAX_COUNT: Final = 32
"""Lines of the field: twice as many as there are names."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def parse_attributes(field: bytes) -> dict[str, str]:
    """Read the field.

    Args:
        field: What the packet has; empty for no attributes.

    Returns:
        The values by their names, in the order of the lines.

    Raises:
        ArgumentTooLarge: It has more bytes or lines than it may.
        InvalidArgument: It is not UTF-8, holds a NUL, or a line is no ``name=value`` or repeats a name.
    """
    if not field:
        return {}
    if len(field) > MAX_SIZE:
        raise ArgumentTooLarge(f"Attributes have {len(field)} bytes, more than {MAX_SIZE}")
    lines = field.split(b"\n", MAX_COUNT)
    if len(lines) > MAX_COUNT:
        raise ArgumentTooLarge(f"There are more than {MAX_COUNT} attributes")
    if b"\0" in field:
        raise InvalidArgument("Attributes hold a NUL")
    values: dict[str, str] = {}
    for line in lines:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument("Attributes are not UTF-8") from None
        name, equals, value = text.partition("=")
        if not equals or _NAME.match(name) is None:
            raise InvalidArgument(f"Attribute is not name=value: {quoted(line)}")
        if name in values:
            raise InvalidArgument(f"Attribute is there twice: {name}")
        values[name] = value
    return values


def format_attributes(values: Mapping[str, str]) -> bytes:
    """Make the field.

    Args:
        values: The values by their names, in the order in which they are to come.

    Returns:
        The field; empty for no values.

    Raises:
        ValueError: A name or a value has characters that it cannot have, or there are too many.
    """
    for name, value in values.items():
        if _NAME.match(name) is None:
            raise ValueError(f"{name!r} cannot be the name of an attribute")
        if "\n" in value or "\0" in value:
            raise ValueError(f"the value of the attribute {name} has a line feed or a NUL: {value!r}")
    field = "\n".join([f"{name}={value}" for name, value in values.items()]).encode()
    if len(values) > MAX_COUNT or len(field) > MAX_SIZE:
        raise ValueError(
            f"there are {len(values)} attributes with {len(field)} bytes; at most {MAX_COUNT} attributes "
            f"and {MAX_SIZE} bytes can be sent"
        )
    return field
