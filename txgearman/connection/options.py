"""Which options a server has, as far as it has answered."""

from __future__ import annotations

from collections import deque
from typing import Final

from txgearman.wire.codec import frame
from txgearman.wire.packets import OPTION_REQ, REQUEST

UNKNOWN_OPTION: Final = b"UNKNOWN_OPTION"
"""The code of the ERROR for an option that the server does not know, with gearmand and with this server."""


class OptionRequests:
    """The options that were asked for on one connection. A server answers in the order of the requests.

    Attributes:
        accepted: Those that the server has.
    """

    __slots__ = ("_pending", "accepted")

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self.accepted: set[bytes] = set()

    def ask(self, option: bytes) -> bytes:
        """Ask for an option.

        Args:
            option: Its name.

        Returns:
            The packet, which is to be sent.
        """
        self._pending.append(option)
        return frame(REQUEST, OPTION_REQ, option)

    def accept(self, option: bytes) -> None:
        """The server has an option.

        Args:
            option: What OPTION_RES says.
        """
        if self._pending and self._pending[0] == option:
            self._pending.popleft()
            self.accepted.add(option)

    def refuse(self, code: bytes) -> bool:
        """The server has sent an ERROR.

        Args:
            code: The error's code.

        Returns:
            Whether it says that the server does not have the option that was asked for first.
        """
        if not self._pending or code != UNKNOWN_OPTION:
            return False
        self._pending.popleft()
        return True
