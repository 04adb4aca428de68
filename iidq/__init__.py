"""iidq answers "is this file what its creator registered?" for anyone who asks over HTTP.

The map, in the order in which it is best read:

1. ``queue/job.py``: what a job is, the states it passes through, which transitions are legal.
2. ``queue/queries.sql`` and ``migrations/``: the table that is the queue, and every statement on it.
3. ``queue/loop.py`` → ``queue/execution.py``: one worker: claim, run, store. ``queue/leases.py`` keeps its leases,
   ``queue/listener.py`` wakes it, ``queue/upkeep.py`` does what time alone brings about.
4. ``provenance/verify.py``: the verification, step by step; ``provenance/verdict.py`` weighs the evidence.
5. ``web/app.py``: the routes; ``web/uploads.py`` hashes a file while it streams in; ``web/submission.py`` makes a job
   of it; ``queue/watching.py`` tells those who wait for it. ``web/pages/``: what a browser gets.
6. ``webhooks/deliverer.py``: a job's end, told to whoever asked for it.
7. ``worker.py``: where queue, provenance and webhooks meet. ``cli/`` and ``embedded/``: the commands, and what they
   start.
8. ``accelerator/accelerator.py``: what Redis makes faster, and what goes on without it.

``queue`` knows jobs but not content, ``provenance`` knows content but not jobs, ``web`` speaks HTTP. ``errors.py`` has
every error, ``settings.py`` every variable, ``logs.py`` every event, ``metrics.py`` every metric, ``database.py`` every
connection; ``held_connection.py`` and ``statement.py`` are its short way for many small statements.
"""

__version__ = "0.1.0"
