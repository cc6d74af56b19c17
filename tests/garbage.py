"""Looking for garbage: what ends is to be freed at once, without the collector. No expectations."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def resting_collector() -> Iterator[None]:
    """The garbage collector does not look by itself, as in the server, and has nothing left to find."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    # Nor is it to walk all that was there before.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def garbage() -> list[Any]:
    """What nothing refers to any more, and was not freed as it refers to itself."""
    before = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [describe(thing) for thing in gc.garbage]
    finally:
        gc.garbage.clear()
        gc.set_debug(before)


def describe(thing: Any) -> str:
    """What kind of thing this is, and no reference to it."""
    return f"{type(thing).__module__}.{type(thing).__qualname__} {getattr(thing, '__qualname__', '')}".strip()


def gone(reference: weakref.ref[Any]) -> bool:
    """Whether the thing is freed."""
    return reference() is None
