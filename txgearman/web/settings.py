"""What the web side may do, as the server's settings say it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHORTEST_TOKEN: Final = 16
"""Characters a token must have at least: whoever guesses it may cancel every job."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """`read_only` refuses everything that changes something. `token` is what a program or person must
    show to change something; without one that is left to connections from this machine. The others are
    limits in bytes: of a function's name, of a unique, of a job's data.
    """

    read_only: bool = False
    token: bytes | None = None
    max_function: int = 512
    max_unique: int = 64
    max_data: int = 64 * 1024 * 1024


def read_token(path: str) -> bytes:
    """The token in the file at `path`, without the white space around it.

    Raises `ValueError` for one that cannot be read, is too short or could not stand in a header.
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
