"""One worker: claim jobs, run attempts under a lease, store outcomes."""
