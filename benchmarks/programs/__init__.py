"""The programs that the libraries' rates are taken of: one file for each library, each a process of its own.

Each is run as ``python -m benchmarks.programs.NAME ROLE PORT JOBS`` and prints one JSON object: the measured
jobs, their seconds, and the CPU seconds of the process in them. Never here: comparing, starting servers.
"""
