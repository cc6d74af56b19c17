"""The programs that define the types of jobs, and what they print, word for word.

They run in two threads, with a clock of the test's in the place of theirs: it goes on when both sleep, to
the end of the shorter sleep. The sample output says that its sleeps lasted a bit longer than asked for, the
worker's last one by 6 ms; so do these.
"""

from __future__ import annotations

import builtins
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.blocking.servers import LIMIT, BackgroundServer, in_thread
from tests.interop.programs import HOST, gearmand, txgearmand
from tests.support import needs_program, on_reactor
from txgearman import blocking

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "blocking"

OVERSLEPT: Final = {"client": [0.0013] * 8, "worker": [0.001, 0.001, 0.001, 0.006]}
"""Seconds by which each sleep of a program is longer than asked for."""

CLIENT_OUTPUT: Final = """\
Time elpased = 0.00, Known = True, Running = False, Status = 0/0, data = deque([])
Time elpased = 1.00, Known = True, Running = True, Status = 0/0, data = deque([])
Time elpased = 2.00, Known = True, Running = True, Status = 1/3, data = deque([])
Time elpased = 3.00, Known = True, Running = True, Status = 1/3, data = deque(['half way data'])
Time elpased = 4.01, Known = True, Running = True, Status = 2/3, data = deque([])
Time elpased = 5.01, Known = True, Running = True, Status = 2/3, data = deque([])
Time elpased = 6.01, Known = True, Running = True, Status = 2/3, data = deque([])
Time elpased = 7.01, Known = False, Running = False, Status = 0/0, data = deque([])
"""

WORKER_OUTPUT: Final = """\
Received job `Hello World!`, will run for 6 seconds
Time elapsed = 2.00, updating status to 1/3
Time elapsed = 3.00, sent half-way data
Time elapsed = 4.00, updating status to 2/3
Time elapsed = 6.01, updating status to 3/3 and returning
"""


class Play:
    """Runs the client's program, and from its first sleep on the worker's; keeps what they print."""

    def __init__(self, address: str) -> None:
        self.output = {"client": "", "worker": ""}
        self._address = address
        self._now = 1000.0
        self._wake: dict[str, float] = {}
        self._awake = {"client"}
        self._changed = threading.Condition()
        self._oversleeps = {name: iter(longer) for name, longer in OVERSLEPT.items()}
        self._worker = threading.Thread(target=self._run, args=("worker",))
        self._stopped = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Both programs, to their ends."""
        try:
            self._run("client")
        finally:
            self._stopped = True
            with self._changed:
                self._changed.notify_all()
            if self._worker.ident is not None:
                self._worker.join(LIMIT)
        if self._error is not None:
            raise self._error

    def _run(self, name: str) -> None:
        source = (EXAMPLES / f"{name}.py").read_text()
        assert "localhost:4730" in source
        program = compile(source.replace("localhost:4730", self._address), f"{name}.py", "exec")
        modules = {
            "time": SimpleNamespace(time=lambda: self._now, sleep=lambda length: self._sleep(name, length)),
            "txgearman": SimpleNamespace(blocking=self._blocking()),
        }
        own = {
            **vars(builtins),
            "print": lambda *words: self._print(name, *words),
            "__import__": lambda module, *_: modules[module],
        }
        try:
            exec(program, {"__builtins__": own, "__name__": "__main__"})
        except BaseException as error:
            if name == "client":
                raise
            self._error = error
        finally:
            self._leave(name)

    def _print(self, name: str, *words: object) -> None:
        self.output[name] += " ".join(map(str, words)) + "\n"

    def _blocking(play) -> SimpleNamespace:  # noqa: N805 - there is a self of the worker's
        """The package, with a worker that ends with the play."""

        class Worker(blocking.GearmanWorker):
            def on_job_complete(self, current_job: Any, job_result: Any) -> bool:
                completed = super().on_job_complete(current_job, job_result)
                play._leave("worker")
                return completed

            def after_poll(self, any_activity: bool) -> bool:
                return not any_activity and not play._stopped

        # Its names are imported when they are asked for.
        names = {name: getattr(blocking, name) for name in blocking.__all__}
        return SimpleNamespace(**{**names, "GearmanWorker": Worker})

    # -- the clock ------------------------------------------------------------------------------

    def _sleep(self, name: str, length: float) -> None:
        with self._changed:
            if name == "client" and self._worker.ident is None:
                self._awake.add("worker")
                self._worker.start()
            self._wake[name] = self._now + length + next(self._oversleeps[name])
            self._awake.discard(name)
            self._changed.notify_all()
            woken = self._changed.wait_for(lambda: self._is_next(name), LIMIT)
            assert woken, f"{name} is not woken: {self._awake} are awake"
            self._now = self._wake.pop(name)
            self._awake.add(name)

    def _is_next(self, name: str) -> bool:
        return self._stopped or (not self._awake and min(self._wake, key=self._wake.__getitem__) == name)

    def _leave(self, name: str) -> None:
        with self._changed:
            self._awake.discard(name)
            self._changed.notify_all()


class InMemory(SynchronousTestCase):
    def test_sample_output(self) -> None:
        with BackgroundServer() as server:
            play = Play(server.address)
            play.run()
        self.assertEqual(play.output["client"], CLIENT_OUTPUT)
        self.assertEqual(play.output["worker"], WORKER_OUTPUT)

    def test_programs_are_those_of_the_definition(self) -> None:
        """Apart from the docstring and the import, they differ from Python 2's in print and range."""
        for name in ("client", "worker"):
            source = (EXAMPLES / f"{name}.py").read_text()
            head, imported, body = source.partition("from txgearman import blocking as gearman\n")
            self.assertTrue(imported)
            self.assertEqual(head.split('"""')[2].split(), ["import", "time"])
            self.assertNotIn("txgearman", body)
            self.assertNotIn("import", body)


class OnServers(TestCase):
    async def _play(self, server: Any) -> None:
        play = Play(f"{HOST}:{server.port}")
        await in_thread(play.run)
        self.assertEqual(play.output["client"], CLIENT_OUTPUT)
        self.assertEqual(play.output["worker"], WORKER_OUTPUT)

    @on_reactor
    async def test_txgearmand(self) -> None:
        async with txgearmand() as server:
            await self._play(server)

    @needs_program("gearmand")
    @on_reactor
    async def test_gearmand(self) -> None:
        # One thread, so that packets of different connections are handled as they come.
        async with gearmand("--threads=1") as server:
            await self._play(server)
