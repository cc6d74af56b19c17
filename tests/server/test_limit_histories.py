"""Histories made at random of three servers on one database with limits of runs.

No limit is exceeded but where it may be, by what a server has given that is taken for dead. Nothing starves.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.server.peers import SocketlikeTransport, req, res
from tests.server.sites import LEASE, Site
from tests.store.model import ModelDatabase
from txgearman.server.config.options import FunctionSettings

SEEDS: Final = 40
STEPS: Final = 400
MOST: Final = 2
MOST_PER_KEY: Final = 1
KEYS: Final = (b"a", b"b", b"c", b"d")
WORKERS: Final = 3
DRAIN_STEPS: Final = 1500
MUST_HAPPEN: Final = {
    "killed with a slot",
    "lost its lease with a slot",
    "worker lost",
    "full",
    "key full",
    "moved",
    "answer lost",
}
"""Without these in the histories nothing is shown."""


class Player:
    """A server and its workers. `has` are their jobs: handle, key, and the start under which it was given."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.is_frozen = False
        self.missed = 0.0
        self.begin()

    def begin(self) -> None:
        self.client = self.site.connect()
        self.workers = [self.site.worker() for _ in range(WORKERS)]
        self.has: dict[SocketlikeTransport, tuple[bytes, bytes, int]] = {}

    def turn(self, seconds: float) -> None:
        """Let time pass, for a process that may be stopped."""
        self.missed += seconds
        if not self.is_frozen:
            seconds, self.missed = self.missed, 0.0
            self.site.turn(seconds)


class HistoryTests(SynchronousTestCase):
    def test_histories(self) -> None:
        self.happened: Counter[str] = Counter()
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.play(Random(seed))
        self.assertEqual(set(self.happened), MUST_HAPPEN)

    def play(self, random: Random) -> None:
        self.random, self.now, self.submitted = random, 0.0, 0
        self.last: dict[bytes, Player] = {}
        self.database = ModelDatabase(lambda: 5e8 + self.now)
        self.players = [Player(self.site(name)) for name in ("first", "second", "third")]
        actions = [self.submit] * 4 + [self.grab] * 6 + [self.complete] * 4 + [self.run_thread] * 8
        actions += [self.lose_worker, self.cut, self.cut, self.mend, self.mend, self.freeze, self.freeze]
        for _ in range(STEPS):
            if random.random() < 0.01:
                self.kill(random.choice(self.players))
            random.choice(actions)(random.choice(self.players))
            self.check()
        self.drain()

    def site(self, name: str) -> Site:
        functions = {"f": FunctionSettings(max_running=MOST, max_running_per_key=MOST_PER_KEY)}
        return Site(name, self.database, lambda: 1e9 + self.now, functions=functions)

    def check(self) -> None:
        """Of what was given under a lease that nobody took for lost, no more runs than may."""
        running: Counter[bytes] = Counter()
        for player in self.players:
            for _, key, start in player.has.values():
                lease = self.database.leases.get(start)
                if lease is not None and not lease.dead:
                    running[key] += 1
        self.assertLessEqual(running.total(), MOST)
        self.assertLessEqual(max(running.values(), default=0), MOST_PER_KEY, running)
        self.happened["full"] += running.total() == MOST
        self.happened["key full"] += bool(running)

    def submit(self, player: Player) -> None:
        if not player.is_frozen:
            self.submitted += 1
            unique = b"%b:%d" % (self.random.choice(KEYS), self.submitted)
            player.client.receive(req(self.random.choice([7, 18]), b"f", unique, b""))
            player.site.heard(player.client)

    def grab(self, player: Player) -> None:
        worker = self.random.choice(player.workers)
        if player.is_frozen or worker in player.has:
            return
        worker.receive(req(9))
        heard = player.site.heard(worker)
        if heard == res(10) or not heard:
            return
        handle = heard[12:].split(b"\0")[0]
        job = player.site.factory.broker.life.handles.get(handle)
        assert job is not None
        key = job.unique.split(b":")[0]
        player.has[worker] = handle, key, player.site.store.start
        self.happened["moved"] += self.last.get(key, player) is not player
        self.last[key] = player

    def complete(self, player: Player) -> None:
        if player.has and not player.is_frozen:
            worker = self.random.choice(list(player.has))
            handle, _, _ = player.has.pop(worker)
            worker.receive(req(13, handle, b""))
            player.site.heard(worker)

    def run_thread(self, player: Player) -> None:
        """Time passes, and a database may answer."""
        self.pass_time(self.random.choice([0, 0.01, 0.1, 0.5]))
        if player.site.thread.calls and not player.is_frozen:
            self.happened["answer lost"] += player.site.store.deaf
            player.site.thread.run()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for player in self.players:
            held, start = player.site.store_writer.slots.held, player.site.store.start
            player.turn(seconds)
            lease = self.database.leases.get(start)
            self.happened["lost its lease with a slot"] += bool(held and (lease is None or lease.dead))

    def lose_worker(self, player: Player) -> None:
        if not player.is_frozen:
            index = self.random.randrange(WORKERS)
            worker = player.workers[index]
            self.happened["worker lost"] += player.has.pop(worker, None) is not None
            worker.lose()
            player.workers[index] = player.site.worker()

    def cut(self, player: Player) -> None:
        """The way to the database, or from there."""
        setattr(player.site.store, self.random.choice(["cut", "deaf"]), True)

    def mend(self, player: Player) -> None:
        player.site.store.cut = player.site.store.deaf = False

    def freeze(self, player: Player) -> None:
        player.is_frozen = not player.is_frozen
        player.turn(0)

    def kill(self, player: Player) -> None:
        """The workers end with their server."""
        self.happened["killed with a slot"] += bool(player.site.store_writer.slots.held)
        player.is_frozen, player.missed = False, 0.0
        player.site.start()
        player.begin()

    def drain(self) -> None:
        """All is well again: every job runs."""
        for player in self.players:
            self.mend(player)
            player.is_frozen = False
        for _ in range(DRAIN_STEPS):
            self.pass_time(LEASE / 100)
            for player in self.players:
                player.site.commit()
                self.grab(player)
                self.complete(player)
            self.check()
            if not self.left():
                return
        self.fail(f"left: {self.left()}, slots {self.database.slots}, wants {self.database.wants}")

    def left(self) -> int:
        return sum(player.site.factory.broker.total for player in self.players) + len(self.database.jobs)
