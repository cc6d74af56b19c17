"""What ``txgearman submit`` does: submit one job and write its data as it comes, or many and write their
results.

Payloads are read in `payloads`, and the progress is drawn in `progress_bar`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from txgearman.cli.connections import REPLY_TIMEOUT, connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, error_text, exit_code_of, printable
from txgearman.cli.payloads import Payloads
from txgearman.cli.progress_bar import ProgressBar
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.cli.tables import text_or_base64
from txgearman.client import Client, DataUpdate, Job, Priority, StatusUpdate, WarningUpdate
from txgearman.errors import ClientError, JobRaised, NotConnected, TimedOut

REORDER_BUFFER_RESULTS: Final = 10_000
"""Results of many jobs that may wait for the result of an earlier one. When so many wait no job is submitted
until it has come. Without a limit one job that hangs would let the others fill the memory."""


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """The options of the command, the same for all its jobs.

    Attributes:
        function: The jobs' function.
        unique: Their key.
        priority: Their priority.
        background: Whether they are offline jobs.
        run_at: When they may run.
        timeout: Seconds that a job may take; None for no limit.
        retry: As for `Client.submit`.
        as_json: Whether to write a line of JSON for each job.
        jobs: How many jobs may be submitted at the same time.
        job_options: Options of `Client.submit` beyond these, by name.
    """

    function: str
    unique: str | None
    priority: Priority
    background: bool
    run_at: datetime | None
    timeout: float | None
    retry: int
    as_json: bool
    jobs: int
    job_options: dict[str, Any]

    @property
    def offline(self) -> bool:
        """Whether these are offline jobs, which give no results."""
        return self.background or self.run_at is not None

    async def submit(self, client: Client, data: bytes) -> Job:
        """Submit a job with these options.

        Args:
            client: The client.
            data: The payload.

        Returns:
            The accepted job.

        Raises:
            InvalidArgument: The client refuses an option.
            ClientError: As for `Client.submit`.
        """
        limit = REPLY_TIMEOUT if self.timeout is None else min(self.timeout, REPLY_TIMEOUT)
        try:
            accepted = client.submit(
                self.function,
                data,
                unique=self.unique,
                priority=self.priority,
                background=self.background,
                run_at=self.run_at,
                retry=self.retry,
                timeout=limit,
                **self.job_options,
            )
        except (ValueError, TypeError) as error:
            raise InvalidArgument(str(error)) from error
        return await accepted


@dataclass(slots=True)
class JobOutcome:
    """The outcome of one job.

    Attributes:
        number: Its number, from 1, in the order of the payloads.
        job: The job, once it is accepted.
        parts: The parts of its result.
        warnings: The warnings that its worker sent.
        error: Why there is no result.
    """

    number: int
    job: Job | None = None
    parts: list[bytes] = field(default_factory=list)
    warnings: list[bytes] = field(default_factory=list)
    error: ClientError | None = None

    def as_json(self, options: SubmitOptions) -> bytes:
        """Make a line of JSON. Bytes that are not UTF-8 are in Base64."""
        shown: dict[str, Any] = {"number": self.number, "function": options.function}
        if self.job is not None:
            shown["handle"] = self.job.handle.decode("utf-8", "backslashreplace")
            shown["server"] = self.job.server
        shown["outcome"] = self._outcome_word(options)
        if self.error is not None:
            shown["error"] = str(self.error)
        elif not options.offline:
            shown |= text_or_base64("result", b"".join(self.parts))
        if self.warnings:
            shown["warnings"] = [warning.decode("utf-8", "backslashreplace") for warning in self.warnings]
        return json.dumps(shown).encode() + b"\n"

    def as_text(self, options: SubmitOptions) -> bytes:
        """Make a line: the handle of an offline job, or the result, which may have several lines."""
        if self.error is not None:
            return b""
        assert self.job is not None
        text = self.job.handle if options.offline else b"".join(self.parts)
        return text if text.endswith(b"\n") else text + b"\n"

    def _outcome_word(self, options: SubmitOptions) -> str:
        if self.error is None:
            return "accepted" if options.offline else "completed"
        if isinstance(self.error, JobRaised):
            return "raised"
        return _WORDS.get(exit_code_of(self.error), "failed")


_WORDS: Final = {
    ExitCode.JOB_FAILED: "failed",
    # The server's outcome "lost" is another: the job's workers went away.
    ExitCode.NOT_CONNECTED: "connection-lost",
    ExitCode.TIMED_OUT: "timed-out",
    ExitCode.REFUSED: "refused",
}


# -- one job ------------------------------------------------------------------------------------


def submit_one(servers: list[str], options: SubmitOptions, data: bytes) -> Main:
    """Submit one job. Write its data and result to standard output, and draw its status as a bar."""

    async def main(context: CommandContext) -> int:
        async with connected(context.reactor, servers, REPLY_TIMEOUT) as client:
            outcome = JobOutcome(1)
            with ProgressBar(context.reactor, printable(options.function)) as bar:
                if options.as_json or options.offline:
                    await _record_outcome(client, options, data, outcome, context.reactor, bar)
                    bar.write(outcome.as_json(options) if options.as_json else outcome.as_text(options))
                    if outcome.error is not None:
                        raise outcome.error
                else:
                    await _follow(client, options, data, outcome, context.reactor, bar, bar.write)
        return ExitCode.OK

    return main


async def _record_outcome(
    client: Client,
    options: SubmitOptions,
    data: bytes,
    outcome: JobOutcome,
    reactor: Any,
    bar: ProgressBar | None,
) -> None:
    """Submit a job, and record its outcome, errors included."""
    try:
        await _follow(client, options, data, outcome, reactor, bar, outcome.parts.append)
    except ClientError as error:
        outcome.error = error


async def _follow(
    client: Client,
    options: SubmitOptions,
    data: bytes,
    outcome: JobOutcome,
    reactor: Any,
    bar: ProgressBar | None,
    take: Callable[[bytes], object],
) -> None:
    """Submit a job, and `take` each part of its result. With a bar, show its status and warnings."""

    async def follow_job() -> None:
        outcome.job = job = await options.submit(client, data)
        if options.offline:
            return
        async for update in job.updates():
            if isinstance(update, DataUpdate):
                take(update.data)
            elif isinstance(update, WarningUpdate):
                outcome.warnings.append(update.data)
                if bar is not None:
                    bar.write_above(_warning(update.data))
            elif isinstance(update, StatusUpdate) and bar is not None:
                bar.set(update.numerator, update.denominator)
        result = await job.result()
        if bar is not None:
            bar.close()
        take(result)

    following = Deferred.fromCoroutine(follow_job())
    if options.timeout is not None:
        following.addTimeout(options.timeout, reactor, _timed_out)
    await following


def _warning(data: bytes) -> str:
    return f"warning: {printable(data.decode('utf-8', 'backslashreplace').rstrip())}"


def _timed_out(_result: object, limit: float) -> NoReturn:
    raise TimedOut(f"no result within {limit:g} seconds; the job may still run")


# -- many jobs ----------------------------------------------------------------------------------


def submit_many(servers: list[str], options: SubmitOptions, payloads: Callable[[Any], Payloads]) -> Main:
    """Submit a job for each payload, write the results in their order, and draw how many are done."""

    async def main(context: CommandContext) -> int:
        async with connected(context.reactor, servers, REPLY_TIMEOUT) as client:
            with ProgressBar(context.reactor, printable(options.function)) as bar:
                return await _JobBatch(context.reactor, client, options, payloads(context.reactor), bar).run()

    return main


class _JobBatch:
    """Submits many jobs, `options.jobs` at a time, and writes their outcomes in the order of the payloads."""

    def __init__(
        self, reactor: Any, client: Client, options: SubmitOptions, payloads: Payloads, bar: ProgressBar
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._options = options
        self._payloads = payloads
        self._bar = bar
        self._reorder_slots = DeferredSemaphore(REORDER_BUFFER_RESULTS)
        self._reorder_buffer: dict[int, JobOutcome] = {}
        self._submitted = self._written = self._done = self._failed = 0

    async def run(self) -> int:
        """Submit all jobs.

        Returns:
            The exit code.

        Raises:
            NotConnected: No server is left. The outcomes so far are written before.
        """
        try:
            await gather_or_cancel([self._submit_in_turn() for _ in range(self._options.jobs)])
        except NotConnected:
            for number in sorted(self._reorder_buffer):
                self._write(self._reorder_buffer[number])
            raise
        if self._failed:
            what = "were not accepted" if self._options.offline else "gave no result"
            print_message(f"{self._failed} of {self._done} jobs {what}")
        return ExitCode.JOB_FAILED if self._failed else ExitCode.OK

    async def _submit_in_turn(self) -> None:
        while True:
            await self._reorder_slots.acquire()
            try:
                data = await self._payloads.next()
            except OSError as error:
                raise InvalidArgument(f"a payload cannot be read: {error}") from error
            if data is None:
                return
            self._submitted += 1
            outcome = JobOutcome(self._submitted)
            await _record_outcome(self._client, self._options, data, outcome, self._reactor, None)
            if isinstance(outcome.error, NotConnected):
                # The others would fail in the same way.
                raise outcome.error
            self._job_ended(outcome)

    def _job_ended(self, outcome: JobOutcome) -> None:
        self._done += 1
        if outcome.error is not None:
            self._failed += 1
        self._reorder_buffer[outcome.number] = outcome
        while self._written + 1 in self._reorder_buffer:
            self._written += 1
            self._write(self._reorder_buffer.pop(self._written))
            self._reorder_slots.release()
        note = f"{self._done} done" + (f", {self._failed} failed" if self._failed else "")
        self._bar.set(self._done, self._payloads.total, note)

    def _write(self, outcome: JobOutcome) -> None:
        for warning in outcome.warnings:
            self._bar.write_above(f"txgearman: job {outcome.number}: {_warning(warning)}")
        if outcome.error is not None:
            self._bar.write_above(f"txgearman: job {outcome.number}: {error_text(outcome.error)}")
        self._bar.write(
            outcome.as_json(self._options) if self._options.as_json else outcome.as_text(self._options)
        )


async def gather_or_cancel(coroutines: list[Any]) -> None:
    """Run all coroutines. The first error cancels the others, and is raised."""
    running = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    all_ended = gatherResults(running, consumeErrors=True)
    try:
        await all_ended
    except FirstError as error:
        error.subFailure.raiseException()
    finally:
        for deferred in running:
            deferred.cancel()
