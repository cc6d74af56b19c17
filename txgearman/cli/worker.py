"""What ``txgearman worker`` does: run a worker for programs and Python functions until a signal.

How a program is run is in `programs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from shutil import which
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from txgearman.cli.connections import ReportingEndpoint
from txgearman.cli.exit_codes import ExitCode, InvalidArgument
from txgearman.cli.hints import add_hint
from txgearman.cli.programs import ProgramRunner
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.errors import FailJob, JobOver, Reject, Retry, ServerError
from txgearman.worker import Hooks, Job, Worker

TERMINATION_SECONDS: Final = 5.0
"""Seconds that a program has to end after SIGTERM before it is killed, where its job is over its limit or
cancelled. Long enough to remove temporary files. The job's place stays taken meanwhile."""


_FINAL_REFUSALS: Final = frozenset({"ACCESS_DENIED", "TLS_REQUIRED", "QUEUE_ERROR"})
"""Codes of refusals that trying again does not change: a function that the policy denies, a port for TLS, and
a function too many."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of the command. Those not listed here are described in its help; durations are in seconds.

    Attributes:
        command: The program and its arguments, or a line for the shell.
        functions: The functions whose jobs the program runs.
        imported: Python functions, as ``[function=]module:name``.
    """

    command: tuple[str, ...]
    functions: tuple[str, ...]
    imported: tuple[str, ...]
    jobs: int | None
    threads: int | None
    processes: int | None
    lines: bool
    timeout: float | None
    client_id: str | None
    drain: float
    heartbeat: bool

    @property
    def concurrency(self) -> int:
        """How many jobs may run at the same time."""
        return self.jobs or self.threads or self.processes or 1


def work(servers: list[str], options: WorkerOptions) -> Main:
    """Work until the first signal, then let the running jobs end."""

    async def main(context: CommandContext) -> int:
        interrupted: Deferred[None] = Deferred()

        def interrupt() -> None:
            if not interrupted.called:
                interrupted.callback(None)

        context.on_interrupt = interrupt
        pool = _ProgramPool(context.reactor, options)
        failures = _FailureReporter()
        context.kill_hooks.append(pool.end)
        try:
            hooks = Hooks(on_failure=failures.add, on_refusal=partial(_end_if_final, interrupted))
            worker = _make_worker(context.reactor, servers, options, pool, hooks)
            worker.start().addCallbacks(lambda _: _print_start(servers, options), lambda _: None)
            try:
                await interrupted
                print_message("ending, once the running jobs have ended")
            except ServerError as refusal:
                if len(set(servers)) == 1:
                    add_hint(refusal, servers[0])
                raise
            finally:
                failures.stopping = True
                await worker.stop(options.drain)
        finally:
            pool.close()
        if failures.returned_jobs:
            print_message(f"jobs that did not end in time and go to other workers: {failures.returned_jobs}")
            return ExitCode.TIMED_OUT
        return ExitCode.OK

    return main


def _end_if_final(interrupted: Deferred[None], refusal: ServerError) -> None:
    """End the worker where a server refuses what it will refuse for ever: a worker without a function to work
    on would look as if it worked."""
    if refusal.code not in _FINAL_REFUSALS:
        print_message(f"the server refused: {refusal}")
    elif not interrupted.called:
        interrupted.errback(refusal)


class _FailureReporter:
    """Prints the jobs that fail or are stopped, and counts those that are cancelled at the end."""

    def __init__(self) -> None:
        self.stopping = False
        self.returned_jobs = 0

    def add(self, job: Job, failure: Failure) -> None:
        """A job has failed. The worker itself logs exceptions that no function raises on purpose."""
        if job.cancelled:
            print_message(f"{job} stopped: {job.cancel_reason}")
        elif isinstance(failure.value, FailJob | Retry | Reject):
            what = {Retry: "is to be retried", Reject: "is rejected"}.get(type(failure.value), "failed")
            # What comes after the first line is on standard error already.
            print_message(f"{job} {what}: {str(failure.value).partition(chr(10))[0]}")
        elif self.stopping and isinstance(failure.value, CancelledError | JobOver):
            self.returned_jobs += 1


def _print_start(servers: list[str], options: WorkerOptions) -> None:
    names = [*options.functions, *(_split_import(text)[0] for text in options.imported)]
    print_message(f"working on {', '.join(names)} for {', '.join(servers)}")


