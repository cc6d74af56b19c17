"""Bytes to packets and back. No I/O, no clock, no Twisted, no decisions about jobs."""
