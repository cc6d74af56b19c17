"""What a worker calls around each job, and how. What a hook does is its own business."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.worker.job import Job

_log = Logger()


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that a worker calls around each job, in the reactor's thread; None for none.

    * `before_job` with the `Job`, ahead of the function. If it raises, the function is not called and the
      job fails with what it raised, as if the function had raised it.
    * `after_job` with the `Job` and the result, bytes as they are sent, ahead of sending it.
    * `on_failure` with the `Job` and a Twisted `Failure`, ahead of sending that the job failed. Its value is
      what the function or `before_job` raised, `FailJob` among them, `TimeLimitExceeded`, what was wrong with
      the result, or `CancelledError` or `JobOver` where the connection was lost.

    Each may return a Deferred or coroutine, which is waited for: a job ends when its hooks have ended. They
    do not count for the function's time limit. For each job one of the last two is called, once. What they
    raise is logged and changes nothing.
    """

    before_job: Callable[[Job], object] | None = None
    after_job: Callable[[Job, bytes], object] | None = None
    on_failure: Callable[[Job, Failure], object] | None = None


NO_HOOKS: Final = Hooks()


async def maybe_await(outcome: object) -> Any:
    """What a function returned, if need be when its Deferred or coroutine has it."""
    if isinstance(outcome, Deferred | Coroutine):
        return await outcome
    return outcome


def run_hook(
    hook: Callable[[Job, Any], object], job: Job, argument: object, then: Callable[[], None]
) -> None:
    """Call `hook`, and `then` when it has ended. What it raises is logged."""

    async def call() -> None:
        try:
            await maybe_await(hook(job, argument))
        # Even a hook that wants to end the process must not leave the job without its end.
        except BaseException:
            if not isinstance(Failure().value, GeneratorExit):
                _log.failure("A hook of {job} raised", job=job)
        then()

    Deferred.fromCoroutine(call())
