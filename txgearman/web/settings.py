"""What the web side may do: the part of the server's settings that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHORTEST_TOKEN: Final = 16
"""Characters a token must have at least: whoever guesses it may cancel every job."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the web side.

    Args:
        read_only: Whether all changes are refused.
        token: What a program or person must show to change something. Without a token, only connections from
            this machine may.
        max_function: Bytes that the name of a function may have.
        max_unique: Bytes that a unique may have.
        max_data: Bytes that the data of a job may have.
    """

    read_only: bool = False
    token: bytes | None = None
    max_function: int = 512
    max_unique: int = 64
    max_data: int = 64 * 1024 * 1024


def read_token(path: str) -> bytes:
    """Read a token from a file.

    Args:
        path: Where the file is.

    Returns:
        The token, without the white space around it.

    Raises:
        ValueError: The file cannot be read, or the token is too short or cannot stand in a header.
    """
    try:
        with open(path, "rb") as file:
            token = file.read().strip()
    except OSError as error:
        raise ValueError(f"the web token cannot be read: {error}") from error
    if len(token) < SHORTEST_TOKEN:
        raise ValueError(f"the web token in {path} must have at least {SHORTEST_TOKEN} characters")
    if not token.isascii() or not token.decode("ascii").isprintable() or b" " in token:
        raise ValueError(f"the web token in {path} must be printable ASCII without spaces")
    return token
