"""Who has done something, in the words of logs and lists. What anybody may do is in `policy`."""

from __future__ import annotations

from dataclasses import dataclass

from txgearman.access.patterns import shown
from txgearman.access.policy import Identity, Rights


@dataclass(frozen=True, slots=True)
class Actor:
    """Who has done something. What comes from a peer is shortened ASCII.

    Args:
        address: The peer's address, ``unix`` for a UNIX socket.
        client_id: What the peer calls itself.
        certificate: The names in its certificate.
        user: The number of the user at the other end of a UNIX socket.
        rules: The names of the rules of the access policy that fit the peer, that of its token included.
        web_token: Whether it has shown the token that allows everything over HTTP.
    """

    address: str
    client_id: str = ""
    certificate: str = ""
    user: int | None = None
    rules: tuple[str, ...] = ()
    web_token: bool = False


def actor_of(
    identity: Identity,
    address: str,
    *,
    client_id: bytes = b"",
    rights: Rights | None = None,
    web_token: bool = False,
) -> Actor:
    """Say who a peer is.

    Args:
        identity: What is known of it.
        address: Its address, ``unix`` for a UNIX socket.
        client_id: What it calls itself.
        rights: What the access policy allows it; None without a policy.
        web_token: Whether it has shown the token that allows everything over HTTP.

    Returns:
        The peer in words.
    """
    return Actor(
        address=address,
        client_id=shown(client_id),
        certificate=shown(", ".join(sorted(identity.certificate)).encode()),
        user=identity.uid,
        rules=() if rights is None else rights.rules,
        web_token=web_token,
    )
