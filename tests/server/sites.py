"""Servers with a store in memory, each with a clock and a thread of its own. No tests here."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.server.peers import PREFIX, SocketlikeTransport, req
from tests.server.stores import UNAVAILABLE, Thread
from tests.store.model import ModelDatabase, ModelSettings, ModelStore
from txgearman.server import GearmanServerFactory, Settings
from txgearman.server.persistence.writer import StoreWriter
from txgearman.store.contract import (
    NO_POSITION,
    Changes,
    Renewal,
    SettingChanges,
    Slot,
    SlotChanges,
    Store,
    StoredJob,
    Written,
)

LEASE = 10.0


class BrittleStore(ModelStore):
    """One that may be cut off from the database. While it is `cut` no call gets there; while it is `deaf`
    those that change jobs do, and their answers get lost. `unconfirmed` is what a take-over took of which the
    server was not told."""

    def __init__(self, database: ModelDatabase) -> None:
        super().__init__(database, shared=True)
        self.cut = self.deaf = False
        self.unconfirmed: list[int] = []
        self.settings = BrittleSettings(self)

    def open(self, name: str, lease: float) -> int:
        self._reach()
        self.unconfirmed = []
        return super().open(name, lease)

    def write(self, changes: Changes) -> Written:
        written = super().write(changes)
        self.lose_answer()
        return written

    def exchange_slots(self, changes: SlotChanges) -> list[Slot]:
        slots = super().exchange_slots(changes)
        self.lose_answer()
        return slots

    def renew(self) -> Renewal:
        renewal = super().renew()
        return renewal._replace(has_orphans=renewal.has_orphans or bool(self.unconfirmed))

    def take_over(self, limit: int, position: int) -> list[StoredJob]:
        jobs = [job for job in super()._own() if job.number in self.unconfirmed]
        jobs = jobs or super().take_over(limit, position)
        self.unconfirmed = [job.number for job in jobs]
        self.lose_answer()
        self.unconfirmed = []
        return jobs

    def find(self, number: int) -> StoredJob | None:
        return self._as_confirmed(super().find(number))

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes) -> StoredJob | None:
        return self._as_confirmed(super().find_duplicate(function, unique, data))

    def _as_confirmed(self, job: StoredJob | None) -> StoredJob | None:
        return job and (job._replace(position=NO_POSITION) if job.number in self.unconfirmed else job)

    def _own(self, after: int = -1) -> list[StoredJob]:
        return [job for job in super()._own(after) if job.number not in self.unconfirmed]

    def _check(self) -> None:
        self._reach()
        super()._check()

    def _reach(self) -> None:
        if self.cut:
            raise UNAVAILABLE

    def lose_answer(self) -> None:
        """Raise what a call raises whose answer gets lost, where that is so."""
        if self.deaf:
            raise UNAVAILABLE


class BrittleSettings(ModelSettings):
    """The settings of a `BrittleStore`, whose answers get lost as the others."""

    def __init__(self, store: BrittleStore) -> None:
        super().__init__(store)
        self._brittle = store

    def change(self, changes: SettingChanges) -> None:
        super().change(changes)
        self._brittle.lose_answer()


class DurableServer:
    """A server with a store, whose thread runs when it is told to."""

    def launch(
        self, store: Store, name: str, wall_clock: Callable[[], float], lease: float, **settings: Any
    ) -> int:
        """Begin as a new process; returns how many jobs were loaded."""
        self.clock, self.thread = Clock(), Thread()
        self.transports: list[SocketlikeTransport] = []
        self.factory = GearmanServerFactory(
            self.clock, Settings(handle_prefix=PREFIX, **settings), wall_clock
        )
        self.store_writer = StoreWriter(
            store,
            self.clock,
            self.thread,
            wall_clock,
            chance=random.Random(name).random,
            happened=self.factory.activity.happened,
        )
        self.factory.use_store(self.store_writer, self.store_writer.open(name, lease))
        return self.store_writer.load(self.factory.broker)

    def connect(self) -> SocketlikeTransport:
        """A client, or an administrator."""
        transport = SocketlikeTransport()
        transport.connect(self.factory.buildProtocol(None))
        self.transports.append(transport)
        return transport

    def worker(self) -> SocketlikeTransport:
        """A worker of the function ``f``."""
        worker = self.connect()
        worker.receive(req(1, b"f"))
        return worker

    def turn(self, seconds: float = 0) -> None:
        """Let time pass, in this process alone."""
        self.clock.advance(seconds)

    def commit(self) -> None:
        """Let the thread do all that it is asked to."""
        self.turn()
        while self.thread.calls:
            self.thread.run()
            self.turn()

    def heard(self, transport: SocketlikeTransport) -> bytes:
        """What a peer was sent."""
        self.turn()
        return transport.taken()

    def stop(self) -> None:
        """End as a service does."""
        self.factory.administration.drain()
        for coroutine in (self.store_writer.flush(), self._leave(), self.store_writer.close()):
            done = Deferred.fromCoroutine(coroutine)
            self.thread.run_all()
            assert done.called

    async def _leave(self) -> None:
        stopped = self.factory.stop()
        for transport in self.transports:
            if transport.disconnecting:
                transport.lose()
        await stopped


class Site(DurableServer):
    """One server on `database`, which is started again and again under the same name."""

    def __init__(
        self, name: str, database: ModelDatabase, wall_clock: Callable[[], float], **settings: Any
    ) -> None:
        self.name = name
        self._database = database
        self._wall_clock = wall_clock
        self._settings = settings
        self.start()

    def start(self) -> None:
        """Begin as a new process."""
        self.store = BrittleStore(self._database)
        self.launch(self.store, self.name, self._wall_clock, LEASE, **self._settings)
