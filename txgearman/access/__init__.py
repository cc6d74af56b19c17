"""Who may do what: the rules of the access policy, who a peer is, and patterns of names.

Nothing here is asked by itself: the server's `guard`, its admin commands and its web side ask.
"""
