"""Serves the dashboard's files as they are in the package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import Request

from txgearman.web.http.responses import Branch, HTTPProblem

STATIC: Final = Path(__file__).parent / "static"

TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""The kinds of files that are served."""


class File(Resource):
    """A file, read once."""

    isLeaf = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._content = path.read_bytes()
        self._type = TYPES[path.suffix]
        self._tag = b'"%b"' % hashlib.sha256(self._content).hexdigest()[:32].encode()

    def render(self, request: Request) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            problem = HTTPProblem(405, "wrong-method", "This is only read.", ((b"Allow", b"GET, HEAD"),))
            return problem.response().send(request)
        request.setHeader(b"Content-Type", self._type)
        # Browsers ask each time, so that a new server is never shown by an old page.
        request.setHeader(b"Cache-Control", b"no-cache")
        if request.setETag(self._tag) is CACHED:
            return b""
        request.setHeader(b"Content-Length", b"%d" % len(self._content))
        return self._content


def add_dashboard(root: Resource) -> None:
    """Put the page at the root, and its files into ``/static/``."""
    root.putChild(b"", File(STATIC / "index.html"))
    folder = Branch()
    for path in sorted(STATIC.iterdir()):
        if path.suffix in TYPES and path.name != "index.html":
            folder.putChild(path.name.encode(), File(path))
    root.putChild(b"static", folder)
