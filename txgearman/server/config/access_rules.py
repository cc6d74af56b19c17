"""The rules of access as the configuration file has them. What they mean is in `txgearman.access.policy`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from txgearman.access.policy import ADMIN_COMMANDS, ANY_USER, EVERYTHING, Right, Rule
from txgearman.server.config.option_kinds import PATH, TEXTS, option
from txgearman.wire.limits import MAX_FUNCTION

LAST_USER: Final = 2**32 - 2
"""The largest number of a user; the one after it means none."""

SHORTEST_TOKEN: Final = 16
"""Characters; a shorter token could be guessed."""

_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ADMIN_WORDS: Final = frozenset({EVERYTHING, *(right.value for right in Right), *ADMIN_COMMANDS})


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be addresses or networks, not {text!r}: {error}") from None


def _user(text: str) -> int:
    """The number of a user, who is given by name or number; ``*`` is any."""
    if text == "*":
        return ANY_USER
    if text.isdecimal() and len(text) <= len(str(LAST_USER)) and int(text) <= LAST_USER:
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError(f"must be users of this machine; {text!r} is none") from None


def _digest(text: str) -> bytes:
    found = _DIGEST.fullmatch(text)
    if found is None:
        # Not shown: it may be the token itself.
        raise ValueError(
            "must be the tokens' digests, as 'sha256:' and 64 hexadecimal digits; tokens as they are belong "
            "into a token-file"
        )
    return bytes.fromhex(found[1])


def _check_not_empty(texts: tuple[str, ...]) -> None:
    if not texts:
        raise ValueError("must not be empty: no peer would ever fit")


def _check_networks(texts: tuple[str, ...]) -> None:
    _check_not_empty(texts)
    for text in texts:
        _network(text)


def _check_users(texts: tuple[str, ...]) -> None:
    _check_not_empty(texts)
    for text in texts:
        _user(text)


def _check_digests(texts: tuple[str, ...]) -> None:
    _check_not_empty(texts)
    for text in texts:
        _digest(text)


def _check_functions(texts: tuple[str, ...]) -> None:
    for text in texts:
        if not 0 < len(text.encode()) <= MAX_FUNCTION:
            raise ValueError(f"must be names of functions of 1 to {MAX_FUNCTION} bytes, not {text!r}")


def _check_admin(texts: tuple[str, ...]) -> None:
    for text in texts:
        if text not in _ADMIN_WORDS:
            raise ValueError(f"must be of {', '.join(sorted(_ADMIN_WORDS))}; not {text!r}")


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """One ``[access.NAME]``."""

    certificate: tuple[str, ...] | None = option(
        None,
        "Names in the peer's certificate, of which one must fit: its common name, or an alternative name "
        "(DNS, e-mail or URI). ``*`` stands for any letters. Needs ``tls-ca``.",
        kind=TEXTS,
        check=_check_not_empty,
    )
    network: tuple[str, ...] | None = option(
        None,
        "Addresses or networks that the peer connects from, such as ``10.1.0.0/16`` or ``::1``.",
        kind=TEXTS,
        check=_check_networks,
    )
    unix_user: tuple[str, ...] | None = option(
        None,
        "Users, by name or number, as which the peer connects to a UNIX socket. ``*`` is any of them. Which "
        "user it is can be told on Linux.",
        kind=TEXTS,
        check=_check_users,
    )
    token: tuple[str, ...] | None = option(
        None,
        "Digests of tokens, of which one must be shown over HTTP: ``sha256:`` and 64 hexadecimal digits.",
        kind=TEXTS,
        check=_check_digests,
    )
    token_file: str | None = option(
        None, "A file with such tokens as they are, one a line, of at least 16 characters.", kind=PATH
    )
    submit: tuple[str, ...] = option(
        (), "Functions that jobs may be submitted of. ``*`` stands for any letters.", check=_check_functions
    )
    work: tuple[str, ...] = option((), "Functions that may be worked on, likewise.", check=_check_functions)
    admin: tuple[str, ...] = option(
        (),
        "Names of admin commands; ``view`` for all that only show something, ``manage`` for all that change "
        "jobs and functions, ``schedule`` for all that change schedules, ``shutdown``, and ``*`` for "
        "everything. Dashboard and HTTP ask for ``view``, ``manage`` and ``schedule``. Who adds a schedule "
        "must be allowed to ``submit`` its jobs, too.",
        check=_check_admin,
    )

    def rule(self, name: str) -> Rule:
        """The rule that is called `name`. Raises `ValueError`."""
        if self.unix_user is not None and (self.network is not None or self.certificate is not None):
            raise ValueError(
                f"access.{name}: no peer on a UNIX socket has an address or a certificate; make two rules"
            )
        return Rule(
            name,
            certificates=self.certificate,
            networks=None if self.network is None else tuple(map(_network, self.network)),
            users=None if self.unix_user is None else frozenset(map(_user, self.unix_user)),
            tokens=self._tokens(name),
            submit=tuple(text.encode() for text in self.submit),
            work=tuple(text.encode() for text in self.work),
            admin=frozenset(self.admin),
        )

    def _tokens(self, name: str) -> tuple[bytes, ...] | None:
        """The digests of the tokens, None if the rule is not about tokens."""
        if self.token is None and self.token_file is None:
            return None
        digests = [_digest(text) for text in self.token or ()]
        if self.token_file is not None:
            try:
                with open(self.token_file, "rb") as file:
                    tokens = [line.strip() for line in file if line.strip()]
            except OSError as error:
                raise ValueError(f"access.{name}: {self.token_file}: {error.strerror}") from None
            if not tokens or min(map(len, tokens)) < SHORTEST_TOKEN:
                raise ValueError(
                    f"access.{name}: the tokens in {self.token_file} must have at least {SHORTEST_TOKEN} "
                    "characters"
                )
            digests += [sha256(token).digest() for token in tokens]
        return tuple(digests)
