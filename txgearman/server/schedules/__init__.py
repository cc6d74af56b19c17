"""The schedules of a server: what makes them tick and changes them, and the packet that adds one."""
