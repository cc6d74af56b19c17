"""How long the command takes to start, as a multiple of what nobody can save.

Commands that need no Twisted are compared with a bare interpreter, the others with one that has imported the
reactor. What counts is the processor time of the process, the least of several runs: the time on the clock
tells of the machine's other work, too. The commands that ask a server find none, and end with that.

    python -m benchmarks.start --runs 20
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Final

INTERPRETER: Final = ("-c", "pass")
REACTOR: Final = ("-c", "import twisted.internet.reactor")

WITHOUT_TWISTED: Final = ("--help", "--version", "status --help", "completion zsh")
WITH_TWISTED: Final = ("status", "jobs", "limits", "ping", "version", "submit f x -b", "cancel H:none:1")


def processor_seconds(arguments: tuple[str, ...], runs: int, server: str) -> float:
    """The least processor time that a Python process with these arguments takes.

    Args:
        arguments: What stands after ``python``.
        runs: How often it is run.
        server: The address of the server in its environment.

    Returns:
        Seconds.
    """
    environment = {**os.environ, "TXGEARMAN_SERVER": server}
    least = float("inf")
    # One more: the first one may have to compile.
    for _ in range(runs + 1):
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)],
        )
        _, _, used = os.wait4(pid, 0)
        least = min(least, used.ru_utime + used.ru_stime)
    return least


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def main() -> None:
    """Measure, and print a line for each command."""
    parser = argparse.ArgumentParser(description="How long the command takes to start.")
    parser.add_argument("--runs", type=int, default=20, help="runs of each, of which the fastest counts")
    runs: int = parser.parse_args().runs
    server = f"127.0.0.1:{closed_port()}"
    for base, name, commands in (
        (INTERPRETER, "python -c pass", WITHOUT_TWISTED),
        (REACTOR, "python -c 'import twisted.internet.reactor'", WITH_TWISTED),
    ):
        least = processor_seconds(base, runs, server)
        print(f"{name}: {least * 1000:.0f} ms of processor time")
        for command in commands:
            seconds = processor_seconds(("-m", "txgearman.cli", *command.split()), runs, server)
            print(f"  txgearman {command}: {seconds / least:.2f} times that, {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
