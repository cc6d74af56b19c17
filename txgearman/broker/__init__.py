"""Who gets which job, and when.

Pure: no bytes on the wire, no Twisted, no I/O; time comes in by injection.
"""
