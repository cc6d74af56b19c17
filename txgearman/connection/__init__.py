"""What client and worker share: one connection to a server, and the checks of what callers pass.

No requests, no jobs: what is said on a connection is the business of the two roles.
"""
