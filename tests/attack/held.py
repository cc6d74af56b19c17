"""Attacks on memory by bytes that wait: for a peer that does not read, or from one that does not go on."""

from __future__ import annotations

from base64 import b64decode
from typing import Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import http
from tests.attack.names import MIB, submit
from tests.attack.peers import Peer, assigned, created, header, packets
from tests.processes.packets import Type, request

ECHO: Final = 40 * MIB

LARGE: Final = 60 * MIB

PACKET: Final = 64
"""MiB of the largest packet, by default: what has to be there of one while it is handled."""

TOTAL: Final = 256
"""MiB that may wait for all peers together in these attacks."""


def unread(target: Target, size: int) -> Peer:
    """A connection whose first packet is an echo that it does not read."""
    peer = target.connect()
    peer.send(request(Type.ECHO_REQ, bytes(size)))
    return peer


class EndedEchoes(Attack):
    """Nothing of a connection outlives it."""

    name = "ended-unread-echoes"
    about = (
        "30 connections, six at a time, send an ECHO_REQ of 40 MiB first, do not read its answer, and end."
    )
    bounds = Bounds(peak=6 * 40 * 3)

    def run(self, target: Target) -> None:
        for _ in range(5):
            peers = [unread(target, ECHO) for _ in range(6)]
            for peer in peers:
                target.forget(peer)
            # Who is served behind them says that the server knows that they have gone.
            target.connect().talk(b"")


class EndedEchoesOverTls(Attack):
    """The same with what TLS keeps for itself."""

    name = "ended-unread-tls"
    about = "The same over TLS, with echoes of 8 MiB."
    bounds = Bounds(peak=6 * 8 * 4)
    tls = True

    def run(self, target: Target) -> None:
        for _ in range(8):
            peers = [target.connect_tls() for _ in range(6)]
            for peer in peers:
                peer.send(request(Type.ECHO_REQ, bytes(8 * MIB)))
            for peer in peers:
                target.forget(peer)
            target.connect().talk(b"")


class EndedAnswers(Attack):
    """The same over HTTP: bodies of a job's data, and of its result."""

    name = "ended-unread-http"
    about = (
        "48 HTTP requests for 20 MiB of a job's data, and for a result of 20 MiB, do not read it, and end."
    )
    bounds = Bounds(peak=512, left=96)
    web = True

    def run(self, target: Target) -> None:
        client = target.connect()
        answers = client.talk(submit(b"waits", b"", bytes(20 * MIB)))
        handle = created(answers).decode()
        worker = target.connect()
        worker.talk(request(Type.CAN_DO, b"results"))
        for _ in range(6):
            peers = [target.connect_web() for _ in range(4)]
            for peer in peers:
                peer.send(http("GET", f"/api/v1/jobs/{handle}/data"))
                peer.read_some()
            waiting = [target.connect_web() for _ in range(4)]
            for peer in waiting:
                peer.send(http("POST", "/api/v1/functions/results/jobs", b"x"))
            worker.talk(b"")
            worker.talk(_results(worker, bytes(20 * MIB)))
            for peer in peers + waiting:
                target.forget(peer)
            target.connect().talk(b"")
        client.ask(b"cancel job " + handle.encode() + b"\n", b"\n")


def _results(worker: Peer, result: bytes) -> bytes:
    """Reports that end all jobs that a worker can get."""
    answers = worker.talk(request(Type.GRAB_JOB_UNIQ) * 10)
    return b"".join(
        request(Type.WORK_COMPLETE, body.partition(b"\0")[0], result)
        for kind, body in packets(answers)
        if kind == Type.JOB_ASSIGN_UNIQ
    )


class EndedEvents(Attack):
    """The same for streams that never end by themselves."""

    name = "ended-unread-events"
    about = "Event streams of a job and of the dashboard, 12 at a time, do not read what comes, and end."
    bounds = Bounds(peak=512)
    web = True

    def run(self, target: Target) -> None:
        client, worker = target.connect(), target.connect()
        worker.talk(request(Type.CAN_DO, b"streamed"))
        answers = client.talk(submit(b"streamed", b"", b"", Type.SUBMIT_JOB))
        handle = created(answers)
        worker.talk(request(Type.GRAB_JOB_UNIQ))
        for _ in range(5):
            peers = [target.connect_web() for _ in range(12)]
            for peer in peers[:6]:
                peer.send(http("GET", f"/api/v1/jobs/{handle.decode()}/events"))
                peer.read_some()
            for peer in peers[6:]:
                peer.send(http("GET", "/api/v1/live?view=functions"))
                peer.read_some()
            for _ in range(5):
                worker.talk(request(Type.WORK_DATA, handle, b"\xff" * MIB))
                client.read(0.01)
            for peer in peers:
                target.forget(peer)
            target.connect().talk(b"")


