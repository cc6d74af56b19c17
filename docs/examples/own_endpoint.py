"""A server without a service: the factory, listening where the caller says."""

from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort

from txgearman.server import GearmanServerFactory, Settings


async def listen(reactor: Any, port: int = 4730) -> tuple[GearmanServerFactory, IListeningPort]:
    def shut_down(graceful: bool) -> None:
        print("an administrator says shutdown", "graceful" if graceful else "")

    factory = GearmanServerFactory(reactor, Settings(), on_shutdown=shut_down)
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    listening = await endpoint.listen(factory)
    return factory, listening


async def stop(factory: GearmanServerFactory, listening: IListeningPort) -> None:
    await maybeDeferred(listening.stopListening)
    factory.stop()
    for connection in list(factory.connections.values()):
        connection.close()
