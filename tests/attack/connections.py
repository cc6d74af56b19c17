"""Attacks by connections: many of them, unfinished ones, and ones that do nothing."""

from __future__ import annotations

import socket
from typing import Final

from tests.attack.attack import Attack, Bounds, Target
from tests.attack.http import http
from tests.attack.pages import HELLO
from tests.attack.peers import Peer
from tests.processes.packets import Type, request

MANY: Final = 4_000


class Idle(Attack):
    """What the others are measured against."""

    name = "nothing"
    about = "Nobody attacks."

    def run(self, target: Target) -> None:
        for _ in target.steps(3.0):
            target.connect().read(0.5)


class ManyConnections(Attack):
    """They are legitimate, and take little each."""

    name = "many-connections"
    about = "4,000 connections that say nothing, or one echo, and leave together."
    bounds = Bounds(stall=0.5)

    def run(self, target: Target) -> None:
        peers = target.connect_many(MANY)
        for peer in peers[::2]:
            peer.send(request(Type.ECHO_REQ, b"x"))


class TooManyConnections(Attack):
    """Those who were there stay, and those who say nothing make room."""

    name = "too-many-connections"
    about = "With ``--max-connections 100``, 3,000 connections are tried."
    bounds = Bounds(log_lines=60)

    def options(self, target: Target) -> list[str]:
        return ["--max-connections", "100"]

    def run(self, target: Target) -> None:
        for _ in range(3_000):
            peer = target.connect()
            peer.send(request(Type.ECHO_REQ, b"x"))

    def after(self, target: Target) -> None:
        target.expect(target.connect().talk(b"") == b"", "one who comes behind them gets another answer")


class Churn(Attack):
    """Each that has gone is forgotten."""

    name = "connect-and-leave"
    about = "Connections come and go as fast as they can, in every state, some by a reset."
    bounds = Bounds(left=32)

    def run(self, target: Target) -> None:
        for step in target.steps(8.0):
            peer = target.connect()
            peer.send((b"", b"\0REQ", b"status\n", request(Type.CAN_DO, b"churn"), b"stat")[step % 5])
            target.forget(peer)


class SlowLoris(Attack):
    """A peer that is slow harms itself."""

    name = "slow-loris"
    about = "500 connections have begun a packet, a line or an HTTP request, and send a byte now and then."
    bounds = Bounds(log_lines=300)
    web = True

    def run(self, target: Target) -> None:
        web = http("GET", "/api/v1/server")
        peers: list[tuple[Peer, bytes]] = [(target.connect(), b"status") for _ in range(150)]
        peers += [(target.connect(), request(Type.SUBMIT_JOB_BG, b"f", b"", bytes(100))) for _ in range(150)]
        peers += [(target.connect_web(), web) for _ in range(200)]
        for step in target.steps(10.0):
            for peer, data in peers:
                peer.send(data[step : step + 1][: step < len(data) - 1], patience=0.01)
            peers[0][0].read(0.1)


class HeaderFlood(Attack):
    """A head has a limit in bytes and in lines."""

    name = "header-flood"
    about = "100 HTTP requests whose heads do not end: long lines, very many lines, very many folded ones."
    bounds = Bounds(peak=128, log_lines=300)
    web = True

    def run(self, target: Target) -> None:
        for number in range(100):
            peer = target.connect_web()
            peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            line = (b"X-%d: y\r\n" % number, b"x" * 60_000, b" folded\r\n", b"Cookie: a=b\r\n")[number % 4]
            for _ in range(20):
                peer.send(line * (200_000 // len(line)), patience=0.05)


class Pipeline(Attack):
    """One request of a connection is answered at a time."""

    name = "http-pipeline"
    about = "50 connections send 2,000 HTTP requests each in one go and read nothing."
    bounds = Bounds(stall=0.5)
    web = True

    def run(self, target: Target) -> None:
        one = http("GET", "/api/v1/server", headers={"Connection": "keep-alive"})
        for _ in range(50):
            target.connect_web().send(one * 2_000, patience=0.05)


class TooManyWebConnections(Attack):
    """Over HTTP too, the Gearman port has nothing to do with it."""

    name = "too-many-dashboards"
    about = "600 connections to the HTTP port, each with an open dashboard."
    bounds = Bounds(stall=0.5, log_lines=100)
    web = True

    def run(self, target: Target) -> None:
        for number in range(600):
            view = ("overview", "functions", "connections")[number % 3]
            target.connect_web().send(http("GET", f"/api/v1/live?view={view}"))


class Handshakes(Attack):
    """The Gearman port goes on, and so does the TLS port."""

    name = "tls-handshakes"
    about = (
        "1,000 TLS connections with no handshake, half of one, or nonsense, and 200 that finish it and leave."
    )
    # What OpenSSL had for them, 44 MiB, is given back some ten seconds later.
    bounds = Bounds(stall=0.5, left=16, log_lines=1_200)
    tls = True

    def run(self, target: Target) -> None:
        beginnings = (
            b"",
            b"\x16",
            HELLO[:20],
            HELLO[:-1],
            b"\x16\x03\x01\xff\xff" + bytes(1_000),
            bytes(100),
        )
        for number in range(1_000):
            peer = target.connect_silently_to_tls()
            peer.send(beginnings[number % len(beginnings)], patience=0.05)
        for _ in range(200):
            target.forget(target.connect_tls())

    def after(self, target: Target) -> None:
        target.expect(target.connect_tls().talk(b"") == b"", "no echo over TLS behind them")


class HalfClosed(Attack):
    """Who sends an end and goes on to read is served, and gone when that is done."""

    name = "half-closed"
    about = "2,000 connections send requests and the end of their sending side, and stay."

    def run(self, target: Target) -> None:
        for number in range(2_000):
            connection = socket.create_connection(("127.0.0.1", target.port), timeout=10.0)
            connection.sendall((b"status\n", request(Type.ECHO_REQ, b"x"), b"\0REQ", b"")[number % 4])
            connection.shutdown(socket.SHUT_WR)
            target.peers.append(Peer(connection, target.deadline))
