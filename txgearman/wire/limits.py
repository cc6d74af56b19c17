"""How large things on the wire may be. Constants only; each with its unit, reason and precedent."""

from __future__ import annotations

from typing import Final

HEADER_SIZE: Final = 12
"""Bytes before the body of every binary packet: magic, type, body size, four bytes each."""

MAX_PACKET: Final = 64 * 1024 * 1024
"""Bytes of a packet's body. gearmand has no limit and allocates what a header announces, so that one
header of twelve bytes can ask for 4 GiB. 64 MiB is MySQL's ``max_allowed_packet``; ``--max-packet``
changes it."""

MAX_LINE: Final = 8192
"""Bytes of an admin text line without its line end: gearmand's receive buffer, past which it closes."""

MAX_WORDS: Final = 5
"""Words in an admin line; gearmand closes the connection on more."""

MAX_FUNCTION: Final = 512
"""Bytes of a function's name: libgearman's GEARMAN_FUNCTION_MAX_SIZE. gearmand itself only demands
that it fits its receive buffer."""

MAX_UNIQUE: Final = 64
"""Bytes of a unique: gearmand's GEARMAN_MAX_UNIQUE_SIZE. gearmand accepts 64 and mishandles the last
byte; here all 64 count."""

MAX_HANDLE: Final = 63
"""Bytes of a job handle: gearmand's GEARMAND_JOB_HANDLE_SIZE less its NUL."""

MAX_CLIENT_ID: Final = 127
"""Bytes of a client id; like gearmand, what is longer is cut."""
