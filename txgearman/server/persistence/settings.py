"""The settings that administrators make for functions, kept in the store: the broker's `SettingStore`.

A setting holds at once, and whoever made it is answered when it is written. It is kept with what the
operator's file said when it was made. At a start the file wins where it says something else by now: whoever
spoke last is obeyed. On a shared store the settings hold for all servers; a renewal of the lease tells when
to read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.access.patterns import shown
from txgearman.broker.function_settings import FunctionSettings
from txgearman.broker.setting_kinds import SettingValue, is_valid
from txgearman.errors import Refused, SettingNotSaved, StoreError
from txgearman.server.persistence.thread import InThread, log_defect, when_done
from txgearman.store.contract.settings import SettingChanges, Settings, SettingTable

if TYPE_CHECKING:
    from txgearman.broker.broker import Broker

RETRY_INTERVAL: Final = 5.0
"""Seconds until changes are written again that the store could not take: as often as jobs are tried at
least."""

CHANGES_AT_ONCE: Final = 1000
"""Settings that are changed in one transaction, as there may be several for each function. What else is to be
written comes in between."""

Tell = Callable[[Refused | None], None]
"""Is told when settings are durable, or why they are not."""

_Key = tuple[bytes, str]
_log = Logger()


class _Kept(NamedTuple):
    """A setting: its text in the store, and what that says: its value, and that of the file."""

    text: str
    value: SettingValue
    by_rules: SettingValue


class StoredSettings:
    """The settings in a store. `load` comes first, and then `begin`.

    Args:
        table: The settings of the store, used through `in_thread`, but for `load`, which blocks.
        reactor: What makes timers.
        in_thread: Calls a function with arguments in the store's thread, in order, and returns a Deferred.
        store_failed: Is told when the store cannot be used.
    """

    def __init__(
        self, table: SettingTable, reactor: Any, in_thread: InThread, store_failed: Callable[[Failure], None]
    ) -> None:
        self._table = table
        self._reactor = reactor
        self._in_thread = in_thread
        self._store_failed = store_failed
        self._functions: FunctionSettings | None = None
        # What the store has, with the changes that are still to be written.
        self._kept: dict[_Key, _Kept] = {}
        self._version = 0
        self._reading = False
        self._changes = SettingChanges()
        self._in_flight = SettingChanges()
        self._writing: Deferred[None] | None = None
        self._next_attempt: IDelayedCall | None = None
        self._is_running = False
        # Who waits for the changes that are still to be written, and for those in flight.
        self._waiting: list[Tell] = []
        self._waiting_in_flight: list[Tell] = []

    def load(self, broker: Broker) -> None:
        """Let the functions have their settings, and be told of new ones. Blocks, and is for the start.

        Args:
            broker: Whose functions these are.
        """
        self._functions = FunctionSettings(broker)
        self._version, settings = self._table.read()
        for function, kind, text in settings:
            kept = _parse(function, kind, text)
            if kept is None:
                continue
            if kept.by_rules == self._functions.by_rules(function, kind):
                self._kept[function, kind] = kept
                self._functions.restore(function, kind, kept.value)
            else:
                _log_overruled(function, kind, kept.value)
                self._changes.values[function, kind] = None
        broker.functions.setting_store = self
        if self._kept:
            _log.info(
                "{count} settings of functions loaded from the store: they hold over the configuration",
                count=len(self._kept),
            )

    def begin(self) -> None:
        """Write changes from now on."""
        self._is_running = True
        self._write()

    async def close(self) -> None:
        """Write what is to be written, as far as the store takes it, and nothing more."""
        while self._is_running and (self._changes or self._writing is not None):
            self._write()
            assert self._writing is not None
            await when_done(self._writing)
            if self._next_attempt is not None:
                _log.warn("{count} settings of functions could not be written", count=_count(self._changes))
                break
        self.abandon()

    def abandon(self) -> None:
        """Neither read nor write any more."""
        self._is_running = False
        self._cancel_next_attempt()
        self._refuse("the server stops")

    def renewed(self, version: int) -> None:
        """The store has told the version of its settings: read them if it is new.

        Args:
            version: That of `Settings`.
        """
        if version != self._version and self._is_running and not self._reading:
            self._reading = True
            self._in_thread(self._table.read).addCallbacks(self._read, self._not_read).addErrback(log_defect)

    # -- SettingStore -----------------------------------------------------------------------------

    def changed(self, function: bytes, kind: str, value: SettingValue) -> None:
        assert self._functions is not None
        by_rules = self._functions.by_rules(function, kind)
        key = function, kind
        if value == by_rules:
            self._forget(key)
            return
        text = json.dumps({"value": value, "configured": by_rules})
        self._kept[key] = _Kept(text, value, by_rules)
        self._changes.values[key] = text
        self._write()

    def dropped(self, function: bytes) -> None:
        for known in (self._kept, self._changes.values):
            for key in [key for key in known if key[0] == function]:
                del known[key]
        # Another server may have made one of which this has not heard.
        self._changes.dropped.add(function)
        self._write()

    def overruled(self, function: bytes, kind: str) -> None:
        kept = self._kept.get((function, kind))
        if kept is not None:
            _log_overruled(function, kind, kept.value)
        self._forget((function, kind))

    def when_written(self, tell: Tell) -> None:
        if self._changes:
            self._waiting.append(tell)
            # In an outage, this one is worth a try at once.
            self._write()
        elif self._writing is not None:
            self._waiting_in_flight.append(tell)
        else:
            tell(None)

    def _forget(self, key: _Key) -> None:
        if self._kept.pop(key, None) is not None:
            self._changes.values[key] = None
            self._write()

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, settings: Settings) -> None:
        assert self._functions is not None
        self._reading = False
        if not self._is_running:
            return
        self._version = settings.version
        read = {(function, kind): text for function, kind, text in settings.settings}
        for key in [key for key in self._kept if key not in read and not self._is_changing(key)]:
            del self._kept[key]
            self._functions.reset(*key)
        for key, text in read.items():
            known = self._kept.get(key)
            if (known is None or known.text != text) and not self._is_changing(key):
                kept = _parse(*key, text)
                if kept is not None:
                    self._kept[key] = kept
                    self._functions.restore(*key, kept.value)

    def _not_read(self, failure: Failure) -> None:
        self._reading = False
        self._note_failure(failure)

    def _is_changing(self, key: _Key) -> bool:
        """Whether this server changes the setting just now, so that what was read may be older."""
        return any(
            key in changes.values or key[0] in changes.dropped for changes in (self._changes, self._in_flight)
        )

    # -- writing ----------------------------------------------------------------------------------

    def _write(self) -> None:
        if not self._is_running or self._writing is not None or not self._changes:
            return
        self._cancel_next_attempt()
        self._in_flight = _first_of(self._changes)
        if not self._changes:
            self._waiting_in_flight, self._waiting = self._waiting, []
        self._writing = self._in_thread(self._table.change, self._in_flight)
        self._writing.addCallbacks(self._written, self._not_written).addErrback(log_defect)

    def _written(self, _: object) -> None:
        self._writing = None
        self._in_flight = SettingChanges()
        written, self._waiting_in_flight = self._waiting_in_flight, []
        self._write()
        for tell in written:
            tell(None)

    def _not_written(self, failure: Failure) -> None:
        self._writing = None
        failed, self._in_flight = self._in_flight, SettingChanges()
        if self._note_failure(failure):
            newer = self._changes
            values = {key: text for key, text in failed.values.items() if key[0] not in newer.dropped}
            self._changes = SettingChanges(failed.dropped | newer.dropped, values | newer.values)
        if self._changes and self._is_running:
            self._next_attempt = self._reactor.callLater(RETRY_INTERVAL, self._write)
        self._refuse(str(failure.value))

    def _refuse(self, why: str) -> None:
        """Tell all who wait that what they have set cannot be stored now."""
        refused = self._waiting_in_flight + self._waiting
        self._waiting_in_flight, self._waiting = [], []
        for tell in refused:
            tell(SettingNotSaved(why))

    def _note_failure(self, failure: Failure) -> bool:
        """Returns whether the same may succeed later."""
        if isinstance(failure.value, StoreError):
            self._store_failed(failure)
            return True
        _log.failure("The store failed with settings of functions", failure)
        return False

    def _cancel_next_attempt(self) -> None:
        if self._next_attempt is not None and self._next_attempt.active():
            self._next_attempt.cancel()
        self._next_attempt = None


def _parse(function: bytes, kind: str, text: str) -> _Kept | None:
    """What a setting says; None for one that this server does not understand, which is left alone."""
    try:
        said = json.loads(text)
        value, by_rules = said["value"], said["configured"]
    except (ValueError, KeyError, TypeError):
        value = by_rules = None
    if is_valid(kind, value):
        return _Kept(text, value, by_rules)
    _log.warn(
        "The setting {kind} of {function} in the store is not understood and does not hold: {text}",
        kind=kind,
        function=shown(function),
        text=text[:100],
    )
    return None


def _log_overruled(function: bytes, kind: str, value: SettingValue) -> None:
    _log.info(
        "{kind} of {function}, which an administrator has set to {value}, holds no more: the configuration "
        "says something else by now",
        kind=kind,
        function=shown(function),
        value=json.dumps(value),
    )


def _first_of(changes: SettingChanges) -> SettingChanges:
    """Take up to `CHANGES_AT_ONCE` out of changes, those first that have to be."""
    dropped = set(islice(changes.dropped, CHANGES_AT_ONCE))
    keys = list(islice(changes.values, CHANGES_AT_ONCE - len(dropped)))
    changes.dropped -= dropped
    return SettingChanges(dropped, {key: changes.values.pop(key) for key in keys})


def _count(changes: SettingChanges) -> int:
    return len(changes.dropped) + len(changes.values)
