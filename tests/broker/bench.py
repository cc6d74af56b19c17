"""A broker on a bench: ends that write down what they are told, and a clock turned by hand.

No expectations here, those are in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from txgearman.broker.administration import Administration
from txgearman.broker.broker import Broker
from txgearman.broker.dead_job_administration import DeadJobAdministration
from txgearman.broker.entities import Client, Job, Worker
from txgearman.broker.inspection import Inspection
from txgearman.broker.policy import Policy
from txgearman.broker.store_answers import StoreAnswers
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.tracing import JobTracer
from txgearman.broker.uniques import Uniques
from txgearman.broker.worker_decisions import WorkerDecisions
from txgearman.errors import Refused

if TYPE_CHECKING:
    from txgearman.broker.dead_job import DeadJob
    from txgearman.broker.interfaces import Follower, SlotSource, Tell, TellPage
    from txgearman.broker.kept_result import KeptResult
    from txgearman.broker.kept_unique import KeptUnique
    from txgearman.broker.stored_job import StoredJob

START: float = 1000.0
"""What the monotonic clock of a bench shows at first, in seconds."""

WALL_AHEAD: float = 1_700_000_000.0
"""How far the wall clock of a bench is ahead of its monotonic clock at first, in seconds."""

MAX_RINGS = 10_000
"""How often the alarm may ring while time passes; a broker that misses what is due rings for ever."""

POLICY = Policy(handle_prefix=b"H:t")


class ClientNotes:
    """A `ClientConnection` that writes down its calls."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.places = 0

    def take(self) -> list[tuple[Any, ...]]:
        """The notes made since the last call."""
        notes, self.notes = self.notes, []
        return notes

    def created(self, handle: bytes) -> None:
        self.notes.append(("created", handle))

    def created_later(self) -> int:
        self.places += 1
        self.notes.append(("saving", self.places))
        return self.places

    def resolve_created(self, reply: object, handle: bytes) -> None:
        self.notes.append(("saved", reply, handle))

    def resolve_refused(self, reply: object, refusal: Refused) -> None:
        self.notes.append(("refused", reply, refusal.text))

    def data(self, handle: bytes, data: bytes) -> None:
        self.notes.append(("data", handle, data))

    def warning(self, handle: bytes, data: bytes) -> None:
        self.notes.append(("warning", handle, data))

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        self.notes.append(("status", handle, numerator, denominator))

    def completed(self, handle: bytes, data: bytes) -> None:
        self.notes.append(("completed", handle, data))

    def failed(self, handle: bytes) -> None:
        self.notes.append(("failed", handle))

    def retrying(self, handle: bytes, attempts: int, delay: float) -> None:
        self.notes.append(("retrying", handle, attempts, delay))

    def exception(self, handle: bytes, data: bytes) -> None:
        self.notes.append(("exception", handle, data))


class WorkerNotes:
    """A `WorkerConnection` that lists its name each time it is woken.

    `cancelled` are the jobs that it was told to stop, with the reasons; `disconnected` says that it is to
    lose its connection.
    """

    def __init__(self, name: str, woken: list[str], hears_cancel: bool = False) -> None:
        self.name = name
        self.label = name.encode()
        self.hears_cancel = hears_cancel
        self._woken = woken
        self.cancelled: list[tuple[bytes, bytes]] = []
        self.disconnected = False

    def wake(self) -> None:
        self._woken.append(self.name)

    def cancel(self, handle: bytes, reason: bytes) -> None:
        assert self.hears_cancel, "it has not asked for that"
        self.cancelled.append((handle, reason))

    def disconnect(self) -> None:
        self.disconnected = True


class SilentWorker:
    """A `WorkerConnection` that hears nothing: the test grabs when it wants."""

    label = b"silent"
    number = 77
    hears_cancel = False

    def wake(self) -> None:
        pass

    def cancel(self, handle: bytes, reason: bytes) -> None:
        raise AssertionError("it has not asked for that")

    def disconnect(self) -> None:
        pass


