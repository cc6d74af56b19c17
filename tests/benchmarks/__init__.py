"""Tests of the benchmarks' own programs."""
