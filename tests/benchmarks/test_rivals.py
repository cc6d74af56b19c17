"""Each job system that `make bench-rivals` compares, with a few jobs, and what is made of the figures."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import time
import unittest
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import report
from benchmarks.rivals import measure, processes, run, tables
from benchmarks.rivals.brokers import EVERY_ANSWER, EVERY_SECOND, KEEPING, MEMORY, Brokers
from benchmarks.rivals.catalogue import CHECKOUT, OURS, REDIS, RIVALS, Rival, missing
from benchmarks.rivals.contract import BULK, CALL, EACH
from benchmarks.rivals.jobs import PAYLOAD_BYTES, payloads, read_runs
from benchmarks.rivals.measure import Called, Enqueued, Measure, Remembered, Worked
from benchmarks.rivals.results import Results
from benchmarks.servers import BenchmarkFailed
from tests.support import needs_program, process_state, temporary_folder

JOBS = 20


class InFolder(SynchronousTestCase):
    """Measures with brokers in a folder that goes with the test."""

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.folder = temporary_folder(self)
        self.brokers = Brokers(self.folder, stack)
        self.measure = Measure(self.brokers, self.folder)


class JobSystems(InFolder):
    """`Measure` itself checks that each job ran, and ran once."""

    def check(self, name: str) -> None:
        rival = next(rival for rival in RIVALS if rival.name == name)
        reason = missing(rival)
        if reason is not None:
            raise unittest.SkipTest(reason)
        self.assertEqual(set(rival.versions()), set(rival.packages))
        for keeping in self.brokers.keepings(rival.broker, MEMORY):
            roles = [role for role in rival.roles if role != CALL]
            for role in roles:
                self.check_through(rival, role, 0, keeping.name)
            for index in range(1, len(rival.workers)):
                self.check_through(rival, roles[0], index, keeping.name)
            called = self.measure.call(rival, rival.workers[0], keeping, JOBS)
            self.assertGreater(called.p50, 0)
            self.assertGreaterEqual(called.p99, called.p50)
            self.assertGreater(called.client_cpu, 0)
            self.assertGreater(called.worker_cpu, 0)
            self.assertGreater(called.broker_cpu, 0)

    def check_through(self, rival: Rival, role: str, form: int, keeping_name: str) -> None:
        keeping = next(keeping for keeping in KEEPING[rival.broker] if keeping.name == keeping_name)
        enqueued, worked = self.measure.through(rival, role, rival.workers[form], keeping, JOBS)
        self.assertGreater(enqueued.rate, 0)
        self.assertGreater(enqueued.client_cpu, 0)
        self.assertGreater(enqueued.broker_cpu, 0)
        self.assertGreater(worked.rate, 0)

    def test_twisted(self) -> None:
        self.check("txgearman")

    def test_asyncio(self) -> None:
        self.check("txgearman.aio")

    def test_blocking(self) -> None:
        self.check("txgearman.blocking")

    def test_celery(self) -> None:
        self.check("Celery")

    def test_rq(self) -> None:
        self.check("RQ")

    def test_dramatiq(self) -> None:
        self.check("Dramatiq")

    def test_huey(self) -> None:
        self.check("Huey")

    def test_arq(self) -> None:
        self.check("arq")

    def test_a_store(self) -> None:
        self.check_through(RIVALS[0], BULK, 0, "SQLite")

    def test_the_size_of_queued_jobs(self) -> None:
        keeping = self.brokers.keepings(OURS, MEMORY)[0]
        remembered = self.measure.memory(RIVALS[0], keeping, 5000)
        self.assertEqual(remembered.jobs, 5000)
        self.assertGreater(remembered.per_job, PAYLOAD_BYTES)


@needs_program("redis-server")
class Redis(InFolder):
    """It keeps its jobs as the level says."""

    def settings(self, level: str) -> tuple[str, str, str]:
        (keeping,) = self.brokers.keepings(REDIS, level)
        with (
            self.brokers.running(REDIS, keeping) as broker,
            socket.create_connection(("127.0.0.1", broker.port), timeout=10) as connection,
        ):
            asked = ("appendonly", "appendfsync", "save")
            connection.sendall(b"".join(b"CONFIG GET %s\r\n" % name.encode() for name in asked))
            answer = b""
            # Each answer is a name and a value, each with its length on a line before it.
            while answer.count(b"\r\n") < 5 * len(asked):
                answer += connection.recv(4096)
        first, second, third = answer.decode().split("\r\n")[4::5][:3]
        return first, second, third

    def test_memory(self) -> None:
        self.assertEqual(self.settings(MEMORY), ("no", "everysec", ""))

    def test_every_second(self) -> None:
        self.assertEqual(self.settings(EVERY_SECOND), ("yes", "everysec", ""))

    def test_every_answer(self) -> None:
        self.assertEqual(self.settings(EVERY_ANSWER), ("yes", "always", ""))


class Runs(SynchronousTestCase):
    """The notes that jobs leave."""

    def noted(self, *numbers: int) -> Path:
        path = temporary_folder(self) / "runs"
        path.write_bytes(b"".join(struct.pack("=qq", number, 7) for number in numbers))
        return path

    def test_a_repeated_job(self) -> None:
        failure = self.assertRaises(BenchmarkFailed, measure._check_runs, self.noted(0, 1, 1), None)
        self.assertIn("1 jobs ran more than once", str(failure))

    def test_a_lost_job(self) -> None:
        failure = self.assertRaises(BenchmarkFailed, measure._check_runs, self.noted(0, 1), 3)
        self.assertIn("2 of 3 jobs ran", str(failure))

    def test_all_ran(self) -> None:
        measure._check_runs(self.noted(1, 0, 2), 3)

    def test_a_note_that_is_being_written(self) -> None:
        path = self.noted(4, 5)
        path.write_bytes(path.read_bytes() + b"\0")
        self.assertEqual(list(read_runs(path)), [(4, 7), (5, 7)])

    def test_payloads(self) -> None:
        made = payloads(3)
        self.assertEqual([int(payload[:8]) for payload in made], [0, 1, 2])
        self.assertEqual({len(payload.encode()) for payload in made}, {PAYLOAD_BYTES})


WITH_A_CHILD = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open(sys.argv[1], "w").write(f"{child.pid}\\n")
signal.pause()
"""