class KeeperNotes:
    """A `JobStore` that writes down its calls; `refusal` is what `check` raises, if anything."""

    def __init__(self) -> None:
        self.saves: list[Job] = []
        self.removed: list[int] = []
        self.losses: list[tuple[bytes, int]] = []
        self.retries: list[tuple[bytes, int, float | None]] = []
        self.dead: list[DeadJob] = []
        self.kept: list[KeptUnique] = []
        self.results: list[KeptResult] = []
        self.refusal: Refused | None = None
        self.fetches: list[tuple[bytes, int, int]] = []
        self.searches: list[tuple[Any, ...]] = []
        self.shared = False

    def fetch(self, function: bytes, priority: int, after: int) -> None:
        self.fetches.append((function, priority, after))

    def page(self, function: bytes, priority: int, after: int, most: int, tell: TellPage) -> None:
        self.searches.append(("page", function, priority, after, most, tell))

    def find(self, number: int, tell: Tell) -> None:
        self.searches.append(("number", number, tell))

    def find_unique(self, unique: bytes, tell: Tell) -> None:
        self.searches.append(("unique", unique, tell))

    def find_duplicate(self, function: bytes, unique: bytes, data: bytes, tell: Tell) -> None:
        self.searches.append(("duplicate", function, unique, data, tell))

    def owns(self, job: StoredJob) -> bool:
        return True

    def check(self, data: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal

    def save(self, job: Job) -> None:
        self.saves.append(job)

    def remove(self, number: int, just_now: bool = True) -> None:
        self.removed.append(number)

    def retrying(self, job: Job) -> None:
        assert job.failures is not None
        self.retries.append((job.handle, job.failures.attempts, job.failures.retry_at))

    def died(self, number: int, dead: DeadJob) -> None:
        self.dead.append(dead)

    def keep_unique(self, kept: KeptUnique) -> None:
        self.kept.append(kept)

    def completed(self, result: KeptResult) -> None:
        self.results.append(result)

    def lost(self, job: Job) -> None:
        self.losses.append((job.handle, job.losses))


class Bench:
    """A broker, and the shell around it that calls `tick` when the broker asked for it.

    `measured` functions are told apart in what the broker measures; 0 measures no times. `follower` is told
    of the ways of jobs.

    `chance` is the broker's next random number, `deaths` are the jobs that died.

    `woken` are the names of the workers woken since `take_woken` was called last, in order.
    """

    def __init__(
        self,
        policy: Policy = POLICY,
        measured: int = 0,
        job_store: KeeperNotes | None = None,
        last_number: int = 0,
        follower: Follower | None = None,
        slot_source: SlotSource | None = None,
    ) -> None:
        self.now = START
        self.wall_ahead = WALL_AHEAD
        self.rings_at: float | None = None
        self.woken: list[str] = []
        self.chance = 0.5
        self.deaths: list[DeadJob] = []
        trace = None if follower is None else JobTracer(follower, lambda: self.now, self.wall)
        self.broker = Broker(
            policy,
            lambda: self.now,
            self.wall,
            self,
            measured,
            job_store,
            last_number,
            trace,
            lambda: self.chance,
            self,
            slot_source=slot_source,
        )
        self.inspection = Inspection(self.broker)
        self.administration = Administration(self.broker)
        self.dead = DeadJobAdministration(self.broker)
        self.answers = StoreAnswers(self.broker)
        self.decisions = WorkerDecisions(self.broker)
        self.search = StoredJobSearch(self.broker)

    def wall(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return self.now + self.wall_ahead

    def died(self, dead: DeadJob) -> None:
        """The broker's death listener."""
        self.deaths.append(dead)

    def ring_in(self, delay: float) -> None:
        """The broker's alarm."""
        assert delay >= 0
        self.rings_at = self.now + delay

    def advance(self, seconds: float, ticked: Callable[[], None] = lambda: None) -> None:
        """Let time pass; `tick`, then call `ticked`, whenever the alarm rings."""
        end = self.now + seconds
        rings = 0
        while self.rings_at is not None and self.rings_at <= end:
            self.now = max(self.now, self.rings_at)
            self.rings_at = None
            self.broker.tick()
            ticked()
            rings += 1
            assert rings < MAX_RINGS, "the alarm rings for ever"
        self.now = end

    def take_woken(self) -> list[str]:
        woken = self.woken[:]
        self.woken.clear()
        return woken

    # -- peers ----------------------------------------------------------------------------------

    def client(self) -> Client:
        return Client(ClientNotes())

    def worker(
        self,
        name: str = "worker",
        *functions: bytes,
        timeout: float | None = None,
        hears_cancel: bool = False,
    ) -> Worker:
        """A worker that registered `functions` in this order."""
        worker = Worker(WorkerNotes(name, self.woken, hears_cancel))
        for function in functions:
            self.broker.can_do(worker, function, timeout)
        return worker

    def sleeper(self, name: str, *functions: bytes, timeout: float | None = None) -> Worker:
        """A worker that grabbed in vain and sleeps."""
        worker = self.worker(name, *functions, timeout=timeout)
        assert self.broker.grab(worker) is None
        self.broker.sleep(worker)
        return worker

    def leave(self, client: Client, worker: Worker) -> None:
        """The connection that both were is gone."""
        self.broker.leave_worker(worker)
        self.broker.leave_client(client)

    # -- verbs, shorter -------------------------------------------------------------------------

    def submit(
        self, client: Client, function: bytes, unique: bytes = b"", data: bytes = b"", **how: Any
    ) -> bytes:
        """Submit; returns the handle that the client was told."""
        self.broker.submit(client, function, unique, data, **how)
        end = client.connection
        assert isinstance(end, ClientNotes)
        what, handle = end.notes.pop()
        assert what == "created"
        return bytes(handle)

    def queue(self, function: bytes, unique: bytes = b"", data: bytes = b"", **how: Any) -> bytes:
        """Submit a background job whose client is gone; returns its handle."""
        return self.submit(self.client(), function, unique, data, background=True, **how)

    def grab(self, worker: Worker) -> Job:
        """Grab a job that must be there."""
        job = self.broker.grab(worker)
        assert job is not None, "there is no job for this worker"
        return job

    def handles(self, worker: Worker) -> list[bytes]:
        """Grab and complete all there is; returns the handles in that order."""
        handles = []
        while (job := self.broker.grab(worker)) is not None:
            handles.append(job.handle)
            self.broker.complete(worker, job.handle, b"")
        return handles


def said(client: Client) -> list[tuple[Any, ...]]:
    """What a client was told since this was called last."""
    end = client.connection
    assert isinstance(end, ClientNotes)
    return end.take()


def uniques_of(uniques: Uniques) -> dict[bytes, Any]:
    """All that `uniques` holds, by key."""
    held: dict[bytes, Any] = {}
    # Nearly all are empty, and the tests ask after every step.
    for shard in filter(None, uniques._shards):
        held.update(shard)
    return held


def leftovers(broker: Broker) -> dict[str, Any]:
    """What a broker still holds in its indexes; empty once every job and every peer is gone."""
    held: dict[str, Any] = {
        "jobs": dict(broker.life.handles),
        "uniques": uniques_of(broker.life.duplicates.by_unique),
        "data uniques": uniques_of(broker.life.duplicates.by_data),
        "ability sets": dict(broker.waking.ability_sets),
        "timeouts": len(broker.life.timeouts),
        "epochs": len(broker.life.epochs),
        "expiries": len(broker.life.expiries),
        "woken": dict(broker.waking.woken),
        "tasks": len(broker.slices),
        "results of running jobs": len(broker.ended_jobs.results._collecting),
        "bytes of these": broker.ended_jobs.results._size,
        "unsaved results": len(broker.ended_jobs.results.unsaved),
        "unsaved deaths": len(broker.ended_jobs.unsaved_deaths),
        "leaving clients": broker.departures.clients,
        "total": broker.total,
    }
    for name, function in broker.functions.by_name.items():
        held[f"unready of {name!r}"] = [dict(unready) for unready in function.unready if unready]
        held[f"resting of {name!r}"] = dict(function.resting)
        keyed_queue = function.keyed_queue
        held[f"keys of {name!r}"] = 0 if keyed_queue is None else len(keyed_queue) + keyed_queue.runnable
        held[f"counters of {name!r}"] = [
            count
            for count in (function.total, function.running, function.workers, *function.waiting)
            if count
        ]
    return {what: value for what, value in held.items() if value}
