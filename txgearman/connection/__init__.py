"""What client and worker share: one connection to a server, and the checks of callers' arguments.

Requests and jobs are in the rooms of the two roles.
"""
