"""docs/command.rst says what the command takes, and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from txgearman.cli.app import app
from txgearman.cli.exit_codes import ExitCode

PAGE = Path(__file__).parents[2] / "docs" / "command.rst"
COMMON = {"--server", "--verbose"}


def commands() -> dict[str, click.Command]:
    """All commands, those of groups by two words."""
    found: dict[str, click.Command] = {}
    for name, command in app.commands.items():
        if isinstance(command, click.Group):
            found.update({f"{name} {each}": inner for each, inner in command.commands.items()})
        else:
            found[name] = command
    return found


def sections() -> dict[str, str]:
    """The text below each heading of the page."""
    parts = re.split(r"^(.+)\n-{3,}$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def options(command: click.Command) -> dict[str, str]:
    """The long options of a command, each with its short form or nothing."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            (long,) = [name for name in parameter.opts if name.startswith("--")]
            found[long] = "".join(name for name in parameter.opts if not name.startswith("--"))
    return found


def shown(text: str) -> dict[str, str]:
    """The options that a table of the page names, each with its short form or nothing."""
    rows = re.findall(r'^   ``(--[a-z-]+)``, "(?:``(-[a-z])``\. )?', text, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


class PageTest(SynchronousTestCase):
    def test_every_command_has_its_section(self) -> None:
        found = {
            heading.removeprefix("txgearman ") for heading in sections() if heading.startswith("txgearman ")
        }
        self.assertEqual(found, set(commands()))

    def test_the_options_of_each_command(self) -> None:
        texts = sections()
        common = shown(texts["Servers"])
        self.assertEqual(set(common), COMMON)
        for name, command in commands().items():
            taken = options(command)
            documented = shown(texts[f"txgearman {name}"])
            if name != "completion":
                self.assertEqual({**documented, **common}, taken, name)
            else:
                self.assertEqual((documented, taken), ({}, {}))

    def test_exit_codes(self) -> None:
        found = re.findall(r'^   (\d+), "', sections()["Exit codes"], re.MULTILINE)
        self.assertEqual([int(code) for code in found], sorted(ExitCode))

    def test_the_command_lines_can_be_parsed(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        lines = re.findall(r"^    txgearman (\w+) (.*?)(?: [<>|] ?\S+)?$", text, re.MULTILINE)
        self.assertGreater(len(lines), 8)
        for name, arguments in lines:
            words = [word for word in shlex.split(arguments) if word not in {"photo.jpg", "--file"}]
            command: click.Command = app.commands[name]
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            command.make_context(name, words)

    def test_defaults(self) -> None:
        texts = sections()
        for command, option, said in [
            ("submit", "jobs", "16 by default"),
            ("worker", "drain", "30 seconds by default"),
            ("status", "timeout", "10 seconds by default"),
            ("top", "interval", "every second by default"),
        ]:
            (parameter,) = [one for one in app.commands[command].params if one.name == option]
            self.assertIn(said, texts[f"txgearman {command}"])
            default = str(parameter.default).removesuffix("s")
            self.assertEqual({"16": "16", "30": "30", "10": "10", "1": "every"}[default], said.split()[0])
