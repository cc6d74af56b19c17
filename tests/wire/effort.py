"""How many random examples the property tests try. No tests and no strategies here.

``HYPOTHESIS_PROFILE=long`` tries many more than the default, which is meant for every run.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

# A busy machine must not fail a test, so there is no deadline and no limit on slow generation. The
# database of failing examples is off: trial runs in a directory that it deletes.
_ALWAYS: Final = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

PROFILES: Final = {
    "default": settings(_ALWAYS, max_examples=100, stateful_step_count=40),
    "long": settings(_ALWAYS, max_examples=3000, stateful_step_count=120),
}

EFFORT: Final = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")]
"""The settings to decorate property tests with."""

LONG: Final = EFFORT is PROFILES["long"]
"""Whether loops written by hand should try harder too."""
