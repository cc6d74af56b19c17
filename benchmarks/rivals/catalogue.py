"""The job systems that are compared: their packages, interpreters, clients and workers. No measuring.

Why each is run as it is stands in its ``on_*.py``, with the pages that advise it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.rivals.contract import BULK, CALL, EACH
from benchmarks.rivals.jobs import HOST

CHECKOUT: Final = Path(__file__).parents[2]

VENVS: Final = Path(os.environ.get("TXGEARMAN_BENCH_VENVS", CHECKOUT / ".venv/rivals"))
"""Where ``make bench-rivals`` installs each rival, in a venv of its own: they need different versions of
redis-py."""

OURS: Final = "txgearman"
REDIS: Final = "redis"
"""Brokers."""


@dataclass(frozen=True, slots=True)
class WorkerForm:
    """One way to run a worker: one process that runs jobs, and what manages it.

    `command` makes the command line from the folder of the interpreter and the broker's port. `most` is how
    many jobs are measured where the form is so slow that all would take too long; 0 for all.
    """

    name: str
    command: Callable[[Path, int], Sequence[str]]
    most: int = 0


@dataclass(frozen=True, slots=True)
class Rival:
    """A job system: its client and its worker in the ways that its documents name.

    The first of `workers` answers in the measurement of calls, and is measured durably. `packages` are those
    whose versions tell what was measured.
    """

    name: str
    module: str
    broker: str
    packages: tuple[str, ...]
    roles: tuple[str, ...]
    workers: tuple[WorkerForm, ...]
    venv: str | None = None

    @property
    def programs(self) -> Path:
        """The folder with its interpreter and commands."""
        if self.venv is None:
            return Path(sys.executable).parent
        return VENVS / self.venv / "bin"

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return (self.programs / "python").exists()

    def versions(self) -> Mapping[str, str]:
        """The versions of its packages."""
        script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        shown = subprocess.run(
            [str(self.programs / "python"), "-c", script, *self.packages],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return dict(zip(self.packages, shown.stdout.split(), strict=True))


def _celery(name: str, *options: str) -> WorkerForm:
    # Without the two it waits a second for other workers at its start; what it does later is the same.
    quiet = ("--loglevel=WARNING", "--without-gossip", "--without-mingle")
    app = "benchmarks.rivals.on_celery"
    return WorkerForm(name, lambda bin_, _port: (str(bin_ / "celery"), "-A", app, "worker", *quiet, *options))


def _rq(name: str, *options: str, most: int = 0) -> WorkerForm:
    return WorkerForm(
        name,
        lambda bin_, port: (
            str(bin_ / "rq"),
            "worker",
            "--quiet",
            "--url",
            f"redis://{HOST}:{port}/0",
            *options,
        ),
        most,
    )


def _dramatiq(name: str, *options: str) -> WorkerForm:
    app = "benchmarks.rivals.on_dramatiq"
    return WorkerForm(name, lambda bin_, _port: (str(bin_ / "dramatiq"), *options, app))


def _huey(name: str, *options: str) -> WorkerForm:
    app = "benchmarks.rivals.on_huey.huey"
    return WorkerForm(
        name, lambda bin_, _port: (str(bin_ / "huey_consumer"), app, "--quiet", "--no-periodic", *options)
    )


def _arq(name: str, settings: str, most: int = 0) -> WorkerForm:
    app = "benchmarks.rivals.on_arq"
    return WorkerForm(
        name,
        lambda bin_, _port: (str(bin_ / "arq"), f"{app}.{settings}", "--custom-log-dict", f"{app}.LOGGING"),
        most,
    )


def _ours(name: str, module: str, concurrency: int = 1) -> WorkerForm:
    return WorkerForm(
        name,
        lambda bin_, _port: (
            str(bin_ / "python"),
            "-m",
            "benchmarks.rivals.worker",
            module,
            str(concurrency),
        ),
    )


RIVALS: Final = (
    Rival(
        "txgearman",
        "on_twisted",
        OURS,
        ("txgearman", "twisted"),
        (EACH, BULK, CALL),
        (_ours("concurrency 16", "on_twisted", 16), _ours("one at once", "on_twisted")),
    ),
    Rival(
        "txgearman.aio",
        "on_asyncio",
        OURS,
        ("txgearman", "twisted"),
        (EACH, BULK, CALL),
        (_ours("concurrency 16", "on_asyncio", 16),),
    ),
    Rival(
        "txgearman.blocking",
        "on_blocking",
        OURS,
        ("txgearman", "twisted"),
        (EACH, BULK, CALL),
        (_ours("one at once", "on_blocking"),),
    ),
    Rival(
        "Celery",
        "on_celery",
        REDIS,
        ("celery", "kombu", "redis", "hiredis"),
        (EACH, CALL),
        (
            _celery("prefork, 1 process", "--pool=prefork", "--concurrency=1"),
            _celery("solo", "--pool=solo"),
            _celery("8 threads", "--pool=threads", "--concurrency=8"),
        ),
        "celery",
    ),
    Rival(
        "RQ",
        "on_rq",
        REDIS,
        ("rq", "redis", "hiredis"),
        (EACH, BULK, CALL),
        (
            _rq("SimpleWorker", "--worker-class", "rq.SimpleWorker"),
            _rq("default, forks", most=200),
        ),
        "rq",
    ),
    Rival(
        "Dramatiq",
        "on_dramatiq",
        REDIS,
        ("dramatiq", "redis", "hiredis"),
        (EACH, CALL),
        (_dramatiq("8 threads", "--processes", "1", "--threads", "8"),),
        "dramatiq",
    ),
    Rival(
        "Huey",
        "on_huey",
        REDIS,
        ("huey", "redis", "hiredis", "gevent"),
        (EACH, CALL),
        (
            _huey("4 threads", "--worker-type", "thread", "--workers", "4"),
            _huey("1 thread", "--worker-type", "thread", "--workers", "1"),
            _huey("50 greenlets", "--worker-type", "greenlet", "--workers", "50"),
        ),
        "huey",
    ),
    Rival(
        "arq",
        "on_arq",
        REDIS,
        ("arq", "redis", "hiredis"),
        (EACH, CALL),
        (_arq("max_jobs 100", "ManyJobs"), _arq("defaults", "Defaults", most=400)),
        "arq",
    ),
)


def missing(rival: Rival) -> str | None:
    """Why a rival cannot be measured here; None if it can."""
    if rival.broker == REDIS and shutil.which("redis-server") is None:
        return "redis-server is not installed"
    if not rival.is_installed:
        return f"{rival.name} is not installed in {VENVS}: make bench-rivals does that"
    return None
