"""``twistd gearmand``: the command line and what it makes. Nothing here but options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.application.app import ServerOptions
from twisted.application.service import IService
from twisted.logger import ILogObserver
from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from txgearman.errors import StoreError
from txgearman.server.config.configuration import Configuration, ConfigurationError, read_configuration
from txgearman.server.config.option_kinds import PATH, Option, option, options_of, with_values
from txgearman.server.config.options import Settings
from txgearman.server.config.process_options import LogFormat, ProcessSettings
from txgearman.server.process.help import help_text, hint
from txgearman.server.process.logs import Threshold, observer_for
from txgearman.server.process.program import make_program
from txgearman.server.service import check_settings
from txgearman.version import VERSION, build


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What only the command line can say, and no configuration file."""

    config: str | None = option(
        None,
        "A configuration file in TOML, with these options and more. What the command line says holds before "
        "it. SIGHUP reads it again.",
        kind=PATH,
        short="c",
    )
    check_config: bool = option(False, "Say whether options and configuration file are right, and exit.")


CONFIGURABLE: Final = (*options_of(Settings), *options_of(ProcessSettings))
OPTIONS: Final = (*options_of(CommandLine), *CONFIGURABLE)


EXIT_USAGE: Final = 2
"""The exit code for a wrong command line, as getopt's programs have it. A wrong file or store is 1."""


class Options(TwistedOptions):
    """The options of ``twistd gearmand``. `settings` and `process` are what they say."""

    synopsis = "[options]"
    longdesc = (
        "A Gearman job server. Binary and admin text protocol on every endpoint. SIGTERM ends it "
        "when the jobs that run have ended, SIGUSR1 when no job is left at all. Jobs are in "
        "memory only, unless there is a --store."
    )

    # None and not the default tells what was not said.
    optParameters = [
        [each.name, each.short, None, each.meaning]
        for each in OPTIONS
        if not each.is_flag and not each.kind.repeated
    ]
    optFlags = [[each.name, each.short, each.meaning] for each in OPTIONS if each.is_flag]

    def opt_help(self) -> None:
        """Show the options that most people look for, and exit."""
        print(help_text(OPTIONS, self.longdesc, show_all=False), end="")
        raise SystemExit(0)

    opt_h = opt_help

    def opt_help_all(self) -> None:
        """Show all options, and exit."""
        print(help_text(OPTIONS, self.longdesc, show_all=True), end="")
        raise SystemExit(0)

    def opt_version(self) -> None:
        """Print the version of txgearman and exit."""
        print(f"txgearman {VERSION} ({build()})")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)
        except UsageError as error:
            if not isinstance(self.parent, ServerOptions):
                raise
            # twistd would write all its help, and then the error, to the standard output.
            print(hint(str(error), OPTIONS), file=sys.stderr)
            raise SystemExit(1 if self["check-config"] else EXIT_USAGE) from None

    def postOptions(self) -> None:
        from twisted.internet import reactor

        self._said: dict[str, Any] = {}
        self._lines: Mapping[str, int] = {}
        try:
            # Once and for all: what is relative to the current folder must stay so when that changes.
            self._said = {
                each.name: self._value(each) for each in OPTIONS if self.get(each.name) not in (None, 0)
            }
            self.settings, self.process = self.read()
            check_settings(reactor, self.settings)
            self._check_log()
            self._check_user()
        except (ValueError, StoreError) as error:
            if not isinstance(error, StoreError) and self._line_of(error) is None:
                raise UsageError(str(error)) from None
            # Without the help that other programs than twistd put ahead of a UsageError.
            raise SystemExit(self.located(error)) from None
        if self["check-config"]:
            print("The configuration is right.")
            raise SystemExit(0)

    def located(self, error: Exception) -> str:
        """An error with the file and line of the option that it is about, if that stands in the file."""
        line = self._line_of(error)
        return f"{self._said['config']}:{line}: {error}" if line else str(error)

    def _line_of(self, error: Exception) -> int | None:
        """The line of the file that an error is about, 0 where its text says so; None without one."""
        if isinstance(error, ConfigurationError):
            return 0
        name: Any = "store" if isinstance(error, StoreError) else getattr(error, "option", None)
        return None if name in self._said else self._lines.get(name)

    def _check_log(self) -> None:
        """Raises `ValueError` for options of the log beside others that leave them without effect."""
        parent: Any = self.parent or {}
        said = [name for name in ("log-format", "log-level") if name in self._said]
        if said and not isinstance(parent, ServerOptions):
            raise ValueError(f"{said[0]} is for twistd; this program has options of its own for its log")
        if said and parent.get("logger") is not None:
            raise ValueError(f"{said[0]} has no effect beside twistd's --logger, whose observer decides")
        if parent.get("logfile") == "-" and not (parent.get("nodaemon", True) or parent.get("debug")):
            raise ValueError("twistd's --logfile=- needs --nodaemon: in the background there is no output")
        if parent and parent.get("syslog") and self.process.log_format is LogFormat.JSON:
            raise ValueError("log-format json is not for --syslog, which has a format of its own")

    def _check_user(self) -> None:
        """Raises `ValueError` for a ``--uid`` whose group twistd could not find out, after the start."""
        parent: Any = self.parent or {}
        if parent.get("uid") is None or parent.get("gid") is not None:
            return
        import pwd

        try:
            pwd.getpwuid(parent["uid"])
        except KeyError:
            raise ValueError(f"--uid {parent['uid']} is no user of this machine; it needs --gid") from None

    def read(self) -> tuple[Settings, ProcessSettings]:
        """What the configuration file, read anew, and the command line say. Raises `ValueError`."""
        path = self._said.get("config")
        file = Configuration() if path is None else read_configuration(path, CONFIGURABLE)
        self._lines = file.lines
        said = {**file.said, **self._said}
        return (
            replace(
                with_values(Settings, said),
                functions=file.functions,
                schedules=file.schedules,
                access=file.access,
            ),
            with_values(ProcessSettings, said),
        )

    def _value(self, each: Option) -> Any:
        """The value that the command line gives to an option."""
        if each.kind.repeated:
            return tuple(value for text in self[each.name] for value in each.of_text(text))
        return each.of_text(self[each.name])


def _repeatable(each: Option) -> Callable[[Options, str], None]:
    """A method by which `Options` takes an option more than once."""

    def take(options: Options, text: str) -> None:
        options.setdefault(each.name, []).append(text)

    take.__doc__ = each.meaning
    return take


for _each in OPTIONS:
    if _each.kind.repeated:
        for _name in filter(None, (_each.name, _each.short)):
            setattr(Options, f"opt_{_name.replace('-', '_')}", _repeatable(_each))


def makeService(options: Options) -> IService:
    """The service that ``twistd gearmand`` runs."""

    def observer(threshold: Threshold) -> ILogObserver | None:
        if not isinstance(options.parent, ServerOptions):
            return None
        return observer_for(options.parent, options.process.log_format, threshold)

    return make_program(options, observer)