BUSY = "import time\nwhile time.process_time() < 0.2: pass\n"


class Processes(SynchronousTestCase):
    """A worker's processes, all of them."""

    def until(self, path: Path, child: processes.Process) -> int:
        give_up = time.monotonic() + 30
        while not (path.exists() and path.read_text().endswith("\n")):
            child.check()
            self.assertLess(time.monotonic(), give_up)
            os.sched_yield()
        return int(path.read_text())

    def test_children_end_too(self) -> None:
        self.patch(processes, "STOP_TIMEOUT", 0.05)
        folder = temporary_folder(self)
        path = folder / "child"
        command = [sys.executable, "-c", WITH_A_CHILD, str(path)]
        with processes.running(command, dict(os.environ), folder) as worker:
            child = self.until(path, worker)
            self.assertNotEqual(process_state(child), "Z")
        for pid in (child, worker.process.pid):
            # Whoever has it now may not have waited for it yet.
            give_up = time.monotonic() + 30
            while self.lives(pid):
                self.assertLess(time.monotonic(), give_up)
                os.sched_yield()

    def lives(self, pid: int) -> bool:
        try:
            return process_state(pid) != "Z"
        except OSError:
            return False

    def test_a_worker_that_ends_says_why(self) -> None:
        folder = temporary_folder(self)
        command = [sys.executable, "-c", "raise SystemExit('no such queue')"]
        with processes.running(command, dict(os.environ), folder) as worker:
            worker.process.wait(30)
            failure = self.assertRaises(BenchmarkFailed, worker.check)
        self.assertIn("no such queue", str(failure))

    def test_processor_time_of_children(self) -> None:
        folder = temporary_folder(self)
        path = folder / "done"
        script = (
            "import signal, subprocess, sys\n"
            f"subprocess.run([sys.executable, '-c', {BUSY!r}], check=True)\n"
            "open(sys.argv[1], 'w').write('1\\n')\n"
            "signal.pause()\n"
        )
        command = [sys.executable, "-c", script, str(path)]
        with processes.running(command, dict(os.environ), folder) as worker:
            self.until(path, worker)
            self.assertGreater(worker.cpu(), 0.19)

    def test_a_client_that_fails(self) -> None:
        failure = self.assertRaises(
            BenchmarkFailed,
            processes.run_client,
            [sys.executable, "-c", "raise SystemExit('refused')"],
            dict(os.environ),
            temporary_folder(self),
        )
        self.assertIn("refused", str(failure))


def _rows(made: list[report.Table], title: str) -> Iterator[tuple[str, ...]]:
    return iter(next(table for table in made if table.title.startswith(title)).rows)


