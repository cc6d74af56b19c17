"""Attacks by chance: random conversations with a real server, as many as the time allows."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.conversations import NAMES, conversation, cut, http_request
from tests.attack.documented import undocumented, wrong_answer
from tests.attack.peers import header
from tests.processes.packets import Type, request


class Fuzzing(Attack):
    """As much as the time allows. Subclasses say what."""

    bounds = Bounds(log_lines=1_000_000, left=128, refusals=True)
    lines: float

    def options(self, target: Target) -> list[str]:
        return ["--handle-prefix", "H:fuzz"]

    def run(self, target: Target) -> None:
        for step in target.steps():
            peer = target.connect()
            for piece in conversation(target.rng, self.lines):
                peer.send(piece, patience=0.05)
            # Behind a header that lies no echo comes back.
            peer.send(request(Type.ECHO_REQ, b"end"), patience=0.05)
            peer.until(header(Type.ECHO_RES, 3).replace(b"REQ", b"RES") + b"end", 0.05)
            self.judge(target, step, undocumented(peer.take()))
            if step % 4:
                target.forget(peer)
            if len(target.peers) > 50:
                target.forget(target.peers[0])

    def judge(self, target: Target, step: int, wrong: Iterator[str]) -> None:
        """Say what is wrong with one answer; not for ever the same."""
        for text in wrong:
            if len(target.faults) < 20:
                target.fault(f"conversation {step}: {text}")


class FuzzPackets(Fuzzing):
    """The server answers as the docs say, and serves the others."""

    name = "fuzz-packets"
    about = "Random packets, most of them nearly right, in random pieces, with lines between them."
    lines = 0.05


class FuzzLines(Fuzzing):
    """The same for administrators."""

    name = "fuzz-lines"
    about = "Random admin lines, with packets between them."
    lines = 0.9


class FuzzHttp(Fuzzing):
    """The same over HTTP."""

    name = "fuzz-http"
    about = "Random HTTP requests, most of them nearly right, in random pieces."
    web = True

    def options(self, target: Target) -> list[str]:
        return [*super().options(target), "--store", f"sqlite:///{target.folder}/jobs.db"]

    def run(self, target: Target) -> None:
        worker = target.connect()
        for name in NAMES:
            worker.send(request(Type.CAN_DO, name))
        for step in target.steps():
            peer = target.connect_web()
            data = http_request(target.rng)
            for piece in cut(target.rng, data):
                peer.send(piece, patience=0.05)
            peer.ends(0.05)
            self.judge(target, step, wrong_answer(peer.take()))
            target.forget(peer)
