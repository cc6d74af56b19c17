"""The exit codes of the command, and the text that is printed for an error. No I/O."""

from __future__ import annotations

from enum import IntEnum

from txgearman import errors


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    JOB_FAILED = 1
    """A job failed, or at least one of many gave no result."""
    USAGE = 2
    """The arguments are wrong."""
    NOT_CONNECTED = 3
    """No server can be reached, or the connection was lost before the answer came."""
    TIMED_OUT = 4
    """No answer came within the time limit."""
    REFUSED = 5
    """The server does not know a job or function, or refuses."""
    PENDING = 6
    """The job whose result was asked for has not ended."""
    DEFECT = 70
    """This program has a defect."""
    NOT_WRITTEN = 74
    """Standard output or a file cannot be written or read; the disk is full, for example."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of the signal, as shells do it. The two below are made alike."""
    BROKEN_PIPE = 141
    """Standard output has no reader any more."""
    TERMINATED = 143


class NotFound(errors.GearmanError):
    """No server knows what the command asks about."""


class InvalidArgument(errors.GearmanError):
    """An argument of the command is wrong, and only the client or the worker could see that."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a command that raised `error`."""
    for kind, code in _EXITS:
        if isinstance(error, kind):
            return code
    return ExitCode.DEFECT


def error_text(error: BaseException) -> str:
    """What is printed for `error`, its notes included.

    It is one line, but for what a job's function raised. Further lines are indented there, so that none can
    be taken for a message of the command.
    """
    if isinstance(error, errors.JobRaised):
        return "\n  ".join(map(printable, str(error).rstrip().split("\n")))
    if exit_code_of(error) is ExitCode.DEFECT:
        return f"this is a defect of txgearman: {type(error).__name__}: {printable(str(error))}"
    if isinstance(error, OSError):
        return f"input or output failed: {error.strerror or error}"
    text = printable(str(error) or type(error).__name__)
    notes = getattr(error, "__notes__", ())
    return ". ".join([text.rstrip("."), *notes]) if notes else text


def printable(text: str) -> str:
    """`text` on one line, with control characters escaped: a terminal would obey them."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


_EXITS: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (errors.TimedOut, ExitCode.TIMED_OUT),
    (errors.ConnectionLost, ExitCode.NOT_CONNECTED),
    (errors.ResultPending, ExitCode.PENDING),
    (errors.UnknownJob, ExitCode.REFUSED),
    (errors.JobError, ExitCode.JOB_FAILED),
    (errors.UpdatesLost, ExitCode.JOB_FAILED),
    (errors.ServerError, ExitCode.REFUSED),
    (errors.AdminError, ExitCode.REFUSED),
    (NotFound, ExitCode.REFUSED),
    (InvalidArgument, ExitCode.USAGE),
    (OSError, ExitCode.NOT_WRITTEN),
)
