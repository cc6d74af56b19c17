"""The brokers: Redis and txgearman's server, and how durably each keeps its jobs.

Lives here: their options and the levels. Starting and ending them is servers.py's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import servers, stores
from benchmarks.rivals.catalogue import OURS, REDIS
from benchmarks.servers import Kind, Probe, Running

MEMORY: Final = "memory"
EVERY_SECOND: Final = "every second"
EVERY_ANSWER: Final = "every answer"
"""When what was enqueued is on the disk: never, at most a second after its answer, ahead of its answer."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a broker keeps its jobs: the level, what it is called, and a store or options for it."""

    level: str
    name: str
    options: tuple[str, ...] = ()
    store: str | None = None


KEEPING: Final = {
    REDIS: (
        Keeping(MEMORY, "memory", ("--appendonly", "no")),
        Keeping(EVERY_SECOND, "appendfsync everysec", ("--appendonly", "yes", "--appendfsync", "everysec")),
        Keeping(EVERY_ANSWER, "appendfsync always", ("--appendonly", "yes", "--appendfsync", "always")),
    ),
    OURS: (
        Keeping(MEMORY, "memory"),
        Keeping(EVERY_ANSWER, "SQLite", store=stores.SQLITE),
        Keeping(EVERY_ANSWER, "PostgreSQL", store=stores.POSTGRESQL),
    ),
}


def redis() -> Kind:
    """Debian's redis-server, with a folder of its own, without snapshots."""

    def command(port: int, folder: Path, options: Sequence[str]) -> list[str]:
        place = folder / f"redis-{port}"
        place.mkdir(exist_ok=True)
        where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(place)]
        return ["redis-server", *where, "--save", "", *options]

    return Kind("redis", command, Probe(b"PING\r\n", b"+PONG\r\n"))


def redis_version() -> str:
    """Of the installed redis-server."""
    command = ["redis-server", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    fields = dict(field.split("=", 1) for field in shown.stdout.split() if "=" in field)
    return fields["v"]


class Brokers:
    """Fresh brokers in `folder`; PostgreSQL starts when it is first asked for, and ends with `stack`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stores = stores.Stores(folder, stack)
        self._kinds = {OURS: servers.txgearman(), REDIS: redis()}

    def keepings(self, broker: str, level: str) -> list[Keeping]:
        """In what ways a broker reaches a level of durability on this machine."""
        return [
            keeping
            for keeping in KEEPING[broker]
            if keeping.level == level
            and (keeping.store is None or self._stores.available(self._kinds[broker], keeping.store))
        ]

    @contextmanager
    def running(self, broker: str, keeping: Keeping) -> Iterator[Running]:
        """A fresh broker for the length of a ``with`` block. Raises `servers.BenchmarkFailed`."""
        kind = self._kinds[broker]
        options = keeping.options
        if keeping.store is not None:
            options += self._stores.options(kind, keeping.store)
        with servers.running(kind, self._folder, options) as server:
            yield server
