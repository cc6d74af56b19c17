"""Programs of ``txgearman worker`` whose job is over: they are ended, and its place is taken until then."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.programs import until
from tests.support import on_reactor
from txgearman.cli import worker
from txgearman.cli.worker import WorkerOptions
from txgearman.worker import Job


def options(script: str, lines: bool = False) -> WorkerOptions:
    """The options of a worker that runs a shell script."""
    return WorkerOptions((script,), ("f",), (), None, None, None, lines, None, None, 1.0, False)


class Sent:
    """A job's connection: keeps what is sent."""

    codec: Any = None
    max_packet = 1000

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.packets.append(data)

    def writable(self) -> Any:
        raise AssertionError("nobody waits")


class EndingTests(TestCase):
    async def end(self, script: str) -> None:
        """Begin a job whose program makes the file ``$began``, and cancel it; wait for the program's end."""
        from twisted.internet import reactor

        with tempfile.TemporaryDirectory() as folder:
            began = Path(folder) / "began"
            pool = worker._ProgramPool(reactor, options(f"began={began}; {script}"))
            try:
                job = Job(Sent(), b"H:1", b"f", b"", None, b"")
                outcome = pool.run(job)

                async def has_begun() -> bool:
                    return began.exists()

                await until(has_begun, "the program runs")
                self.assertIsNone(job._slot_held_until)
                outcome.cancel()
                await self.assertFailure(outcome, CancelledError)
                ended = job._slot_held_until
                assert ended is not None
                self.assertFalse(ended.called, "the program runs still")
                await ended
                # A test that ends inside the call from the thread has pytest make that call again.
                await deferLater(reactor, 0)  # type: ignore[arg-type]
            finally:
                pool.close()

    @on_reactor
    async def test_one_that_obeys(self) -> None:
        self.patch(worker, "TERMINATION_SECONDS", 3600.0)
        await self.end("trap 'exit 0' TERM; touch $began; while :; do sleep 0.01; done")

    @on_reactor
    async def test_one_that_does_not(self) -> None:
        self.patch(worker, "TERMINATION_SECONDS", 0.05)
        await self.end("trap '' TERM; touch $began; while :; do sleep 0.01; done")
