"""The terminal as `top` needs it: keys at once, and as it was before at the end. Nothing is drawn here."""

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

_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-9;?]*[@-~]|O.|.)?", re.DOTALL)
"""What a key sends that is no character."""


@implementer(IReadDescriptor)
class Keys:
    """Gives each key that is pressed on the terminal `descriptor` to `pressed`, inside the ``with``.

    Keys that send more than one character, such as the arrows, are passed over. `lost` is called when
    nobody is at the terminal any more.
    """

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        pressed: Callable[[str], object],
        lost: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._pressed = pressed
        self._lost = lost
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._descriptor)
        # Not raw: Ctrl-C is to stay a signal.
        tty.setcbreak(self._descriptor)
        self._reactor.addReader(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reactor.removeReader(self)
        self.restore()

    def restore(self) -> None:
        """Give the terminal back as it was."""
        with contextlib.suppress(termios.error):  # it may be gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

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
            self._lost()
        for key in _SEQUENCE.sub(b"", typed).decode("utf-8", "replace"):
            self._pressed(key)

    def connectionLost(self, reason: Failure) -> None:
        self._lost()
