"""Settings of pytest alone."""

import pytest_twisted

from tests import support

support.block_on = pytest_twisted.blockon
