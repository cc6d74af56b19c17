"""Reading gearmand's command line: as the installed gearmand does, and what the words mean."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support import needs_program
from txgearman.server.gearmand import command_line
from txgearman.server.gearmand.command_line import CommandLineError, read_options
from txgearman.server.gearmand.help import help_text
from txgearman.server.gearmand.options import BY_NAME, OPTIONS, SECTIONS, Effect

TAKEN: Final = (
    "",
    "-p 4731",
    "-p4731",
    "--port 4731",
    "--port=4731",
    "-dR",
    "-dp4731",
    "-Rdp 4731",
    "--verbose=INFO",
    "--verbose DEBUG",
    "-l --daemon",
    "-L ::1",
    "--keepalive --keepalive-idle=-1",
    "--keepalive-idle -1",
    "-j 0 -w 0 -b 64 -t 0 -f 100",
    "-j +3",
    "--ssl-ca-file=/x",
    "--queue-type LIBSQLITE3 --libsqlite3-db=/x",
    "--http-port=8080",
    "--hashtable-buckets=991",
    "--store-queue-on-shutdown",
    "--mysql-host=db",
    "--exceptions --syslog --coredump",
    "--job-handle-prefix=H:x",
    "-u nobody -P /x",
)
"""Words that gearmand takes."""

REFUSED: Final = (
    "--nosuch",
    "--nosuch=1",
    "-z",
    "word",
    "--vers",
    "--verb=INFO",
    "--Daemon",
    "--listen",
    "--listen=",
    "-p",
    "--daemon=1",
    "-p 1 -p 2",
    "-p 1 --port=2",
    "--round-robin -R",
    "--verbose=info",
    "--verbose=nonsense",
    "--hashtable-buckets=0",
    "-t many",
    "-f 0x10",
    "-b ten",
)
"""Words that gearmand does not take."""


def checked(words: str) -> bool:
    """Whether this program takes the words."""
    from txgearman.server.gearmand.program import main

    return main([*words.split(), "--check-args"]) == 0


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(command_line, "DEFAULT_CONFIG", "/nonexistent/gearmand.conf")

    def file(self, text: str) -> str:
        folder = tempfile.TemporaryDirectory(prefix="txgearman-gearmand-")
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "gearmand.conf"
        path.write_text(text)
        return str(path)

    def refused(self, *words: str) -> str:
        return str(self.assertRaises(CommandLineError, read_options, words))

    def test_all_forms_of_a_value(self) -> None:
        for words in ("-p 4731", "-p4731", "--port 4731", "--port=4731"):
            self.assertEqual(read_options(words.split()), {"port": "4731"})

    def test_the_next_word_is_the_value_whatever_it_begins_with(self) -> None:
        self.assertEqual(read_options(["-l", "--daemon"]), {"log-file": "--daemon"})

    def test_counted_verbosity(self) -> None:
        for words, level in (("-v", "ERROR"), ("-vv", "INFO"), ("-v -v -v", "DEBUG"), ("-vvvvd", "DEBUG")):
            self.assertEqual(read_options(words.split())["verbose"], level)
        self.assertEqual(read_options(["-vvv", "--verbose=ERROR"])["verbose"], "ERROR")

    def test_a_file_is_read_and_the_command_line_holds_before_it(self) -> None:
        path = self.file("--port=4731\r\n--verbose INFO -d\nno option # at all\n")
        self.assertEqual(
            read_options([f"--config-file={path}", "-p", "4732"]),
            {"config-file": path, "port": "4732", "verbose": "INFO", "daemon": ""},
        )

    def test_a_file_may_shorten_options(self) -> None:
        self.assertEqual(read_options(["--config-file", self.file("--verb=INFO")])["verbose"], "INFO")
        self.assertIn(
            "option '--li=x' is ambiguous and matches '--listen'",
            self.refused("--config-file", self.file("--li=x")),
        )

    def test_a_file_that_is_named_must_be_there(self) -> None:
        self.assertIn("/nonexistent/x", self.refused("--config-file=/nonexistent/x"))
        self.assertEqual(read_options([]), {})

    def test_the_file_at_the_default_path(self) -> None:
        self.patch(command_line, "DEFAULT_CONFIG", self.file("-p 4731"))
        self.assertEqual(read_options([]), {"port": "4731"})

    def test_a_file_that_is_too_large(self) -> None:
        self.patch(command_line, "MAX_SIZE", 10)
        self.assertIn("larger than 10 bytes", self.refused("--config-file", self.file("-p 4731 " + " " * 9)))

    def test_a_number_that_is_very_long(self) -> None:
        self.assertIn("is invalid", self.refused("-j", "9" * 5000))

    def test_errors_name_the_option(self) -> None:
        for words, text in (
            ("--nosuch=1", "unrecognised option '--nosuch=1'"),
            ("-z", "unrecognised option '-z'"),
            ("--daemon=1", "option '--daemon' does not take any arguments"),
            ("-p 1 --port=2", "option '--port' cannot be specified more than once"),
            ("--listen", "the required argument for option '--listen' is missing"),
            ("-t many", "the argument ('many') for option '--threads' is invalid"),
        ):
            self.assertEqual(self.refused(*words.split()), text)


@needs_program("gearmand")
class AgainstGearmandTests(SynchronousTestCase):
    """Against the gearmand that is installed."""

    def test_all_options_of_its_help_are_known(self) -> None:
        text = subprocess.run(["gearmand", "--help"], capture_output=True, text=True, check=True).stdout
        found = re.findall(r"^  (?:-(\w) \[ )?--([\w-]+)( \])?( arg)?", text, re.MULTILINE)
        self.assertGreater(len(found), 40)
        for short, name, _, value in found:
            option = BY_NAME[name]
            self.assertEqual((option.short or "", option.value is not None), (short, bool(value)), name)

    def test_the_same_words_are_taken(self) -> None:
        for words in (*TAKEN, *REFUSED):
            theirs = subprocess.run(
                ["gearmand", *words.split(), "--check-args"],
                capture_output=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            self.assertEqual(checked(words), theirs.returncode == 0, words)
            self.assertEqual(theirs.returncode == 0, words in TAKEN, words)


class HelpTests(SynchronousTestCase):
    def test_all_options_but_those_of_other_queues_are_in_it(self) -> None:
        text = help_text(80)
        for option in OPTIONS:
            shown = not option.hidden and option.effect is not Effect.ELSEWHERE
            self.assertEqual(f"--{option.name} " in text or f"--{option.name}\n" in text, shown, option.name)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_the_table_is_sound(self) -> None:
        self.assertEqual(len(BY_NAME), len(OPTIONS))
        for option in OPTIONS:
            self.assertIn(option.section, SECTIONS)
            self.assertEqual(option.effect is Effect.PASSED_OVER, bool(option.why), option.name)
            self.assertTrue(option.meaning.endswith("."), option.name)
