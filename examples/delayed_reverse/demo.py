"""Runs the worker and the client beside this file against a server of their own, and shows what they say.

The server is started by ``twistd`` on a free port of 127.0.0.1. Everything is stopped at the end, also
on Ctrl-C.
"""

import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
START_LIMIT = 10.0  # seconds the server may take to accept connections
STOP_LIMIT = 5.0  # seconds a process may take to end before it is killed
COLUMN = 100  # characters of the left column


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(*command, **options):
    """A process that is ended when the block is left, however it is left."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([str(part) for part in command], env=environment, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_server(server, port):
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit("The server ended at once; its log is above.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"The server did not accept connections within {START_LIMIT:.0f} seconds.")


def collect(name, process, lines):
    """Put each line the process prints on the queue, and None at its end."""

    def read():
        for line in process.stdout:
            lines.put((name, line.rstrip("\n")))
        lines.put((name, None))

    threading.Thread(target=read, daemon=True).start()


def show(name, line):
    """The client on the left, the worker on the right; below one another on a narrow terminal."""
    narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < COLUMN + 62
    if narrow:
        print(f"{name}: {line}", flush=True)
    elif name == "client":
        print(f"{line:<{COLUMN}}|", flush=True)
    else:
        print(f"{'':<{COLUMN}}| {line}", flush=True)


def main():
    # So that an outer kill of this script takes the way of Ctrl-C too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    twistd = Path(sys.executable).with_name("twistd")
    port = free_port()
    endpoint = f"tcp:127.0.0.1:{port}"
    lines = queue.Queue()
    piped = {"stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with contextlib.ExitStack() as stack:
        listen = f"tcp:{port}:interface=127.0.0.1"
        server = stack.enter_context(
            running(
                twistd, "--nodaemon", "--pidfile=", "gearmand", "--listen", listen, stdout=subprocess.DEVNULL
            )
        )
        wait_for_server(server, port)
        print(f"Server: twistd gearmand --listen {listen}")
        show("client", "CLIENT")
        show("worker", "WORKER")
        worker = stack.enter_context(running(sys.executable, HERE / "worker.py", endpoint, **piped))
        collect("worker", worker, lines)
        client = stack.enter_context(running(sys.executable, HERE / "client.py", endpoint, **piped))
        collect("client", client, lines)
        while (entry := lines.get()) != ("client", None):
            name, line = entry
            if line is None:
                raise SystemExit("The worker ended before the client.")
            show(name, line)
        client.wait()
    print("Stopped.")
    return client.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
