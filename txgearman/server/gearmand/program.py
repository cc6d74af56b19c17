"""The program ``txgearmand``: from its words to the process that serves, or to what it is to do instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

from twisted.application.service import IService, IServiceMaker, Service
from twisted.logger import Logger
from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

from txgearman.errors import StoreError
from txgearman.server.config.options import Settings
from txgearman.server.config.process_options import ProcessSettings
from txgearman.server.config.toml_writer import toml_text
from txgearman.server.gearmand.command_line import CommandLineError, read_options
from txgearman.server.gearmand.help import help_text
from txgearman.server.gearmand.log import GearmandLog
from txgearman.server.gearmand.options import NO_LOG, STDERR
from txgearman.server.gearmand.queue import TakeOverService, give_back
from txgearman.server.gearmand.translation import Translation, translate
from txgearman.server.process.program import make_program
from txgearman.server.service import check_settings
from txgearman.version import VERSION

PROGRAM: Final = "txgearmand"

_log = Logger()


def main(words: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        words: The words after its name; None for those of the process.

    Returns:
        The exit code: 0 as soon as it serves in the background, or after an end that was asked for, else 1.
    """
    words = sys.argv[1:] if words is None else words
    try:
        host = _prepare(words)
    except (StoreError, ValueError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    if host is not None:
        # From here on a failure is told by `Startup`, to whoever waits for the process in the background too.
        runApp(host)
    return 0


def _prepare(words: Sequence[str]) -> ServerOptions | None:
    """Do what the words ask for, or return what `runApp` needs for serving."""
    given = read_options(words)
    if "help" in given and "check-args" not in given:
        print(help_text(), end="")
        return None
    if "version" in given and "check-args" not in given:
        print(f"\n{PROGRAM} {VERSION}")
        return None
    translation = translate(given, os.environ)
    # Both raise for a value that cannot be.
    translation.settings()
    translation.process_settings()
    if "give-back" in given:
        _become(translation.user)
        give_back(translation, only_tell="check-args" in given)
        return None
    if "check-args" in given:
        for note in translation.notes:
            print(f"{PROGRAM}: {note}.", file=sys.stderr)
        return None
    if "print-config" in given:
        print(toml_text(translation.said, _comments(translation)), end="")
        return None
    return _host(words, translation)


def _comments(translation: Translation) -> list[str]:
    """What the configuration file says at its top: the command for it, with what no such file can say."""
    twistd = [f"--pidfile={translation.pid_file}"]
    if translation.log_file not in {STDERR, NO_LOG}:
        twistd.append(f"--logfile={os.path.abspath(translation.log_file)}")
    if not translation.daemon:
        twistd.append("--nodaemon")
    if translation.syslog:
        twistd.append("--syslog")
    if translation.user:
        twistd.append(f"--uid={translation.user}")
    lines = [f"twistd {' '.join(twistd)} gearmand --config=THIS_FILE"]
    if translation.queue is not None:
        lines.append("Start txgearmand once before: it alone takes jobs over from gearmand's queue.")
    return [*lines, *(f"{note}." for note in translation.notes), ""]


# -- the process ----------------------------------------------------------------------------------


class _Options:
    """What the words say, read again at each reload, as `ProgramOptions` has it."""

    def __init__(self, words: Sequence[str], translation: Translation, parent: ServerOptions) -> None:
        self._words = words
        self.settings = translation.settings()
        self.process = translation.process_settings()
        self.parent = parent

    def read(self) -> tuple[Settings, ProcessSettings]:
        translation = translate(read_options(self._words), os.environ)
        return translation.settings(), translation.process_settings()

    def located(self, error: Exception) -> str:
        return str(error)


class _Notes(Service):
    """Says in the log, once, what the operator should know."""

    def __init__(self, notes: Sequence[str]) -> None:
        self._notes = notes

    def startService(self) -> None:
        super().startService()
        for note in self._notes:
            _log.warn("{note}", note=note)


class _Maker:
    """Makes the service of the process for `runApp`."""

    tapname = PROGRAM

    def __init__(self, translation: Translation, log: GearmandLog) -> None:
        self._translation = translation
        self._logs = log

    def makeService(self, options: _Options) -> IService:
        ahead: list[Service] = [_Notes(self._translation.notes)]
        store = options.settings.store
        if self._translation.queue is not None and store is not None:
            ahead.append(TakeOverService(self._translation.queue, store, options.settings.handle_prefix))
        return make_program(options, self._logs.observer, self._logs.reopen, ahead)


def _host(words: Sequence[str], translation: Translation) -> ServerOptions:
    """The options of twistd for this server, in the process as it is to be."""
    from twisted.internet import reactor

    # In gearmand's order: what follows is the user's to do, who owns the files then.
    _raise_file_limit(translation.file_descriptors)
    _become(translation.user)
    host = ServerOptions()
    host.parseOptions([])
    host["nodaemon"] = not translation.daemon
    host["no_save"] = True
    host["pidfile"] = _pid_file(translation)
    options = _Options(words, translation, host)
    check_settings(reactor, options.settings)
    log = GearmandLog(translation.log_file, translation.syslog)
    host.subCommand = PROGRAM
    host.subOptions = options
    host.loadedPlugins = {PROGRAM: cast(IServiceMaker, _Maker(translation, log))}
    return host


def _raise_file_limit(wanted: int) -> None:
    """Raises `CommandLineError` where the process may not have so many files; 0 wants none."""
    if not wanted:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError) as error:
        raise CommandLineError(
            "Failed to set limit for the number of file descriptors. Try running as root or giving a "
            f"smaller value to -f. ({error})"
        ) from None


def _become(user: str) -> None:
    """Become a user; raises `CommandLineError` where that cannot be."""
    if not user:
        return
    import pwd

    if 0 not in {os.getuid(), os.geteuid()}:
        raise CommandLineError("Must be root to switch users.")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandLineError(f"Could not find user {user}") from None
    try:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as error:
        raise CommandLineError(f"Could not switch to user {user}: {error.strerror}") from None


def _pid_file(translation: Translation) -> str:
    """The path for twistd, which makes the file; empty for none."""
    path = translation.pid_file
    running = running_server(path)
    if running:
        raise CommandLineError(
            f"{path}: a job server runs already, with process id {running}; another needs its own --pid-file"
        )
    try:
        # One that is left of another process says nothing, as that may be a process of something else by now.
        if os.path.exists(path):
            os.unlink(path)
        with open(path, "x"):
            pass
        os.unlink(path)
    except OSError as error:
        if translation.must_have_pid_file:
            raise CommandLineError(
                f"Could not open pid file for writing: {path} ({error.strerror})"
            ) from None
        return ""
    return path


def running_server(path: str) -> int:
    """Look for the server that a pid file is about.

    Args:
        path: The path of the pid file.

    Returns:
        Its process id, if that is another process of this program or of gearmand, else 0.
    """
    try:
        with open(path, "rb") as file:
            pid = int(file.read(64))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words: Any = file.read().split(b"\0")
    except (OSError, ValueError):
        return 0
    if pid == os.getpid():
        # In a container each start may have the same one.
        return 0
    # Whatever the link to this program is called: gearmand itself ends so too.
    return pid if any(word.endswith(b"gearmand") for word in words[:2]) else 0
