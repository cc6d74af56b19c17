"""What a person may do about an error: a sentence for it, from the error and the server's address. No I/O."""

from __future__ import annotations

import errno
import re
from typing import Final

from twisted.internet import error as network

from txgearman.cli.options import DEFAULT_SERVER
from txgearman.errors import AdminError, ConnectionLost, ServerError, TimedOut

_TLS: Final = frozenset({"ssl", "tls"})
"""Kinds of endpoints with TLS."""

_NO_TRUST: Final = (
    "This machine does not trust the server's certificate, or it is for another name. The "
    "environment variable SSL_CERT_FILE can name the file with its CA"
)


def add_hint(error: BaseException, server: str) -> None:
    """Note with an error what may be done about it, which `error_text` prints after it.

    Args:
        error: The error.
        server: The endpoint string of the server that it came from.
    """
    causes = _causes(error)
    refusals = [cause for cause in causes if isinstance(cause, ServerError | AdminError)]
    hint = _of_refusal(refusals[0], server) if refusals else _of_connection(error, causes, server)
    if hint is not None and hint not in getattr(error, "__notes__", ()):
        error.add_note(hint)


def lost_at_once(server: str) -> str:
    """What may be the matter with a server whose connections are lost as soon as they are made."""
    if server.partition(":")[0] in _TLS:
        why = "this port speaks no TLS, or this machine does not trust its certificate"
    else:
        why = "no Gearman server listens there, or it has too many connections"
    return f"the connection is lost as soon as it is made: maybe {why}"


def _of_refusal(refusal: ServerError | AdminError, server: str) -> str | None:
    text = refusal.code if isinstance(refusal, ServerError) else refusal.text
    kind, _, where = server.partition(":")
    if text.startswith("TLS_REQUIRED") and kind not in _TLS:
        return f"Name it tls:{where}"
    if text.startswith("ACCESS_DENIED"):
        return "The server's access policy says so: ask who runs it for the right"
    return None


def _of_connection(error: BaseException, causes: list[BaseException], server: str) -> str | None:
    kind, _, where = server.partition(":")
    if any(isinstance(cause, network.ConnectionRefusedError) for cause in causes):
        start = "Start one with twistd gearmand, or name" if server == DEFAULT_SERVER else "Name"
        return f"No server listens there. {start} another with --server"
    if any(isinstance(cause, network.DNSLookupError) for cause in causes):
        return "Look at the spelling of the host, or name an address"
    if isinstance(error, TimedOut):
        return "Maybe no Gearman server listens there, or a firewall is in between"
    if kind == "unix" and any(getattr(cause, "osError", None) == errno.ENOENT for cause in causes):
        return (
            f"No server has made this socket. Start one with --listen {server}, or name another with --server"
        )
    return _of_lost_connection(str(error), kind, where) if isinstance(error, ConnectionLost) else None


def _of_lost_connection(text: str, kind: str, where: str) -> str | None:
    """The hint for the text of a `ConnectionLost`. `where` is the endpoint string without its kind."""
    if kind not in _TLS:
        is_unanswered = text.startswith("no answer came")
        return "Maybe no Gearman server listens there, or it was just stopped" if is_unanswered else None
    if "certificate verify failed" in text:
        return _NO_TRUST
    if "certificate required" in text:
        return "The server wants a certificate: put :certificate=FILE:privateKey=FILE after the address"
    host_and_port = re.findall(r"(?:\\.|[^:\\])+", where)[:2]
    if "VerificationError" in text:
        return f"The server's certificate is not for {host_and_port[0]}: use the name that it is for"
    return f"If this port speaks no TLS, name it tcp:{':'.join(host_and_port)}"


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return causes
