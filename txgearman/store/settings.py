"""Settings of functions in a database."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from txgearman.store.contract.settings import Setting, SettingChanges, Settings
from txgearman.store.session import Session
from txgearman.store.tables import META, SETTING


class SettingRows(ABC):
    """The `SettingTable` of a database.

    A subclass knows one kind of database.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @abstractmethod
    def _change(self, changes: SettingChanges) -> None:
        """Change settings, and count that, in one transaction."""

    def read(self) -> Settings:
        def read_all() -> Settings:
            with self._session.reading() as connection:
                # First: what changes in between is read again later.
                version = connection.scalar(sa.select(META.c.settings))
                rows = connection.execute(sa.select(SETTING.c.name, SETTING.c.kind, SETTING.c.value))
                return Settings(int(version or 0), [Setting._make(row) for row in rows])

        return self._session.with_retries(read_all)

    def change(self, changes: SettingChanges) -> None:
        self._session.with_retries(lambda: self._change(changes))
