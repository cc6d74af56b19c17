"""The thread with a reactor of its own: what it leaves alone, what it refuses, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python import threadable
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.blocking.servers import LIMIT, BackgroundServer, in_thread, reversing, run_python, until
from tests.support import on_reactor
from txgearman import blocking as gearman
from txgearman.blocking import background_thread as module
from txgearman.blocking.background_thread import BackgroundThread, background_thread
from txgearman.blocking.deadline import Deadline
from txgearman.blocking.errors import ServerUnavailable
from txgearman.blocking.event_queue import EventQueue


class Calls(SynchronousTestCase):
    def test_results(self) -> None:
        self.assertEqual(background_thread().call(lambda value: value + 1, 2), 3)
        late: Deferred[int] = Deferred()
        background_thread().post(background_thread().reactor.callLater, 0, late.callback, 5)
        self.assertEqual(background_thread().call(lambda: late), 5)

    def test_errors(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            background_thread().call(lambda: 1 / 0)
        with self.assertRaises(LookupError):
            background_thread().call(lambda: fail(LookupError()))
        with self.assertRaises(TimeoutError):
            background_thread().call(lambda: fail(TimeoutError()))

    def test_time_limit(self) -> None:
        with self.assertRaises(ServerUnavailable):
            background_thread().call(Deferred, timeout=0.01)

    def test_refuses_to_wait_in_its_own_thread(self) -> None:
        thread = background_thread()
        with self.assertRaises(RuntimeError):
            thread.call(lambda: thread.call(lambda: None))
        with self.assertRaises(RuntimeError):
            thread.call(lambda: gearman.GearmanClient(["localhost"]).submit_job("f", ""))
        with self.assertRaises(RuntimeError):
            thread.call(lambda: gearman.GearmanWorker(["localhost"]).work())

    def test_one_thread_for_all(self) -> None:
        self.assertIs(background_thread(), background_thread())
        threads = [thread for thread in threading.enumerate() if thread.name == "txgearman.blocking"]
        self.assertEqual(len(threads), 1)
        self.assertIs(threads[0].daemon, True)

    def test_takes_no_signals(self) -> None:
        blocked = background_thread().call(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []))
        self.assertIn(signal.SIGINT, blocked)
        self.assertIn(signal.SIGTERM, blocked)


class Ends(SynchronousTestCase):
    def started(self) -> BackgroundThread:
        thread = BackgroundThread()
        thread.start()
        self.addCleanup(thread.stop)
        return thread

    def test_who_waits_fails(self) -> None:
        background, event_queue, raised = self.started(), EventQueue(), []
        background.close_when_ended(event_queue)
        waits: list[Any] = [
            lambda: background.call(Deferred),
            lambda: (
                event_queue.wait(event_queue.changes, Deadline(None))
                and event_queue.wait(event_queue.changes, Deadline(None))
            ),
        ]
        begun = threading.Barrier(3)

        def wait(one: Any) -> None:
            begun.wait(LIMIT)
            try:
                one()
            except ServerUnavailable as error:
                raised.append(error)

        threads = [threading.Thread(target=wait, args=(one,)) for one in waits]
        for thread in threads:
            thread.start()
        begun.wait(LIMIT)
        until(lambda: len(background._pending_calls) == 1, "one waits")
        background.stop()
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual(len(raised), 2)
        self.assertIs(background.alive, False)
        with self.assertRaises(ServerUnavailable):
            background.call(lambda: None)
        with self.assertRaises(ServerUnavailable):
            late = EventQueue()
            background.close_when_ended(late)
            late.wait(late.changes, Deadline(None))

    def test_next_use_starts_another(self) -> None:
        with BackgroundServer() as server:
            client = gearman.GearmanClient([server.address])
            lost = client.submit_job("f", "", wait_until_complete=False, poll_timeout=LIMIT)
            address, first = server.port, background_thread()
            module.stop()
            self.assertIsNot(background_thread(), first)
            server._listening = None
            server.start()
            self.assertEqual(server.port, address)
            with self.assertRaises(ServerUnavailable):
                client.wait_until_jobs_completed([lost])
            self.assertEqual(lost.state, gearman.JOB_UNKNOWN)
            client.submit_job("f", "", background=True, poll_timeout=LIMIT)
            client.shutdown()


class Reactors(TestCase):
    @on_reactor
    async def test_beside_a_running_reactor(self) -> None:
        """In a thread of a Twisted program, and even, though that blocks it, in its reactor's thread."""
        with ExitStack() as stack:
            server = stack.enter_context(BackgroundServer())
            stack.enter_context(reversing(server.address))
            client = gearman.GearmanClient([server.address])
            stack.callback(client.shutdown)
            request = await in_thread(client.submit_job, "reverse", "ab", poll_timeout=LIMIT)
            self.assertEqual(request.result, "ba")
            self.assertEqual(client.submit_job("reverse", "ab", poll_timeout=LIMIT).result, "ba")
        from twisted.internet import reactor

        self.assertIsNot(background_thread().reactor, reactor)
        self.assertEqual(threadable.ioThread, threading.get_ident())


SUBMIT = """
import sys
from txgearman import blocking as gearman
client = gearman.GearmanClient([sys.argv[1]])
"""


