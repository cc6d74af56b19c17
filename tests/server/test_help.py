"""``--help``, and what is said of a wrong command line or configuration file: one line that helps."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain

from twisted.application.app import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.server.test_configuration import FileTestCase
from txgearman.server.config.option_kinds import OptionError
from txgearman.server.process.help import COMMON, GROUPS, NARROWEST, WIDEST, help_text, hint
from txgearman.server.process.twistd import OPTIONS, Options
from txgearman.server.service import check_settings

COLUMNS = 80
SCREENS = 2 * 40


class HelpTests(SynchronousTestCase):
    def shown(self, show_all: bool, columns: int = COLUMNS) -> str:
        return help_text(OPTIONS, "An introduction.", show_all, columns)

    def test_each_option_is_in_one_group(self) -> None:
        grouped = [*chain.from_iterable(GROUPS.values())]
        self.assertEqual(sorted(grouped), sorted(option.name for option in OPTIONS))
        self.assertEqual(COMMON - {*grouped}, set())

    def test_help_fits_two_screens(self) -> None:
        lines = self.shown(False).splitlines()
        self.assertLessEqual(len(lines), SCREENS)
        names = self.shown(False).replace("=", " ").split()
        for option in OPTIONS:
            self.assertIs(f"--{option.name}" in names, option.name in COMMON)

    def test_help_all_has_everything(self) -> None:
        words = " ".join(self.shown(True).split())
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", words)
            # An option's meaning may be broken within a word that has a hyphen.
            meaning = option.meaning.replace("``", "").replace("-", "")
            self.assertIn(meaning, words.replace("- ", "-").replace("-", ""))

    def test_short_names_are_shown(self) -> None:
        self.assertIn("  -L, --listen=", self.shown(False))
        self.assertIn("  -R, --round-robin ", self.shown(True))

    def test_it_has_the_width_of_the_terminal_within_reason(self) -> None:
        for columns, width in ((1, NARROWEST), (70, 70), (1000, WIDEST)):
            longest = max(map(len, self.shown(True, columns).splitlines()))
            self.assertLessEqual(longest, width)
            self.assertGreater(longest, width - 12)

    def test_both_are_printed(self) -> None:
        for option, expected in (("--help", False), ("-h", False), ("--help-all", True)):
            with redirect_stdout(io.StringIO()) as output, self.assertRaises(SystemExit) as caught:
                Options().parseOptions([option])
            self.assertEqual(caught.exception.code, 0)
            self.assertIs("--max-unsent-total" in output.getvalue(), expected)


class HintTests(SynchronousTestCase):
    def test_unknown_options(self) -> None:
        for error, expected in (
            ("option --lissen not recognized", "option --lissen not recognized; did you mean --listen? Try"),
            ("option --port not recognized", "option --port not recognized; say --listen=tcp:PORT. Try"),
            ("option -p not recognized", "; say --listen=tcp:PORT. Try"),
            ("option -x not recognized", "option -x not recognized. Try"),
            ("option --qqqqqq not recognized", "option --qqqqqq not recognized. Try"),
            ("Wrong number of arguments.", "Wrong number of arguments. Try"),
            ("max-jobs must be a whole number, not 'many'", "not 'many'. Try twistd gearmand --help"),
        ):
            with self.subTest(error):
                self.assertIn(expected, hint(error, OPTIONS))

    def run_twistd(self, *options: str) -> tuple[object, str]:
        """The exit code, and what standard error says, where twistd is the program."""
        wanted = Options()
        wanted.parent = ServerOptions()
        with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as caught:
            wanted.parseOptions([*options])
        return caught.exception.code, errors.getvalue()

    def test_a_wrong_command_line_ends_with_2(self) -> None:
        for options in (
            ("--lissen=x",),
            ("--max-jobs=many",),
            ("--tls=tcp:4731",),
            ("--listen=foo:1",),
            ("--max-jobs",),
            ("--web-token-file=/no/such/file",),
        ):
            with self.subTest(options):
                code, errors = self.run_twistd(*options)
                self.assertEqual((code, errors.count("\n")), (2, 1))
                self.assertTrue(errors.endswith("Try twistd gearmand --help\n"), errors)

    def test_where_only_the_configuration_is_checked_with_1(self) -> None:
        self.assertEqual(self.run_twistd("--check-config", "--max-jobs=many")[0], 1)

    def test_a_wrong_store_is_no_wrong_command_line(self) -> None:
        code, _errors = self.run_twistd("--store=nonsense")
        self.assertIn("not the URL of a store", str(code))


class FileTests(FileTestCase):
    """What cannot be used is told with file and line, and ends with 1: Python's code for a text."""

    def said(self, text: str, *options: str) -> str:
        self.write(text)
        with self.assertRaises(SystemExit) as caught:
            self.options(*options)
        return str(caught.exception.code)

    def test_each_kind_of_value(self) -> None:
        for line, why in (
            ('listen = ["foo:1"]', "no server endpoint"),
            ('listen = ["4730"]', "'4730' is no server endpoint: write 'tcp:4730'"),
            ('listen = ["0.0.0.0:1"]', "write 'tcp:1:interface=0.0.0.0'"),
            ('tls = "tcp:1"\ntls-certificate = "no.pem"', "cannot be read"),
            ('web-token-file = "no"', "web token cannot be read"),
            ('store = "nonsense"', "not the URL of a store"),
            ('web = "foo:1"', "no server endpoint"),
            ('dead-webhook = "ftp://x"', "dead-webhook"),
        ):
            with self.subTest(line):
                said = self.said(f"max-jobs = 1\n{line}\n")
                self.assertIn(why, said)
                number = 3 if "\n" in line else 2
                self.assertTrue(said.startswith(f"{self.path}:{number}: "), said)

    def test_what_the_command_line_says_is_not_in_the_file(self) -> None:
        self.write('listen = ["tcp:1"]\n')
        with self.assertRaises(Exception) as caught:
            self.options("--listen=foo:1")
        self.assertNotIn(self.path, str(caught.exception))

    def test_a_port_may_be_a_number(self) -> None:
        self.write("web = 8081\n")
        self.assertEqual(self.options().settings.web, "8081")
        self.assertIn("web must be text", self.said("web = true\n"))

    def test_errors_name_their_option_for_programs_too(self) -> None:
        from twisted.internet import reactor

        self.write('listen = ["tcp:1"]\n')
        settings = self.options().settings
        object.__setattr__(settings, "listen", ("foo:1",))
        error = self.assertRaises(OptionError, check_settings, reactor, settings)
        self.assertEqual(error.option, "listen")
