"""The Debian package, installed on a copy of this machine's system, which is thrown away.

`make test-deb` builds the package and runs this. It needs root, and a kernel that has overlayfs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import free_port
from txgearman import blocking

HOST = "127.0.0.1"
LIMIT = 300
"""Seconds that any of the programs here may take; the linter has thousands of files to look at."""
(PACKAGE,) = sorted((Path(__file__).parent.parent.parent / "build/deb").glob("*.deb"))
CONFIGURATION = "etc/txgearman/gearmand.toml"
JOBS = "var/lib/txgearman"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


class System:
    """A copy of this machine's system below `root`, in which packages are installed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> str:
        return run("chroot", self.root, "env", "DEBIAN_FRONTEND=noninteractive", *command)

    def install(self, package: Path) -> str:
        there = self.root / "tmp" / package.name
        there.write_bytes(package.read_bytes())
        return self.run("dpkg", "--install", f"/tmp/{package.name}")

    def unit(self, name: str) -> dict[str, str]:
        text = (self.root / "lib/systemd/system" / name).read_text(encoding="utf-8")
        return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))

    def start(self, held: socket.socket) -> subprocess.Popen[bytes]:
        """Start the server as its unit says, with the socket that systemd would hold."""
        unit = self.unit("txgearman.service")
        name = self.unit("txgearman.socket")["FileDescriptorName"]
        script = (
            f"cd {shlex.quote(unit['WorkingDirectory'])}; umask {unit['UMask']};"
            f" export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name};"
            f" exec {unit['ExecStart']} 3<&{held.fileno()}"
        )
        user = f"--reuid={unit['User']}", f"--regid={unit['User']}", "--clear-groups"
        command = ["chroot", str(self.root), "setpriv", *user, "bash", "-c", script]
        return subprocess.Popen(
            command, pass_fds=[held.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


@pytest.fixture
def system() -> Iterator[System]:
    if os.getuid() != 0:
        pytest.skip("needs root")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="txgearman-deb-")))
        root = folder / "root"

        def mounted(*arguments: str, at: Path) -> None:
            done = subprocess.run(["mount", *arguments, at], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            stack.callback(run, "umount", "--lazy", at)

        mounted("-t", "tmpfs", "tmpfs", at=folder)
        for name in ("root", "upper", "work"):
            (folder / name).mkdir()
        layers = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
        mounted("-t", "overlay", "overlay", "-o", layers, at=root)
        mounted("--bind", "/dev", at=root / "dev")
        mounted("-t", "proc", "proc", at=root / "proc")
        yield System(root)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The same package with a higher version."""
    run("dpkg-deb", "--raw-extract", PACKAGE, tmp_path / "content")
    control = tmp_path / "content/DEBIAN/control"
    text = control.read_text(encoding="utf-8")
    control.write_text(re.sub(r"(?m)^Version: .*", r"\g<0>.newer", text), encoding="utf-8")
    run("dpkg-deb", "--build", "-Znone", tmp_path / "content", tmp_path / "newer.deb")
    return tmp_path / "newer.deb"


@pytest.fixture
def held() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind((HOST, free_port()))
        listening.listen(128)
        yield listening


class Load(threading.Thread):
    """A client that submits background jobs until it is told to `stop`.

    `accepted` are the data of those that were acknowledged.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._client = blocking.GearmanClient([address])
        self._stopped = threading.Event()
        self.accepted: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                data = str(len(self.accepted))
                job = self._client.submit_job("keep", data, unique=data, background=True, max_retries=20)
                # A server that is about to end refuses jobs.
                if job.state == blocking.constants.JOB_CREATED:
                    self.accepted.append(data)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        if self.error is not None:
            raise self.error

    def has_accepted(self, more: int) -> None:
        """Wait until that many jobs more are accepted."""
        wanted = len(self.accepted) + more
        until(
            lambda: len(self.accepted) >= wanted or self.error is not None, f"{more} more jobs are accepted"
        )


def until(condition: Any, what: str) -> None:
    """Wait for what only another process knows."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT} seconds: {what}"
        threading.Event().wait(0.01)


def work_off(address: str, jobs: int) -> list[str]:
    """The data of so many jobs, and of what comes with them, by a worker."""
    done: list[str] = []

    class Worker(blocking.GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            return len(done) < jobs

    worker = Worker([address])
    worker.register_task("keep", lambda _worker, job: done.append(job.data) or "")
    worker.work(poll_timeout=1)
    return done


def test_the_linter_is_content() -> None:
    assert run("lintian", "--allow-root", PACKAGE) == ""


def test_install_upgrade_remove_purge(system: System, newer: Path, held: socket.socket) -> None:
    address = f"{HOST}:{held.getsockname()[1]}"
    system.install(PACKAGE)
    configuration = system.root / CONFIGURATION
    assert configuration.stat().st_mode & 0o777 == 0o640
    # What systemd says of the units, without one that runs.
    units = [f"/lib/systemd/system/txgearman.{kind}" for kind in ("service", "socket")]
    assert system.run("systemd-analyze", "verify", "--man=no", *units) == ""
    with configuration.open("a", encoding="utf-8") as file:
        file.write("\n# Changed by the administrator.\n")

    server = system.start(held)
    load = Load(address)
    load.start()
    try:
        load.has_accepted(100)
        assert "keep" in run("gearadmin", "--host", HOST, "--port", address.split(":")[1], "--status")
        # The files are replaced below the server that runs, then it is; systemd restarts it so.
        system.install(newer)
        load.has_accepted(100)
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, output
        assert b"Traceback" not in output, output
        assert b"Unable" not in output, output
        server = system.start(held)
        load.has_accepted(100)
        load.stop()
        done = work_off(address, len(load.accepted))
        assert sorted(done) == sorted(load.accepted), "each acknowledged job ran, and once"
    finally:
        load.stop()
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=LIMIT)
    assert server.returncode == 0, output
    assert b"Traceback" not in output, output
    assert configuration.read_text(encoding="utf-8").endswith("# Changed by the administrator.\n")
    assert system.run("dpkg-query", "--show", "--showformat=${Version}", "txgearman").endswith(".newer")

    system.run("dpkg", "--remove", "txgearman")
    assert not (system.root / "opt/txgearman").exists()
    assert not (system.root / "usr/bin/txgearman").is_symlink()
    assert configuration.exists()
    assert (system.root / JOBS / "queue.db").exists()
    system.run("dpkg", "--purge", "txgearman")
    assert not configuration.parent.exists()
    assert not (system.root / JOBS).exists()
    assert "txgearman" not in (system.root / "etc/passwd").read_text(encoding="utf-8")
