"""Certificates for tests, made when they are needed. No expectations here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme


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


@contextmanager
def authorities() -> Iterator[tuple[Path, Authority, Authority]]:
    """A folder, an authority that the server of a test is to trust, and another."""
    with TemporaryDirectory(prefix="txgearman-certificates-") as folder:
        path = Path(folder)
        yield path, Authority(path / "ours"), Authority(path / "others")
