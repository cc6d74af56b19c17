"""Attacks by packets that are handled in the longer the more a peer has, and by very many in one read."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.names import submit
from tests.attack.peers import Peer, packets
from tests.processes.packets import Type, request

PATIENT = 60.0
"""Seconds in which the attacker waits for his answers, so that it is the echo that says how long it took."""


def abilities(count: int, prefix: bytes = b"f") -> Iterator[bytes]:
    """Packets that register so many functions."""
    return (request(Type.CAN_DO, b"%s%06d" % (prefix, number)) for number in range(count))


def register(peer: Peer, count: int, prefix: bytes = b"f") -> None:
    """Register them, some at a time."""
    some: list[bytes] = []
    for packet in abilities(count, prefix):
        some.append(packet)
        if len(some) == 1_000:
            peer.talk(b"".join(some), PATIENT)
            some.clear()
    peer.talk(b"".join(some), PATIENT)


class ManyAbilities(Attack):
    """Whatever a worker has registered, a packet costs the same. Subclasses say which."""

    functions = 20_000
    # The functions stay, as there may be more of them.
    bounds = Bounds(peak=512, left=512)

    def storm(self) -> bytes:
        """The packets."""
        raise NotImplementedError

    def run(self, target: Target) -> None:
        worker = target.connect()
        register(worker, self.functions)
        worker.talk(self.storm(), PATIENT)


class GrabStorm(ManyAbilities):
    """None of the functions has a job."""

    name = "grabs-of-many-abilities"
    about = "A worker of 20,000 functions sends 1,000 GRAB_JOB of each kind in one go."

    def storm(self) -> bytes:
        kinds = (Type.GRAB_JOB, Type.GRAB_JOB_UNIQ, Type.GRAB_JOB_ALL)
        return b"".join(map(request, kinds)) * 1_000


class MoreAbilities(ManyAbilities):
    """What comes of a few kilobytes."""

    name = "changes-of-many-abilities"
    about = "A worker of 100,000 functions unregisters and registers some of them, and grabs in between."
    functions = 100_000

    def storm(self) -> bytes:
        return b"".join(
            request(Type.CANT_DO, b"f%06d" % number)
            + request(Type.GRAB_JOB)
            + request(Type.CAN_DO, b"f%06d" % number)
            + request(Type.GRAB_JOB)
            for number in range(0, 50_000, 500)
        )


class CantDoStorm(ManyAbilities):
    """From the first to the last, and from the last to the first."""

    name = "cant-do-storm"
    about = "A worker of 20,000 functions unregisters each of them, grabbing in between."

    def storm(self) -> bytes:
        order = [*range(10_000), *range(19_999, 9_999, -1)]
        return b"".join(request(Type.CANT_DO, b"f%06d" % number) + request(Type.GRAB_JOB) for number in order)


class CanDoStorm(ManyAbilities):
    """Grabs between them ask for what each of them changed."""

    name = "can-do-storm"
    about = "A worker of 20,000 functions registers 10,000 more, half with time limits, grabbing in between."

    def storm(self) -> bytes:
        return b"".join(
            packet + request(Type.GRAB_JOB) + request(Type.CAN_DO_TIMEOUT, b"g%06d" % number, b"1000")
            for number, packet in enumerate(abilities(5_000, b"g"))
        )


class SleepStorm(ManyAbilities):
    """Sleep, and be awake by grabbing."""

    name = "pre-sleep-storm"
    about = "A worker of 20,000 functions sends 2,000 PRE_SLEEP, with a GRAB_JOB after each."

    def storm(self) -> bytes:
        return (request(Type.PRE_SLEEP) + request(Type.GRAB_JOB)) * 2_000


class ResetStorm(Attack):
    """All at once, again and again."""

    name = "reset-storm"
    about = (
        "A worker registers 2,000 functions and resets them, a hundred times, and sends 10,000 resets more."
    )
    bounds = Bounds(peak=512, left=256)

    def run(self, target: Target) -> None:
        worker = target.connect()
        block = b"".join(abilities(2_000)) + request(Type.RESET_ABILITIES)
        for _ in range(100):
            worker.talk(block, PATIENT)
        worker.talk(request(Type.RESET_ABILITIES) * 10_000, PATIENT)


class ManySleepers(Attack):
    """Each submit wakes one, or all where the server is told so."""

    name = "wake-storm"
    about = "With ``--worker-wakeup 0``, 1,000 sleeping workers are woken by 200 jobs and sleep again."
    bounds = Bounds(stall=0.5)

    def options(self, target: Target) -> list[str]:
        return ["--worker-wakeup", "0"]

    def run(self, target: Target) -> None:
        workers = target.connect_many(1_000)
        for worker in workers:
            worker.talk(request(Type.CAN_DO, b"woken") + request(Type.PRE_SLEEP))
        client = target.connect()
        for _ in range(20):
            client.talk(submit(b"woken") * 10)
            for worker in workers[:200]:
                worker.send(request(Type.PRE_SLEEP))


class LargeReads(Attack):
    """A read gives way, and answers keep the order of their requests. Subclasses say what is read."""

    count = 100_000

    def packet(self, number: int) -> bytes:
        """One request."""
        raise NotImplementedError

    def answered(self, number: int) -> tuple[int, bytes] | None:
        """Its answer, or how it begins; None where there is none."""
        return None

    def run(self, target: Target) -> None:
        peer = target.connect()
        for begin in range(0, self.count, 20_000):
            numbers = range(begin, begin + 20_000)
            answers = packets(peer.talk(b"".join(map(self.packet, numbers)), PATIENT))
            for wanted in filter(None, map(self.answered, numbers)):
                kind, body = next(answers, (0, b""))
                if kind != wanted[0] or not body.startswith(wanted[1]):
                    target.fault(f"packet {kind} {body[:60]!r} in the place of {wanted}")
                    return


class EchoStorm(LargeReads):
    """The cheapest."""

    name = "echo-storm"
    about = "100,000 echoes, 20,000 at a time, must come back in order."

    def packet(self, number: int) -> bytes:
        return request(Type.ECHO_REQ, b"%d" % number)

    def answered(self, number: int) -> tuple[int, bytes]:
        return Type.ECHO_RES, b"%d" % number


class StatusStorm(LargeReads):
    """By handles that are none, and by uniques that are none."""

    name = "get-status-storm"
    about = "100,000 GET_STATUS and GET_STATUS_UNIQUE, 20,000 at a time."

    def packet(self, number: int) -> bytes:
        return request(Type.GET_STATUS_UNIQUE if number % 2 else Type.GET_STATUS, b"H:x:%d" % number)

    def answered(self, number: int) -> tuple[int, bytes]:
        return (42 if number % 2 else 20), b"H:x:%d\0" % number


class ClientIdStorm(LargeReads):
    """They have no answer."""

    name = "client-id-storm"
    about = "100,000 SET_CLIENT_ID with names of their own."

    def packet(self, number: int) -> bytes:
        return request(Type.SET_CLIENT_ID, b"client-%d" % number)


class OptionStorm(LargeReads):
    """Half of them are refused."""

    name = "option-storm"
    about = "100,000 OPTION_REQ, half of them with options that do not exist."

    def packet(self, number: int) -> bytes:
        return request(Type.OPTION_REQ, b"option-%d" % number if number % 2 else b"exceptions")

    def answered(self, number: int) -> tuple[int, bytes]:
        return (Type.ERROR, b"UNKNOWN_OPTION\0") if number % 2 else (27, b"exceptions")


class ReportStorm(LargeReads):
    """On jobs that the worker does not have."""

    name = "report-storm"
    about = "100,000 reports on jobs that the worker was not given."

    def packet(self, number: int) -> bytes:
        return request(Type.WORK_COMPLETE, b"H:x:%d" % number, b"x")

    def answered(self, number: int) -> tuple[int, bytes]:
        return Type.ERROR, b"JOB_NOT_FOUND\0"


class BadPacketStorm(LargeReads):
    """The log has one line for the first fault of a connection."""

    name = "bad-packet-storm"
    about = "100,000 packets of types that do not exist."

    def packet(self, number: int) -> bytes:
        # Those of the extensions begin with 1000.
        return request(2_000 + number % 1_000, b"x")

    def answered(self, number: int) -> tuple[int, bytes]:
        return Type.ERROR, b"INVALID_COMMAND\0"


class JoinStorm(LargeReads):
    """In the background, where a join is no more than a look-up."""

    name = "join-storm"
    about = "100,000 background submits of one unique."

    def packet(self, number: int) -> bytes:
        return submit(b"joined", b"one", b"data")

    def answered(self, number: int) -> tuple[int, bytes]:
        return Type.JOB_CREATED, b""


class LineStorm(Attack):
    """Words, and lists of little."""

    name = "line-storm"
    about = "100,000 admin lines: versions, unknown commands, empty lines, lists."

    def run(self, target: Target) -> None:
        peer = target.connect()
        block = (b"version\nnonsense\n\nshow limits\nmaxqueue\nstatus\n") * 1_000
        for _ in range(17):
            peer.talk(block, PATIENT)


class StormOfMany(Attack):
    """Each read gives way to the reads of others."""

    name = "storm-of-many"
    about = "30 connections send 20,000 submits each at the same time, and do not read."
    bounds = Bounds(stall=0.5)

    def run(self, target: Target) -> None:
        data = b"".join(submit(b"flood", b"%d" % number, b"data") for number in range(20_000))
        peers = target.connect_many(30)
        for begin in range(0, len(data), 65_536):
            for peer in peers:
                peer.send(data[begin : begin + 65_536], patience=0.05)
