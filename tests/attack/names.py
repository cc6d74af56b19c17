"""Attacks by names: too long, too many, or such that they are taken for something else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote_from_bytes

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import ask, http
from tests.attack.peers import Peer, packets
from tests.processes.packets import Type, request

LONGEST_ANSWER: Final = 4096
"""Bytes that an ERROR or ERR may have: a code, words, and a name that is cut or within its limit."""

POLICY: Final = """\
[access.everybody]
submit = ["honest", "img-*-v*-final", "*a*a*a*a*a*a*a*a*a*a*a*b"]
work = ["honest", "img-*-v*-final"]
admin = ["view"]
"""

MIB: Final = 1 << 20


def submit(function: bytes, unique: bytes = b"", data: bytes = b"", kind: int = Type.SUBMIT_JOB_BG) -> bytes:
    """A packet that submits a job, in the background if nothing else is said."""
    return request(kind, function, unique, data)


def with_policy(target: Target) -> list[str]:
    """Options of a server on which nobody may do much."""
    path = target.folder / "gearmand.toml"
    path.write_text(POLICY)
    return ["--config", str(path)]


def check_answers(target: Target, answers: bytes, number: int) -> None:
    """Expect so many ERROR packets, none of them long."""
    found = [len(body) for kind, body in packets(answers) if kind == Type.ERROR]
    target.expect(len(found) == number, f"{len(found)} of {number} packets were answered with an ERROR")
    longest = max(found, default=0)
    target.expect(longest <= LONGEST_ANSWER, f"an ERROR of {longest} bytes, at most {LONGEST_ANSWER}")


class HugeNames(Attack):
    """Limits come first: nothing of these is matched, remembered, logged or sent back."""

    name = "huge-names"
    about = "Under a policy, one that may do nothing sends 40 names of 8 MiB."
    bounds = Bounds(left=32)

    def options(self, target: Target) -> list[str]:
        return with_policy(target)

    def run(self, target: Target) -> None:
        peer = target.connect()
        for number in range(20):
            name = b"%d-" % number + b"n" * (8 * MIB)
            answers = peer.talk(submit(name) + request(Type.CAN_DO, name))
            check_answers(target, answers, 2)


class HugeFields(Attack):
    """Each is longer than it may be, and no answer has all of it."""

    name = "huge-fields"
    about = (
        "Fields of 8 MiB in each packet that has one: functions, uniques, handles, options, times, statuses."
    )

    def run(self, target: Target) -> None:
        large = b"f" * (8 * MIB)
        peer = target.connect()
        peer.talk(request(Type.SET_CLIENT_ID, large))
        for packet in (
            submit(large),
            submit(b"f", large),
            request(Type.SUBMIT_JOB_EPOCH, b"f", b"", large, b""),
            request(Type.SUBMIT_REDUCE_JOB, b"f", b"", large, b"", b""),
            request(Type.CAN_DO, large),
            request(Type.CANT_DO, large),
            request(Type.CAN_DO_TIMEOUT, large, b"1"),
            request(Type.CAN_DO_TIMEOUT, b"f", large),
            request(Type.OPTION_REQ, large),
            request(Type.GET_STATUS, large),
            request(Type.GET_STATUS_UNIQUE, large),
            request(Type.WORK_COMPLETE, large, b""),
            request(Type.WORK_DATA, large, b""),
            request(Type.WORK_FAIL, large),
            request(Type.WORK_STATUS, large, b"1", b"2"),
            request(Type.WORK_STATUS, b"H:x:1", large, large),
        ):
            answers = peer.talk(packet)
            sizes = [len(body) for _, body in packets(answers)]
            longest = max(sizes, default=0)
            target.expect(longest <= LONGEST_ANSWER, f"an answer of {longest} bytes to packet {packet[7]}")
        for word in (b"w", b"create function ", b"cancel job ", b"show ", b"maxqueue ", b"drop function "):
            line = (word + b"w" * 8190)[:8190] + b"\n"
            answer = target.connect().ask(line, b"\n")
            target.expect(len(answer) <= LONGEST_ANSWER, f"{len(answer)} bytes in answer to a long {word!r}")


class ManyNames(Attack):
    """What a policy remembers is bounded in number and in bytes."""

    name = "many-names"
    about = "Under a policy, 200,000 names of 500 bytes, all denied."
    bounds = Bounds(left=32)

    def options(self, target: Target) -> list[str]:
        return with_policy(target)

    def run(self, target: Target) -> None:
        peer = target.connect()
        for begin in range(0, 200_000, 2_000):
            names = (b"%d-" % number + b"n" * 490 for number in range(begin, begin + 2_000))
            check_answers(target, peer.talk(b"".join(map(submit, names))), 2_000)


class StarPatterns(Attack):
    """Matching takes a time that is linear in the name."""

    name = "star-patterns"
    about = "Names that nearly fit a pattern of many stars, within the limit of a name and beyond it."

    def options(self, target: Target) -> list[str]:
        return with_policy(target)

    def run(self, target: Target) -> None:
        peer = target.connect()
        for name in (b"img-" + b"-v" * 50_000, b"img-" + b"-v" * 250, b"img-" + b"-v-final" * 60, b"a" * 500):
            for kind in (Type.SUBMIT_JOB_BG, Type.CAN_DO):
                packet = request(kind, name, *([b"", b""] if kind == Type.SUBMIT_JOB_BG else []))
                peer.talk(packet, patience=40.0)
        names = (b"%05d" % number + b"a" * 500 for number in range(2_000))
        peer.talk(b"".join(map(submit, names)), patience=40.0)


FRAMES: Final = (
    *(
        b".",
        b"..",
        b"OK",
        b"OK 1",
        b"ERR",
        b"ERR UNKNOWN_JOB",
        b"ERR NOT_ALLOWED no",
        b".\r",
        b"-.",
        b" .",
        b". ",
    ),
    *(b"OK txgearman-9", b"\\.", b"\\x2e", b"a\tb", b"a\nb", b".\n", b"\n.\nOK", b"a : b", b" : ", b":"),
)
"""Names that read as a piece of the frame of a list, or as an answer of another kind."""


class Frames(Attack):
    """A list has a row for each thing, then its end, and what is behind it answers the next question."""

    name = "frames-in-lists"
    about = "Functions, uniques and client ids that read as the end of a list, a refusal, or an answer."

    LISTS: Final = (
        *(b"status", b"prioritystatus", b"workers", b"show jobs", b"show unique jobs"),
        *(b"show function limits", b"show limits", b"show store"),
    )

    def run(self, target: Target) -> None:
        peer = target.connect()
        for name in FRAMES:
            peer.talk(submit(b"uniques", name) + submit(name) + request(Type.CAN_DO, name))
            other = target.connect()
            other.talk(request(Type.SET_CLIENT_ID, name))
        # A NUL can come by a line alone; packets begin so.
        peer.ask(b"create function \0RES\0\0\0\x06\0\0\0\0\n", b"OK\r\n")
        administrator = target.connect()
        version = administrator.ask(b"version\n", b"\n")
        target.expect(version.startswith(b"OK "), f"version is {version!r}")
        for line in self.LISTS:
            # Where the list ends early, its rest is taken for the answer to the next question.
            rows = self._rows(administrator, line + b"\n")
            answer = administrator.ask(b"version\n", version + b"\n")
            target.expect(answer == b"", f"behind {line.decode()}: {answer[:80]!r} in answer to version")
            self._check(target, line, rows)

    def _rows(self, peer: Peer, line: bytes) -> list[bytes]:
        """A list as a simple reader has it: until a line is a dot, or the first line is a refusal."""
        peer.send(line)
        rows: list[bytes] = []
        while True:
            row = self._line(peer)
            if row == b"." or (not rows and row.startswith(b"ERR ")) or row is None:
                return rows
            rows.append(row)

    def _line(self, peer: Peer) -> bytes | None:
        while b"\n" not in peer.received:
            if peer.closed or not peer.read_some():
                return None
        line, _, rest = bytes(peer.received).partition(b"\n")
        peer.received[:] = rest
        return line.rstrip(b"\r")

    def _check(self, target: Target, line: bytes, rows: Sequence[bytes]) -> None:
        jobs = 2 * len(FRAMES)
        least = {b"status": len(FRAMES), b"prioritystatus": len(FRAMES), b"workers": len(FRAMES) + 1}
        least |= {b"show jobs": jobs, b"show unique jobs": jobs, b"show limits": 5, b"show store": 1}
        wanted = least.get(line, 1)
        target.expect(not any(b"\0" in row for row in rows), f"{line.decode()} has a row with a NUL")
        target.expect(
            len(rows) >= wanted, f"{line.decode()} has {len(rows)} rows, at least {wanted} expected"
        )


class Controls(Attack):
    """A list that is shown by a terminal does nothing to it."""

    name = "terminal-controls"
    about = "Names with the control characters of terminals, as bytes and in UTF-8, in all lists."

    NAMES: Final = tuple(
        b"c" + control + b"x"
        for control in (
            *(bytes([number]) for number in (*range(1, 32), 127, *range(128, 160))),
            *(chr(number).encode() for number in range(128, 160)),
            *(b"\x1b]0;title\x07", b"\x1b[2J", b"\xc2\x9b2J"),
        )
    )

    def run(self, target: Target) -> None:
        worker = target.connect()
        for name in self.NAMES:
            worker.talk(request(Type.CAN_DO, name) + submit(name, name) + request(Type.SET_CLIENT_ID, name))
        administrator = target.connect()
        for line in (b"status", b"prioritystatus", b"workers", b"show unique jobs", b"show jobs"):
            text = administrator.ask(line + b"\n", b"\n.\n").decode("utf-8", "surrogateescape")
            found = {char for char in text if harmful(char)}
            target.expect(not found, f"{line.decode()} has {sorted(found)!r}")


def harmful(char: str) -> bool:
    """Whether a terminal may do more with a character than show it. TAB and LF are the frame of lists."""
    number = ord(char)
    if char in "\t\n\r":
        return False
    # What is no UTF-8 was decoded to U+DC80 and so on.
    return number < 32 or 127 <= number < 160 or 0xDC80 <= number < 0xDCA0


AWKWARD: Final = (
    *(b"__proto__", b"constructor", b"toString", b"hasOwnProperty", b"x" * 512, b".", b"..", b"/", b"a/b"),
    *(b"%2F", b"%", b"a\nb", "\u202eabc\u200f".encode(), b"\xff\xfe", b"<script>", b'"', b"a b", b"?", b"#"),
)


class AwkwardNames(Attack):
    """What JavaScript does with them is tried in a browser, in tests/web."""

    name = "awkward-names"
    about = "Functions named ``__proto__``, ``..``, ``%2F``, 512 bytes and so on, in JSON and metrics."
    web = True

    def run(self, target: Target) -> None:
        peer = target.connect()
        for name in AWKWARD:
            peer.talk(submit(name, name[:64]))
        answer = ask(target, http("GET", "/api/v1/functions?limit=100"))
        target.expect(answer.status == 200, f"GET /functions gets {answer.status}")
        for name in AWKWARD:
            path = f"/api/v1/functions/{quote_from_bytes(name, safe='')}"
            for ending in ("", "/jobs"):
                answer = ask(target, http("GET", path + ending))
                target.expect(answer.status == 200, f"GET {path[:80]}{ending} gets {answer.status}")
                if answer.status == 200 and not ending:
                    document = json.loads(answer.body)
                    target.expect(
                        document.get("total") == 1, f"{path[:80]}: total is {document.get('total')}"
                    )
        for path in ("/metrics", "/api/v1/openapi.json", "/api/v1/server", "/"):
            status = ask(target, http("GET", path)).status
            target.expect(status in (200, 501), f"GET {path} gets {status}")
