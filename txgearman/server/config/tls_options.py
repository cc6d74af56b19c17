"""What the options about TLS say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The operator's files, in PEM.

    Attributes:
        certificate: The server's certificate, with those between it and a CA that clients know.
        key: Its private key; None if it is in the same file.
        ca: The CAs of clients' certificates; None if no certificate is asked for.
        required: Whether a client must show a certificate.
    """

    certificate: str
    key: str | None = None
    ca: str | None = None
    required: bool = True


class TlsVerify(Enum):
    """What is asked of a client's certificate where there is a CA for them."""

    REQUIRED = "required"
    OPTIONAL = "optional"
