"""``txgearmand``, which takes gearmand's place."""
