"""Random operations on the broker and on the model, which must agree after each of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.pair import Pair
from tests.wire.effort import EFFORT, LONG
from txgearman.broker.interfaces import Follower
from txgearman.broker.job_options import JobOptions
from txgearman.broker.kept_result import RESULT_OVERHEAD
from txgearman.broker.policy import FunctionOrder, FunctionRules, Policy, RunRules
from txgearman.broker.recurrence import Cron, Every
from txgearman.broker.schedule import Missed, Overlap, Schedule
from txgearman.broker.slices import SLICE
from txgearman.broker.waking import FREE_WALK

CLIENTS, WORKERS = 4, 7
FUNCTIONS = (b"X", b"Y", b"Z")
UNIQUES = (b"", b"", b"-", b"u", b"v", b"d", b"u:1", b"u:2", b"v:1")
UNIQUES_OF_FEW_KEYS = (b"", b"-", b"u", *(b"u:%d" % number for number in range(6)), b"v:1", b"v:2")
DATA = (b"", b"d", b"u")
DELAYS = (None, None, None, None, -1.0, 0.0, 0.1, 3.0, 100.0)
TIMEOUTS = (None, None, 0.15, 1.0, 5.0)
PAUSES = (0.0, 0.05, 0.1, 0.2, 0.25, 1.0, 7.0, 130.0)
CLOCK_STEPS = (-3600.0, -1.0, 1.0, 50.0, 3600.0)
REPORTS = ("data", "warning", "status", "heartbeat")
ENDS = ("completed", "failed", "exception")
DECISIONS = ("fail", "retry", "retry soon", "put off", "reject")
LIMITS = ((1, 1, 1), (3, 2, 1), (None, 4, None), (None, None, None))
POLICIES = tuple(
    Policy(b"H:t", job_retries=retries, wakeup=wakeup, order=order, round_robin=round_robin, dead_jobs=20)
    for order, round_robin in (
        (FunctionOrder.PRIORITY, False),
        (FunctionOrder.REGISTRATION, False),
        (FunctionOrder.REGISTRATION, True),
    )
    for wakeup, retries in ((1, -1), (0, 3), (2, 0))
)
POLICIES += tuple(
    replace(
        policy,
        functions=(
            (b"*", FunctionRules(limits=(4, 3, None), time_limit=2.0)),
            (b"X", FunctionRules(job_retries=2)),
            (b"Y", FunctionRules(limits=(None, None, None), time_limit=0.5, job_retries=-1)),
        ),
    )
    for policy in POLICIES[::2]
)

RETRIES = (
    (b"X", FunctionRules(attempts=2, backoff=0.3, retry_online=True)),
    (b"Y", FunctionRules(attempts=3, backoff=0.1, backoff_factor=10.0, backoff_max=0.5, time_limit=0.5)),
)
POLICIES += (
    # Retries of all kinds, beside a function without any. Nothing expires.
    replace(POLICIES[0], functions=RETRIES, dead_jobs=4),
    # Results are kept, of one function for longer than of the others, and are too many.
    replace(
        POLICIES[0],
        functions=(
            *((name, replace(rules, keep_results=5.0)) for name, rules in RETRIES[:1]),
            *RETRIES[1:],
            (b"*", FunctionRules(keep_results=0.7)),
        ),
        results_bytes=2 * (RESULT_OVERHEAD + 20),
    ),
    # Jobs grow too old while they wait for a worker, or for their retry.
    replace(
        POLICIES[4],
        functions=(*RETRIES, (b"*", FunctionRules(expires=1.0)), (b"Z", FunctionRules(limits=(4, 3, None)))),
        dead_age=100.0,
        history=0,
    ),
    # The clock steps by less and by more than this.
    replace(
        POLICIES[8],
        functions=((b"*", FunctionRules(attempts=2, backoff=0.5, expires=30.0)),),
        job_retries=2,
        dead_jobs=0,
    ),
    replace(POLICIES[3], attempts=4, backoff=0.05, functions=((b"Y", FunctionRules(expires=0.2)),)),
    # Silent workers lose their jobs, beside time limits of both sides and without.
    replace(
        POLICIES[0],
        functions=(
            (b"X", FunctionRules(heartbeat=0.3)),
            (b"Y", FunctionRules(heartbeat=1.0, time_limit=2.0, attempts=2, backoff=0.1)),
        ),
    ),
    replace(POLICIES[1], heartbeat=0.5, functions=((b"Z", FunctionRules(heartbeat=0.0)),)),
    # Uniques of one function are kept, of which there are soon too many.
    replace(POLICIES[1], functions=((b"X", FunctionRules(unique_for=2.0)),), max_kept_uniques=2),
)

RUN_RULES = (
    RunRules(max_running=1),
    RunRules(max_running=2, pause_after=4),
    RunRules(max_running_per_key=1),
    RunRules(max_running_per_key=2, max_running=3),
    RunRules(max_running_per_key=1, key_separator=b"1"),
    RunRules(start_rate=2.7, start_burst=2),
    RunRules(start_rate=7.3, start_burst=1, max_running_per_key=1),
    RunRules(),
)
"""What an administrator sets. No rate lets a job begin at a time that the clock stops at."""

POLICIES += (
    # Limits of runs of all kinds.
    replace(
        POLICIES[0],
        functions=(
            (b"X", FunctionRules(max_running=1)),
            (b"Y", FunctionRules(max_running_per_key=1)),
            (b"Z", FunctionRules(start_rate=2.7, start_burst=2)),
        ),
    ),
    # In the order of registration, over all priorities of a function, and with limits of time.
    replace(
        POLICIES[4],
        functions=(
            (b"X", FunctionRules(max_running=2, max_running_per_key=1, pause_after=3)),
            (b"*", FunctionRules(max_running_per_key=2, time_limit=0.5, job_retries=2)),
        ),
    ),
    # With retries, and jobs that expire while they are blocked.
    replace(
        POLICIES[8],
        functions=(
            *RETRIES[:1],
            (b"Y", FunctionRules(start_rate=5.3)),
            (b"*", FunctionRules(max_running_per_key=1, attempts=2, backoff=0.2, expires=1.0)),
        ),
        defaults=FunctionRules(max_running=2, pause_after=5),
    ),
)

HAPPENS_WITHOUT_RULES = {
    "retried by hand",
    "killed",
    "asked for a retry",
    "put off",
    "rejected",
    "revived",
    "stopped: abandoned",
    "stopped: cancelled",
    "stopped: timed-out",
    "answered with a kept one",
    "kept for one who waits",
    "clock set back",
    "missed for good",
    "missed: all",
    "skipped",
}
HAPPENS_WITH_LIMITS = {
    "missed: one",
    "missed: skip",
    "tick refused",
}
HAPPENS_WITH_RETRIES = {
    "retried",
    "retried online",
    "silent",
    "expired",
    "died of age",
    "evicted",
    "stopped: silent",
    "cancelled by force",
    "too many kept",
    "kept",
    "not whole",
    "result expired",
    "result evicted",
}
HAPPENS_WITH_RUN_LIMITS = {
    "throttled",
    "passed over",
    "paused by itself",
}
ALL_THAT_HAPPENS = (
    HAPPENS_WITHOUT_RULES | HAPPENS_WITH_LIMITS | HAPPENS_WITH_RETRIES | HAPPENS_WITH_RUN_LIMITS
)
"""Without these in the long walks nothing is compared of what becomes of failed runs, of those that are
stopped, of results, of schedules, or is limited."""

OPTIONS = (
    *(None,) * 6,
    JobOptions(expires=0.5),
    JobOptions(expires=0),
    JobOptions(attempts=3, backoff=0.1, expires=3.0),
    JobOptions(attempts=1),
    JobOptions(backoff=0.7),
    JobOptions(unique_for=0.5),
    JobOptions(unique_for=100.0, attempts=2),
    JobOptions(unique_for=0),
    JobOptions(keep_result=2.0),
    JobOptions(keep_result=0),
)
PERIODS = (7, 20, 60, 300)
"""Seconds between the ticks of a schedule; a minute is a cron expression."""

SCHEDULES = (b"s", b"t", b"u")
"""Names. One is a unique of other jobs, too."""


def schedule(name: bytes, function: bytes, period: int, **how: Any) -> Schedule:
    """A schedule that ticks each `period` seconds."""
    recurrence = Cron("* * * * *") if period == 60 else Every(period, f"every {period}s")
    return Schedule(name, function, recurrence, **how)


FREE_WALKS = (FREE_WALK, 0, 1)
SLICES = (SLICE, 1)

client_places = st.integers(0, CLIENTS - 1)
worker_places = st.integers(0, WORKERS - 1)
functions = st.sampled_from(FUNCTIONS)
numbers = st.integers(0, 40)


class BrokerMachine(RuleBasedStateMachine):
    """Operations chosen by hypothesis, which shrinks those that show a difference."""

    pair: Pair

    @initialize(
        policy=st.sampled_from(POLICIES),
        free_walk=st.sampled_from(FREE_WALKS),
        slice_size=st.sampled_from(SLICES),
    )
    def start(self, policy: Policy, free_walk: int, slice_size: int) -> None:
        self.pair = Pair(policy, CLIENTS, WORKERS, None, free_walk, slice_size)

    @rule(
        place=client_places,
        function=functions,
        unique=st.sampled_from(UNIQUES),
        data=st.sampled_from(DATA),
        priority=st.integers(0, 2),
        background=st.booleans(),
        options=st.sampled_from(OPTIONS),
    )
    def submit(
        self,
        place: int,
        function: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        background: bool,
        options: JobOptions | None,
    ) -> None:
        self.pair.submit(place, function, unique, data, priority, background, None, options)

    @rule(
        place=client_places,
        function=functions,
        unique=st.sampled_from(UNIQUES),
        data=st.sampled_from(DATA),
        priority=st.integers(0, 2),
        background=st.booleans(),
        delay=st.sampled_from(DELAYS),
        options=st.sampled_from(OPTIONS),
    )
    def submit_for_later(
        self,
        place: int,
        function: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        background: bool,
        delay: float | None,
        options: JobOptions | None,
    ) -> None:
        self.pair.submit(place, function, unique, data, priority, background, delay, options)

    @rule(place=client_places)
    def leave_client(self, place: int) -> None:
        self.pair.leave_client(place)

    @rule(place=worker_places, function=functions, timeout=st.sampled_from(TIMEOUTS))
    def can_do(self, place: int, function: bytes, timeout: float | None) -> None:
        self.pair.can_do(place, function, timeout)

    @rule(place=worker_places, function=functions)
    def cant_do(self, place: int, function: bytes) -> None:
        self.pair.cant_do(place, function)

    @rule(place=worker_places)
    def reset_abilities(self, place: int) -> None:
        self.pair.reset_abilities(place)

    @rule(place=worker_places)
    def grab(self, place: int) -> None:
        self.pair.grab(place)

    @rule(place=worker_places)
    def sleep(self, place: int) -> None:
        self.pair.sleep(place)

    @rule(place=worker_places)
    def leave_worker(self, place: int) -> None:
        self.pair.leave_worker(place)

    @rule(place=worker_places, number=numbers, what=st.sampled_from(REPORTS), own=st.booleans())
    def report(self, place: int, number: int, what: str, own: bool) -> None:
        self.pair.report(place, self.pair.handle(number, place if own else None), what)

    @rule(place=worker_places, number=numbers, what=st.sampled_from((*ENDS, *DECISIONS)), own=st.booleans())
    def end(self, place: int, number: int, what: str, own: bool) -> None:
        self.pair.end(place, self.pair.handle(number, place if own else None), what)

    @rule(number=numbers, force=st.booleans())
    def cancel(self, number: int, force: bool) -> None:
        self.pair.cancel(self.pair.handle(number), force)

    @rule(number=numbers)
    def retry(self, number: int) -> None:
        self.pair.retry(self.pair.failed(number))

    @rule(number=numbers)
    def forget(self, number: int) -> None:
        self.pair.forget(self.pair.failed(number))

    @rule(number=numbers)
    def kill(self, number: int) -> None:
        self.pair.kill(self.pair.failed(number))

    @rule(function=functions)
    def retry_all(self, function: bytes) -> None:
        self.pair.retry_all(function)

    @rule(function=functions)
    def forget_all(self, function: bytes) -> None:
        self.pair.forget_all(function)

    @rule(function=functions)
    def create(self, function: bytes) -> None:
        self.pair.create(function)

    @rule(function=functions)
    def drop(self, function: bytes) -> None:
        self.pair.drop(function)

    @rule(function=functions, limits=st.sampled_from(LIMITS))
    def set_limits(self, function: bytes, limits: tuple[int | None, ...]) -> None:
        self.pair.set_limits(function, limits)

    @rule(function=functions, pause=st.booleans())
    def pause(self, function: bytes, pause: bool) -> None:
        self.pair.pause(function, pause)

    @rule(function=functions, rules=st.sampled_from(RUN_RULES))
    def limit_runs(self, function: bytes, rules: RunRules) -> None:
        self.pair.limit_runs(function, rules)

    @rule(place=worker_places, quiet=st.booleans())
    def quiet(self, place: int, quiet: bool) -> None:
        self.pair.quiet(place, quiet)

    @rule(function=functions)
    def cancel_all(self, function: bytes) -> None:
        self.pair.cancel_all(function)

    @rule(seconds=st.sampled_from(PAUSES))
    def advance(self, seconds: float) -> None:
        self.pair.advance(seconds)

    @rule(seconds=st.sampled_from(CLOCK_STEPS))
    def set_wall_clock(self, seconds: float) -> None:
        self.pair.set_wall_clock(seconds)

    @rule(
        name=st.sampled_from(SCHEDULES),
        function=functions,
        period=st.sampled_from(PERIODS),
        missed=st.sampled_from(Missed),
        overlap=st.sampled_from(Overlap),
        jitter=st.sampled_from((0.0, 4.0, 50.0)),
        window=st.sampled_from((5.0, 100.0, 600.0)),
        enabled=st.sampled_from((True, True, False)),
    )
    def add_schedule(
        self,
        name: bytes,
        function: bytes,
        period: int,
        missed: Missed,
        overlap: Overlap,
        jitter: float,
        window: float,
        enabled: bool,
    ) -> None:
        how = {"missed": missed, "overlap": overlap, "jitter": jitter, "missed_window": window}
        self.pair.add_schedule(schedule(name, function, period, enabled=enabled, **how), period)

    @rule(name=st.sampled_from(SCHEDULES), paused=st.booleans())
    def pause_schedule(self, name: bytes, paused: bool) -> None:
        self.pair.pause_schedule(name, paused)

    @rule(name=st.sampled_from(SCHEDULES))
    def run_schedule(self, name: bytes) -> None:
        self.pair.run_schedule(name)

    @rule(name=st.sampled_from(SCHEDULES))
    def remove_schedule(self, name: bytes) -> None:
        self.pair.remove_schedule(name)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.finish()


class Walk:
    """A long random walk, always the same for the same seed."""

    def __init__(
        self,
        policy: Policy,
        seed: int,
        follower: Follower | None = None,
        free_walk: int = FREE_WALK,
        slice_size: int = SLICE,
    ) -> None:
        self.random = Random(seed)
        by_key = any(rules.max_running_per_key for _, rules in policy.functions)
        self.uniques = UNIQUES_OF_FEW_KEYS if by_key else UNIQUES
        self.pair = Pair(policy, CLIENTS, WORKERS, follower, free_walk, slice_size)
        # Mostly shorter than the patience with woken workers.
        self.pauses = (0.01, 0.03, 0.05, 0.08, *PAUSES)
        self.steps = (
            [self.submit] * 12
            + [self.grab] * 4
            + [self.come] * 5
            + [self.sleep] * 3
            + [self.rest] * 6
            + [self.end] * 5
            + [self.report] * 2
            + [self.register] * 2
            + [self.leave]
            + [self.administer]
            + [self.see_to_failed] * 2
            + [self.see_to_schedules]
            + [self.pass_time] * 4
        )

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.random.choice(self.steps)()
        self.pair.finish()

    def client(self) -> int:
        return self.random.randrange(CLIENTS)

    def worker(self) -> int:
        return self.random.randrange(WORKERS)

    def function(self) -> bytes:
        return self.random.choice(FUNCTIONS)

    def submit(self) -> None:
        choice = self.random.choice
        self.pair.submit(
            self.client(),
            self.function(),
            choice(self.uniques),
            choice(DATA),
            choice((0, 1, 1, 2)),
            choice((True, False)),
            choice(DELAYS),
            choice(OPTIONS),
        )

    def grab(self) -> None:
        self.pair.grab(self.worker())

    def come(self) -> None:
        """A worker that was woken grabs, as it should."""
        woken = [worker.name for worker in self.pair.model.awaited]
        places = [place for place, (name, _) in enumerate(self.pair.workers) if name in woken]
        self.pair.grab(self.random.choice(places) if places else self.worker())

    def sleep(self) -> None:
        self.pair.sleep(self.worker())

    def rest(self) -> None:
        """A worker does all there is for it, then sleeps."""
        place = self.worker()
        while self.pair.grab(place):
            self.pair.end(place, self.pair.handle(0, place), "completed")
        self.pair.sleep(place)

    def end(self) -> None:
        place = self.worker()
        # Mostly its own, at times any.
        handle = self.pair.handle(self.random.randrange(40), self.random.choice((place, place, place, None)))
        for _ in range(self.random.choice((1, 1, 1, 2))):
            self.pair.end(
                place, handle, self.random.choice(ENDS if self.random.random() < 0.7 else DECISIONS)
            )

    def report(self) -> None:
        place = self.worker()
        handle = self.pair.handle(self.random.randrange(40), self.random.choice((place, place, None)))
        # Now and then a whole stream of them.
        for _ in range(self.random.choice((1, 1, 1, 1, 20))):
            self.pair.report(place, handle, self.random.choice(REPORTS))

    def register(self) -> None:
        change = self.random.randrange(16)
        if change < 14:
            self.pair.can_do(self.worker(), self.function(), self.random.choice(TIMEOUTS))
        elif change == 14:
            self.pair.cant_do(self.worker(), self.function())
        else:
            self.pair.reset_abilities(self.worker())

    def leave(self) -> None:
        if self.random.random() < 0.5:
            self.pair.leave_client(self.client())
        else:
            self.pair.leave_worker(self.worker())

    def administer(self) -> None:
        what = self.random.randrange(16)
        if what < 2:
            self.pair.cancel(self.pair.handle(self.random.randrange(20)), what == 1)
        elif what < 4:
            # A worker's job, and its worker, which does not know, reports on it.
            place = self.worker()
            handle = self.pair.handle(0, place)
            self.pair.cancel(handle)
            self.pair.report(place, handle, self.random.choice(REPORTS))
            self.pair.end(place, handle, self.random.choice(ENDS))
        elif what == 4:
            self.pair.create(self.function())
        elif what == 5:
            self.pair.drop(self.function())
        elif what == 6:
            self.pair.set_limits(self.function(), self.random.choice(LIMITS))
        elif what == 7:
            self.pair.set_limits(self.function(), (None, None, None))
        elif what == 8:
            self.pair.pause(self.function(), True)
        elif what < 11:
            self.pair.pause(self.function(), False)
        elif what == 11:
            self.pair.quiet(self.worker(), True)
        elif what == 12:
            self.pair.quiet(self.worker(), False)
        elif what == 13:
            self.pair.cancel_all(self.function())
        else:
            self.pair.limit_runs(self.function(), self.random.choice(RUN_RULES))

    def see_to_failed(self) -> None:
        """What an administrator does with retrying and dead jobs."""
        what = self.random.randrange(8)
        handle = self.pair.failed(self.random.randrange(20))
        if what < 3:
            self.pair.retry(handle)
        elif what == 3:
            self.pair.forget(handle)
        elif what == 4:
            self.pair.kill(handle)
        elif what == 5:
            self.pair.cancel(handle)
        elif what == 6:
            self.pair.retry_all(self.function())
        elif self.random.random() < 0.3:
            self.pair.forget_all(self.function())

    def see_to_schedules(self) -> None:
        choice = self.random.choice
        name, what = choice(SCHEDULES), self.random.randrange(8)
        if what < 4:
            period = choice(PERIODS)
            added = schedule(
                name,
                self.function(),
                period,
                missed=choice(tuple(Missed)),
                overlap=choice(tuple(Overlap)),
                jitter=choice((0.0, 0.0, 4.0, 50.0)),
                missed_window=choice((5.0, 100.0, 600.0)),
                unique=choice((None, None, b"u", b"-", b"")),
                data=choice(DATA),
                enabled=self.random.random() < 0.9,
            )
            self.pair.add_schedule(added, period)
        elif what < 6:
            self.pair.pause_schedule(name, self.random.random() < 0.3)
        elif what == 6:
            self.pair.run_schedule(name)
        elif self.random.random() < 0.3:
            self.pair.remove_schedule(name)

    def pass_time(self) -> None:
        if self.random.random() < 0.03:
            self.pair.set_wall_clock(self.random.choice(CLOCK_STEPS))
        self.pair.advance(self.random.choice(self.pauses))


class ModelTests(SynchronousTestCase):
    def test_chosen_operations(self) -> None:
        # Steps are dear: each compares everything.
        examples = EFFORT.max_examples if LONG else 30
        run_state_machine_as_test(BrokerMachine, settings=settings(EFFORT, max_examples=examples))


class LongWalkTests(SynchronousTestCase):
    """The walks of some policies each, so that they can be walked side by side.

    What must happen in all of them is said where it happens most.
    """

    def walk(self, numbers: range, must_happen: set[str]) -> None:
        """Walk with the policies of these numbers, and see that all of this happens."""
        happened: Counter[str] = Counter()
        for number in numbers:
            for seed in range(4 if LONG else 1):
                steps = 10_000 if LONG else 700
                # The second as if the functions and jobs were more than are seen to in one go.
                for walk in (
                    Walk(POLICIES[number], 1000 * number + seed),
                    Walk(POLICIES[number], 1000 * number + 500 + seed, None, number % 2, 1),
                ):
                    walk.go(steps)
                    happened += walk.pair.model.happened
        self.assertEqual(must_happen - happened.keys(), set())
        self.assertLessEqual(happened.keys(), ALL_THAT_HAPPENS)

    def test_each_order_and_way_to_wake(self) -> None:
        self.walk(range(9), HAPPENS_WITHOUT_RULES)

    def test_limits_of_queues_and_time(self) -> None:
        self.walk(range(9, 14), HAPPENS_WITH_LIMITS)

    def test_retries_results_and_silence(self) -> None:
        self.walk(range(14, len(POLICIES) - 3), HAPPENS_WITH_RETRIES)

    def test_limits_of_runs(self) -> None:
        self.walk(range(len(POLICIES) - 3, len(POLICIES)), HAPPENS_WITH_RUN_LIMITS)
