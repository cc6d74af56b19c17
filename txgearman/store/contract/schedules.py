"""Schedules and their ticks, which belong to no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Tick(NamedTuple):
    """That a job is the job of a tick of a schedule.

    Attributes:
        schedule: The schedule's name.
        tick: The tick, in seconds since the epoch.
        version: The `StoredSchedule.version` that the tick follows from; None where the configuration file
            says what the schedule is.
    """

    schedule: bytes
    tick: float
    version: int | None = None


class StoredSchedule(NamedTuple):
    """What is stored of a schedule.

    Attributes:
        name: Its name.
        since: When it was first added, in seconds since the epoch.
        paused: Whether it is paused.
        definition: What it is, as text of whoever wrote it; None where the configuration file says it.
        data: The payload of its jobs; None likewise.
        last_tick: The last tick that is done with and not forgotten; None without one. `ScheduleTable.save`
            passes over it.
        version: Greater than before after each change of it, and not given twice. `ScheduleTable.save`
            passes over it.
    """

    name: bytes
    since: float
    paused: bool
    definition: str | None = None
    data: bytes | None = None
    last_tick: float | None = None
    version: int = 0


class ScheduleTable(Protocol):
    """What is stored of schedules, and their ticks that are done with. `Store.write` does those with jobs."""

    def read(self) -> list[StoredSchedule]:
        """Read what is stored of schedules.

        Returns:
            The schedules by name.
        """

    def save(self, schedule: StoredSchedule, known: int | None = None) -> int | None:
        """Store a schedule, in place of one of its name.

        Args:
            schedule: The schedule.
            known: The version that the stored one must have, 0 if there must be none; None for either.

        Returns:
            Its version from now on; None if what is stored is another than is known. Nothing has changed
            then, or the answer to this call was lost once.
        """

    def note_of_file(self, names: Sequence[bytes], since: float) -> None:
        """Note that a configuration file says what schedules are. One that is stored stays paused if it is.

        Args:
            names: The schedules.
            since: Its `StoredSchedule.since`, unless it is stored already.
        """

    def pause(self, name: bytes, since: float, paused: bool) -> int | None:
        """Store whether a schedule is paused; the rest stays.

        Args:
            name: The schedule.
            since: What becomes of `StoredSchedule.since`.
            paused: Whether it is paused.

        Returns:
            The version of the schedule from now on; None if there is none of this name.
        """

    def delete(self, name: bytes) -> None:
        """Delete what is stored of a schedule, its ticks included. One that is not there is no error.

        Args:
            name: The schedule.
        """

    def changes(self) -> int:
        """How often schedules were saved, paused or deleted, by all servers of the store.

        Returns:
            A number that differs from an earlier one where `read` may differ.
        """

    def skip_ticks(self, ticks: Sequence[Tick]) -> None:
        """Note that ticks are done with, without a job. One that has a job keeps it.

        Args:
            ticks: The ticks.
        """

    def forget_ticks(self, before: float) -> int:
        """Forget old ticks that are done with. Whoever does one of them again does it twice.

        Args:
            before: Seconds since the epoch; ticks before that are forgotten.

        Returns:
            How many there were.
        """
