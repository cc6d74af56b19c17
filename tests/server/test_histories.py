"""Histories made at random of a server that saves jobs: uniques, online jobs, cancels, times, restarts."""

from __future__ import annotations

from random import Random

from tests.server.kept import UNAVAILABLE, ListStore, SharedStore
from tests.server.peers import req, res
from tests.server.test_saving import SavingTestCase, submit
from txgearman.errors import LeaseLost

SEEDS = 60
STEPS = 300
UNIQUES = (b"", b"u", b"v", b"w")


class HistoryTests(SavingTestCase):
    """What was acknowledged is done behind its submit, or was cancelled behind it, whatever happens."""

    def make_store(self) -> ListStore:
        return ListStore()

    def test_histories(self) -> None:
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.store = self.make_store()
                self.begin(Random(seed))
                self.play()

    def begin(self, random: Random) -> None:
        self.random = random
        self.step = 0
        # By handle: the step of the last submit that was answered with it, and that in which the job ended.
        self.wanted: dict[bytes, int] = {}
        self.ended: dict[bytes, int] = {}
        self.online: set[bytes] = set()
        self.told: set[bytes] = set()
        self.handles: list[bytes] = []
        self.began = 1e9
        self.begin_server()

    def begin_server(self) -> None:
        self.start(store_ahead=3)
        self.factory.broker._wall_clock = self.wall_clock
        self.client, self.admin = self.connect(), self.connect()
        self.asked: list[tuple[int, bool]] = []
        self.working = [self.worker() for _ in range(3)]
        self.has: list[list[bytes]] = [[], [], []]

    def wall_clock(self) -> float:
        return self.began + self.clock.seconds()

    def play(self) -> None:
        actions = [self.submit] * 5 + [self.grab] * 5 + [self.complete] * 4 + [self.run_thread] * 5
        actions += [self.lose_worker, self.break_store, self.cancel]
        for self.step in range(STEPS):
            if self.random.random() < 0.01:
                self.random.choice([self.kill, self.restart])()
            self.random.choice(actions)()
        self.store.failing = None
        for self.step in range(STEPS, STEPS + 300):
            self.turn(1)
            self.commit()
            self.hear()
            self.grab()
            self.complete()
        self.assertEqual(self.asked, [], "every submit is answered")
        late = {name for name, step in self.wanted.items() if self.ended.get(name, -1) < step}
        self.assertEqual(late, set(), "what was acknowledged is done")
        self.assertEqual(self.online - self.told, set(), "who waits is told")
        self.assertEqual((self.factory.broker.total, self.store.jobs), (0, {}))
        self.assertEqual(self.factory.broker.far, self.store.shared)

    def submit(self) -> None:
        for _ in range(self.random.randrange(1, 5)):
            unique = self.random.choice(UNIQUES)
            online = self.random.random() < 0.3
            self.asked.append((self.step, online))
            if online:
                self.client.receive(submit(b"", unique, kind=self.random.choice([7, 21])))
            elif self.random.random() < 0.2:
                run_at = b"%d" % (self.wall_clock() + self.random.randrange(-1, 3))
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
            self.working[index].receive(req(13, name, b""))
            self.ended[name] = self.step
            self.hear()

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
            self.admin.receive(b"cancel job " + name + b"\n")
            self.ended_by_cancel(name)

    def ended_by_cancel(self, name: bytes) -> None:
        """Wait for the answer, as an operator does, and note a cancelled job as ended."""
        while not (heard := self.heard(self.admin)):
            if self.thread.calls:
                self.thread.run()
            else:
                self.turn(1)
        if heard.startswith(b"OK"):
            self.ended[name] = self.step
        self.hear()

    def lose_worker(self) -> None:
        index = self.random.randrange(3)
        self.working[index].lose()
        self.working[index], self.has[index] = self.worker(), []

    def kill(self) -> None:
        """The process ends; what was under way in the store takes place, or not."""
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
        self.store.failing = self.random.choice([UNAVAILABLE, LeaseLost("the lease has ended"), None, None])
