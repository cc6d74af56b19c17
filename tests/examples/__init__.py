"""Tests of the programs in examples/ that are not documented beside other pages' tests."""
