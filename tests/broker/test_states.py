"""The tables of states, held against the real broker: every state with every event."""

from __future__ import annotations

import contextlib
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.bench import Bench, KeeperNotes
from txgearman.broker.entities import Client, Worker
from txgearman.broker.job_states import (
    JOB_TRANSITIONS,
    WORKER_TRANSITIONS,
    JobEvent,
    JobState,
    WorkerEvent,
    WorkerState,
)
from txgearman.broker.policy import FunctionRules, Policy
from txgearman.errors import JobNotFound, NotSaved

AHEAD: Final = 10.0
"""Seconds until a scheduled job is due."""

EXPIRES: Final = AHEAD - 1
"""Seconds after which a job expires that no worker has got."""

FOREGROUND: Final = (JobEvent.ABANDONED, JobEvent.STOPPED, JobEvent.STORED_DEEP)
"""Events that foreground jobs are tried with: only these can be abandoned, and with an empty memory others
do not get into a queue."""


class JobScene:
    """A job in a state, and what may happen to it."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        # A backoff longer than what the other scenes wait, and one run that may fail more than those that do.
        attempts = 2 if JobState.RETRYING in (state, JOB_TRANSITIONS.get((state, event))) else None
        expires = EXPIRES if event is JobEvent.EXPIRED else None
        rules = FunctionRules(attempts=attempts, backoff=AHEAD, retry_online=True, expires=expires)
        policy = Policy(
            handle_prefix=b"H:t",
            functions=((b"f", rules),),
            job_retries=1 if event is JobEvent.LAST_WORKER_LOST else -1,
            in_memory=0 if event is JobEvent.STORED_DEEP else 100,
        )
        self.store = KeeperNotes()
        self.bench = Bench(policy, job_store=self.store)
        self.broker = self.bench.broker
        self.client: Client = self.bench.client()
        self.worker: Worker = self.bench.worker("w", b"f", hears_cancel=event is JobEvent.STOPPED)
        background = state is JobState.SAVING or event not in FOREGROUND
        later = state is JobState.SCHEDULED or event is JobEvent.STORED_AHEAD
        run_at = self.bench.wall() + AHEAD if later else None
        self.broker.submit(self.client, b"f", b"", b"data", background=background, run_at=run_at)
        ((_, self.job),) = list(self.broker.life.handles)
        self.reach(state, background)

    def reach(self, state: JobState, background: bool) -> None:
        if state is JobState.SAVING:
            return
        if background:
            self.bench.answers.saved(self.job)
        if state is not JobState.SCHEDULED and self.job.state is JobState.SCHEDULED:
            self.bench.advance(AHEAD)
        if state in (JobState.RUNNING, JobState.GONE):
            assert self.broker.grab(self.worker) is self.job
        if state is JobState.RETRYING:
            assert self.broker.grab(self.worker) is self.job
            self.broker.fail(self.worker, self.job.handle)
        if state is JobState.GONE:
            self.broker.complete(self.worker, self.job.handle, b"")

    def happen(self, event: JobEvent) -> JobState:
        {
            JobEvent.STORED: self.stored,
            JobEvent.STORED_AHEAD: self.stored,
            JobEvent.STORED_DEEP: self.stored,
            JobEvent.NOT_STORED: lambda: self.bench.answers.not_saved(self.job, NotSaved()),
            JobEvent.DUE: lambda: self.bench.advance(AHEAD),
            JobEvent.GRABBED: lambda: self.broker.grab(self.bench.worker("other", b"f")),
            JobEvent.REPORTED: self.reported,
            JobEvent.RUN_FAILED: self.failed,
            JobEvent.EXPIRED: lambda: self.bench.advance(EXPIRES),
            JobEvent.WORKER_LOST: lambda: self.broker.leave_worker(self.worker),
            JobEvent.LAST_WORKER_LOST: lambda: self.broker.leave_worker(self.worker),
            JobEvent.CANCELLED: self.cancelled,
            JobEvent.ABANDONED: lambda: self.broker.leave_client(self.client),
            JobEvent.STOPPED: self.stopped,
            JobEvent.DISOWNED: lambda: self.bench.answers.disown(1000),
        }[event]()
        return self.job.state

    def stored(self) -> None:
        self.bench.answers.saved(self.job)

    def reported(self) -> None:
        with contextlib.suppress(JobNotFound):
            self.broker.complete(self.worker, self.job.handle, b"")

    def failed(self) -> None:
        with contextlib.suppress(JobNotFound):
            self.broker.fail(self.worker, self.job.handle)

    def stopped(self) -> None:
        # In the other states this is ABANDONED.
        if self.job.state is JobState.RUNNING:
            self.broker.leave_client(self.client)

    def cancelled(self) -> None:
        with contextlib.suppress(JobNotFound):
            self.broker.cancel(self.job.handle)


class WorkerScene:
    """A worker in a state, and what may happen to it.

    Another one sleeps already, who is woken first where it is not this worker's turn.
    """

    def __init__(self, state: WorkerState, event: WorkerEvent) -> None:
        self.bench = Bench()
        self.broker = self.bench.broker
        self.worker: Worker = self.bench.worker("w", b"f")
        if event is WorkerEvent.SLEEPS_BESIDE_A_JOB and state is not WorkerState.WOKEN:
            self.bench.sleeper("other", b"f")
        if state is not WorkerState.AWAKE:
            self.broker.sleep(self.worker)
        if state is WorkerState.WOKEN:
            handle = self.bench.queue(b"f")
            if event is WorkerEvent.SLEEPS:
                # Somebody else is faster.
                assert self.bench.grab(self.bench.worker("fast", b"f")).handle == handle
        assert self.worker.state is state

    def happen(self, event: WorkerEvent) -> WorkerState:
        {
            WorkerEvent.SLEEPS: lambda: self.broker.sleep(self.worker),
            WorkerEvent.SLEEPS_BESIDE_A_JOB: self.sleep_beside_a_job,
            WorkerEvent.GRABS: lambda: self.broker.grab(self.worker),
            WorkerEvent.JOB_QUEUED: lambda: self.bench.queue(b"f"),
            WorkerEvent.CHANGES: lambda: self.broker.can_do(self.worker, b"g"),
        }[event]()
        return self.worker.state

    def sleep_beside_a_job(self) -> None:
        self.bench.queue(b"f")
        self.broker.sleep(self.worker)


class StateTests(SynchronousTestCase):
    def test_each_job_state_with_each_event(self) -> None:
        for state in JobState:
            for event in JobEvent:
                with self.subTest(f"{state} {event}"):
                    scene = JobScene(state, event)
                    self.assertIs(scene.job.state, state)
                    self.assertIs(scene.happen(event), JOB_TRANSITIONS.get((state, event), state))

    def test_each_worker_state_with_each_event(self) -> None:
        for state in WorkerState:
            for event in WorkerEvent:
                with self.subTest(f"{state} {event}"):
                    scene = WorkerScene(state, event)
                    self.assertIs(scene.happen(event), WORKER_TRANSITIONS.get((state, event), state))
