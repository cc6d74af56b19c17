"""The examples that the guide shows, beside the two programs of `test_types_of_jobs`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import threading
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

from twisted.trial.unittest import SynchronousTestCase

from tests.blocking.servers import LIMIT, BackgroundServer, ThreadedWorker, reverse, until, working
from txgearman import blocking as gearman

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "blocking"


def load(name: str, address: str) -> ModuleType:
    """The example as a module, with another server."""
    spec = importlib.util.spec_from_loader(name, None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "localhost:4730" in source
    exec(compile(source.replace("localhost:4730", address), name, "exec"), vars(module))
    return module


class Examples(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.server = self.stack.enter_context(BackgroundServer())

    def test_json_data(self) -> None:
        module = load("json_data.py", self.server.address)
        workers: list[gearman.GearmanWorker] = []

        class Worker(module.JsonWorker):  # type: ignore[name-defined, misc]
            def after_poll(self, any_activity: bool) -> bool:
                workers.append(self)
                return True

        vars(module)["JsonWorker"] = Worker
        thread = threading.Thread(target=module.work)
        thread.start()
        try:
            until(lambda: bool(workers), "the worker works")
            with contextlib.redirect_stdout(io.StringIO()) as output:
                module.main()
        finally:
            workers[0].shutdown()
            thread.join(LIMIT)
        self.assertEqual(output.getvalue(), "6\n")

    def test_wsgi(self) -> None:
        module = load("wsgi.py", self.server.address)
        self.stack.callback(module.client.shutdown)

        def fail(*_: Any) -> None:
            raise ValueError

        def ask(text: str) -> tuple[str, str]:
            environ: dict[str, Any] = {"QUERY_STRING": text}
            setup_testing_defaults(environ)
            begun: list[str] = []
            body = module.application(environ, lambda status, headers: begun.append(status))
            return begun[0], b"".join(body).decode()

        worker = ThreadedWorker(self.server.address)
        worker.register_task("delayed_reverse", reverse)
        with working(worker):
            self.assertEqual(ask("Gr%C3%BC%C3%9Fe"), ("200 OK", "eßürG"))
            answers: list[Any] = []
            threads = [threading.Thread(target=lambda: answers.append(ask("ab"))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT)
            self.assertEqual(answers, [("200 OK", "ba")] * 4)
            worker.register_task("delayed_reverse", fail)
            self.assertEqual(ask("ab"), ("502 Bad Gateway", ""))
        self.server.stop()
        self.assertEqual(ask("ab")[0], "503 Service Unavailable")

    def test_guide_shows_them_all(self) -> None:
        guide = (ROOT / "docs" / "blocking.rst").read_text(encoding="utf-8")
        for path in EXAMPLES.glob("*.py"):
            self.assertIn(f"../examples/blocking/{path.name}", guide)
