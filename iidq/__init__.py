"""Verify over HTTP, by SQL or in a browser whether the creator of a file registered exactly these bytes.

The map, in reading order; ``docs/architecture.md`` has the pictures:

1. ``queue/job.py``: a job, the states, the legal transitions.
2. ``queue/queries.sql`` and ``migrations/``: the table that is the queue, and the statements on that table.
3. ``queue/processing/``: a worker's loop: claim, run, store. ``queue/notify/`` wakes the loop, ``queue/upkeep.py``
   handles expired leases, due retries and old jobs, ``queue/read/`` serves readers.
4. ``provenance/verify.py``: the verification, step by step; ``provenance/verdict.py`` weighs the evidence.
   ``provenance/ethereum/`` and ``provenance/ipfs/`` fetch the evidence, through ``guarded_http/``.
5. ``web/app.py``: the routes; ``web/request/`` hashes a file while the upload streams in, and makes a job of a request;
   ``web/pages/``: the pages for browsers.
6. ``webhooks/``: the report of a job's end to the URL of the submitter.
7. ``worker.py``: the meeting point of queue, provenance and webhooks. ``cli/`` and ``embedded/``: the commands, and the
   processes that they start.
8. ``redis/``: optional caches, hints and limits; ``bullmq/``: the queue under BullMQ's keys.

``queue`` handles jobs without content, ``provenance`` handles content without jobs, ``web`` speaks HTTP. ``errors.py``
has every error, ``settings.py`` every variable, ``observability/`` every log event and metric, ``database/`` every
connection, ``concurrency/`` the background tasks.
"""

__version__ = "0.1.0"
