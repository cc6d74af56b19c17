"""Running one set of expectations against our server and against gearmand, which shows that they are right.

A test class is an `Expectations` that says what is expected, once with `OnTxgearman` and once with
`OnGearmand`. No test lives here.
"""

from __future__ import annotations

import shutil
import unittest
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, ClassVar

from tests.interop.programs import Server, gearmand, lasting, txgearmand

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase

    _Base = TestCase
else:
    _Base = object


class Expectations(_Base):
    """What holds on the server of this `kind`."""

    kind: ClassVar[str]

    @property
    def prefix(self) -> str:
        """What begins the names of this test's functions, so that it can share a server with others."""
        return f"{type(self).__name__}.{self._testMethodName}."

    def serve(self) -> AbstractAsyncContextManager[Server]:
        """The server that all tests share: keep to functions that begin with `prefix`."""
        self._need_the_server()
        return lasting(self.kind)

    def serve_alone(self, *options: str) -> AbstractAsyncContextManager[Server]:
        """A server for this test alone, started with further `options`."""
        self._need_the_server()
        return (txgearmand if self.kind == "txgearman" else gearmand)(*options)

    def _need_the_server(self) -> None:
        if self.kind == "gearmand" and shutil.which("gearmand") is None:
            raise unittest.SkipTest("not installed: gearmand")


class OnTxgearman:
    """Mixed into an `Expectations`: our server."""

    kind: ClassVar[str] = "txgearman"


class OnGearmand:
    """Mixed into an `Expectations`: the C server."""

    kind: ClassVar[str] = "gearmand"
