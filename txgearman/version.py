"""The version of this package, for whoever must say it. setup.py reads this file."""

VERSION = "0.1.0"
