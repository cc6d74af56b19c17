"""Comparing txgearman with gearmand and with other clients and workers.

Tools of this repository, never imported by the package or installed.
"""
