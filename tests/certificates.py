"""Certificates for tests, made when they are needed. No expectations here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

NO_DNS_NAME = b"\x30\x0a\x82\x08worker-\xff"
"""A SubjectAlternativeName in DER."""


class Authority:
    """A certificate authority; `ca` is the file of its certificate, alone in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, path: Path, *names: str, common_name: str | None = None) -> Path:
        """Write a certificate for `names` and its key into the file `path`, which is returned."""
        certificate = self._ca.issue_cert(*names, common_name=common_name)
        certificate.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def issue_malformed(self, path: Path) -> Path:
        """As `issue`, for a client whose alternative name is none: a DNS name with a letter that is no ASCII.
        OpenSSL does not mind."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        now = datetime.now(UTC)
        names = x509.UnrecognizedExtension(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, NO_DNS_NAME)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "worker-1")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(names, critical=False)
            .sign(load_pem_private_key(self._ca.private_key_pem.bytes(), None), hashes.SHA256())
        )
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private = key.private_bytes(encoding, form, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(encoding))
        return path


@contextmanager
def authorities() -> Iterator[tuple[Path, Authority, Authority]]:
    """A folder, an authority that the server of a test is to trust, and another."""
    with TemporaryDirectory(prefix="txgearman-certificates-") as folder:
        path = Path(folder)
        yield path, Authority(path / "ours"), Authority(path / "others")
