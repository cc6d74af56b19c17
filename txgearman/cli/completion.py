"""Completes functions, handles, numbers of workers and schedules in a shell, with what the servers know.

The shell waits, and so does the person: the servers have `ANSWER_SECONDS`, after which nothing is completed.
They are asked with plain sockets, as to import Twisted takes as long as that.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from txgearman.wire.names import text_of, unescape

ANSWER_SECONDS: Final = 0.2
"""Seconds that all servers together have. With the start of the interpreter that is less than 300 ms."""

MAX_BYTES: Final = 1024 * 1024
"""Bytes of an answer that are read: a server may have millions of jobs."""

MAX_ITEMS: Final = 500
"""Names that are offered: nobody reads more."""

_ESCAPES: Final = b"OK txgearman-"
"""What the version of a server begins with that escapes names."""

_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def functions(rows: Iterable[bytes]) -> Iterator[bytes]:
    """The functions in the rows of ``status``."""
    return (row.rpartition(b"\t")[0].rsplit(b"\t", 2)[0] for row in rows)


def first_column(rows: Iterable[bytes]) -> Iterator[bytes]:
    """What rows with tabs begin with."""
    return (row.partition(b"\t")[0] for row in rows)


def working_connections(rows: Iterable[bytes]) -> Iterator[bytes]:
    """The numbers of connections with functions in the rows of ``workers``."""
    return (row.partition(b" ")[0] for row in rows if not row.endswith(b":"))


def from_servers(line: bytes, names: Callable[[Iterable[bytes]], Iterator[bytes]]) -> _Complete:
    """Make what completes a parameter.

    Args:
        line: The admin command whose answer has the names.
        names: Finds them in its rows.

    Returns:
        What click calls.
    """

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
        found: list[str] = []
        # A daemon, and a list of its own: who is late finds nobody.
        asking = threading.Thread(
            target=_ask_all, args=(_servers(context), line, names, incomplete, found), daemon=True
        )
        asking.start()
        asking.join(ANSWER_SECONDS)
        given = _given(context)
        return [CompletionItem(name) for name in found[:MAX_ITEMS] if name not in given]

    return complete


def _servers(context: click.Context) -> tuple[str, ...]:
    """The servers of the command line so far."""
    servers: tuple[str, ...] = context.params.get("servers") or ()
    return servers


def _given(context: click.Context) -> set[str]:
    """What the command line has already, of arguments that may be repeated."""
    given: set[str] = set()
    for value in context.params.values():
        if isinstance(value, tuple):
            given.update(map(str, value))
    return given


def _ask_all(
    servers: Iterable[str],
    line: bytes,
    names: Callable[[Iterable[bytes]], Iterator[bytes]],
    incomplete: str,
    found: list[str],
) -> None:
    known: set[str] = set()
    for server in servers:
        try:
            rows, escaped = _ask(server, line)
        except OSError:
            continue
        for shown in names(rows):
            name = text_of(unescape(shown) if escaped else shown)
            if name not in known and name.startswith(incomplete) and _is_one_word(name):
                known.add(name)
                found.append(name)


def _is_one_word(name: str) -> bool:
    """Whether a shell takes a name for one word as it is."""
    return bool(name) and name.isprintable() and not set(name) & set(" \t'\"\\$`&|;<>()*?[]{}!#~")


def _ask(server: str, line: bytes) -> tuple[list[bytes], bool]:
    """Send one server a command. Returns the rows of its answer, and whether names in them are escaped.

    A refusal has no rows. Raises `OSError`.
    """
    with _connect(server) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(b"version\n%b\n" % line)
        received = b""
        while len(received) < MAX_BYTES and not _is_whole(received):
            part = connection.recv(65536)
            if not part:
                break
            received += part
    version, _, answer = received.partition(b"\n")
    # The last line is the end, or was not read to its own.
    rows = answer.split(b"\n.\n")[0] if answer.endswith(b"\n.\n") else answer.rpartition(b"\n")[0]
    if answer.startswith((b"ERR ", b".\n")):
        return [], False
    return [row.removesuffix(b"\r") for row in rows.split(b"\n")], version.startswith(_ESCAPES)


def _is_whole(received: bytes) -> bool:
    """Whether these are both answers: a line, and a list or a refusal."""
    answer = received.partition(b"\n")[2]
    return (
        answer.endswith(b"\n.\n")
        or answer == b".\n"
        or (answer.startswith(b"ERR ") and answer.endswith(b"\n"))
    )


def _connect(server: str) -> socket.socket:
    """Connect to an endpoint string. Raises `OSError`, also for a kind that is not known here."""
    kind, _, rest = server.partition(":")
    # Of the options after it none matters but those of TLS, and a colon in a host has a backslash.
    parts = rest.replace("\\:", "\0").split(":")
    host = parts[0].replace("\0", ":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(host)
        return connection
    if kind not in {"tcp", "tls", "ssl"} or len(parts) < 2 or not parts[1].isdigit():
        raise OSError(f"no completion from {server}")
    connection = socket.create_connection((host, int(parts[1])), ANSWER_SECONDS)
    if kind == "tcp":
        return connection
    import ssl

    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)


class _ColonBashComplete(BashComplete):
    """Completion for bash of words with colons, as handles have them. Bash takes each part between colons for
    a word: this is given the whole line, and offers what comes after the last colon that is typed."""

    source_template = r"""
%(complete_func)s() {
    local type value completion
    local IFS=$'\n'
    COMPREPLY=()
    for completion in $(
        export _TXGEARMAN_LINE="${COMP_LINE:0:$COMP_POINT}" _TXGEARMAN_BREAKS="$COMP_WORDBREAKS"
        %(complete_var)s=bash_complete "$1"
    ); do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["_TXGEARMAN_LINE"]
        words = split_arg_string(line)[1:]
        if not words or line[-1:].isspace():
            return words, ""
        return words[:-1], words[-1]

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        typed = ""
        if ":" in incomplete and ":" in os.environ["_TXGEARMAN_BREAKS"]:
            typed = incomplete.rpartition(":")[0] + ":"
        items = self.get_completions(args, incomplete)
        return "\n".join([f"{item.type},{item.value.removeprefix(typed)}" for item in items])


add_completion_class(_ColonBashComplete)

complete_function = from_servers(b"status", functions)
complete_handle = from_servers(b"show jobs", first_column)
complete_dead_handle = from_servers(b"show dead", first_column)
complete_schedule = from_servers(b"show schedules", first_column)
complete_worker = from_servers(b"workers", working_connections)
