"""Histories made at random of a server that saves jobs: uniques, online jobs, cancels, times, restarts."""

from __future__ import annotations

import contextlib
from collections import Counter
from itertools import chain
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req, res
from tests.server.sites import LEASE, Site
from tests.server.stores import UNAVAILABLE, ListStore, SharedStore
from tests.server.test_writer import SavingTestCase, submit
from tests.store.model import ModelDatabase
from txgearman.broker.handles import number_of
from txgearman.errors import LeaseLost, StoreUnavailable
from txgearman.server import GearmanServerFactory
from txgearman.server.config.options import FunctionSettings
from txgearman.server.persistence.writer import StoreWriter

SEEDS = 60
STEPS = 300
UNIQUES = (b"", b"u", b"v", b"w")
ATTEMPTS = 2
RETRIES: dict[str, Any] = {"attempts": ATTEMPTS, "backoff": 0.3, "jitter": 0.0}
"""A backoff that passes in a few steps, so that servers often fall while jobs wait for their retry."""

MUST_HAPPEN = {
    "dead at the end",
    "forgotten",
    "killed ahead of a retry",
    "killed ahead of a death",
    "retried by hand",
    "failed",
    "asked for a retry",
    "put off",
}
"""Without these in the histories nothing is shown of failed runs."""


KEEPING = {"f": FunctionSettings(keep_results=1e6)}
RESULT = b"result of "
"""What a run returns, ahead of the job's handle."""

ENDED_UNSAVED = "done ahead of the commit"
"""A foreground job that was done for who waited, before a background submit of it was answered."""

PUT_OFF = "put off"
"""A run that ended in a retry and is no attempt."""


def failure_reports(random: Random, name: bytes) -> tuple[list[bytes], str]:
    """How a worker reports a failure, some as Perl's does and some by the extensions; and what that is."""
    outcomes = req(26, b"outcomes")
    (choice,) = random.choices(
        [
            ([req(25, name, b"text"), req(14, name)], "failed"),
            ([req(25, name, b"text")], "failed"),
            ([req(14, name)], "failed"),
            ([outcomes, req(1008, name, b"text")], "failed"),
            ([outcomes, req(1002, name, b"", b"1", b"text")], "asked for a retry"),
            ([outcomes, req(1002, name, b"200", b"0", b"text")], PUT_OFF),
        ],
        (3, 3, 3, 1, 1, 1),
    )
    return choice


def note_kill(factory: GearmanServerFactory, store_writer: StoreWriter, happened: Counter[str]) -> None:
    """A server is about to be killed: note between which steps of its jobs."""
    functions = factory.broker.functions.by_name.values()
    happened["killed ahead of a retry"] += sum(function.retrying for function in functions)
    happened["killed ahead of a death"] += len(store_writer.pending.deaths)


