"""Sends JSON to a web server by POST, one request on each connection. Nothing of what it says.

A request is bounded in time and in what is read of its answer. Redirects are not followed: they would take
the credentials and the body to a place that nobody chose. The service alone loads this, where it is needed.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

from txgearman.errors import GearmanError
from txgearman.version import VERSION

REQUEST_TIMEOUT: Final = 10.0
"""Seconds for a whole request, its connection and its answer included, as GitHub's webhooks have."""

MAX_RESPONSE: Final = 64 * 1024
"""Bytes that are read of an answer, head and body together. Nothing in it is of use but its code."""

_USER_AGENT: Final = f"txgearman/{VERSION}".encode()


class PostRefused(GearmanError):
    """The web server has answered, but not that it took what was posted."""


class HTTPPoster:
    """Posts to one URL.

    `origin` is its scheme, host and port: all of it that may be shown, as the rest may have secrets.

    Args:
        reactor: The reactor to run on.
        url: Where to, ``http`` or ``https``; a user and password in it are sent as HTTP has it. With
            ``https`` the web server needs a certificate for its name that this system trusts.

    Raises:
        ImportError: The URL begins with ``https``, and a package for TLS is missing.
    """

    def __init__(self, reactor: Any, url: str) -> None:
        parts = urlsplit(url)
        credentials, _, host = parts.netloc.rpartition("@")
        self.origin = f"{parts.scheme}://{host}"
        self._url = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")).encode("ascii")
        self._headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [_USER_AGENT]})
        if credentials:
            user, _, password = credentials.partition(":")
            pair = b"%b:%b" % (unquote_to_bytes(user), unquote_to_bytes(password))
            self._headers.addRawHeader(b"Authorization", b"Basic " + b64encode(pair))
        self._policy: IPolicyForHTTPS | None = None
        if parts.scheme == "https":
            # Without pyOpenSSL this fails here, and not when the first request is due.
            import twisted.internet.ssl  # noqa: F401

            self._policy = BrowserLikePolicyForHTTPS()
        self._reactor = reactor

    def post(self, body: bytes) -> Deferred[None]:
        """Post JSON.

        Args:
            body: The JSON.

        Returns:
            Fires when the web server has said that it took it. Fails with `PostRefused` if it said something
            else, and with other errors if it said nothing in time. It may be cancelled.
        """
        return Deferred.fromCoroutine(self._post(body)).addTimeout(REQUEST_TIMEOUT, self._reactor, _too_late)

    async def _post(self, body: bytes) -> None:
        connection = _Connection(self._reactor, self._policy)
        agent = Agent.usingEndpointFactory(self._reactor, connection)
        try:
            response = await agent.request(b"POST", self._url, self._headers, _Body(body))
            ended: Deferred[None] = Deferred()
            response.deliverBody(_Discarded(ended))
            # A web server whose answer nobody reads might take the request for failed. Where the time is over
            # meanwhile, the code was in time.
            with suppress(CancelledError):
                await ended
        finally:
            connection.abort()
        if not 200 <= response.code < 300:
            raise PostRefused(f"it answered {response.code}")


def _too_late(result: Failure | None, seconds: float) -> Failure | None:
    """What a request becomes that was cancelled by the time limit. Twisted tells that in several ways."""
    return None if result is None else Failure(PostRefused(f"it did not answer in {seconds:g} seconds"))


@implementer(IBodyProducer)
class _Body:
    """The body of a request, written in one go. Twisted's own producer reads files, by the global reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All is written."""

    resumeProducing = stopProducing = pauseProducing


class _Discarded(Protocol):
    """The body of an answer, of which nothing is kept."""

    def __init__(self, ended: Deferred[None]) -> None:
        self._ended = ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.callback(None)


class _Bounded(ProtocolWrapper):
    """Ends the connection after `MAX_RESPONSE` bytes. Twisted's parser has no bound for an answer's head."""

    transport: Any
    _left = MAX_RESPONSE

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)


class _Bounding(WrappingFactory):
    noisy = False
    protocol = _Bounded


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Connection:
    """The connection of one request: makes it for the agent, bounds it, and ends it."""

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS | None) -> None:
        self._reactor = reactor
        self._policy = policy
        self._endpoint: Any = None
        self._bounded: _Bounded | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        self._endpoint = HostnameEndpoint(self._reactor, host, uri.port, timeout=REQUEST_TIMEOUT)
        if self._policy is not None:
            self._endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), self._endpoint)
        return self

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        protocolFactory.noisy = False
        connected: Deferred[Any] = self._endpoint.connect(_Bounding(protocolFactory))
        return connected.addCallback(self._connected)

    def _connected(self, bounded: _Bounded) -> IProtocol:
        self._bounded = bounded
        return bounded.wrappedProtocol

    def abort(self) -> None:
        """End the connection at once, if there is one. TLS would wait for the peer's word."""
        if self._bounded is not None:
            self._bounded.transport.abortConnection()
