"""Runs ``twistd`` again and again, each time in a fork of this process, which has all modules loaded already.

Standard input has a JSON list of pairs: a command line, without ``twistd`` itself, and whether it is run
without root's rights. Standard output gets a list of what came of them: exit code (None for one that did not
end), standard output, standard error. A command has ended when nobody holds a pipe any more that all its
processes inherit.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.scripts import twistd

import txgearman.server.process.twistd
import txgearman.server.service
import txgearman.web

with contextlib.suppress(ImportError):  # Not everything is installed everywhere.
    import txgearman.server.tls
    import txgearman.store.postgresql.store
    import txgearman.store.sqlite.store  # noqa: F401

RUN_LIMIT: Final = 15.0
"""Seconds until a command counts as hanging; generous, for a loaded machine."""


def give_up_rights() -> None:
    """Give up all capabilities of this process (capset(2)): root can do no more than others then."""
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if os.getuid() == 0 and ctypes.CDLL(None).capset(version_3, (ctypes.c_uint32 * 6)()):
        raise OSError("capset failed")


class Run:
    """One command, in a fork. `is_child` tells in which process we are."""

    def __init__(self) -> None:
        pipes = [os.pipe() for _ in range(3)]
        self._pid = os.fork()
        self.is_child = not self._pid
        for number, (reading, writing) in enumerate(pipes, 1):
            os.close(reading if self.is_child else writing)
            if self.is_child:
                os.dup2(writing, number)
        if self.is_child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        self._output = {reading: b"" for reading, _ in pipes}

    def result(self, command: list[str]) -> list[Any]:
        """What came of it. What hangs is killed."""
        end = time.monotonic() + RUN_LIMIT
        is_open = list(self._output)
        while is_open:
            ready, _, _ = select.select(is_open, [], [], max(0, end - time.monotonic()))
            if not ready:
                self._kill(command)
                break
            for pipe in ready:
                part = os.read(pipe, 65536)
                self._output[pipe] += part
                if not part:
                    is_open.remove(pipe)
        _, status = os.waitpid(self._pid, 0)
        for pipe in self._output:
            os.close(pipe)
        output, errors, _ = (each.decode() for each in self._output.values())
        return [None if is_open else os.waitstatus_to_exitcode(status), output, errors]

    def _kill(self, command: list[str]) -> None:
        os.kill(self._pid, signal.SIGKILL)
        for option in command:
            name, _, path = option.partition("=")
            if name == "--pidfile" and os.path.exists(path):
                os.kill(int(Path(path).read_text()), signal.SIGKILL)


def next_command() -> bool:
    """Run all commands; only their processes come back with True."""
    # No reactor: each fork installs one.
    for plugin in getPlugins(IServiceMaker):
        assert plugin.tapname
    # Otherwise each fork walks all that was loaded when it ends.
    gc.freeze()
    results = []
    for command, unprivileged in json.load(sys.stdin):
        run = Run()
        if run.is_child:
            if unprivileged:
                give_up_rights()
            sys.argv = ["twistd", *command]
            return True
        results.append(run.result(command))
    json.dump(results, sys.stdout)
    return False


if __name__ == "__main__" and next_command():
    # Ends as a program ends, with the interpreter's own treatment of what is not caught.
    twistd.run()
