"""What administrators have set while a server ran, which holds for all servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Setting(NamedTuple):
    """Something that an administrator has set for a function.

    Attributes:
        function: The function's name.
        kind: What is set: up to 32 characters.
        value: To what, as text.
    """

    function: bytes
    kind: str
    value: str


class Settings(NamedTuple):
    """All settings.

    Attributes:
        version: Greater than all before as soon as one changes. The settings may be newer than that.
        settings: The settings, in no order.
    """

    version: int
    settings: list[Setting]


@dataclass(slots=True)
class SettingChanges:
    """What one call of `SettingTable.change` makes durable.

    Attributes:
        dropped: Functions all of whose settings are deleted, ahead of what follows.
        values: The new value by function and kind; None deletes the setting.
    """

    dropped: set[bytes] = field(default_factory=set)
    values: dict[tuple[bytes, str], str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.dropped or self.values)


class SettingTable(Protocol):
    """The settings of functions."""

    def read(self) -> Settings:
        """Read what administrators have set.

        Returns:
            All settings.
        """

    def change(self, changes: SettingChanges) -> None:
        """Change settings. Deleting one that is not there is no error.

        Args:
            changes: The changes, at least one.
        """
