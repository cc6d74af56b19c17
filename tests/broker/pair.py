"""The broker and the model side by side: each verb goes to both, and both are compared after it.

What is random about a test is chosen elsewhere; here only the comparing is done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

from tests.broker.bench import MAX_RINGS, Bench, WorkerNotes, leftovers, said, uniques_of
from tests.broker.model import (
    FAILURES,
    Full,
    InUse,
    Kept,
    Model,
    ModelEnd,
    ModelJob,
    ModelWorker,
    NotFound,
)
from tests.broker.schedule_model import ScheduleModel
from txgearman.broker.dead_job import DeadFilter, DeadJob, DeadPage
from txgearman.broker.dead_job_administration import Progress
from txgearman.broker.entities import _REMOVED, Client, Worker
from txgearman.broker.handles import number_of
from txgearman.broker.histograms import BOUNDS
from txgearman.broker.inspection import Inspection
from txgearman.broker.interfaces import Follower
from txgearman.broker.job_lookup import JobLookup
from txgearman.broker.job_options import NO_OPTIONS, JobOptions
from txgearman.broker.job_states import OUTCOME_NAMES, PRIORITIES, JobState, Outcome
from txgearman.broker.keyed_queue import KeyedQueue, Waiting
from txgearman.broker.policy import WAKE_PATIENCE, FunctionOrder, Policy, RunRules
from txgearman.broker.result_lookup import FoundResult, ResultLookup
from txgearman.broker.schedule import Schedule, ScheduleDetail
from txgearman.broker.schedules import Schedules
from txgearman.broker.slices import SLICE
from txgearman.broker.timer import LONGEST_NAP
from txgearman.broker.views import FunctionView, JobDetail, JobStatus, JobView
from txgearman.broker.waking import FREE_WALK
from txgearman.errors import (
    FunctionInUse,
    FunctionNotFound,
    JobNotFound,
    QueueFull,
    Refused,
    ScheduleNotFound,
    UniqueInUse,
    UniqueKept,
)

ROUNDING = 1e-6
"""Seconds that adding up floating-point times may be off."""

MEASURED = 2
"""Functions that are told apart in what is measured: fewer than the tests have."""

UNCOMPLETED = tuple((ending, ending.name.lower()) for ending in Outcome)
"""The other ends of a job, and what the model calls them."""

OUTCOMES = {name: OUTCOME_NAMES[ending] for ending, name in UNCOMPLETED} | {"completed": "completed", "": ""}
"""What users call what the model calls so."""


PAGES = (3, 10, 100)
"""How many jobs a page of them has at most, in turn. In a long walk there are some 20."""

WAITS_FOR_ITS_TIME = frozenset({"held", "retrying"})
"""The states in which a job waits for no worker yet."""

REFUSALS: dict[type[Exception], type[Refused]] = {
    NotFound: JobNotFound,
    InUse: UniqueInUse,
    Full: QueueFull,
    Kept: UniqueKept,
}
"""The refusals of the model, and those of the broker."""


class Alarm:
    """An `Alarm` that calls `ring_in`."""

    def __init__(self, ring_in: Callable[[float], None]) -> None:
        self.ring_in = ring_in


class Pair:
    """A broker and its model, with connections in numbered places. Each place always has a peer: one
    that leaves is followed by a new one.

    `free_walk` and `slice_size` are there to be small, where few functions and jobs are to stand for many.
    """

    def __init__(
        self,
        policy: Policy,
        clients: int = 4,
        workers: int = 5,
        follower: Follower | None = None,
        free_walk: int = FREE_WALK,
        slice_size: int = SLICE,
    ) -> None:
        self.bench = Bench(policy, MEASURED, follower=follower)
        self.broker = self.bench.broker
        self.inspection = self.bench.inspection
        self.administration = self.bench.administration
        self.broker.waking.free_walk = free_walk
        self.broker.slices.size = slice_size
        self.model = Model(policy, self.bench.woken, MEASURED, free_walk, slice_size)
        self.schedules = Schedules(
            self.broker, lambda: self.bench.now, self.bench.wall, Alarm(self.set_schedule_alarm)
        )
        self.modelled_schedules = ScheduleModel(self.model)
        self.schedules_ring_at: float | None = None
        self.names = count()
        self.clients: list[tuple[str, Client]] = []
        self.workers: list[tuple[str, Worker]] = []
        self.seen: list[bytes] = []  # every handle that a client was ever told, the newest last
        self.wall_was_set = False
        # Whether the clock was set since the schedules have looked at it: then they may be late.
        self.schedules_see_other_time = False
        self.comparisons = count()
        for _ in range(clients):
            self.clients.append(self.new_client())
        for _ in range(workers):
            self.workers.append(self.new_worker())
        self.meet()

    def new_client(self) -> tuple[str, Client]:
        return f"client{next(self.names)}", self.bench.client()

    def new_worker(self) -> tuple[str, Worker]:
        number = next(self.names)
        name, hears_cancel = f"worker{number}", bool(number % 2)
        self.model.workers[name] = ModelWorker(name, hears_cancel=hears_cancel)
        return name, self.bench.worker(name, hears_cancel=hears_cancel)

    def meet(self) -> None:
        """Tell the model what time it is."""
        self.model.now, self.model.wall = self.bench.now, self.bench.wall()

    def settle(self) -> None:
        """Let the broker see to all that a peer has left behind."""
        while self.broker.slices:
            self.broker.slices.go_on()

    def both(
        self,
        real: Callable[[], Any],
        refusals: type[Refused] | tuple[type[Refused], ...],
        modelled: Callable[[], Any],
        full: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        """Do the same on both sides; either both refuse for the same reason or none does."""
        self.meet()
        refused: Refused | None = None
        expected: type[Refused] | None = None
        try:
            real()
        except refusals as refusal:
            refused = refusal
        try:
            modelled()
        except full as refusal:
            expected = REFUSALS[type(refusal)]
        same = expected is None if refused is None else expected is not None and isinstance(refused, expected)
        assert same, f"refused: {refused!r}, should be: {expected}"
        self.compare()

    # -- clients --------------------------------------------------------------------------------

    def submit(
        self,
        place: int,
        function: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        background: bool,
        delay: float | None,
        options: JobOptions | None = None,
    ) -> None:
        name, client = self.clients[place]
        run_at = None if delay is None else self.bench.wall() + delay
        self.both(
            lambda: self.broker.submit(
                client, function, unique, data, priority, background, None, run_at, options
            ),
            (QueueFull, UniqueKept),
            lambda: self.model.submit(name, function, unique, data, priority, background, run_at, options),
            (Full, Kept),
        )

    def leave_client(self, place: int) -> None:
        name, client = self.clients[place]
        self.broker.leave_client(client)
        self.settle()
        self.model.leave_client(name)
        assert not client.jobs
        self.clients[place] = self.new_client()
        self.compare()

    # -- workers --------------------------------------------------------------------------------

    def worker(self, place: int) -> tuple[Worker, ModelWorker]:
        name, worker = self.workers[place]
        self.meet()
        return worker, self.model.workers[name]

    def can_do(self, place: int, function: bytes, timeout: float | None) -> None:
        worker, modelled = self.worker(place)
        self.broker.can_do(worker, function, timeout)
        self.settle()
        self.model.can_do(modelled, function, timeout)
        self.compare()

    def cant_do(self, place: int, function: bytes) -> None:
        worker, modelled = self.worker(place)
        self.broker.cant_do(worker, function)
        self.settle()
        self.model.cant_do(modelled, function)
        self.compare()

    def reset_abilities(self, place: int) -> None:
        worker, modelled = self.worker(place)
        self.broker.reset_abilities(worker)
        self.settle()
        self.model.reset_abilities(modelled)
        self.compare()

    def grab(self, place: int) -> bool:
        worker, modelled = self.worker(place)
        job = self.broker.grab(worker)
        self.settle()
        expected = self.model.grab(modelled)
        assert (job and job.handle) == (expected and expected.handle)
        if job is not None and expected is not None:
            assert (job.function.name, job.unique, job.data) == (
                expected.function,
                expected.unique,
                expected.data,
            )
        self.compare()
        return job is not None

    def sleep(self, place: int) -> None:
        worker, modelled = self.worker(place)
        self.broker.sleep(worker)
        self.settle()
        self.model.sleep(modelled)
        self.compare()

    def leave_worker(self, place: int) -> None:
        worker, modelled = self.worker(place)
        self.broker.leave_worker(worker)
        self.settle()
        self.model.leave_worker(modelled)
        self.workers[place] = self.new_worker()
        self.compare()

    def handle(self, number: int, place: int | None = None) -> bytes:
        """A handle: one of a job of the worker at `place` if it has any, else any that ever was."""
        handles = [] if place is None else list(self.workers[place][1].jobs)
        if not handles:
            handles = self.seen or [b"H:nobody:1"]
        return handles[-1 - number % len(handles)]

    def failed(self, number: int) -> bytes:
        """A handle: one of a job that is retrying or dead if there are any, else any that ever was."""
        handles = [job.handle for job in self.model.jobs if job.state == "retrying"]
        handles += [end.job.handle for end in self.model.dead]
        return handles[number % len(handles)] if handles else self.handle(number)

    def report(self, place: int, handle: bytes, what: str) -> None:
        worker, modelled = self.worker(place)
        real, values = {
            "data": (self.broker.report_data, (b"part",)),
            "warning": (self.broker.report_warning, (b"careful",)),
            "status": (self.broker.report_status, (b"3", b"14")),
            "heartbeat": (self.bench.decisions.heartbeat, ()),
        }[what]
        self.both(
            lambda: real(worker, handle, *values),  # type: ignore[operator]
            JobNotFound,
            lambda: self.model.report(modelled, handle, what, *values),
            NotFound,
        )

    def end(self, place: int, handle: bytes, what: str) -> None:
        worker, modelled = self.worker(place)
        real, values = {
            "completed": (self.broker.complete, (b"result",)),
            "failed": (self.broker.fail, ()),
            "exception": (self.broker.exception, (b"raised",)),
            "fail": (self.bench.decisions.fail, (b"why",)),
            "retry": (self.bench.decisions.retry, (None, True, b"again")),
            "retry soon": (self.bench.decisions.retry, (0.0, True, b"soon")),
            "put off": (self.bench.decisions.retry, (0.4, False, b"not yet")),
            "reject": (self.bench.decisions.reject, (b"never",)),
        }[what]
        name = {"retry soon": "retry", "put off": "retry"}.get(what, what)
        self.both(
            lambda: real(worker, handle, *values),  # type: ignore[operator]
            JobNotFound,
            lambda: self.model.report_end(modelled, handle, name, *values),
            NotFound,
        )

    # -- administration and time ----------------------------------------------------------------

    def cancel(self, handle: bytes, force: bool = False) -> None:
        self.both(
            lambda: self.broker.cancel(handle, force),
            JobNotFound,
            lambda: self.model.cancel(handle, force),
            NotFound,
        )
        for place, (name, _) in enumerate(self.workers):
            if self.model.workers[name].disconnected:
                self.leave_worker(place)

    def tell_both(
        self, real: Callable[[Callable[[Refused | None], None]], None], modelled: Callable[[], None]
    ) -> None:
        """Do the same on both sides, where the broker tells by a call what came of it."""
        self.meet()
        answers: list[Refused | None] = []
        real(answers.append)
        expected: type[Refused] | None = None
        try:
            modelled()
        except (NotFound, InUse, Full) as refusal:
            expected = REFUSALS[type(refusal)]
        (answer,) = answers
        assert expected is (None if answer is None else type(answer)), (expected, answer)
        self.compare()

    def retry(self, handle: bytes) -> None:
        self.tell_both(lambda tell: self.bench.dead.retry(handle, tell), lambda: self.model.retry(handle))

    def forget(self, handle: bytes) -> None:
        self.tell_both(lambda tell: self.bench.dead.forget(handle, tell), lambda: self.model.forget(handle))

    def kill(self, handle: bytes) -> None:
        self.both(
            lambda: self.bench.dead.kill(handle), JobNotFound, lambda: self.model.kill(handle), NotFound
        )

    def retry_all(self, function: bytes) -> None:
        """Retry all dead jobs of a function."""
        self.meet()
        progress: list[Progress | Refused] = []
        self.bench.dead.retry_some(DeadFilter(function), None, len(self.model.dead) + 1, progress.append)
        done = skipped = 0
        for end in self.model.dead_page(function):
            try:
                self.model.retry(end.job.handle)
                done += 1
            except (InUse, Full):
                skipped += 1
        assert progress == [Progress(done, skipped, None)]
        self.compare()

    def forget_all(self, function: bytes) -> None:
        """Forget all dead jobs of a function."""
        self.meet()
        progress: list[Progress | Refused] = []
        self.bench.dead.forget_some(DeadFilter(function), None, len(self.model.dead) + 1, progress.append)
        dead = self.model.dead_page(function)
        for end in dead:
            self.model.dead.remove(end)
        assert progress == [Progress(len(dead), 0, None)]
        self.compare()

    def create(self, function: bytes) -> None:
        self.administration.create_function(function)
        self.model.create(function)
        self.compare()

    def drop(self, function: bytes) -> None:
        error: type[Exception] | None = None
        try:
            self.administration.drop_function(function)
        except (FunctionInUse, FunctionNotFound) as caught:
            error = type(caught)
        if function not in self.model.functions:
            assert error is FunctionNotFound
        elif self.model.in_use(function):
            assert error is FunctionInUse
        else:
            assert error is None
            self.model.drop(function)
        self.compare()

    def set_limits(self, function: bytes, limits: tuple[int | None, ...]) -> None:
        self.administration.set_limits(function, limits)
        self.model.create(function)
        self.model.functions[function] = limits
        self.compare()

    def pause(self, function: bytes, pause: bool) -> None:
        change = self.administration.pause_function if pause else self.administration.resume_function
        try:
            change(function)
        except FunctionNotFound:
            assert function not in self.model.functions
        else:
            assert function in self.model.functions
            if pause:
                self.model.pause(function)
            else:
                self.model.resume(function)
        self.compare()

    def limit_runs(self, function: bytes, rules: RunRules) -> None:
        self.meet()
        # No two functions come due at the same moment: which of them is first is not predicted.
        rules = replace(rules, start_rate=rules.start_rate * (1 + function[0] / 1000))
        self.administration.limit_runs(function, rules)
        self.settle()
        self.model.limit_runs(function, rules)
        self.compare()

    def quiet(self, place: int, quiet: bool) -> None:
        worker, modelled = self.worker(place)
        self.administration.quiet(worker, quiet)
        self.settle()
        self.model.quiet(modelled, quiet)
        self.compare()

    def cancel_all(self, function: bytes) -> None:
        """Cancel all jobs of a function, a chunk of handles at a time."""
        self.meet()
        jobs = [job.handle for job in self.model.jobs if job.function == function]
        # A job that was dead may be found anywhere.
        jobs.sort(key=number_of)
        after: int | None = 0
        try:
            while after is not None:
                after = self.administration.cancel_some(function, after, self.inspection.last_number)
        except FunctionNotFound:
            assert function not in self.model.functions
        for handle in jobs:
            self.model.cancel(handle)
        self.compare()

    def advance(self, seconds: float) -> None:
        end = self.bench.now + seconds
        rings = 0
        while self.schedules_ring_at is not None and self.schedules_ring_at <= end:
            when = self.schedules_ring_at
            self.bench.advance(max(0.0, when - self.bench.now), self.ticked)
            # The sum may be a little less.
            self.bench.now = max(self.bench.now, when)
            self.tick_schedules()
            rings += 1
            assert rings < MAX_RINGS, "the alarm rings for ever"
        self.bench.advance(end - self.bench.now, self.ticked)
        self.meet()
        self.compare()
        if not self.schedules_see_other_time:
            wall = self.bench.wall()
            late = [each for each in self.modelled_schedules.schedules.values() if (each.due or wall) < wall]
            assert not late, f"the alarm has not rung: {late}"

    def set_schedule_alarm(self, delay: float) -> None:
        self.schedules_ring_at = self.bench.now + delay

    def tick_schedules(self) -> None:
        self.schedules_ring_at, self.schedules_see_other_time = None, False
        self.schedules.tick()
        self.meet()
        self.modelled_schedules.tick()
        self.compare()

    def add_schedule(self, schedule: Schedule, period: int) -> None:
        """Add a schedule that ticks each `period` seconds, or change the one of its name."""
        self.meet()
        self.schedules.add(schedule)
        self.modelled_schedules.add(schedule, period)
        self.compare()

    def remove_schedule(self, name: bytes) -> None:
        if name in self.modelled_schedules.schedules:
            self.schedules.remove(name)
            del self.modelled_schedules.schedules[name]
        else:
            with suppress(ScheduleNotFound):
                self.schedules.remove(name)
                raise AssertionError(name)
        self.compare()

    def pause_schedule(self, name: bytes, paused: bool) -> None:
        self.meet()
        if name in self.modelled_schedules.schedules:
            self.schedules.pause(name, paused)
            self.modelled_schedules.pause(name, paused)
            self.compare()

    def run_schedule(self, name: bytes) -> None:
        self.meet()
        if name in self.modelled_schedules.schedules:
            told: list[bytes | Refused] = []
            self.schedules.run(name, told.append)
            expected = self.modelled_schedules.run(name)
            assert [None if isinstance(each, Refused) else each for each in told] == [expected]
            self.compare()

    def ticked(self) -> None:
        self.wall_was_set = False
        self.meet()
        self.model.tick()
        self.compare()

    def set_wall_clock(self, seconds: float) -> None:
        self.bench.wall_ahead += seconds
        self.wall_was_set = self.schedules_see_other_time = True
        self.meet()

    def finish(self) -> None:
        """Let everybody leave and all jobs be done: nothing may be left."""
        for schedule in list(self.modelled_schedules.schedules):
            self.remove_schedule(schedule)
        for place in range(len(self.clients)):
            self.leave_client(place)
        for place in range(len(self.workers)):
            self.leave_worker(place)
        for function in list(self.model.functions):
            self.pause(function, False)
            # It would let so few begin.
            self.limit_runs(function, replace(self.model.runs[function], start_rate=0.0))
            self.can_do(0, function, None)
        for _ in range(3):
            while self.grab(0):
                self.end(0, self.handle(0, 0), "completed")
            # Longer than any job is held, however the wall clock was set.
            self.advance(20_000.0)
        self.leave_worker(0)
        assert leftovers(self.broker) == {}
        for function in list(self.model.functions):
            self.drop(function)
        for function in {end.job.function for end in self.model.dead}:
            self.forget_all(function)
        assert not self.broker.functions.by_name

    # -- comparing ------------------------------------------------------------------------------

    def compare(self) -> None:
        self.meet()
        assert not self.bench.woken, f"woken for nothing: {self.bench.woken}"
        self.compare_news()
        self.compare_views()
        self.compare_details()
        self.compare_measures()
        jobs = self.live_jobs()
        self.compare_statuses(jobs)
        self.compare_schedules()
        self.compare_dead()
        self.compare_kept()
        self.compare_ends(jobs)
        self.compare_results(jobs)
        self.compare_indexes()
        self.check_kinds()
        self.check_queues()
        self.check_sleepers()
        self.check_alarm()

    def compare_kept(self) -> None:
        """As many uniques are kept, for the same jobs and as long."""
        kept = self.broker.ended_jobs.kept_uniques
        found = [each[2:] for uniques in kept.by_function.values() for each in uniques.values()]
        assert sorted(found) == sorted(self.model.kept.values())
        assert len(kept) == len(self.model.kept_times)

    def compare_news(self) -> None:
        """Every client was told what it should have been, in that order, and nothing else."""
        for name, client in self.clients:
            told = said(client)
            assert told == self.model.told[name], (name, told, self.model.told[name])
            self.seen.extend(note[1] for note in told if note[0] == "created")
        self.model.told.clear()

    def compare_schedules(self) -> None:
        for each in self.modelled_schedules.schedules.values():
            expected = ScheduleDetail(
                each.schedule,
                each.paused,
                each.due,
                each.last_tick,
                each.last_job,
                each.lateness,
                each.ticks,
                each.skipped,
                each.missed,
                each.refused,
            )
            assert self.schedules.detail(each.schedule.name) == expected, (each, expected)
        assert self.schedules.names() == sorted(self.modelled_schedules.schedules)

    def compare_views(self) -> None:
        jobs = self.model.jobs
        assert self.broker.total == len(jobs)
        shown = list(self.inspection.jobs())
        assert {view.handle: view for view in shown} == {
            job.handle: JobView(
                job.handle, job.function, job.unique, job.losses, job.background, job.state == "running"
            )
            for job in jobs
        }
        # A job that was dead is listed anywhere.
        first = [job.handle for job in jobs if not job.revived]
        assert [view.handle for view in shown if view.handle in first] == first
        views = {view.name: view for view in self.inspection.functions()}
        assert views.keys() == self.model.functions.keys()
        for name, view in views.items():
            mine = [job for job in jobs if job.function == name]
            idle = [job.priority for job in mine if job.state != "running"]
            workers = sum(name in worker.abilities for worker in self.model.workers.values())
            waiting = (idle.count(0), idle.count(1), idle.count(2))
            assert view == FunctionView(name, len(mine), len(mine) - len(idle), workers, waiting)

    def compare_details(self) -> None:
        """What is shown of each job and function, page by page."""
        broker, model = self.broker, self.model
        turn = next(self.comparisons)
        limit = PAGES[turn % len(PAGES)]
        pages = []
        after: int | None = 0
        while after is not None:
            page = Inspection(broker).job_page(after, limit, lambda _job: True)
            pages.extend(page.jobs)
            after = page.next
        jobs = sorted(model.jobs, key=lambda job: number_of(job.handle))
        assert [detail.handle for detail in pages] == [job.handle for job in jobs]
        workers: dict[str | None, Worker] = dict(self.workers)
        if pages:
            # One by its handle, each in its turn: pages show them by the same code.
            detail = pages[turn % len(pages)]
            assert detail == Inspection(broker).job_detail(detail.handle)
        for detail, job in zip(pages, jobs, strict=True):
            shown = (detail.function, detail.unique, detail.losses, detail.progress, detail.clients)
            assert shown == (job.function, job.unique, job.losses, job.progress, len(job.watchers))
            assert (detail.worker, detail.state.value) == (
                workers.get(job.worker),
                {"held": "scheduled"}.get(job.state, job.state),
            )
            failures = (detail.attempts, detail.outcome_name, detail.error)
            assert failures == (job.attempts, OUTCOMES[job.shown_failure], job.error)
            if job.state in WAITS_FOR_ITS_TIME:
                assert detail.seconds is None
                assert abs((detail.run_in or 0.0) - (job.wakes_at - model.wall)) < ROUNDING
                assert detail.next_run == job.wakes_at
            else:
                assert detail.seconds is not None or self.model.rows[job.function] is not None
                assert abs((detail.seconds or 0.0) - (model.now - job.since)) < ROUNDING
        functions = list(Inspection(broker).function_details())
        if functions:
            function = functions[turn % len(functions)]
            assert function == Inspection(broker).function_detail(function.name)
        for function in functions:
            mine = [job for job in model.jobs if job.function == function.name]
            assert function.total == len(mine)
            assert sum(function.queued) == sum(job.state == "queued" for job in mine)
            assert sum(function.scheduled) == sum(job.state in WAITS_FOR_ITS_TIME for job in mine)
            assert function.paused == (function.name in model.paused)
            assert function.limits == model.functions[function.name]
            waiting = model.next_of_keys(function.name)
            first = [
                next(job for job in waiting if job.priority == priority)
                for priority in {job.priority for job in waiting}
            ]
            assert (function.oldest is None) == (not first)
            oldest = max((model.now - job.since for job in first), default=0.0)
            assert abs((function.oldest or 0.0) - oldest) < ROUNDING

    def compare_measures(self) -> None:
        """Each row has what was counted of its functions one by one, and their times in their buckets."""
        model = self.model
        rows = {row.name: row for row in self.inspection.measures()}
        assert rows.keys() == {None, *(name for name in model.rows.values() if name is not None)}
        for name, row in rows.items():
            counts = row.counts
            mine = [job for job in model.jobs if model.rows[job.function] == name]
            counted = {
                "submitted": counts.submitted,
                "completed": counts.completed,
                **{what: counts.uncompleted[ending] for ending, what in UNCOMPLETED},
                "joined": counts.coalesced,
                "refused": counts.refused,
                "requeued": counts.requeued,
            }
            assert counted == {what: model.counted[name, what] for what in counted}, name
            assert counts.submitted - counts.ended == len(mine)
            assert counts.running == sum(job.state == "running" for job in mine)
            assert counts.scheduled == sum(job.state in WAITS_FOR_ITS_TIME for job in mine)
            queued = [job.priority for job in mine if job.state == "queued"]
            assert counts.waiting == [queued.count(priority) for priority in range(PRIORITIES)]
            assert counts.workers == sum(
                model.rows[function] == name
                for worker in model.workers.values()
                for function in worker.abilities
            )
            for what, durations in (("waited", row.waited), ("ran", row.ran)):
                times = model.timed[name, what]
                assert durations.cumulated == (
                    *(bisect_right(times.ordered, bound) for bound in BOUNDS),
                    len(times.ordered),
                )
                assert abs(durations.sum - times.sum) < ROUNDING * (1 + len(times.ordered))

    def live_jobs(self) -> dict[bytes, ModelJob]:
        """The model's live jobs, by all of their handles."""
        jobs: dict[bytes, ModelJob] = {}
        for job in self.model.jobs:
            for handle in (job.handle, *(handle for _, handle in job.watchers)):
                jobs.setdefault(handle, job)
        return jobs

    def compare_statuses(self, jobs: dict[bytes, ModelJob]) -> None:
        for handle in {*jobs, *self.seen[-5:]}:
            assert self.inspection.status(handle) == _status(jobs.get(handle)), handle
        for unique in {b"", b"-", *(job.unique for job in self.model.jobs)}:
            assert self.inspection.status_by_unique(unique) == _status(self.model.by_unique(unique)), unique

    def compare_dead(self) -> None:
        """The dead jobs, in the order in which they are listed, and who was told that they died."""
        pages: list[DeadPage | Refused] = []
        self.bench.dead.page(DeadFilter(), None, 1000, True, pages.append)
        assert pages == [DeadPage([_dead(end) for end in self.model.dead_page()], None)]
        dead = self.bench.dead
        assert dead.evicted == self.model.evicted
        assert dead.counts == Counter(end.job.function for end in self.model.dead)
        assert self.bench.deaths == [_dead(end) for end in self.model.deaths]
        self.bench.deaths.clear()
        self.model.deaths.clear()
        for name, function in self.broker.functions.by_name.items():
            retrying = [job for job in self.model.jobs if (job.function, job.state) == (name, "retrying")]
            assert function.retrying == len(retrying)

    def compare_ends(self, jobs: dict[bytes, ModelJob]) -> None:
        """What is known of the latest jobs, whether they live, are dead, or have ended."""
        dead = {end.job.handle for end in self.model.dead}
        for handle in self.seen[-5:]:
            found: list[JobDetail | Refused] = []
            JobLookup(self.broker).find(handle, found.append)
            (detail,) = found
            job = jobs.get(handle)
            remembered = self.model.policy.history or handle in dead
            end = self.model.ended.get(handle) if remembered else None
            if job is None and end is None:
                # It is not remembered, or the handle is of one more submit of a job that has ended.
                if self.model.find_result(handle) is None:
                    assert isinstance(detail, JobNotFound)
                else:
                    # Its result alone shows that there was such a job, and that it was completed.
                    assert isinstance(detail, JobDetail)
                    assert (detail.shown_state, detail.outcome_name) == ("ended", "completed")
                continue
            assert isinstance(detail, JobDetail)
            if job is not None:
                state = {"held": "scheduled"}.get(job.state, job.state)
                how, worker = job.shown_failure, job.worker or ""
            else:
                assert end is not None
                job, how, worker = end.job, end.how, end.worker
                state = "dead" if handle in dead else "ended"
                assert detail.ended == end.ended
            shown = (detail.shown_state, detail.outcome_name, detail.label, detail.attempts, detail.error)
            assert shown == (state, OUTCOMES[how], worker.encode(), job.attempts, job.error)
            assert (detail.losses, detail.submitted) == (job.losses, job.submitted)

    def compare_results(self, jobs: dict[bytes, ModelJob]) -> None:
        """What is said of the results of the latest jobs."""
        dead = {end.job.handle for end in self.model.dead}
        for handle in self.seen[-5:]:
            told: list[FoundResult | Refused] = []
            ResultLookup(self.broker).find(handle, told.append)
            (found,) = told
            assert isinstance(found, FoundResult)
            job, kept = jobs.get(handle), self.model.find_result(handle)
            end = self.model.ended.get(handle) if self.model.policy.history or handle in dead else None
            if job is not None:
                expected = ("pending", {"held": "scheduled"}.get(job.state, job.state), b"")
            elif kept is not None:
                expected = ("too-large" if kept.data is None else "completed", "", kept.data or b"")
            elif end is None:
                expected = ("unknown", "", b"")
            elif end.how in FAILURES:
                expected = ("failed", OUTCOMES[end.how], end.job.error)
            else:
                expected = ("gone", OUTCOMES[end.how], b"")
            assert (found.state.value, found.reason, found.data) == expected, (handle, found, expected)
        weight = sum(result.weight for result in self.model.results)
        assert self.broker.ended_jobs.result_store.counts() == (len(self.model.results), weight)

    def compare_indexes(self) -> None:
        """Nothing is missing from the broker's indexes, and nothing is left in them."""
        model, broker = self.model, self.broker
        seconds = {handle for job in model.jobs for _, handle in job.watchers}
        assert dict(broker.life.handles).keys() == {job.handle for job in model.jobs} | seconds
        keys = [job.key for job in model.jobs if job.key is not None]
        duplicates = broker.life.duplicates
        assert uniques_of(duplicates.by_unique).keys() == {name for kind, name in keys if kind == "unique"}
        assert uniques_of(duplicates.by_data).keys() == {name for kind, name in keys if kind == "data"}
        assert len(broker.life.timeouts) == len(model.limited)
        assert len(broker.life.epochs) == len(model.held)
        assert len(broker.life.expiries) == len(model.expiring)
        for name, client in self.clients:
            assert client.jobs.keys() == {
                handle for job in model.jobs for who, handle in job.watchers if who == name
            }
        for name, worker in self.workers:
            modelled, notes = model.workers[name], worker.connection
            assert isinstance(notes, WorkerNotes)
            assert (sorted(notes.cancelled), notes.disconnected) == (
                sorted(modelled.told),
                modelled.disconnected,
            )
            notes.cancelled.clear()
            modelled.told.clear()
            assert (worker.cancelled or {}).keys() == set(modelled.cancelled)
            assert worker.jobs.keys() == {job.handle for job in model.running(name)}
            for job in worker.jobs.values():
                assert job.worker is worker
                assert job.state is JobState.RUNNING
        assert [worker.connection.name for worker in broker.waking.woken] == [  # type: ignore[attr-defined]
            worker.name for worker in model.awaited
        ]

    def check_kinds(self) -> None:
        """What `AbilitySet` promises: an entry may be stale in one direction only."""
        shared = self.broker.waking.ability_sets
        joined = [worker.ability_set for _, worker in self.workers if worker.ability_set is not None]
        kept = [worker.own_set for _, worker in self.workers if worker.own_set is not None]
        kinds = {id(kind): kind for kind in (*joined, *kept)}
        assert {id(kind) for kind in shared.values()} == {key for key, kind in kinds.items() if kind.kind}
        for key, kind in shared.items():
            assert kind.kind is key
            assert list(key.functions) == kind.functions
        for _, worker in self.workers:
            assert worker.ability_set is None or worker.own_set is None
            own_or_joined = worker.ability_set or worker.own_set
            if own_or_joined is not None:
                assert own_or_joined.functions == ([] if worker.quiet else list(worker.abilities))
        for kind in kinds.values():
            functions = set(kind.functions)
            assert kind.members == sum(kind is other for other in joined)
            assert kind.members == 1 or (kind in kept if kind.kind is None else kind.members)
            removed = 0
            for level, heap in enumerate(kind._ready):
                ready = [slot.function for _, slot in heap if slot.turn != _REMOVED]
                removed += len(heap) - len(ready)
                assert len(set(ready)) == len(ready)
                unready = {function for function in functions if kind in function.unready[level]}
                assert unready.isdisjoint(ready)
                assert unready | set(ready) == functions
                assert not any(self.has_job(function.name, level) for function in unready)
            assert kind._removed == removed
            resting = {function for function in functions if kind in function.resting}
            assert resting.isdisjoint(kind._forgotten)
            assert resting | set(kind._forgotten) == functions
            assert len(resting) == len(functions) or not kind.sleepers
        for function in self.broker.functions.by_name.values():
            for listed in (*function.unready, function.resting):
                assert all(id(kind) in kinds and function in kind.functions for kind in listed)

    def has_job(self, function: bytes, level: int) -> bool:
        by_priority = self.model.policy.order is FunctionOrder.PRIORITY
        return any(
            (job.priority == level or not by_priority) and self.model.may_run(job)
            for job in self.model.next_of_keys(function)
        )

    def check_queues(self) -> None:
        """Each queue holds the waiting jobs in their order, and counts those gone from its middle."""
        for name, function in self.broker.functions.by_name.items():
            for priority, queue in enumerate(function._queues):
                waiting = [job.handle for job in queue if job.state is JobState.QUEUED]
                if function.keyed_queue is not None:
                    assert not queue
                    waiting = self.keyed_waiting(function.keyed_queue, priority)
                assert waiting == [
                    job.handle for job in self.model.queue if (job.function, job.priority) == (name, priority)
                ]
                assert function.waiting[priority] == len(waiting)
                if function.keyed_queue is None:
                    assert function._gone[priority] == len(queue) - len(waiting)
            if function.run_limits is not None:
                has_job = any(function.has_job(level) for level in range(len(function.unready)))
                assert has_job == (self.model.startable(name) > 0)

    def keyed_waiting(self, keyed_queue: KeyedQueue[Any], priority: int) -> list[bytes]:
        """The jobs of a priority that wait, whatever their keys are. Each key is found by its first job, if
        that may run."""
        waiting: list[Waiting[Any]] = []
        for name, key in keyed_queue._keys.items():
            jobs = [each.order for each in key.live()]
            assert jobs == sorted(jobs)
            assert key.queued == len(jobs)
            assert key.running or jobs, name
            assert (key.listed == jobs[0]) if key.ready else (key.listed == -1)
            assert key.listed == -1 or keyed_queue._listed[jobs[0] >> 50][key.listed] is key
            waiting += key.live()
        listed = sum(map(len, keyed_queue._listed))
        assert listed == sum(key.listed != -1 for key in keyed_queue._keys.values())
        waiting.sort(key=lambda each: each.order)
        return [each.job.handle for each in waiting if each.job.priority == priority]

    def check_sleepers(self) -> None:
        """While somebody sleeps who could do a waiting job, somebody else is on the way to do it."""
        model = self.model
        for function in model.functions:
            if model.able_sleepers(function) and function not in model.paused:
                waiting = model.startable(function)
                coming = [worker for worker in model.awaited if worker.woken_for == function]
                assert len(coming) >= waiting, f"{waiting} jobs of {function!r}, {len(coming)} woken"
        for worker in model.awaited:
            assert worker.woken_at + WAKE_PATIENCE >= model.now - ROUNDING

    def check_alarm(self) -> None:
        """The alarm rings no later than something is due."""
        model = self.model
        due = [job.leaves_at for job in model.limited]
        due += [worker.woken_at + WAKE_PATIENCE for worker in model.awaited]
        if model.held:
            due.append(model.now + LONGEST_NAP)
            if not self.wall_was_set:
                due += [model.now + job.wakes_at - model.wall for job in model.held]
        if model.expiring:
            due.append(model.now + LONGEST_NAP)
            if not self.wall_was_set:
                due += [model.now + job.expires_at - model.wall for job in model.expiring]
        if due:
            assert self.bench.rings_at is not None
            assert self.bench.rings_at <= min(due) + ROUNDING


def _dead(end: ModelEnd) -> DeadJob:
    job = end.job
    return DeadJob(
        number=number_of(job.handle),
        handle=job.handle,
        function=job.function,
        unique=job.unique,
        data=job.data,
        priority=job.priority,
        reducer=None,
        submitted=job.submitted,
        run_at=job.run_at,
        ended=end.ended,
        attempts=job.attempts,
        losses=job.losses,
        outcome=next(ending for ending, name in UNCOMPLETED if name == end.how),
        error=job.error,
        worker=end.worker.encode(),
        size=len(job.data),
        attributes=None if job.options == NO_OPTIONS else job.options.encode(),
    )


def _status(job: ModelJob | None) -> JobStatus:
    if job is None:
        return JobStatus()
    return JobStatus(True, job.state == "running", *job.progress, len(job.watchers))
