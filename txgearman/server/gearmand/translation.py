"""From gearmand's options to the settings of this server. Nothing is opened here and nothing started."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from txgearman.broker.policy import UNLIMITED, FunctionOrder
from txgearman.server.config.option_kinds import options_of, with_values
from txgearman.server.config.options import Settings
from txgearman.server.config.process_options import Level, ProcessSettings
from txgearman.server.gearmand.command_line import CommandLineError, number_of
from txgearman.server.gearmand.options import (
    BY_NAME,
    DEFAULT_LOG,
    DEFAULT_PID_FILE,
    DEFAULT_PORT,
    LEVELS,
    Effect,
)

T = TypeVar("T")

STORE_SUFFIX: Final = ".txgearman"
"""What is added to the name of gearmand's SQLite file for that of the store."""

_REFUSED_QUEUES: Final = ("libdrizzle", "libmemcached", "libtokyocabinet", "mysql", "redis")

_BIND_V6_ONLY: Final = "/proc/sys/net/ipv6/bindv6only"

Addresses = Callable[[str | None, str], list[tuple[socket.AddressFamily, str, int]]]
"""Finds the addresses to listen at: family, address, port. Raises `OSError`."""


@dataclass(frozen=True, slots=True)
class GearmandTable:
    """Where gearmand keeps its jobs.

    Attributes:
        url: The URL of its database, as that of a store.
        table: The name of its table; None for the one that gearmand has by default.
    """

    url: str
    table: str | None


@dataclass(frozen=True, slots=True)
class Translation:
    """What a command line of gearmand says.

    Attributes:
        said: The values of this server's options, by name, as a configuration file may have them. An option
            that is not there has its default.
        notes: What the operator should know, in sentences.
        queue: gearmand's own queue, from which jobs are taken over; None where jobs are in memory alone.
        daemon: Whether the process goes to the background.
        pid_file: The path of the pid file.
        must_have_pid_file: Whether the start fails without it. At the default path gearmand goes without.
        log_file: The path of the log, or `STDERR` or `NO_LOG`.
        syslog: Whether syslog has the log too.
        user: The name of the user to become, empty for none.
        file_descriptors: How many files the process is to open; 0 if nothing is said.
    """

    said: Mapping[str, Any]
    notes: tuple[str, ...]
    queue: GearmandTable | None
    daemon: bool
    pid_file: str
    must_have_pid_file: bool
    log_file: str
    syslog: bool
    user: str
    file_descriptors: int

    def settings(self) -> Settings:
        """The settings of the server. Raises `ValueError`."""
        return self._make(Settings)

    def process_settings(self) -> ProcessSettings:
        """The settings of the process. Raises `ValueError`."""
        return self._make(ProcessSettings)

    def _make(self, settings: type[T]) -> T:
        # As a configuration file is read, so that one with the same values does the same.
        values = {
            each.name: each.of_toml(self.said[each.name])
            for each in options_of(settings)
            if each.name in self.said
        }
        return with_values(settings, values)


def resolve(host: str | None, port: str) -> list[tuple[socket.AddressFamily, str, int]]:
    """The addresses that gearmand would listen at.

    Args:
        host: An address or a name; None for every address.
        port: A port or its name.

    Returns:
        Family, address and port of each.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, str(where[0]), int(where[1])) for family, _, _, _, where in found)
    # The system names those of IPv6 also where it has no IPv6.
    return [one for one in addresses if _has(one[0])] or list(addresses)


def _has(family: socket.AddressFamily) -> bool:
    """Whether there are sockets for addresses of a family."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def translate(
    given: Mapping[str, str], environment: Mapping[str, str], addresses: Addresses = resolve
) -> Translation:
    """Translate.

    Args:
        given: What `read_options` has read.
        environment: That of the process.
        addresses: Finds addresses.

    Returns:
        What it says.

    Raises:
        CommandLineError: An option cannot be what it is, or has no counterpart here. The text says what to
            use instead.
        StoreError: A package for the queue is not installed, or its address cannot be understood.
    """
    _check(given)
    queue = _queue(given)
    notes = [
        f"--{name} has no effect: {BY_NAME[name].why}"
        for name in given
        if BY_NAME[name].effect is Effect.PASSED_OVER
    ]
    said: dict[str, Any] = {}
    notes += _add_endpoints(said, given, environment, addresses)
    _add_jobs(said, given)
    notes += _add_keepalive(said, given)
    if queue is not None:
        said["store"] = _store_of(given, queue)
    said["log-level"] = Level(LEVELS[given.get("verbose", "INFO")]).value
    files = number_of(given, "file-descriptors", 0)
    if files:
        said["file-descriptors"] = files
    return Translation(
        said=said,
        notes=tuple(notes),
        queue=queue,
        daemon="daemon" in given,
        pid_file=os.path.abspath(given.get("pid-file", DEFAULT_PID_FILE)),
        must_have_pid_file="pid-file" in given,
        log_file=given.get("log-file", DEFAULT_LOG),
        syslog="syslog" in given,
        user=given.get("user", ""),
        file_descriptors=files,
    )


def _check(given: Mapping[str, str]) -> None:
    """What gearmand checks ahead of all else, and what is refused here."""
    if given.get("verbose", "INFO") not in LEVELS:
        raise CommandLineError("Invalid value for --verbose supplied")
    if number_of(given, "hashtable-buckets", 1) <= 0:
        raise CommandLineError("hashtable-buckets has to be greater than 0")
    for name, least in (("job-retries", -1), ("worker-wakeup", 0), ("file-descriptors", 0), ("backlog", 1)):
        if number_of(given, name, least) < least:
            raise CommandLineError(f"{name} must be {least} or more, not {given[name]}")
    protocol = given.get("protocol", "")
    if protocol == "http":
        raise CommandLineError(
            "gearmand's HTTP protocol is not spoken here. The option web of a configuration file is for jobs "
            "over HTTP, of another form; --print-config writes such a file"
        )
    if protocol:
        raise CommandLineError(f"Unknown protocol module {protocol}")


