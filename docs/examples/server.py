"""A job server among the other services of a Twisted process."""

import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from txgearman.server import Settings, make_service


async def main(reactor: Any, listen: str = "tcp:4730:interface=127.0.0.1") -> None:
    services = MultiService()
    server = make_service(Settings(listen=(listen,)), reactor=reactor)
    server.setServiceParent(services)
    services.startService()
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    await Deferred[None]()  # serves until the process is stopped


if __name__ == "__main__":
    react(main, sys.argv[1:])
