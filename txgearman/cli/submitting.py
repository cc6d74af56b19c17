"""What ``txgearman submit`` does: one job whose data is shown as it comes, or many and their results.

Reading payloads is in `payloads`, drawing in `bar`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from txgearman.cli.bar import Bar
from txgearman.cli.connecting import ANSWER_SECONDS, connected
from txgearman.cli.exit_codes import ExitCode, InvalidArgument, error_line, exit_code_of, printable
from txgearman.cli.payloads import Payloads
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.client import Client, DataUpdate, Job, Priority, StatusUpdate, WarningUpdate
from txgearman.errors import ClientError, NotConnected, TimedOut

HELD_RESULTS: Final = 10_000
"""Results of many jobs that are kept because that of an earlier one is still missing; behind them no job is
submitted before it has come. More would let one job that hangs fill the memory."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is the same for all jobs of one run.

    `timeout` is how many seconds a job may take, None for no limit; `retry` is that of `Client.submit`;
    `as_json` asks for a line of JSON for each job; `jobs` is how many may be under way at once.
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

    @property
    def offline(self) -> bool:
        """Whether there will be no results."""
        return self.background or self.run_at is not None

    async def submit(self, client: Client, data: bytes) -> Job:
        """Submit a job with these properties. Raises as `Client.submit`, and `InvalidArgument`."""
        limit = ANSWER_SECONDS if self.timeout is None else min(self.timeout, ANSWER_SECONDS)
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
            )
        except (ValueError, TypeError) as error:
            raise InvalidArgument(str(error)) from error
        return await accepted


@dataclass(slots=True)
class Outcome:
    """What became of one job: the parts of its result, warnings, and the error if there is no result."""

    number: int
    job: Job | None = None
    parts: list[bytes] = field(default_factory=list)
    warnings: list[bytes] = field(default_factory=list)
    error: ClientError | None = None

    def as_json(self, order: Order) -> bytes:
        """A line of JSON. Bytes are given as text where they are UTF-8, else in Base64."""
        shown: dict[str, Any] = {"number": self.number, "function": order.function}
        if self.job is not None:
            shown["handle"] = self.job.handle.decode("utf-8", "backslashreplace")
            shown["server"] = self.job.server
        shown["outcome"] = self._word(order)
        if self.error is not None:
            shown["error"] = str(self.error)
        elif not order.offline:
            shown |= _text_or_base64("result", b"".join(self.parts))
        if self.warnings:
            shown["warnings"] = [warning.decode("utf-8", "backslashreplace") for warning in self.warnings]
        return json.dumps(shown).encode() + b"\n"

    def as_text(self, order: Order) -> bytes:
        """A line with the handle of an offline job, or the result, which may hold more lines."""
        if self.error is not None:
            return b""
        assert self.job is not None
        text = self.job.handle if order.offline else b"".join(self.parts)
        return text if text.endswith(b"\n") else text + b"\n"

    def _word(self, order: Order) -> str:
        if self.error is None:
            return "accepted" if order.offline else "done"
        return _WORDS.get(exit_code_of(self.error), "failed")


_WORDS: Final = {
    ExitCode.JOB_FAILED: "failed",
    ExitCode.NOT_CONNECTED: "lost",
    ExitCode.TIMED_OUT: "timed out",
    ExitCode.REFUSED: "refused",
}


