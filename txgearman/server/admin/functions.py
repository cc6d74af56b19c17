"""The admin commands about functions: their jobs and workers, and their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from txgearman.broker.administration import Administration
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_states import PRIORITIES
from txgearman.broker.policy import NO_RUN_RULES
from txgearman.errors import FunctionNotFound, Refused
from txgearman.server.admin.answers import END, OK, Changed, Denied, Later, incomplete, refusal_line
from txgearman.server.config.function_options import MAX_RATE
from txgearman.server.config.run_limit_options import with_run_limit
from txgearman.server.persistence.slots import NO_SLOTS
from txgearman.wire.limits import MAX_FUNCTION
from txgearman.wire.names import escape, unescape

if TYPE_CHECKING:
    from txgearman.server.interfaces import Peer


def show_status(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    """``status``: each function, with its jobs, how many of them run, and its workers."""
    for view in Inspection(peer.broker).functions():
        yield b"%b\t%d\t%d\t%d\n" % (escape(view.name), view.total, view.running, view.workers)
    yield END


def show_priority_status(peer: Peer, _words: list[bytes]) -> Iterator[bytes]:
    """``prioritystatus``: each function, with its waiting jobs by priority, and its workers."""
    for view in Inspection(peer.broker).functions():
        waiting = b"\t".join([b"%d" % count for count in view.waiting])
        yield b"%b\t%b\t%d\n" % (escape(view.name), waiting, view.workers)
    yield END


def create_function(peer: Peer, words: list[bytes]) -> bytes:
    """``create function NAME``."""
    _check_is_function(words)
    # gearmand cuts the last letter off the name where the line ends in LF alone.
    Administration(peer.broker).create_function(_function_name(words, 2))
    return OK


def drop_function(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``drop function NAME``, which is refused while it has jobs or workers."""
    _check_is_function(words)
    try:
        # gearmand finds the function whatever the case of its name, here alone.
        Administration(peer.broker).drop_function(words[2])
    except Refused as error:
        raise Denied(error.text) from None
    return _when_stored(peer)


def show_functions(peer: Peer) -> Iterator[bytes]:
    """``show functions``: the state of each, what is counted of it, and how long its oldest job has
    waited."""
    for view in Inspection(peer.broker).function_details():
        state = b"paused-by-failures" if view.paused_itself else b"paused" if view.paused else b"active"
        columns = (
            sum(view.queued),
            sum(view.scheduled) - view.retrying,
            view.retrying,
            view.running,
            view.dead,
            view.workers,
            view.blocked,
            view.submitted,
            view.completed,
            view.failed,
            view.dropped,
            view.requeued,
            view.refused,
        )
        oldest = b"-" if view.oldest is None else b"%.3f" % view.oldest
        counts = b"\t".join([b"%d" % each for each in columns])
        yield b"%b\t%b\t%b\t%b\n" % (escape(view.name), state, oldest, counts)
    yield END


