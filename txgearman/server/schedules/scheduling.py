"""The schedules of a server: those of its settings and those that were added while it ran, what the store
knows of them, and what administrators do with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txgearman.access.patterns import quoted
from txgearman.broker.schedule import Schedule
from txgearman.broker.schedules import Schedules
from txgearman.errors import (
    Refused,
    ScheduleConflict,
    ScheduleNotFound,
    ScheduleNotSaved,
    ScheduleOfFile,
    SchedulesUnsaved,
    StoreError,
    TooManySchedules,
)
from txgearman.server.config.schedule_options import data_of, schedule_of
from txgearman.store.contract import StoredSchedule

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker
    from txgearman.server.config.options import Settings
    from txgearman.server.persistence.schedules import StoredSchedules

MAX_TRIES: Final = 10
"""How often a change of a schedule is tried while other servers change the same one."""

_T = TypeVar("_T")
_log = Logger()


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

    The verbs of administrators return Deferreds. What they change is stored first where there is a store, one
    change after the other, and is done here when it is durable. They fail with `Refused`.

    Args:
        broker: Takes the jobs.
        reactor: What makes timers.
        clock: Gives monotonic seconds.
        wall_clock: Gives seconds since the epoch.
        store: What is stored of schedules, if there is a store.
        settings: Gives the settings of the server, which a reload changes.

    Attributes:
        schedules: The schedules.
        refused: How many were refused as there were as many as may be.
    """

    def __init__(
        self,
        broker: Broker,
        reactor: IReactorTime,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        store: StoredSchedules | None,
        settings: Callable[[], Settings],
    ) -> None:
        self.schedules = Schedules(broker, clock, wall_clock, self, store)
        self.refused = 0
        self._broker = broker
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._store = store
        self._settings = settings
        self._timer: IDelayedCall | None = None
        self._stopped = False
        # Those that the settings say.
        self._configured: set[bytes] = set()
        # Those that were added while a server ran, with definition and data.
        self._added: dict[bytes, tuple[str, bytes]] = {}
        # The names of those that clients know by a handle.
        self._handles: dict[bytes, bytes] = {}
        # The versions of all that are stored.
        self._versions: dict[bytes, int] = {}
        self._changes = DeferredLock()

    def begin(
        self, schedules: Iterable[Schedule], stored: Mapping[bytes, StoredSchedule] | None = None
    ) -> None:
        """Let schedules tick from now on.

        Args:
            schedules: Those of the settings.
            stored: What the store knows, by name.
        """
        known = {} if stored is None else stored
        self._versions = {row.name: row.version for row in known.values()}
        unknown = []
        for schedule in schedules:
            row = known.get(schedule.name)
            self._configured.add(schedule.name)
            if row is None:
                self.schedules.add(schedule)
            else:
                self.schedules.add(schedule, _known_since(row), row.paused)
            if row is None or row.definition is not None:
                unknown.append(schedule.name)
        self._remember(unknown)
        for row in known.values():
            if row.name not in self._configured:
                self._hear(row)
        self._keep_ticks()
        if self._store is not None:
            self._store.watch(self._heard)

    def obey(self, schedules: Iterable[Schedule]) -> None:
        """Let the schedules of other settings tick. One that was there before keeps its place in time.

        Args:
            schedules: Those of the settings.
        """
        wanted = {schedule.name: schedule for schedule in schedules}
        for name in self._configured - wanted.keys():
            self.schedules.remove(name)
            self._versions.pop(name, None)
            if self._store is not None:
                self._store.try_to(self._store.delete(name))
        unknown = wanted.keys() - self._configured
        for name in unknown:
            if self._added.pop(name, None) is not None and self._store is not None:
                self._store.unfollow(name)
            self._handles.pop(self._handle_of(name), None)
        self._remember(unknown)
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

    # -- verbs of administrators ----------------------------------------------------------------------

    def is_of_file(self, name: bytes) -> bool:
        """Whether the configuration file has a schedule.

        Args:
            name: The schedule.

        Returns:
            Whether it cannot be changed or removed therefore.
        """
        return name in self._configured

    def read(self, name: bytes, members: Mapping[str, Any]) -> Schedule:
        """Make a schedule of what somebody wrote. It is not added.

        Args:
            name: What it is called.
            members: What `Schedule.definition` returns or a part of it, and the payload of its jobs as
                ``data`` or ``data_base64``: values of JSON.

        Returns:
            The schedule.

        Raises:
            ValueError: It cannot be one.
        """
        definition = dict(members)
        data = data_of(definition)
        return schedule_of(name.decode(), definition, b"" if data is None else data)

    def named(self, handle: bytes) -> bytes | None:
        """Find the schedule that a client knows by a handle.

        Args:
            handle: Anything that a peer sent.

        Returns:
            The schedule's name; None without one.
        """
        return self._handles.get(handle)

    def put(self, schedule: Schedule) -> Deferred[None]:
        """Add a schedule, in place of one of its name.

        Args:
            schedule: The schedule.

        Returns:
            Fires when it is durable. Fails with `ScheduleOfFile`, `TooManySchedules`, `SchedulesUnsaved`,
            `ScheduleNotSaved` or `ScheduleConflict`.
        """
        return self._in_order(lambda: self._put(schedule.name, lambda: schedule))

    def change(self, name: bytes, changed: Callable[[Schedule], Schedule]) -> Deferred[None]:
        """Change a schedule. Nothing that others change of it at the same time is lost, wherever they do.

        Args:
            name: The schedule.
            changed: Makes the new one of the one that there is. It may be called several times, and raise.

        Returns:
            Fires when it is durable. Fails as `put` does, with `ScheduleNotFound`, and with what `changed`
            raises.
        """

        def current() -> Schedule:
            self._check_not_of_file(name)
            return changed(self.schedules.detail(name).schedule)

        return self._in_order(lambda: self._put(name, current))

    def put_with_handle(self, schedule: Schedule) -> Deferred[bytes]:
        """Add a schedule that a client has submitted, in place of one of its name.

        Args:
            schedule: The schedule.

        Returns:
            Fires with its handle when it is durable: that of the one before, or a new one, which is known at
            every server of the store. Fails as `put` does.
        """
        return self._in_order(lambda: self._put_with_handle(schedule))

    def remove(self, name: bytes) -> Deferred[None]:
        """Remove a schedule. Jobs of it that are there go on.

        Args:
            name: The schedule.

        Returns:
            Fires when that is durable. Fails with `ScheduleNotFound`, `ScheduleOfFile` or `ScheduleNotSaved`.
        """
        return self._in_order(lambda: self._remove(name))

    def pause(self, name: bytes, paused: bool = True) -> Deferred[None]:
        """Let a schedule rest, or go on with its next tick.

        Args:
            name: The schedule.
            paused: Whether it is to rest.

        Returns:
            Fires when that is durable. Fails with `ScheduleNotFound` or `ScheduleNotSaved`.
        """
        return self._in_order(lambda: self._pause(name, paused))

    def run(self, name: bytes) -> Deferred[bytes]:
        """Submit a job of a schedule now.

        Args:
            name: The schedule.

        Returns:
            Fires with the job's handle when it is accepted. Fails with `ScheduleNotFound`, or with the
            refusal of the job.
        """
        told: Deferred[bytes] = Deferred()

        def tell(answer: bytes | Refused) -> None:
            if isinstance(answer, Refused):
                told.errback(answer)
            else:
                told.callback(answer)

        try:
            self.schedules.run(name, tell)
        except Refused as refusal:
            return fail(refusal)
        return told

    def _in_order(self, change: Callable[[], Coroutine[Any, Any, _T]]) -> Deferred[_T]:
        """Make a change when those before it are made. Who waits for it cannot stop it half way."""
        told: Deferred[_T] = Deferred()
        self._changes.run(lambda: Deferred.fromCoroutine(change())).addCallbacks(told.callback, told.errback)
        return told

    async def _put_with_handle(self, schedule: Schedule) -> bytes:
        new = b""

        def with_handle() -> Schedule:
            nonlocal new
            new = self._handle_of(schedule.name) or new or self._broker.life.handles.next()
            return replace(schedule, handle=new)

        await self._put(schedule.name, with_handle)
        return new

    def _handle_of(self, name: bytes) -> bytes:
        return self.schedules.detail(name).schedule.handle if name in self.schedules else b""

    async def _put(self, name: bytes, wanted: Callable[[], Schedule]) -> None:
        """Store a schedule and let it tick, unless the store has another than is known here: then that is
        read, and what is `wanted` is asked for once more."""
        for _ in range(MAX_TRIES):
            schedule = wanted()
            schedule = replace(schedule, handle=schedule.handle or self._handle_of(name))
            if await self._try_to_put(schedule):
                return
        raise ScheduleConflict

    async def _try_to_put(self, schedule: Schedule) -> bool:
        name, limit = schedule.name, self._settings().max_schedules
        self._check_not_of_file(name)
        is_new = name not in self.schedules
        if is_new and len(self.schedules) >= limit:
            self.refused += 1
            raise TooManySchedules(limit)
        definition = json.dumps({**schedule.definition(), "handle": schedule.handle.decode("ascii")})
        version: int | None = 0
        if self._store is not None:
            paused = not is_new and self.schedules.detail(name).paused
            row = StoredSchedule(name, self._wall_clock(), paused, definition, schedule.data)
            version = await _saved(self._store.save(row, self._versions.get(name, 0)))
            # A reload may have been faster.
            self._check_not_of_file(name)
            if version is None:
                self._heard(await _saved(self._store.read()))
                return False
        elif not self._settings().allow_unsaved_schedules:
            raise SchedulesUnsaved
        self._note_added(schedule, definition, version or 0)
        self.schedules.add(schedule)
        self._keep_ticks()
        return True

    async def _remove(self, name: bytes) -> None:
        self._check_not_of_file(name)
        if name not in self._added:
            raise ScheduleNotFound
        if self._store is not None:
            await _saved(self._store.delete(name))
        self._forget(name)

    async def _pause(self, name: bytes, paused: bool) -> None:
        if name not in self.schedules:
            raise ScheduleNotFound
        if self._store is not None:
            now = self._wall_clock()
            version = await _saved(self._store.pause(name, now, paused))
            if version is None:
                if name not in self._configured:
                    # Another server has removed it.
                    raise ScheduleNotFound
                version = await _saved(self._store.save(StoredSchedule(name, now, paused)))
            self._note_version(name, version or 0)
            if name not in self.schedules:
                # A reload was faster.
                raise ScheduleNotFound
        self.schedules.pause(name, paused)

    def _check_not_of_file(self, name: bytes) -> None:
        if name in self._configured:
            raise ScheduleOfFile

    # -- the store ------------------------------------------------------------------------------------

    def _remember(self, names: Collection[bytes]) -> None:
        """The configuration file has schedules that the store does not know as those of a file."""
        if self._store is not None and names:
            self._store.try_to(self._store.note_of_file(sorted(names), self._wall_clock()))

    def _heard(self, rows: list[StoredSchedule]) -> None:
        """Another server has changed schedules, or this one has."""
        self._versions = {row.name: row.version for row in rows}
        for name in self._added.keys() - {row.name for row in rows if row.definition is not None}:
            self._forget(name)
        for row in rows:
            if row.name not in self._configured:
                self._hear(row)
            if row.name in self.schedules:
                self.schedules.pause(row.name, row.paused)
        self._keep_ticks()

    def _hear(self, row: StoredSchedule) -> None:
        """What the store has of a schedule that is not of the file."""
        if row.definition is None:
            # Another server's file has it.
            return
        added = row.definition, row.data or b""
        if self._added.get(row.name) == added:
            self._note_version(row.name, row.version)
            return
        try:
            definition = json.loads(row.definition)
            handle = definition.pop("handle", "").encode()
            schedule = replace(schedule_of(row.name.decode(), definition, added[1]), handle=handle)
        except (ValueError, AttributeError) as error:
            _log.error(
                "The stored schedule {name} does not tick here: {why}", name=quoted(row.name), why=str(error)
            )
            return
        self._note_added(schedule, row.definition, row.version)
        self.schedules.add(schedule, _known_since(row), row.paused)

    def _note_added(self, schedule: Schedule, definition: str, version: int) -> None:
        self._added[schedule.name] = definition, schedule.data
        self._note_version(schedule.name, version)
        if schedule.handle:
            self._handles[schedule.handle] = schedule.name

    def _note_version(self, name: bytes, version: int) -> None:
        self._versions[name] = version
        if self._store is not None and name in self._added:
            self._store.follow(name, version)

    def _forget(self, name: bytes) -> None:
        """A schedule that was added is removed."""
        self._versions.pop(name, None)
        if self._store is not None:
            self._store.unfollow(name)
        if self._added.pop(name, None) is not None:
            self._handles.pop(self._handle_of(name), None)
            self.schedules.remove(name)
            self._keep_ticks()

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


def _known_since(row: StoredSchedule) -> float:
    """Since when the ticks of a schedule may have been missed."""
    return row.since if row.last_tick is None else max(row.since, row.last_tick)


async def _saved(write: Deferred[_T]) -> _T:
    """What the store answers. Raises `ScheduleNotSaved` if it cannot be written to."""
    try:
        return await write
    except StoreError as error:
        raise ScheduleNotSaved from error
