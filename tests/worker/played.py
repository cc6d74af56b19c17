"""A worker whose server is played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.connection.memory import PlayedEndpoint, PlayedServer
from txgearman.wire.packets import JOB_ASSIGN_UNIQ, OPTION_RES
from txgearman.worker import Worker

OPTIONS = tuple(("OPTION_REQ", option) for option in (b"exceptions", b"cancel", b"outcomes"))
GRAB = ("GRAB_JOB_ALL",)
SLEEP = ("PRE_SLEEP",)


class PlayedWorkerTestCase(SynchronousTestCase):
    """Has what a `worker` needs whose connections go to the test; `start` makes and connects one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = PlayedEndpoint()
        self.worker = Worker(self.clock, self.endpoint)

    @property
    def server(self) -> PlayedServer:
        """The server's end of the newest connection."""
        return self.endpoint.server

    def start(self, *, exceptions: bool = True, **options: Any) -> None:
        """Connect a worker with these options and the function ``f``."""
        self.worker = Worker(self.clock, self.endpoint, **options)
        self.worker.register("f", self.run_job)
        self.worker.startService()
        self.server.heard()
        if exceptions:
            self.server.say(OPTION_RES, b"exceptions")

    def run_job(self, job: Any) -> Any:
        """The function ``f``; tests replace it."""
        return job.data[::-1]

    def assign(self, handle: bytes = b"H:1", data: bytes = b"data", function: bytes = b"f") -> None:
        """Give the worker a job, which has to have asked for it."""
        self.server.say(JOB_ASSIGN_UNIQ, handle, function, b"unique", data)
