"""The documented name of `Keepalive`, which is defined in `txgearman.net.keepalive`."""

from txgearman.net.keepalive import Keepalive

__all__ = ["Keepalive"]
