"""The command ``txgearman``, composed of its commands. Each of these is declared elsewhere."""

from __future__ import annotations

import click

from txgearman.cli import control_commands, job_commands, schedule_commands, server_commands
from txgearman.cli.options import group_options
from txgearman.version import VERSION, build


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a job failed, 2 wrong arguments, 3 no connection, 4 out of time, "
    "5 unknown to or refused by the server, 6 not ended yet, 74 output not written, "
    "128 + n ended by signal n.",
)
@group_options
@click.version_option(f"{VERSION} ({build()})", message="txgearman %(version)s")
def app() -> None:
    """Submit, run and look after the jobs of Gearman servers."""


for command in (
    job_commands.submit,
    job_commands.worker,
    server_commands.status,
    server_commands.workers,
    server_commands.jobs,
    server_commands.job,
    server_commands.result,
    control_commands.cancel,
    server_commands.dead,
    server_commands.retry,
    server_commands.forget,
    schedule_commands.schedules,
    control_commands.pause,
    control_commands.resume,
    control_commands.drop,
    control_commands.limits,
    control_commands.maxqueue,
    control_commands.quiet,
    server_commands.ping,
    server_commands.version,
    control_commands.reload,
    control_commands.drain,
    control_commands.shutdown,
    server_commands.top,
    server_commands.completion,
):
    app.add_command(command)
