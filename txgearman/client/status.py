"""What a server says of a job that was asked about. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = re.compile(rb"[ \t]*([+-]?[0-9]{1,20})")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's state on its server.

    `known` says whether the server has the job, `running` whether a worker has it now. `numerator` and
    `denominator` are how far the worker says it is, 0 and 0 if it says nothing. `waiting_clients` is the
    number of clients that wait for its result, or None where the question does not tell.
    """

    known: bool
    running: bool
    numerator: int
    denominator: int
    waiting_clients: int | None = None


def number_from(text: bytes) -> int:
    """The decimal number at the begin of `text`, 0 if there is none.

    Workers may put any text in a status and servers pass it on; gearmand reads numbers in this way.
    """
    match = _NUMBER.match(text)
    return int(match[1]) if match else 0
