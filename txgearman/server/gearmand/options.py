"""The options of gearmand 1.1.20 and 2.0, and what becomes of each here. Data only.

Both versions have the same options. Where they mean different things by one, that is said with it, and 1.1.20
holds, which Debian has. Source: ``gearmand/gearmand.cc`` and ``libgearman-server/plugins`` of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

DEFAULT_CONFIG: Final = "/etc/gearmand.conf"
DEFAULT_LOG: Final = "/var/log/gearmand.log"
DEFAULT_PID_FILE: Final = "/var/gearmand.pid"
"""Where Debian's gearmand has these files."""

DEFAULT_PORT: Final = "4730"

STDERR: Final = "stderr"
NO_LOG: Final = "none"
"""What ``--log-file`` may be beside the name of a file."""


class Effect(Enum):
    """What becomes of an option."""

    OBEYED = auto()
    """The server does as gearmand does."""
    PASSED_OVER = auto()
    """There is nothing here that it could mean. That is said in the log."""
    ELSEWHERE = auto()
    """It is about a queue that is chosen by ``--queue-type``, and about nothing without that."""


@dataclass(frozen=True, slots=True)
class GearmandOption:
    """An option.

    Attributes:
        name: The long form, without hyphens ahead of it.
        section: Under which heading gearmand's ``--help`` has it.
        meaning: What it does here.
        short: The letter of the short form; None without one.
        value: What ``--help`` calls its value; None for an option that takes none.
        effect: What becomes of it.
        why: For one that is passed over, the reason, which goes on after its name.
        whole: Whether its value must be a whole number.
        hidden: Whether ``--help`` leaves it out.
    """

    name: str
    section: str
    meaning: str
    short: str | None = None
    value: str | None = None
    effect: Effect = Effect.OBEYED
    why: str = ""
    whole: bool = False
    hidden: bool = False


GENERAL: Final = "General options"
HTTP: Final = "HTTP"
GEAR: Final = "Gear"
QUEUES: Final = "Queues"
OURS: Final = "Options that gearmand does not have"
SECTIONS: Final = (GENERAL, HTTP, GEAR, QUEUES, OURS)
"""The headings of ``--help``, in its order."""

_OTHER_QUEUES: Final = {
    "libdrizzle-db": "libdrizzle",
    "libdrizzle-host": "libdrizzle",
    "libdrizzle-mysql": "libdrizzle",
    "libdrizzle-password": "libdrizzle",
    "libdrizzle-port": "libdrizzle",
    "libdrizzle-table": "libdrizzle",
    "libdrizzle-uds": "libdrizzle",
    "libdrizzle-user": "libdrizzle",
    "libmemcached-prefix": "libmemcached",
    "libmemcached-servers": "libmemcached",
    "libtokyocabinet-file": "libtokyocabinet",
    "libtokyocabinet-optimize": "libtokyocabinet",
    "mysql-db": "MySQL",
    "mysql-host": "MySQL",
    "mysql-password": "MySQL",
    "mysql-port": "MySQL",
    "mysql-table": "MySQL",
    "mysql-user": "MySQL",
    "redis-password": "redis",
    "redis-port": "redis",
    "redis-prefix": "redis",
    "redis-server": "redis",
}
"""The options of queues that there are not here, by name, with the queue."""

_OTHER_FLAGS: Final = frozenset({"libdrizzle-mysql", "libtokyocabinet-optimize"})
"""Those of them that take no value."""

_KEEPALIVE_ONLY: Final = "With --keepalive. -1 leaves it to the system."

