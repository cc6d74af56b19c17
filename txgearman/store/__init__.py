"""Keeping background jobs where a crash does not reach them: what a store must do, and the databases.

SQL is here and nowhere else. Everything here blocks; `txgearman.server.persistence` calls it from a thread.
"""