class Tables(SynchronousTestCase):
    def setUp(self) -> None:
        self.results = Results(
            {
                "cores": 2,
                "processor": "a fast one",
                "system": "Linux 6",
                "python": "3.11",
                "rounds": 2,
                "memory": 2000,
                "durable": 500,
                "calls": 300,
            }
        )
        self.results.versions["RQ"] = {"rq": "3.0", "redis": "8.1"}
        self.results.enqueued["RQ", EACH, "memory"] = [
            Enqueued(1000.0, 200e-6, 50e-6),
            Enqueued(3000.0, 400e-6, 70e-6),
        ]
        self.results.enqueued["RQ", BULK, "memory"] = [Enqueued(9000.0, 60e-6, 20e-6)]
        self.results.enqueued["Huey", EACH, "memory"] = [Enqueued(5000.0, 70e-6, 30e-6)]
        self.results.worked["RQ", "SimpleWorker", "memory"] = [Worked(700.0, 900e-6, 300e-6)]
        self.results.worked["Huey", "1 thread", "memory"] = [Worked(4000.0, None, None)]
        self.results.called["RQ", "SimpleWorker"] = [Called(0.002, 0.004, 1e-4, 2e-4, 3e-4)]
        self.results.remembered["RQ"] = Remembered(1000, 2 * 1024 * 1024, 3 * 1024 * 1024)

    def test_rows(self) -> None:
        made = tables.of(self.results)
        self.assertEqual(
            list(_rows(made, "One client process")),
            [
                ("RQ", "memory", "2,000", "300 + 60", "9,000", "60 + 20"),
                ("Huey", "memory", "5,000", "70 + 30", "n/a", "n/a"),
            ],
        )
        self.assertEqual(
            list(_rows(made, "One worker process")),
            [
                ("RQ", "SimpleWorker", "memory", "700", "900 + 300"),
                ("Huey", "1 thread", "memory", "4,000", "n/a"),
            ],
        )
        self.assertEqual(
            list(_rows(made, "One job after the other")),
            [("RQ", "SimpleWorker", "2,000", "4,000", "100 + 300 + 200")],
        )
        self.assertEqual(list(_rows(made, "Resident memory")), [("RQ", "1,000", "2.0", "3.0", "1,049")])
        self.assertEqual(
            list(_rows(made, "What was measured")),
            [
                ("machine", "2 processors (a fast one), Linux 6"),
                ("Python", "3.11"),
                ("rounds", "2"),
                ("jobs in one measurement", "2,000 in memory, 500 durable, 300 waited for"),
                ("RQ", "rq 3.0, redis 8.1"),
            ],
        )

    def test_nothing_measured_has_no_tables(self) -> None:
        self.assertEqual(tables.of(Results({})), [])

    def test_they_can_be_written(self) -> None:
        made = tables.of(self.results)
        self.assertIn("One worker process runs no-op jobs", report.as_plain(made))
        self.assertEqual(report.as_rst(made).count(".. list-table::"), 5)

    def test_json(self) -> None:
        found = json.loads(json.dumps(self.results.as_json()))
        self.assertEqual(found["enqueued"][0]["of"], ["RQ", EACH, "memory"])
        self.assertEqual(found["enqueued"][0]["runs"][1]["rate"], 3000.0)
        self.assertAlmostEqual(found["remembered"]["RQ"]["per_job"], 1048.576)


class Plan(InFolder):
    """What is measured in a round."""

    def test_each_role_and_each_form_in_memory(self) -> None:
        for rival in RIVALS:
            planned = run._runs(self.measure, [rival], (MEMORY,))
            self.assertEqual({one.role for one in planned}, set(rival.roles) - {CALL})
            self.assertEqual([one.form for one in planned][: len(rival.workers)], list(rival.workers))

    def test_durable_beside_durable(self) -> None:
        planned = run._runs(self.measure, RIVALS, (EVERY_ANSWER,))
        self.assertEqual({one.rival.name for one in planned}, {rival.name for rival in RIVALS})
        self.assertEqual({one.keeping.level for one in planned}, {EVERY_ANSWER})

    def test_a_missing_rival_is_skipped_with_the_reason(self) -> None:
        said: list[str] = []
        self.patch(run, "_say", said.append)
        self.patch(run, "missing", lambda rival: f"{rival.name} is away")
        self.assertEqual(run.main(["--only", "RQ"]), 0)
        self.assertEqual(said[0], "RQ is skipped: RQ is away")

    def test_the_page_names_all(self) -> None:
        page = (CHECKOUT / "docs/alternatives.rst").read_text()
        for rival in RIVALS:
            self.assertIn(rival.name, page)
            for form in rival.workers:
                if form.most:
                    self.assertRegex(page, rf"{rival.name}\b.* {form.most}\b")

    def test_what_make_installs(self) -> None:
        venvs = {rival.venv for rival in RIVALS if rival.venv is not None}
        required = {path.stem for path in (CHECKOUT / "benchmarks/rivals/requirements").glob("*.txt")}
        made = re.search(r"^RIVALS := (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
        assert made is not None
        self.assertEqual(required, venvs)
        self.assertEqual(set(made[1].split()), venvs)
