"""Who may do what over HTTP, and what keeps foreign web pages out. No answer is built here."""

from __future__ import annotations

import hmac
from enum import Enum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from twisted.internet.address import UNIXAddress
from twisted.web.server import Request

from txgearman.web.answers import HTTPProblem
from txgearman.web.settings import WebSettings

SECURITY_HEADERS: Final = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Cache-Control", b"no-store"),
)
"""What every answer says: scripts and styles from files of this server alone, no framing, no guessing of
types, nothing kept."""

_SAFE_METHODS: Final = frozenset({b"GET", b"HEAD"})


class Right(Enum):
    """What a request may be allowed to do."""

    VIEW = "view"
    SUBMIT = "submit"
    MANAGE = "manage"


class Guard:
    """Says no by raising `HTTPProblem`."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings

    def check_origin(self, request: Request) -> None:
        """Refuse what a web page from elsewhere makes a browser send.

        A page may bind its own name to this machine's loopback address (DNS rebinding): there, only the
        names of this machine are served. And it may send a request that it cannot read the answer of
        (CSRF): browsers say where a request that can change something comes from.
        """
        host = request.getHeader(b"Host") or b""
        if is_loopback(request) and not _names_loopback(host):
            raise HTTPProblem(
                421, "wrong-host", "This address is served for the names of this machine alone."
            )
        if request.method in _SAFE_METHODS:
            return
        if request.getHeader(b"Sec-Fetch-Site") not in (None, b"same-origin", b"none"):
            raise HTTPProblem(403, "cross-origin", "Pages of other sites may not do this.")
        origin = request.getHeader(b"Origin")
        if origin is not None and (not host or origin.partition(b"://")[2].lower() != host.lower()):
            raise HTTPProblem(403, "cross-origin", "Pages of other sites may not do this.")

    def check(self, request: Request, right: Right) -> None:
        """Refuse what the sender of this request may not do."""
        if right is Right.VIEW:
            return
        if self._settings.read_only:
            raise HTTPProblem(403, "read-only", "The server shows itself here and lets nothing be changed.")
        if self._settings.token is None:
            if not is_loopback(request):
                raise HTTPProblem(
                    403, "no-token-set", "Without a token this is allowed on the server's own machine alone."
                )
        elif not self._shows_token(request, self._settings.token):
            raise HTTPProblem(
                401, "token-needed", "This needs the token.", ((b"WWW-Authenticate", b"Bearer"),)
            )

    def allows(self, request: Request, right: Right) -> bool:
        """Whether `check` would be silent."""
        try:
            self.check(request, right)
        except HTTPProblem:
            return False
        return True

    @staticmethod
    def _shows_token(request: Request, token: bytes) -> bool:
        scheme, _, shown = (request.getHeader(b"Authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(), token)


def is_loopback(request: Request) -> bool:
    """Whether the request came in at a loopback address or a UNIX socket."""
    here = request.getHost()
    if isinstance(here, UNIXAddress):
        return True
    try:
        address = ip_address(getattr(here, "host", ""))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _names_loopback(host: bytes) -> bool:
    try:
        name = urlsplit(b"//" + host).hostname or b""
    except ValueError:
        return False
    text = name.decode("ascii", "replace").removesuffix(".")
    if text == "localhost" or text.endswith(".localhost"):
        return True
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
