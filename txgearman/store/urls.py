"""From the URL that names a database to the store on it. Loads a database's library only when it is named."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from txgearman.errors import StoreError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from txgearman.store.contract import Store


class _Backend(NamedTuple):
    """A kind of database: the class of its store, and what SQLAlchemy calls its driver."""

    module: str
    store: str
    driver: str
    library: str
    extra: str


_SQLITE: Final = _Backend(
    "txgearman.store.sqlite.store", "SqliteStore", "sqlite+pysqlite", "sqlite3", "store"
)
_POSTGRESQL: Final = _Backend(
    "txgearman.store.postgresql.store", "PostgresqlStore", "postgresql+psycopg", "psycopg", "postgresql"
)

BACKENDS: Final = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
"""The kinds of databases there are, by the scheme of their URLs."""


def open_store(url: str) -> Store:
    """The store on the database that `url` names. Nothing is connected before its `open`.

    ``sqlite:///queue.db`` is a file in the working folder, ``sqlite:////var/lib/gearman/queue.db`` one by its
    whole path. ``postgresql://user:password@host:port/database`` is a database of PostgreSQL; what libpq
    knows beside that, such as ``?sslmode=require``, may follow.
    Raises `StoreError`, in words for the operator, for a URL that names no such database and for a library
    that is not installed.
    """
    backend, parsed = _backend_of(url), parse_url(url)
    return cast("Store", getattr(import_module(backend.module), backend.store)(parsed))


def check_store(url: str) -> None:
    """Look whether a URL can be that of a store. Nothing is connected, and nothing is made.

    Args:
        url: As `open_store` takes it.

    Raises:
        StoreError: What `open_store` raises, or the folder of an SQLite file is missing.
    """
    open_store(url)
    if _backend_of(url) is _SQLITE:
        file = os.path.abspath(parse_url(url).database or "")
        folder = os.path.dirname(file)
        if not os.path.isdir(folder):
            raise StoreError(f"cannot keep jobs in {file}: there is no folder {folder}")


def parse_url(url: str) -> sa.URL:
    """`url` as SQLAlchemy has it, with the driver that is used here. Raises what `open_store` raises."""
    backend = _backend_of(url)
    for library in ("sqlalchemy", backend.library):
        if find_spec(library) is None:
            raise StoreError(
                f"{url.partition(':')[0]}:// needs {library}, which is not installed: "
                f"pip install 'txgearman[{backend.extra}]'"
            )
    import sqlalchemy as sa

    try:
        return sa.make_url(url).set(drivername=backend.driver)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreError(f"not the URL of a store: {error}") from None


def _backend_of(url: str) -> _Backend:
    scheme, separator, _ = url.partition("://")
    backend = BACKENDS.get(scheme)
    if backend is None or not separator:
        known = ", ".join(f"{name}://" for name in BACKENDS)
        # Not the whole, which may hold a password.
        begins = f"{scheme}://" if separator else url
        raise StoreError(f"not the URL of a store, which begins with one of {known}: {begins}")
    return backend
