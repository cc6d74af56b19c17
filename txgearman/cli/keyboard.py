"""The keyboard of commands that draw: each key at once, and the terminal restored at the end. Nothing is
drawn here."""

from __future__ import annotations

import contextlib
import os
import re
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

_ESCAPE_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-9;?]*[@-~]|O.|.)?", re.DOTALL)
"""What a key without a character sends, such as an arrow."""


@implementer(IReadDescriptor)
class Keyboard:
    """Reads the keys of a terminal inside its ``with``. Keys that send escape sequences are ignored.

    Args:
        reactor: The reactor.
        descriptor: The terminal.
        on_key: Called with each key.
        on_hangup: Called when the terminal is closed.
    """

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        on_key: Callable[[str], object],
        on_hangup: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._on_key = on_key
        self._on_hangup = on_hangup
        self._saved_attributes: list[Any] = []

    def __enter__(self) -> Self:
        self._saved_attributes = termios.tcgetattr(self._descriptor)
        # Not raw: Ctrl-C must stay a signal.
        tty.setcbreak(self._descriptor)
        self._reactor.addReader(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reactor.removeReader(self)
        self.restore()

    def restore(self) -> None:
        """Restore the terminal's settings."""
        with contextlib.suppress(termios.error):  # it may be closed
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved_attributes)

    # -- the reactor's calls --------------------------------------------------------------------

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "terminal"

    def doRead(self) -> None:
        try:
            typed = os.read(self._descriptor, 1024)
        except OSError:
            typed = b""
        if not typed:
            self._reactor.removeReader(self)
            self._on_hangup()
        for key in _ESCAPE_SEQUENCE.sub(b"", typed).decode("utf-8", "replace"):
            self._on_key(key)

    def connectionLost(self, reason: Failure) -> None:
        self._on_hangup()