class UnreadEchoes(Attack):
    """The first packet of a connection counts as any other."""

    name = "unread-echoes"
    about = "With ``--max-unsent-total 256M``, 30 connections do not read the answers to echoes of 60 MiB."
    bounds = Bounds(peak=TOTAL + 4 * PACKET)

    def options(self, target: Target) -> list[str]:
        return ["--max-unsent-total", f"{TOTAL}M"]

    def run(self, target: Target) -> None:
        for _ in range(30):
            unread(target, LARGE)
        rows = target.connect().ask(b"show limits\n", b"\n.\n").splitlines()
        used = [int(row.split(b"\t")[2]) for row in rows if row.startswith(b"max-unsent-total\t")]
        target.expect(used and 0 < used[0] <= TOTAL * MIB, f"show limits says that {used} bytes wait")


class UnreadResult(Attack):
    """One result counts for each peer for whom it waits."""

    name = "unread-results"
    about = "With ``--max-unsent-total 256M``, a result of 60 MiB for 60 clients of one unique, all unread."
    bounds = Bounds(peak=TOTAL + 4 * PACKET)

    def options(self, target: Target) -> list[str]:
        return ["--max-unsent-total", f"{TOTAL}M"]

    def run(self, target: Target) -> None:
        worker = target.connect()
        worker.talk(request(Type.CAN_DO, b"shared"))
        for client in target.connect_many(60):
            client.send(submit(b"shared", b"one", b"", Type.SUBMIT_JOB))
            client.read_some()
        handle = assigned(worker.talk(request(Type.GRAB_JOB_UNIQ)))
        worker.talk(request(Type.WORK_COMPLETE, handle, bytes(LARGE)))


class UnreadLists(Attack):
    """A list is made as its reader takes it."""

    name = "unread-lists"
    about = "100 connections ask a hundred times each for a list of 50,000 jobs and read nothing."
    bounds = Bounds(peak=192, stall=0.5)

    def run(self, target: Target) -> None:
        client = target.connect()
        for _ in range(50):
            client.talk(submit(b"listed", b"") * 1_000)
        for peer in target.connect_many(100):
            peer.send(b"show jobs\nshow unique jobs\n" * 50, patience=0.05)


class UnreadJobs(Attack):
    """A payload becomes base64 as its reader takes it, and is held for a reader when its job has ended."""

    name = "unread-jobs"
    about = "With ``--max-unsent-total 256M``, 32 connections ask for 8 jobs of 60 MiB, unread, which end."
    bounds = Bounds(peak=TOTAL + 4 * PACKET, stall=0.5)

    def options(self, target: Target) -> list[str]:
        return ["--max-unsent-total", f"{TOTAL}M"]

    def run(self, target: Target) -> None:
        client = target.connect()
        for number in range(8):
            data = bytes([number]) * LARGE
            handle = created(client.talk(submit(b"shown", b"", data)))
            for _ in range(4):
                target.connect().send(b"show job " + handle + b"\n", patience=0.05)
            if not number:
                answer = client.ask(b"show job " + handle + b"\n", b"\n.\n")
                target.expect(
                    b64decode(answer.rpartition(b"\ndata\t")[2]) == data, "show job has not shown the payload"
                )
            client.ask(b"cancel job " + handle + b"\n", b"\n")


