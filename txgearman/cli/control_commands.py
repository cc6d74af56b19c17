"""Declares the commands that tell servers what to do: arguments, options and help.

What they do is in `control` and `limits`.
"""

from __future__ import annotations

from typing import Any

import click

from txgearman.cli.completion import complete_function, complete_handle, complete_worker
from txgearman.cli.options import common_options, json_option, run_and_exit, timeout_option
from txgearman.cli.parameters import QueueLimit, QueueLimits, WholeNumber

_functions = click.argument(
    "functions", metavar="FUNCTION...", nargs=-1, required=True, shell_complete=complete_function
)


@click.command(short_help="Cancel jobs.")
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True, shell_complete=complete_handle)
@common_options
@timeout_option
@click.option(
    "--force",
    is_flag=True,
    help="End the connection of a worker that cannot be told to stop. Its other jobs go to other workers.",
)
def cancel(
    handles: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float, force: bool
) -> None:
    """Cancel the job of each HANDLE.

    A worker of txgearman that runs the job stops it. Others go on, and what they report is dropped.
    """
    from txgearman.cli import control

    run_and_exit(control.cancel(servers, timeout, handles, force), verbose)


@click.command(short_help="Pause functions.")
@_functions
@common_options
@timeout_option
def pause(functions: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let the servers give no job of each FUNCTION to a worker. New jobs are taken, and running ones go
    on."""
    from txgearman.cli import control

    run_and_exit(control.pause(servers, timeout, functions), verbose)


@click.command(short_help="Let paused functions go on.")
@_functions
@common_options
@timeout_option
def resume(functions: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let the servers give jobs of each FUNCTION to workers again, also after a pause by failures."""
    from txgearman.cli import control

    run_and_exit(control.resume(servers, timeout, functions), verbose)


@click.command(short_help="Forget functions.")
@_functions
@common_options
@timeout_option
def drop(functions: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let the servers forget each FUNCTION, with its limits. It must have no jobs and no workers."""
    from txgearman.cli import control

    run_and_exit(control.drop(servers, timeout, functions), verbose)


@click.command(short_help="Give workers no more jobs.")
@click.argument(
    "numbers",
    metavar="NUMBER...",
    nargs=-1,
    required=True,
    type=WholeNumber(min=0),
    shell_complete=complete_worker,
)
@common_options
@timeout_option
@click.option("--off", is_flag=True, help="Give them jobs again.")
def quiet(
    numbers: tuple[int, ...], servers: tuple[str, ...], verbose: bool, timeout: float, off: bool
) -> None:
    """Give the worker of each connection NUMBER no more jobs. Those that it has stay with it.

    txgearman workers shows the numbers. They end with their connections.
    """
    from txgearman.cli import control

    run_and_exit(control.quiet(servers, timeout, numbers, off), verbose)


@click.command(short_help="Show and set limits.")
@click.argument("function", required=False, shell_complete=complete_function)
@common_options
@timeout_option
@json_option
@click.option(
    "--max-queue",
    metavar="LIMIT",
    type=QueueLimits(),
    help="Jobs that it may have: a number, three for high, normal and low priority between commas, or none.",
)
@click.option(
    "--max-rate", metavar="N", type=click.FloatRange(min=0), help="New jobs a second; 0 is no limit."
)
@click.option("--rate-burst", metavar="N", type=WholeNumber(min=0), help="How many of them may come at once.")
@click.option(
    "--max-running", metavar="N", type=WholeNumber(min=0), help="Jobs that may run at once; 0 is no limit."
)
@click.option(
    "--start-rate",
    metavar="N",
    type=click.FloatRange(min=0),
    help="Jobs that may begin to run in a second; 0 is no limit.",
)
@click.option(
    "--start-burst", metavar="N", type=WholeNumber(min=0), help="How many of them may begin at once."
)
@click.option(
    "--max-running-per-key",
    metavar="N",
    type=WholeNumber(min=0),
    help="Jobs of one key that may run at once; 0 is no limit.",
)
@click.option("--key-separator", metavar="TEXT", help="What ends the key in a unique.")
@click.option(
    "--pause-after",
    metavar="N",
    type=WholeNumber(min=0),
    help="Failed runs in a row that pause the function; 0 is never.",
)
@click.option("--none", "none", is_flag=True, help="Remove all limits of the function first.")
def limits(
    function: str | None,
    servers: tuple[str, ...],
    verbose: bool,
    timeout: float,
    as_json: bool,
    max_queue: tuple[int | None, ...] | None,
    max_rate: float | None,
    rate_burst: int | None,
    none: bool,
    **runs: Any,
) -> None:
    """Show the limits of the servers and of their functions, or show and set those of FUNCTION.

    A lowered limit ends no job. What is set is kept in the store, if the server has one.
    """
    from txgearman.cli.limits import LimitChanges
    from txgearman.cli.limits import limits as run_limits

    by_setting = {name.replace("_", "-"): value for name, value in runs.items()}
    changes = LimitChanges(none, max_queue, max_rate, rate_burst, by_setting)
    if function is None and changes.is_any:
        raise click.UsageError("say of which FUNCTION the limits are to be set")
    if rate_burst is not None and max_rate is None:
        raise click.UsageError("--rate-burst needs --max-rate")
    run_and_exit(run_limits(servers, timeout, as_json, function, changes), verbose)


@click.command(short_help="Limit how many jobs a function may have.")
@click.argument("function", shell_complete=complete_function)
@click.argument("limits", metavar="LIMIT...", nargs=-1, required=True, type=QueueLimit())
@common_options
@timeout_option
def maxqueue(
    function: str, limits: tuple[int | None, ...], servers: tuple[str, ...], verbose: bool, timeout: float
) -> None:
    """Refuse further jobs of FUNCTION while it has LIMIT of them, waiting and running.

    One LIMIT is for all priorities, three are for jobs of high, normal and low priority. A LIMIT is a
    number above 0, or none.
    """
    if len(limits) not in {1, 3}:
        raise click.UsageError("give one LIMIT, or three: for high, normal and low priority")
    from txgearman.cli.limits import maxqueue

    run_and_exit(maxqueue(servers, timeout, function, limits), verbose)


@click.command(short_help="Let servers end with their running jobs.")
@common_options
@timeout_option
def drain(servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let each server take no new job, and end when those that run have ended, as SIGTERM does.

    It waits for them as long as its --drain-timeout says. What is queued stays in the store, if there is one.
    """
    from txgearman.cli import control

    run_and_exit(control.drain(servers, timeout), verbose)


@click.command(short_help="Let servers read their configuration again.")
@common_options
@timeout_option
def reload(servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let each server read its configuration file again, as SIGHUP does, and show what has changed."""
    from txgearman.cli import control

    run_and_exit(control.reload(servers, timeout), verbose)


@click.command(short_help="Stop servers.")
@common_options
@timeout_option
@click.option("-g", "--graceful", is_flag=True, help="Let the jobs it has end first.")
def shutdown(servers: tuple[str, ...], verbose: bool, timeout: float, graceful: bool) -> None:
    """Stop each server. gearmand 1.1.15 and later refuses."""
    from txgearman.cli import control

    run_and_exit(control.shutdown(servers, timeout, graceful), verbose)
