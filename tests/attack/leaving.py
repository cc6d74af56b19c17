"""Attacks by very many things that come to their end, or to their time, in one instant."""

from __future__ import annotations

import select
import socket
import time
from typing import ClassVar, Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import ask, http
from tests.attack.names import MIB, submit
from tests.attack.peers import Peer, assigned, packets
from tests.attack.walks import PATIENT, register
from tests.processes.packets import Type, request
from tests.processes.servers import HOST

AHEAD: Final = 5_000
"""Packets whose answers are awaited before more are sent."""


def fill(peer: Peer, packet: bytes, count: int) -> None:
    """Send a packet so many times."""
    for begin in range(0, count, AHEAD):
        peer.talk(packet * min(AHEAD, count - begin), PATIENT)


class LeavingClient(Attack):
    """Its jobs are not run any more, and nobody waits while they are put away."""

    name = "leaving-client"
    about = "A client leaves of whom 400,000 jobs wait."
    bounds = Bounds(peak=512)

    def run(self, target: Target) -> None:
        fill(target.connect(), submit(b"left", b"", b"", Type.SUBMIT_JOB), 400_000)

    def after(self, target: Target) -> None:
        rows = target.connect().ask(b"status\n", b".\n").splitlines()
        waiting = [row for row in rows if row.startswith(b"left\t") and not row.startswith(b"left\t0\t")]
        target.expect(not waiting, f"jobs of one who has gone are there: {waiting}")


class LeavingWorker(Attack):
    """They go back into their queue, in its order."""

    name = "leaving-worker"
    about = (
        "A worker leaves that has 50,000 jobs and 20,000 functions, another unregisters and resets as many."
    )
    # 20,000 functions stay, far fewer than there may be.
    bounds = Bounds(peak=512, left=192)

    def run(self, target: Target) -> None:
        client = target.connect()
        fill(client, submit(b"taken", b"", b"", Type.SUBMIT_JOB), 50_000)
        for ending in (b"", request(Type.CANT_DO, b"taken"), request(Type.RESET_ABILITIES)):
            worker = target.connect()
            register(worker, 20_000)
            worker.talk(request(Type.CAN_DO, b"taken"))
            fill(worker, request(Type.GRAB_JOB), 50_000)
            if ending:
                worker.talk(ending, PATIENT)
            target.forget(worker)
            target.connect().talk(b"")


class ScheduledAtOnce(Attack):
    """They become due in steps."""

    name = "epoch-jobs-at-once"
    about = "200,000 SUBMIT_JOB_EPOCH that become due in the same second."
    bounds = Bounds(peak=512, left=384)

    def run(self, target: Target) -> None:
        client = target.connect()
        due = int(time.time()) + 8
        fill(client, request(Type.SUBMIT_JOB_EPOCH, b"due", b"", b"%d" % due, b""), 200_000)
        for _ in target.steps():
            if time.time() > due + 2:
                return
            client.read(0.2)


class LimitsAtOnce(Attack):
    """The jobs go back, or fail, in steps."""

    name = "time-limits-at-once"
    about = "30,000 running jobs whose time limits expire in the same second."
    bounds = Bounds(peak=384)

    def run(self, target: Target) -> None:
        client, worker = target.connect(), target.connect()
        worker.talk(request(Type.CAN_DO_TIMEOUT, b"limited", b"6000"))
        fill(client, submit(b"limited", b"", b"", Type.SUBMIT_JOB), 30_000)
        fill(worker, request(Type.GRAB_JOB), 30_000)
        for _ in target.steps(8.0):
            worker.read(0.2)


class CancelStorm(Attack):
    """By admin lines and by HTTP."""

    name = "cancel-all"
    about = "100,000 jobs are cancelled by one HTTP request, and 50,000 by as many lines."
    # Each line that cancels a job is an action, and so a line of the log.
    bounds = Bounds(peak=384, log_lines=50_050)
    web = True

    def run(self, target: Target) -> None:
        client = target.connect()
        fill(client, submit(b"gone"), 100_000)
        status = ask(target, http("DELETE", "/api/v1/functions/gone/jobs"), 30.0).status
        target.expect(status in (200, 204), f"DELETE of all jobs gets {status}")
        answers = b"".join(client.talk(submit(b"gone") * AHEAD, PATIENT) for _ in range(10))
        handles = [body for kind, body in packets(answers) if kind == Type.JOB_CREATED]
        for begin in range(0, len(handles), AHEAD):
            client.talk(b"".join(b"cancel job %s\n" % handle for handle in handles[begin : begin + AHEAD]))


class BadNeedle(Attack):
    """A search takes a time that is linear in what it looks at."""

    name = "bad-needle"
    about = "Job searches over HTTP by text that nearly fits everywhere."
    web = True

    def run(self, target: Target) -> None:
        client = target.connect()
        for _ in range(100):
            client.talk(submit(b"searched", b"", b"a" * 65_536))
        for needle in ("a" * 2_000 + "b", "b" + "a" * 2_000, "a" * 1_000 + "b" + "a" * 1_000, "a" * 60 + "b"):
            ask(target, http("GET", f"/api/v1/functions/searched/jobs?search={needle}"), 30.0)


class Burst(Attack):
    """None of them waits until the system tries again, which takes a second."""

    name = "burst-of-connects"
    about = "200 connects in one instant."
    slowest: ClassVar[float] = 0.9

    def run(self, target: Target) -> None:
        for _ in range(5):
            begin = time.monotonic()
            sockets = [socket.socket() for _ in range(200)]
            for one in sockets:
                one.setblocking(False)
                one.connect_ex((HOST, target.port))
            waiting = {one.fileno() for one in sockets}
            poll = select.poll()
            for one in sockets:
                poll.register(one, select.POLLOUT)
            while waiting and time.monotonic() < begin + 5.0:
                for number, _ in poll.poll(1_000):
                    waiting.discard(number)
                    poll.unregister(number)
            seconds = time.monotonic() - begin
            for one in sockets:
                one.close()
            target.expect(seconds < self.slowest, f"the last of 200 connects took {seconds:.2f} s")


class LargeSubmits(Attack):
    """One that may be, again and again."""

    name = "large-packets"
    about = "Jobs with 60 MiB of data are submitted, run and answered with 60 MiB, one after the other."
    bounds = Bounds(peak=5 * 64, stall=0.5)

    def run(self, target: Target) -> None:
        client, worker = target.connect(), target.connect()
        worker.talk(request(Type.CAN_DO, b"large"))
        for _ in range(5):
            client.talk(submit(b"large", b"", bytes(60 * MIB), Type.SUBMIT_JOB), PATIENT)
            handle = assigned(worker.talk(request(Type.GRAB_JOB_UNIQ), PATIENT))
            worker.talk(request(Type.WORK_COMPLETE, handle, bytes(60 * MIB)), PATIENT)
            client.talk(b"", PATIENT)