# -- where it listens -----------------------------------------------------------------------------


def _add_endpoints(
    said: dict[str, Any], given: Mapping[str, str], environment: Mapping[str, str], addresses: Addresses
) -> list[str]:
    """Say where the server listens. Returns what to note of it."""
    host = given.get("listen")
    port = given.get("port", DEFAULT_PORT)
    if port == DEFAULT_PORT:
        port = environment.get("GEARMAND_PORT") or port
    try:
        found = addresses(host, port)
    except OSError as error:
        raise CommandLineError(f"cannot listen at {host or '<any>'}:{port}: {error.strerror}") from None
    backlog = f":backlog={given['backlog']}" if "backlog" in given else ""
    endpoints = [_endpoint(family, address, number) + backlog for family, address, number in _sockets(found)]
    if "ssl" in given:
        said["tls"] = endpoints
        for name, key, variable in (
            ("ssl-certificate", "tls-certificate", "GEARMAND_SERVER_PEM"),
            ("ssl-key", "tls-key", "GEARMAND_SERVER_KEY"),
        ):
            # gearmand lets the environment hold before the command line.
            path = environment.get(variable) or given.get(name)
            if path is None:
                raise CommandLineError(f"--ssl needs --{name}")
            said[key] = os.path.abspath(path)
    else:
        said["listen"] = endpoints
    if any(address in {"0.0.0.0", "::"} for _, address, _ in found):
        return [
            "The server listens at every address of this machine, as gearmand does: whoever reaches it may "
            "do everything but shut it down. --listen=127.0.0.1 is for this machine alone"
        ]
    return []


def _sockets(
    found: list[tuple[socket.AddressFamily, str, int]],
) -> list[tuple[socket.AddressFamily, str, int]]:
    """The addresses that need a socket of their own: that of every IPv6 address serves IPv4 too, and leaves
    no place for another, unless the system is told otherwise."""
    every_v6 = [one for one in found if one[1] == "::"]
    if every_v6 and not _is_v6_only():
        return [one for one in found if one[1] != "0.0.0.0"]
    return found


def _is_v6_only() -> bool:
    try:
        with open(_BIND_V6_ONLY, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _endpoint(family: socket.AddressFamily, address: str, port: int) -> str:
    kind = "tcp6" if family == socket.AF_INET6 else "tcp"
    return f"{kind}:{port}:interface={address.replace(':', chr(92) + ':')}"


# -- what it does with jobs and connections -------------------------------------------------------


def _add_jobs(said: dict[str, Any], given: Mapping[str, str]) -> None:
    said["job-retries"] = number_of(given, "job-retries", 0) or UNLIMITED
    said["worker-wakeup"] = number_of(given, "worker-wakeup", 0)
    said["order"] = FunctionOrder.REGISTRATION.value
    if "round-robin" in given:
        said["round-robin"] = True
    if "job-handle-prefix" in given:
        said["handle-prefix"] = given["job-handle-prefix"]
    if "exceptions" in given:
        said["exceptions"] = True


def _add_keepalive(said: dict[str, Any], given: Mapping[str, str]) -> list[str]:
    """Say what keepalive is to be. Returns what to note of it."""
    notes = []
    for name in ("keepalive-idle", "keepalive-interval", "keepalive-count"):
        if name in given and "keepalive" not in given:
            notes.append(f"--{name} has no effect without --keepalive")
        elif number_of(given, name, -1) >= 0:
            said[name] = int(given[name])
    return notes


# -- where it keeps jobs --------------------------------------------------------------------------


def _queue(given: Mapping[str, str]) -> GearmandTable | None:
    """gearmand's queue."""
    kind = given.get("queue-type", "builtin").lower()
    if kind == "builtin":
        return None
    if kind == "libsqlite3":
        if "libsqlite3-db" not in given:
            raise CommandLineError("missing required --libsqlite3-db=<dbfile> argument")
        path = os.path.abspath(given["libsqlite3-db"])
        return GearmandTable(f"sqlite:///{path}", given.get("libsqlite3-table"))
    if kind == "postgres":
        url = _url_of_conninfo(given.get("libpq-conninfo", ""))
        return GearmandTable(url, given.get("libpq-table"))
    if kind in _REFUSED_QUEUES:
        raise CommandLineError(
            f"There is no queue {given['queue-type']} here. Use libsqlite3 with --libsqlite3-db=FILE, or "
            "Postgres with --libpq-conninfo, and let the old queue run empty before"
        )
    raise CommandLineError(f"Unknown queue {given['queue-type']}")


def _url_of_conninfo(conninfo: str) -> str:
    try:
        # Not at the top: without a queue no database's library is needed.
        from txgearman.store.gearmand import url_of_conninfo
    except ImportError as error:
        raise CommandLineError(
            f"the queue Postgres needs packages: pip install 'txgearman[postgresql]' ({error})"
        ) from None
    return url_of_conninfo(conninfo)


def _store_of(given: Mapping[str, str], queue: GearmandTable) -> str:
    """The URL of the store beside gearmand's queue."""
    if given["queue-type"].lower() == "libsqlite3":
        return queue.url + STORE_SUFFIX
    return queue.url
