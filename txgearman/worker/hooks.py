"""Hooks: what a worker calls around each job, and how it calls them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgearman.errors import ServerError
from txgearman.worker.job import Job

_log = Logger()


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that a worker calls around each job, and `on_refusal`, in the reactor's thread; None for
    none.

    Each of the former may return a Deferred or coroutine. The worker waits for it, so a job ends when its
    hooks have ended. Hooks do not count for the function's time limit. For each job one of `after_job` and
    `on_failure` is called, once. Exceptions of these two are logged and change nothing.

    Attributes:
        before_job: Called with the `Job` before the function. If it raises, the function is not called, and
            the job fails as if the function had raised.
        after_job: Called with the `Job` and the result, bytes as they are sent, before sending it.
        on_failure: Called with the `Job` and a Twisted `Failure` before telling the server that the job
            failed. The failure's value is what the function or `before_job` raised, `FailJob` among them;
            `TimeLimitExceeded`; what was wrong with the result; or `CancelledError` or `JobOver` where the
            connection was lost, or the job was cancelled, which `Job.cancelled` tells.
        on_refusal: Called with a `ServerError` when a server refuses something, such as a function that its
            policy does not allow to this worker, or the connection. The worker goes on with what is not
            refused. Without it `Worker.start` fails with that error at the start, and later a warning is
            logged.
    """

    before_job: Callable[[Job], object] | None = None
    after_job: Callable[[Job, bytes], object] | None = None
    on_failure: Callable[[Job, Failure], object] | None = None
    on_refusal: Callable[[ServerError], object] | None = None


NO_HOOKS: Final = Hooks()


async def maybe_await(outcome: object) -> Any:
    """What a function returned, or what its Deferred or coroutine gives."""
    if isinstance(outcome, Deferred | Coroutine):
        return await outcome
    return outcome


def run_hook(
    hook: Callable[[Job, Any], object], job: Job, argument: object, then: Callable[[], None]
) -> None:
    """Call a hook after which the job goes on. What the hook raises is logged.

    Args:
        hook: The hook.
        job: Its first argument.
        argument: Its second argument.
        then: Called when the hook has ended.
    """

    async def call() -> None:
        try:
            await maybe_await(hook(job, argument))
        # Even a hook that tries to end the process must not leave the job without an outcome.
        except BaseException:
            if not isinstance(Failure().value, GeneratorExit):
                _log.failure("A hook of {job} raised", job=job)
        then()

    Deferred.fromCoroutine(call())
