"""Attacks by what is small to say and large to do, or is kept for ever."""

from __future__ import annotations

from typing import Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import http
from tests.attack.names import submit
from tests.attack.peers import Peer, assigned, count
from tests.processes.packets import Type, request

JOINS: Final = 1_000
"""Submits of one connection that may join one job."""


def _running(target: Target, function: bytes) -> tuple[Peer, bytes]:
    """A worker, and the handle of the job that it was given."""
    worker = target.connect()
    answers = worker.talk(request(Type.CAN_DO, function) + request(Type.GRAB_JOB_UNIQ))
    return worker, assigned(answers)


class JoinsAndReports(Attack):
    """One connection may join one job so often, and then it is refused."""

    name = "joins-and-reports"
    about = (
        "One connection joins a job 20,000 times and does not read, and 1,000 WORK_STATUS are sent for it."
    )

    def run(self, target: Target) -> None:
        client = target.connect()
        join = submit(b"joined", b"one", b"", Type.SUBMIT_JOB)
        answers = b"".join(client.talk(join * 1_000) for _ in range(20))
        refused = count(answers, Type.ERROR, b"QUEUE_ERROR\0")
        target.expect(refused == 20_000 - JOINS, f"{refused} of 20,000 joins are refused")
        worker, handle = _running(target, b"joined")
        worker.talk(request(Type.WORK_STATUS, handle, b"1", b"2") * 1_000, patience=60.0)


class JoinsOfMany(Attack):
    """What one turn makes for peers is bounded, however many they are."""

    name = "joins-of-many"
    about = "With ``--max-unsent-total 256M``, 50 clients join a job 1,000 times each and get 300 reports."
    bounds = Bounds(peak=512)

    def options(self, target: Target) -> list[str]:
        return ["--max-unsent-total", "256M"]

    def run(self, target: Target) -> None:
        join = submit(b"joined", b"one", b"", Type.SUBMIT_JOB)
        for client in target.connect_many(50):
            client.talk(join * JOINS)
        worker, handle = _running(target, b"joined")
        for kind in (Type.WORK_STATUS, Type.WORK_DATA, Type.WORK_WARNING):
            fields = (b"1", b"2") if kind == Type.WORK_STATUS else (bytes(1_000),)
            worker.talk(request(kind, handle, *fields) * 100, patience=60.0)
        worker.talk(request(Type.WORK_FAIL, handle))


class Functions(Attack):
    """As many as may be, and those that nobody uses go. Subclasses say how they come into being."""

    number = 200_000
    bounds = Bounds(peak=192, left=64, refusals=True)

    def options(self, target: Target) -> list[str]:
        return ["--max-functions", "10000"]

    def name_of(self, number: int) -> bytes:
        """The name of one of them."""
        return b"f%06d" % number

    def packet(self, number: int) -> bytes:
        """What makes it."""
        raise NotImplementedError

    def run(self, target: Target) -> None:
        peer = target.connect()
        for begin in range(0, self.number, 2_000):
            peer.talk(b"".join(map(self.packet, range(begin, begin + 2_000))))

    def after(self, target: Target) -> None:
        """No more of them are there than may be."""
        rows = target.connect().ask(b"status\n", b".\n").count(b"\n")
        target.expect(rows <= 10_000, f"{rows} functions are there, at most 10,000")


class FunctionsBySubmits(Functions):
    """Jobs whose clients have gone are gone, and so are their functions."""

    name = "functions-by-submits"
    about = (
        "With ``--max-functions 10000`` and ``--max-jobs 100``, 2,000 clients submit to 100 functions each."
    )

    def options(self, target: Target) -> list[str]:
        return [*super().options(target), "--max-jobs", "100"]

    def run(self, target: Target) -> None:
        for begin in range(0, self.number, 100):
            client = target.connect()
            client.talk(b"".join(map(self.packet, range(begin, begin + 100))))
            target.forget(client)

    def packet(self, number: int) -> bytes:
        return submit(self.name_of(number), b"", b"", Type.SUBMIT_JOB)


class FunctionsByWorkers(Functions):
    """A worker that has gone leaves none."""

    name = "functions-by-workers"
    about = "A worker registers 200,000 functions."

    def packet(self, number: int) -> bytes:
        return request(Type.CAN_DO, self.name_of(number))


class FunctionsByPassingWorkers(Functions):
    """The same, a few at a time."""

    name = "functions-by-passing-workers"
    about = "Workers come, register 2,000 functions, unregister them and go."

    def run(self, target: Target) -> None:
        for begin in range(0, self.number // 2, 2_000):
            worker = target.connect()
            names = [self.name_of(number) for number in range(begin, begin + 2_000)]
            worker.talk(b"".join(request(Type.CAN_DO, name) for name in names))
            worker.talk(request(Type.RESET_ABILITIES))
            target.forget(worker)

    def packet(self, number: int) -> bytes:
        return b""


class FunctionsByLines(Functions):
    """These stay, as an administrator has made them; one more is refused."""

    name = "functions-by-lines"
    about = "``create function``, ``maxqueue`` and ``maxrate`` for 90,000 names."
    number = 30_000
    # What an administrator changes is in the log, and these are changes until the limit is reached.
    bounds = Bounds(peak=192, left=64, refusals=True, log_lines=100_000)

    def run(self, target: Target) -> None:
        peer = target.connect()
        for begin in range(0, self.number, 1_000):
            for line in (b"create function c%d\n", b"maxqueue q%d 1\n", b"maxrate r%d 1\n"):
                lines = b"".join(line % number for number in range(begin, begin + 1_000))
                peer.talk(lines)


class ListsOfFunctions(Attack):
    """Lists and pages of very many functions, each made in steps."""

    name = "lists-of-functions"
    about = "50 connections ask for ``status``, and dashboards open, while there are 100,000 functions."
    bounds = Bounds(peak=512, left=512, stall=0.5)
    web = True

    def run(self, target: Target) -> None:
        worker = target.connect()
        for begin in range(0, 100_000, 2_000):
            names = (b"f%06d" % number for number in range(begin, begin + 2_000))
            worker.talk(b"".join(request(Type.CAN_DO, name) for name in names))
        for view in ("overview", "functions", "connections"):
            for _ in range(3):
                target.connect_web().send(http("GET", f"/api/v1/live?view={view}"))
        for path in (
            "/metrics",
            "/api/v1/functions?limit=100",
            "/api/v1/functions?search=zz",
            "/api/v1/server",
        ):
            target.connect_web().send(http("GET", path))
        lines = (b"status\n", b"prioritystatus\n", b"workers\n", b"show function limits\n")
        peers = target.connect_many(50)
        for number, peer in enumerate(peers):
            peer.send(lines[number % len(lines)])
        for peer in peers:
            peer.until(b"\n.\n", 1.0)
