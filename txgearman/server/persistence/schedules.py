"""The broker's `ScheduleStore` on a `Store`: which ticks are done with, and which schedules are paused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txgearman.broker.entities import Job
from txgearman.broker.handles import number_of
from txgearman.broker.schedule import MAX_WINDOW
from txgearman.server.persistence.thread import InThread, log_defect
from txgearman.store.contract import Store, StoredSchedule, Tick

FORGET_INTERVAL: Final = 600.0
"""Seconds between two times at which old ticks are forgotten: 17,000 of them at 100,000 an hour, which one
statement deletes in a tenth of a second."""

TICK_MARGIN: Final = 3600.0
"""Seconds by which ticks are kept beyond the longest window for missed ones: servers may differ so much in
their clocks and in what their files say of the window."""

_log = Logger()


class StoredSchedules:
    """What is stored of schedules. `StoreWriter` writes the ticks with their jobs; the rest is written here.

    Args:
        store: The store, used through `in_thread`.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        wall_clock: Gives seconds since the epoch.
    """

    def __init__(
        self, store: Store, reactor: Any, in_thread: InThread, wall_clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._in_thread = in_thread
        self._wall_clock = wall_clock
        # The ticks of jobs that wait to be saved, by number.
        self._ticks: dict[int, Tick] = {}
        self._longest_window = 0.0
        self._timer = LoopingCall(self._forget_old)
        self._timer.clock = reactor

    def load(self) -> dict[bytes, StoredSchedule]:
        """Read what is stored. Blocks, and is for the start.

        Returns:
            The schedules by name.
        """
        return {stored.name: stored for stored in self._store.schedules()}

    def begin(self) -> None:
        """Forget old ticks from now on."""
        self._timer.start(FORGET_INTERVAL, now=False).addErrback(log_defect)

    def stop(self) -> None:
        """Forget no more."""
        if self._timer.running:
            self._timer.stop()

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

    def keep_for(self, window: float) -> None:
        """Keep ticks that are done with for as long as a window for missed ones may ask for them.

        Args:
            window: Seconds of the longest window.
        """
        self._longest_window = min(window, MAX_WINDOW)

    # -- the broker's verbs (ScheduleStore) -------------------------------------------------------

    def tick_with_job(self, number: int, schedule: bytes, tick: float) -> None:
        self._ticks[number] = Tick(schedule, tick)

    def tick_without_job(self, schedule: bytes, tick: float) -> None:
        self._write(self._store.skip_tick, schedule, tick)

    def remember(self, schedule: bytes, since: float, paused: bool) -> None:
        self._write(self._store.save_schedule, StoredSchedule(schedule, since, paused))

    def forget(self, schedule: bytes) -> None:
        self._write(self._store.delete_schedule, schedule)

    def _write(self, write: Callable[..., object], *arguments: Any) -> None:
        def failed(failure: Any) -> None:
            _log.warn("What the store has to know of a schedule was not written: {why}", why=failure.value)

        self._in_thread(write, *arguments).addErrback(failed)

    def _forget_old(self) -> None:
        before = self._wall_clock() - self._longest_window - TICK_MARGIN
        # In an outage it is tried again with the next interval.
        self._in_thread(self._store.forget_ticks, before).addErrback(lambda _failure: None)
