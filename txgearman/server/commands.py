"""What each packet type asks of the broker: one table, a few lines each, no decisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from txgearman.access.policy import Right
from txgearman.broker.inspection import Inspection
from txgearman.broker.job_states import Priority
from txgearman.broker.numbers import leading_number
from txgearman.broker.result_lookup import NO_RESULT, FoundResult, ResultState
from txgearman.broker.stored_job_search import StoredJobSearch
from txgearman.broker.views import JobStatus
from txgearman.broker.worker_decisions import WorkerDecisions
from txgearman.errors import ArgumentTooLarge, BadPacket, InvalidArgument, Refused
from txgearman.server.admin.commands import answer_line
from txgearman.server.extensions.submit_attributes import MAX_EPOCH, read_submit_attributes
from txgearman.server.schedules.submit_sched import schedule_of_packet, submit_schedule
from txgearman.wire.attributes import format_attributes
from txgearman.wire.codec import REFUSED, UNFINISHED, encode, frame
from txgearman.wire.limits import MAX_CLIENT_ID, MAX_FUNCTION, MAX_HANDLE, MAX_UNIQUE
from txgearman.wire.options import EXCEPTIONS, EXTENSIONS, OUTCOMES
from txgearman.wire.packets import (
    BY_NUMBER,
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    EXTENSION_PACKETS,
    GET_RESULT,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_EXTENDED,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    OPTION_REQ,
    OPTION_RES,
    PACKETS,
    PRE_SLEEP,
    RESET_ABILITIES,
    RESPONSE,
    RESULT_RES,
    SET_CLIENT_ID,
    STATUS_RES,
    STATUS_RES_UNIQUE,
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
    TEXT,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_FAIL_EXTENDED,
    WORK_HEARTBEAT,
    WORK_REJECT,
    WORK_RETRY,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from txgearman.broker.entities import Job
    from txgearman.server.interfaces import Peer

Command = Callable[..., None]

MIN_TIMEOUT: Final = 1.0
"""Seconds; gearmand raises a shorter CAN_DO_TIMEOUT to this."""

MAX_TIMEOUT: Final = 10 * 365 * 86400.0
"""Seconds; ten years stand for any longer CAN_DO_TIMEOUT."""

MAX_RETRY_DELAY: Final = MAX_TIMEOUT
"""Seconds; they stand for any longer delay of WORK_RETRY."""

_HIGH, _NORMAL, _LOW = int(Priority.HIGH), int(Priority.NORMAL), int(Priority.LOW)
_NO_JOB: Final = frame(RESPONSE, NO_JOB, b"")

_NO_REDUCER_NOR_ATTRIBUTES: Final = b"\0"
"""Two empty fields of JOB_ASSIGN_EXTENDED, joined."""

_AROUND_DATA: Final = 32
"""Bytes of a report beside its data, as many as it has at least: its header, and a handle."""


# -- submitting ---------------------------------------------------------------------------------


def check_names(function: bytes, unique: bytes = b"") -> None:
    """Raises `ArgumentTooLarge` for a name that is too long."""
    if len(unique) > MAX_UNIQUE:
        raise ArgumentTooLarge("Unique value too large")
    if len(function) > MAX_FUNCTION:
        raise ArgumentTooLarge("Function name too large")


def _submit(priority: int, background: bool) -> Command:
    def submit(peer: Peer, function: bytes, unique: bytes, data: bytes) -> None:
        # Looked at here too, to spare nearly every submit a call.
        if len(unique) > MAX_UNIQUE or len(function) > MAX_FUNCTION:
            check_names(function, unique)
        peer.broker.submissions.submit(peer.client, function, unique, data, priority, background)

    return submit


def _submit_epoch(peer: Peer, function: bytes, unique: bytes, epoch: bytes, data: bytes) -> None:
    check_names(function, unique)
    # gearmand takes what is no number for 0, which is at once, and answers nothing to one that
    # overflows.
    run_at = _integer(epoch, "epoch time")
    if run_at > MAX_EPOCH:
        raise InvalidArgument(f"Epoch time must not exceed {MAX_EPOCH}")
    # A time before 1970 is at once too, and databases need not know how to write it.
    peer.broker.submissions.submit(peer.client, function, unique, data, _NORMAL, True, None, max(run_at, 0))


def _submit_reduce(background: bool) -> Command:
    def submit(
        peer: Peer, function: bytes, unique: bytes, reducer: bytes, _aggregator: bytes, data: bytes
    ) -> None:
        check_names(function, unique)
        if len(reducer) > MAX_FUNCTION:
            raise ArgumentTooLarge("Reducer name too large")
        peer.broker.submissions.submit(peer.client, function, unique, data, _NORMAL, background, reducer)

    return submit


def _submit_extended(peer: Peer, function: bytes, unique: bytes, attributes: bytes, data: bytes) -> None:
    check_names(function, unique)
    said = read_submit_attributes(attributes)
    peer.broker.submissions.submit(
        peer.client, function, unique, data, said.priority, said.background, None, said.run_at, said.options
    )


def _submit_sched(peer: Peer, function: bytes, unique: bytes, *fields: bytes) -> None:
    check_names(function, unique)
    *times, data = fields
    weekdays = peer.server.settings.sched_weekday
    submit_schedule(peer, schedule_of_packet(function, unique, times, data, weekdays))


# -- status and connection ----------------------------------------------------------------------


def _numbers(status: JobStatus) -> tuple[bytes, bytes, bytes, bytes]:
    return (
        b"%d" % status.known,
        b"%d" % status.running,
        b"%d" % status.numerator,
        b"%d" % status.denominator,
    )


def _found(found: JobStatus | Refused, answer: Callable[[JobStatus], tuple[Any, ...]]) -> bytes:
    """The packet for a status that was asked of the store."""
    if isinstance(found, Refused):
        return error_packet(found.code, found.text)
    number, *fields = answer(found)
    return encode(RESPONSE, number, fields)


def _get_status(peer: Peer, handle: bytes) -> None:
    if len(handle) > MAX_HANDLE:
        # gearmand does not answer at all.
        raise ArgumentTooLarge("Job handle too large")
    status = Inspection(peer.broker).status(handle)
    if not status.known and peer.server.scheduling.named(handle) is not None:
        status = JobStatus(True, False, 0, 0, 0)
    if status.known or not Inspection(peer.broker).may_have_stored_jobs:
        peer.send_packet(STATUS_RES, handle, *_numbers(status))
    else:
        peer.reply_later(
            partial(StoredJobSearch(peer.broker).seek_status, handle),
            lambda found: _found(found, lambda status: (STATUS_RES, handle, *_numbers(status))),
        )


def _get_status_unique(peer: Peer, unique: bytes) -> None:
    if len(unique) > MAX_UNIQUE:
        raise ArgumentTooLarge("Unique value too large")
    status = Inspection(peer.broker).status_by_unique(unique)
    if status.known or not Inspection(peer.broker).may_have_stored_jobs:
        peer.send_packet(STATUS_RES_UNIQUE, unique, *_numbers(status), b"%d" % status.clients)
    else:
        peer.reply_later(
            partial(StoredJobSearch(peer.broker).seek_status_by_unique, unique),
            lambda found: _found(
                found,
                lambda status: (STATUS_RES_UNIQUE, unique, *_numbers(status), b"%d" % status.clients),
            ),
        )


def _get_result(peer: Peer, handle: bytes, wait: bytes) -> None:
    if len(handle) > MAX_HANDLE:
        raise ArgumentTooLarge("Job handle too large")
    if wait not in (b"0", b"1"):
        raise InvalidArgument("Wait must be 0 or 1")

    def answer(found: FoundResult | Refused) -> bytes:
        try:
            if isinstance(found, Refused):
                raise found
            if peer.access is not None and not peer.rights.may(Right.VIEW):
                # A reload has taken the right away meanwhile, as `ResultWaits.deny` has it.
                found = NO_RESULT
            if found.state is ResultState.PENDING and wait == b"1":
                peer.server.results.wait(handle, ended, peer.number)
        except Refused as refusal:
            return error_packet(refusal.code, refusal.text)
        return encode(RESPONSE, RESULT_RES, _result_fields(handle, found))

    def ended(found: FoundResult) -> None:
        peer.send_packet(RESULT_RES, *_result_fields(handle, found))

    peer.reply_later(partial(peer.server.results.find, handle), answer, alone=True)


def _result_fields(handle: bytes, found: FoundResult) -> tuple[bytes, bytes, bytes, bytes]:
    return handle, found.state.value.encode(), found.reason.encode(), found.data


def _echo(peer: Peer, data: bytes) -> None:
    peer.send_packet(ECHO_RES, data)


def _option(peer: Peer, option: bytes) -> None:
    name = option.lower()
    if name == EXCEPTIONS:
        peer.exceptions = True
    elif name in EXTENSIONS:
        peer.extensions |= {name}
    else:
        peer.send_error(b"UNKNOWN_OPTION", "Server does not recognize given option")
        return
    peer.send_packet(OPTION_RES, option)


def _set_client_id(peer: Peer, client_id: bytes) -> None:
    peer.set_client_id(client_id[:MAX_CLIENT_ID])


# -- working ------------------------------------------------------------------------------------


def _can_do(peer: Peer, function: bytes) -> None:
    check_names(function)
    peer.broker.can_do(peer.worker, function)


def _can_do_timeout(peer: Peer, function: bytes, milliseconds: bytes) -> None:
    check_names(function)
    # As gearmand: what is no number is no time limit.
    seconds = leading_number(milliseconds) / 1000
    timeout = min(max(seconds, MIN_TIMEOUT), MAX_TIMEOUT) if seconds > 0 else None
    peer.broker.can_do(peer.worker, function, timeout)


def _cant_do(peer: Peer, function: bytes) -> None:
    peer.broker.cant_do(peer.worker, function)


def _reset_abilities(peer: Peer) -> None:
    peer.broker.reset_abilities(peer.worker)


def _pre_sleep(peer: Peer) -> None:
    peer.broker.sleep(peer.worker)


def _grab(peer: Peer) -> None:
    job = peer.broker.grab(peer.worker)
    if job is None:
        peer.send(_NO_JOB)
        return
    if job.stored:
        peer.assigns_stored_job = True
    peer.send_packet(JOB_ASSIGN, job.handle, job.function.name, job.data)


def _grab_unique(peer: Peer) -> None:
    job = peer.broker.grab(peer.worker)
    if job is None:
        peer.send(_NO_JOB)
        return
    if job.stored:
        peer.assigns_stored_job = True
    peer.send_packet(JOB_ASSIGN_UNIQ, job.handle, job.function.name, job.unique, job.data)


def _grab_all(peer: Peer) -> None:
    job = peer.broker.grab(peer.worker)
    if job is None:
        peer.send(_NO_JOB)
        return
    if job.stored:
        peer.assigns_stored_job = True
    if OUTCOMES in peer.extensions:
        if job.extras is None and job.deadline is None:
            # Nearly all jobs: their first run, and nothing to say of it.
            said = _NO_REDUCER_NOR_ATTRIBUTES
        else:
            said = (job.reducer or b"") + b"\0" + _run_attributes(job)
        peer.send_packet(JOB_ASSIGN_EXTENDED, job.handle, job.function.name, job.unique, said, job.data)
    elif job.reducer is None:
        peer.send_packet(JOB_ASSIGN_UNIQ, job.handle, job.function.name, job.unique, job.data)
    else:
        peer.send_packet(JOB_ASSIGN_ALL, job.handle, job.function.name, job.unique, job.reducer, job.data)


def _run_attributes(job: Job) -> bytes:
    """What a worker is told of a run that has just begun."""
    values = {}
    if job.failures is not None and job.failures.attempts:
        values["attempt"] = str(job.failures.attempts + 1)
    if job.losses:
        values["losses"] = str(job.losses)
    if job.deadline is not None and job.deadline.heartbeat is not None:
        values["heartbeat"] = f"{job.deadline.heartbeat.interval:.12g}"
    if job.options is not None and job.options.traceparent is not None:
        values["traceparent"] = job.options.traceparent
    return format_attributes(values)


def _work_data(peer: Peer, handle: bytes, data: bytes) -> None:
    told = peer.broker.report_data(peer.worker, handle, data)
    if told > 1:
        _fanned_out(peer, told, data)


def _work_warning(peer: Peer, handle: bytes, data: bytes) -> None:
    told = peer.broker.report_warning(peer.worker, handle, data)
    if told > 1:
        _fanned_out(peer, told, data)


def _work_status(peer: Peer, handle: bytes, numerator: bytes, denominator: bytes) -> None:
    told = peer.broker.report_status(peer.worker, handle, numerator, denominator)
    if told > 1:
        _fanned_out(peer, told, numerator + denominator)


def _work_complete(peer: Peer, handle: bytes, data: bytes) -> None:
    told = peer.broker.complete(peer.worker, handle, data)
    if told > 1:
        _fanned_out(peer, told, data)


def _work_fail(peer: Peer, handle: bytes) -> None:
    told = peer.broker.fail(peer.worker, handle)
    if told > 1:
        _fanned_out(peer, told, b"")


def _work_exception(peer: Peer, handle: bytes, data: bytes) -> None:
    told = peer.broker.exception(peer.worker, handle, data)
    if told > 1:
        _fanned_out(peer, told, data)


def _work_fail_extended(peer: Peer, handle: bytes, text: bytes) -> None:
    told = WorkerDecisions(peer.broker).fail(peer.worker, handle, text)
    if told > 1:
        _fanned_out(peer, told, text)


def _work_retry(peer: Peer, handle: bytes, milliseconds: bytes, counts: bytes, text: bytes) -> None:
    if counts not in {b"0", b"1"}:
        raise InvalidArgument("Whether the run counts must be 0 or 1")
    delay = None
    if milliseconds:
        delay = _integer(milliseconds, "delay") / 1000
        if delay < 0:
            raise InvalidArgument("Delay must not be negative")
        delay = min(delay, MAX_RETRY_DELAY)
    told = WorkerDecisions(peer.broker).retry(peer.worker, handle, delay, counts == b"1", text)
    if told > 1:
        _fanned_out(peer, told, text)


def _work_reject(peer: Peer, handle: bytes, text: bytes) -> None:
    told = WorkerDecisions(peer.broker).reject(peer.worker, handle, text)
    if told > 1:
        _fanned_out(peer, told, text)


def _work_heartbeat(peer: Peer, handle: bytes) -> None:
    WorkerDecisions(peer.broker).heartbeat(peer.worker, handle)


def _fanned_out(peer: Peer, told: int, data: bytes) -> None:
    """A report with `data` was told so many times."""
    peer.server.fanned_out(peer, told * (len(data) + _AROUND_DATA))


# -- what is no request -------------------------------------------------------------------------


def _refused(peer: Peer, error: BadPacket) -> None:
    peer.log_protocol_error(error)
    peer.send_error(error.code, error.text)


def _unfinished(peer: Peer, size: int) -> None:
    peer.note_unfinished(size)


def error_packet(code: bytes, text: str) -> bytes:
    """An ERROR packet."""
    return frame(RESPONSE, ERROR, code + b"\0" + text.encode())


def _not_expected(peer: Peer, *_fields: bytes) -> None:
    _refused(peer, BadPacket(b"INVALID_COMMAND", "Command not expected"))


def _extension(number: int, command: Command) -> Command:
    """A command that is refused to peers which have not asked for its option."""
    packet = BY_NUMBER[number]
    option = packet.option
    assert option is not None
    refusal = f"{packet.name} needs the option {option.decode()}, ask for it by OPTION_REQ"

    def checked(peer: Peer, *fields: Any) -> None:
        if option in peer.extensions:
            command(peer, *fields)
        else:
            _refused(peer, BadPacket(b"INVALID_COMMAND", refusal))

    return checked


_EXTENSIONS: Final[dict[int, Command]] = {
    GET_RESULT: _get_result,
    SUBMIT_JOB_EXTENDED: _submit_extended,
    WORK_RETRY: _work_retry,
    WORK_REJECT: _work_reject,
    WORK_HEARTBEAT: _work_heartbeat,
    WORK_FAIL_EXTENDED: _work_fail_extended,
}


def _integer(text: bytes, what: str) -> int:
    """The number that `text` is in decimal, of a length that converts fast."""
    if len(text) > 20 or not text.removeprefix(b"-").isdigit():
        raise InvalidArgument(f"{what.capitalize()} is not a decimal number of at most 20 digits")
    return int(text)


COMMANDS: Final[dict[int, Callable[..., Any]]] = {
    **{packet.number: _not_expected for packet in (*PACKETS, *EXTENSION_PACKETS)},
    TEXT: answer_line,
    REFUSED: _refused,
    UNFINISHED: _unfinished,
    SUBMIT_JOB: _submit(_NORMAL, background=False),
    SUBMIT_JOB_HIGH: _submit(_HIGH, background=False),
    SUBMIT_JOB_LOW: _submit(_LOW, background=False),
    SUBMIT_JOB_BG: _submit(_NORMAL, background=True),
    SUBMIT_JOB_HIGH_BG: _submit(_HIGH, background=True),
    SUBMIT_JOB_LOW_BG: _submit(_LOW, background=True),
    SUBMIT_JOB_EPOCH: _submit_epoch,
    SUBMIT_JOB_SCHED: _submit_sched,
    SUBMIT_REDUCE_JOB: _submit_reduce(background=False),
    SUBMIT_REDUCE_JOB_BACKGROUND: _submit_reduce(background=True),
    GET_STATUS: _get_status,
    GET_STATUS_UNIQUE: _get_status_unique,
    ECHO_REQ: _echo,
    OPTION_REQ: _option,
    SET_CLIENT_ID: _set_client_id,
    CAN_DO: _can_do,
    CAN_DO_TIMEOUT: _can_do_timeout,
    CANT_DO: _cant_do,
    RESET_ABILITIES: _reset_abilities,
    PRE_SLEEP: _pre_sleep,
    GRAB_JOB: _grab,
    GRAB_JOB_UNIQ: _grab_unique,
    GRAB_JOB_ALL: _grab_all,
    WORK_DATA: _work_data,
    WORK_WARNING: _work_warning,
    WORK_STATUS: _work_status,
    WORK_COMPLETE: _work_complete,
    WORK_FAIL: _work_fail,
    WORK_EXCEPTION: _work_exception,
    **{number: _extension(number, command) for number, command in _EXTENSIONS.items()},
}
"""What to call with the connection and the packet's fields, by packet number."""
