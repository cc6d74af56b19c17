"""On a machine with Debian's gearmand, by its own files and the commands of docs/from_gearmand.rst."""

from __future__ import annotations

import pwd
import unittest

from twisted.trial.unittest import SynchronousTestCase

from tests.gearmand.machine import USER, in_namespaces, missing
from tests.support import needs_program
from txgearman.version import VERSION

MISSING = missing()
OURS = f"OK txgearman-{VERSION}"


@unittest.skipIf(MISSING, MISSING)
class DebianTests(SynchronousTestCase):
    @needs_program("perl", "php")
    def test_over_and_back_without_a_job_lost(self) -> None:
        found = in_namespaces("over_and_back")
        theirs, ours, again = found["versions"]
        self.assertEqual((ours, again), (OURS, theirs))
        self.assertNotEqual(theirs, ours)
        self.assertEqual(len(found["submitted"]), 180)
        self.assertEqual(found["ran"], found["submitted"])
        # The jobs that no worker was there for, of both times.
        self.assertIn("jobs were given back.", found["told"])

    def test_the_init_script(self) -> None:
        found = in_namespaces("init_script")
        self.assertEqual(found["versions"], [OURS, OURS])
        self.assertEqual(found["owner"], pwd.getpwnam(USER).pw_uid)
        self.assertEqual((found["restarted"], found["left"]), (True, False))
        self.assertIn("is running", found["said"][1])
        self.assertIn("Gearman job server listens at tcp:4730:interface=127.0.0.1", found["log"])

    def test_the_unit(self) -> None:
        found = in_namespaces("unit")
        self.assertEqual(found, {"version": OURS, "owner": pwd.getpwnam(USER).pw_uid, "left": False})
