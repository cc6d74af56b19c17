"""Where the server asks the access policy about packets.

The limits of names come first: what exceeds them is refused as without a policy, and is never matched,
remembered or logged. Without a policy nothing here is run. Admin commands are asked about in `admin`, where
they are told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from txgearman.access.patterns import quoted
from txgearman.access.policy import Right
from txgearman.errors import AccessDenied
from txgearman.server.commands import COMMANDS, Command, check_names
from txgearman.wire.limits import MAX_FUNCTION
from txgearman.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    GET_RESULT,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_EXTENDED,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_JOB_SCHED,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
)

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer

_SUBMITS: Final = (
    SUBMIT_JOB,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
)
_LONG_SUBMITS: Final = (
    SUBMIT_JOB_EPOCH,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    SUBMIT_JOB_EXTENDED,
)


def _denied(peer: Peer, what: str) -> AccessDenied:
    peer.note_denied(what)
    return AccessDenied(f"You may not {what}")


def _check_submit(peer: Peer, function: bytes, unique: bytes) -> None:
    check_names(function, unique)
    if not (peer.known_rights or peer.rights).may_submit[function]:
        raise _denied(peer, f"submit jobs of {quoted(function)}")


def _submitting(command: Command) -> Command:
    def submit(peer: Peer, function: bytes, unique: bytes, data: bytes) -> None:
        # As `_check_submit`, without the call, and its fields by name: together half of what this costs.
        if len(function) > MAX_FUNCTION or not (peer.known_rights or peer.rights).may_submit[function]:
            _check_submit(peer, function, unique)
        command(peer, function, unique, data)

    return submit


def _submitting_more(command: Command) -> Command:
    """For the submits with more fields."""

    def submit(peer: Peer, function: bytes, unique: bytes, *fields: Any) -> None:
        _check_submit(peer, function, unique)
        command(peer, function, unique, *fields)

    return submit


def _scheduling(command: Command) -> Command:
    submit = _submitting_more(command)

    def schedule(peer: Peer, function: bytes, unique: bytes, *fields: Any) -> None:
        check_names(function, unique)
        if not peer.rights.may(Right.SCHEDULE):
            raise _denied(peer, "add schedules")
        submit(peer, function, unique, *fields)

    return schedule


def _working(command: Command) -> Command:
    def can_do(peer: Peer, function: bytes, *fields: Any) -> None:
        check_names(function)
        if not peer.rights.may_work(function):
            raise _denied(peer, f"work on {quoted(function)}")
        command(peer, function, *fields)

    return can_do


def _asking(command: Command) -> Command:
    def ask(peer: Peer, *fields: Any) -> None:
        if not peer.rights.may_ask:
            raise _denied(peer, "ask for the status of jobs")
        command(peer, *fields)

    return ask


def _viewing(command: Command) -> Command:
    """For what shows others' jobs: handles can be guessed."""

    def view(peer: Peer, *fields: Any) -> None:
        if not peer.rights.may(Right.VIEW):
            raise _denied(peer, "see the results of jobs")
        command(peer, *fields)

    return view


GUARDED_COMMANDS: Final[dict[int, Callable[..., Any]]] = {
    **COMMANDS,
    **{number: _submitting(COMMANDS[number]) for number in _SUBMITS},
    **{number: _submitting_more(COMMANDS[number]) for number in _LONG_SUBMITS},
    SUBMIT_JOB_SCHED: _scheduling(COMMANDS[SUBMIT_JOB_SCHED]),
    **{number: _working(COMMANDS[number]) for number in (CAN_DO, CAN_DO_TIMEOUT)},
    **{number: _asking(COMMANDS[number]) for number in (GET_STATUS, GET_STATUS_UNIQUE)},
    GET_RESULT: _viewing(COMMANDS[GET_RESULT]),
}
"""`COMMANDS`, with those that a policy can deny. What a worker reports needs no right of its own: it can only
be about a job that it was given."""
