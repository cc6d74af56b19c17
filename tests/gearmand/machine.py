"""A machine with Debian's gearmand for a test: its files are as installed, and nothing changes on this one.

``python -m tests.gearmand.machine SCENARIO`` runs one of the scenarios below and prints what came of it, in
JSON. It must run in namespaces of its own for mounts, network and processes, see `in_namespaces`: there it
mounts empty folders over those that would be written to, and it may listen at gearmand's own port. The
commands of an operator are those of docs/from_gearmand.rst. ``systemctl`` is played by `units`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.gearmand.programs import CHECKOUT, LIMIT, Connection, make_script
from txgearman.wire import packets as p

USER: Final = "gearman"
PORT: Final = 4730
DEFAULTS: Final = Path("/etc/default/gearman-job-server")
INIT_SCRIPT: Final = Path("/etc/init.d/gearman-job-server")
UNIT: Final = Path("/lib/systemd/system/gearman-job-server.service")
PAGE: Final = CHECKOUT / "docs/from_gearmand.rst"
WORKERS: Final = Path(__file__).parent / "workers"

_EMPTY: Final = ("/run", "/srv", "/opt", "/var/log/gearman-job-server", "/etc/systemd/system", "/mnt")
"""Folders over which an empty one is mounted."""

_NAMESPACES: Final = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_FIRST_PROCESS: Final = ("sh", "-c", '"$@"; exit $?', "sh")
"""The process that reaps those whose parents have ended, as an init does."""

_LOOK_AGAIN: Final = 0.02
"""Seconds between two looks at what only another process knows."""


def missing() -> str:
    """Why there can be no such machine here, empty if there can."""
    for path in (DEFAULTS, INIT_SCRIPT, UNIT):
        if not path.exists():
            return f"not installed: {path}"
    for program in ("unshare", "ip", "mount", "setpriv", "start-stop-daemon"):
        if shutil.which(program) is None:
            return f"not installed: {program}"
    if (
        os.getuid() != 0
        or subprocess.run([*_NAMESPACES, "true"], check=False, capture_output=True).returncode
    ):
        return "no right to make namespaces"
    return ""


def in_namespaces(scenario: str) -> Any:
    """Run a scenario; returns what it printed. Raises `AssertionError` with its errors if it failed."""
    done = subprocess.run(
        [*_NAMESPACES, *_FIRST_PROCESS, sys.executable, "-m", "tests.gearmand.machine", scenario],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# -- the machine ----------------------------------------------------------------------------------


def run(*command: str, **others: Any) -> str:
    """Run a program to its end; returns its output. Raises `AssertionError` if it fails."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LIMIT,
        **others,
    )
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout


def mount_empty(path: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(path))


def prepare(parameters: str = "") -> None:
    """Make the machine. `parameters` come behind those of the defaults file."""
    run("ip", "link", "set", "lo", "up")
    defaults, script = DEFAULTS.read_text(), INIT_SCRIPT.read_text()
    for folder in _EMPTY:
        mount_empty(Path(folder))
    for folder in (sys.base_prefix, sys.prefix, str(CHECKOUT)):
        _let_all_enter(Path(os.path.realpath(folder)))
    shutil.chown("/var/log/gearman-job-server", USER, USER)
    Path("/srv/gearman").mkdir()
    shutil.chown("/srv/gearman", USER, USER)
    mount_empty(INIT_SCRIPT.parent)
    INIT_SCRIPT.write_text(script)
    INIT_SCRIPT.chmod(0o755)
    mount_empty(DEFAULTS.parent)
    DEFAULTS.write_text(defaults + (f'PARAMS="$PARAMS {parameters}"\n' if parameters else ""))
    program = Path("/opt/txgearman/bin")
    program.mkdir(parents=True)
    make_script(program)
    tools = Path("/opt/tools")
    tools.mkdir()
    systemctl = tools / "systemctl"
    systemctl.write_text(
        f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m tests.gearmand.units "$@"\n'
    )
    systemctl.chmod(0o755)
    os.environ["PATH"] = f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"
    # What the service has is what its unit says.
    del os.environ["PYTHONPATH"]


def _let_all_enter(folder: Path) -> None:
    """Let every user reach a folder, such as a Python below root's home, by mounting it into an open one."""
    for ancestor in reversed(folder.parents):
        if not ancestor.stat().st_mode & 0o001:
            kept = Path("/mnt") / str(abs(hash(str(folder))))
            kept.mkdir()
            run("mount", "--bind", str(folder), str(kept))
            mount_empty(ancestor)
            folder.mkdir(parents=True)
            run("mount", "--bind", str(kept), str(folder))
            return