def _make_worker(
    reactor: Any, servers: list[str], options: WorkerOptions, pool: _ProgramPool, hooks: Hooks
) -> Worker:
    """Make a worker with all functions of the options. Raises `InvalidArgument`."""
    try:
        worker = Worker(
            reactor,
            [ReportingEndpoint(reactor, server) for server in dict.fromkeys(servers)],
            client_id=options.client_id,
            concurrency=options.concurrency,
            threads=options.threads or 0,
            processes=options.processes or 0,
            hooks=hooks,
            heartbeat=options.heartbeat,
        )
        for function in options.functions:
            worker.register(function, pool.run, threads=False, processes=False, time_limit=options.timeout)
        for text in options.imported:
            name, module, attribute = _split_import(text)
            worker.register(name, import_function(module, attribute), time_limit=options.timeout)
    except (ValueError, TypeError, ImportError) as error:
        raise InvalidArgument(str(error)) from error
    return worker


# -- Python functions ---------------------------------------------------------------------------


def _split_import(text: str) -> tuple[str, str, str]:
    """Split ``[function=]module:name`` into function, module and name."""
    function, equals, place = text.rpartition("=")
    module, colon, attribute = place.partition(":")
    if not (module and colon and attribute) or (equals and not function):
        raise InvalidArgument(f"{text!r} names no Python function; write module:name or function=module:name")
    return function or attribute.rpartition(".")[2], module, attribute


def import_function(module: str, attribute: str) -> Callable[..., Any]:
    """Import a Python function.

    Args:
        module: The name of the module.
        attribute: The name of the function there; dots for attributes of attributes.

    Returns:
        The function.

    Raises:
        InvalidArgument: The module or the attribute does not exist, or it cannot be called.
    """
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        # The code of the module may raise anything.
        raise InvalidArgument(f"cannot import {module}: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidArgument(f"there is no {attribute} in {module}")
        found = getattr(found, name)
    if not callable(found):
        raise InvalidArgument(f"{attribute} in {module} cannot be called")
    called: Callable[..., Any] = found
    return called


# -- commands -----------------------------------------------------------------------------------


class _ProgramPool:
    """Runs the program of a worker in threads, once for each job."""

    def __init__(self, reactor: Any, options: WorkerOptions) -> None:
        if len(options.command) > 1 and which(options.command[0]) is None:
            raise InvalidArgument(f"there is no program {options.command[0]}")
        self._reactor = reactor
        self._runner = ProgramRunner(options.command, options.lines)
        self._pool = ThreadPool(0, options.concurrency, "commands")
        self._pool.start()

    def run(self, job: Job) -> Deferred[bytes]:
        """Run the program for a job.

        Args:
            job: The job.

        Returns:
            A Deferred that fires with the result. Cancelling it ends the program: by SIGTERM, and by SIGKILL
            after `TERMINATION_SECONDS`. The job holds its slot until the program has ended.
        """
        thread_job = _JobInThread(self._reactor, job)
        ended: Deferred[None] = Deferred()
        killing: list[IDelayedCall] = []

        def terminate(_result: Deferred[bytes]) -> None:
            thread_job.is_ending = True
            self._runner.terminate(thread_job)
            killing.append(self._reactor.callLater(TERMINATION_SECONDS, self._runner.kill, thread_job))
            job._slot_held_until = ended

        def end(outcome: Any) -> None:
            for call in killing:
                if call.active():
                    call.cancel()
            if not result.called:
                result.callback(outcome)  # or its errback, of a Failure
            ended.callback(None)

        result: Deferred[bytes] = Deferred(terminate)
        deferToThreadPool(self._reactor, self._pool, self._runner.run, thread_job).addBoth(end)
        return result

    def end(self) -> None:
        """Kill the running programs."""
        self._runner.end()

    def close(self) -> None:
        """Kill the running programs, and wait for the threads."""
        self.end()
        self._pool.stop()


class _JobInThread:
    """A job that a thread may use. `is_ending` says that its program has been told to end."""

    def __init__(self, reactor: Any, job: Job) -> None:
        self.handle = job.handle
        self.function = job.function
        self.unique = job.unique
        self.data = job.data
        self.is_ending = False
        self.attempt = job.attempt
        self.losses = job.losses
        self.traceparent = job.traceparent
        self._reactor = reactor
        self._job = job

    def send_data(self, data: bytes) -> None:
        """Send a part of the result. Raises `JobOver` if no client waits for it and the program goes on."""
        if self.is_ending:
            # To raise would kill a program that says good-bye.
            return
        if self._job.over:
            raise JobOver(f"the {self._job} is over")
        self._reactor.callFromThread(self._send, data)

    def _send(self, data: bytes) -> None:
        if not self._job.over:
            self._job.send_data(data)
