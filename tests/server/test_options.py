"""How an option is described, and what follows from its description."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman.server.config.option_kinds import SECONDS, SIZE, Kind, Option, option, options_of, verify


class Colour(Enum):
    RED = "red"
    GREEN = "green"


def _even(number: int) -> None:
    if number % 2:
        raise ValueError("must be even")


@dataclass(frozen=True)
class Example:
    whole: int = option(4, "A number.", short="w", least=1, most=8, check=_even)
    flag: bool = option(False, "A flag.")
    text: str = option("x", "A text.", name="other-name")
    texts: tuple[str, ...] = option(("a", "b"), "Texts.")
    colour: Colour = option(Colour.RED, "A colour.")
    some_size: int = option(10, "A size.", kind=SIZE)
    time: float = option(1.5, "A time.", reloadable=True)
    optional: str | None = option(None, "Perhaps.")
    made: str = option(lambda: "made", "Made.", shown="what is made")
    no_option: int = 5


OPTIONS = {each.attribute: each for each in options_of(Example)}


class OptionTest(SynchronousTestCase):
    """Descriptions, and values of each kind from words and from TOML."""

    def test_described(self) -> None:
        self.assertEqual(
            [(each.name, each.short, each.shown, each.reloadable) for each in OPTIONS.values()],
            [
                ("whole", "w", "``4``", False),
                ("flag", None, "", False),
                ("other-name", None, "``x``", False),
                ("texts", None, "``a`` ``b``", False),
                ("colour", None, "``red``", False),
                ("some-size", None, "``10``", False),
                ("time", None, "``1.5``", True),
                ("optional", None, "", False),
                ("made", None, "what is made", False),
            ],
        )

    def test_defaults_are_those_of_the_fields(self) -> None:
        self.assertEqual(Example(), Example(4, False, "x", ("a", "b"), Colour.RED, 10, 1.5, None, "made", 5))

    def test_values(self) -> None:
        for name, text, toml, value in (
            ("whole", "6", 6, 6),
            ("flag", "", True, True),
            ("text", "a b", "a b", "a b"),
            ("texts", "a", ["a"], ("a",)),
            ("texts", "a", "a", ("a",)),
            ("colour", "green", "green", Colour.GREEN),
            ("some_size", "2k", "2K", 2048),
            ("some_size", "7", 7, 7),
            ("time", "1.5", 1.5, 1.5),
            ("time", "2m", "2m", 120),
            ("time", "1h", 3600, 3600),
        ):
            with self.subTest(name, text=text):
                self.assertEqual(OPTIONS[name].of_text(text), value)
                self.assertEqual(OPTIONS[name].of_toml(toml), value)

    def assert_refused(self, each: Option, convert: Any, value: Any, *said: str) -> None:
        with self.subTest(each.name, value=value):
            with self.assertRaises(ValueError) as caught:
                convert(value)
            for text in (each.name, *said):
                self.assertIn(text, str(caught.exception))

    def test_wrong_words(self) -> None:
        for name, text, *said in (
            ("whole", "x", "a whole number", "'x'"),
            ("whole", "1.5", "a whole number"),
            ("whole", "0", "1 or more"),
            ("whole", "10", "8 or less"),
            ("whole", "5", "must be even"),
            ("colour", "blue", "'red' or 'green'", "'blue'"),
            ("some_size", "k", "bytes"),
            ("time", "inf", "seconds"),
            ("time", "nan", "seconds"),
            ("time", "1w", "seconds"),
        ):
            self.assert_refused(OPTIONS[name], OPTIONS[name].of_text, text, *said)

    def test_wrong_types_in_toml(self) -> None:
        for name, value in (
            ("whole", "4"),
            ("whole", True),
            ("whole", 4.0),
            ("flag", 1),
            ("flag", "yes"),
            ("text", 5.5),
            ("text", True),
            ("texts", ["a", 5]),
            ("texts", {"a": 1}),
            ("colour", 5),
            ("colour", ["red"]),
            ("some_size", 1.5),
            ("some_size", True),
            ("time", True),
            ("time", [1]),
        ):
            self.assert_refused(
                OPTIONS[name], OPTIONS[name].of_toml, value, f"not {value!r}".replace("T", "t")
            )

    def test_verify(self) -> None:
        verify(Example())
        with self.assertRaises(ValueError) as caught:
            verify(Example(whole=9))
        self.assertEqual(str(caught.exception), "whole must be 8 or less, not 9")

    def test_every_kind_says_what_it_is(self) -> None:
        kinds: set[Kind] = {each.kind for each in OPTIONS.values()} | {SECONDS}
        self.assertEqual(len({kind.called for kind in kinds}), len(kinds))
