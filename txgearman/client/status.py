"""The state of a job, as servers answer requests for it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_NUMBER: Final = re.compile(rb"[ \t]*([+-]?[0-9]{1,20})")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's state on its server.

    Attributes:
        known: Whether the server has the job.
        running: Whether a worker has it now.
        numerator: How much is done, as the worker told last; 0 if it told nothing.
        denominator: Of how much, as the worker told last; 0 if it told nothing.
        waiting_clients: How many clients wait for its result; None if the request does not ask for that.
    """

    known: bool
    running: bool
    numerator: int
    denominator: int
    waiting_clients: int | None = None


def leading_integer(text: bytes) -> int:
    """The decimal number at the begin of `text`, 0 if there is none. Reads 20 digits at most.

    Workers may put any text in a status, and servers pass it on. Unlike `leading_number` of the broker this
    keeps a minus, as the worker's text reaches the caller in no other way.
    """
    match = _NUMBER.match(text)
    return int(match[1]) if match else 0


def first_known(answers: Sequence[Deferred[JobStatus]]) -> Deferred[JobStatus]:
    """The first answer of a server that knows the job.

    Args:
        answers: The servers' answers.

    Returns:
        A Deferred of that answer. If no server knows the job it fires with an answer that says so, and if no
        server answers it fails as the first does. Cancelling it cancels all answers.
    """
    if len(answers) == 1:
        return answers[0]

    def cancel(_result: Deferred[JobStatus]) -> None:
        for answer in answers:
            answer.cancel()

    result: Deferred[JobStatus] = Deferred(cancel)
    outcomes: list[JobStatus | Failure] = []

    def collect(outcome: JobStatus | Failure) -> None:
        outcomes.append(outcome)
        if result.called:
            return
        if isinstance(outcome, JobStatus) and outcome.known:
            result.callback(outcome)
        elif len(outcomes) == len(answers):
            _fire(result, outcomes)

    for answer in answers:
        answer.addBoth(collect)
    return result


def _fire(result: Deferred[JobStatus], outcomes: Sequence[JobStatus | Failure]) -> None:
    """Fire `result` when no server knows the job: with an answer if there is one."""
    statuses = [outcome for outcome in outcomes if isinstance(outcome, JobStatus)]
    if statuses:
        result.callback(statuses[0])
    else:
        result.errback(next(outcome for outcome in outcomes if isinstance(outcome, Failure)))
