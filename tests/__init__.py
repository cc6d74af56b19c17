"""The tests: they run under ``pytest`` (with pytest-twisted) and under ``trial tests``."""

from tests import trial_workers

trial_workers.cut_long_lines()
