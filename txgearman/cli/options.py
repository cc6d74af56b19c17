"""Options that several commands share, and running what a command does.

Declarations only, so that the command's help is quick. Twisted and the rest are imported when a command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from txgearman.cli.parameters import PORT, Duration, ServerAddress

if TYPE_CHECKING:
    from txgearman.cli.run import Main

DEFAULT_SERVER: Final = f"tcp:127.0.0.1:{PORT}"
"""The server if none is named."""

_F = TypeVar("_F", bound=Callable[..., Any])

server_option = click.option(
    "-s",
    "--server",
    "servers",
    metavar="ADDRESS",
    type=ServerAddress(),
    multiple=True,
    default=(DEFAULT_SERVER,),
    show_default=True,
    envvar="TXGEARMAN_SERVER",
    show_envvar=True,
    help="A server: host, host:port or a Twisted endpoint string. Can be given several times.",
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show what is logged, and tracebacks of errors."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
timeout_option = click.option(
    "--timeout",
    metavar="DURATION",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long a server may take to answer.",
)


def common_options(command: _F) -> _F:
    """Add the options of all commands that talk to servers."""
    return server_option(verbose_option(command))


def run_and_exit(main: Main, verbose: bool, warnings: bool = False) -> NoReturn:
    """Run `main` on the reactor, and end the command with its exit code.

    Args:
        main: What the command does.
        verbose: As for `run`.
        warnings: As for `run`.
    """
    from txgearman.cli.run import run

    code = run(main, verbose=verbose, warnings=warnings)
    click.get_current_context().exit(code)