class Processes(SynchronousTestCase):
    """In programs of their own."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.server = stack.enter_context(BackgroundServer())
        stack.enter_context(reversing(self.server.address))

    def run_script(self, script: str) -> str:
        done = run_python(script, self.server.address)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def test_no_reactor_is_installed(self) -> None:
        script = SUBMIT + (
            "print(client.submit_job('reverse', 'ab').result)\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
        )
        self.assertEqual(self.run_script(script), "ba\nFalse\n")

    def test_import_starts_nothing(self) -> None:
        script = SUBMIT + "import threading\nprint(threading.active_count())\n"
        self.assertEqual(self.run_script(script), "1\n")

    def test_import_loads_little(self) -> None:
        script = SUBMIT.replace("client =", "gearman.errors, gearman.PRIORITY_HIGH\nlater = lambda:")
        script += "print([name for name in ('twisted', 'OpenSSL') if name in sys.modules])\n"
        self.assertEqual(self.run_script(script), "[]\n")

    def test_exit_without_closing(self) -> None:
        script = SUBMIT + "client.submit_job('nobody', '', wait_until_complete=False)\nprint('bye')\n"
        self.assertEqual(self.run_script(script), "bye\n")

    def test_exit_with_threads_that_wait(self) -> None:
        """A daemon thread that waits for a job without a limit does not hold up the end."""
        script = SUBMIT + (
            "import threading\n"
            "request = client.submit_job('nobody', '', wait_until_complete=False)\n"
            "threading.Thread(target=client.wait_until_jobs_completed, args=([request],),"
            " daemon=True).start()\n"
            "print('bye')\n"
        )
        self.assertEqual(run_python(script, self.server.address).stdout, "bye\n")

    def test_exit_after_a_name_was_looked_up(self) -> None:
        script = (
            "from txgearman import blocking as gearman\n"
            "try:\n"
            f"    gearman.GearmanClient(['localhost:{self.server.port}']).submit_job('reverse', 'ab')\n"
            "finally:\n"
            "    print('bye')\n"
        )
        self.assertEqual(self.run_script(script), "bye\n")

    def test_threads_still_run_at_exit(self) -> None:
        script = SUBMIT + (
            "import threading\n"
            # Python 3.12 starts no threads any more when the main thread has ended.
            "client.submit_job('reverse', '')\n"
            "def late():\n"
            "    threading.main_thread().join()\n"
            "    print(client.submit_job('reverse', 'ab').result)\n"
            "threading.Thread(target=late).start()\n"
        )
        self.assertEqual(self.run_script(script), "ba\n")

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_fork_before_the_first_use(self) -> None:
        self.assertEqual(self.run_script(SUBMIT + FORK), "child ba\nparent ba\n")

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_fork_behind_the_first_use(self) -> None:
        script = "import warnings\nwarnings.simplefilter('ignore')\n" + SUBMIT
        script += "print(client.submit_job('reverse', 'xy').result, flush=True)\n" + FORK
        self.assertEqual(self.run_script(script), "yx\nchild ba\nparent ba\n")

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_what_the_parent_waits_for_is_not_the_childs(self) -> None:
        script = "import warnings\nwarnings.simplefilter('ignore')\nimport logging\n"
        script += "logging.disable()\n" + SUBMIT + INHERITED
        self.assertEqual(self.run_script(script), "UNKNOWN ba\nCREATED\n")

    def test_ctrl_c(self) -> None:
        """Ctrl-C ends a wait without a limit, by the exception that it is; the client can be used on."""
        script = SUBMIT + (
            "try:\n"
            "    print('waits', flush=True)\n"
            "    client.submit_job('nobody', '')\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', client.submit_job('reverse', 'ab').result)\n"
        )
        self.assertEqual(self._interrupt(script), ("interrupted ba\n", 0))

    def test_ctrl_c_of_a_worker(self) -> None:
        script = (
            "import sys\n"
            "from txgearman import blocking as gearman\n"
            "class Worker(gearman.GearmanWorker):\n"
            "    def after_poll(self, any_activity):\n"
            "        print('waits', flush=True)\n"
            "        return True\n"
            "try:\n"
            "    Worker([sys.argv[1]]).work()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted')\n"
        )
        self.assertEqual(self._interrupt(script), ("interrupted\n", 0))

    def _interrupt(self, script: str) -> tuple[str, int]:
        """What a script prints that gets Ctrl-C when it has connected and said that it waits."""
        # Whoever runs these tests in the background may have it ignored.
        script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + script
        before = self.server.connections
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, self.server.address],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), "waits\n")
                until(lambda: self.server.connections > before, "it has connected")
                process.send_signal(signal.SIGINT)
                begin = time.monotonic()
                output, _ = process.communicate(timeout=LIMIT)
                self.assertLess(time.monotonic() - begin, LIMIT / 2)
            finally:
                process.kill()
        return output, process.returncode


INHERITED = """
import os
request = client.submit_job('nobody', '', wait_until_complete=False)
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    print(request.state)
else:
    try:
        client.wait_until_jobs_completed([request])
    except gearman.errors.ServerUnavailable:
        print(request.state, client.submit_job('reverse', 'ab').result, flush=True)
    os._exit(0)
"""

FORK = """
import os
pid = os.fork()
name = 'parent' if pid else 'child'
if pid:
    os.waitpid(pid, 0)
print(name, client.submit_job('reverse', 'ab').result, flush=True)
if not pid:
    os._exit(0)
"""
