"""Attacks by those who speak another protocol: a web page, whose browser can reach what the page cannot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import ask, http
from tests.attack.peers import Peer
from tests.processes.packets import Type, request

METHODS: Final = (
    *("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT"),
    *("PRI", "FOO", "post"),
)

SEEN: Final = b"seen"
"""What the functions are called that exist if something was obeyed."""

ORDERS: Final = b"".join(
    (
        b"\nmaxqueue seen-limit 7\n",
        b"create function seen-create\n",
        request(Type.SUBMIT_JOB_BG, b"seen-job", b"", b"x"),
        request(Type.CAN_DO, b"seen-can-do"),
    )
)
"""A body that has the server do something, if it is obeyed."""

HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(48)) + b"\n"
"""The beginning of a TLS handshake."""

FOREIGN: Final = (
    *(HELLO, b"\x16\x03\x03\n", b"EHLO mail.example\r\n", b"*1\r\n$4\r\nPING\r\n", b"SSH-2.0-x\r\n"),
    *(b"\x80\x2e\x01\x00\x02\n", b"GET\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x01\n"),
)
"""First lines of other protocols."""


def _post(method: str, port: int, body: bytes) -> bytes:
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain", "Accept": "*/*"}
    return http(
        method, "/?x=%0astatus", body, headers | {"Content-Length": str(len(body))}, f"127.0.0.1:{port}"
    )


class OtherProtocol(Attack):
    """What is behind the first line must not be obeyed, however it comes."""

    def check(self, target: Target, peer: Peer, what: bytes) -> None:
        """Expect that the server ends a connection, and answers nothing that was asked behind its line."""
        shown = what[:40]
        target.expect(peer.ends(2.0), f"the connection stays: {shown!r}")
        answers = peer.take()
        target.expect(b"\0RES" not in answers and b"OK" not in answers, f"{shown!r} gets {answers[:100]!r}")
        target.forget(peer)

    def after(self, target: Target) -> None:
        """Nothing of it was obeyed."""
        status = target.connect().ask(b"status\n", b".\n")
        for row in status.splitlines():
            target.expect(not row.startswith(SEEN), f"obeyed: {row[:100]!r} is in status")


class WebPage(OtherProtocol):
    """Whole requests, over TCP and a UNIX socket."""

    name = "web-page"
    about = "A page has a browser send requests of any method to the Gearman port, with orders in the bodies."
    unix = True

    def run(self, target: Target) -> None:
        for method in METHODS:
            for peer in (target.connect(), target.connect_unix()):
                data = _post(method, target.port, ORDERS)
                peer.send(data)
                self.check(target, peer, data)


class WebPageInPieces(OtherProtocol):
    """Each pair of pieces is read one by one, as an echo of somebody else between them says."""

    name = "web-page-in-pieces"
    about = "The same requests, cut in two at each byte."
    # A line for each connection, of which there is one for each byte.
    bounds = Bounds(log_lines=400)
    unix = True

    def run(self, target: Target) -> None:
        other = target.connect()
        data = _post("POST", target.port, ORDERS)
        for place in range(1, len(data)):
            peer = target.connect() if place % 2 else target.connect_unix()
            peer.send(data[:place])
            other.talk(b"")
            peer.send(data[place:])
            self.check(target, peer, data)


class ForeignProtocols(OtherProtocol):
    """They have first lines that are no admin command."""

    name = "other-protocols"
    about = "A TLS hello, SMTP, Redis, SSH and HTTP/2 on the Gearman port, with orders after them."

    def run(self, target: Target) -> None:
        for first in FOREIGN:
            peer = target.connect()
            peer.send(first + ORDERS)
            self.check(target, peer, first)


class Shutdown(OtherProtocol):
    """The server that goes on serves the honest peers, or the trial says that it ended."""

    name = "web-page-shutdown"
    about = "A page tells the server to stop."

    def run(self, target: Target) -> None:
        for order in (b"shutdown\n", b"shutdown graceful\n"):
            peer = target.connect()
            peer.send(_post("POST", target.port, b"\r\n" + order))
            self.check(target, peer, order)


class Rebinding(Attack):
    """The browser then takes the page for one of the server's own."""

    name = "dns-rebinding"
    about = (
        "A page whose name leads to 127.0.0.1 asks the HTTP port; pages of other origins send it requests."
    )
    web = True

    def run(self, target: Target) -> None:
        mine = f"localhost:{target.web_port}"
        for host in ("evil.example", f"evil.example:{target.web_port}", "127.0.0.1.evil.example", ""):
            for method, path in (("GET", "/api/v1/server"), ("GET", "/"), ("POST", "/seen-path")):
                status = ask(target, http(method, path, b"x", host=host)).status
                target.expect(status in (400, 421), f"{method} {path} for host {host!r} gets {status}")
        for origin in ("http://evil.example", "null", f"http://{mine}.evil.example", "http://localhost:1"):
            for method, path in self._changes():
                body = b'{"paused":true}' if method == "PATCH" else b"x"
                status = ask(target, http(method, path, body, {"Origin": origin}, mine)).status
                target.expect(status == 403, f"{method} {path} of origin {origin!r} gets {status}")

    def _changes(self) -> Iterable[tuple[str, str]]:
        path = "/api/v1/functions/honest"
        return (
            ("POST", f"{path}/jobs?background=true"),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", "/honest"),
        )
