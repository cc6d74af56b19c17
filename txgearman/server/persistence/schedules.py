"""The broker's `ScheduleStore` on a `Store`: which ticks are done with. What is stored of schedules, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.schedule import MAX_WINDOW
from txgearman.errors import StoreError
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract.schedules import ScheduleTable, StoredSchedule, Tick

FORGET_INTERVAL: Final = 600.0
"""Seconds between two times at which old ticks are forgotten: 17,000 of them at 100,000 an hour, which one
statement deletes in a tenth of a second."""

TICK_MARGIN: Final = 3600.0
"""Seconds by which ticks are kept beyond the longest window for missed ones: servers may differ so much in
their clocks and in what their files say of the window."""

LOOK_INTERVAL: Final = 5.0
"""Seconds between two looks at whether another server has changed schedules. It is one row of one table."""

SKIP_DELAY: Final = 0.05
"""Seconds that a tick without a job waits to share a transaction with others: with a thousand schedules there
may be a thousand in a second. A crash meanwhile makes it a missed one."""

RETRY_INTERVAL: Final = 5.0
"""Seconds until such ticks are written again that the store could not take."""

MAX_SKIPPED: Final = 10_000
"""Ticks without jobs that wait to be written. Only in an outage are there more. The oldest are forgotten
then, as their windows end first."""

Heard = Callable[[list[StoredSchedule]], None]
"""Is told all that is stored of schedules, in the reactor's thread."""

_log = Logger()


