"""Options that several commands share, also in front of a command's name, and running what a command does.

Declarations only, so that the command's help is quick. Twisted and the rest are imported when a command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from click.core import ParameterSource

from txgearman.cli.parameters import PORT, Duration, ServerAddress

if TYPE_CHECKING:
    from txgearman.cli.run import Main

DEFAULT_SERVER: Final = f"tcp:127.0.0.1:{PORT}"
"""The server if none is named."""

_F = TypeVar("_F", bound=Callable[..., Any])

_SERVERS_HELP: Final = "A server: host, host:port or a Twisted endpoint string. Can be given several times."
_VERBOSE_HELP: Final = "Show what is logged, and tracebacks of errors."
_SERVERS: Final = "txgearman.servers"
_VERBOSE: Final = "txgearman.verbose"


def _keep_servers(context: click.Context, _option: click.Parameter, servers: tuple[str, ...]) -> None:
    """Keep the servers that stand in front of a command's name. The contexts of one run share `meta`."""
    context.meta[_SERVERS] = (*context.meta.get(_SERVERS, ()), *servers)


def _all_servers(
    context: click.Context, option: click.Parameter, servers: tuple[str, ...]
) -> tuple[str, ...]:
    """The servers in front of the command's name and after it. Without any, those of the environment."""
    before: tuple[str, ...] = context.meta.get(_SERVERS, ())
    assert option.name is not None
    if before and context.get_parameter_source(option.name) is not ParameterSource.COMMANDLINE:
        return before
    return before + servers


def _keep_verbose(context: click.Context, _option: click.Parameter, verbose: bool) -> None:
    context.meta[_VERBOSE] = verbose or context.meta.get(_VERBOSE, False)


def _is_verbose(context: click.Context, _option: click.Parameter, verbose: bool) -> bool:
    return verbose or context.meta.get(_VERBOSE, False)


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
    callback=_all_servers,
    help=_SERVERS_HELP,
)
verbose_option = click.option("-v", "--verbose", is_flag=True, callback=_is_verbose, help=_VERBOSE_HELP)
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


def group_options(group: _F) -> _F:
    """Add the options that a group takes for its commands, in front of their names."""
    servers = click.option(
        "-s",
        "--server",
        metavar="ADDRESS",
        type=ServerAddress(),
        multiple=True,
        expose_value=False,
        callback=_keep_servers,
        help=_SERVERS_HELP,
    )
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_keep_verbose, help=_VERBOSE_HELP
    )
    return servers(verbose(group))


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
