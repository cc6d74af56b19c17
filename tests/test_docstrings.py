"""Docstrings of the names that other people call say what goes in, what comes out and what is raised.

pydoclint holds the sections that a docstring has against the signature. One without any section passes it.
So that is tested here: for the broker's verbs, the interfaces, the store's contract, and every name of
docs/api.rst.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import DOCS
from txgearman.errors import GearmanError, JobNotFound

MODULES = (
    "txgearman.broker.administration",
    "txgearman.broker.broker",
    "txgearman.broker.connections",
    "txgearman.broker.inspection",
    "txgearman.broker.interfaces",
    "txgearman.broker.policy",
    "txgearman.broker.store_answers",
    "txgearman.errors",
    "txgearman.net.keepalive",
    "txgearman.server.config.options",
    "txgearman.server.interfaces",
    "txgearman.store.contract",
    "txgearman.web.interfaces",
    "txgearman.wire.codec",
    "txgearman.wire.names",
    "txgearman.wire.packets",
    "txgearman.wire.replies",
)
"""All of whose public classes and functions are looked at."""

RAISES_IN_PROSE = re.compile(r"\bRaises?\s+(`|[A-Z]\w+(Error)?\b)")


def documented() -> Iterator[Any]:
    """The classes and functions that docs/api.rst names. Where it shows a class without its constructor, as
    ``Job()``, only the methods are the user's."""
    module = ""
    for kind, name in re.findall(
        r"^\.\. (module|automodule|autoclass|autofunction):: ([\w.]+)", _api(), re.M
    ):
        if kind in ("module", "automodule"):
            module = name
            continue
        where, _, last = name.rpartition(".")
        yield getattr(importlib.import_module(where or module), last)


def _api() -> str:
    return (DOCS / "api.rst").read_text()


def members(module: ModuleType) -> Iterator[Any]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if own and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield value


def without_constructor() -> set[str]:
    return {name.rpartition(".")[2] for name in re.findall(r"autoclass:: (\S+)\(\)", _api())}


def methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods that a class has itself. What it implements of somebody else's interface, without a
    docstring of its own, is documented there."""
    for name, attribute in vars(cls).items():
        value = getattr(attribute, "__func__", attribute)
        if name.startswith("_") or not inspect.isfunction(value):
            continue
        foreign = any(hasattr(base, name) and not _ours(base) for base in cls.__mro__[1:])
        if value.__doc__ is not None or not foreign:
            yield name, value


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("txgearman")


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def raises(function: Callable[..., Any], cls: type | None = None) -> bool:
    """Whether the function raises anything itself, or an error of the package by a method of its class."""
    return _raises(function, cls, Exception, set())


def _raises(function: Callable[..., Any], cls: type | None, kind: type[Exception], seen: set[str]) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in _own_nodes(tree.body[0]):
        if isinstance(node, ast.Raise) and _is_raised(node.exc, function, kind):
            return True
        name = _own_method(node)
        if cls is not None and name is not None and name not in seen:
            seen.add(name)
            called = inspect.getattr_static(cls, name, None)
            if inspect.isfunction(called) and _raises(called, cls, GearmanError, seen):
                return True
    return False


def _is_raised(raised: ast.expr | None, function: Callable[..., Any], kind: type[Exception]) -> bool:
    if raised is None:
        return False
    if kind is Exception:
        return True
    error = raised.func if isinstance(raised, ast.Call) else raised
    value = inspect.unwrap(function).__globals__.get(error.id) if isinstance(error, ast.Name) else None
    return inspect.isclass(value) and issubclass(value, kind)


def _own_method(node: ast.AST) -> str | None:
    """The name of the method that a call of ``self.method`` calls."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id == "self":
            return node.func.attr
    return None


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one, but for those of functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own_nodes(child)


def missing(name: str, function: Callable[..., Any], cls: type | None = None) -> Iterator[str]:
    """What the docstring of a function lacks."""
    text = function.__doc__ or ""
    if parameters(function) and "Args:" not in text:
        yield f"{name}: no Args"
    returned = inspect.get_annotations(function).get("return")
    if returned not in (None, "None", "NoReturn") and "Returns:" not in text and "Yields:" not in text:
        yield f"{name}: no Returns"
    if raises(function, cls) and "Raises:" not in text:
        yield f"{name}: no Raises"
    if RAISES_IN_PROSE.search(text):
        yield f"{name}: Raises in prose"


def missing_in_class(cls: type) -> Iterator[str]:
    name = f"{cls.__module__}.{cls.__qualname__}"
    text = cls.__doc__ or ""
    if dataclasses.is_dataclass(cls):
        # The text of an option is its documentation.
        takes = not all(field.metadata for field in dataclasses.fields(cls))
    else:
        constructor = inspect.isfunction(vars(cls).get("__init__")) and not getattr(
            cls, "_is_protocol", False
        )
        takes = constructor or hasattr(cls, "_fields")
    takes = takes and cls.__name__ not in without_constructor() and bool(parameters(cls))
    if takes and "Args:" not in text and "Attributes:" not in text:
        yield f"{name}: neither Args nor Attributes"
    if RAISES_IN_PROSE.search(text):
        yield f"{name}: Raises in prose"
    for method, function in methods(cls):
        yield from missing(f"{name}.{method}", function, cls)


class SectionTests(SynchronousTestCase):
    """Args where there are parameters, Returns where something comes back, Raises for what is raised."""

    def check(self, names: Iterator[Any]) -> None:
        found: list[str] = []
        looked_at = 0
        for value in names:
            looked_at += 1
            if inspect.isclass(value):
                found += missing_in_class(value)
            elif inspect.isfunction(value):
                found += missing(f"{value.__module__}.{value.__qualname__}", value)
        self.assertGreater(looked_at, 10)
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_what_other_rooms_call(self) -> None:
        self.check(value for module in MODULES for value in members(importlib.import_module(module)))

    def test_names_of_the_api_page(self) -> None:
        self.check(documented())


class _Examples:
    def silent(self, seconds: float) -> int:
        """Only this."""
        raise ValueError(seconds)

    def prose(self) -> None:
        """Raises `JobNotFound` now and then."""
        self._indirect()

    def _indirect(self) -> None:
        raise JobNotFound

    def harmless(self) -> None:
        """It raises nothing of ours."""
        self._checked()

    def _checked(self) -> None:
        raise AssertionError

    def told(self, seconds: float) -> int:
        """All of it.

        Args:
            seconds: How many.

        Returns:
            As many.

        Raises:
            ValueError: There are too many.
        """
        raise ValueError(seconds)


class MissingTests(SynchronousTestCase):
    """What is found missing, so that the tests above can fail."""

    def test_each_section(self) -> None:
        self.assertEqual(
            list(missing("silent", _Examples.silent, _Examples)),
            ["silent: no Args", "silent: no Returns", "silent: no Raises"],
        )

    def test_error_of_a_helper_and_prose(self) -> None:
        self.assertEqual(
            list(missing("prose", _Examples.prose, _Examples)),
            ["prose: no Raises", "prose: Raises in prose"],
        )

    def test_error_that_a_helper_guards_against(self) -> None:
        self.assertEqual(list(missing("harmless", _Examples.harmless, _Examples)), [])

    def test_nothing(self) -> None:
        self.assertEqual(list(missing("told", _Examples.told, _Examples)), [])
