"""Looking for garbage: what ends must be freed at once, without the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.trial.unittest import SynchronousTestCase


@contextmanager
def resting_collector() -> Iterator[None]:
    """The garbage collector does not run by itself, as in the server, and starts with nothing to find."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    # So that it does not walk all objects from before.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def garbage() -> list[Any]:
    """Objects that nothing refers to any more, and that were not freed since they refer to themselves."""
    before = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [describe(thing) for thing in gc.garbage]
    finally:
        gc.garbage.clear()
        gc.set_debug(before)


def describe(thing: Any) -> str:
    """The kind of an object, without a reference to it."""
    return f"{type(thing).__module__}.{type(thing).__qualname__} {getattr(thing, '__qualname__', '')}".strip()


def gone(reference: weakref.ref[Any]) -> bool:
    """Whether the object is freed."""
    return reference() is None


class GarbageTestCase(SynchronousTestCase):
    """Tests that whatever ends in some state is freed, for each of several states."""

    def check_each(self, states: Iterable[Callable[..., Any]], end_in: Callable[[Any], None]) -> None:
        """Call `end_in` with each state, while the collector rests."""
        with resting_collector():
            for state in states:
                with self.subTest(state.__name__):
                    end_in(state)

    def assertNoGarbage(self) -> None:
        """Nothing is left for the collector. Call this while the server is still referred to."""
        self.assertEqual(garbage(), [])
        # The server refers to itself, and would be the garbage of the next state.
        gc.freeze()
