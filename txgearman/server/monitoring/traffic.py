"""What a server's connections have carried, refused and lost, counted since it was made. Data only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """Counts of all connections of a server, those that have ended included.

    `received` and `sent` are bytes, ahead of encryption; a server whose `Settings.measured_functions` is 0
    does not count them. `connections` is how many were ever made. `refused` are the ERROR packets sent, by
    their code. `dropped` are the connections that the server ended by itself, by the reason: the
    option whose limit was met, ``silent`` or ``broken-stream``.
    """

    received: int = 0
    sent: int = 0
    connections: int = 0
    refused: Counter[bytes] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
