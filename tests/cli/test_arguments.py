"""What the command takes, without servers: help, usage errors, completion, and what it imports."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import click
from click.testing import CliRunner, Result
from twisted.internet import error as network
from twisted.trial.unittest import SynchronousTestCase

import txgearman.cli
from txgearman import errors
from txgearman.cli.app import app
from txgearman.cli.exit_codes import ExitCode, error_text, exit_code_of, printable
from txgearman.cli.hints import add_hint
from txgearman.cli.options import common_options, group_options
from txgearman.job_limits import MAX_ATTEMPTS, MAX_SECONDS
from txgearman.version import build

LIMIT = 30


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env=environment, prog_name="txgearman")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False
    )


class HelpTest(SynchronousTestCase):
    def test_help_names_every_command(self) -> None:
        shown = invoke("--help")
        self.assertEqual(shown.exit_code, 0)
        for name in app.commands:
            self.assertIn(f"\n  {name} ", shown.output)

    def test_every_command_has_help_for_all_it_takes(self) -> None:
        for name, command in app.commands.items():
            shown = invoke(name, "--help")
            self.assertEqual((shown.exit_code, shown.output.count("Usage:")), (0, 1), name)
            self.assertTrue(command.help, name)
            self.assertTrue(command.short_help, name)
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    self.assertTrue(parameter.help, f"{name} {parameter.name}")

    def test_version_of_the_command(self) -> None:
        self.assertEqual(invoke("--version").output, f"txgearman {txgearman.__version__} ({build()})\n")

    def test_completion_scripts(self) -> None:
        for shell in ("zsh", "fish"):  # bash itself is asked for its version
            shown = invoke("completion", shell)
            self.assertEqual(shown.exit_code, 0)
            self.assertIn(f"_TXGEARMAN_COMPLETE={shell}_complete", shown.output)

    def test_the_shell_completes_commands_and_options(self) -> None:
        found = invoke(
            _TXGEARMAN_COMPLETE="zsh_complete", COMP_WORDS="txgearman sub", COMP_CWORD="1"
        ).output.split("\n")
        self.assertIn("submit", found)
        self.assertNotIn("status", found)
        found = invoke(
            _TXGEARMAN_COMPLETE="zsh_complete", COMP_WORDS="txgearman submit --pr", COMP_CWORD="2"
        ).output.split("\n")
        self.assertIn("--priority", found)
        found = invoke(
            _TXGEARMAN_COMPLETE="zsh_complete", COMP_WORDS="txgearman dead --", COMP_CWORD="2"
        ).output.split("\n")
        self.assertLess({"--function", "--search", "--json"}, set(found))


class UsageTest(SynchronousTestCase):
    """Wrong arguments end with 2 and one line that says what is wrong, before anything is connected."""

    def test_wrong_arguments(self) -> None:
        for arguments, said in [
            (["nothing"], "No such command"),
            (["submit"], "Missing argument 'FUNCTION'"),
            (["submit", "f", "x", "--lines"], "not both"),
            (["submit", "f", "x", "--file", "-"], "not both"),
            (["submit", "f", "--lines", "-f", "-", "-f", "-"], "one file"),
            (["submit", "f", "a", "b", "--unique", "u"], "would be one"),
            (["submit", "f", "x", "--at", "soon"], "not a time"),
            (["submit", "f", "x", "--priority", "urgent"], "urgent"),
            (["submit", "f", "x", "--timeout", "0"], "no time"),
            (["submit", "f", "x", "--attempts", "0"], "0 is not in the range"),
            (["submit", "f", "x", "--attempts", f"{MAX_ATTEMPTS + 1}"], f"1<=x<={MAX_ATTEMPTS}"),
            (["submit", "f", "x", "--expires", f"{MAX_SECONDS + 1}"], "longer than 3650 days"),
            (["submit", "f", "x", "--expires", "soon"], "not a duration"),
            (["submit", "f", "x", "--server", "h:port"], "port number"),
            (["submit", "f", "--file", "/nowhere"], "does not exist"),
            (["submit", "f", "x", "--jobs", "0"], "0"),
            (["submit", "f", "x", "--jobs", "many"], "'many' is not a valid whole number"),
            (["worker"], "nothing to run"),
            (["worker", "-f", "x"], "COMMAND"),
            (["worker", "cat"], "--function"),
            (["worker", "-f", "x", "--threads", "2", "cat"], "--python"),
            (["worker", "--python", "os:getcwd", "--threads", "2", "--processes", "2"], "not both"),
            (["worker", "--python", "os:getcwd", "--lines"], "COMMAND"),
            (["cancel"], "HANDLE"),
            (["job"], "HANDLE"),
            (["job", "H:1", "H:2"], "H:2"),
            (["dead", "H:1"], "H:1"),
            *(
                ([verb, *choice], "one of these only")
                for verb in ("retry", "forget")
                for choice in ([], ["H:1", "--all"], ["H:1", "-f", "f"], ["--function", "f", "--all"])
            ),
            (["maxqueue", "f"], "LIMIT"),
            (["maxqueue", "f", "1", "2"], "three"),
            (["maxqueue", "f", "0"], "not a limit"),
            (["maxqueue", "f", "many"], "not a limit"),
            (["top"], "terminal"),
            (["jobs", "--watch"], "terminal"),
            (["jobs", "--watch", "--json"], "no JSON"),
            (["jobs", "H:1", "--function", "f"], "give handles, or say which"),
            (["jobs", "--state", "dead"], "dead"),
            (["pause"], "FUNCTION"),
            (["resume"], "FUNCTION"),
            (["drop"], "FUNCTION"),
            (["quiet"], "NUMBER"),
            (["quiet", "x"], "x"),
            (["limits", "--max-running", "3"], "of which FUNCTION"),
            (["limits", "f", "--rate-burst", "3"], "needs --max-rate"),
            (["limits", "f", "--max-queue", "1,2"], "one limit, or three"),
            (["limits", "f", "--max-queue", "0"], "not a limit"),
            (["completion", "cmd"], "cmd"),
        ]:
            shown = invoke(*arguments)
            self.assertEqual(shown.exit_code, ExitCode.USAGE, arguments)
            self.assertIn(said, shown.output, arguments)

    def test_what_belongs_to_the_worker_s_command_is_not_ours(self) -> None:
        shown = invoke("worker", "-f", "x", "--nonsense", "cat")
        self.assertIn("--nonsense", shown.output)
        shown = invoke("worker", "tr", "--nonsense")
        self.assertNotIn("--nonsense", shown.output)


class ServersTest(SynchronousTestCase):
    """Where the servers are taken from."""

    def taken(self, *arguments: str, environment: str | None = None) -> tuple[tuple[str, ...], bool]:
        found: list[tuple[tuple[str, ...], bool]] = []

        @click.group()
        @group_options
        def program() -> None:
            pass

        @program.group()
        @group_options
        def things() -> None:
            pass

        @things.command()
        @common_options
        def probe(servers: tuple[str, ...], verbose: bool) -> None:
            found.append((servers, verbose))

        ran = CliRunner().invoke(program, arguments, env={"TXGEARMAN_SERVER": environment})
        self.assertEqual(ran.exit_code, 0, ran.output)
        return found[0]

    def servers(self, *arguments: str, environment: str | None = None) -> tuple[str, ...]:
        return self.taken("things", "probe", *arguments, environment=environment)[0]

    def test_options_then_environment_then_this_machine(self) -> None:
        self.assertEqual(self.servers(), ("tcp:127.0.0.1:4730",))
        self.assertEqual(self.servers(environment="a:1 unix:/x"), ("tcp:a:1", "unix:/x"))
        self.assertEqual(self.servers("-s", "b", "-s", "c:2", environment="a"), ("tcp:b:4730", "tcp:c:2"))

    def test_in_front_of_the_name_of_the_command(self) -> None:
        b, c, d = "tcp:b:4730", "tcp:c:4730", "tcp:d:4730"
        for words, expected in (
            ("-s b things probe", ((b,), False)),
            ("things -s b probe -v", ((b,), True)),
            ("-v -s b -s c things probe", ((b, c), True)),
            ("-s b things -v -s c probe -s d", ((b, c, d), True)),
        ):
            self.assertEqual(self.taken(*words.split(), environment="a"), expected)


class OutcomeTest(SynchronousTestCase):
    def test_every_error_of_the_client_has_an_exit_code(self) -> None:
        made = [
            errors.ServerError("QUEUE_ERROR", "Job queue is full"),
            errors.ConnectionLost("gone"),
            errors.NotConnected("none"),
            errors.TimedOut("late"),
            errors.JobFailed(b"H:1"),
            errors.JobRaised(b"H:1", b"ValueError: no"),
            errors.UpdatesLost("too many"),
            errors.AdminError("UNKNOWN_JOB"),
        ]
        self.assertEqual([int(exit_code_of(error)) for error in made], [5, 3, 3, 4, 1, 1, 1, 5])
        for error in made:
            self.assertEqual(error_text(error), str(error))

    def test_a_full_disk_is_no_defect(self) -> None:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.assertEqual(exit_code_of(error), ExitCode.NOT_WRITTEN)
        self.assertEqual(error_text(error), "input or output failed: No space left on device")

    def test_what_a_function_raised_may_have_lines(self) -> None:
        error = errors.JobRaised(b"H:1", b"exit code 3\ntxgearman: fine\x1b[2J\n")
        self.assertEqual(error_text(error), "job H:1 raised: exit code 3\n  txgearman: fine\\x1b[2J")

    def test_hints(self) -> None:
        refused = errors.NotConnected("no connection to the server: refused.")
        refused.__cause__ = network.ConnectionRefusedError()
        unknown_host = errors.NotConnected("no connection to the server: DNS lookup failed")
        unknown_host.__cause__ = network.DNSLookupError()
        plain = errors.ConnectionLost("no answer came: the server said TLS_REQUIRED")
        plain.__cause__ = errors.ServerError("TLS_REQUIRED", "This port speaks TLS only")
        untrusted = errors.ConnectionLost("[('SSL routines', '', 'certificate verify failed')]")
        denied = errors.AdminError("ACCESS_DENIED You may not")
        unnamed = errors.ConnectionLost("no answer came: VerificationError(errors=[])")
        unknown = errors.ConnectionLost(
            "no answer came: [('SSL routines', '', 'tlsv13 alert certificate required')]"
        )
        closed = errors.ConnectionLost("no answer came: Connection was closed cleanly.")
        no_socket = errors.NotConnected("no connection to the server")
        no_socket.__cause__ = network.ConnectError(errno.ENOENT)
        for error, server, hint in (
            (refused, "tcp:127.0.0.1:4730", "Start one with twistd gearmand, or name another with --server"),
            (refused, "tcp:there:4730", "No server listens there. Name another with --server"),
            (unknown_host, "tcp:there:4730", "Look at the spelling of the host, or name an address"),
            (plain, "tcp:there:4731", "Name it tls:there:4731"),
            (errors.AdminError("TLS_REQUIRED only"), "tcp:there:4731", "Name it tls:there:4731"),
            (untrusted, "tls:there:4731", "SSL_CERT_FILE can name the file with its CA"),
            (errors.ConnectionLost("lost"), "tls:there:4730", "speaks no TLS, name it tcp:there:4730"),
            (
                errors.ConnectionLost("lost"),
                "tls:there:4730:trustRoots=cas",
                "speaks no TLS, name it tcp:there:4730",
            ),
            (unnamed, "tls:127.0.0.1:4731:trustRoots=cas", "not for 127.0.0.1: use the name that it is for"),
            (unknown, "tls:there:4731", "wants a certificate: put :certificate=FILE:privateKey=FILE after"),
            (closed, "tcp:there:8080", "Maybe no Gearman server listens there, or it was"),
            (no_socket, "unix:no.sock", "Start one with --listen unix:no.sock, or name another"),
            (denied, "tcp:there:4730", "The server's access policy says so"),
            (errors.TimedOut("late"), "tcp:there:4730", "Maybe no Gearman server listens there"),
        ):
            copy = type(error)(*error.args)
            copy.__cause__ = error.__cause__
            add_hint(copy, server)
            add_hint(copy, server)
            self.assertEqual(len(copy.__notes__), 1)
            self.assertIn(hint, error_text(copy))
            self.assertTrue(error_text(copy).startswith(f"{str(error).rstrip('.')}. "))

    def test_no_hint(self) -> None:
        for error in (errors.ConnectionLost("lost"), errors.ServerError("QUEUE_ERROR", "full")):
            add_hint(error, "tcp:there:4730")
            self.assertEqual(error_text(error), str(error))

    def test_anything_else_is_a_defect(self) -> None:
        error = KeyError("x\ny")
        self.assertEqual(exit_code_of(error), ExitCode.DEFECT)
        self.assertEqual(error_text(error), r"this is a defect of txgearman: KeyError: 'x\ny'")

    def test_nothing_that_a_terminal_obeys_is_printed(self) -> None:
        self.assertEqual(printable("a\x1b[2J\n\t\x9b\u202eé\udcff"), r"a\x1b[2J\n\t\x9b\u202eé\udcff")


class ImportTest(SynchronousTestCase):
    def test_help_loads_neither_twisted_s_reactor_nor_rich_nor_more_of_twisted_than_the_package(self) -> None:
        done = python(
            "import sys, txgearman\nbefore = set(sys.modules)\nimport txgearman.cli.app\n"
            "print(*set(sys.modules) - before)"
        )
        loaded = {name.split(".")[0] for name in done.stdout.split()}
        self.assertIn("click", loaded)
        self.assertEqual(loaded & {"twisted", "rich", "zope", "asyncio"}, set())
        self.assertNotIn("txgearman.cli.run", done.stdout.split())

    def test_commands_that_ask_servers_load_neither_rich_nor_what_submits_jobs(self) -> None:
        for module in ("administration", "jobs", "control", "limits", "dead_jobs", "schedules"):
            done = python(f"import sys, txgearman.cli.{module}\nprint(*sys.modules)")
            loaded = set(done.stdout.split())
            self.assertIn("txgearman.client.admin", loaded)
            unwanted = {"rich", "txgearman.client.client", "txgearman.client.batch", "txgearman.worker"}
            self.assertEqual(loaded & unwanted, set(), module)

    def test_one_line_where_the_extra_is_not_installed(self) -> None:
        done = python(
            "import importlib.util as u, txgearman.cli\n"
            "txgearman.cli.find_spec = lambda name: None if name == 'rich' else u.find_spec(name)\n"
            "txgearman.cli.main()"
        )
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(
            done.stderr,
            "txgearman: the command needs rich, which is not installed: pip install 'txgearman[cli]'\n",
        )
