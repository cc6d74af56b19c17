"""What the commands do that tell servers what to do: cancel, pause, drop, quiet, drain, reload, shut down.

How several servers are asked is in `asking`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from txgearman.cli.asking import (
    NEEDS_TXGEARMAN,
    ServerReplies,
    ask_admins,
    ask_servers,
    check_handles,
    unknown_job,
    with_admin,
)
from txgearman.cli.exit_codes import ExitCode, InvalidArgument
from txgearman.cli.run import CommandContext, Main, print_message
from txgearman.client import Admin
from txgearman.errors import AdminError

Ask = Callable[[Admin], Awaitable[Any]]
"""Tells one server something."""

_NO_PAUSE: Final = f"this server cannot pause functions: {NEEDS_TXGEARMAN}"
_NO_QUIET: Final = f"this server cannot quiet workers: {NEEDS_TXGEARMAN}"
_NO_DRAIN: Final = f"this server cannot drain, end it with a signal: {NEEDS_TXGEARMAN}"
_NO_SHUTDOWN: Final = "this server ends by signals alone, as gearmand since 1.1.15"
_NO_RELOAD: Final = f"this server has no configuration to reload: {NEEDS_TXGEARMAN}"


def cancel(servers: Sequence[str], timeout: float, handles: Sequence[str], force: bool) -> Main:
    """Cancel each job at the server that knows it."""

    async def main(context: CommandContext) -> int:
        check_handles(handles)
        code: int = ExitCode.OK
        for handle in handles:
            cancel_it = partial(Admin.cancel, handle=handle, force=force)
            ask = partial(_unless_unknown, cancel_it, "UNKNOWN_JOB")
            replies = await ask_servers(context, servers, with_admin(context, timeout, ask))
            if any(replies.by_server.values()):
                print(f"{handle} cancelled")
                continue
            if replies.by_server:
                print_message(unknown_job(handle))
            code = code or replies.code or ExitCode.REFUSED
        return code

    return main


async def _unless_unknown(ask: Ask, refusal: str, admin: Admin) -> bool:
    """Tell a server something. Returns False if its refusal begins with `refusal`, and raises any other."""
    try:
        await ask(admin)
    except AdminError as error:
        if not error.text.startswith(refusal):
            raise
        return False
    return True


def pause(servers: Sequence[str], timeout: float, functions: Sequence[str]) -> Main:
    """Pause each function at the servers that know it."""
    return _each_function(servers, timeout, functions, Admin.pause_function, "paused", _NO_PAUSE)


def resume(servers: Sequence[str], timeout: float, functions: Sequence[str]) -> Main:
    """Resume each function at the servers that know it."""
    return _each_function(servers, timeout, functions, Admin.resume_function, "resumed", _NO_PAUSE)


def drop(servers: Sequence[str], timeout: float, functions: Sequence[str]) -> Main:
    """Let the servers that know a function forget it."""
    no_drop = "this server cannot drop functions"
    return _each_function(servers, timeout, functions, Admin.drop_function, "dropped", no_drop)


def _each_function(
    servers: Sequence[str],
    timeout: float,
    functions: Sequence[str],
    verb: Callable[[Admin, bytes], Awaitable[None]],
    done: str,
    foreign: str,
) -> Main:
    """Do something with each function, and print what became of it."""

    async def main(context: CommandContext) -> int:
        code: int = ExitCode.OK
        for function in functions:
            name = function.encode("utf-8", "surrogateescape")

            async def tell(_server: str, admin: Admin, name: bytes = name) -> bool:
                try:
                    asked = verb(admin, name)
                except ValueError as error:
                    raise InvalidArgument(str(error)) from error
                try:
                    await asked
                except AdminError as error:
                    if error.text.startswith("UNKNOWN_FUNCTION") or error.text == "function not found":
                        return False
                    raise
                return True

            replies = await ask_admins(context, servers, timeout, tell, foreign)
            ended = _say(replies, f"{function} {done}", f"no server knows the function {function}")
            code = code or ended
        return code

    return main


def quiet(servers: Sequence[str], timeout: float, numbers: Sequence[int], off: bool) -> Main:
    """Give the workers of these connections no more jobs, or jobs again."""

    async def main(context: CommandContext) -> int:
        code: int = ExitCode.OK
        for number in numbers:
            verb = partial(Admin.quiet, number=number, quiet=off is False)

            async def tell(_server: str, admin: Admin, verb: Ask = verb) -> bool:
                return await _unless_unknown(verb, "UNKNOWN_CONNECTION", admin)

            replies = await ask_admins(context, servers, timeout, tell, _NO_QUIET)
            done = f"{number} gets jobs again" if off else f"{number} gets no more jobs"
            ended = _say(replies, done, f"no server has a connection {number}; txgearman workers shows them")
            code = code or ended
        return code

    return main


def _say(replies: ServerReplies[bool], done: str, unknown: str) -> int:
    """Say whether any server did what it was told; returns the exit code."""
    if any(replies.by_server.values()):
        print(done)
    elif replies.by_server:
        print_message(unknown)
        return ExitCode.REFUSED
    return replies.code


def drain(servers: Sequence[str], timeout: float) -> Main:
    """Let the servers end as soon as the jobs that run have ended."""

    async def main(context: CommandContext) -> int:
        replies = await ask_admins(context, servers, timeout, lambda _server, admin: admin.drain(), _NO_DRAIN)
        for server in replies.by_server:
            print(f"{server} drains, and ends with its running jobs")
        return replies.code

    return main


def reload(servers: Sequence[str], timeout: float) -> Main:
    """Let the servers read their configuration again, and print what changed."""

    async def main(context: CommandContext) -> int:
        replies = await ask_admins(
            context, servers, timeout, lambda _server, admin: admin.reload(), _NO_RELOAD
        )
        for server, summary in replies.by_server.items():
            print(f"{server}: {summary}" if len(set(servers)) > 1 else summary)
        return replies.code

    return main


def shutdown(servers: Sequence[str], timeout: float, graceful: bool) -> Main:
    """Stop the servers."""

    async def main(context: CommandContext) -> int:
        replies = await ask_admins(
            context, servers, timeout, lambda _server, admin: admin.shutdown(graceful), _NO_SHUTDOWN
        )
        return replies.code

    return main
