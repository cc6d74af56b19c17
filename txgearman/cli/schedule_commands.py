"""Declares the commands for schedules: arguments, options and help. What they do is in `schedules`."""

from __future__ import annotations

from typing import Any, BinaryIO

import click

from txgearman.cli.completion import complete_function, complete_schedule
from txgearman.cli.options import common_options, group_options, json_option, run_and_exit, timeout_option
from txgearman.cli.parameters import Duration

PRIORITIES = ("high", "normal", "low")
MISSED = ("skip", "one", "all")
OVERLAPS = ("skip", "queue")

_names = click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_schedule)


@click.group(short_help="Show, add, remove, pause and run recurring jobs.")
@group_options
def schedules() -> None:
    """Look after schedules, which let a server submit a job again and again."""


@schedules.command("list", short_help="Show the schedules.")
@common_options
@timeout_option
@json_option
def show(servers: tuple[str, ...], verbose: bool, timeout: float, as_json: bool) -> None:
    """Show the schedules of each server: when they are due next, and how many ticks had a job or none."""
    from txgearman.cli import schedules

    run_and_exit(schedules.show(servers, timeout, as_json), verbose)


@schedules.command(short_help="Add a schedule, or change one.")
@click.argument("name")
@click.option(
    "-f",
    "--function",
    metavar="FUNCTION",
    required=True,
    shell_complete=complete_function,
    help="What the jobs are to run.",
)
@click.option("--cron", metavar="FIELDS", help="When: five fields as cron has them, or @daily and its like.")
@click.option("--every", metavar="DURATION", type=Duration(), help="In place of --cron: how often.")
@click.option("--timezone", metavar="ZONE", help="The time zone of --cron, UTC by default.")
@click.option("--data", metavar="TEXT", help="The payload of each job.")
@click.option("--data-file", metavar="PATH", type=click.File("rb"), help="A file with the payload.")
@click.option("--unique", metavar="KEY", help="The unique of the jobs, the schedule's name by default.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="The priority of the jobs.")
@click.option("--jitter", metavar="DURATION", type=Duration(), help="Over how long the jobs are spread.")
@click.option("--missed", type=click.Choice(MISSED), help="What becomes of missed ticks.")
@click.option(
    "--missed-window", metavar="DURATION", type=Duration(), help="How long ago a tick may be missed."
)
@click.option("--overlap", type=click.Choice(OVERLAPS), help="What to do while the job before lives.")
@click.option("--disabled", is_flag=True, help="Let it not tick.")
@common_options
@timeout_option
def add(
    name: str,
    servers: tuple[str, ...],
    verbose: bool,
    timeout: float,
    data: str | None,
    data_file: BinaryIO | None,
    disabled: bool,
    **definition: Any,
) -> None:
    """Let the server submit a job again and again, under NAME. One of this name is replaced."""
    if (definition["cron"] is None) == (definition["every"] is None):
        raise click.UsageError("give --cron or --every, and one of them only")
    if data is not None and data_file is not None:
        raise click.UsageError("give --data or --data-file, and one of them only")
    from txgearman.cli import schedules

    payload = data_file.read() if data_file is not None else (data or "").encode("utf-8", "surrogateescape")
    definition["enabled"] = False if disabled else None
    run_and_exit(schedules.add(servers, timeout, name, definition, payload), verbose)


@schedules.command(short_help="Remove schedules.")
@_names
@common_options
@timeout_option
def remove(names: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Remove the schedule of each NAME. Jobs of it that are there go on."""
    from txgearman.cli import schedules

    run_and_exit(schedules.remove(servers, timeout, names), verbose)


@schedules.command(short_help="Let schedules rest.")
@_names
@common_options
@timeout_option
def pause(names: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let the schedule of each NAME rest. What it misses meanwhile is not made up for."""
    from txgearman.cli import schedules

    run_and_exit(schedules.pause(servers, timeout, names), verbose)


@schedules.command(short_help="Let paused schedules go on.")
@_names
@common_options
@timeout_option
def resume(names: tuple[str, ...], servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Let the schedule of each NAME go on with its next tick."""
    from txgearman.cli import schedules

    run_and_exit(schedules.resume(servers, timeout, names), verbose)


@schedules.command(short_help="Submit a job of a schedule now.")
@click.argument("name", shell_complete=complete_schedule)
@common_options
@timeout_option
def run(name: str, servers: tuple[str, ...], verbose: bool, timeout: float) -> None:
    """Submit a job of the schedule NAME now, also if it is paused, and print its handle.

    Of several servers the first does it that has the schedule.
    """
    from txgearman.cli import schedules

    run_and_exit(schedules.run_now(servers, timeout, name), verbose)