OPTIONS: Final = (
    GearmandOption(
        "backlog",
        GENERAL,
        "Connections that may wait to be accepted, for each address [4096; gearmand: 32].",
        "b",
        "arg",
        whole=True,
    ),
    GearmandOption("daemon", GENERAL, "Run in the background, once the server listens.", "d"),
    GearmandOption(
        "exceptions", GENERAL, "Send WORK_EXCEPTION also to clients that did not ask for it by OPTION_REQ."
    ),
    GearmandOption(
        "file-descriptors",
        GENERAL,
        "Files that the process may open; a connection needs one. Without it as many as the system allows.",
        "f",
        "arg",
        whole=True,
    ),
    GearmandOption("help", GENERAL, "Show this text and exit.", "h"),
    # The versions after 2.0.0 have -1 for no limit.
    GearmandOption(
        "job-retries",
        GENERAL,
        "Workers that may lose a job before it fails. 0, the default, and -1 are no limit.",
        "j",
        "arg",
        whole=True,
    ),
    GearmandOption(
        "job-handle-prefix", GENERAL, "What job handles begin with [H: and the machine's name].", value="arg"
    ),
    GearmandOption(
        "hashtable-buckets",
        GENERAL,
        "Without effect: tables grow with the jobs.",
        value="arg",
        effect=Effect.PASSED_OVER,
        why="the tables of jobs grow with them, and need no size",
        whole=True,
    ),
    GearmandOption(
        "keepalive", GENERAL, "Let TCP keepalive find peers that are gone. This server always does."
    ),
    GearmandOption(
        "keepalive-idle",
        GENERAL,
        f"Seconds of silence before the first probe. {_KEEPALIVE_ONLY}",
        value="arg",
        whole=True,
    ),
    GearmandOption(
        "keepalive-interval", GENERAL, f"Seconds between probes. {_KEEPALIVE_ONLY}", value="arg", whole=True
    ),
    GearmandOption(
        "keepalive-count",
        GENERAL,
        f"Lost probes that end a connection. {_KEEPALIVE_ONLY}",
        value="arg",
        whole=True,
    ),
    GearmandOption(
        "log-file",
        GENERAL,
        f"The file of the log, which SIGHUP opens anew [{DEFAULT_LOG}]. {STDERR} is the standard error, "
        f"{NO_LOG} is no log.",
        "l",
        "arg",
    ),
    GearmandOption(
        "listen", GENERAL, "The address, or name, to listen at. Without it every address.", "L", "arg"
    ),
    GearmandOption("pid-file", GENERAL, f"The file of the process id [{DEFAULT_PID_FILE}].", "P", "arg"),
    GearmandOption("protocol", GENERAL, "Refused: this server has no other protocol.", "r", "arg"),
    # 2.0 always does, whether it is told to or not.
    GearmandOption(
        "round-robin",
        GENERAL,
        "Let a worker's functions take turns. Without it they are served in the order of registration.",
        "R",
    ),
    GearmandOption(
        "queue-type",
        GENERAL,
        "Where background jobs are kept: builtin, which is in memory, libsqlite3 or Postgres [builtin].",
        "q",
        "arg",
    ),
    GearmandOption(
        "config-file",
        GENERAL,
        f"A file with options, each in a line, for what the command line does not say [{DEFAULT_CONFIG}].",
        value="arg",
    ),
    GearmandOption("syslog", GENERAL, "Write the log to syslog too."),
    GearmandOption(
        "coredump",
        GENERAL,
        "Without effect: the system's own settings decide on core dumps.",
        effect=Effect.PASSED_OVER,
        why="the system's own settings decide on core dumps",
    ),
    GearmandOption(
        "threads",
        GENERAL,
        "Without effect: one thread serves all connections.",
        "t",
        "arg",
        Effect.PASSED_OVER,
        "one thread serves all connections",
        whole=True,
    ),
    GearmandOption("user", GENERAL, "The user to become, which root can.", "u", "arg"),
    GearmandOption(
        "verbose",
        GENERAL,
        "From which level on events are logged: FATAL, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO or "
        "DEBUG [INFO; gearmand: ERROR].",
        value="arg",
    ),
    GearmandOption("version", GENERAL, "Show the version and exit.", "V"),
    GearmandOption(
        "worker-wakeup",
        GENERAL,
        "Sleeping workers that are woken for a job. 0, the default, wakes all.",
        "w",
        "arg",
        whole=True,
    ),
    GearmandOption("check-args", GENERAL, "Check the options and exit.", hidden=True),
    GearmandOption(
        "http-port",
        HTTP,
        "Without effect: it is about --protocol=http.",
        value="arg",
        effect=Effect.PASSED_OVER,
        why="it is about --protocol=http",
    ),
    GearmandOption("port", GEAR, f"The port to listen at [{DEFAULT_PORT}, or $GEARMAND_PORT].", "p", "arg"),
    GearmandOption("ssl", GEAR, "Speak TLS."),
    GearmandOption(
        "ssl-ca-file",
        GEAR,
        "Without effect: gearmand reads it, and asks no client for a certificate.",
        value="arg",
        effect=Effect.PASSED_OVER,
        why="no client is asked for a certificate, as gearmand asks none; tls-ca in a configuration file "
        "does so",
    ),
    GearmandOption(
        "ssl-certificate", GEAR, "The server's certificate in PEM [$GEARMAND_SERVER_PEM].", value="arg"
    ),
    GearmandOption("ssl-key", GEAR, "Its private key in PEM [$GEARMAND_SERVER_KEY].", value="arg"),
    GearmandOption(
        "libsqlite3-db",
        QUEUES,
        "gearmand's database file for libsqlite3. Jobs are taken over from there at the start, and are kept "
        "in a file beside it, with .txgearman at the end of its name.",
        value="arg",
    ),
    GearmandOption("libsqlite3-table", QUEUES, "gearmand's table in that file [gearman_queue].", value="arg"),
    GearmandOption(
        "store-queue-on-shutdown",
        QUEUES,
        "Without effect: each job is kept at once.",
        effect=Effect.PASSED_OVER,
        why="each job is kept at once, so that none is lost in a crash either",
    ),
    GearmandOption(
        "libpq-conninfo",
        QUEUES,
        "libpq's connection string of the database for Postgres. Jobs are taken over from gearmand's table "
        "at the start, and are kept in tables beside it.",
        value="arg",
    ),
    GearmandOption("libpq-table", QUEUES, "gearmand's table in that database [queue].", value="arg"),
    *(
        GearmandOption(
            name,
            QUEUES,
            f"For --queue-type={queue}, which is refused.",
            value=None if name in _OTHER_FLAGS else "arg",
            effect=Effect.ELSEWHERE,
        )
        for name, queue in sorted(_OTHER_QUEUES.items())
    ),
    GearmandOption(
        "print-config",
        OURS,
        "Print the configuration file for twistd gearmand that says the same, and exit.",
    ),
    GearmandOption(
        "give-back",
        OURS,
        "Write the jobs that are left into gearmand's table, so that gearmand goes on with them, and exit. "
        "Neither server may run. With --check-args say what would be lost, and write nothing.",
    ),
)

BY_NAME: Final = {option.name: option for option in OPTIONS}
BY_SHORT: Final = {option.short: option for option in OPTIONS if option.short is not None}

LEVELS: Final = {
    "FATAL": "critical",
    "ALERT": "critical",
    "CRITICAL": "critical",
    "ERROR": "error",
    "WARNING": "warn",
    "NOTICE": "info",
    "INFO": "info",
    "DEBUG": "debug",
}
"""gearmand's levels, and ours."""

COUNTED_LEVELS: Final = ("ERROR", "INFO", "DEBUG")
"""What one, two and more ``-v`` mean, with which gearmand had its level before 1.0."""
