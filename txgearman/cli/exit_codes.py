"""How a run of the command ends: the exit codes, and the one line that a person reads of an error. No I/O."""

from __future__ import annotations

from enum import IntEnum

from txgearman import errors


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    JOB_FAILED = 1
    """A job failed, or some of many did not give their results."""
    USAGE = 2
    """The arguments are wrong."""
    NOT_CONNECTED = 3
    """No server can be reached, or the connection was lost before the answer came."""
    TIMED_OUT = 4
    """No answer came within the time limit."""
    REFUSED = 5
    """The server does not know what was asked for, a handle for example, or refuses."""
    DEFECT = 70
    """This program is wrong."""
    NOT_WRITTEN = 74
    """Standard output, or a file, cannot be written or read: the disk is full, for example."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of SIGINT, as shells say it; so the two below."""
    BROKEN_PIPE = 141
    """Nobody reads standard output any more."""
    TERMINATED = 143


class NotFound(errors.GearmanError):
    """The command was asked about something that no server knows."""


class InvalidArgument(errors.GearmanError):
    """Only the client or the worker could see that an argument of the command is wrong."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a run that `error` ended."""
    for kind, code in _EXITS:
        if isinstance(error, kind):
            return code
    return ExitCode.DEFECT


def error_line(error: BaseException) -> str:
    """What a person is told of `error`, on one line."""
    if exit_code_of(error) is ExitCode.DEFECT:
        return f"this is a defect of txgearman: {type(error).__name__}: {printable(str(error))}"
    if isinstance(error, OSError):
        return f"input or output failed: {error.strerror or error}"
    return printable(str(error) or type(error).__name__)


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


_EXITS: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (errors.TimedOut, ExitCode.TIMED_OUT),
    (errors.ConnectionLost, ExitCode.NOT_CONNECTED),
    (errors.JobError, ExitCode.JOB_FAILED),
    (errors.UpdatesLost, ExitCode.JOB_FAILED),
    (errors.ServerError, ExitCode.REFUSED),
    (errors.AdminError, ExitCode.REFUSED),
    (NotFound, ExitCode.REFUSED),
    (InvalidArgument, ExitCode.USAGE),
    (OSError, ExitCode.NOT_WRITTEN),
)
