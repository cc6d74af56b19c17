"""Addresses of peers."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Final

_MAPPED: Final = "::ffff:"
"""How an IPv6 address begins that stands for one of IPv4, as the system writes it."""


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether `host` is an address of this machine's loopback interface, IPv4-mapped ones included.

    False for what is no address.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def plain_host(host: str) -> str:
    """An address as people write it: of IPv4 where one of IPv6 stands for it, as on a socket for both."""
    plain = host.removeprefix(_MAPPED)
    return plain if "." in plain else host
