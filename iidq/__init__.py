"""iidq answers "is this file what its creator registered?" for anyone who asks over HTTP.

The map, in the order in which it is best read:

1. ``queue/job.py``: a job, its states, the legal transitions.
2. ``queue/queries.sql`` and ``migrations/``: the table that is the queue, and every statement on it.
3. ``queue/processing/loop.py`` → ``queue/processing/execution.py``: one worker: claim, run, store.
   ``queue/notify/`` wakes it, ``queue/upkeep.py`` handles expired leases, due retries and old jobs.
4. ``provenance/verify.py``: the verification, step by step; ``provenance/verdict.py`` weighs the evidence.
   ``provenance/ethereum/`` and ``provenance/ipfs/`` fetch it, through ``guarded_http/``.
5. ``web/app.py``: the routes; ``web/request/uploads.py`` hashes a file while it streams in;
   ``web/request/submission.py`` makes a job of it. ``web/pages/``: the pages for browsers.
6. ``webhooks/deliverer.py``: the report of a job's end to the URL that its submitter named.
7. ``worker.py``: where queue, provenance and webhooks meet. ``cli/`` and ``embedded/``: the commands and the
   processes that they start.
8. ``redis/accelerator.py``: work that Redis makes faster, and its replacement without Redis.

``queue`` knows jobs but not content, ``provenance`` knows content but not jobs, ``web`` speaks HTTP. ``errors.py`` has
every error, ``settings.py`` every variable, ``observability/`` every log event and metric, ``database/`` every
connection.
"""

__version__ = "0.1.0"
