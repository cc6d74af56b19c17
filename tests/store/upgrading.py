"""Opens a store whose tables are old, and dies meanwhile: `python -m tests.store.upgrading URL STEPS`.

It dies after so many steps of the upgrade, ahead of their commit; with one more than there are behind it.
"""

from __future__ import annotations

import os
import signal
import sys

import sqlalchemy as sa

from tests.store.contract import LEASE
from txgearman.store import tables
from txgearman.store.urls import open_store


def die() -> None:
    """End as with the power lost."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, steps: int) -> None:
    """Upgrade the tables at `url` until then."""
    upgrade = tables.upgrade

    def upgrade_and_die(connection: sa.Connection, version: int) -> None:
        missing = tables.UPGRADES[version - 1 :]
        if steps > len(missing):
            upgrade(connection, version)
            return
        for step in missing[:steps]:
            step(connection)
        die()

    tables.upgrade = upgrade_and_die
    open_store(url).open("new", LEASE)
    die()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