def commands(heading: str) -> list[list[str]]:
    """The blocks of commands of a section of the page, each as its lines."""
    text = PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^{heading}\n[-~]+\n(.*?)(?=^[^\n]+\n[-~]+\n)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    blocks = re.findall(r"::\n\n((?:   .*\n)+)", section[1])
    return [textwrap.dedent(block).splitlines() for block in blocks]


def operate(lines: list[str]) -> str:
    """Do what the lines say; returns what they print."""
    return "".join(run("sh", "-c", line, cwd=CHECKOUT) for line in lines)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when it is true. Raises `AssertionError` if it does not become true."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(_LOOK_AGAIN)


def version() -> str:
    with Connection(PORT) as connection:
        return connection.line("version")


# -- scenarios ------------------------------------------------------------------------------------


class Workers:
    """Workers in Perl and PHP that run all the time, and note each job that they run."""

    def __init__(self) -> None:
        self.notes = Path("/srv/notes")
        self.notes.touch()
        self._programs = [
            subprocess.Popen([program, str(WORKERS / script), str(PORT), str(self.notes)])
            for program, script in (("perl", "worker.pl"), ("php", "worker.php"))
        ]

    def signal(self, number: signal.Signals) -> None:
        for program in self._programs:
            program.send_signal(number)

    def ran(self) -> list[str]:
        return self.notes.read_text().splitlines()

    def wait_until_run(self, names: list[str]) -> None:
        wait_for(lambda: set(names) <= set(self.ran()), f"the workers did not run {names}: {self.ran()}")


def submit(label: str, connection: Connection) -> list[str]:
    """Submit jobs for both workers and for one that comes later; returns the names of the jobs."""
    names = []
    for function in ("perl", "php", "waiting"):
        for number in range(15):
            kind = (p.SUBMIT_JOB_BG, p.SUBMIT_JOB_HIGH_BG, p.SUBMIT_JOB_LOW_BG)[number % 3]
            name = f"{function} {label} {number}"
            connection.submit(kind, function.encode(), f"u{name}".encode(), name.encode())
            names.append(name)
    return names


def over_and_back() -> Any:
    """Turn a machine with jobs and workers over to txgearmand and back, by the commands of the page."""
    prepare("--queue-type=libsqlite3 --libsqlite3-db=/srv/gearman/jobs.db")
    (before, over), (back,) = commands("The minute there"), commands("The minute back")
    operate(["systemctl start gearman-job-server"])
    workers = Workers()
    versions = [version()]
    submitted = []
    # What would have to be installed for it is there.
    told = operate(before[-1:])
    for label, turn in (("first", over), ("second", back)):
        with Connection(PORT) as connection:
            names = submit(f"{label} run", connection)
            workers.wait_until_run([name for name in names if not name.startswith("waiting")])
            workers.signal(signal.SIGSTOP)
            submitted += names + submit(f"{label} left", connection)
        told += operate(turn)
        workers.signal(signal.SIGCONT)
        workers.wait_until_run([name for name in submitted if not name.startswith("waiting")])
        versions.append(version())
    with Connection(PORT) as connection:
        ran = workers.ran() + [data.decode() for _, _, data in connection.run_all(b"waiting")]
    operate(["systemctl stop gearman-job-server"])
    return {"versions": versions, "submitted": sorted(submitted), "ran": sorted(ran), "told": told}


def init_script() -> Any:
    """Start, ask for and stop txgearmand by the init script, with the defaults file as it is installed."""
    prepare()
    (changes,) = commands("Without systemd")
    operate(changes)
    said = [run(str(INIT_SCRIPT), "start")]
    versions = [version()]
    said.append(run(str(INIT_SCRIPT), "status"))
    pid_file = Path("/run/gearman/gearmand.pid")
    first = int(pid_file.read_text())
    owner = os.stat(f"/proc/{first}").st_uid
    said.append(run(str(INIT_SCRIPT), "restart"))
    versions.append(version())
    second = int(pid_file.read_text())
    said.append(run(str(INIT_SCRIPT), "stop"))
    log = Path("/var/log/gearman-job-server/gearmand.log").read_text()
    return {
        "said": said,
        "versions": versions,
        "owner": owner,
        "restarted": first != second,
        "left": pid_file.exists() or os.path.exists(f"/proc/{second}"),
        "log": log,
    }


def unit() -> Any:
    """Start and stop txgearmand by the systemd unit, with the defaults file as it is installed."""
    prepare()
    _, over = commands("The minute there")
    operate(over)
    pid = int(Path("/run/gearman/gearmand.pid").read_text())
    found = {"version": version(), "owner": os.stat(f"/proc/{pid}").st_uid}
    operate(["systemctl stop gearman-job-server"])
    found["left"] = os.path.exists(f"/proc/{pid}")
    return found


SCENARIOS: Final = {scenario.__name__: scenario for scenario in (over_and_back, init_script, unit)}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]]()))
