"""What one job may ask for at most. The server refuses more, and clients say so before they send anything."""

from __future__ import annotations

from typing import Final

MAX_SECONDS: Final = 315_360_000
"""Seconds of each of the times, ten years: as the options of functions have it."""

MAX_ATTEMPTS: Final = 1000
"""Runs of a job that may fail. With a backoff of an hour, which is the longest by default, they take six
weeks."""