def pause_function(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``pause function NAME``: its jobs are given to no worker."""
    return _with_function(peer, Administration(peer.broker).pause_function, words)


def resume_function(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``resume function NAME``."""
    return _with_function(peer, Administration(peer.broker).resume_function, words)


def _with_function(peer: Peer, verb: Callable[[bytes], None], words: list[bytes]) -> bytes | Later:
    """Call a verb for the function that the third word names. Raises `Denied` if there is none."""
    try:
        verb(unescape(words[2]))
    except FunctionNotFound:
        raise Denied("UNKNOWN_FUNCTION") from None
    return _when_stored(peer)


def _when_stored(peer: Peer) -> bytes | Later:
    """The answer to a command that has set something: ``OK`` when that is durable. Where it cannot be stored
    now it holds all the same, and the answer says both."""
    if peer.broker.functions.setting_store is None:
        return OK
    return Later(Administration(peer.broker).when_stored, _answer_stored)


def _answer_stored(refusal: Refused | None) -> Changed:
    return Changed(OK if refusal is None else refusal_line(refusal))


def _check_is_function(words: list[bytes]) -> None:
    if words[1].lower() != b"function":
        raise incomplete(words)


def _function_name(words: list[bytes], place: int) -> bytes:
    """The name of a function that is made if it does not exist. gearmand makes one without a name of a line
    that ends there with a space."""
    name = words[place]
    if not name:
        raise incomplete(words)
    if len(name) > MAX_FUNCTION:
        raise Denied(f"ARGUMENT_TOO_LARGE A+function+name+has+at+most+{MAX_FUNCTION}+bytes")
    return name


def limit_queue(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``maxqueue f``, ``maxqueue f n``, ``maxqueue f high normal low``.

    As with gearmand no number, 0, a negative number and what is no number mean no limit, one number
    is for all priorities, and of two the second is for normal and low has none.
    """
    if not words[-1]:
        # To gearmand the empty word after a last space is a number that means no limit.
        raise incomplete(words)
    numbers = [_limit(word) for word in words[2:]]
    if len(numbers) == 1:
        numbers *= PRIORITIES
    limits = (numbers + [None] * PRIORITIES)[:PRIORITIES]
    Administration(peer.broker).set_limits(_function_name(words, 1), tuple(limits))
    return _when_stored(peer)


def limit_rate(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``maxrate f``, ``maxrate f jobs-a-second``, ``maxrate f jobs-a-second burst``."""
    try:
        rate = float(words[2]) + 0.0 if len(words) > 2 else 0.0  # -0 becomes 0
        burst = int(words[3]) if len(words) > 3 else 0
    except ValueError:
        raise Denied("INVALID_ARGUMENTS A+rate+and+a+burst+are+numbers") from None
    if not (0 <= rate <= MAX_RATE and 0 <= burst <= MAX_RATE):
        raise Denied(f"INVALID_ARGUMENTS A+rate+and+a+burst+are+0+to+{MAX_RATE}")
    Administration(peer.broker).set_rate(_function_name(words, 1), rate, burst)
    return _when_stored(peer)


def limit_runs(peer: Peer, words: list[bytes]) -> bytes | Later:
    """``limit f``, which ends all limits of its runs, or ``limit f max-running n``, and so on."""
    name = _function_name(words, 1)
    if len(words) == 3:
        raise incomplete(words)
    rules = NO_RUN_RULES
    if len(words) > 2:
        function = peer.broker.functions.by_name.get(name)
        if function is not None and function.run_limits is not None:
            rules = function.run_limits.rules
        try:
            rules = with_run_limit(rules, words[2].decode(), unescape(words[3]).decode())
        except ValueError as error:
            reason = ascii(str(error))[1:-1].replace(" ", "+")
            raise Denied(f"INVALID_ARGUMENTS {reason}") from None
    Administration(peer.broker).limit_runs(name, rules)
    return _when_stored(peer)


def _limit(word: bytes) -> int | None:
    return int(word) or None if word.isdigit() and len(word) < 20 else None


def show_function_limits(peer: Peer) -> Iterator[bytes]:
    """``show function limits``: those of each function with some, 0 for none, and how often they refused.
    Last how many slots of limits that several servers share this one has, and how many it waits for."""
    store_writer = peer.server.store_writer
    slots = {} if store_writer is None else store_writer.slots.by_function
    for view in Inspection(peer.broker).limits():
        queued = b"\t".join([b"%d" % (limit or 0) for limit in view.queued])
        rate = b"%g\t%d" % (view.per_second, view.burst)
        runs = view.runs
        starts = b"%d\t%g\t%d" % (runs.max_running, runs.start_rate, runs.start_burst)
        keys = b"%d\t%b" % (runs.max_running_per_key, escape(runs.key_separator))
        shared = b"%d\t%d" % slots.get(view.name, NO_SLOTS)
        columns = escape(view.name), queued, rate, view.refused, starts, keys, runs.pause_after, shared
        yield b"%b\t%b\t%b\t%d\t%b\t%b\t%d\t%b\n" % columns
    yield END