class StoredSchedules:
    """What is stored of schedules. `StoreWriter` writes the ticks with their jobs; the rest is written here.

    Args:
        table: The schedules of the store, used through `in_thread`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        wall_clock: Gives seconds since the epoch.
        shared: Whether other servers may change schedules.
    """

    def __init__(
        self,
        table: ScheduleTable,
        reactor: Any,
        in_thread: InThread,
        wall_clock: Callable[[], float],
        shared: bool,
    ) -> None:
        self._table = table
        self._is_shared = shared
        self._reactor = reactor
        self._in_thread = in_thread
        self._wall_clock = wall_clock
        # The ticks of jobs that wait to be saved, by number.
        self._ticks: dict[int, Tick] = {}
        # Those without jobs that are to be written, in order.
        self._skipped: dict[Tick, None] = {}
        self._next_write: IDelayedCall | None = None
        # The versions of those that are stored as what they are here.
        self._versions: dict[bytes, int] = {}
        self._longest_window = 0.0
        self._timer = LoopingCall(self._forget_old)
        self._timer.clock = reactor
        self._heard: Heard | None = None
        self._changes_seen = 0
        self._look = LoopingCall(self._look_for_changes)
        self._look.clock = reactor

    def load(self) -> dict[bytes, StoredSchedule]:
        """Read what is stored. Blocks, and is for the start.

        Returns:
            The schedules by name.
        """
        # First: what changes in between is read again.
        self._changes_seen = self._table.changes()
        return {stored.name: stored for stored in self._table.read()}

    def watch(self, heard: Heard) -> None:
        """Look from now on whether other servers change schedules, where there may be others.

        Args:
            heard: Is told of each change, soon. What this server writes before it is called is in it.
        """
        self._heard = heard
        if self._is_shared and not self._look.running:
            self._look.start(LOOK_INTERVAL, now=False).addErrback(log_defect)

    def begin(self) -> None:
        """Forget old ticks from now on."""
        self._timer.start(FORGET_INTERVAL, now=False).addErrback(log_defect)

    def close(self) -> None:
        """Write what is to be written, and nothing more."""
        if self._skipped:
            self._write_skipped()
        self.stop()

    def stop(self) -> None:
        """Neither write, nor forget, nor look for changes any more."""
        self._skipped = {}
        self._cancel_next_write()
        for call in (self._timer, self._look):
            if call.running:
                call.stop()

    def take(self, jobs: Iterable[Job]) -> dict[int, Tick]:
        """The ticks of jobs that are being saved now. They wait no more.

        Args:
            jobs: The jobs.

        Returns:
            The ticks of those that have one, by the job's number.
        """
        waiting = self._ticks
        if not waiting:
            return {}
        numbers = [number for job in jobs if (number := number_of(job.handle)) in waiting]
        return {number: waiting.pop(number) for number in numbers}

    def put_back(self, ticks: Mapping[int, Tick]) -> None:
        """Jobs of ticks are to be saved once more.

        Args:
            ticks: Their ticks by number, as `take` returned them.
        """
        self._ticks.update(ticks)

    def follow(self, name: bytes, version: int) -> None:
        """Let the ticks of a schedule be done only while the store has this version of it.

        Args:
            name: The schedule.
            version: Its `StoredSchedule.version`.
        """
        self._versions[name] = version

    def unfollow(self, name: bytes) -> None:
        """Let the ticks of a schedule be done whatever the store has of it, unless it is paused there.

        Args:
            name: The schedule.
        """
        self._versions.pop(name, None)

    def look_now(self) -> None:
        """Look whether schedules have changed, as a tick was refused for that."""
        if self._look.running:
            self._look.reset()
            self._look_for_changes().addErrback(log_defect)

    def keep_for(self, window: float) -> None:
        """Keep ticks that are done with for as long as a window for missed ones may ask for them.

        Args:
            window: Seconds of the longest window.
        """
        self._longest_window = min(window, MAX_WINDOW)

    # -- the broker's verbs (ScheduleStore) -------------------------------------------------------

    def tick_with_job(self, number: int, schedule: bytes, tick: float) -> None:
        self._ticks[number] = Tick(schedule, tick, self._versions.get(schedule))

    def tick_without_job(self, schedule: bytes, tick: float) -> None:
        self._skipped[Tick(schedule, tick)] = None
        if self._next_write is None:
            self._next_write = self._reactor.callLater(SKIP_DELAY, self._write_skipped)

    # -- what is stored of schedules --------------------------------------------------------------

    def save(self, schedule: StoredSchedule, known: int | None = None) -> Deferred[int | None]:
        """Store a schedule, in place of one of its name.

        Args:
            schedule: The schedule.
            known: The version that the stored one must have, 0 if there must be none; None for either.

        Returns:
            Fires when it is durable, with its new version; with None if the store has another than is known.
            Fails with `StoreError`.
        """
        return self._in_thread(self._table.save, schedule, known)

    def read(self) -> Deferred[list[StoredSchedule]]:
        """Read what is stored.

        Returns:
            Fires with the schedules; fails with `StoreError`.
        """
        return self._in_thread(self._table.read)

    def note_of_file(self, names: Sequence[bytes], since: float) -> Deferred[None]:
        """Store that the configuration file says what schedules are.

        Args:
            names: The schedules.
            since: Since when the ticks of a new one are wanted, in seconds since the epoch.

        Returns:
            Fires when it is durable; fails with `StoreError`.
        """
        return self._in_thread(self._table.note_of_file, names, since)

    def pause(self, name: bytes, since: float, paused: bool) -> Deferred[int | None]:
        """Store whether a schedule is paused.

        Args:
            name: The schedule.
            since: Since when its ticks are wanted, in seconds since the epoch.
            paused: Whether it is paused.

        Returns:
            Fires when that is durable, with the schedule's new version; with None if there is none of this
            name. Fails with `StoreError`.
        """
        return self._in_thread(self._table.pause, name, since, paused)

    def delete(self, name: bytes) -> Deferred[None]:
        """Delete what is stored of a schedule.

        Args:
            name: The schedule.

        Returns:
            Fires when that is durable; fails with `StoreError`.
        """
        return self._in_thread(self._table.delete, name)

    def try_to(self, change: Deferred[Any]) -> None:
        """Let a change be made that nobody waits for; log it if it cannot be.

        Args:
            change: What one of the methods above returned.
        """

        def failed(failure: Failure) -> None:
            _pass_over(failure)
            _log.warn("What the store has to know of a schedule was not written: {why}", why=failure.value)

        change.addErrback(failed).addErrback(log_defect)

    def _write_skipped(self) -> None:
        self._cancel_next_write()
        skipped, self._skipped = self._skipped, {}

        def failed(failure: Failure) -> None:
            # In an outage, which the writer tells the operator of, they are written later.
            _pass_over(failure)
            left = [*skipped, *self._skipped][-MAX_SKIPPED:]
            self._skipped = dict.fromkeys(left)
            if self._next_write is None and self._timer.running:
                self._next_write = self._reactor.callLater(RETRY_INTERVAL, self._write_skipped)

        self._in_thread(self._table.skip_ticks, list(skipped)).addErrback(failed).addErrback(log_defect)

    def _cancel_next_write(self) -> None:
        if self._next_write is not None and self._next_write.active():
            self._next_write.cancel()
        self._next_write = None

    def _look_for_changes(self) -> Deferred[None]:
        """See whether schedules changed; the next look comes after the answer."""
        looked = self._in_thread(self._changed_schedules)
        # In an outage it is tried again with the next interval.
        return looked.addCallbacks(self._tell, _pass_over)

    def _changed_schedules(self) -> tuple[int, list[StoredSchedule]] | None:
        """In the thread: what is stored, if that has changed since the last look."""
        changes = self._table.changes()
        return None if changes == self._changes_seen else (changes, self._table.read())

    def _tell(self, found: tuple[int, list[StoredSchedule]] | None) -> None:
        if found is not None and self._heard is not None and self._look.running:
            self._changes_seen, schedules = found
            self._heard(schedules)

    def _forget_old(self) -> None:
        before = self._wall_clock() - self._longest_window - TICK_MARGIN
        # In an outage it is tried again with the next interval.
        self._in_thread(self._table.forget_ticks, before).addErrback(lambda _failure: None)


def _pass_over(failure: Failure) -> None:
    if not isinstance(failure.value, StoreError):
        failure.raiseException()
