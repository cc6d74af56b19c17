"""A client whose server is played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint, PlayedServer
from txgearman.client import Client, Job
from txgearman.wire.packets import JOB_CREATED, OPTION_RES

EXCEPTIONS = ("OPTION_REQ", b"exceptions")
"""What a client says first on each connection."""


class PlayedClientTestCase(SynchronousTestCase):
    """Has a connected `client`, the `server` it is connected to, and the `clock` of both."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.client = Client(self.clock, self.endpoint, check_interval=None)
        self.successResultOf(self.client.connect())
        self.assertEqual(self.server.heard(), [EXCEPTIONS])
        self.server.say(OPTION_RES, b"exceptions")

    @property
    def server(self) -> PlayedServer:
        """The server's end of the newest connection."""
        return self.endpoint.server

    def created(self, handle: bytes = b"H:1", **options: Any) -> Job:
        """A job that was submitted and accepted."""
        submitted = self.client.submit("f", b"data", **options)
        self.server.say(JOB_CREATED, handle)
        self.server.heard()
        return self.successResultOf(submitted)
