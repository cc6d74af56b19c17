"""``txgearmand``: the server behind gearmand's command line, to take gearmand's place on a machine."""
