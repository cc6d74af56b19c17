"""The command ``txgearman`` put together of its commands. Each of them is declared elsewhere."""

from __future__ import annotations

import click

from txgearman.cli import jobs, servers
from txgearman.version import VERSION


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a job failed, 2 wrong arguments, 3 no connection, 4 out of time, "
    "5 unknown to or refused by the server, 74 output not written, 128 + n ended by signal n.",
)
@click.version_option(VERSION, message="txgearman %(version)s")
def app() -> None:
    """Submit, run and look after the jobs of Gearman servers."""


for command in (
    jobs.submit,
    jobs.worker,
    servers.status,
    servers.workers,
    servers.jobs,
    servers.cancel,
    servers.maxqueue,
    servers.ping,
    servers.version,
    servers.shutdown,
    servers.top,
    servers.completion,
):
    app.add_command(command)
