"""Who may do what over HTTP, and what keeps foreign web pages out. Responses are not made here."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from twisted.internet.address import UNIXAddress
from twisted.web.server import Request

from txgearman.access import policy as access
from txgearman.access.actor import Actor, actor_of
from txgearman.access.identity import identity_of
from txgearman.access.patterns import quoted
from txgearman.access.policy import AccessPolicy, Rights
from txgearman.net import addresses
from txgearman.web.http.responses import HTTPProblem
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
)
"""The headers of every response: scripts and styles only from files of this server, no framing, no guessing
of types."""

_SAFE_METHODS: Final = frozenset({b"GET", b"HEAD"})


class WebRight(Enum):
    """What a request may be allowed to do."""

    VIEW = "view"
    SUBMIT = "submit"
    MANAGE = "manage"
    SCHEDULE = "schedule"


_AS_A_WHOLE: Final = {
    WebRight.VIEW: access.Right.VIEW,
    WebRight.MANAGE: access.Right.MANAGE,
    WebRight.SCHEDULE: access.Right.SCHEDULE,
}


class Guard:
    """Refuses requests by raising `HTTPProblem`.

    Args:
        settings: The token, and whether all is read-only.
        policy: Returns the access policy in force, None without one. It may change at a reload.
    """

    def __init__(
        self, settings: WebSettings, policy: Callable[[], AccessPolicy | None] = lambda: None
    ) -> None:
        self._settings = settings
        self._policy = policy

    def check_origin(self, request: Request) -> None:
        """Refuse what a foreign web page makes a browser send.

        A page may bind its own name to this machine's loopback address (DNS rebinding), so only the names of
        this machine are served there. A page may also send a request whose response it cannot read (CSRF), so
        requests that can change something must not come from another origin; browsers say theirs.

        Args:
            request: The request.

        Raises:
            HTTPProblem: The request comes from elsewhere.
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

    def check(self, request: Request, right: WebRight) -> None:
        """Refuse what the sender of a request may not do.

        Args:
            request: The request.
            right: What it needs. For a submit, call `check_submit` with the function, too.

        Raises:
            HTTPProblem: The sender may not.
        """
        if self._settings.read_only and right is not WebRight.VIEW:
            raise HTTPProblem(403, "read-only", "The server shows itself here and lets nothing be changed.")
        rights = self._rights(request)
        if rights is not None:
            allowed = rights.submits if right is WebRight.SUBMIT else rights.may(_AS_A_WHOLE[right])
            if not allowed:
                raise _denied(request, rights, right.value)
            return
        if right is WebRight.VIEW:
            return
        if self._settings.token is None:
            if not is_loopback(request):
                raise HTTPProblem(
                    403, "no-token-set", "Without a token this is allowed on the server's own machine alone."
                )
        elif not self._shows_token(request, self._settings.token):
            raise _no_token(request, "This needs the token.")

    def check_submit(self, request: Request, function: bytes) -> None:
        """Refuse a submit that the access policy does not allow.

        Args:
            request: The request.
            function: The name of the job's function.

        Raises:
            HTTPProblem: The sender may not submit jobs of the function.
        """
        rights = self._rights(request)
        if rights is not None and not rights.may_submit(function):
            raise _denied(request, rights, f"submit jobs of {quoted(function)}")

    @property
    def knows_tokens(self) -> bool:
        """Whether some token would allow more."""
        policy = self._policy()
        return self._settings.token is not None or (policy is not None and policy.knows_tokens)

    def shows_wrong_token(self, request: Request) -> bool:
        """Whether a request has a token that the server does not know.

        Args:
            request: The request.

        Returns:
            False without a token, and where tokens make no difference.
        """
        if not self.knows_tokens or not _shown_token(request):
            return False
        token = self._settings.token
        if token is not None and self._shows_token(request, token):
            return False
        rights = self._rights(request)
        return rights is None or not rights.by_token

    def _rights(self, request: Request) -> Rights | None:
        """What the access policy allows to the sender. None without a policy, or with the token that allows
        everything."""
        policy = self._policy()
        token = self._settings.token
        if policy is None or (token is not None and self._shows_token(request, token)):
            return None
        return policy.rights_of(replace(identity_of(request.channel.transport), token=_shown_token(request)))

    def actor_of(self, request: Request) -> Actor:
        """Say who the sender of a request is.

        Args:
            request: The request.

        Returns:
            The sender, for the log of actions.
        """
        address = request.getClientAddress()
        token = self._settings.token
        return actor_of(
            identity_of(request.channel.transport),
            "unix" if isinstance(address, UNIXAddress) else getattr(address, "host", ""),
            rights=self._rights(request),
            web_token=token is not None and self._shows_token(request, token),
        )

    def allows(self, request: Request, right: WebRight) -> bool:
        """Whether `check` would pass."""
        try:
            self.check(request, right)
        except HTTPProblem:
            return False
        return True

    @staticmethod
    def _shows_token(request: Request, token: bytes) -> bool:
        shown = _shown_token(request)
        return shown is not None and hmac.compare_digest(shown, token)


def _denied(request: Request, rights: Rights, what: str) -> HTTPProblem:
    if rights.by_token:
        return HTTPProblem(403, "access-denied", f"You may not {what}.")
    return _no_token(request, f"Without a token that allows it you may not {what}.")


def _no_token(request: Request, text: str) -> HTTPProblem:
    """The sender has shown no token, or one that the server does not know."""
    challenge = (b"WWW-Authenticate", b"Bearer")
    if _shown_token(request):
        return HTTPProblem(401, "wrong-token", "The server does not know this token.", (challenge,))
    return HTTPProblem(401, "token-needed", text, (challenge,))


def _shown_token(request: Request) -> bytes | None:
    scheme, _, shown = (request.getHeader(b"Authorization") or b"").partition(b" ")
    return shown.strip() if scheme.lower() == b"bearer" else None


def is_loopback(request: Request) -> bool:
    """Whether the request came in at a loopback address or a UNIX socket."""
    here = request.getHost()
    if isinstance(here, UNIXAddress):
        return True
    return addresses.is_loopback(getattr(here, "host", ""))


@lru_cache(maxsize=64)
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
