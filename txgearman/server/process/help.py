"""What ``twistd gearmand --help`` and ``--help-all`` say, and what is said of an option that there is not."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from txgearman.server.config.option_kinds import Option

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Start": ("config", "check-config"),
    "Listening": ("listen", "file-descriptors", "keepalive-idle", "keepalive-interval", "keepalive-count"),
    "Jobs": (
        "job-retries",
        "attempts",
        "backoff",
        "backoff-factor",
        "backoff-max",
        "jitter",
        "heartbeat",
        "dead-jobs",
        "dead-bytes",
        "dead-age",
        "dead-webhook",
        "history",
        "history-bytes",
        "worker-wakeup",
        "order",
        "round-robin",
        "handle-prefix",
        "exceptions",
    ),
    "Schedules": ("max-schedules", "allow-unsaved-schedules", "sched-weekday"),
    "Store": ("store", "store-lease", "store-ahead"),
    "Limits": (
        "max-packet",
        "max-jobs",
        "max-functions",
        "submit-rate",
        "submit-burst",
        "max-running",
        "start-rate",
        "start-burst",
        "max-running-per-key",
        "key-separator",
        "pause-after",
        "max-kept-uniques",
        "results-bytes",
        "max-connections",
        "max-connections-per-address",
        "handshake-timeout",
        "max-unsent",
        "max-unsent-total",
        "max-unfinished-total",
    ),
    "Web": (
        "web",
        "web-tls",
        "web-read-only",
        "web-token-file",
        "web-max-connections",
        "web-max-connections-per-address",
        "metrics-functions",
        "traces",
        "traces-ratio",
    ),
    "TLS": ("tls", "tls-certificate", "tls-key", "tls-ca", "tls-verify"),
    "Log": ("log-level", "log-format"),
    "Process": ("drain-timeout",),
}
"""The options by what they are about, in the order in which ``--help`` has them."""

COMMON: Final = frozenset(
    {
        "config",
        "check-config",
        "listen",
        "store",
        "job-retries",
        "attempts",
        "backoff",
        "max-jobs",
        "max-packet",
        "max-connections",
        "web",
        "web-token-file",
        "tls",
        "tls-certificate",
        "tls-key",
        "tls-ca",
        "log-level",
        "log-format",
        "drain-timeout",
        "worker-wakeup",
    }
)
"""Those that ``--help`` shows: what most people look for. It fits two screens of a terminal with them."""

_OTHER_NAMES: Final = {"port": "listen=tcp:PORT", "p": "listen=tcp:PORT", "host": "listen", "d": "nodaemon"}
"""Options that people know from gearmand, and what to say here."""

INDENT: Final = 30
"""Columns ahead of what an option means."""

NARROWEST: Final = 60
WIDEST: Final = 110
"""Columns of the text, whatever the terminal has."""


def help_text(options: Sequence[Option], intro: str, show_all: bool, columns: int | None = None) -> str:
    """The text of ``--help``, or of ``--help-all``.

    Args:
        options: The options.
        intro: What is said ahead of them.
        show_all: Whether all are shown, with all that is said of them.
        columns: The width of the terminal; None to ask it.

    Returns:
        The text, with a line end.
    """
    width = shutil.get_terminal_size().columns if columns is None else columns
    width = min(max(width, NARROWEST), WIDEST)
    by_name = {each.name: each for each in options}
    lines = ["Usage: twistd [twistd's options] gearmand [options]", "", *textwrap.wrap(intro, width)]
    for group, names in GROUPS.items():
        shown = [by_name[name] for name in names if show_all or name in COMMON]
        if shown:
            lines += ["", f"{group}:"]
            for each in shown:
                lines += _described(each, show_all, width)
    more = "" if show_all else " --help-all shows all options with all that they mean."
    lines += ["", *textwrap.wrap(f"-h and --help show this text, --version the version.{more}", width)]
    return "\n".join(lines) + "\n"


def _described(each: Option, whole: bool, width: int) -> list[str]:
    """The lines of one option."""
    short = f"-{each.short}, " if each.short else "    "
    name = f"  {short}--{each.name}" + ("" if each.is_flag else "=")
    meaning = each.meaning.replace("``", "")
    if not whole:
        # The first sentence; a point within a word, as in an address, ends none.
        meaning = re.split(r"(?<=[a-z)\d])[.;:] ", meaning, maxsplit=1)[0].rstrip(".")
    if each.shown:
        meaning += f" [{each.shown.replace('``', '')}]"
    lines = textwrap.wrap(meaning, width - INDENT) or [""]
    if len(name) >= INDENT:
        return [name, *(" " * INDENT + line for line in lines)]
    return [name.ljust(INDENT) + lines[0], *(" " * INDENT + line for line in lines[1:])]


def hint(error: str, options: Sequence[Option]) -> str:
    """What to say after an error of the command line.

    Args:
        error: The error, as getopt or an option says it.
        options: The options there are.

    Returns:
        The error with a hint.
    """
    unknown = re.fullmatch(r"option -+(\S+) not recognized", error)
    if unknown is not None:
        name = unknown[1].partition("=")[0]
        if name in _OTHER_NAMES:
            error += f"; say --{_OTHER_NAMES[name]}"
        else:
            near = get_close_matches(name, [each.name for each in options], n=1)
            error += f"; did you mean --{near[0]}?" if near else ""
    return f"{error}{'' if error.endswith(('?', '.')) else '.'} Try twistd gearmand --help"
