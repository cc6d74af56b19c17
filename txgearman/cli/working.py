"""What ``txgearman worker`` does: a worker for commands and Python functions, until it is told to stop.

How a command is run is in `shell`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from shutil import which
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from txgearman.cli.connecting import Told
from txgearman.cli.exit_codes import ExitCode, InvalidArgument
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.shell import Commands
from txgearman.errors import FailJob, JobOver
from txgearman.worker import Hooks, Job, Worker


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker is to do; durations are in seconds.

    `command` is run for the jobs of `functions`; `imported` are Python functions as
    ``[function=]module:name``. The others are the options of the same names.
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

    @property
    def concurrency(self) -> int:
        """How many jobs may run at the same time."""
        return self.jobs or self.threads or self.processes or 1


def work(servers: list[str], plan: Plan) -> Main:
    """Work until the run is interrupted, then let the running jobs end."""

    async def main(context: CommandContext) -> int:
        told_to_stop: Deferred[None] = Deferred()
        context.on_interrupt = partial(told_to_stop.callback, None)
        shell = _Shell(context.reactor, plan)
        failures = _Failures()
        context.kill_hooks.append(shell.end)
        try:
            worker = _make_worker(context.reactor, servers, plan, shell, failures)
            worker.start().addCallbacks(lambda _: _working(servers, plan), lambda _: None)
            await told_to_stop
            failures.ending = True
            print_message("ending, once the running jobs have ended")
            await worker.stop(plan.drain)
        finally:
            shell.close()
        if failures.given_back:
            print_message(f"jobs that did not end in time and go to other workers: {failures.given_back}")
            return ExitCode.TIMED_OUT
        return ExitCode.OK

    return main


class _Failures:
    """Tells of jobs that failed, and counts those that were cut off at the end."""

    def __init__(self) -> None:
        self.ending = False
        self.given_back = 0

    def add(self, job: Job, failure: Failure) -> None:
        """A job has failed. What a function raised otherwise is logged by the worker."""
        if isinstance(failure.value, FailJob):
            handle, function = (
                name.decode("utf-8", "backslashreplace") for name in (job.handle, job.function)
            )
            print_message(f"job {handle} of {function} failed: {failure.value}")
        elif self.ending and isinstance(failure.value, CancelledError | JobOver):
            self.given_back += 1


def _working(servers: list[str], plan: Plan) -> None:
    names = [*plan.functions, *(_split(text)[0] for text in plan.imported)]
    print_message(f"working on {', '.join(names)} for {', '.join(servers)}")


def _make_worker(reactor: Any, servers: list[str], plan: Plan, shell: _Shell, failures: _Failures) -> Worker:
    """A worker with all functions of the plan. Raises `InvalidArgument`."""
    try:
        worker = Worker(
            reactor,
            [Told(reactor, server) for server in dict.fromkeys(servers)],
            client_id=plan.client_id,
            concurrency=plan.concurrency,
            threads=plan.threads or 0,
            processes=plan.processes or 0,
            hooks=Hooks(on_failure=failures.add),
        )
        for function in plan.functions:
            worker.register(function, shell.run, threads=False, processes=False, time_limit=plan.timeout)
        for text in plan.imported:
            name, module, attribute = _split(text)
            worker.register(name, imported(module, attribute), time_limit=plan.timeout)
    except (ValueError, TypeError, ImportError) as error:
        raise InvalidArgument(str(error)) from error
    return worker


# -- Python functions ---------------------------------------------------------------------------


def _split(text: str) -> tuple[str, str, str]:
    """The name of the function, the module and what is in it, of ``[function=]module:name``."""
    function, equals, place = text.rpartition("=")
    module, colon, attribute = place.partition(":")
    if not (module and colon and attribute) or (equals and not function):
        raise InvalidArgument(f"{text!r} names no Python function; write module:name or function=module:name")
    return function or attribute.rpartition(".")[2], module, attribute


def imported(module: str, attribute: str) -> Callable[..., Any]:
    """What is called `attribute` in `module`. Raises `InvalidArgument` if there is nothing to call."""
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        # Whatever the code of the module raises.
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


class _Shell:
    """Runs the command of a plan in threads, one for each job."""

    def __init__(self, reactor: Any, plan: Plan) -> None:
        if len(plan.command) > 1 and which(plan.command[0]) is None:
            raise InvalidArgument(f"there is no program {plan.command[0]}")
        self._reactor = reactor
        self._commands = Commands(plan.command, plan.lines)
        self._pool = ThreadPool(0, plan.concurrency, "commands")
        self._pool.start()

    def run(self, job: Job) -> Deferred[bytes]:
        """The result of a job. To cancel it kills the program."""
        here = _JobInThread(self._reactor, job)
        result: Deferred[bytes] = Deferred(lambda _: self._commands.kill(here))

        def ended(outcome: Any) -> None:
            if not result.called:
                result.callback(outcome)  # or its errback, of a Failure

        deferToThreadPool(self._reactor, self._pool, self._commands.run, here).addBoth(ended)
        return result

    def end(self) -> None:
        """Kill the programs that run."""
        self._commands.end()

    def close(self) -> None:
        """End everything, and wait for the threads."""
        self.end()
        self._pool.stop()


class _JobInThread:
    """A job as a thread may use it."""

    def __init__(self, reactor: Any, job: Job) -> None:
        self.handle = job.handle
        self.function = job.function
        self.unique = job.unique
        self.data = job.data
        self._reactor = reactor
        self._job = job

    def send_data(self, data: bytes) -> None:
        """Send a part of the result. Raises `JobOver` if nobody waits for it any more."""
        if self._job.over:
            raise JobOver(f"the job {self.handle!r} is over")
        self._reactor.callFromThread(self._send, data)

    def _send(self, data: bytes) -> None:
        if not self._job.over:
            self._job.send_data(data)
