"""The tree of errors as a whole: each can be copied and pickled, those of the other rooms too."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgearman.errors import GearmanError, JobRaised

for _module in ("txgearman.blocking.errors", "txgearman.cli.exit_codes"):
    import_module(_module)

_VALUES: dict[str, Any] = {
    "bool": False,
    "bytes": b"H:1",
    "dict[int,": {},
    "float": 1.5,
    "int": 7,
    "list[bytes]": [b"H:1", b""],
    "str": "größe",
}
"""A value for each type that the constructors take, by the type's first word."""


def tree(root: type[GearmanError] = GearmanError) -> Iterator[type[GearmanError]]:
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


def made(kind: type[GearmanError]) -> GearmanError:
    """An error of a kind, every argument given."""
    if "__init__" not in {
        name for base in kind.__mro__ for name in vars(base) if base.__module__ != "builtins"
    }:
        return kind("why", 2)
    positional, named = [], {}
    for name, parameter in inspect.signature(kind).parameters.items():
        value = _VALUES[parameter.annotation.partition(" ")[0]]
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    return kind(*positional, **named)


class Mine(JobRaised):
    """An error of a user's, with a constructor of its own."""

    def __init__(self, data: bytes) -> None:
        super().__init__(b"H:2", data)
        self.more = [data]


class CopyTest(SynchronousTestCase):
    def assert_same(self, copied: BaseException, error: GearmanError) -> None:
        self.assertIs(type(copied), type(error))
        self.assertEqual(
            (copied.args, str(copied), vars(copied)), (error.args, str(error), vars(error)), type(error)
        )

    def test_all_errors_can_be_pickled_and_copied(self) -> None:
        kinds = {kind for kind in tree() if kind.__module__.startswith("txgearman.")}
        self.assertGreater(len(kinds), 30)
        for kind in (*kinds, Mine):
            error = made(kind)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                self.assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
            self.assert_same(copy.copy(error), error)
            self.assert_same(copy.deepcopy(error), error)

    def test_notes_come_along(self) -> None:
        error = made(JobRaised)
        error.add_note("at night")
        self.assertEqual(pickle.loads(pickle.dumps(error)).__notes__, ["at night"])
