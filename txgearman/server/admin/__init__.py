"""The admin lines: what an administrator asks by text on a connection, and the answers."""