class UnreadEvents(Attack):
    """A byte becomes up to six in JSON, and what a reader may have waiting is what comes of that."""

    name = "unread-event-data"
    about = "A WORK_DATA of 30 MiB, of text, bytes or controls, for twelve event streams that do not read."
    bounds = Bounds(peak=12 * 16 + 4 * PACKET)
    web = True

    def run(self, target: Target) -> None:
        worker = target.connect()
        worker.talk(request(Type.CAN_DO, b"streamed"))
        for data in (b"x" * (30 * MIB), b"\xff" * (30 * MIB), b"\x01" * (30 * MIB)):
            streams = [target.connect_web() for _ in range(12)]
            for peer in streams:
                headers = {"Accept": "text/event-stream", "X-Gearman-Unique": "one"}
                peer.send(http("POST", "/api/v1/functions/streamed/jobs", b"", headers))
                peer.read_some()
            handle = assigned(worker.talk(request(Type.GRAB_JOB_UNIQ)))
            worker.talk(request(Type.WORK_DATA, handle, data) + request(Type.WORK_FAIL, handle))


class UnfinishedPackets(Attack):
    """What has come of them counts over all connections."""

    name = "unfinished-packets"
    about = "With ``--max-unfinished-total 128M``, 40 connections send 20 MiB of a packet of 60 MiB and stop."
    bounds = Bounds(peak=128 + 2 * PACKET, log_lines=100)

    def options(self, target: Target) -> list[str]:
        return ["--max-unfinished-total", "128M"]

    def run(self, target: Target) -> None:
        part = header(Type.SUBMIT_JOB_BG, LARGE) + bytes(20 * MIB)
        for peer in target.connect_many(40):
            peer.send(part)


class UnfinishedBodies(Attack):
    """Bodies of HTTP requests count with them."""

    name = "unfinished-bodies"
    about = "The same by bodies of HTTP requests, with Content-Length and in chunks."
    bounds = Bounds(peak=128 + 2 * PACKET, log_lines=100)
    web = True

    def options(self, target: Target) -> list[str]:
        return ["--max-unfinished-total", "128M"]

    def run(self, target: Target) -> None:
        path = "/api/v1/functions/f/jobs"
        for number in range(40):
            peer = target.connect_web()
            if number % 2:
                peer.send(http("POST", path, b"", {"Content-Length": str(LARGE)}) + bytes(20 * MIB))
            else:
                peer.send(http("POST", path, b"", {"Transfer-Encoding": "chunked", "Content-Length": ""}))
                peer.send((b"100000\r\n" + bytes(MIB) + b"\r\n") * 20)


class SmallBeginnings(Attack):
    """They are not counted, and there are only so many connections."""

    name = "small-beginnings"
    about = "2,000 connections send 16 KiB of a packet of 60 MiB and stop."
    bounds = Bounds(peak=2_000 * 16 // 1024 + 128, stall=0.5)

    def run(self, target: Target) -> None:
        part = header(Type.SUBMIT_JOB_BG, LARGE) + bytes(16 * 1024 - 100)
        for peer in target.connect_many(2_000):
            peer.send(part)


class HugeClaims(Attack):
    """A claim costs nothing until what it claims is there."""

    name = "huge-claims"
    about = "2,000 headers that claim 64 MiB, and as many that claim 4 GiB."
    bounds = Bounds(peak=128, stall=0.5, log_lines=2 * 2_000 + 10)

    def run(self, target: Target) -> None:
        for peer in target.connect_many(2_000):
            peer.send(header(Type.SUBMIT_JOB_BG, 64 * MIB))
        for _ in range(2_000):
            peer = target.connect()
            peer.send(header(Type.SUBMIT_JOB_BG, 0xFFFF_FFFF))
            target.expect(peer.ends(), "a connection stays that claims 4 GiB")
            target.forget(peer)


class Trickle(Attack):
    """Bytes one by one are not joined to all that came before, over and over."""

    name = "trickle"
    about = "20 connections send packets, lines and HTTP requests byte by byte, as fast as they are read."
    web = True

    def run(self, target: Target) -> None:
        packet = header(Type.SUBMIT_JOB_BG, LARGE)
        head = http("POST", "/api/v1/functions/f/jobs", b"", {"Content-Length": "100000"})
        peers = [(target.connect(), packet) for _ in range(8)]
        peers += [(target.connect(), b"status and no end of it ") for _ in range(4)]
        peers += [(target.connect_web(), head) for _ in range(8)]
        for step in target.steps(10.0):
            for peer, first in peers:
                peer.send(first[step : step + 1] or b"x", patience=0.01)