class HistoryTests(SavingTestCase):
    """What was acknowledged is done after its submit, was cancelled or forgotten behind it, or is dead,
    whatever happens. No job is dead and alive, and none dies with attempts left. What is done has its result,
    and no job that has one is there still."""

    def make_store(self) -> ListStore:
        return ListStore()

    def test_histories(self) -> None:
        self.happened: Counter[str] = Counter()
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.store = self.make_store()
                self.results = self.store.kept_results
                self.begin(Random(seed))
                self.play()
        self.assertEqual(set(+self.happened), MUST_HAPPEN | {ENDED_UNSAVED})

    def begin(self, random: Random) -> None:
        self.random = random
        self.step = 0
        # By handle: the step of the last submit that was answered with it, and that in which the job ended.
        self.wanted: dict[bytes, int] = {}
        self.ended: dict[bytes, int] = {}
        # How many failed runs of each job were reported.
        self.failed: Counter[bytes] = Counter()
        # The handles of those that were cancelled or forgotten.
        self.without_result: set[bytes] = set()
        self.online: set[bytes] = set()
        self.told: set[bytes] = set()
        self.handles: list[bytes] = []
        self.began = 1e9
        self.begin_server()

    def begin_server(self) -> None:
        self.start(store_ahead=3, functions=KEEPING, **RETRIES)
        self.factory.broker.timer.wall_clock = self.wall_clock
        self.client, self.admin = self.connect(), self.connect()
        self.client.receive(req(26, b"submit-extended"))
        self.asked: list[tuple[int, bool]] = []
        self.working = [self.worker() for _ in range(3)]
        self.has: list[list[bytes]] = [[], [], []]

    def wall_clock(self) -> float:
        return self.began + self.clock.seconds()

    def play(self) -> None:
        actions = [self.submit] * 5 + [self.grab] * 5 + [self.complete] * 4 + [self.run_thread] * 5
        actions += [self.fail_run] * 2 + [self.retry, self.forget]
        actions += [self.lose_worker, self.break_store, self.cancel]
        for self.step in range(STEPS):
            if self.random.random() < 0.01:
                self.random.choice([self.kill, self.restart])()
            self.random.choice(actions)()
            self.check_dead()
        self.store.failing = None
        for self.step in range(STEPS, STEPS + 300):
            self.turn(1)
            self.commit()
            self.hear()
            self.grab()
            self.complete()
        self.assertEqual(self.asked, [], "every submit is answered")
        dead = self.check_dead()
        self.happened["dead at the end"] += len(dead)
        without = {
            name
            for name in self.wanted
            if name not in self.without_result and number_of(name) not in self.results
        }
        self.assertEqual(without - dead, set(), "what is done has its result")
        late = {name for name, step in self.wanted.items() if self.ended.get(name, -1) < step}
        self.assertEqual(late - dead, set(), "what was acknowledged is done, or dead")
        self.assertEqual(self.online - self.told, set(), "who waits is told")
        self.assertEqual((self.factory.broker.total, self.store.jobs), (0, {}))
        self.assertEqual(self.factory.inspection.may_have_stored_jobs, self.store.shared)

    def check_dead(self) -> set[bytes]:
        """Returns the handles of the dead jobs."""
        alive = {*self.store.jobs, *(job.number for job in getattr(self.store, "orphans", ()))}
        self.assertEqual(alive & self.store.dead.keys(), set(), "no job is dead and alive")
        dead = {job.handle: job.attempts for job in self.store.dead.values()}
        for name, attempts in dead.items():
            self.assertEqual(attempts, ATTEMPTS)
            self.assertGreaterEqual(self.failed[name], attempts, "none dies with attempts left")
        self.assertEqual(alive & self.results.keys(), set(), "no job is there beside its result")
        for result in self.results.values():
            self.assertEqual(result.data, RESULT + result.handle)
        return set(dead)

    def submit(self) -> None:
        for _ in range(self.random.randrange(1, 5)):
            unique = self.random.choice(UNIQUES)
            online = self.random.random() < 0.3
            self.asked.append((self.step, online))
            if online:
                self.client.receive(submit(b"", unique, kind=self.random.choice([7, 21])))
            elif self.random.random() < 0.2:
                run_at = b"%d" % (self.wall_clock() + self.random.randrange(-1, 3))
                if self.step % 2:
                    attributes = b"background=1\nexpires=1000000\nrun_at=%b" % run_at
                    self.client.receive(req(1007, b"f", unique, attributes, b""))
                else:
                    self.client.receive(req(36, b"f", unique, run_at, b""))
            else:
                self.client.receive(submit(b"", unique, kind=self.random.choice([18, 32])))

    def hear(self) -> None:
        for answer in self.heard(self.client).split(b"\0RES")[1:]:
            kind, body = answer[3], answer[8:]
            if kind in (8, 19):
                step, online = self.asked.pop(0)
                if kind == 8 and online:
                    self.online.add(body)
                elif kind == 8:
                    self.happened[ENDED_UNSAVED] += body in self.ended and body not in self.wanted
                    self.wanted[body] = max(step, self.wanted.get(body, 0))
                    self.handles.append(body)
            else:
                self.told.add(body.split(b"\0")[0])

    def grab(self) -> None:
        index = self.random.randrange(3)
        self.working[index].receive(req(9))
        heard = self.heard(self.working[index])
        if heard != res(10):
            self.has[index].append(heard[12:].split(b"\0")[0])

    def complete(self) -> None:
        index = self.random.randrange(3)
        if self.has[index]:
            name = self.has[index].pop(0)
            self.working[index].receive(req(13, name, RESULT + name))
            self.ended[name] = self.step
            self.hear()

    def fail_run(self) -> None:
        """A worker reports a failure, some as Perl's does."""
        index = self.random.randrange(3)
        if self.has[index]:
            name = self.has[index].pop(0)
            packets, what = failure_reports(self.random, name)
            self.working[index].receive(*packets)
            self.heard(self.working[index])
            self.failed[name] += what != PUT_OFF
            self.happened[what] += 1
            self.hear()
            if self.random.random() < 0.03:
                # Ahead of the commit that has the retry, or the death.
                self.kill()

    def retry(self) -> None:
        """Of a job that is retrying, dead, or neither."""
        if self.failed:
            name = self.random.choice(list(self.failed)[-10:])
            self.happened["retried by hand"] += self.ask(b"retry job ", name)

    def forget(self) -> None:
        if self.failed and self.random.random() < 0.3:
            name = self.random.choice(list(self.failed)[-10:])
            if self.ask(b"forget job ", name):
                self.ended[name] = self.step
                self.without_result.add(name)
                self.happened["forgotten"] += 1

    def ask(self, line: bytes, name: bytes) -> bool:
        """Wait for the answer, as an operator does; returns whether that is OK."""
        self.admin.receive(line + name + b"\n")
        while not (heard := self.heard(self.admin)):
            if self.thread.calls:
                self.thread.run()
            else:
                self.turn(1)
        self.hear()
        return heard.startswith(b"OK")

    def run_thread(self) -> None:
        self.turn(self.random.choice([0, 0.01, 0.1, 1]))
        if self.thread.calls:
            self.thread.run()
        self.hear()

    def break_store(self) -> None:
        self.store.failing = UNAVAILABLE if self.random.random() < 0.3 else None

    def cancel(self) -> None:
        if self.handles:
            name = self.random.choice(self.handles[-10:])
            if self.ask(b"cancel job ", name):
                self.ended[name] = self.step
                self.without_result.add(name)

    def lose_worker(self) -> None:
        index = self.random.randrange(3)
        self.working[index].lose()
        self.working[index], self.has[index] = self.worker(), []

    def kill(self) -> None:
        """The process ends; what was under way in the store takes place, or not."""
        note_kill(self.factory, self.store_writer, self.happened)
        for _ in range(self.random.randrange(3)):
            if self.thread.calls:
                _, function, arguments = self.thread.calls.pop(0)
                if self.store.failing is None:
                    function(*arguments)
        self.store.failing = None
        self.online.clear()
        self.began = self.wall_clock()
        self.begin_server()

    def restart(self) -> None:
        self.store.failing = None
        self.stop()
        self.hear()
        self.online.clear()
        self.began = self.wall_clock()
        self.begin_server()


