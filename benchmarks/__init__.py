"""Comparing txgearman with gearmand. Tools of this repository, never imported by the package or installed."""
