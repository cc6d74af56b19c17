"""Programs of others as clients and workers of our server, and the same expectations of gearmand.

The programs are Debian's ``gearman`` and ``gearadmin``, PHP's gearman extension, Perl's Gearman::Client and
Gearman::Worker, the Python packages ``gear`` and ``pygearman`` and the packages ``gearman`` and
``gearmanode`` of Node. Tests whose program is not installed are skipped and say so. No test lives in this
file.
"""
