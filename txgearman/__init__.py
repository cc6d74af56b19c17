"""The Gearman job system for Twisted: a job server, a client and a worker."""

__version__ = "0.1.0"
