"""How long the command, the blocking API and the server take to start, as a multiple of what nobody can save.

What needs no Twisted is compared with a bare interpreter, the others with one that has imported the reactor.
What counts is the processor time of the process, the least of several runs: the time on the clock tells of
the machine's other work, too. The commands that ask a server find none, and end with that. The server has
started when it answers.

All have their bytecode, as installed programs do.

    python -m benchmarks.start --runs 20
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import servers

INTERPRETER: Final = "pass"
REACTOR: Final = "import twisted.internet.reactor"
BLOCKING: Final = "from txgearman import blocking"
CLIENT: Final = "from txgearman.blocking import GearmanClient"

WITHOUT_TWISTED: Final = ("--help", "--version", "status --help", "completion zsh")
WITH_TWISTED: Final = ("status", "jobs", "limits", "ping", "version", "submit f x -b", "cancel H:none:1")


PATIENCE: Final = 30.0
"""Seconds in which the server must answer."""


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of what is measured: without a server, and with bytecode in a folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    server = f"127.0.0.1:{closed_port()}"
    return {**inherited, "TXGEARMAN_SERVER": server, "PYTHONPYCACHEPREFIX": str(folder)}


def processor_seconds(arguments: tuple[str, ...], runs: int, environment: dict[str, str]) -> float:
    """The least processor time that a Python process with these arguments takes.

    Args:
        arguments: What stands after ``python``.
        runs: How often it is run.
        environment: Its environment.

    Returns:
        Seconds.
    """
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


def serving_seconds(runs: int, environment: dict[str, str], folder: Path) -> tuple[float, float]:
    """How long the server takes until it answers.

    Args:
        runs: How often it is started.
        environment: Its environment.
        folder: Where it writes its log.

    Returns:
        The least seconds on the clock, and the least of processor time.
    """
    least = least_used = float("inf")
    for _ in range(runs + 1):
        port = closed_port()
        began = time.perf_counter()
        with subprocess.Popen(servers.txgearman().command(port, folder, ()), env=environment) as server:
            try:
                wait_for_answer(port, began + PATIENCE)
                least = min(least, time.perf_counter() - began)
                least_used = min(least_used, servers.cpu_of(server.pid))
            finally:
                server.terminate()
    return least, least_used


def wait_for_answer(port: int, give_up: float) -> None:
    """Wait for a server's answer to an admin command. Raises `BenchmarkFailed` when the clock says so."""
    while time.perf_counter() < give_up:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(b"version\n")
                if connection.recv(100):
                    return
        except ConnectionError:
            time.sleep(0.001)
    raise servers.BenchmarkFailed("the server does not answer")


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def main() -> None:
    """Measure, and print a line for each command."""
    parser = argparse.ArgumentParser(description="How long command, blocking API and server take to start.")
    parser.add_argument("--runs", type=int, default=20, help="runs of each, of which the fastest counts")
    runs: int = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="txgearman-start-") as name:
        folder = Path(name)
        environment = environment_of(folder)
        least = 0.0

        def report(what: str, seconds: float) -> None:
            print(f"  {what}: {seconds / least:.2f} times that, {seconds * 1000:.0f} ms", flush=True)

        for base, program, commands in (
            (INTERPRETER, BLOCKING, WITHOUT_TWISTED),
            (REACTOR, CLIENT, WITH_TWISTED),
        ):
            least = processor_seconds(("-c", base), runs, environment)
            print(f"python -c '{base}': {least * 1000:.0f} ms of processor time", flush=True)
            report(f"python -c '{program}'", processor_seconds(("-c", program), runs, environment))
            for command in commands:
                arguments = ("-m", "txgearman.cli", *command.split())
                report(f"txgearman {command}", processor_seconds(arguments, runs, environment))
        clock, used = serving_seconds(runs, environment, folder)
        report("the server", used)
        print(f"  the server answers {clock * 1000:.0f} ms after its start, on the clock")


if __name__ == "__main__":
    main()
