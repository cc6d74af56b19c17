"""Where the servers of a run come from: a process that has imported all they need, and forks one by one.

A start would take a second or more otherwise, nearly all of it imports. Each child is ``twistd`` with its
command line, started in every other respect as from a shell. ``python -m tests.processes.nursery`` is this
process: it reads a line of JSON for each start and answers with the child's process id, and one for each
child whose end is asked for. When its input ends, all children are killed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]

IMPORTED: Final = (
    "twisted.scripts.twistd",
    "twisted.internet.endpoints",
    "txgearman.server.process.twistd",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "txgearman.store.sqlite.store",
    "txgearman.web",
    "psycopg",
)
"""None of these may install a reactor: that is each child's own."""


@functools.cache
def shared_nursery(preload: Path | None = None) -> Nursery:
    """The one of this process, or the one whose children have a library preloaded.

    Its first use starts it, and it ends with the process.
    """
    nursery = Nursery(preload)
    atexit.register(nursery.close)
    return nursery


class Nursery:
    """The harness's end of the process."""

    def __init__(self, preload: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{os.environ.get('PYTHONPATH', '')}"}
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=CHECKOUT,
            text=True,
        )

    def start(
        self, arguments: Sequence[str], output: Path, mistake: str | None = None, *, instants: bool = True
    ) -> int:
        """Start twistd with `arguments`, its standard output and error added to a file; its process id.

        `mistake` is the dotted name of a function that breaks the server, called before it starts. Without
        `instants` the server cannot be asked to stop itself, and is as it was written.
        """
        return self._ask(
            {"arguments": list(arguments), "output": str(output), "mistake": mistake, "instants": instants}
        )

    def exit_code(self, pid: int) -> int:
        """The exit code of what was started and has ended, or minus the number of the signal it died of.

        This can be asked once, and is not answered while it runs.
        """
        return self._ask({"ended": pid})

    def _ask(self, order: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Kill what was started and still runs."""
        self._process.communicate()


def main() -> None:
    """Fork a child for each line of standard input."""
    # Before a child is forked: with a Ctrl-C meant for the harness the children die when the input ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            import_module(name)
    assert "twisted.internet.reactor" not in sys.modules
    children = _Children()
    for line in sys.stdin:
        order = json.loads(line)
        children.reap()
        if "ended" in order:
            print(children.exit_code(order["ended"]), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _be_twistd(**order)
        children.running.add(pid)
        print(pid, flush=True)
    children.reap()
    for pid in children.running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class _Children:
    """What was started, and the exit codes of what has ended."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self._ended: dict[int, int] = {}

    def reap(self) -> None:
        for pid in list(self.running):
            self._wait(pid, os.WNOHANG)

    def exit_code(self, pid: int) -> int:
        if pid in self.running:
            self._wait(pid, 0)
        return self._ended.pop(pid)

    def _wait(self, pid: int, options: int) -> None:
        found, status = os.waitpid(pid, options)
        if found:
            self.running.discard(pid)
            self._ended[pid] = os.waitstatus_to_exitcode(status)


def _be_twistd(arguments: list[str], output: str, mistake: str | None, instants: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    code = 1
    try:
        from twisted.scripts.twistd import run

        if instants:
            from tests.processes.instants import listen

            listen()
        if mistake is not None:
            module, _, name = mistake.rpartition(".")
            getattr(import_module(module), name)()
        sys.argv = ["twistd", *arguments]
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
