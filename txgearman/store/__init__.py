"""Keeping background jobs where a crash does not reach them: what a store must do, and the databases.

SQL is here and nowhere else. Everything here blocks; `txgearman.server.saving` calls it from a thread.
"""

from __future__ import annotations

from txgearman.store.contract import Store


def open_store(url: str) -> Store:
    """The store at `url`, not opened yet. Raises `ValueError` for a URL that is that of no store."""
    raise ValueError(f"{url!r} is no store: none is known")
