"""The tests: they run under ``pytest`` (with pytest-twisted) and under ``trial tests``."""
