"""Sockets, and nothing of Gearman: what the connections of all roles need of them beside Twisted.

No module here decides what is sent; `endpoints` listens, `polling` tells who can read and write.
"""
