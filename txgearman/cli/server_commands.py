"""Declares the commands that show what servers have, and those for failed jobs: arguments, options and help.

What they do is in `administration`, `jobs`, `dead_jobs` and `top`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import get_completion_class

from txgearman.cli.completion import complete_dead_handle, complete_function, complete_handle
from txgearman.cli.options import common_options, json_option, run_and_exit, timeout_option
from txgearman.cli.parameters import Duration

SHELLS = ("bash", "zsh", "fish")
STATES = ("saving", "scheduled", "queued", "stored", "running", "retrying")

interval_option = click.option(
    "-i",
    "--interval",
    metavar="DURATION",
    type=Duration(),
    default="1s",
    show_default=True,
    help="How often to look.",
)

_F = TypeVar("_F", bound=Callable[..., Any])


def _check_terminal(what: str, instead: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(f"{what} needs a terminal; in a pipe {instead}")


@click.command(short_help="Show the functions with their jobs and workers.")
@click.argument("functions", metavar="[FUNCTION]...", nargs=-1, shell_complete=complete_function)
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


@click.command(short_help="Show jobs, or the state of some.")
@click.argument("handles", metavar="[HANDLE]...", nargs=-1, shell_complete=complete_handle)
@common_options
@timeout_option
@json_option
@click.option(
    "-f",
    "--function",
    metavar="FUNCTION",
    shell_complete=complete_function,
    help="Only jobs of this function.",
)
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help="Only jobs in this state. Can be given several times.",
)
@click.option("-u", "--unique", metavar="KEY", help="Only jobs with this key.")
@click.option(
    "--older-than", metavar="DURATION", type=Duration(), help="Only jobs submitted so long ago, such as 5m."
)
@click.option("-w", "--watch", is_flag=True, help="Draw the list again and again; q ends it.")
@interval_option
def jobs(
    handles: tuple[str, ...],
    servers: tuple[str, ...],
    verbose: bool,
    timeout: float,
    as_json: bool,
    function: str | None,
    states: tuple[str, ...],
    unique: str | None,
    older_than: float | None,
    watch: bool,
    interval: float,
) -> None:
    """Show the jobs that a server has, or whether the job of each HANDLE runs and how far it is.

    Dead jobs are shown by txgearman dead, and all that is known of one job by txgearman job.
    """
    filters = (function, states or None, unique, older_than)
    if handles and (watch or any(each is not None for each in filters)):
        raise click.UsageError("give handles, or say which jobs to list")
    if watch and as_json:
        raise click.UsageError("--watch draws on a terminal, and writes no JSON")
    if watch:
        _check_terminal("--watch", "leave it away")
    from txgearman.cli.jobs import JobQuery, job_states, list_jobs

    if handles:
        run_and_exit(job_states(servers, timeout, as_json, handles), verbose)
    query = JobQuery(function, states, unique, older_than)
    if watch:
        from txgearman.cli.job_watch import watch_jobs

        run_and_exit(watch_jobs(servers, timeout, query, interval), verbose)
    run_and_exit(list_jobs(servers, timeout, as_json, query), verbose)


@click.command(short_help="Show all that is known of one job.")
@click.argument("handle", shell_complete=complete_handle)
@common_options
@timeout_option
@json_option
def job(handle: str, servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool) -> None:
    """Show the job of HANDLE with its data: one that waits, runs, is dead, or has ended not long ago."""
    from txgearman.cli import dead_jobs

    run_and_exit(dead_jobs.job(servers, timeout, as_json, handle), verbose)


@click.command(short_help="Write the result of an offline job.")
@click.argument("handle", shell_complete=complete_handle)
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
@click.option(
    "-f",
    "--function",
    metavar="FUNCTION",
    shell_complete=complete_function,
    help="Only jobs of this function.",
)
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
    handles = click.argument("handles", metavar="[HANDLE]...", nargs=-1, shell_complete=complete_dead_handle)
    function = click.option(
        "-f",
        "--function",
        metavar="FUNCTION",
        shell_complete=complete_function,
        help="All dead jobs of this function.",
    )
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


@click.command(short_help="Watch functions, jobs and workers.")
@common_options
@timeout_option
@interval_option
def top(servers: tuple[str, ...], verbose: bool, timeout: float, interval: float) -> None:
    """Watch the functions: jobs that wait and run, workers, how many jobs end in a second, and by how many
    there are more.

    The figures of several servers are added up. q ends it, s changes the order.
    """
    _check_terminal("top", "use status")
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
