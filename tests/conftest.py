"""Settings of pytest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import pytest_twisted

from tests import support

support.block_on = pytest_twisted.blockon

HERE: Final = Path(__file__).parent

SLOW: Final = (
    "attack",
    "benchmarks",
    "blocking/test_on_servers.py",
    "blocking/test_types_of_jobs.py",
    "broker/test_model.py",
    "chaos",
    "cli/test_on_servers.py",
    "cli/test_terminal.py",
    "client/test_on_servers.py",
    "client/test_restarts.py",
    "examples",
    "gearmand/test_debian.py",
    "gearmand/test_program.py",
    "gearmand/test_queue.py",
    "interop",
    "server/test_admin_against_gearmand.py",
    "server/test_durable.py",
    "server/test_migration.py",
    "server/test_systemd.py",
    "server/test_twistd.py",
    "store/test_postgresql.py",
    "store/test_several_servers.py",
    "store/test_versions.py",
    "test_packaging.py",
    "test_speed.py",
    "web/test_browser.py",
    "web/test_description.py",
    "worker/test_on_servers.py",
    "worker/test_restarts.py",
)
"""What ``--fast`` leaves out: tests that start servers, databases, browsers and other programs, and random
walks that take seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the tests that take long")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--fast") and collection_path.is_relative_to(HERE):
        name = str(collection_path.relative_to(HERE))
        return True if name in SLOW else None
    return None
