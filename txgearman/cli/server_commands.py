"""Declares the commands that ask servers or tell them what to do: arguments, options and help.

What they do is in `administration`, `dead_jobs` and `top`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import get_completion_class

from txgearman.cli.options import common_options, json_option, run_and_exit, timeout_option
from txgearman.cli.parameters import Duration, QueueLimit

SHELLS = ("bash", "zsh", "fish")

_F = TypeVar("_F", bound=Callable[..., Any])


@click.command(short_help="Show the functions with their jobs and workers.")
@click.argument("functions", metavar="[FUNCTION]...", nargs=-1)
@common_options
@timeout_option
@json_option
def status(
    functions: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool
) -> None:
    """Show the jobs that wait and run, and the workers, of each FUNCTION, by default of all."""
    from txgearman.cli import administration

    run_and_exit(administration.status(servers, timeout, as_json, functions), verbose)


@click.command(short_help="Show the workers and what they can do.")
@common_options
@timeout_option
@json_option
@click.option("-a", "--all", "all_connections", is_flag=True, help="Show connections without functions, too.")
def workers(
    servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool, all_connections: bool
) -> None:
    """Show the connections that offer functions: address, client id and functions."""
    from txgearman.cli import administration

    run_and_exit(administration.workers(servers, timeout, as_json, all_connections), verbose)


@click.command(short_help="Show all jobs, or the state of some.")
@click.argument("handles", metavar="[HANDLE]...", nargs=-1)
@common_options
@timeout_option
@json_option
def jobs(
    handles: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool
) -> None:
    """Show the jobs that a server has, or whether the job of each HANDLE runs and how far it is."""
    from txgearman.cli import administration

    if handles:
        run_and_exit(administration.job_states(servers, timeout, as_json, handles), verbose)
    run_and_exit(administration.jobs(servers, timeout, as_json), verbose)


@click.command(short_help="Cancel jobs.")
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
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
    from txgearman.cli import administration

    run_and_exit(administration.cancel(servers, timeout, handles, force), verbose)


@click.command(short_help="Show all that is known of one job.")
@click.argument("handle")
@common_options
@timeout_option
@json_option
def job(handle: str, servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool) -> None:
    """Show the job of HANDLE with its data: one that waits, runs, is dead, or has ended not long ago."""
    from txgearman.cli import dead_jobs

    run_and_exit(dead_jobs.job(servers, timeout, as_json, handle), verbose)


@click.command(short_help="Write the result of an offline job.")
@click.argument("handle")
@common_options
@click.option("-w", "--wait", is_flag=True, help="Wait until the job has ended.")
@click.option(
    "--timeout",
    metavar="DURATION",
    type=Duration(),
    help="How long that may take, such as 30s; by default 10s, and with --wait no limit.",
)
def result(handle: str, servers: tuple[str, ...], verbose: bool, wait: bool, timeout: float | None) -> None:
    """Write the result of the offline job of HANDLE, if the server keeps results of its function."""
    from txgearman.cli import results

    run_and_exit(results.result(servers, handle, wait, timeout), verbose)


@click.command(short_help="Show dead jobs: those that failed and are kept.")
@common_options
@timeout_option
@json_option
@click.option("-f", "--function", metavar="FUNCTION", help="Only jobs of this function.")
@click.option(
    "--search",
    metavar="TEXT",
    default="",
    help="Only jobs with this text in handle, function, unique, error or data.",
)
def dead(
    servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool, function: str | None, search: str
) -> None:
    """Show the background jobs that failed and are kept to be run again, those that died last first.

    With --json all that is known of each is written, its data included.
    """
    from txgearman.cli import dead_jobs

    run_and_exit(dead_jobs.dead(servers, timeout, as_json, function, search), verbose)


def _which_dead_jobs(command: _F) -> _F:
    """Add what the commands take that do something with dead jobs."""
    handles = click.argument("handles", metavar="[HANDLE]...", nargs=-1)
    function = click.option("-f", "--function", metavar="FUNCTION", help="All dead jobs of this function.")
    all_jobs = click.option("--all", "all_jobs", is_flag=True, help="All dead jobs of all functions.")
    return handles(common_options(timeout_option(function(all_jobs(command)))))


@click.command(short_help="Run dead jobs again.")
@_which_dead_jobs
def retry(
    handles: tuple[str, ...],
    servers: tuple[str, ...],
    verbose: bool,
    timeout: float,
    function: str | None,
    all_jobs: bool,
) -> None:
    """Run the dead job of each HANDLE again, with its attempts anew. A job that waits for its next attempt
    is run at once.

    A job stays dead while another job of its function has its unique.
    """
    _check_one_choice(handles, function, all_jobs)
    from txgearman.cli import dead_jobs

    if handles:
        run_and_exit(dead_jobs.retry(servers, timeout, handles), verbose)
    run_and_exit(dead_jobs.retry_all(servers, timeout, function), verbose)


@click.command(short_help="Delete dead jobs.")
@_which_dead_jobs
def forget(
    handles: tuple[str, ...],
    servers: tuple[str, ...],
    verbose: bool,
    timeout: float,
    function: str | None,
    all_jobs: bool,
) -> None:
    """Delete the dead job of each HANDLE, with its data."""
    _check_one_choice(handles, function, all_jobs)
    from txgearman.cli import dead_jobs

    if handles:
        run_and_exit(dead_jobs.forget(servers, timeout, handles), verbose)
    run_and_exit(dead_jobs.forget_all(servers, timeout, function), verbose)


def _check_one_choice(handles: tuple[str, ...], function: str | None, all_jobs: bool) -> None:
    if [bool(handles), function is not None, all_jobs].count(True) != 1:
        raise click.UsageError("give handles, --function or --all, and one of these only")


@click.command(short_help="Limit how many jobs a function may have.")
@click.argument("function")
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
    from txgearman.cli import administration

    run_and_exit(administration.maxqueue(servers, timeout, function, limits), verbose)


@click.command(short_help="See whether the servers answer, and how fast.")
@common_options
@timeout_option
@json_option
def ping(servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool) -> None:
    """Send each server a few bytes, and show how long they take to come back."""
    from txgearman.cli import administration

    run_and_exit(administration.ping(servers, timeout, as_json), verbose)


@click.command(short_help="Show the versions of the servers.")
@common_options
@timeout_option
@json_option
def version(servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool) -> None:
    """Show the version of each server. That of this command is shown by txgearman --version."""
    from txgearman.cli import administration

    run_and_exit(administration.version(servers, timeout, as_json), verbose)


@click.command(short_help="Stop servers.")
@common_options
@timeout_option
@click.option("-g", "--graceful", is_flag=True, help="Let the jobs it has end first.")
def shutdown(servers: tuple[str, ...], verbose: bool, timeout: float, graceful: bool) -> None:
    """Stop each server. gearmand 1.1.15 and later refuses."""
    from txgearman.cli import administration

    run_and_exit(administration.shutdown(servers, timeout, graceful), verbose)


@click.command(short_help="Watch functions, jobs and workers.")
@common_options
@timeout_option
@click.option(
    "-i",
    "--interval",
    metavar="DURATION",
    type=Duration(),
    default="1s",
    show_default=True,
    help="How often to look.",
)
def top(servers: tuple[str, ...], verbose: bool, timeout: float, interval: float) -> None:
    """Watch the functions: jobs that wait and run, workers, and how fast the number of jobs changes.

    The figures of several servers are added up. q ends it, s changes the order.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; in a pipe use status")
    from txgearman.cli.top import watch

    run_and_exit(watch(servers, timeout, interval), verbose)


@click.command(short_help="Print the script that completes this command in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL needs to complete the arguments of txgearman."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "txgearman", "_TXGEARMAN_COMPLETE").source())
