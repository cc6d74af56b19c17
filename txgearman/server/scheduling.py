"""The schedules of a server: those of its settings, and what the store knows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txgearman.broker.schedule import Schedule
from txgearman.broker.schedules import Schedules
from txgearman.store.contract import StoredSchedule

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.server.config.options import Settings
    from txgearman.server.persistence.schedules import StoredSchedules


def schedules_of(settings: Settings) -> list[Schedule]:
    """Make the schedules that settings describe. Reads the files of their data.

    Args:
        settings: The settings.

    Returns:
        The schedules.

    Raises:
        ValueError: One cannot be made.
    """
    made = []
    for name, each in settings.schedules.items():
        try:
            made.append(each.schedule(name))
        except ValueError as error:
            raise ValueError(f"schedules.{name}: {error}") from None
    return made


class Scheduling:
    """Lets the schedules of one broker tick. It is the alarm of `Schedules`.

    Args:
        broker: Takes the jobs.
        reactor: What makes timers.
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        store: What is stored of schedules, if there is a store.
    """

    def __init__(
        self,
        broker: Broker,
        reactor: IReactorTime,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        store: StoredSchedules | None = None,
    ) -> None:
        self.schedules = Schedules(broker, clock, wall_clock, self, store)
        self._reactor = reactor
        self._store = store
        self._timer: IDelayedCall | None = None
        self._stopped = False
        # Those that the settings say.
        self._configured: set[bytes] = set()

    def begin(
        self, schedules: Iterable[Schedule], stored: Mapping[bytes, StoredSchedule] | None = None
    ) -> None:
        """Let schedules tick from now on.

        Args:
            schedules: Those of the settings.
            stored: What the store knows, by name.
        """
        known = {} if stored is None else stored
        for schedule in schedules:
            row = known.get(schedule.name)
            if row is None:
                self.schedules.add(schedule)
            else:
                since = row.since if row.last_tick is None else max(row.since, row.last_tick)
                self.schedules.add(schedule, since, row.paused)
            self._configured.add(schedule.name)
        self._keep_ticks()

    def obey(self, schedules: Iterable[Schedule]) -> None:
        """Let the schedules of other settings tick. One that was there before keeps its place in time.

        Args:
            schedules: Those of the settings.
        """
        wanted = {schedule.name: schedule for schedule in schedules}
        for name in self._configured - wanted.keys():
            self.schedules.remove(name)
        for schedule in wanted.values():
            self.schedules.add(schedule)
        self._configured = set(wanted)
        self._keep_ticks()

    def stop(self) -> None:
        """Let nothing tick any more: the server drains or shuts down, which it does not come out of."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _keep_ticks(self) -> None:
        if self._store is not None:
            windows = (detail.schedule.missed_window for detail in self.schedules)
            self._store.keep_for(max(windows, default=0.0))

    # -- the schedules' timer (Alarm) -------------------------------------------------------------

    def ring_in(self, delay: float) -> None:
        """Call `Schedules.tick` once, instead of when it was said before.

        Args:
            delay: Seconds from now.
        """
        if self._stopped:
            return
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self.schedules.tick)