class SharedHistoryTests(HistoryTests):
    """The same on a store that others share, which take this server's lease from it at times."""

    def make_store(self) -> ListStore:
        return SharedStore()

    def break_store(self) -> None:
        self.store.failing = self.random.choice([UNAVAILABLE, LeaseLost("the lease has expired"), None, None])


ONLINE = 0
"""In place of the number of a server's start: a job that it runs for those who wait, whoever keeps it."""


class Player:
    """One server of several, its client, its administrator and its workers."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.start()

    def start(self) -> None:
        """Meet a new process."""
        self.behind = 0.0
        self.paused = False
        self.client, self.admin = self.site.connect(), self.site.connect()
        self.asked: list[tuple[int, bool]] = []
        self.working: list[SocketlikeTransport] = [self.site.worker() for _ in range(2)]
        # What each worker has: the job's handle, and which start of the server gave it.
        self.has: list[list[tuple[bytes, int]]] = [[], []]
        self.online: set[bytes] = set()

    def turn(self, seconds: float) -> None:
        """Let time pass; a process that is paused has it all at once when it goes on."""
        self.behind += seconds
        if not self.paused:
            behind, self.behind = self.behind, 0.0
            self.site.turn(behind)


class SeveralServersTests(SynchronousTestCase):
    """The same with servers on one database: submits of the same uniques to all of them, answers of the
    database that are lost, servers that are cut off, paused, killed and started again.

    An acknowledged job is done, cancelled or forgotten after its submit, whichever server that came to, or
    it is dead. No two workers have it at the same time unless the server of the first had lost its lease, and
    no job is dead and alive.
    """

    servers = 2

    def test_histories(self) -> None:
        self.happened: Counter[str] = Counter()
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.begin(Random(seed))
                self.play()
        self.assertEqual(set(+self.happened), MUST_HAPPEN)

    def begin(self, random: Random) -> None:
        self.random = random
        self.step = 0
        self.now = 0.0
        self.skew = 1e3
        self.database = ModelDatabase(lambda: self.now + self.skew)
        self.wanted: dict[bytes, int] = {}
        self.ended: dict[bytes, int] = {}
        self.failed: Counter[bytes] = Counter()
        self.handles: list[bytes] = []
        self.players = [
            Player(Site(str(number), self.database, self.wall_clock, store_ahead=ahead, **RETRIES))
            for number, ahead in enumerate(random.choices([1, 3, 1000], k=self.servers))
        ]

    def wall_clock(self) -> float:
        # Ahead of any real clock, by which dead jobs may be judged too old.
        return 4e9 + self.now

    def play(self) -> None:
        actions = [self.submit] * 5 + [self.grab] * 5 + [self.complete] * 5 + [self.run_thread] * 8
        actions += [self.fail_run] * 2 + [self.retry, self.forget]
        actions += [self.lose_worker, self.meddle, self.cancel, self.heal]
        rare = [self.kill, self.restart, self.pause, self.wait, self.set_clock_back]
        for self.step in range(STEPS):
            if self.random.random() < 0.02:
                self.random.choice(rare)(self.any())
            self.random.choice(actions)(self.any())
            self.check_dead()
        for player in self.players:
            self.heal(player)
        for self.step in range(STEPS, STEPS + 250):
            self.pass_time(1)
            for player in self.players:
                player.site.commit()
                self.hear(player)
                self.grab(player)
                self.complete(player)
        self.check()

    def check(self) -> None:
        self.assertEqual([player.asked for player in self.players], [[]] * self.servers)
        dead = self.check_dead()
        self.happened["dead at the end"] += len(dead)
        late = {name for name, step in self.wanted.items() if self.ended.get(name, -1) < step}
        self.assertEqual(late - dead, set(), "what was acknowledged is done, or dead")
        self.assertEqual(self.database.jobs, {})
        for player in self.players:
            broker, store_writer = player.site.factory.broker, player.site.store_writer
            self.assertEqual((broker.total, broker.stored_queues.jobs, player.online), (0, 0, set()))
            self.assertEqual((store_writer.pending.unremoved, store_writer.pending.coalesced), (0, {}))

    def check_dead(self) -> set[bytes]:
        """Returns the handles of the dead jobs."""
        both = self.database.jobs.keys() & self.database.dead.keys()
        self.assertEqual(both, set(), "no job is dead and alive")
        dead = {job.handle: job.attempts for job in self.database.dead.values()}
        for name, attempts in dead.items():
            self.assertEqual(attempts, ATTEMPTS)
            self.assertGreaterEqual(self.failed[name], attempts, "none dies with attempts left")
        return set(dead)

    def any(self) -> Player:
        return self.random.choice(self.players)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for player in self.players:
            player.turn(seconds)

    def submit(self, player: Player) -> None:
        if player.paused:
            return
        for _ in range(self.random.randrange(1, 4)):
            unique = self.random.choice(UNIQUES)
            online = self.random.random() < 0.2
            player.asked.append((self.step, online))
            if online:
                player.client.receive(submit(b"", unique, kind=self.random.choice([7, 21])))
            elif self.random.random() < 0.1:
                run_at = b"%d" % (self.wall_clock() + self.random.randrange(-1, 3))
                player.client.receive(req(36, b"f", unique, run_at, b""))
            else:
                player.client.receive(submit(b"", unique, kind=self.random.choice([18, 32])))

    def hear(self, player: Player) -> None:
        for answer in player.site.heard(player.client).split(b"\0RES")[1:]:
            kind, body = answer[3], answer[8:]
            if kind in (8, 19):
                step, online = player.asked.pop(0)
                if kind == 8 and online:
                    player.online.add(body)
                elif kind == 8:
                    self.wanted[body] = max(step, self.wanted.get(body, 0))
                    self.handles.append(body)
            else:
                player.online.discard(body.split(b"\0")[0])

    def grab(self, player: Player) -> None:
        if player.paused:
            return
        index = self.random.randrange(len(player.working))
        player.working[index].receive(req(9))
        heard = player.site.heard(player.working[index])
        if heard != res(10):
            name = heard[12:].split(b"\0")[0]
            job = player.site.factory.broker.life.handles.get(name)
            assert job is not None
            if job.stored:
                self.check_alone(name)
            # A worker that goes on with a cancelled job may get it again: what it reports first counts.
            others = [each for each in player.has[index] if each[0] != name]
            player.has[index] = [*others, (name, player.site.store.start if job.stored else ONLINE)]

    def check_alone(self, name: bytes) -> None:
        """Nobody else has a job who may go on with it."""
        for player in self.players:
            for handle, start in chain(*player.has):
                lease = self.database.leases.get(start)
                if handle == name and lease is not None and not lease.dead:
                    self.fail(f"step {self.step}: two workers have {name!r}")

    def complete(self, player: Player) -> None:
        index = self.random.randrange(len(player.working))
        if player.has[index] and not player.paused:
            name, _ = player.has[index].pop(0)
            player.working[index].receive(req(13, name, b""))
            self.ended[name] = self.step
            self.hear(player)

    def fail_run(self, player: Player) -> None:
        """A worker reports a failure, some as Perl's does."""
        index = self.random.randrange(len(player.working))
        if player.has[index] and not player.paused:
            name, _ = player.has[index].pop(0)
            packets, what = failure_reports(self.random, name)
            player.working[index].receive(*packets)
            player.site.heard(player.working[index])
            self.failed[name] += what != PUT_OFF
            self.happened[what] += 1
            self.hear(player)
            if self.random.random() < 0.03:
                # Ahead of the commit that has the retry, or the death.
                self.kill(player)

    def retry(self, player: Player) -> None:
        """Of a job that is retrying, dead, or neither, and mostly with another server than had it last."""
        if self.failed and not player.paused:
            name = self.random.choice(list(self.failed)[-10:])
            self.happened["retried by hand"] += self.ask(player, b"retry job ", name)

    def forget(self, player: Player) -> None:
        if self.failed and not player.paused and self.random.random() < 0.5:
            name = self.random.choice(list(self.failed)[-10:])
            if self.ask(player, b"forget job ", name):
                self.ended[name] = self.step
                self.happened["forgotten"] += 1

    def ask(self, player: Player, line: bytes, name: bytes) -> bool:
        """Wait for the answer, as an operator does; returns whether that is OK."""
        player.admin.receive(line + name + b"\n")
        while not (heard := player.site.heard(player.admin)):
            if player.site.thread.calls:
                player.site.thread.run()
            else:
                self.pass_time(1)
        self.hear(player)
        return heard.startswith(b"OK")

    def run_thread(self, player: Player) -> None:
        self.pass_time(self.random.choice([0, 0.001, 0.01, 0.1, 1]))
        if player.site.thread.calls and not player.paused:
            player.site.thread.run()
        self.hear(player)

    def meddle(self, player: Player) -> None:
        """Cut a server off from the database, or let it hear nothing."""
        store = player.site.store
        store.cut, store.deaf = self.random.choice([(True, False), (False, True), (False, True)])

    def heal(self, player: Player) -> None:
        player.site.store.cut = player.site.store.deaf = player.paused = False
        player.turn(0)
        self.hear(player)

    def pause(self, player: Player) -> None:
        player.paused = True

    def wait(self, _: Player) -> None:
        """So long that others may take over what a server has that is paused or cut off."""
        for _ in range(int(2 * LEASE)):
            self.pass_time(1)
            for player in self.players:
                if not player.paused and self.random.random() < 0.9:
                    player.site.commit()
                self.hear(player)

    def set_clock_back(self, _: Player) -> None:
        self.skew -= self.random.choice([0.01, 1, 3])

    def cancel(self, player: Player) -> None:
        if not self.handles or player.paused:
            return
        name = self.random.choice(self.handles[-10:])
        if self.ask(player, b"cancel job ", name):
            self.ended[name] = self.step
            # Whoever has it goes on, and it may run again for a later submit.
            player.has = [
                [(each, ONLINE if each == name else start) for each, start in some] for some in player.has
            ]

    def lose_worker(self, player: Player) -> None:
        if not player.paused:
            index = self.random.randrange(len(player.working))
            player.working[index].lose()
            player.working[index], player.has[index] = player.site.worker(), []

    def kill(self, player: Player) -> None:
        """The process ends; what was under way in the database takes place, or not."""
        note_kill(player.site.factory, player.site.store_writer, self.happened)
        for _ in range(self.random.randrange(3)):
            if player.site.thread.calls:
                _, function, arguments = player.site.thread.calls.pop(0)
                with contextlib.suppress(StoreUnavailable, LeaseLost):
                    function(*arguments)
        player.site.start()
        player.start()

    def restart(self, player: Player) -> None:
        self.heal(player)
        player.site.stop()
        self.hear(player)
        player.site.start()
        player.start()
