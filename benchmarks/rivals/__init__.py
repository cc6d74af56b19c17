"""txgearman beside other job systems for Python: Celery, RQ, Dramatiq, Huey and arq on Redis.

``on_*.py`` is one job system each: its jobs and its client, and the worker of txgearman's. contract.py is
what each of them gives. catalogue.py lists them with the command lines of workers. client.py and worker.py
are processes of clients and workers, jobs.py is what all jobs have.

run.py is the command: measure.py makes one measurement with brokers.py and processes.py, and results.py and
tables.py make of it what is printed.
"""
