"""Whether the rooms that can be compiled are compiled, as whoever runs the tests wants it."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from txgearman.broker import broker
from txgearman.server import commands
from txgearman.version import build
from txgearman.wire import codec


class CompiledTests(SynchronousTestCase):
    def test_it_is_compiled_if_it_was_asked_for_and_not_otherwise(self) -> None:
        wanted = os.environ.get("TXGEARMAN_COMPILE") == "1"
        for module in (broker, codec, commands):
            assert module.__file__ is not None
            self.assertEqual(wanted, not module.__file__.endswith(".py"), module.__file__)
        self.assertEqual(build(), "compiled" if wanted else "pure Python")
