"""Who may do what: rules by which a peer is known, and what they allow it.

Pure: what is known of a peer comes in as an `Identity`, nothing goes out but answers. No sockets, no names of
users, no files.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from txgearman.access.patterns import matches, shown

MAX_REMEMBERED: Final = 1000
"""Names of functions for which an answer is remembered; a peer may ask for any number of them."""

MAX_REMEMBERED_NAME: Final = 512
"""Bytes of a name for which an answer is remembered: as many as the longest name of a function has. So half a
megabyte is remembered at most for each combination of rules, whoever forgets to look at lengths."""

MAX_CERTIFICATE_NAME: Final = 2048
"""Bytes of a name in a certificate that can fit a rule: as many as a SPIFFE ID may have, the longest that is
in use."""

ANY_USER: Final = -1
"""Stands in `Rule.users` for every peer on a UNIX socket."""

EVERYTHING: Final = "*"
"""Stands in `Rule.admin` for all admin commands and all rights."""


class Right(Enum):
    """What admin commands and the dashboard do."""

    VIEW = "view"
    """Show functions, jobs, workers and connections."""
    MANAGE = "manage"
    """Cancel jobs, change functions and their limits, pause and quiet, reload the configuration."""
    SCHEDULE = "schedule"
    """Add, remove, pause, resume and run schedules."""
    SHUTDOWN = "shutdown"
    """End the server."""


ADMIN_COMMANDS: Final = {
    "version": Right.VIEW,
    "verbose": Right.VIEW,
    "getpid": Right.VIEW,
    "shutdown": Right.SHUTDOWN,
    "status": Right.VIEW,
    "prioritystatus": Right.VIEW,
    "workers": Right.VIEW,
    "show": Right.VIEW,
    "jobs": Right.VIEW,
    "cancel": Right.MANAGE,
    "retry": Right.MANAGE,
    "forget": Right.MANAGE,
    "kill": Right.MANAGE,
    "create": Right.MANAGE,
    "drop": Right.MANAGE,
    "maxqueue": Right.MANAGE,
    "maxrate": Right.MANAGE,
    "limit": Right.MANAGE,
    "quiet": Right.MANAGE,
    "unquiet": Right.MANAGE,
    "reload": Right.MANAGE,
    "pause": Right.SCHEDULE,
    "resume": Right.SCHEDULE,
    "run": Right.SCHEDULE,
}
"""All admin commands, with the right that each needs."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of a peer.

    `certificate`: the names in its verified certificate. `address`: None on a UNIX socket. `unix`: whether
    it is on one, and `uid` as which user, if the system tells. `token`: what it showed over HTTP, not yet
    verified. `has_malformed_certificate`: it showed one that cannot be understood, and is known by no name.
    """

    certificate: frozenset[str] = frozenset()
    address: IPv4Address | IPv6Address | None = None
    unix: bool = False
    uid: int | None = None
    token: bytes | None = None
    has_malformed_certificate: bool = False

    @property
    def described(self) -> str:
        """What of this the address does not tell, in words for the log."""
        if self.unix:
            return "of an unknown user" if self.uid is None else f"of the user {self.uid}"
        if self.has_malformed_certificate:
            return "with a malformed certificate"
        if not self.certificate:
            return "without a certificate"
        return "with a certificate for " + shown(", ".join(sorted(self.certificate)).encode())


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A peer must fit all kinds of conditions that are not None, in at least one of each kind.

    `certificates` are names, in which ``*`` stands for any letters. `networks` are those of addresses.
    `users` are the numbers of users at the other end of a UNIX socket, or `ANY_USER`. `tokens` are the
    SHA-256 digests of the tokens. A rule without conditions fits everybody.

    `submit` and `work` are names or patterns of functions, `admin` names of commands, values of `Right`,
    or `EVERYTHING`.
    """

    name: str
    certificates: tuple[str, ...] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    users: frozenset[int] | None = None
    tokens: tuple[bytes, ...] | None = None
    submit: tuple[bytes, ...] = ()
    work: tuple[bytes, ...] = ()
    admin: frozenset[str] = frozenset()

    def fits(self, peer: Identity) -> bool:
        """Whether the rule is about this peer."""
        return (
            (self.certificates is None or _fits_any(peer.certificate, self.certificates))
            and (self.networks is None or _in_any(peer.address, self.networks))
            and (self.users is None or (peer.unix and bool({ANY_USER, peer.uid} & self.users)))
            and (self.tokens is None or _shows_any(peer.token, self.tokens))
        )


def _fits_any(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    encoded = [text for name in names if len(text := name.encode()) <= MAX_CERTIFICATE_NAME]
    return any(matches(pattern.encode(), text) for text in encoded for pattern in patterns)


def _in_any(
    address: IPv4Address | IPv6Address | None, networks: tuple[IPv4Network | IPv6Network, ...]
) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and any(address in network for network in networks)


def _shows_any(token: bytes | None, digests: tuple[bytes, ...]) -> bool:
    """Whether the token is one of them. The time this takes tells nothing of the digests."""
    if token is None:
        return False
    shown = sha256(token).digest()
    # With each of them, and not up to the first that is right.
    return sum(hmac.compare_digest(shown, digest) for digest in digests) > 0


class Answers(dict[bytes, bool]):
    """Whether a name fits one of some patterns, by a call or, faster, as a mapping that has every name.
    Answers are remembered, of so many names and of names so long as `MAX_REMEMBERED` and
    `MAX_REMEMBERED_NAME` say."""

    def __init__(self, patterns: list[bytes]) -> None:
        super().__init__()
        self._patterns = patterns

    def __missing__(self, name: bytes) -> bool:
        answer = any(matches(pattern, name) for pattern in self._patterns)
        if len(name) <= MAX_REMEMBERED_NAME:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[name] = answer
        return answer

    def __call__(self, name: bytes) -> bool:
        return self[name]


class Rights:
    """What a peer may do. `rules` are the names of the rules that fit it, `submits` whether it may submit
    jobs of any function, `may_submit` and `may_work` whether it may for a function, `by_token` whether the
    token it has shown is one of a rule's."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = tuple(rule.name for rule in rules)
        self.may_submit = Answers([pattern for rule in rules for pattern in rule.submit])
        self.may_work = Answers([pattern for rule in rules for pattern in rule.work])
        self._admin = frozenset(word for rule in rules for word in rule.admin)
        self.submits = any(rule.submit for rule in rules)
        self.by_token = any(rule.tokens is not None for rule in rules)

    def may(self, right: Right) -> bool:
        """Whether the peer has a right as a whole, as the dashboard asks."""
        return right.value in self._admin or EVERYTHING in self._admin

    def may_command(self, name: str, right: Right) -> bool:
        """Whether the peer may use the admin command `name`, which is one of those that need `right`."""
        return name in self._admin or self.may(right)

    @property
    def may_ask(self) -> bool:
        """Whether the peer may ask for the status of jobs: whoever may submit any, or see all of them."""
        return self.submits or self.may(Right.VIEW)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules of a server. A peer may do what any rule allows that fits it, and nothing else."""

    rules: tuple[Rule, ...] = ()
    _rights: dict[tuple[Rule, ...], Rights] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def knows_tokens(self) -> bool:
        """Whether a token makes a difference."""
        return any(rule.tokens for rule in self.rules)

    def rights_of(self, peer: Identity) -> Rights:
        """What a peer may do."""
        fitting = tuple(rule for rule in self.rules if rule.fits(peer))
        # Peers that the same rules fit share what is remembered.
        rights = self._rights.get(fitting)
        if rights is None:
            rights = self._rights[fitting] = Rights(fitting)
        return rights
