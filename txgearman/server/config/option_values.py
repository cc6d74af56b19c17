"""Defaults and checks of single options that take more than a bound."""

from __future__ import annotations

import platform
from typing import Final
from urllib.parse import urlsplit

from txgearman.server.config.option_kinds import show_value
from txgearman.wire.limits import MAX_HANDLE

MAX_PREFIX: Final = MAX_HANDLE - len(":18446744073709551615")
"""Bytes of a handle's prefix, so that no handle exceeds what clients accept."""


def default_handle_prefix() -> str:
    """What handles begin with unless the operator says otherwise.

    Returns:
        ``H:`` and the name of this machine, as gearmand has it.
    """
    name = "".join(
        letter if letter.isascii() and letter.isprintable() and letter != " " else "_"
        for letter in platform.node()
    )
    return f"H:{name or 'localhost'}"[:MAX_PREFIX]


def check_handle_prefix(prefix: str) -> None:
    """Raises `ValueError` for what handles cannot begin with."""
    if not prefix or not prefix.isascii() or not prefix.isprintable() or " " in prefix:
        raise ValueError(f"must be printable ASCII without spaces, not {show_value(prefix)}")
    if len(prefix) > MAX_PREFIX:
        raise ValueError(f"must have at most {MAX_PREFIX} bytes, not {len(prefix)}")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def check_collector_url(url: str) -> None:
    """Raises `ValueError` for what is no URL of an OpenTelemetry collector."""
    if not _is_http_url(url):
        raise ValueError(f"must be a URL that begins with http:// or https://, not {url!r}")
    if urlsplit(url).username is not None:
        raise ValueError("must not have a password in it; OTEL_EXPORTER_OTLP_HEADERS is for that")


def check_webhook_url(url: str) -> None:
    """Raises `ValueError` for what is no URL of a web server."""
    # It is not shown: it may have a password or a token in it.
    if not _is_http_url(url):
        raise ValueError("must be a URL that begins with http:// or https://")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a URL of printable ASCII without spaces")


def web_endpoint(where: str) -> str:
    """Find where the web side listens.

    Args:
        where: What the operator wrote. A bare port is one of this machine alone.

    Returns:
        The endpoint description.
    """
    return f"tcp:{where}:interface=127.0.0.1" if where.isdecimal() else where