def _text_or_base64(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


# -- one job ------------------------------------------------------------------------------------


def submit_one(servers: list[str], order: Order, data: bytes) -> Main:
    """One job: its data and result on standard output, its status as a bar."""

    async def main(context: CommandContext) -> int:
        async with connected(context.reactor, servers, ANSWER_SECONDS) as client:
            outcome = Outcome(1)
            with Bar(context.reactor, printable(order.function)) as bar:
                if order.as_json or order.offline:
                    await _outcome_of(client, order, data, outcome, context.reactor, bar)
                    bar.write(outcome.as_json(order) if order.as_json else outcome.as_text(order))
                    if outcome.error is not None:
                        raise outcome.error
                else:
                    await _follow(client, order, data, outcome, context.reactor, bar, bar.write)
        return ExitCode.OK

    return main


async def _outcome_of(
    client: Client, order: Order, data: bytes, outcome: Outcome, reactor: Any, bar: Bar | None
) -> None:
    """Fill the outcome of a job, whether it went well or not."""
    try:
        await _follow(client, order, data, outcome, reactor, bar, outcome.parts.append)
    except ClientError as error:
        outcome.error = error


async def _follow(
    client: Client,
    order: Order,
    data: bytes,
    outcome: Outcome,
    reactor: Any,
    bar: Bar | None,
    take: Callable[[bytes], object],
) -> None:
    """Submit a job and `take` each part of its result. With a bar, tell its status and warnings there."""

    async def to_the_end() -> None:
        outcome.job = job = await order.submit(client, data)
        if order.offline:
            return
        async for update in job.updates():
            if isinstance(update, DataUpdate):
                take(update.data)
            elif isinstance(update, WarningUpdate):
                outcome.warnings.append(update.data)
                if bar is not None:
                    bar.tell(_warning(update.data))
            elif isinstance(update, StatusUpdate) and bar is not None:
                bar.set(update.numerator, update.denominator)
        result = await job.result()
        if bar is not None:
            bar.close()
        take(result)

    following = Deferred.fromCoroutine(to_the_end())
    if order.timeout is not None:
        following.addTimeout(order.timeout, reactor, _too_late)
    await following


def _warning(data: bytes) -> str:
    return f"warning: {printable(data.decode('utf-8', 'backslashreplace').rstrip())}"


def _too_late(_result: object, limit: float) -> NoReturn:
    raise TimedOut(f"no result within {limit:g} seconds; the job may still run")


# -- many jobs ----------------------------------------------------------------------------------


def submit_many(servers: list[str], order: Order, payloads: Callable[[Any], Payloads]) -> Main:
    """A job for each payload: their results in the payloads' order, and a bar of how many are done."""

    async def main(context: CommandContext) -> int:
        async with connected(context.reactor, servers, ANSWER_SECONDS) as client:
            with Bar(context.reactor, printable(order.function)) as bar:
                return await _Many(context.reactor, client, order, payloads(context.reactor), bar).run()

    return main


class _Many:
    """Many jobs, `order.jobs` at once, told in the order of their payloads."""

    def __init__(self, reactor: Any, client: Client, order: Order, payloads: Payloads, bar: Bar) -> None:
        self._reactor = reactor
        self._client = client
        self._order = order
        self._payloads = payloads
        self._bar = bar
        self._room = DeferredSemaphore(HELD_RESULTS)
        self._ended: dict[int, Outcome] = {}
        self._taken = self._told = self._done = self._failed = 0

    async def run(self) -> int:
        """Submit all. Raises `NotConnected` when there is no server any more, having told what is known."""
        try:
            await gather([self._one_after_another() for _ in range(self._order.jobs)])
        except NotConnected:
            for number in sorted(self._ended):
                self._tell(self._ended[number])
            raise
        if self._failed:
            print_message(f"{self._failed} of {self._done} jobs gave no result")
        return ExitCode.JOB_FAILED if self._failed else ExitCode.OK

    async def _one_after_another(self) -> None:
        while True:
            await self._room.acquire()
            try:
                data = await self._payloads.next()
            except OSError as error:
                raise InvalidArgument(f"a payload cannot be read: {error}") from error
            if data is None:
                return
            self._taken += 1
            outcome = Outcome(self._taken)
            await _outcome_of(self._client, self._order, data, outcome, self._reactor, None)
            if isinstance(outcome.error, NotConnected):
                # The others would only end in the same way.
                raise outcome.error
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self._done += 1
        if outcome.error is not None:
            self._failed += 1
        self._ended[outcome.number] = outcome
        while self._told + 1 in self._ended:
            self._told += 1
            self._tell(self._ended.pop(self._told))
            self._room.release()
        note = f"{self._done} done" + (f", {self._failed} failed" if self._failed else "")
        self._bar.set(self._done, self._payloads.total, note)

    def _tell(self, outcome: Outcome) -> None:
        for warning in outcome.warnings:
            self._bar.tell(f"txgearman: job {outcome.number}: {_warning(warning)}")
        if outcome.error is not None:
            self._bar.tell(f"txgearman: job {outcome.number}: {error_line(outcome.error)}")
        self._bar.write(outcome.as_json(self._order) if self._order.as_json else outcome.as_text(self._order))


async def gather(coroutines: list[Any]) -> None:
    """Run all coroutines to their ends. The first that raises ends the others, and is raised."""
    doing = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    all_done = gatherResults(doing, consumeErrors=True)
    try:
        await all_done
    except FirstError as error:
        error.subFailure.raiseException()
    finally:
        for one in doing:
            one.cancel()
