"""What an operator may choose, checked. Data only.

To add an option is to add a field here with `option`; `options` says what follows from it.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

from txgearman.broker.policy import UNLIMITED, FunctionOrder, Policy
from txgearman.keepalive import MAX_KEEPALIVE, Keepalive
from txgearman.server.options import SIZE, TEXT, option, verify
from txgearman.wire.limits import MAX_HANDLE, MAX_PACKET

DEFAULT_ENDPOINT: Final = "tcp:4730:interface=127.0.0.1"
"""Where the server listens if nothing is said: Gearman's port, for this machine only."""

MAX_PREFIX: Final = MAX_HANDLE - len(":18446744073709551615")
"""Bytes of a handle's prefix, so that no handle exceeds what clients accept."""

SMALLEST_MAX_PACKET: Final = 1024
_LARGEST_MAX_PACKET: Final = 0xFFFFFFFF


def default_handle_prefix() -> str:
    """``H:`` and the name of this machine, as gearmand has it."""
    name = "".join(
        letter if letter.isascii() and letter.isprintable() and letter != " " else "_"
        for letter in platform.node()
    )
    return f"H:{name or 'localhost'}"[:MAX_PREFIX]


def _check_prefix(prefix: str) -> None:
    if not prefix or not prefix.isascii() or not prefix.isprintable() or " " in prefix:
        raise ValueError(f"must be printable ASCII without spaces, not {prefix!r}")
    if len(prefix) > MAX_PREFIX:
        raise ValueError(f"must have at most {MAX_PREFIX} bytes, not {len(prefix)}")


def web_endpoint(where: str) -> str:
    """The endpoint description that `where` stands for: a bare port is one of this machine alone."""
    return f"tcp:{where}:interface=127.0.0.1" if where.isdecimal() else where


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server; raises `ValueError` for a value that cannot be.

    The attributes are named as the options of ``twistd gearmand``, with underscores, but for `wakeup`
    (``--worker-wakeup``). `listen` is a tuple.
    """

    listen: tuple[str, ...] = option(
        (DEFAULT_ENDPOINT,),
        "A Twisted server endpoint to listen at, such as ``tcp:4730`` for everybody who can reach this "
        "machine, or ``unix:/run/gearmand.sock``. May be repeated; all lead to the same jobs.",
        short="L",
    )
    job_retries: int = option(
        UNLIMITED,
        "How many workers may lose a job before it fails. -1 is no limit. 0 and 1 are the same: the job "
        "fails with the first worker that loses it. A time limit that expires counts as a loss.",
        short="j",
        least=UNLIMITED,
    )
    wakeup: int = option(
        1,
        "How many sleeping workers are woken for a job. 0 wakes all.",
        name="worker-wakeup",
        short="w",
        least=0,
    )
    order: FunctionOrder = option(
        FunctionOrder.PRIORITY,
        "Which of a worker's functions is served first. ``priority``: the highest priority over all its "
        "functions, which take turns within a priority, as gearmand 2. ``registration``: the function it "
        "registered last, then the one before, and priority only within a function, as gearmand 1.1.",
    )
    round_robin: bool = option(
        False, "With ``--order=registration``, let a worker's functions take turns.", short="R"
    )
    handle_prefix: str = option(
        default_handle_prefix,
        "What job handles begin with, ahead of a colon and a number. Printable ASCII without spaces, at "
        f"most {MAX_PREFIX} bytes.",
        shown="``H:`` and the machine's name",
        check=_check_prefix,
    )
    max_packet: int = option(
        MAX_PACKET,
        "The largest body of a packet in bytes, 1024 to 4294967295. K, M and G may follow the number.",
        kind=SIZE,
        least=SMALLEST_MAX_PACKET,
        most=_LARGEST_MAX_PACKET,
    )
    exceptions: bool = option(
        False,
        "Send WORK_EXCEPTION also to clients that did not ask for it by OPTION_REQ. "
        "The others get WORK_FAIL.",
    )
    store: str | None = option(
        None,
        "Where background jobs are kept, so that they survive the end of the server: "
        "``sqlite:///file`` (``sqlite:////folder/file`` for an absolute path), or "
        "``postgresql://user:password@host/database``. Without it jobs are in memory only.",
        kind=TEXT,
        shown="none",
    )
    keepalive_idle: int = option(
        0,
        "Seconds of silence on a connection before TCP keepalive probes. 0 is the system's own value, here "
        "and below.",
        least=0,
        most=MAX_KEEPALIVE.idle,
    )
    keepalive_interval: int = option(0, "Seconds between the probes.", least=0, most=MAX_KEEPALIVE.interval)
    keepalive_count: int = option(0, "Lost probes that end a connection.", least=0, most=MAX_KEEPALIVE.count)
    web: str | None = option(
        None,
        "Where the dashboard and the HTTP interface listen: a port, for this machine only, or a Twisted "
        "server endpoint. Without it they are not there.",
    )
    web_read_only: bool = option(False, "Show everything there and let nothing be changed.")
    web_token_file: str | None = option(
        None,
        "A file with a token of at least 16 characters. Whoever wants to change something there must show "
        "it. Without a token that is left to connections from this machine.",
    )

    def __post_init__(self) -> None:
        verify(self)

    @property
    def keepalive(self) -> Keepalive:
        """What is set on each connection."""
        return Keepalive(self.keepalive_idle, self.keepalive_interval, self.keepalive_count)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The descriptions of all endpoints, that of the web side included."""
        return self.listen if self.web is None else (*self.listen, web_endpoint(self.web))

    @property
    def policy(self) -> Policy:
        """The part that is the broker's."""
        return Policy(
            handle_prefix=self.handle_prefix.encode("ascii"),
            job_retries=self.job_retries,
            wakeup=self.wakeup,
            order=self.order,
            round_robin=self.round_robin,
        )


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What concerns the whole process, and so only ``twistd gearmand`` and no server inside another
    program; raises `ValueError` for a value that cannot be."""

    file_descriptors: int = option(
        0,
        "How many open files to ask the system for; a connection needs one. 0 is as many as the system "
        "allows. If it refuses, that is logged and the server starts with the old limit.",
        short="f",
        least=0,
    )

    def __post_init__(self) -> None:
        verify(self)
